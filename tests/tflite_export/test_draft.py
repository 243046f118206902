"""Files under edit."""

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from tflite_export import convert
from tflite_export.draft import Draft, layer_of
from tflite_export.measure import runs


@pytest.fixture
def sine():
    function = convert.frozen(lambda x: [tf.sin(x) * 2.0], [tf.TensorSpec((1, 3), name="input_0")])
    return Draft(convert.float_file(function))


def values(draft, x):
    return next(runs(draft, [[np.float32(x)]], draft.outputs))[0]


def test_what_is_not_touched_stays(sine):
    np.testing.assert_allclose(values(Draft(sine.content()), [[0, 1, 2]]), 2 * np.sin([[0, 1, 2]]), rtol=1e-6)


def test_an_operator_becomes_another(sine):
    op = next(op for op in sine.operators if sine.kind(op) == "SIN")
    sine.become(op, "MUL", [op.inputs[0], sine.add_constant(np.float32(-1), "minus")], schema.MulOptionsT())
    np.testing.assert_allclose(values(sine, [[0, 1, 2]]), [[0, -2, -4]])


def test_an_operator_is_inserted_and_its_result_used(sine):
    (x,) = sine.inputs
    squared = sine.add_tensor((1, 3), "FLOAT32", "squared")
    sine.replace_uses(x, squared)
    sine.insert(0, "MUL", [x, x], [squared], schema.MulOptionsT())
    np.testing.assert_allclose(values(sine, [[0, 1, 2]]), 2 * np.sin([[0, 1, 4]]), rtol=1e-6)


def test_a_constant_is_read_and_replaced(sine):
    op = next(op for op in sine.operators if sine.kind(op) == "MUL")
    index = next(i for i in op.inputs if sine.is_constant(i))
    assert sine.value(index) == np.float32(2)
    sine.set_value(index, np.float32(3))
    np.testing.assert_allclose(values(sine, [[1, 1, 1]]), 3 * np.sin([[1, 1, 1]]), rtol=1e-6)


def test_constants_that_nothing_uses_are_left_out(sine):
    before = len(sine.content())
    sine.add_constant(np.zeros(10_000, "float32"), "unused")
    assert len(sine.content()) < before + 1000


@pytest.mark.parametrize(
    "name, layer",
    [
        ("dense./dense_1/MatMul", "dense"),
        ("block/dense._2/dense_1/MatMul;bias", "block/dense"),
        ("input_0", "input_0"),
        ("Identity;conv2d./Relu", "conv2d"),
        ("a.b./c", "a.b"),
    ],
)
def test_the_layer_in_a_tensors_name(name, layer):
    assert layer_of(name) == layer


def test_tidy_names_have_no_marks(sine):
    sine.tensors[0].name = b"dense./dense/MatMul;dense./dense/Add"
    sine.tidy_names()
    assert sine.tensors[0].name == b"dense/MatMul"


def test_tidy_names_are_unique_and_constants_have_numbers(sine):
    (constant,) = (index for index in range(len(sine.tensors)) if sine.is_constant(index))
    (result,) = sine.operators[0].outputs
    (end,) = sine.graph.outputs
    for index in (constant, result, end):
        sine.tensors[index].name = b"dense./MatMul"
    sine.tidy_names()
    assert [sine.name(index) for index in (end, result)] == ["dense/MatMul", "dense/MatMul_1"]
    assert sine.name(constant) == str(constant)
