"""The fused LSTM in integers, on the runtime."""

import numpy as np
import pytest
import tensorflow as tf

from tests.zoo import answers
from tflite_export.draft import Draft
from tflite_export.exporter import export
from tflite_export.measure import runs
from tflite_export.recurrent import CELL, FUSED, HIDDEN

keras, layers = tf.keras, tf.keras.layers


def lstm_model(scale=0.7):
    rng = np.random.default_rng(0)
    inputs = keras.Input((10, 6))
    model = keras.Model(inputs, layers.LSTM(8)(layers.LSTM(8, return_sequences=True)(inputs)))
    for weight in model.weights:
        weight.assign(rng.normal(0, scale, weight.shape))
    return model, rng.normal(size=(40, 10, 6)).astype("float32")


def outputs(content, x):
    draft = Draft(content)
    return np.concatenate([y[0] for y in runs(draft, [[row[None]] for row in x], draft.outputs)])


@pytest.mark.parametrize("scale", [0.7, 0.05])
def test_the_integer_lstm_follows_keras(scale):
    # small weights keep the cell state below 1, where the kernel's tanh has no table unless its range is held up
    model, x = lstm_model(scale)
    exported = export(model, "int8", calibration=x)
    assert exported.report.float_operations == ()
    expected = answers(model, x)
    assert np.corrcoef(outputs(exported.content, x).ravel(), expected.ravel())[0, 1] > 0.98


@pytest.mark.parametrize("sequences", [True, False])
def test_an_lstm_in_both_directions_is_fused_in_integers(sequences):
    inputs = keras.Input((6, 4))
    model = keras.Model(inputs, layers.Bidirectional(layers.LSTM(5, return_sequences=sequences))(inputs))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.normal(0, 0.7, weight.shape))
    x = rng.normal(size=(40, 6, 4)).astype("float32")
    exported = export(model, "int8", calibration=x)
    draft = Draft(exported.content)
    assert exported.report.float_operations == () and [draft.kind(op) for op in draft.operators].count(FUSED) == 2
    assert np.corrcoef(outputs(exported.content, x).ravel(), answers(model, x).ravel())[0, 1] > 0.99


def test_states_have_the_grids_of_the_integer_kernel():
    model, x = lstm_model()
    draft = Draft(export(model, "int8", calibration=x).content)
    fused = [op for op in draft.operators if draft.kind(op) == FUSED]
    assert len(fused) == 2
    for op in fused:
        hidden, output = draft.grid(op.inputs[HIDDEN]), draft.grid(op.outputs[0])
        assert (hidden.scale[0], hidden.zeroPoint[0]) == (output.scale[0], output.zeroPoint[0])
        exponent = np.log2(draft.grid(op.inputs[CELL]).scale[0])
        assert exponent == round(exponent) and -15 <= exponent <= -9
        assert draft.type(op.inputs[CELL]) == "INT16"


def test_gates_have_their_own_8_bit_codes():
    model, x = lstm_model()
    draft = Draft(export(model, "int8", calibration=x).content)
    op = next(op for op in draft.operators if draft.kind(op) == FUSED)
    kernel, recurrent = (np.asarray(w) for w in model.layers[1].weights[:2])
    for place, part in enumerate([*np.split(kernel, 4, 1), *np.split(recurrent, 4, 1)], start=1):
        scale = np.abs(part).max() / 127
        np.testing.assert_array_equal(draft.value(op.inputs[place]), np.round(part.T / scale))


def test_float16_halves_the_gates():
    model, x = lstm_model()
    draft = Draft(export(model, "float16").content)
    op = next(op for op in draft.operators if draft.kind(op) == FUSED)
    makers = draft.makers()
    assert draft.type(makers[op.inputs[1]].inputs[0]) == "FLOAT16"
    np.testing.assert_allclose(outputs(draft.content(), x), answers(model, x), atol=5e-3)


def test_16_bits_unroll_it():
    model, x = lstm_model()
    exported = export(model, "int16x8", calibration=x, allow_float=True)
    assert {row.detail for row in exported.report.rows if row.kind == "form"} == {"unrolled"}
    expected = answers(model, x)
    wide = np.abs(outputs(exported.content, x) - expected).max()
    narrow = np.abs(outputs(export(model, "int8", calibration=x).content, x) - expected).max()
    assert wide < narrow / 2
