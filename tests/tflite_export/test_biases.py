"""Biases after quantization: means of channels are those of the float model."""

import numpy as np
import pytest
import tensorflow as tf

import tfcompress as tfc
import tflite_export
from tflite_export import biases, integers
from tflite_export.flatbuffer import read

keras = tf.keras


def network() -> keras.Model:
    """Depthwise convolutions on few levels: rounding shifts their means."""
    inputs = keras.Input((12, 12, 3))
    h = keras.layers.Conv2D(8, 3, activation="relu", name="stem")(inputs)
    for number in range(3):
        h = keras.layers.DepthwiseConv2D(3, padding="same", activation="relu", name=f"depthwise_{number}")(h)
        h = keras.layers.Conv2D(8, 1, name=f"pointwise_{number}")(h)
    return keras.Model(inputs, keras.layers.Dense(4, use_bias=False)(keras.layers.GlobalAveragePooling2D()(h)))


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(0.3, 1, (96, 12, 12, 3)).astype("float32")


def test_a_shift_of_a_bias_is_taken_back(images, monkeypatch):
    known, correct = {}, biases.correct

    def shifted(reference, integer, samples):
        layer = biases._layers(reference, integer)[2]  # no activation clips it
        known["before"] = integer.value(layer.bias).copy()
        integer.set_value(layer.bias, known["before"] + np.int32(400))
        rows = correct(reference, integer, samples)
        known["after"] = integer.value(layer.bias)
        return rows

    monkeypatch.setattr(integers, "correct", shifted)
    exported = tflite_export.export(network(), "int8", calibration=images)
    assert {"stem", "depthwise_2", "pointwise_2"} <= {row.name for row in exported.report.rows if row.kind == "bias"}
    assert np.abs(known["after"] - known["before"]).max() < 60


def test_a_product_without_a_bias_gets_one(images, monkeypatch):
    found = {}

    def looked_at(reference, integer, samples):
        layer = biases._layers(reference, integer)[-1]
        found[integer.kind(next(op for op in integer.operators if layer.bias in op.inputs))] = integer.value(layer.bias)
        return []

    monkeypatch.setattr(integers, "correct", looked_at)
    tflite_export.export(network(), "int8", calibration=images)
    np.testing.assert_array_equal(found["FULLY_CONNECTED"], np.zeros(4, np.int32))


def test_only_biases_change(images, monkeypatch):
    model = network()
    corrected = tflite_export.export(model, "int8", calibration=images)
    monkeypatch.setattr(integers, "correct", lambda *arguments: [])
    plain = tflite_export.export(model, "int8", calibration=images)

    def constants(exported: tflite_export.Exported) -> set[bytes]:
        tensors = read(exported).subgraphs[0].tensors
        return {t.data.tobytes() for t in tensors if t.data is not None and t.type == "INT8"}

    assert constants(corrected) == constants(plain)


def test_a_file_that_gets_no_nearer_stays_as_it_was(images, monkeypatch):
    model = network()
    monkeypatch.setattr(integers, "correct", lambda *arguments: [])
    plain = tflite_export.export(model, "int8", calibration=images)
    monkeypatch.undo()
    errors = iter([1.0, 2.0])
    monkeypatch.setattr(biases, "_error", lambda *arguments: next(errors))
    kept = tflite_export.export(model, "int8", calibration=images)
    assert not [row for row in kept.report.rows if row.kind == "bias"]
    np.testing.assert_array_equal(
        tflite_export.Runner(kept).integers(images), tflite_export.Runner(plain).integers(images)
    )


def test_what_a_model_has_learned_is_not_touched(images):
    model = tfc.calibrate(tfc.quantize_model(network()), images)
    exported = tflite_export.export(model, "int8", calibration=images)
    assert not [row for row in exported.report.rows if row.kind == "bias"]
