"""One `fit`: what is minimized, what is trained, what is saved, and what Keras offers besides."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import log_softmax, softmax
from scipy.stats import entropy

from tests.distill.models import IMAGES, LABELS, X, Y, compiled, conv, dense, keras, layers, own
from tfcompress.distill import (
    AttentionMatrices,
    AttentionTransfer,
    Contrastive,
    Cosine,
    DecoupledLogits,
    Distiller,
    Features,
    JensenShannon,
    Logits,
    RelationalAngle,
    RelationalDistance,
    ReverseLogits,
    SimilarityPreserving,
)


def closed_form(teacher, student, temperature=2.0, weight=None):
    """Cross entropy of the labels and T^2 KL, each the mean over rows, by scipy."""
    weight = np.ones(len(Y)) if weight is None else weight
    logits = np.asarray(student(X), "float64")
    task = -log_softmax(logits, -1)[np.arange(len(Y)), Y]
    p, q = (softmax(z / temperature, -1) for z in (np.asarray(teacher(X), "float64"), logits))
    return np.mean(task * weight), np.mean(temperature**2 * entropy(p, q, axis=-1) * weight)


def test_the_loss_is_the_weighted_sum_and_both_parts_are_metrics():
    teacher, student = dense(9), dense(4)
    distiller = compiled(Distiller(teacher, student, Logits(2.0), [3.0], 0.25))
    task, told = closed_form(teacher, student)
    found = distiller.evaluate(X, Y, verbose=0, return_dict=True)
    np.testing.assert_allclose(found["student_loss"], task, rtol=1e-5)
    np.testing.assert_allclose(found["distillation_loss"], 3 * told, rtol=1e-4)
    np.testing.assert_allclose(found["loss"], 0.25 * task + 0.75 * 3 * told, rtol=1e-4)


def test_sample_weight_and_class_weight_weigh_both_losses():
    teacher, student = dense(9), dense(4)
    distiller = compiled(Distiller(teacher, student, Logits(2.0)), rate=0.0)
    weight = np.linspace(0, 2, len(Y)).astype("float32")
    found = distiller.evaluate(X, Y, sample_weight=weight, verbose=0, return_dict=True)
    task, told = closed_form(teacher, student, weight=weight)
    np.testing.assert_allclose(found["distillation_loss"], told, rtol=1e-4)
    np.testing.assert_allclose(found["student_loss"], task, rtol=1e-4)
    classes = {0: 1.0, 1: 0.5, 2: 4.0}
    history = distiller.fit(X, Y, class_weight=classes, verbose=0).history
    task, told = closed_form(teacher, student, weight=np.array([classes[int(c)] for c in Y]))
    np.testing.assert_allclose(history["distillation_loss"], [told], rtol=1e-4)
    np.testing.assert_allclose(history["student_loss"], [task], rtol=1e-4)


def test_a_step_follows_the_gradient_of_that_sum():
    teacher, student = dense(9), dense(4)
    before = [tf.Variable(w) for w in student.get_weights()]
    distiller = compiled(Distiller(teacher, student, Logits(2.0), None, 0.25), rate=0.5)
    distiller.fit(X, Y, batch_size=24, verbose=0)
    with tf.GradientTape() as tape:
        logits = tf.nn.relu(X @ before[0] + before[1]) @ before[2] + before[3]
        task = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(Y, logits))
        p = tf.nn.softmax(teacher(X) / 2.0)
        told = tf.reduce_mean(tf.reduce_sum(p * (tf.math.log(p) - tf.nn.log_softmax(logits / 2.0)), -1))
        whole = 0.25 * task + 0.75 * 4.0 * told
    gradients = tape.gradient(whole, before)
    for weight, gradient, now in zip(before, gradients, student.get_weights(), strict=True):
        np.testing.assert_allclose(now, weight - 0.5 * gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("teacher", "student"), [("softmax", None), (None, "softmax"), ("softmax", "softmax")])
def test_logits_and_probabilities_teach_alike(teacher, student):
    keras.utils.set_random_seed(4)
    plain = dense(9), dense(4)
    ended = dense(9, teacher), dense(4, student)
    for one, other in zip(plain, ended, strict=True):
        other.set_weights(one.get_weights())
    losses = []
    for pair in (plain, ended):
        distiller = compiled(Distiller(*pair, Logits(4.0), None, 0.0), logits=pair[1] is plain[1] or student is None)
        losses.append(distiller.evaluate(X, Y, verbose=0, return_dict=True)["distillation_loss"])
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_the_logits_in_front_of_a_softmax_are_compared_where_its_probabilities_are_lost():
    """200 logits apart, a probability is 0 in 32 bits; its logarithm and its gradient would be lost."""
    inputs = keras.Input((3,))
    student = keras.Model(inputs, layers.Softmax()(layers.Rescaling(200.0, name="wide")(inputs)))
    logits = np.array([[1.0, 0.0, -1.0], [0.0, 1.0, 0.5]], "float32")
    distiller = Distiller(lambda x: 100 * x[:, ::-1], student, Logits(1.0), student_loss_weight=0.0)
    distiller.compile("sgd", run_eagerly=True)
    p, q = log_softmax(100 * logits[:, ::-1], -1), log_softmax(200 * logits, -1)
    expected = np.mean(np.sum(np.exp(p) * (p - q), -1))  # 400 and 100: T^2 KL of what is sure of the wrong class
    np.testing.assert_allclose(distiller.evaluate(logits, verbose=0, return_dict=True)["loss"], expected, rtol=1e-4)
    assert distiller.predict(logits, verbose=0).max() <= 1.0


def test_what_the_outputs_are_can_be_said():
    teacher = dense(9, "softmax")
    loss = Logits(1.0, from_logits=(False, True))
    distiller = Distiller(lambda x: teacher(x), dense(4), loss)
    assert distiller.distillation_losses[0].kinds == ("softmax", "logits")


@pytest.mark.parametrize("loss", [
    Logits(2.0), Logits(2.0, "cross_entropy"), Logits(1.0, "mse"), DecoupledLogits(), ReverseLogits(),
    JensenShannon(0.3), Features("conv", "conv"), Cosine("relu", "relu"), AttentionTransfer("relu", "relu"),
    RelationalDistance("relu", "relu"), RelationalAngle("relu", "relu"), SimilarityPreserving("relu", "relu"),
    Contrastive("relu", "relu"),
], ids=lambda loss: type(loss).__name__)  # fmt: skip
def test_every_loss_trains_a_student_of_another_width_and_size(loss):
    teacher, student = conv(6), conv(3, strides=2)
    distiller = compiled(Distiller(teacher, student, loss, None, 0.0), optimizer=keras.optimizers.Adam(0.02))
    history = distiller.fit(IMAGES, LABELS, batch_size=16, epochs=6, shuffle=False, verbose=0).history
    assert history["distillation_loss"][-1] < history["distillation_loss"][0]


def test_the_projection_is_trained_and_dropped(tmp_path):
    student = dense(4)
    distiller = compiled(Distiller(dense(9), student, Features("hidden", "hidden")))
    before = distiller.projections[0].get_weights()[0].copy()
    assert before.shape == (4, 9)
    distiller.fit(X, Y, verbose=0)
    assert np.abs(distiller.projections[0].get_weights()[0] - before).max() > 1e-5
    distiller.save(tmp_path / "student.keras")
    loaded = keras.models.load_model(tmp_path / "student.keras")
    assert loaded.count_params() == dense(4).count_params() == student.count_params()
    np.testing.assert_allclose(loaded(X), student(X), rtol=1e-6)
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in student.layers]


def test_the_teacher_is_never_changed():
    teacher, student = conv(6), conv(3)
    before, trainable = [w.copy() for w in teacher.get_weights()], len(teacher.trainable_weights)
    distiller = compiled(Distiller(teacher, student, [Logits(), Features("conv", "conv")]))
    distiller.fit(IMAGES, LABELS, verbose=0)
    for a, b in zip(before, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(teacher.trainable_weights) == trainable
    mine = {id(w) for w in distiller.weights}
    assert not mine & {id(w) for w in teacher.weights}
    assert "call" not in vars(teacher.get_layer("conv"))
    assert not np.allclose(student.get_layer("norm").get_weights()[2], 0)  # the student's statistics moved


def test_callbacks_see_an_ordinary_model(tmp_path):
    student = dense(4)
    distiller = compiled(Distiller(dense(9), student, Logits()), metrics=["accuracy"])
    stop = keras.callbacks.EarlyStopping("val_loss", patience=0, restore_best_weights=True)
    kept = keras.callbacks.ModelCheckpoint(str(tmp_path / "best.keras"), monitor="val_accuracy", save_best_only=True)
    history = distiller.fit(X, Y, validation_data=(X, Y), epochs=2, verbose=0, callbacks=[stop, kept]).history
    assert {"accuracy", "val_accuracy", "val_student_loss", "val_distillation_loss", "loss"} <= set(history)
    assert keras.models.load_model(tmp_path / "best.keras").count_params() == student.count_params()
    np.testing.assert_allclose(distiller.predict(X, verbose=0), student(X), rtol=1e-4, atol=1e-6)


def test_labels_are_not_needed_when_the_teacher_alone_counts():
    teacher, student = dense(9), dense(4)
    distiller = Distiller(teacher, student, Logits(2.0), student_loss_weight=0.0)
    distiller.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    history = distiller.fit(X, epochs=3, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    np.testing.assert_allclose(history["loss"], history["distillation_loss"], rtol=1e-6)


def test_the_students_own_losses_are_added_once():
    student = dense(4)
    inputs = keras.Input((6,))
    hidden = layers.Dense(4, kernel_regularizer=keras.regularizers.L2(0.1))(inputs)
    student = keras.Model(inputs, layers.Dense(3)(hidden))
    found = compiled(Distiller(dense(9), student, Logits(), None, 0.25)).evaluate(X, Y, verbose=0, return_dict=True)
    penalty = 0.1 * np.sum(student.get_weights()[0] ** 2)
    np.testing.assert_allclose(
        found["loss"], 0.25 * found["student_loss"] + 0.75 * found["distillation_loss"] + penalty, rtol=1e-5
    )


def two_outputs(width, names=("kind", "tags"), as_dict=False):
    inputs = keras.Input((6,))
    h = layers.Dense(width, "relu", name="hidden")(inputs)
    kind = layers.Dense(3, "softmax", name=names[0])(h)
    tags = layers.Dense(2, "sigmoid", name=names[1])(h)
    return keras.Model(inputs, {names[0]: kind, names[1]: tags} if as_dict else [kind, tags])


def kind_and_tags(teacher, student, temperature):
    """Divergences [batch] of the outputs of two such models; the temperature is that of "kind"."""
    (pk, pt), (qk, qt) = ([np.asarray(t, "float64") for t in tf.nest.flatten(m(X))] for m in (teacher, student))
    p, q = (softmax(np.log(values) / temperature, -1) for values in (pk, qk))
    yes = np.sum(pt * np.log(pt / qt) + (1 - pt) * np.log((1 - pt) / (1 - qt)), -1)
    return temperature**2 * entropy(p, q, axis=-1), yes


@pytest.mark.parametrize("as_dict", [False, True])
def test_several_outputs_each_with_its_loss(as_dict):
    teacher, student = two_outputs(9, as_dict=as_dict), two_outputs(4, as_dict=as_dict)
    losses = [Logits(2.0, output="kind"), Logits(1.0, output="tags")]
    distiller = Distiller(teacher, student, losses, [1.0, 2.0], 0.5)
    assert [loss.kinds[0] for loss in distiller.distillation_losses] == ["softmax", "sigmoid"]
    tags = (np.random.default_rng(0).random((24, 2)) > 0.5).astype("float32")
    by_name = {"kind": "sparse_categorical_crossentropy", "tags": "binary_crossentropy"}
    distiller.compile("sgd", by_name if as_dict else list(by_name.values()), run_eagerly=True)
    y = {"kind": Y, "tags": tags} if as_dict else [Y, tags]
    found = distiller.evaluate(X, y, verbose=0, return_dict=True)
    of_kind, of_tags = kind_and_tags(teacher, student, 2.0)
    np.testing.assert_allclose(found["distillation_loss"], np.mean(of_kind + 2 * of_tags), rtol=1e-3)
    distiller.fit(X, y, verbose=0)
    with pytest.raises(ValueError, match=r"`output` must say which of the 2 outputs"):
        Distiller(teacher, student, Logits())
    with pytest.raises(ValueError, match=r"`output` must be one of .*'kind'.*Received: output='other'"):
        Distiller(teacher, student, Logits(output="other"))


@pytest.mark.skipif(hasattr(keras, "distillation"), reason="Keras 3 wants weights for all outputs or none")
def test_weights_of_one_output_are_not_those_of_another():
    teacher, student = two_outputs(9, as_dict=True), two_outputs(4, as_dict=True)
    distiller = Distiller(teacher, student, [Logits(2.0, output="kind"), Logits(1.0, output="tags")])
    distiller.compile("sgd", {"kind": "sparse_categorical_crossentropy", "tags": "mse"}, run_eagerly=True)
    weight = np.linspace(0, 2, 24).astype("float32")
    found = distiller.evaluate(
        X, {"kind": Y, "tags": np.zeros((24, 2))}, sample_weight={"tags": weight}, verbose=0, return_dict=True
    )
    of_kind, of_tags = kind_and_tags(teacher, student, 2.0)
    np.testing.assert_allclose(found["distillation_loss"], np.mean(of_kind + of_tags * weight), rtol=1e-3)


def test_labels_of_one_output_are_not_those_of_another():
    teacher, student = two_outputs(9, as_dict=True), two_outputs(4, as_dict=True)
    distiller = Distiller(teacher, student, DecoupledLogits(4.0, output="kind"))
    distiller.compile("sgd", {"tags": "mse"}, run_eagerly=True)
    with pytest.raises(ValueError, match="`DecoupledLogits` needs labels"):
        distiller.evaluate(X, {"tags": np.zeros((24, 2))}, verbose=0)


def test_a_name_is_no_place_in_outputs_that_have_no_order():
    one, other = two_outputs(9, names=("zz", "yy")), two_outputs(4, as_dict=True)
    for teacher, student, wanted in ((one, other, "tags"), (other, one, "zz")):
        with pytest.raises(ValueError, match=rf"`output` must be one of .*Received: output='{wanted}'"):
            Distiller(teacher, student, Logits(output=wanted))
    found = Distiller(one, two_outputs(4), Logits(output="kind"))
    assert found.distillation_losses[0].kinds == ("softmax", "softmax")


def test_regression_and_one_yes_or_no():
    student = dense(4, classes=1)
    loss = Logits(1.0, "mse")
    distiller = Distiller(lambda x: x[:, :1], student, loss, student_loss_weight=0.0)
    distiller.compile("sgd", run_eagerly=True)
    found = distiller.evaluate(X, verbose=0, return_dict=True)["distillation_loss"]
    np.testing.assert_allclose(found, np.mean((X[:, :1] - student(X)) ** 2), rtol=1e-5)
    teacher, student = dense(9, "sigmoid", 1), dense(4, "sigmoid", 1)
    distiller = Distiller(teacher, student, Logits(1.0), student_loss_weight=0.0)
    distiller.compile("sgd", run_eagerly=True)
    p, q = (np.asarray(m(X), "float64")[:, 0] for m in (teacher, student))
    expected = np.mean(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))
    np.testing.assert_allclose(distiller.evaluate(X, verbose=0, return_dict=True)["loss"], expected, rtol=1e-3)


def test_dense_predictions_are_averaged_over_pixels():
    def segmenting(width):
        return keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(width, 3, padding="same"), layers.Conv2D(3, 1)])

    teacher, student = segmenting(5), segmenting(2)
    labels = np.random.default_rng(0).integers(0, 3, (16, 8, 8))
    distiller = compiled(Distiller(teacher, student, Logits(2.0), None, 0.5))
    found = distiller.evaluate(IMAGES, labels, verbose=0, return_dict=True)
    p, q = (softmax(np.asarray(m(IMAGES), "float64") / 2, -1) for m in (teacher, student))
    np.testing.assert_allclose(found["distillation_loss"], 4 * np.mean(entropy(p, q, axis=-1)), rtol=1e-4)
    distiller.fit(IMAGES, labels, verbose=0)


def test_a_subclassed_student_with_a_tap():
    student = own(5)
    distiller = compiled(Distiller(own(8), student, [Logits(), Features("first", "first")]))
    before = [w.copy() for w in student.get_weights()]
    distiller.fit(X, Y, verbose=0)
    assert all(np.abs(a - b).max() > 0 for a, b in zip(before, student.get_weights(), strict=True))


def test_attention_matrices_of_other_heads():
    def attending(heads):
        inputs = keras.Input((5, 4))
        x = layers.MultiHeadAttention(heads, 3, name="attention")(inputs, inputs)
        return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))

    x = np.random.default_rng(0).normal(size=(8, 5, 4)).astype("float32")
    teacher, student = attending(4), attending(2)
    losses = AttentionMatrices("attention", student.get_layer("attention"))
    distiller = compiled(Distiller(teacher, student, losses, None, 0.0))
    found = distiller.evaluate(x, np.zeros(8), verbose=0, return_dict=True)["distillation_loss"]
    both = [m.get_layer("attention")(x, x, return_attention_scores=True) for m in (teacher, student)]
    scores = [matrix.numpy().mean(1) for _, matrix in both]
    np.testing.assert_allclose(found, np.mean((scores[0] - scores[1]) ** 2), rtol=1e-4)


OPTIONS = [{"jit_compile": False}, {"jit_compile": True}, {"steps_per_execution": 3, "jit_compile": False}]


def test_compile_options_train_the_same_student():
    weights = []
    for chosen in ({"run_eagerly": True}, *OPTIONS):
        keras.utils.set_random_seed(2)
        losses = [Logits(2.0), Features("relu", "relu"), AttentionTransfer("conv", "conv")]
        distiller = Distiller(conv(5), conv(3, 2), losses)
        compiled(distiller, **chosen).fit(IMAGES[:12], LABELS[:12], batch_size=4, shuffle=False, verbose=0)
        weights.append(distiller.student.get_weights())
    for others in weights[1:]:
        for a, b in zip(weights[0], others, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_half_precision():
    previous = keras.mixed_precision.global_policy() if hasattr(keras.mixed_precision, "global_policy") else None
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        inputs = keras.Input((6,))
        h = layers.Dense(4, "relu", name="hidden")(inputs)
        student = keras.Model(inputs, layers.Activation("softmax", dtype="float32")(layers.Dense(3)(h)))
        distiller = Distiller(dense(9), student, [Logits(2.0), Features("hidden", "hidden")])
        assert distiller.distillation_losses[0].kinds == ("logits", "softmax")
        history = compiled(distiller, logits=False, jit_compile=False).fit(X, Y, epochs=3, verbose=0).history
    finally:
        keras.mixed_precision.set_global_policy(previous or "float32")
    assert np.isfinite(history["loss"]).all() and history["loss"][-1] < history["loss"][0]


def test_answers_of_32_bits_stay_so_among_layers_of_16():
    previous = keras.mixed_precision.global_policy() if hasattr(keras.mixed_precision, "global_policy") else None
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        inputs = keras.Input((6,))
        wide = layers.Rescaling(6.0, dtype="float32")(inputs)
        model = keras.Model(inputs, layers.Dense(3, "softmax", dtype="float32")(wide))
        teacher = keras.models.clone_model(model)
        teacher.set_weights(model.get_weights())
        distiller = Distiller(teacher, model, Logits(4.0), student_loss_weight=0.0)
        distiller.compile("sgd", run_eagerly=True)
        found = distiller.evaluate(X, verbose=0, return_dict=True)["distillation_loss"]
    finally:
        keras.mixed_precision.set_global_policy(previous or "float32")
    assert abs(found) < 1e-6


def test_a_smaller_last_batch_counts_by_its_rows():
    teacher, student = dense(9), dense(4)
    task, told = closed_form(teacher, student)
    distiller = compiled(Distiller(teacher, student, Logits(2.0), None, 0.25))
    found = distiller.evaluate(X, Y, batch_size=23, verbose=0, return_dict=True)  # 23 rows and 1
    np.testing.assert_allclose(found["student_loss"], task, rtol=1e-4)
    np.testing.assert_allclose(found["distillation_loss"], told, rtol=1e-4)
    np.testing.assert_allclose(found["loss"], 0.25 * task + 0.75 * told, rtol=1e-4)


def test_a_task_that_counts_needs_labels_and_a_loss():
    distiller = compiled(Distiller(dense(), dense(), Logits()))
    with pytest.raises(ValueError, match=r"`y` must be passed to fit, or `student_loss_weight` be 0.*Received: y=None"):
        distiller.fit(X, verbose=0)
    distiller = Distiller(dense(), dense(), Logits())
    distiller.compile("sgd", run_eagerly=True)
    with pytest.raises(ValueError, match=r"`loss` must be passed to compile, or .*Received: loss=None"):
        distiller.fit(X, Y, verbose=0)


def test_a_task_that_comes_to_count_in_a_training_without_labels_is_refused():
    distiller = Distiller(dense(), dense(), Logits(), student_loss_weight=0.0)
    distiller.compile("sgd")
    distiller.fit(X, verbose=0)
    distiller.student_loss_weight = 0.0
    distiller.fit(X, verbose=0)
    raised = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: setattr(distiller, "student_loss_weight", 0.5))
    with pytest.raises(tf.errors.InvalidArgumentError, match="`y` must be passed to fit, or `student_loss"):
        distiller.fit(X, epochs=2, callbacks=[raised], verbose=0)


def test_weights_that_are_assigned_hold_from_the_next_step_on():
    teacher, student = dense(9), dense(4)
    distiller = compiled(Distiller(teacher, student, Logits(2.0)), rate=0.0)
    distiller.fit(X, Y, verbose=0)
    distiller.distillation_loss_weights, distiller.student_loss_weight = [5.0], 0.0
    history = distiller.fit(X, Y, verbose=0).history
    np.testing.assert_allclose(history["loss"], [5 * closed_form(teacher, student)[1]], rtol=1e-4)
    assert distiller.distillation_loss_weights == [5.0] and distiller.student_loss_weight == 0.0


@pytest.mark.skipif(not hasattr(keras, "distillation"), reason="Keras 3 alone has losses of its own")
def test_losses_of_keras_are_taken():
    teacher, student = dense(9), dense(9)
    theirs = [
        keras.distillation.LogitsDistillation(temperature=2.0),
        keras.distillation.FeatureDistillation(teacher_layer_name="hidden", student_layer_name="hidden"),
    ]
    distiller = compiled(Distiller(teacher, student, theirs, [1.0, 0.5]))
    found = distiller.evaluate(X, Y, verbose=0, return_dict=True)["distillation_loss"]
    hidden = [np.maximum(X @ m.get_weights()[0] + m.get_weights()[1], 0) for m in (teacher, student)]
    expected = float(theirs[0].compute_loss(teacher(X), student(X))) + 0.5 * np.mean((hidden[0] - hidden[1]) ** 2)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    distiller.fit(X, Y, verbose=0)


def test_weights_of_a_distiller_are_loaded_before_its_first_batch(tmp_path):
    one, two = (Distiller(dense(), dense(), [Logits(), Features("hidden", "hidden")]) for _ in range(2))
    one.save_weights(tmp_path / "w.weights.h5")
    two.load_weights(tmp_path / "w.weights.h5")
    for mine, other in zip(one.student.get_weights(), two.student.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("make", [
    lambda: [keras.Input((None, 2)), keras.layers.Conv1D(4, 25), keras.layers.GlobalAveragePooling1D()],
    lambda: [keras.Input((None, None, 1)), *[keras.layers.MaxPooling2D() for _ in range(5)],
             keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(4)],
])  # fmt: skip
def test_models_that_take_long_inputs_alone_can_be_distilled(make):
    teacher, student = keras.Sequential(make()), keras.Sequential(make())
    student.set_weights(teacher.get_weights())
    distiller = compiled(Distiller(teacher, student, Logits()))
    x = np.random.default_rng(0).normal(size=(2, *(size or 40 for size in teacher.input_shape[1:]))).astype("float32")
    assert abs(distiller.evaluate(x, np.zeros(2), verbose=0, return_dict=True)["distillation_loss"]) < 1e-5


def test_a_function_of_numpy_teaches_what_needs_known_classes():
    teacher = dense()
    weights = teacher.get_weights()

    def numpy(x):
        return (np.maximum(x @ weights[0] + weights[1], 0) @ weights[2] + weights[3]).astype("float32")

    student, losses = dense(4), []
    for one in (teacher, lambda x: tf.numpy_function(numpy, [x], tf.float32)):
        distiller = compiled(Distiller(one, student, DecoupledLogits(2.0)), run_eagerly=False)
        losses.append(distiller.evaluate(X, Y, verbose=0, return_dict=True)["distillation_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5) and losses[0] > 1e-3
