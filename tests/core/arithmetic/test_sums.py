"""Sums of products against 64-bit whole numbers."""

import numpy as np
import pytest
import tensorflow as tf

from tfcompress.core.arithmetic import sums


def contraction(left, right):
    return tf.matmul(left, right)


@pytest.mark.parametrize("dtype", [tf.float32, tf.int32])
@pytest.mark.parametrize(("depth", "top", "bias"), [(64, 127, 1000), (64, 127, 2**30), (4000, 127, 5), (9000, 128, 0)])
def test_sums_of_any_size_are_exact(depth, top, bias, dtype):
    rng = np.random.default_rng(depth)
    # Signs that agree make the sums as large as they can be.
    values, kernel = rng.integers(200, 256, (16, depth)), rng.integers(top - 30, top + 1, (depth, 8))
    values[8:] *= -1
    biases = rng.integers(-bias, bias + 1, 8)
    expected = values @ kernel + biases
    found = sums.total(
        tf.constant(values, tf.float32), tf.constant(kernel, tf.float32), tf.constant(biases, tf.int32), contraction,
        reach=255.0, depth=depth, axes=(0,), then=lambda total, bias: tf.cast(total + bias, dtype),
    )  # fmt: skip
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, expected.astype(dtype.as_numpy_dtype))


def test_without_a_bias():
    ones = tf.ones([3, 5])
    found = sums.total(ones, tf.ones([5, 2]), None, contraction, reach=1.0, depth=5, axes=(0,), then=tf.add)
    np.testing.assert_array_equal(found, np.full((3, 2), 5))


def test_sums_of_16_bits():
    rng = np.random.default_rng(0)
    values, kernel = rng.integers(30000, 32768, (8, 5000)), rng.integers(100, 128, (5000, 4))
    bias = rng.integers(-(2**40), 2**40, 4)
    found = sums.wide_total(
        tf.constant(values, tf.float32), tf.constant(kernel, tf.float32), tf.constant(bias), contraction
    )
    np.testing.assert_array_equal(found, values @ kernel + bias)


@pytest.mark.parametrize("depth", [16, 300, 5000])
def test_products_of_two_activations(depth):
    rng = np.random.default_rng(depth)
    left, right = rng.integers(200, 256, (8, depth)), rng.integers(-255, -200, (depth, 8))
    operands = (tf.constant(left, tf.float32), tf.constant(right, tf.float32), contraction)
    np.testing.assert_array_equal(sums.total_of_two(*operands, depth=depth), left @ right)
    np.testing.assert_array_equal(sums.total_of_two(*operands, depth=None), left @ right)
