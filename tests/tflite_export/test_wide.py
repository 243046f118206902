"""16-bit activations as the kernels want them."""

import numpy as np
import pytest
import tensorflow as tf

from tflite_export import convert, wide
from tflite_export.draft import Draft


def drafted(call):
    return Draft(convert.float_file(convert.frozen(call, [tf.TensorSpec((1, 4), name="input_0")])))


def by_kind(draft):
    return {draft.kind(op): op for op in draft.operators}


def test_operands_and_result_of_a_selection_share_the_widest_range():
    draft = drafted(lambda x: [tf.where(x > 0, tf.sin(x), tf.cos(x)) * 3.0])
    ops = by_kind(draft)
    select = "SELECT" if "SELECT" in ops else "SELECT_V2"
    sine, cosine, chosen, product = (ops[k].outputs[0] for k in ("SIN", "COS", select, "MUL"))
    found = wide.joined(draft, {sine: (-1.0, 1.0), cosine: (-0.5, 2.0), chosen: (0.0, 1.0), product: (-9.0, 9.0)})
    assert found[sine] == found[cosine] == found[chosen] == (-1.0, 2.0)
    assert found[product] == (-9.0, 9.0)


def test_what_is_reshaped_is_on_the_same_grid():
    draft = drafted(lambda x: [tf.concat([tf.reshape(tf.sin(x), (4, 1)), tf.reshape(tf.cos(x), (4, 1))], 1)])
    ops = by_kind(draft)
    sine, cosine = ops["SIN"].outputs[0], ops["COS"].outputs[0]
    found = wide.joined(draft, {sine: (-1.0, 0.5), cosine: (-0.5, 2.0)})
    assert found[sine] == found[cosine] == (-1.0, 2.0)


def test_constants_of_elementwise_operations_are_16_bit_integers():
    draft = drafted(lambda x: [tf.sin(x) + np.float32([1.0, -2.0, 0.5, 0.0])])
    ranges = wide.joined(draft, {})
    wide.constants(draft, ranges)
    stored = next(op.inputs[0] for op in draft.operators if draft.kind(op) == "DEQUANTIZE")
    scale = draft.grid(stored).scale[0]
    assert draft.type(stored) == "INT16" and scale == pytest.approx(2 / 32767)
    np.testing.assert_array_equal(draft.value(stored), np.round(np.float64([1.0, -2.0, 0.5, 0.0]) / scale))
