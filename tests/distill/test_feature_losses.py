"""Losses between features, attention and relations: by numpy and scipy, loop by loop, as their papers write them."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from scipy.spatial.distance import cdist, cosine

from tests.distill.gradients import check_gradient
from tfcompress.distill import feature_losses

RNG = np.random.default_rng(3)
WIDE = RNG.normal(size=(4, 6)).astype("float32")
NARROW = RNG.normal(size=(4, 3)).astype("float32")
MAPS = RNG.normal(size=(2, 4, 4, 6)).astype("float32")
FEWER = RNG.normal(size=(2, 4, 4, 3)).astype("float32")


def huber(x):
    return np.where(np.abs(x) <= 1, 0.5 * x**2, np.abs(x) - 0.5)


def test_attention_transfer_by_hand():
    # Energies over channels 9 + 16 = 25 and 0, one channel 0 and 2^2 = 4: unit maps (1, 0) and (0, 1), apart 1 + 1.
    teacher, student = tf.constant([[[3.0, 4.0], [0.0, 0.0]]]), tf.constant([[[0.0], [2.0]]])
    np.testing.assert_allclose(feature_losses.attention_transfer(teacher, student), [2.0], atol=1e-6)


def test_attention_transfer_of_any_width():
    expected = []
    for one, other in zip(MAPS, FEWER, strict=True):
        maps = [np.sum(np.abs(x) ** 2, -1).ravel() for x in (one, other)]
        maps = [x / np.linalg.norm(x) for x in maps]
        expected.append(np.sum((maps[0] - maps[1]) ** 2))
    found = feature_losses.attention_transfer(tf.constant(MAPS), tf.constant(FEWER))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_maps_of_another_size_are_averaged_by_area_at_the_students():
    maps = RNG.normal(size=(2, 6, 4, 3)).astype("float32")
    found = feature_losses.on_grid(tf.constant(maps), tf.zeros([2, 3, 2, 5]))
    np.testing.assert_allclose(found, maps.reshape(2, 3, 2, 2, 2, 3).mean((2, 4)), rtol=1e-5, atol=1e-6)
    # 3 cells on 2: each new one covers one and a half. (1 + 2/2) / 1.5 and (2/2 + 3) / 1.5
    row = tf.reshape(tf.constant([1.0, 2.0, 3.0]), [1, 3, 1, 1])
    found = feature_losses.on_grid(row, tf.zeros([1, 2, 1, 1]))
    np.testing.assert_allclose(found[0, :, 0, 0], [4 / 3, 8 / 3], rtol=1e-6)
    # 2 cells on 4: each twice.
    found = feature_losses.on_grid(row[:, :2], tf.zeros([1, 4, 1, 1]))
    np.testing.assert_allclose(found[0, :, 0, 0], [1, 1, 2, 2], rtol=1e-6)


def test_attention_matrices_are_averaged_over_heads_where_these_differ():
    teacher, student = (RNG.random(size=(2, heads, 3, 3)).astype("float32") for heads in (4, 4))
    found = feature_losses.attention_matrices(tf.constant(teacher), tf.constant(student))
    np.testing.assert_allclose(found, np.mean((teacher - student) ** 2, (1, 3)), rtol=1e-5)
    fewer = student[:, :2]
    found = feature_losses.attention_matrices(tf.constant(teacher), tf.constant(fewer))
    np.testing.assert_allclose(found, np.mean((teacher.mean(1) - fewer.mean(1)) ** 2, 2), rtol=1e-5)


def test_cosine_is_scipys():
    other = RNG.normal(size=WIDE.shape).astype("float32")
    found = feature_losses.cosine(tf.constant(WIDE), tf.constant(other))
    np.testing.assert_allclose(found, [cosine(a, b) for a, b in zip(WIDE, other, strict=True)], rtol=1e-4)


def test_relational_distance_over_all_pairs():
    apart = []
    for rows in (WIDE, NARROW):
        distances = cdist(rows, rows)
        apart.append(distances / (distances.sum() / (4 * 3)))  # the mean is over those that are two
    found = feature_losses.relational_distance(tf.constant(WIDE), tf.constant(NARROW))
    np.testing.assert_allclose(found, huber(apart[0] - apart[1]).mean(), rtol=1e-3)


def test_relational_angle_over_all_triples():
    def angle(rows, i, j, k):
        a, b = rows[i] - rows[j], rows[k] - rows[j]
        length = np.linalg.norm(a) * np.linalg.norm(b)
        return a @ b / length if length else 0.0

    triples = itertools.product(range(4), repeat=3)
    expected = np.mean([huber(angle(WIDE, *t) - angle(NARROW, *t)) for t in triples])
    found = feature_losses.relational_angle(tf.constant(WIDE), tf.constant(NARROW))
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_similarity_preserving_is_the_frobenius_norm_of_unit_gram_rows():
    grams = []
    for rows in (WIDE, NARROW):
        gram = rows @ rows.T
        grams.append(gram / np.linalg.norm(gram, axis=1, keepdims=True))
    found = feature_losses.similarity_preserving(tf.constant(WIDE), tf.constant(NARROW))
    np.testing.assert_allclose(found, np.linalg.norm(grams[0] - grams[1]) ** 2 / 16, rtol=1e-3)


def test_contrastive_is_the_cross_entropy_of_finding_ones_own_teacher():
    other = RNG.normal(size=WIDE.shape).astype("float32")
    likeness = 1 - cdist(other, WIDE, "cosine")
    expected = [-np.log(np.exp(row[i] / 0.5) / np.exp(row / 0.5).sum()) for i, row in enumerate(likeness)]
    found = feature_losses.contrastive(tf.constant(WIDE), tf.constant(other), 0.5)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


LOSSES = ["attention_transfer", "relational_distance", "relational_angle", "similarity_preserving"]


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_finite_differences(name):
    loss = getattr(feature_losses, name)
    shaped = (lambda x: x[:, :, None]) if name == "attention_transfer" else lambda x: x
    teacher = NARROW[::-1].copy()
    check_gradient(lambda s: tf.reduce_mean(loss(shaped(tf.constant(teacher)), shaped(s))), NARROW, 5e-3)


@pytest.mark.parametrize("name", [*LOSSES, "cosine", "contrastive"])
def test_the_same_features_are_no_loss_and_equal_rows_no_nan(name):
    loss = getattr(feature_losses, name)
    rows = np.repeat(NARROW[:1], 3, 0)
    for values in (NARROW, rows, np.zeros((3, 3), "float32")):
        shaped = values[:, :, None] if name == "attention_transfer" else values
        point = tf.constant(shaped)
        with tf.GradientTape() as tape:
            tape.watch(point)
            value = tf.reduce_sum(loss(tf.constant(shaped), point))
        assert np.isfinite(tape.gradient(value, point).numpy()).all()
        if name not in ("cosine", "contrastive"):
            assert abs(float(value)) < 1e-5


def test_maps_whose_sizes_are_not_known_beforehand_are_resized():
    maps = RNG.normal(size=(2, 6, 4, 3)).astype("float32")
    spec = tf.TensorSpec([None, None, None, None], tf.float32)
    resized = tf.function(feature_losses.on_grid, input_signature=[spec, spec])
    expected = maps.reshape(2, 3, 2, 2, 2, 3).mean((2, 4))
    np.testing.assert_allclose(resized(maps, tf.zeros([2, 3, 2, 5])), expected, rtol=1e-5, atol=1e-6)


MASK = np.array([[True, True, False], [True, False, False]])
HIDDEN = np.where(MASK[..., None, None], 1.0, 0.0) * RNG.normal(size=(2, 3, 4, 5))
LOUD = (HIDDEN + np.where(MASK[..., None, None], 0.0, 100.0)).astype("float32")
OTHER = RNG.normal(size=(2, 3, 4, 5)).astype("float32")


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("name", ["attention_transfer", "contrastive", "similarity_preserving", "relational_distance"])
def test_what_a_mask_hides_does_not_count_whatever_the_axes(name, known):
    def loss(teacher, student):
        return getattr(feature_losses, name)(teacher, student, mask=tf.constant(MASK) if known else tf.identity(MASK))

    if not known:
        loss = tf.function(loss, input_signature=[tf.TensorSpec([None] * 4, tf.float32)] * 2)
    quiet = np.where(MASK[..., None, None], LOUD, -3.0).astype("float32")
    np.testing.assert_allclose(loss(OTHER, LOUD), loss(OTHER, quiet), rtol=1e-5)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("name", ["contrastive", "similarity_preserving", "relational_angle", "relational_distance"])
def test_a_mask_of_other_positions_is_not_the_teachers(name, known):
    teacher = RNG.normal(size=(2, 2, 4)).astype("float32")
    student = RNG.normal(size=(2, 3, 4)).astype("float32")
    loss = getattr(feature_losses, name)
    asked = lambda one, other: loss(one, other, mask=tf.constant(MASK))  # noqa: E731
    if not known:
        asked = tf.function(asked, input_signature=[tf.TensorSpec([None] * 3, tf.float32)] * 2)
    if name == "contrastive":
        quiet = np.stack([row[kept].mean(0) for row, kept in zip(student, MASK, strict=True)])
        expected = loss(teacher.mean(1), quiet)
    else:
        expected = loss(teacher, np.where(MASK[..., None], student, 0.0))
    np.testing.assert_allclose(asked(teacher, student), expected, rtol=1e-4, atol=1e-6)


def test_angles_of_wide_features_take_no_memory_by_width():
    wide = RNG.normal(size=(5, 400)).astype("float32")
    turned = wide @ np.linalg.qr(RNG.normal(size=(400, 400)))[0].astype("float32")  # distances and angles are the same
    assert float(feature_losses.relational_angle(wide + 7, turned)) < 1e-9
    graph = tf.function(feature_losses.relational_angle).get_concrete_function(*[tf.TensorSpec([5, 400])] * 2).graph
    assert max(np.prod(t.shape) for op in graph.get_operations() for t in op.outputs if t.shape.rank) <= 5 * 400
