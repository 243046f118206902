"""Each loss object with settings that are not its defaults, against numpy and scipy; what it refuses."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.spatial.distance import cdist
from scipy.special import expit, log_softmax, logit, softmax
from scipy.stats import entropy

from tests.distill.models import X, Y, compiled, conv, dense, keras, layers
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
    MutualLearning,
    RelationalAngle,
    RelationalDistance,
    ReverseLogits,
    SelfDistiller,
    SimilarityPreserving,
)

RNG = np.random.default_rng(5)
T, S = (RNG.normal(size=(5, 4)) * 2 for _ in range(2))
TARGETS = np.array([2, 0, 3, 1, 1])
MAPS = [RNG.normal(size=(2, 3, 6)), RNG.normal(size=(2, 3, 5))]
SCORES = [softmax(RNG.normal(size=(2, 3, 4, 6)), -1) for _ in range(2)]


def at(temperature):
    return [softmax(x / temperature, -1) for x in (T, S)]


def decoupled(temperature, alpha, beta):
    p, q = at(temperature)
    rows = []
    for row, target in enumerate(TARGETS):
        two = [[x[row, target], 1 - x[row, target]] for x in (p, q)]
        rest = [np.delete(x[row], target) for x in (p, q)]
        rows.append(alpha * entropy(*two) + beta * entropy(*rest))
    return temperature**2 * np.array(rows)


def jensen_shannon(beta, temperature):
    p, q = at(temperature)
    middle = beta * p + (1 - beta) * q
    return beta * entropy(p, middle, axis=-1) + (1 - beta) * entropy(q, middle, axis=-1)


def transferred(power):
    maps = [np.sum(np.abs(x) ** power, -1) for x in MAPS]
    one, other = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in maps)
    return np.sum((one - other) ** 2, -1)


def huber(x):
    return np.where(np.abs(x) <= 1, 0.5 * x**2, np.abs(x) - 0.5)


def distances(x):
    apart = cdist(x, x)
    return apart / (apart.sum() / 20)  # of 5 * 4 pairs of two


def angles(x):
    found = np.zeros((5, 5, 5))
    for j in range(5):
        to = x - x[j]
        lengths = np.linalg.norm(to, axis=1)
        lengths[j] = 1
        found[j] = (to / lengths[:, None]) @ (to / lengths[:, None]).T
    return found


def likeness(x):
    gram = x @ x.T
    return gram / np.linalg.norm(gram, axis=1, keepdims=True)


def contrasted(tau):
    near = 1 - cdist(S, T, "cosine")
    return -np.diag(log_softmax(near / tau, -1))


P, Q = at(3.0)
TABLE = {
    "hinton": (Logits(3.0), T, S, 9 * entropy(P, Q, axis=-1)),
    "cross entropy": (Logits(3.0, "cross_entropy"), T, S, -9 * np.sum(P * np.log(Q), -1)),
    "mse": (Logits(3.0, "mse"), T, S, np.mean((T - S) ** 2, -1)),
    "decoupled": (DecoupledLogits(3.0, 1.5, 5.0), T, S, decoupled(3.0, 1.5, 5.0)),
    "reverse": (ReverseLogits(3.0), T, S, entropy(Q, P, axis=-1)),
    "jensen shannon": (JensenShannon(0.2, 3.0), T, S, jensen_shannon(0.2, 3.0)),
    "features": (Features("a", "b"), T, S, np.mean((T - S) ** 2, -1)),
    "cosine": (Cosine("a", "b"), T, S, np.diag(cdist(T, S, "cosine"))),
    "attention transfer": (AttentionTransfer("a", "b", 3.0), *MAPS, transferred(3.0)),
    "attention matrices": (AttentionMatrices("a", "b"), *SCORES, np.mean((SCORES[0] - SCORES[1]) ** 2, (1, 3))),
    "attention without heads": (
        AttentionMatrices("a", "b"), SCORES[0][:, 0], SCORES[1][:, 0],
        np.mean((SCORES[0][:, 0] - SCORES[1][:, 0]) ** 2, -1),
    ),
    "relational distance": (RelationalDistance(), T, S[:, :3], huber(distances(T) - distances(S[:, :3])).mean()),
    "relational angle": (RelationalAngle(), T, S[:, :3], huber(angles(T) - angles(S[:, :3])).mean()),
    "similarity": (SimilarityPreserving(), T, S[:, :3], np.mean((likeness(T) - likeness(S[:, :3])) ** 2)),
    "contrastive": (Contrastive(temperature=0.4), T, S, contrasted(0.4)),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_every_loss_computes_its_formula_with_its_settings(name):
    loss, teacher, student, expected = TABLE[name]
    found = loss.loss(tf.constant(teacher, tf.float32), tf.constant(student, tf.float32), tf.constant(TARGETS))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)


def yes_or_no(p, q):
    return np.sum(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)), -1)


def middled(p, q, beta):
    m = beta * p + (1 - beta) * q
    return beta * yes_or_no(p, m) + (1 - beta) * yes_or_no(q, m)


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize(("loss", "expected"), [
    (Logits(2.0), lambda p, q: 4 * yes_or_no(p, q)),
    (Logits(2.0, "cross_entropy"), lambda p, q: -4 * np.sum(p * np.log(q) + (1 - p) * np.log(1 - q), -1)),
    (ReverseLogits(2.0), lambda p, q: yes_or_no(q, p)),
    (JensenShannon(0.3, 2.0), lambda p, q: middled(p, q, 0.3)),
], ids=["hinton", "cross entropy", "reverse", "jensen shannon"])  # fmt: skip
def test_outputs_that_decide_on_their_own_are_questions_of_two_answers(loss, expected, classes):
    teacher, student = dense(9, "sigmoid", classes), dense(4, "sigmoid", classes)
    distiller = Distiller(teacher, student, loss, student_loss_weight=0.0)
    distiller.compile("sgd", run_eagerly=True)
    p, q = (expit(logit(np.asarray(m(X), "float64")) / 2) for m in (teacher, student))
    found = distiller.evaluate(X, verbose=0, return_dict=True)["loss"]
    np.testing.assert_allclose(found, expected(p, q).mean(), rtol=1e-3)


def test_decoupled_logits_need_a_target():
    for activation, classes in (("sigmoid", 3), (None, 1)):
        with pytest.raises(ValueError, match="`DecoupledLogits` needs classes of which one is the target: use"):
            Distiller(dense(9, activation, classes), dense(4, activation, classes), DecoupledLogits())
    with pytest.raises(ValueError, match="needs classes of which one is the target"):
        MutualLearning([dense(4, "sigmoid"), dense(5, "sigmoid")], DecoupledLogits())
    with pytest.raises(ValueError, match="needs classes of which one is the target"):
        SelfDistiller(dense(4, "sigmoid"), ["hidden"], DecoupledLogits())


def test_logits_against_probabilities_are_both_centered():
    loss = Logits(2.0, "mse")
    loss.settle("logits", "softmax")
    found = loss.loss(tf.constant(T, tf.float32), tf.constant(softmax(S, -1), tf.float32), None)
    one, other = (x - x.mean(-1, keepdims=True) for x in (T, S))
    np.testing.assert_allclose(found, np.mean((one - other) ** 2, -1), rtol=1e-3)


def test_one_loss_serves_two_distillers():
    loss = Logits(2.0)
    plain = dense(9), dense(4)
    ended = dense(9, "softmax"), dense(4, "softmax")
    first, _ = compiled(Distiller(*plain, loss)), Distiller(*ended, loss)
    p, q = (softmax(np.asarray(m(X), "float64") / 2, -1) for m in plain)
    found = first.evaluate(X, Y, verbose=0, return_dict=True)["distillation_loss"]
    np.testing.assert_allclose(found, 4 * entropy(p, q, axis=-1).mean(), rtol=1e-3)
    heads = compiled(SelfDistiller(plain[0], ["hidden"], loss))
    assert loss.kinds == ("logits", "logits") and loss is not heads._between
    SelfDistiller(ended[0], ["hidden"], loss)
    assert loss.kinds == ("logits", "logits")


def test_tapped_tensors_are_what_their_layers_make():
    """Logits inside models that end in a softmax."""

    def model(width):
        inputs = keras.Input((6,))
        z = layers.Dense(3, name="z")(layers.Dense(width, "relu")(inputs))
        return keras.Model(inputs, layers.Softmax(name="p")(z))

    teacher, student = model(9), model(4)
    inside = [np.asarray(keras.Model(m.inputs, m.get_layer("z").output)(X), "float64") for m in (teacher, student)]
    expected = 4 * entropy(*(softmax(z / 2, -1) for z in inside), axis=-1).mean()
    for names in (("z", "z"), ("p", "z"), ("z", "p"), ("p", None), ("z", None)):
        loss = Logits(2.0, teacher=names[0], student=names[1])
        distiller = compiled(Distiller(teacher, student, loss, None, 0.0), logits=False)
        found = distiller.evaluate(X, Y, verbose=0, return_dict=True)["distillation_loss"]
        np.testing.assert_allclose(found, expected, rtol=1e-3, err_msg=str(names))


def test_queries_and_keys_are_both_compared():
    for teacher, student in (((2, 3, 5), (2, 6, 5)), ((2, 3, 4, 5), (2, 3, 6, 5)), ((2, 3, 4, 5), (2, 3, 4, 6))):
        with pytest.raises(ValueError, match="the same numbers of queries and keys"):
            AttentionMatrices("a", "b").check(teacher, student)
    AttentionMatrices("a", "b").check((2, 8, 4, 5), (2, 2, 4, 5))


def test_attention_transfer_needs_positions_as_many_on_both_sides():
    with pytest.raises(ValueError, match=r"an axis between the first and the last.*\(1, 8\).*'hidden'.*\(1, 5\)"):
        Distiller(dense(8), dense(5), AttentionTransfer("hidden", "hidden"))

    def sequence(length):
        inputs = keras.Input((8, 2))
        return keras.Model(inputs, layers.Dense(3)(layers.Conv1D(4, 1, 8 // length, name="conv")(inputs)))

    with pytest.raises(ValueError, match=r"same axes between.*\(1, 8, 4\).*\(1, 4, 4\)"):
        Distiller(sequence(8), sequence(4), AttentionTransfer("conv", "conv"))
    Distiller(conv(6), conv(3, strides=2), AttentionTransfer("conv", "conv"))  # maps are resized


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Contrastive("a", "b", temperature=0), "`temperature` must be a number above 0. Received: temperature=0"),
    (lambda: AttentionTransfer("a", "b", power=0.0), "`power` must be a number above 0"),
    (lambda: AttentionTransfer("a", "b", power=-1), "`power` must be a number above 0"),
    (lambda: DecoupledLogits(alpha=-1.0), "`alpha` must be a number from 0 on. Received: alpha=-1.0"),
    (lambda: DecoupledLogits(beta=float("nan")), "`beta` must be a number from 0 on"),
])  # fmt: skip
def test_settings_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()
