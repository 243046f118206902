"""Normalizations in the spelling for integers compute the same, and squares are summed before they are rounded."""

import numpy as np
import pytest
import tensorflow as tf

from tflite_export import convert
from tflite_export.draft import Draft
from tflite_export.learned import pin
from tflite_export.measure import runs
from tflite_export.normalizations import center, free_means, sum_squares

X = np.random.default_rng(0).normal(3, 2, (1, 4, 6, 8)).astype("float32")
GAMMA, BETA = np.linspace(0.5, 2, 8, dtype="float32"), np.linspace(-1, 1, 8, dtype="float32")


def drafted(call, shape=X.shape):
    return Draft(convert.float_file(convert.frozen(call, [tf.TensorSpec(shape, name="input_0")])))


def output(draft, x=X):
    return next(runs(draft, [[x]], draft.outputs))[0].copy()


def kinds(draft):
    return [draft.kind(op) for op in draft.operators]


def batch_norm(x):
    """x s + (b - m s), as Keras writes it."""
    mean, variance = tf.nn.moments(x, [-1], keepdims=True)
    factor = tf.math.rsqrt(variance + 1e-3) * GAMMA
    return [x * factor + (BETA - mean * factor)]


def negated(x):
    mean, variance = tf.nn.moments(x, [-1], keepdims=True)
    root = tf.math.rsqrt(variance + 1e-3)
    return [x * root + -mean * root]


def expected(scale, offset):
    mean = X.mean(-1, keepdims=True, dtype="float64")
    return (X - mean) / np.sqrt(X.var(-1, keepdims=True, dtype="float64") + 1e-3) * scale + offset


@pytest.mark.parametrize("call, scale, offset", [(batch_norm, GAMMA, BETA), (negated, 1, 0)])
def test_means_are_subtracted_before_scaling(call, scale, offset):
    draft = drafted(call)
    center(draft)
    sum_squares(draft)
    assert "NEG" not in kinds(draft) and kinds(draft).count("SUB") == 1
    # nothing larger than x - mean and the result is left: x s reaches 3 / 2 standard deviations further
    tensors = [i for op in draft.operators if draft.kind(op) in ("ADD", "MUL") for i in op.outputs]
    shown = [v for v in next(runs(draft, [[X]], tensors)) if v.shape == X.shape]
    assert max(np.abs(v).max() for v in shown) <= 1.01 * np.abs(expected(2, 1)).max()
    np.testing.assert_allclose(output(draft), expected(scale, offset), atol=1e-4)


def test_other_sums_of_products_stay():
    draft = drafted(lambda x: [x * tf.sin(x) + (BETA - tf.cos(x) * tf.sin(x))])
    before = kinds(draft)
    center(draft)
    assert kinds(draft) == before


@pytest.mark.parametrize("axes", [[-1], [1], [0, 2], [1, 2, 3], [1, 3]])
@pytest.mark.parametrize("reduce, keep", [(tf.reduce_mean, True), (tf.reduce_sum, False)])
def test_squares_are_summed_as_a_product(axes, reduce, keep):
    draft = drafted(lambda x: [reduce(tf.square(x), axes, keepdims=keep)])
    sum_squares(draft)
    assert "BATCH_MATMUL" in kinds(draft) and "SQUARE" not in kinds(draft)
    numpy = np.mean if reduce is tf.reduce_mean else np.sum
    np.testing.assert_allclose(output(draft), numpy(X**2, tuple(axes), keepdims=keep), rtol=1e-5)


def test_a_long_row_is_summed_in_parts_that_fit_32_bits():
    x = np.random.default_rng(1).normal(size=(1, 40000)).astype("float32")
    draft = drafted(lambda x: [tf.reduce_mean(tf.math.squared_difference(x, 1.0), -1)], x.shape)
    sum_squares(draft)
    (product,) = [op for op in draft.operators if draft.kind(op) == "BATCH_MATMUL"]
    assert draft.tensors[product.inputs[0]].shape == [4, 1, 10000]  # 10 000 is the largest divisor up to 16 384
    np.testing.assert_allclose(output(draft, x), [((x - 1) ** 2).mean()], rtol=1e-5)


def test_a_mean_does_not_keep_the_grid_of_what_it_is_made_of():
    def call(x):
        rounded = tf.quantization.fake_quant_with_min_max_args(x, -10, 10)
        return [rounded - tf.reduce_mean(rounded, -1, keepdims=True)]

    for own, left in ((False, 1), (True, 2)):  # as the converter does it; a range that was learned for the mean
        draft = drafted(call)
        (mean,) = [op.outputs[0] for op in draft.operators if draft.kind(op) == "MEAN"]
        pin(draft, mean, -1.0, 4.0, bits=8)
        first, second = [draft.tensors[op.outputs[0]] for op in draft.operators if draft.kind(op) == "QUANTIZE"]
        if not own:
            second.type, second.quantization = first.type, first.quantization
        free_means(draft)
        assert kinds(draft).count("QUANTIZE") == left
