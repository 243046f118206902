"""Normalizations and sums that compute in 16 bits inside of an 8-bit file."""

import numpy as np
import pytest

from tests.tflite_export.forms import chain, keras, layers, wide
from tflite_export import Runner, compare, describe, export
from tflite_export.draft import Draft

KERNELS = ("xnnpack", "builtin", "reference")


def trained(*shape):
    """A normalization whose weights are no ones and zeros, and its rows."""
    x = wide(*shape)
    model, _ = chain(x, layers.LayerNormalization())
    rng = np.random.default_rng(3)
    model.set_weights([rng.normal(1, 0.4, shape[-1:]), rng.normal(0, 0.5, shape[-1:])])
    return model, x


def by_hand(x, model):
    gamma, beta = model.get_weights()
    centered = x - x.mean(-1, keepdims=True)
    return centered / np.sqrt(np.square(centered).mean(-1, keepdims=True) + 1e-3) * gamma + beta


def noise(x, model, content, kernels):
    """Mean square of the error in steps of the output; rounding alone gives 1 / 12."""
    draft = Draft(content)
    step = float(draft.grid(draft.makers()[draft.outputs[0]].inputs[0]).scale[0])
    (first,) = [op for op in draft.operators if op.inputs and op.inputs[0] == draft.inputs[0]]
    grid = draft.grid(first.outputs[0])  # of the rows, whose rounding is not the normalization's
    codes = np.clip(np.round(x / grid.scale[0]) + grid.zeroPoint[0], -128, 127)
    rounded = (codes - grid.zeroPoint[0]) * grid.scale[0]
    error = Runner(content, kernels=kernels)(x) - by_hand(rounded, model)
    return float(np.mean(np.square(error / step)))


@pytest.mark.parametrize("kernels", KERNELS)
def test_a_normalization_rounds_little_more_than_its_result(kernels):
    model, x = trained(6, 32)
    sixteen, eight = (
        noise(x, model, export(model, "int8", calibration=x, normalizations=n).content, kernels)
        for n in ("int16", "int8")
    )
    assert sixteen < 1.5 / 12 < 3 / 12 < eight


def test_rows_and_results_stay_integers_of_8_bits():
    model, x = trained(6, 32)
    draft = Draft(export(model, "int8", calibration=x, inputs="int8", outputs="int8").content)
    assert draft.type(draft.inputs[0]) == draft.type(draft.outputs[0]) == "INT8"
    assert "INT16" in {draft.type(op.outputs[0]) for op in draft.operators}
    assert not describe(export(model, "int8", calibration=x)).float_operations()


def test_a_layer_behind_a_normalization_stays_in_8_bits():
    x = wide(6, 32)
    model, _ = chain(x, layers.LayerNormalization(), layers.Reshape((32, 6)), layers.Dense(4, name="last"))
    draft = Draft(export(model, "int8", calibration=x).content)
    types = {kind: {draft.type(op.outputs[0]) for op in draft.operators if draft.kind(op) == kind}
             for kind in ("FULLY_CONNECTED", "MEAN")}  # fmt: skip
    assert types == {"FULLY_CONNECTED": {"INT8"}, "MEAN": {"INT8"}}
    assert compare(model, export(model, "int8", calibration=x), x).layers


def test_positions_that_are_added_are_not_rounded_to_8_bits():
    rng = np.random.default_rng(5)
    table = rng.normal(0, 0.6, (1, 6, 8)).astype("float32")
    inputs = keras.Input((6, 8))
    model = keras.Model(inputs, inputs + table)
    x = rng.uniform(-0.5, 0.5, (64, 6, 8)).astype("float32")
    content = export(model, "int8", calibration=x).content
    draft = Draft(content)
    (total,) = [op for op in draft.operators if draft.kind(op) == "ADD"]
    assert draft.type(total.outputs[0]) == "INT16"
    (constant,) = [i for i in total.inputs if draft.is_constant(i)]
    real = draft.value(constant) * draft.grid(constant).scale[0]
    assert np.abs(real.reshape(table.shape) - table).max() <= draft.grid(constant).scale[0] * 0.51


def test_a_number_that_is_added_stays_in_8_bits():
    inputs = keras.Input((6, 8))
    model = keras.Model(inputs, inputs + 1.5)
    x = np.random.default_rng(5).uniform(-0.5, 0.5, (64, 6, 8)).astype("float32")
    draft = Draft(export(model, "int8", calibration=x).content)
    assert "INT16" not in {draft.type(op.outputs[0]) for op in draft.operators}


def test_an_unknown_width_is_refused():
    model, x = trained(6, 8)
    with pytest.raises(ValueError, match="`normalizations` must be one of"):
        export(model, "int8", calibration=x, normalizations="float16")
