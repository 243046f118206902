"""Learned ranges in a float file."""

import numpy as np
import pytest
import tensorflow as tf

from tflite_export import convert
from tflite_export.draft import Draft
from tflite_export.learned import (
    ahead,
    behind_parts,
    fixed,
    grid_of,
    heal,
    learned,
    pin,
    unranged,
    widen,
    without_pairs,
)
from tflite_export.measure import runs

fake_quant = tf.quantization.fake_quant_with_min_max_vars


def drafted(call, *shapes):
    specs = [tf.TensorSpec(shape, name=f"input_{i}") for i, shape in enumerate(shapes)]
    return Draft(convert.float_file(convert.frozen(call, specs)))


def kinds_of(draft, tensors):
    makers = draft.makers()
    return [draft.kind(makers[i]) if i in makers else "input" for i in tensors]


def call(x):
    y = fake_quant(tf.sin(x), -1.0, 1.55)
    z = tf.nn.max_pool1d(y, 2, 2, "VALID")
    return [tf.nn.softmax(tf.exp(z))]


def test_a_learned_range_is_that_of_what_is_dequantized():
    draft = drafted(call, (1, 4, 2))
    (pair,) = learned(draft).values()
    # scale 2.55 / 255 = 0.01, zero on the grid: -1 and 1.55 are kept
    np.testing.assert_allclose(pair, (-1.0, 1.55), atol=1e-6)


def test_16_bits_are_learned_too():
    draft = drafted(lambda x: [fake_quant(tf.sin(x), -1.0, 1.0, num_bits=16) * 2.0], (1, 6))
    (pair,) = learned(draft).values()
    np.testing.assert_allclose(pair, (-1.0, 1.0), atol=1e-4)  # zero is put on the grid of 65 536 levels


def test_what_lacks_a_range():
    draft = drafted(call, (1, 4, 2))
    heal(draft)
    # sin goes to QUANTIZE alone, max-pool keeps its input's grid, softmax has a fixed one
    assert kinds_of(draft, unranged(draft)) == ["input", "EXP"]


def test_a_range_counts_through_operations_that_reorder():
    draft = drafted(lambda x: [fake_quant(tf.transpose(x, [0, 2, 1]), -1.0, 1.0) * 2.0], (1, 3, 5))
    assert draft.inputs[0] in ahead(draft) and draft.inputs[0] not in unranged(draft)


def test_a_range_behind_a_slice_is_no_range_of_the_whole():
    draft = drafted(lambda x: [fake_quant(tf.sin(x)[:, :2], 0.0, 1.0) * 2.0], (1, 5))
    sine = next(op.outputs[0] for op in draft.operators if draft.kind(op) == "SIN")
    assert sine in unranged(draft) and sine in behind_parts(draft)


def test_a_range_behind_a_stack_is_that_of_its_parts():
    draft = drafted(lambda x: [fake_quant(tf.stack([-x[:, 1:], tf.exp(x[:, :-1])], -1), -2.0, 3.1) * 2.0], (1, 5))
    pack = next(op for op in draft.operators if draft.kind(op) == "PACK")
    found = ahead(draft)
    np.testing.assert_allclose([found[i] for i in pack.inputs], [(-2.0, 3.1)] * 2, atol=1e-6)  # steps of 0.02


def test_8_bit_values_are_dequantized_before_a_float_operation():
    weight = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")
    draft = drafted(lambda x: [tf.matmul(fake_quant(x, -1.0, 1.0), weight)], (1, 6, 5))
    heal(draft)
    product = next(op for op in draft.operators if draft.kind(op) == "FULLY_CONNECTED")
    assert draft.type(product.inputs[0]) == "FLOAT32"
    x = np.random.default_rng(1).uniform(-1, 1, (1, 6, 5)).astype("float32")
    ((y,),) = runs(draft, [[x]], draft.outputs)
    np.testing.assert_allclose(y, fake_quant(x, -1.0, 1.0).numpy() @ weight, atol=1e-5)


def test_without_pairs_the_function_is_unrounded_and_the_ranges_are_returned():
    draft = drafted(call, (1, 4, 2))
    found = without_pairs(draft)
    assert kinds_of(draft, found) == ["SIN"]
    assert not {"QUANTIZE", "DEQUANTIZE"} & {draft.kind(op) for op in draft.operators}
    x = np.linspace(-1, 1, 8, dtype="float32").reshape(1, 4, 2)
    ((y,),) = runs(draft, [[x]], draft.outputs)
    z = np.sin(x).reshape(1, 2, 2, 2).max(2)
    e = np.exp(np.exp(z))
    np.testing.assert_allclose(y, e / e.sum(-1, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize("bits, step", [(8, 2.55 / 255), (16, 1.55 / 32767)])
def test_a_pinned_tensor_is_on_its_grid(bits, step):
    draft = drafted(lambda x: [tf.sin(x) * 2.0, tf.cos(x)], (1, 6))
    sine = next(op.outputs[0] for op in draft.operators if draft.kind(op) == "SIN")
    pin(draft, sine, -1.0, 1.55, bits)
    pin(draft, draft.outputs[1], -1.0, 1.55, bits)
    x = np.linspace(-1.5, 1.5, 6, dtype="float32")[None]
    ((double, cosine),) = runs(draft, [[x]], draft.outputs)
    np.testing.assert_allclose(double / 2, np.round(np.sin(x) / step) * step, atol=1e-6)
    np.testing.assert_allclose(cosine, np.round(np.cos(x) / step) * step, atol=1e-6)
    assert draft.name(draft.outputs[1]) == "Identity_1"  # the pair stands before the name that the user knows


def test_grids():
    assert grid_of(-1.0, 1.55, 8) == (pytest.approx(0.01), -28)
    assert grid_of(-2.0, 1.0, 16) == (2.0 / 32767, 0)


def test_fixed_grids_of_16_bits_have_the_scale_of_their_kernels():
    draft = drafted(lambda x: [tf.tanh(tf.sin(x))], (1, 6))
    ((low, high),) = fixed(draft).values()
    assert np.float32(grid_of(low, high, 16)[0]) == np.float32(1 / 32768)


def test_a_learned_range_of_no_width_becomes_usable():
    draft = drafted(lambda x: [fake_quant(tf.sin(x), 0.0, 1e-8) * 2.0, fake_quant(tf.cos(x), 0.0, 2.55)], (1, 6))
    assert len(widen(draft)) == 1
    scales = sorted(float(draft.grid(op.outputs[0]).scale[0]) for op in draft.operators if draft.kind(op) == "QUANTIZE")
    np.testing.assert_allclose(scales, [1 / 255, 0.01], rtol=1e-6)  # the other one is as it was learned
