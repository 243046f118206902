"""Float operations in an integer file."""

import numpy as np
import tensorflow as tf

from tflite_export import convert
from tflite_export.draft import Draft
from tflite_export.leftovers import float_operations


def call(x):
    with tf.name_scope("turn."):
        y = tf.sin(x * 2.0)
    with tf.name_scope("round."):
        return [tf.math.ceil(y) + 1.0]


def test_what_computes_in_float_is_named_with_its_layer():
    draft = Draft(convert.float_file(convert.frozen(call, [tf.TensorSpec((1, 4), name="input_0")])))
    for index in [*draft.inputs, *(o for op in draft.operators for o in op.outputs)]:
        draft.set_range(index, -2.0, 2.0)
    found = float_operations(Draft(convert.quantized(draft.content(), "int8")))
    assert "CEIL in 'round'" in found
    assert any(text.startswith("DEQUANTIZE") for text in found)  # the one inside, before CEIL, is no boundary
    assert not any(text.startswith(("MUL", "ADD")) for text in found)


def test_an_integer_file_has_none_though_its_ends_are_float():
    draft = Draft(
        convert.float_file(convert.frozen(lambda x: [x * np.float32(2)], [tf.TensorSpec((1, 4), name="input_0")]))
    )
    for index in [*draft.inputs, *draft.outputs]:
        draft.set_range(index, -2.0, 2.0)
    assert float_operations(Draft(convert.quantized(draft.content(), "int8"))) == []
