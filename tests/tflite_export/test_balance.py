"""Second factors of products of activations have the zero point 0 where that costs little."""

import numpy as np
import pytest

import tfcompress as tfc
from tests.tflite_export.forms import keras, layers
from tflite_export import export
from tflite_export.balance import balanced
from tflite_export.draft import Draft


def zero_points(content):
    """Of the second factors of products of two activations."""
    draft = Draft(content)
    products = [op for op in draft.operators if draft.kind(op) == "BATCH_MATMUL" and op.inputs[0] != op.inputs[1]]
    return [int(draft.grid(op.inputs[1]).zeroPoint[0]) for op in products]


def attention():
    inputs = keras.Input((6, 8))
    return keras.Model(inputs, layers.MultiHeadAttention(2, 4)(inputs, inputs))


ROWS = np.random.default_rng(0).normal(0.3, 1.0, (64, 6, 8)).astype("float32")


def test_measured_ranges_of_attention():
    assert zero_points(export(attention(), "int8", calibration=ROWS).content) == [0, 0]


@pytest.mark.parametrize("ranges", ["ema", "percentile", "lsq"])
def test_learned_ranges_of_attention(ranges):
    quantized = tfc.calibrate(tfc.quantize_model(attention(), ranges=ranges), ROWS)
    assert zero_points(export(quantized, "int8", calibration=ROWS).content) == [0, 0]


def test_a_factor_without_negative_numbers_keeps_its_bit():
    one, other = keras.Input((4, 6)), keras.Input((6, 5))
    model = keras.Model([one, other], keras.layers.Dot((2, 1))([one, keras.layers.ReLU()(other)]))
    x = [np.random.default_rng(1).normal(size=(64, *shape)).astype("float32") for shape in ((4, 6), (6, 5))]
    assert zero_points(export(model, "int8", calibration=x).content) == [-128]


def test_a_range_is_at_most_a_quarter_wider():
    low, high = balanced(-1.0, 0.7)
    assert (low, high) == pytest.approx((-1.0, 127 / 128)) and (high - low) / 1.7 < 1.25
    assert balanced(-1.0, 0.5) is None


def test_rows_that_are_multiplied_with_themselves_have_another_zero_point():
    rows = ROWS - ROWS.mean(-1, keepdims=True)
    rows = np.concatenate([rows, -rows])  # an even range
    inputs = keras.Input((6, 8))
    model = keras.Model(inputs, layers.LayerNormalization()(inputs))
    draft = Draft(export(model, "int8", calibration=rows, normalizations="int8").content)
    (square,) = [op for op in draft.operators if draft.kind(op) == "BATCH_MATMUL"]
    assert abs(int(draft.grid(square.inputs[1]).zeroPoint[0])) in (1, 2, 3)
