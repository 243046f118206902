"""Weights of positions and masks of padded sequences: what is left out, and by what the sum is divided."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import log_softmax, softmax
from scipy.stats import entropy

from tests.distill.models import compiled, keras, layers
from tfcompress.distill import (
    AttentionMatrices,
    AttentionTransfer,
    Contrastive,
    Cosine,
    DistillationLoss,
    Distiller,
    Features,
    Logits,
    MutualLearning,
    RelationalAngle,
    RelationalDistance,
    SimilarityPreserving,
)
from tfcompress.distill.reduction import reduced

TOKENS = np.array([[3, 1, 2, 0, 0], [5, 4, 0, 0, 0], [1, 2, 3, 4, 5], [2, 0, 0, 0, 0]], "int32")
COUNTS = (TOKENS != 0).astype("float64")
WEIGHTS = np.random.default_rng(0).random(TOKENS.shape).astype("float32")
LABELS = np.random.default_rng(1).integers(0, 3, TOKENS.shape)


def tagger(width, masked=True):
    """Tokens - "inner", attending to each other - 3 classes for each."""
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Embedding(6, width, keras.initializers.RandomNormal(0, 2), mask_zero=masked, name="inner")(inputs)
    x = layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    return keras.Model(inputs, layers.Dense(3, name="out")(x))


def told(teacher, student, temperature=2.0):
    """[rows, positions], T^2 KL by scipy."""
    p, q = (softmax(np.asarray(m(TOKENS), "float64") / temperature, -1) for m in (teacher, student))
    return temperature**2 * entropy(p, q, axis=-1)


def inner(model, x=TOKENS):
    return np.asarray(model.get_layer("inner")(x), "float64")


def evaluated(loss, teacher, student, weight=None, share=0.0):
    distiller = compiled(Distiller(teacher, student, loss, None, share))
    return distiller.evaluate(TOKENS, LABELS, sample_weight=weight, verbose=0, return_dict=True)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("weighted", [None, "rows", "positions"])
def test_answers_are_averaged_as_the_task_is(masked, weighted):
    teacher, student = tagger(7), tagger(4, masked)
    weight = {None: None, "rows": WEIGHTS[:, :1], "positions": WEIGHTS}[weighted]
    w = np.ones(TOKENS.shape) if weight is None else weight
    counts = COUNTS if masked else np.ones(TOKENS.shape)
    found = evaluated(Logits(2.0), teacher, student, weight, 0.5)
    task = -np.take_along_axis(log_softmax(np.asarray(student(TOKENS), "float64"), -1), LABELS[..., None], -1)[..., 0]
    np.testing.assert_allclose(found["student_loss"], (task * w * counts).sum() / counts.sum(), rtol=1e-4)
    expected = (told(teacher, student) * w * counts).sum() / counts.sum()
    np.testing.assert_allclose(found["distillation_loss"], expected, rtol=1e-4)


def test_the_logits_in_front_of_a_softmax_keep_the_mask():
    teacher, plain = tagger(7), tagger(4)
    student = keras.Model(plain.inputs, layers.Activation("softmax")(plain.output))
    found = compiled(Distiller(teacher, student, Logits(2.0)), logits=False).evaluate(
        TOKENS, LABELS, verbose=0, return_dict=True
    )
    expected = (told(teacher, plain) * COUNTS).sum() / COUNTS.sum()
    np.testing.assert_allclose(found["distillation_loss"], expected, rtol=1e-4)


def test_features_of_padding_are_left_out():
    teacher, student = tagger(4), tagger(4)
    one, other = inner(teacher), inner(student)
    found = evaluated(Features("inner", "inner"), teacher, student)["distillation_loss"]
    np.testing.assert_allclose(found, (((one - other) ** 2).mean(-1) * COUNTS).sum() / COUNTS.sum(), rtol=1e-4)
    found = evaluated(Cosine("inner", "inner"), teacher, student, WEIGHTS)["distillation_loss"]
    near = (one * other).sum(-1) / np.linalg.norm(one, axis=-1) / np.linalg.norm(other, axis=-1)
    np.testing.assert_allclose(found, ((1 - near) * WEIGHTS * COUNTS).sum() / COUNTS.sum(), rtol=1e-3)


def test_where_features_are_large_is_asked_of_what_counts():
    teacher, student = tagger(7), tagger(4)
    maps = [(inner(m) ** 2).sum(-1) * COUNTS for m in (teacher, student)]
    one, other = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in maps)
    found = evaluated(AttentionTransfer("inner", "inner"), teacher, student)["distillation_loss"]
    np.testing.assert_allclose(found, ((one - other) ** 2).sum(1).mean(), rtol=1e-4)


@pytest.mark.parametrize("kind", [RelationalDistance, RelationalAngle, SimilarityPreserving])
def test_examples_are_compared_by_what_counts(kind):
    teacher, student = tagger(7), tagger(4)
    expected = float(kind().loss(*(inner(m) * COUNTS[..., None] for m in (teacher, student)), None))
    found = evaluated(kind("inner", "inner"), teacher, student)["distillation_loss"]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_contrasted_features_are_means_of_what_counts():
    teacher, student = tagger(4), tagger(4)
    means = [(inner(m) * COUNTS[..., None]).sum(1) for m in (teacher, student)]
    one, other = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in means)
    expected = -np.diag(log_softmax(other @ one.T / 0.5, -1)).mean()
    found = evaluated(Contrastive("inner", "inner", 0.5), teacher, student)["distillation_loss"]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_attention_of_and_to_padding_is_left_out():
    teacher, student = tagger(7), tagger(4)
    scores = []
    for model in (teacher, student):
        x = model.get_layer("inner")(TOKENS)
        _, found = model.get_layer("attention")(x, x, return_attention_scores=True)
        scores.append(np.asarray(found, "float64"))
    pairs = COUNTS[:, :, None] * COUNTS[:, None]
    each = (((scores[0] - scores[1]) ** 2).mean(1) * pairs).sum(-1) / COUNTS.sum(1, keepdims=True)
    found = evaluated(AttentionMatrices("attention", "attention"), teacher, student)["distillation_loss"]
    np.testing.assert_allclose(found, each.sum() / COUNTS.sum(), rtol=1e-3)


def test_peers_leave_padding_out():
    peers = [tagger(4), tagger(5)]
    found = compiled(MutualLearning(peers, Logits(2.0))).evaluate(
        TOKENS, LABELS, sample_weight=WEIGHTS, verbose=0, return_dict=True
    )
    both = told(*peers) + told(*peers[::-1])
    np.testing.assert_allclose(found["distillation_loss"], (both * WEIGHTS * COUNTS).sum() / COUNTS.sum(), rtol=1e-4)


class RowByRow(DistillationLoss):
    """A user's own loss with one number an example."""

    def loss(self, teacher, student, labels):
        return tf.cast(tf.range(tf.shape(student)[0]), tf.float32)


def test_a_loss_of_whole_examples_takes_the_mean_weight_of_what_counts():
    w = (WEIGHTS * COUNTS).sum(1) / COUNTS.sum(1)
    found = evaluated(RowByRow(), tagger(7), tagger(4), WEIGHTS)["distillation_loss"]
    np.testing.assert_allclose(found, (w * np.arange(4)).mean(), rtol=1e-5)


def test_weights_of_other_positions_are_averaged_and_one_number_is_left_alone():
    values = tf.constant([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    weight = tf.constant([[1.0, 2.0], [3.0, 5.0]])  # 2 positions against 3: rows weigh 1.5 and 4
    np.testing.assert_allclose(reduced(values, weight), (1.5 * 6 + 4 * 15) / 6, rtol=1e-6)
    np.testing.assert_allclose(reduced(values[0, 0], weight), 1.0)
    nothing = tf.zeros([2, 3], tf.bool)
    assert float(reduced(values, None, nothing)) == 0.0


def two_outputs(width):
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Embedding(6, width, name="inner")(inputs)
    whole = layers.Dense(3, name="whole")(layers.GlobalAveragePooling1D()(x))
    return keras.Model(inputs, [whole, layers.Dense(3, name="each")(x)])


def test_each_outputs_loss_takes_its_outputs_weights():
    teacher, student = two_outputs(7), two_outputs(4)
    losses = [Logits(2.0, output="whole"), Logits(1.0, output="each"), Features("inner", "inner")]
    distiller = Distiller(teacher, student, losses, [1.0, 10.0, 0.0])
    crossentropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile("sgd", [crossentropy] * 2, run_eagerly=True)
    rows = np.array([1.0, 0.0, 2.0, 3.0], "float32")
    data = tf.data.Dataset.from_tensors((TOKENS, (LABELS[:, 0], LABELS), (rows, WEIGHTS)))
    found = distiller.evaluate(data, verbose=0, return_dict=True)["distillation_loss"]
    (pw, pe), (qw, qe) = ([np.asarray(x, "float64") for x in m(TOKENS)] for m in (teacher, student))
    whole = 4 * entropy(softmax(pw / 2, -1), softmax(qw / 2, -1), axis=-1) * rows
    each = entropy(softmax(pe, -1), softmax(qe, -1), axis=-1) * WEIGHTS
    np.testing.assert_allclose(found, whole.mean() + 10 * each.mean(), rtol=1e-4)
