"""Layers in the runtime's form compute what Keras computes."""

import numpy as np
import pytest
import tensorflow as tf

import tfcompress as tfc
from tests.zoo import answers
from tflite_export.draft import Draft
from tflite_export.errors import ExportError
from tflite_export.exporter import export
from tflite_export.measure import runs
from tflite_export.runner import Runner
from tflite_export.runtime_forms import needs_forms, runtime_forms

keras, layers = tf.keras, tf.keras.layers
rng = np.random.default_rng(0)


def model_of(layer, shape):
    inputs = keras.Input(shape)
    model = keras.Model(inputs, layer(inputs))
    for weight in model.weights:
        weight.assign(rng.normal(0, 0.5, weight.shape))
    return model


def kinds(content):
    draft = Draft(content)
    return [draft.kind(op) for op in draft.operators]


def file_output(content, x):
    draft = Draft(content)
    return np.concatenate([y[0].copy() for y in runs(draft, [[row[None]] for row in x], draft.outputs)])


LSTMS = {
    "last": lambda: layers.LSTM(4),
    "sequence": lambda: layers.LSTM(4, return_sequences=True),
    "backwards": lambda: layers.LSTM(4, return_sequences=True, go_backwards=True),
    "no bias": lambda: layers.LSTM(4, use_bias=False),
    "both ways": lambda: layers.Bidirectional(layers.LSTM(4, return_sequences=True)),
    "both ways, last, sum": lambda: layers.Bidirectional(layers.LSTM(4), merge_mode="sum"),
}


@pytest.mark.parametrize("make", LSTMS.values(), ids=LSTMS)
def test_an_lstm_is_fused(make):
    model, x = model_of(make(), (5, 3)), rng.normal(size=(3, 5, 3)).astype("float32")
    content = export(model).content
    assert kinds(content).count("UNIDIRECTIONAL_SEQUENCE_LSTM") == (
        2 if "bidirectional" in model.layers[-1].name else 1
    )
    assert not {"WHILE", "TENSOR_ARRAY"} & set(kinds(content))
    np.testing.assert_allclose(file_output(content, x), answers(model, x), atol=1e-5)


UNROLLED = {
    "GRU": lambda: layers.GRU(4, return_sequences=True),
    "GRU, reset before": lambda: layers.GRU(4, reset_after=False),
    "SimpleRNN": lambda: layers.SimpleRNN(4),
    "both ways": lambda: layers.Bidirectional(layers.GRU(4)),
    "cells": lambda: layers.RNN([layers.GRUCell(4), layers.LSTMCell(3)]),
    "LSTM of other activations": lambda: layers.LSTM(4, activation="relu"),
}


@pytest.mark.parametrize("make", UNROLLED.values(), ids=UNROLLED)
def test_what_has_no_fused_form_is_unrolled(make):
    model, x = model_of(make(), (4, 3)), rng.normal(size=(3, 4, 3)).astype("float32")
    exported = export(model)
    assert not {"WHILE", "UNIDIRECTIONAL_SEQUENCE_LSTM"} & set(kinds(exported.content))
    assert [row.detail for row in exported.report.rows if row.kind == "form"] == ["unrolled"]
    np.testing.assert_allclose(file_output(exported.content, x), answers(model, x), atol=1e-5)


def test_a_state_that_is_used_unrolls_the_lstm():
    inputs = keras.Input((4, 3))
    _, hidden, cell = layers.LSTM(4, return_state=True)(inputs)
    model = keras.Model(inputs, layers.Concatenate()([hidden, cell]))
    x = rng.normal(size=(2, 4, 3)).astype("float32")
    np.testing.assert_allclose(file_output(export(model).content, x), answers(model, x), atol=1e-5)


def test_a_mask_unrolls_the_lstm():
    inputs = keras.Input((6,), dtype="int32")
    model = keras.Model(inputs, layers.LSTM(4)(layers.Embedding(9, 5, mask_zero=True)(inputs)))
    x = np.int32([[1, 2, 3, 0, 0, 0], [4, 5, 6, 7, 8, 1]])
    np.testing.assert_allclose(file_output(export(model).content, x), answers(model, x), atol=1e-5)


def test_a_mask_passes_an_unrolled_layer():
    inputs = keras.Input((6,), dtype="int32")
    x = layers.LSTM(4, return_sequences=True)(layers.Embedding(9, 5, mask_zero=True)(inputs))
    model = keras.Model(inputs, layers.GlobalAveragePooling1D()(x))
    x = np.int32([[1, 2, 3, 0, 0, 0], [4, 5, 6, 7, 8, 1]])
    np.testing.assert_allclose(file_output(export(model).content, x), answers(model, x), atol=1e-5)


@pytest.mark.parametrize("kind", [layers.GRU, layers.LSTM, layers.SimpleRNN])
def test_the_number_of_steps_is_known_behind_attention(kind):
    inputs = keras.Input((6, 3))
    model = keras.Model(inputs, kind(4)(layers.MultiHeadAttention(2, 4)(inputs, inputs)))
    x = rng.normal(size=(32, 6, 3)).astype("float32")
    model = tfc.calibrate(tfc.quantize_model(model), x)
    content = export(model, "int8", calibration=x).content
    found, expected = file_output(content, x), answers(model, x)
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.99


def test_an_unknown_number_of_steps_is_refused():
    model = model_of(layers.GRU(4), (None, 3))
    with pytest.raises(ExportError, match="unknown number of steps"):
        runtime_forms(model)


@pytest.mark.parametrize(
    "make", [lambda: layers.LSTM(4, stateful=True), lambda: layers.Bidirectional(layers.GRU(4, stateful=True))]
)
def test_a_state_that_lasts_from_call_to_call_is_refused(make):
    inputs = keras.Input((6, 3), batch_size=1)
    model = keras.Model(inputs, make()(inputs))
    with pytest.raises(ExportError, match=r"keeps its state .* `initial_state=` and return_state=True"):
        export(model)


@pytest.mark.parametrize("kind", [layers.GRU, layers.LSTM])
def test_the_number_of_steps_may_be_given_with_the_export(kind):
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    model = keras.Model(tokens, kind(4)(layers.Embedding(9, 5)(tokens)))
    x = rng.integers(0, 9, (3, 6)).astype("int32")
    content = export(model, shapes={"tokens": (6,)}).content
    np.testing.assert_allclose(file_output(content, x), answers(model, x), atol=1e-5)


def test_signatures_may_run_over_different_numbers_of_steps():
    tokens, state = keras.Input((None,), dtype="int32", name="tokens"), keras.Input((4,), name="state")
    embedded = layers.Embedding(9, 5, name="table")(tokens)
    y, new = layers.GRU(4, return_sequences=True, return_state=True)(embedded, initial_state=state)
    model = keras.Model({"tokens": tokens, "state": state}, {"y": y, "state": new})
    content = export(model, signatures={"prefill": {"tokens": (6,)}, "decode": {"tokens": (1,)}}).content
    x = {"tokens": rng.integers(0, 9, (3, 7)).astype("int32"), "state": np.zeros((3, 4), "float32")}
    expected = answers(model, x)["y"]
    first = Runner(content, signature="prefill")({**x, "tokens": x["tokens"][:, :6]})
    second = Runner(content, signature="decode")({"tokens": x["tokens"][:, 6:], "state": first["state"]})
    np.testing.assert_allclose(np.concatenate([first["y"], second["y"]], 1), expected, atol=1e-5)


@pytest.mark.parametrize(
    "strides, padding, dilation", [(1, "same", 1), (2, "same", 1), (2, "valid", 1), (1, "valid", 2)]
)
def test_a_3d_convolution_is_a_sum_of_2d_ones(strides, padding, dilation):
    layer = layers.Conv3D(4, 3, strides=strides, padding=padding, dilation_rate=dilation, activation="relu")
    model, x = model_of(layer, (7, 8, 6, 2)), rng.normal(size=(2, 7, 8, 6, 2)).astype("float32")
    content = export(model).content
    assert kinds(content).count("CONV_2D") == 3 and "CONV_3D" not in kinds(content)
    np.testing.assert_allclose(file_output(content, x), answers(model, x), atol=1e-4)


def test_the_model_is_left_as_it_was():
    model, x = model_of(layers.Bidirectional(layers.GRU(4)), (4, 3)), rng.normal(size=(3, 4, 3)).astype("float32")
    before, parts = answers(model, x), (model.layers[-1].forward_layer, model.layers[-1].backward_layer)
    runtime_forms(model)
    assert not any(part.unroll for part in parts)
    np.testing.assert_array_equal(answers(model, x), before)


def test_a_recurrent_layer_inside_a_nested_model_is_seen():
    inner = model_of(layers.LSTM(4), (5, 3))
    inputs = keras.Input((5, 3))
    model = keras.Model(inputs, layers.Dense(2)(inner(inputs)))
    assert needs_forms(model, inner=True) and not needs_forms(inner, inner=True)
    x = rng.normal(size=(2, 5, 3)).astype("float32")
    content = export(model).content
    assert "UNIDIRECTIONAL_SEQUENCE_LSTM" in kinds(content)
    np.testing.assert_allclose(file_output(content, x), answers(model, x), atol=1e-5)
