"""Fake quantization by hand: numbers, straight-through gradients, the gradients of LSQ."""

import numpy as np
import pytest
import tensorflow as tf

from tests.zoo import layers
from tfcompress.core.grid import Grid
from tfcompress.core.transformed import Transformed
from tfcompress.quantize.fake_quant import FakeQuantWeight, learned_step, nudged, snap


def raw(variable):
    """The TensorFlow variable of a weight, which a tape watches in both flavors."""
    return variable.value if hasattr(variable, "path") else variable


def gradients(function, *values):
    tensors = [tf.constant(v, tf.float32) for v in values]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        out = function(*tensors)
    return [None if g is None else g.numpy() for g in tape.gradient(out, tensors)]


def test_snap_by_hand():
    # 3 bits, Q = 3, columns of steps 1 and 2: 1.4 -> 1, 2.9 / 2 = 1.45 -> 1 step = 2, -0.4 -> 0, -3.2 / 2 = -1.6 -> -4
    weight = tf.constant([[3.0, -6.0], [1.4, 2.9], [-0.4, -3.2]])
    np.testing.assert_array_equal(snap(weight, Grid(bits=3, axis=-1)), [[3.0, -6.0], [1.0, 2.0], [0.0, -4.0]])


def test_the_gradient_of_snap_is_exactly_one_for_the_largest_number_too():
    weight = np.random.default_rng(0).normal(size=(5, 3))
    upstream = np.random.default_rng(1).normal(size=(5, 3)).astype("float32")
    (found,) = gradients(lambda w: tf.reduce_sum(snap(w, Grid(bits=4, axis=-1)) * upstream), weight)
    np.testing.assert_array_equal(found, upstream)


def test_snap_is_tensorflows_symmetric_fake_quant():
    weight = np.random.default_rng(2).normal(size=(7, 4)).astype("float32")
    top = np.abs(weight).max(0)
    theirs = tf.quantization.fake_quant_with_min_max_vars_per_channel(weight, -top, top, num_bits=8, narrow_range=True)
    np.testing.assert_allclose(snap(tf.constant(weight), Grid(axis=-1)), theirs, atol=1e-6)


VALUES, STEP, LOW, HIGH = [0.9, 0.2, -3.0, 0.3, 0.74], 0.5, -2, 1
# v / s = 1.8, .4, -6, .6, 1.48: clipped to 1, .4, -2, .6, 1; rounded to 1, 0, -2, 1, 1; times .5


def test_learned_step_by_hand():
    found = learned_step(tf.constant(VALUES), tf.constant(STEP), LOW, HIGH, 1.0)
    np.testing.assert_allclose(found, [0.5, 0.0, -1.0, 0.5, 0.5])


def test_lsq_gradients_are_equation_three_of_the_paper():
    # To s: above the last code 1, below the first -2, inside round(v) - v: 0 - .4 and 1 - .6. Weighted by 1 to 5:
    # 1 * 1 + 2 * -.4 + 3 * -2 + 4 * .4 + 5 * 1 = .8, times g = .1
    weights = tf.constant([1.0, 2.0, 3.0, 4.0, 5.0])
    to_values, to_step = gradients(
        lambda v, s: tf.reduce_sum(learned_step(v, s, LOW, HIGH, 0.1) * weights), VALUES, STEP
    )
    np.testing.assert_array_equal(to_values, [0.0, 2.0, 0.0, 4.0, 0.0])
    assert to_step == pytest.approx(0.08, abs=1e-6)


def test_outside_the_grid_the_step_gradient_is_the_finite_difference():
    # There q = s * code with a constant code: the one part of LSQ whose gradient is a true derivative.
    values = np.array([4.0, -5.0, 7.0])
    (_, found) = gradients(lambda v, s: tf.reduce_sum(learned_step(v, s, -2, 1, 1.0) ** 2), values, 0.5)

    def loss(step):
        return float(np.sum((np.clip(np.round(values / step), -2, 1) * step) ** 2))

    assert found == pytest.approx((loss(0.5001) - loss(0.4999)) / 0.0002, rel=1e-4)


def test_the_step_gradient_of_each_channel_is_its_own_sum():
    values = np.array([[9.0, 0.1], [9.0, -9.0]])  # steps 1: codes 3, 3 | .1 inside (0 - .1), -3
    (_, found) = gradients(lambda v, s: tf.reduce_sum(learned_step(v, s, -3, 3, 1.0)), values, [[1.0, 1.0]])
    np.testing.assert_allclose(found, [[6.0, -3.1]], rtol=1e-6)


def wrapped(kernel, grid):
    dense = layers.Dense(kernel.shape[1], use_bias=False)
    dense.build((None, kernel.shape[0]))
    dense.kernel.assign(kernel)
    step = FakeQuantWeight(grid)
    return Transformed(dense, {"kernel": [step]}), step


KERNEL = np.array([[0.9, -0.2], [0.1, 0.6], [-0.5, 0.4]], "float32")


def test_a_learned_weight_step_starts_where_the_paper_says():
    # 2 mean|w| / sqrt(Q), Q = 7: columns .5 and .4 -> 1 / sqrt(7), .8 / sqrt(7)
    _, step = wrapped(KERNEL, Grid(bits=4, axis=-1, step="learned"))
    np.testing.assert_allclose(np.asarray(step.step), [[1 / 7**0.5, 0.8 / 7**0.5]], rtol=1e-6)


def test_a_channel_of_zeros_starts_from_one():
    _, step = wrapped(np.array([[0.0, 0.7], [0.0, 0.7]], "float32"), Grid(axis=-1, step="learned"))
    np.testing.assert_allclose(np.asarray(step.step), [[1.0, 1.4 / 127**0.5]], rtol=1e-6)


def test_a_learned_weight_step_has_the_papers_gradient_scale_and_trains():
    layer, step = wrapped(KERNEL, Grid(bits=4, axis=-1, step="learned"))
    start = np.asarray(step.step).copy()
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(tf.eye(3)))
    variables = [v for v in layer.trainable_weights if tuple(v.shape) == (1, 2)]
    assert len(variables) == 1
    found = tape.gradient(loss, raw(variables[0]))
    # 3 numbers share a step, Q = 7: g = 1 / sqrt(21); all inside, so the sum of round(v) - v
    scaled = KERNEL / start
    np.testing.assert_allclose(found, [(np.round(scaled) - scaled).sum(0) / 21**0.5], rtol=1e-4)


@pytest.mark.parametrize("step", ["max", "learned"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_integers_times_scale_are_the_weight_the_layer_computes_with(bits, step):
    layer, _ = wrapped(KERNEL, Grid(bits=bits, axis=-1, step=step))
    (found,) = layer.integers()
    assert (found.layer, found.weight, found.bits) == (layer.name, "kernel", bits)
    assert np.abs(found.codes).max() <= 2 ** (bits - 1) - 1
    np.testing.assert_allclose(found.codes * found.scale, layer(tf.eye(3)), rtol=1e-6, atol=1e-7)


def test_a_grid_must_be_resolved():
    with pytest.raises(ValueError, match="`grid` must name axes of the weight"):
        FakeQuantWeight(Grid())


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        (Grid(axis=-1), "int8 per channel"),
        (Grid(bits=4, axis=None), "int4 per tensor"),
        (Grid(axis=-1, groups=4), "int8 per gate"),
        (Grid(bits=3, axis=(-2, -1), step="learned"), "int3 per channel, learned step"),
    ],
)
def test_it_describes_itself_and_survives_its_config(grid, words):
    step = FakeQuantWeight(grid)
    assert step.describe() == words
    assert FakeQuantWeight.from_config(step.get_config()).grid == grid


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 2.55, (0.0, 2.55)),
        (-1.0, 1.55, (-1.0, 1.55)),  # step .01, zero on it already
        (-1.004, 1.546, (-1.0, 1.55)),  # step .01; 100.4 steps below zero become 100
        (0.5, 2.55, (0.0, 2.55)),  # zero belongs to the range
        (-2.55, -1.0, (-2.55, 0.0)),
    ],
)
def test_the_ends_of_an_eight_bit_range_are_moved_until_zero_is_a_code(low, high, expected):
    found = nudged(tf.constant(low), tf.constant(high), 8, False)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_ends_of_a_sixteen_bit_range_are_symmetric_around_zero():
    found = nudged(tf.constant(-1.0), tf.constant(3.2767), 16, True)  # step .0001
    np.testing.assert_allclose(found, (-3.2768, 3.2767), rtol=1e-6)
