"""TensorFlow's converter behind one door."""

import numpy as np
import pytest
import tensorflow as tf

from tflite_export import convert
from tflite_export.draft import Draft
from tflite_export.errors import ExportError
from tflite_export.measure import runs

W = np.array([[1.0, -2.0], [0.5, 3.0]], "float32")


@pytest.fixture
def product():
    weight = tf.Variable(W)
    return convert.frozen(lambda x: [tf.matmul(x, weight)], [tf.TensorSpec((1, 2), name="input_0")])


def test_a_function_with_variables_becomes_a_file_that_computes_it(product):
    draft = Draft(convert.float_file(product))
    ((y,),) = runs(draft, [[np.float32([[2, 4]])]], draft.outputs)
    np.testing.assert_allclose(y, [[2 * 1 + 4 * 0.5, 2 * -2 + 4 * 3.0]], rtol=1e-6)


def test_float16_stores_constants_in_half_precision(product):
    draft = Draft(convert.float_file(product, "float16"))
    types = [draft.type(i) for i in range(len(draft.tensors)) if draft.is_constant(i)]
    assert "FLOAT16" in types and "FLOAT32" not in types


def test_operations_without_a_counterpart_stay_custom_ones():
    function = convert.frozen(lambda x: [tf.raw_ops.Igamma(a=x, x=x)], [tf.TensorSpec((1, 2), name="input_0")])
    draft = Draft(convert.float_file(function))
    assert [draft.kind(op) for op in draft.operators] == ["Igamma"]


def test_quantized_follows_the_ranges(product):
    draft = Draft(convert.float_file(product))
    draft.set_range(draft.inputs[0], -1.0, 1.55)
    draft.set_range(draft.outputs[0], 0.0, 5.1)
    result = Draft(convert.quantized(draft.content(), "int8"))
    kinds = [result.kind(op) for op in result.operators]
    assert kinds == ["QUANTIZE", "FULLY_CONNECTED", "DEQUANTIZE"]
    grid = result.grid(result.operators[0].outputs[0])
    # scale = 2.55 / 255, zero point = -128 + 1 / 0.01
    assert grid.scale[0] == pytest.approx(0.01) and grid.zeroPoint[0] == -28
    assert result.grid(result.operators[1].outputs[0]).scale[0] == pytest.approx(0.02)


def test_nonsense_is_refused_with_a_reason():
    with pytest.raises(ExportError, match="could not quantize"):
        convert.quantized(b"nonsense" * 8, "int8")


def test_a_child_gives_the_same_file(product):
    draft = Draft(convert.float_file(product))
    draft.set_range(draft.inputs[0], -1.0, 1.0)
    draft.set_range(draft.outputs[0], -4.0, 4.0)
    content = draft.content()
    assert convert.quantized_in_child(content, "int8") == convert.quantized(content, "int8")


def test_a_child_that_dies_is_an_error_with_its_signal(monkeypatch):
    monkeypatch.setattr(convert, "_CHILD", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(ExportError, match="died of signal 11"):
        convert.quantized_in_child(b"", "int8")
