"""Peers, heads, generations, assistants and stages."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import log_softmax, softmax
from scipy.stats import entropy

from tests.distill.models import IMAGES, LABELS, X, Y, compiled, conv, dense, keras
from tfcompress.distill import (
    DecoupledLogits,
    Distiller,
    Features,
    Logits,
    MutualLearning,
    Progressive,
    SelfDistiller,
    Stage,
    born_again,
    through_assistants,
)


def parts(model, temperature=1.0):
    logits = np.asarray(model(X), "float64")
    return -log_softmax(logits, -1)[np.arange(24), Y], softmax(logits / temperature, -1)


def test_each_peer_learns_from_labels_and_from_all_others():
    peers = [dense(4), dense(5), dense(6)]
    learning = compiled(MutualLearning(peers, Logits(2.0), weight=0.5), metrics=["accuracy"])
    found = learning.evaluate(X, Y, verbose=0, return_dict=True)
    task, answers = zip(*(parts(peer, 2.0) for peer in peers), strict=True)
    told = sum(4 * entropy(p, q, axis=-1).mean() for p in answers for q in answers) / 2
    np.testing.assert_allclose(found["student_loss"], sum(t.mean() for t in task), rtol=1e-4)
    np.testing.assert_allclose(found["distillation_loss"], 0.5 * told, rtol=1e-3)
    np.testing.assert_allclose(found["loss"], found["student_loss"] + found["distillation_loss"], rtol=1e-5)
    for number, peer in enumerate(peers):
        np.testing.assert_allclose(found[f"peer_{number}_accuracy"], np.mean(np.argmax(peer(X), -1) == Y), rtol=1e-5)


def test_peers_come_closer_and_gradients_flow_into_the_learner_alone():
    peers = [dense(4), dense(5)]
    learning = compiled(MutualLearning(peers, Logits(1.0), weight=20.0), optimizer=keras.optimizers.Adam(0.02))
    before = [peer.get_weights()[0].copy() for peer in peers]
    weight = np.ones(24, "float32")
    history = learning.fit(X, Y, sample_weight=weight, epochs=8, verbose=0).history["distillation_loss"]
    assert history[-1] < 0.5 * history[0]
    assert all(np.abs(peer.get_weights()[0] - old).max() > 0.01 for peer, old in zip(peers, before, strict=True))


def divergence(told, logits, temperature, weight):
    """T^2 KL of two tensors of logits, weighed, as TensorFlow writes it."""
    p = tf.nn.log_softmax(told / temperature)
    apart = tf.reduce_sum(tf.exp(p) * (p - tf.nn.log_softmax(logits / temperature)), -1)
    return temperature**2 * tf.reduce_mean(apart * weight)


def moved(model, gradients, before, rate):
    for weight, gradient, now in zip(before, gradients, model.get_weights(), strict=True):
        np.testing.assert_allclose(now, weight - rate * gradient, rtol=1e-4, atol=2e-6)


def network(x, weights):
    return tf.nn.relu(x @ weights[0] + weights[1]) @ weights[2] + weights[3]


WEIGHT = np.linspace(0, 2, 24).astype("float32")


def named(width):
    """As `dense`; its only output is the only entry of a dict."""
    model = dense(width)
    return keras.Model(model.inputs, {"out": model.outputs[0]})


KINDS = pytest.mark.parametrize(("made", "labels"), [(dense, Y), (named, Y), (named, {"out": Y})])


@KINDS
def test_a_step_of_peers_follows_the_gradient_of_what_each_learns(made, labels):
    peers = [made(4), made(5)]
    before = [[tf.Variable(w) for w in peer.get_weights()] for peer in peers]
    compiled(MutualLearning(peers, Logits(2.0), weight=3.0), rate=0.1).fit(
        X, labels, batch_size=24, sample_weight=WEIGHT, verbose=0
    )
    answers = [network(X, weights) for weights in before]  # constants for the one that learns
    for mine, other in ((0, 1), (1, 0)):
        with tf.GradientTape() as tape:
            logits = network(X, before[mine])
            task = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(Y, logits) * WEIGHT)
            whole = task + 3 * divergence(answers[other], logits, 2.0, WEIGHT)
        moved(peers[mine], tape.gradient(whole, before[mine]), before[mine], 0.1)


@KINDS
def test_a_step_of_heads_leaves_the_answers_that_they_learn_from_alone(made, labels):
    model = made(5)
    distiller = compiled(SelfDistiller(model, ["hidden"], Logits(2.0), alpha=0.25, hidden=0), rate=0.1)
    before = [tf.Variable(w) for w in model.get_weights()]
    head = [tf.Variable(w) for w in distiller.heads[0].get_weights()]
    distiller.fit(X, labels, batch_size=24, sample_weight=WEIGHT, verbose=0)
    told = network(X, before)
    with tf.GradientTape() as tape:
        inner = tf.nn.relu(X @ before[0] + before[1]) @ head[0] + head[1]
        task, labeled = (
            tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(Y, z) * WEIGHT)
            for z in (network(X, before), inner)
        )
        whole = task + 0.75 * labeled + 0.25 * divergence(told, inner, 2.0, WEIGHT)
    gradients = tape.gradient(whole, [*before, *head])
    moved(model, gradients[:4], before, 0.1)
    moved(distiller.heads[0], gradients[4:], head, 0.1)


def test_all_that_is_given_may_be_under_the_outputs_name():
    peers = [named(4), named(5)]
    cases = [(MutualLearning(peers), ("peer_0_", "peer_1_")), (SelfDistiller(peers[0], ["hidden"]), ("",))]
    for model, names in cases:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        weighted = keras.metrics.SparseCategoricalCrossentropy("weighted", from_logits=True)
        metrics = {"metrics": {"out": ["accuracy"]}, "weighted_metrics": {"out": weighted}}
        model.compile("sgd", {"out": loss}, **metrics, run_eagerly=True)
        found = model.evaluate(X, {"out": Y}, sample_weight={"out": WEIGHT}, verbose=0, return_dict=True)
        tasks = []
        for name, peer in zip(names, peers, strict=False):
            logits = network(X, [tf.constant(w) for w in peer.get_weights()]).numpy()
            tasks.append(-log_softmax(logits, -1)[np.arange(24), Y] @ WEIGHT)
            np.testing.assert_allclose(found[f"{name}accuracy"], np.mean(logits.argmax(-1) == Y), rtol=1e-5)
            np.testing.assert_allclose(found[f"{name}weighted"], tasks[-1] / WEIGHT.sum(), rtol=1e-4)
        np.testing.assert_allclose(found["student_loss"], sum(tasks) / 24, rtol=1e-4)


def test_losses_that_need_labels_find_them_under_the_outputs_name():
    peers, loss = [named(4), named(5)], DecoupledLogits(1.0, alpha=1.0, beta=0.0)  # the label's class against the rest
    distiller = SelfDistiller(peers[0], ["hidden"], loss, hidden=0)
    kernel, bias, *_ = weights = peers[0].get_weights()
    head = np.maximum(X @ kernel + bias, 0) @ distiller.heads[0].get_weights()[0]
    answers = [network(X, [tf.constant(w) for w in given]) for given in (weights, peers[1].get_weights())]
    one, other, inner = (softmax(z, -1)[np.arange(24), Y] for z in (*answers, head))
    for model, pairs in ((MutualLearning(peers, loss), [(one, other), (other, one)]), (distiller, [(one, inner)])):
        found = compiled(model).evaluate(X, {"out": Y}, verbose=0, return_dict=True)["distillation_loss"]
        expected = sum(entropy([p, 1 - p], [q, 1 - q]).mean() for p, q in pairs)
        np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_what_is_for_several_outputs_is_not_for_peers():
    learning = MutualLearning([named(4), named(5)])
    with pytest.raises(ValueError, match=r"`loss` must be one, for peers have one output each. Received: 2 of them"):
        learning.compile("sgd", {"out": "mse", "other": "mse"})
    for argument in ("metrics", "weighted_metrics"):
        with pytest.raises(ValueError, match=f"`{argument}` must be one"):
            learning.compile("sgd", "mse", **{argument: {"out": "mae", "other": "mae"}})
    with pytest.raises(ValueError, match="`y` must be one"):
        compiled(learning).fit(X, {"out": Y, "other": Y}, verbose=0)
    with pytest.raises(ValueError, match="`y` must be given"):
        compiled(learning).fit(X, verbose=0)


def test_what_is_no_peer():
    one = dense()
    for peers in ([one], [one, one]):
        with pytest.raises(ValueError, match="`peers` must be at least two models, each once"):
            MutualLearning(peers)
    with pytest.raises(ValueError, match="outputs of one shape"):
        MutualLearning([dense(), dense(classes=4)])
    for weight in (-1, float("nan"), True, "much"):
        with pytest.raises(ValueError, match="`weight` must be a number from 0 on"):
            MutualLearning([dense(), dense()], weight=weight)
    with pytest.raises(TypeError, match="a loss between answers"):
        MutualLearning([dense(), dense()], Features("hidden", "hidden"))


def test_heads_learn_from_labels_and_from_the_models_answers():
    model = dense(5)
    distiller = compiled(SelfDistiller(model, ["hidden"], Logits(2.0), alpha=0.25, hidden=0))
    found = distiller.evaluate(X, Y, verbose=0, return_dict=True)
    kernel, bias = model.get_layer("hidden").get_weights()
    head = np.maximum(X @ kernel + bias, 0) @ distiller.heads[0].get_weights()[0]
    task, answers = parts(model, 2.0)
    labeled = -log_softmax(head, -1)[np.arange(24), Y].mean()
    told = 4 * entropy(answers, softmax(head / 2, -1), axis=-1).mean()
    np.testing.assert_allclose(found["distillation_loss"], told, rtol=1e-3)
    np.testing.assert_allclose(found["student_loss"], task.mean(), rtol=1e-4)
    np.testing.assert_allclose(found["loss"], task.mean() + 0.75 * labeled + 0.25 * told, rtol=1e-3)


def test_heads_read_the_mean_of_what_counts():
    tokens = np.array([[1, 2, 0, 0], [3, 1, 2, 0], [2, 2, 1, 3]])
    inputs = keras.Input((4,), dtype="int32")
    x = keras.layers.Embedding(4, 5, mask_zero=True, name="embedded")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling1D()(x)))
    distiller = compiled(SelfDistiller(model, ["embedded"], Logits(1.0), hidden=0))
    kernel, bias = distiller.heads[0].get_weights()
    table = model.get_layer("embedded").get_weights()[0]
    means = np.stack([table[row[row > 0]].mean(0) for row in tokens])
    found = distiller.evaluate(tokens, np.zeros(3), verbose=0, return_dict=True)
    told = entropy(softmax(model(tokens).numpy(), -1), softmax(means @ kernel + bias, -1), axis=-1).mean()
    np.testing.assert_allclose(found["distillation_loss"], told, rtol=1e-3)


def test_heads_are_dropped(tmp_path):
    model = conv(4, activation="softmax")
    distiller = compiled(SelfDistiller(model, ["conv"]), logits=False, metrics=["accuracy"])
    before = distiller.heads[0].get_weights()[0].copy()
    distiller.fit(IMAGES, LABELS, verbose=0)
    assert np.abs(distiller.heads[0].get_weights()[0] - before).max() > 0
    distiller.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.count_params() == conv(4).count_params()
    np.testing.assert_allclose(loaded(IMAGES), model(IMAGES), rtol=1e-5)


def test_what_has_no_heads():
    with pytest.raises(ValueError, match="`exits` must be a list"):
        SelfDistiller(dense(), "hidden")
    for alpha in (2, -0.1, float("nan"), "half"):
        with pytest.raises(ValueError, match="`alpha` must be a number from 0 to 1"):
            SelfDistiller(dense(), ["hidden"], alpha=alpha)
    for hidden in (-1, 2.5, True):
        with pytest.raises(ValueError, match="`hidden` must be a whole number from 0 on"):
            SelfDistiller(dense(), ["hidden"], hidden=hidden)
    segmenting = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(3, 1, name="out")])
    with pytest.raises(ValueError, match=r"one output of shape \[batch, classes\]"):
        SelfDistiller(segmenting, ["out"])


def recorded():
    """A `train` that notes who taught, and does nothing else."""
    taught = []

    def train(distiller):
        taught.append((distiller.teacher, distiller.student))

    return taught, train


def test_each_generation_is_taught_by_the_one_before():
    taught, train = recorded()
    teacher = dense()
    students = born_again(teacher, lambda: dense(4), train, generations=np.int64(3))
    assert [t.model for t, _ in taught] == [teacher, *students[:2]]
    assert [s for _, s in taught] == students and len({id(s) for s in students}) == 3
    with pytest.raises(ValueError, match="`generations` must be a whole number from 1 on"):
        born_again(teacher, dense, train, generations=0)
    for losses in ([], "kl"):
        with pytest.raises((TypeError, ValueError), match="`distillation_losses`"):
            born_again(teacher, dense, train, losses=losses)


def test_assistants_stand_between():
    taught, train = recorded()
    teacher, assistant, student = dense(9), dense(6), dense(3)
    assert through_assistants(teacher, [assistant, lambda: student], train) == [assistant, student]
    assert [t.model for t, _ in taught] == [teacher, assistant]
    through_assistants(teacher, [assistant, student], train, dense=True)
    assert [t.model for t in taught[-1][0].teachers] == [teacher, assistant]
    with pytest.raises(ValueError, match="at least one model"):
        through_assistants(teacher, [], train)
    with pytest.raises(ValueError, match="`distillation_losses`"):
        through_assistants(teacher, [student], train, losses=[])


def test_the_task_weighs_as_asked_for_in_every_generation():
    found = []

    def train(distiller):
        found.append(compiled(distiller).evaluate(X, Y, verbose=0, return_dict=True))

    born_again(dense(9), lambda: dense(4), train, generations=2, student_loss_weight=0.2)
    through_assistants(dense(9), [dense(6), dense(3)], train, student_loss_weight=0.2)
    assert len(found) == 4
    for one in found:
        expected = 0.2 * one["student_loss"] + 0.8 * one["distillation_loss"]
        np.testing.assert_allclose(one["loss"], expected, rtol=1e-5)
        assert abs(one["loss"] - 0.5 * one["student_loss"] - 0.5 * one["distillation_loss"]) > 0.01


def test_losses_may_be_made_for_each_pair():
    taught, train = recorded()
    through_assistants(
        dense(9), [dense(6), dense(3)], train, losses=lambda teacher, student: [Logits(), Features("hidden", "hidden")]
    )
    assert len(taught) == 2


def test_a_student_is_trained_in_generations():
    def train(distiller):
        compiled(distiller).fit(X, Y, verbose=0)

    students = born_again(dense(), lambda: dense(4), train, generations=2)
    assert np.isfinite(Distiller(students, dense(), Logits()).teacher(tf.constant(X))[0]).all()


def test_stages_change_what_counts():
    distiller = compiled(Distiller(dense(9), dense(4), [Features("hidden", "hidden"), Logits(2.0)]), rate=0.0)
    stages = Progressive([Stage(0, [1.0, 0.0], 0.0), Stage(2, [0.0, 2.0], 0.25)])
    history = distiller.fit(X, Y, batch_size=24, epochs=4, verbose=0, callbacks=[stages]).history
    told = np.array(history["distillation_loss"])
    np.testing.assert_allclose(told[[0, 2]], told[[1, 3]], rtol=1e-5)
    answers = (parts(model, 2.0)[1] for model in (distiller.teacher.model, distiller.student))
    np.testing.assert_allclose(told[2], 2 * 4 * entropy(*answers, axis=-1).mean(), rtol=1e-3)
    np.testing.assert_allclose(history["loss"][0], told[0], rtol=1e-5)
    np.testing.assert_allclose(history["loss"][3], 0.25 * history["student_loss"][3] + 0.75 * told[3], rtol=1e-5)


def test_stages_that_are_taken_up_count_as_if_they_had_gone_through():
    stages = [Stage(0, [1.0, 0.0], 0.0), Stage(2, [0.0, 1.0]), Stage(3, [1.0, 1.0], 0.25)]
    for first, last, weight in ((0, 3, 0.0), (2, 3, 0.0), (2, 4, 0.25)):
        distiller = compiled(Distiller(dense(9), dense(4), [Features("hidden", "hidden"), Logits(2.0)]))
        distiller.fit(X, Y, initial_epoch=first, epochs=last, verbose=0, callbacks=[Progressive(stages)])
        assert distiller.student_loss_weight == weight


def test_stages_in_order():
    for stages in ([], [Stage(1, [1.0])], [Stage(0, [1.0]), Stage(0, [1.0])], [Stage(0, [1.0]), Stage(0.5, [1.0])]):
        with pytest.raises(ValueError, match="`stages` must begin at epoch 0"):
            Progressive(stages)
    distiller, epochs = compiled(Distiller(dense(9), dense(4), Logits(), [3.0])), []
    seen = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: epochs.append(epoch))
    for wrong in (Stage(1, [1.0, 2.0]), Stage(1, [1.0], 2), Stage(1, [1.0], "1")):
        with pytest.raises((TypeError, ValueError), match="`stages` from epoch 1 on: `"):
            distiller.fit(X, Y, epochs=3, verbose=0, callbacks=[seen, Progressive([Stage(0, [1.0], 0.1), wrong])])
    assert epochs == [] and (distiller.distillation_loss_weights, distiller.student_loss_weight) == ([3.0], 0.5)
    with pytest.raises(TypeError, match=r"must be used with a `Distiller`. Received: Functional"):
        compiled(dense()).fit(X, Y, verbose=0, callbacks=[Progressive([Stage(0, [1.0])])])
