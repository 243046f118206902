"""What is written by hand becomes the runtime's own operation."""

import numpy as np
import pytest
import tensorflow as tf

from tflite_export import convert
from tflite_export.draft import Draft
from tflite_export.handwritten import gelus, recognize
from tflite_export.leftovers import unknown_operations
from tflite_export.measure import runs

X = np.random.default_rng(0).normal(0, 2, (1, 4, 6)).astype("float32")


def drafted(call):
    return Draft(convert.float_file(convert.frozen(call, [tf.TensorSpec(X.shape, name="input_0")])))


def output(draft):
    return next(runs(draft, [[X]], draft.outputs))[0].copy()


def kinds(draft):
    return [draft.kind(op) for op in draft.operators]


def softmax(axis):
    e = np.exp(X.astype("float64"))
    return e / e.sum(axis, keepdims=True)


def divided(axis, shift=True):
    def call(x):
        e = tf.exp(x - tf.reduce_max(x, axis, keepdims=True) if shift else x)
        return [e / tf.reduce_sum(e, axis, keepdims=True)]

    return call


@pytest.mark.parametrize(
    "call, kind, expected",
    [
        (divided(1), "SOFTMAX", softmax(1)),
        (divided(-1, shift=False), "SOFTMAX", softmax(-1)),
        (divided((1, 2)), "SOFTMAX", softmax((1, 2))),
        (lambda x: [tf.exp(x - tf.reduce_logsumexp(x, -1, keepdims=True))], "SOFTMAX", softmax(-1)),
        (lambda x: [tf.exp(x - tf.reduce_logsumexp(x, 1, keepdims=True))], "SOFTMAX", softmax(1)),
        (lambda x: [x - tf.reduce_logsumexp(x, 1, keepdims=True)], "LOG_SOFTMAX", np.log(softmax(1))),
        (
            lambda x: [x * tf.math.rsqrt(tf.reduce_sum(x * x, 1, keepdims=True) + 1e-9)],
            "L2_NORMALIZATION",
            X / np.linalg.norm(X, axis=1, keepdims=True),
        ),
    ],
)
def test_the_runtime_s_operation_is_found(call, kind, expected):
    draft = drafted(call)
    recognize(draft)
    assert kinds(draft).count(kind) == 1
    assert not {"EXP", "DIV", "LOG", "SUM", "RSQRT", "REDUCE_MAX"} & set(kinds(draft))
    np.testing.assert_allclose(output(draft), expected, atol=1e-5)


def other_total(x):
    e = tf.exp(x)
    return [e / tf.reduce_sum(tf.exp(2 * x), -1, keepdims=True)]


def shift_that_varies(x):
    e = tf.exp(x - tf.sin(x))  # softmax of x - sin(x), not of x
    return [e / tf.reduce_sum(e, -1, keepdims=True)]


def test_what_only_looks_like_it_computes_what_it_did():
    for call in (other_total, shift_that_varies, lambda x: [x * tf.math.rsqrt(tf.reduce_sum(x * x, 1, True) + 1.0)]):
        draft = drafted(call)
        expected = output(draft)
        recognize(draft)
        assert "L2_NORMALIZATION" not in kinds(draft)
        np.testing.assert_allclose(output(draft), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "call, factor",
    [
        (lambda x: [x * (1 + tf.math.erf(x * 0.70710678)) / 2], 1.0),
        (lambda x: [x * (1 + tf.math.erf(x / 1.41421356))], 2.0),
        (lambda x: [(x * 0.25) * (tf.math.erf(x * 0.70710678) + 1)], 0.5),
        (lambda x: [0.5 * (1 + tf.math.erf(x * 0.70710678)) * x], 1.0),
    ],
)
def test_a_product_with_the_error_function_is_a_gelu(call, factor):
    draft = drafted(call)
    assert unknown_operations(draft)[0].startswith("Erf in ")
    gelus(draft)
    assert unknown_operations(draft) == [] and "GELU" in kinds(draft)
    np.testing.assert_allclose(output(draft), factor * tf.nn.gelu(X), atol=1e-5)


def test_another_error_function_stays():
    for call in (lambda x: [x * (1 + tf.math.erf(x))], lambda x: [tf.sin(x) * (1 + tf.math.erf(x * 0.70710678))]):
        draft = drafted(call)
        gelus(draft)
        assert unknown_operations(draft)
