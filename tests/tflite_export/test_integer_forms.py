"""Operations spelt so that integers can compute them."""

import numpy as np
import pytest
import tensorflow as tf

from tflite_export import convert
from tflite_export.draft import Draft
from tflite_export.errors import ExportError
from tflite_export.integer_forms import around_kernels, lower, respell
from tflite_export.learned import pin
from tflite_export.leftovers import float_operations
from tflite_export.measure import ranges, runs

X = np.float32([[-2.0, -0.5, 0.0, 1.5]])


def drafted(call, dtype="float32"):
    return Draft(convert.float_file(convert.frozen(call, [tf.TensorSpec((1, 4), dtype, name="input_0")])))


def kinds(draft):
    return {draft.kind(op) for op in draft.operators}


def output(draft, x):
    return next(runs(draft, [[x]], draft.outputs))[0]


@pytest.mark.parametrize(
    "kind, call, expected",
    [
        ("NEG", lambda x: [-tf.sin(x)], -np.sin(X)),
        ("SQUARE", lambda x: [tf.square(tf.sin(x))], np.sin(X) ** 2),
        ("CAST", lambda x: [tf.cast(x > 0.1, tf.float32)], [[0, 0, 0, 1]]),
    ],
)
def test_a_form_computes_the_same(kind, call, expected):
    draft = drafted(call)
    assert kind in kinds(draft)
    respell(draft, None)
    assert kind not in kinds(draft)
    np.testing.assert_allclose(output(draft, X), expected, rtol=1e-6)


@pytest.mark.parametrize(
    "kind, call, expected",
    [
        ("SQUARED_DIFFERENCE", lambda x: [tf.math.squared_difference(x, tf.sin(x))], (X - np.sin(X)) ** 2),
        ("HARD_SWISH", lambda x: [x * tf.nn.relu6(x + 3) * (1 / 6)], X * np.clip(X + 3, 0, 6) / 6),
    ],
)
def test_16_bits_have_fewer_kernels(kind, call, expected):
    draft = drafted(call)
    respell(draft, None, bits=8)
    assert kind in kinds(draft)
    respell(draft, None, bits=16)
    assert kind not in kinds(draft)
    np.testing.assert_allclose(output(draft, X), expected, atol=1e-6)


def test_integers_become_real_by_a_table_as_large_as_the_calibration_data_need():
    draft = drafted(lambda x: [tf.cast(x, tf.float32) * 0.5], "int32")
    respell(draft, [[np.int32([[-3, 0, 2, 5]])]])
    assert "CAST" not in kinds(draft)
    np.testing.assert_allclose(output(draft, np.int32([[5, -3, 1, 0]])), [[2.5, -1.5, 0.5, 0.0]])
    # beyond the table the nearest end counts, and nothing outside is read
    np.testing.assert_allclose(output(draft, np.int32([[1000, -1000, 6, -4]])), [[2.5, -1.5, 2.5, -1.5]])


def test_integers_of_unknown_size_are_refused_with_the_way_out():
    draft = drafted(lambda x: [tf.cast(x, tf.float32) * 0.5], "int32")
    with pytest.raises(ExportError, match="calibration="):
        respell(draft, None)


def test_elu_computes_in_8_bits_between_its_neighbours():
    draft = drafted(lambda x: [tf.nn.elu(x) * 2.0])
    samples = [[X], [X * 0.7]]
    found = ranges(draft, samples, [*draft.inputs, *(o for op in draft.operators for o in op.outputs)])
    for index, pair in found.items():
        if index in around_kernels(draft):
            pin(draft, index, *pair, bits=8)
        else:
            draft.set_range(index, *pair)
    result = Draft(convert.quantized(draft.content(), "int8"))
    assert any("ELU" in text for text in float_operations(result))
    lower(result)
    assert float_operations(result) == []
    np.testing.assert_allclose(
        output(result, X), 2 * np.where(X > 0, X, np.exp(X) - 1), atol=0.04
    )  # two steps of 5 / 255
