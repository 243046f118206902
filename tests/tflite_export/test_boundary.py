"""Names and types where a file meets its user."""

import numpy as np
import pytest
import tensorflow as tf

from tflite_export import boundary, convert
from tflite_export.draft import Draft
from tflite_export.measure import runs


@pytest.fixture
def draft():
    def call(a, b):
        return [a * 2.0 + b, tf.transpose(b)]

    specs = [tf.TensorSpec((1, 4), name="input_0"), tf.TensorSpec((1, 4), name="input_1")]
    floats = Draft(convert.float_file(convert.frozen(call, specs)))
    boundary.order_inputs(floats, 2)
    for index in [*floats.inputs, *(o for op in floats.operators for o in op.outputs)]:
        floats.set_range(index, -1.28, 1.27)
    return Draft(convert.quantized(floats.content(), "int8"))


A, B = np.float32([[0.1, 0.2, -0.3, 0.4]]), np.float32([[0.5, -0.5, 0.25, 0.0]])


def integers(x):
    return np.round(x / 0.01).astype("int8")  # scale 2.55 / 255, zero point -128 + 128 = 0


def test_names_are_the_users_everywhere(draft):
    boundary.name_ends(draft, ["left", "right"], ["sum", "turned"], "serve")
    again = Draft(draft.content())
    (signature,) = again.model.signatureDefs
    assert signature.signatureKey == b"serve"
    assert {e.name.decode(): again.name(e.tensorIndex) for e in [*signature.inputs, *signature.outputs]} == {
        n: n for n in ("left", "right", "sum", "turned")
    }
    assert [again.name(i) for i in again.inputs] == ["left", "right"]


def test_no_inner_tensor_keeps_a_name_of_the_boundary(draft):
    inner = draft.operators[0].outputs[0]
    draft.tensors[inner].name = b"sum"
    boundary.name_ends(draft, ["left", "right"], ["sum", "turned"], "serve")
    assert draft.name(inner) == "sum_inner"


def test_integers_go_in_and_come_out(draft):
    boundary.integer_inputs(draft, "int8")
    boundary.integer_outputs(draft, "int8")
    assert [draft.type(i) for i in (*draft.inputs, *draft.outputs)] == ["INT8"] * 4
    assert not {"QUANTIZE", "DEQUANTIZE"} & {draft.kind(op) for op in draft.operators}
    total, turned = next(runs(draft, [[integers(A), integers(B)]], draft.outputs))
    np.testing.assert_allclose(total, integers(2 * A + B), atol=1)
    np.testing.assert_array_equal(turned, integers(B).T)


def test_unsigned_integers_are_128_higher(draft):
    boundary.integer_inputs(draft, "uint8")
    boundary.integer_outputs(draft, "uint8")
    unsigned = [(integers(x).astype("int32") + 128).astype("uint8") for x in (A, B)]
    total, turned = next(runs(draft, [unsigned], draft.outputs))
    assert total.dtype == np.uint8
    np.testing.assert_array_equal(turned, unsigned[1].T)
    np.testing.assert_allclose(total.astype(int), integers(2 * A + B).astype(int) + 128, atol=1)


def test_the_description_holds_name_type_shape_and_grid(draft):
    boundary.integer_inputs(draft, "int8")
    boundary.name_ends(draft, ["left", "right"], ["sum", "turned"], "serve")
    assert boundary.described(draft, draft.inputs)[0] == "left int8 (1, 4) = 0.01 * (integer - 0)"
    assert boundary.described(draft, draft.outputs)[0] == "sum float32 (1, 4)"


def test_an_output_that_is_an_input_has_a_tensor_of_its_own():
    specs = [tf.TensorSpec((1, 4), name="input_0")]
    draft = Draft(convert.float_file(convert.frozen(lambda x: [x * 1.0, x + 1.0, x * 1.0], specs)))
    boundary.separate(draft)
    assert len({*draft.inputs, *draft.outputs}) == 4
    boundary.name_ends(draft, ["x"], ["a", "b", "c"], "serve")
    a, b, c = next(runs(draft, [[A]], draft.outputs))
    np.testing.assert_array_equal([a, b - 1, c], [A, (A + 1) - 1, A])
