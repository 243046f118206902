"""A model that promises the integers of a kernel set, beside its file on this and on other kernel sets."""

import numpy as np
import pytest
import tensorflow as tf

import tfcompress as tfc
from tflite_export import Runner, compare, export
from tflite_export.draft import Draft

keras, layers = tf.keras, tf.keras.layers


@pytest.fixture(scope="module")
def case():
    """A quantized model on XNNPACK's integers, its file, data."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((10, 10, 3))
    x = layers.ReLU(name="relu")(
        layers.BatchNormalization(name="norm")(layers.Conv2D(8, 3, use_bias=False, name="conv")(inputs))
    )
    x = layers.Add(name="join")([x, layers.Conv2D(8, 1, name="branch")(x)])
    model = keras.Model(
        inputs, layers.Dense(6, activation="softmax", name="scores")(layers.GlobalAveragePooling2D(name="pool")(x))
    )
    rng = np.random.default_rng(3)
    model.get_layer("norm").set_weights(
        [rng.normal(1, 0.5, 8), rng.normal(size=8), rng.normal(size=8), rng.uniform(0.5, 2, 8)]
    )
    data = rng.normal(size=(32, 10, 10, 3)).astype("float32")
    quantized = tfc.calibrate(tfc.quantize_model(model, kernels="xnnpack"), data)
    return quantized, export(quantized, "int8").content, data


def test_the_promise_is_kept_in_every_layer(case):
    model, file, data = case
    found = compare(model, file, data)
    assert (found.kernels, found.promised, found.exact, found.equal, found.argmax) == ("xnnpack", "xnnpack", True, 1, 1)
    assert len(found.layers) >= 5 and all(row.model.equal == 1 for row in found.layers)
    assert found.first_departure is None and "Keras computes the integers of the xnnpack kernels" in str(found)


def test_the_first_operation_that_differs_is_told_with_how_much(case):
    model, file, data = case
    draft = Draft(file)
    product = next(
        op for op in draft.operators if draft.kind(op) == "CONV_2D" and "branch" in draft.name(op.outputs[0])
    )
    kernel = draft.value(product.inputs[1]).copy()
    kernel[0] = -kernel[0]
    draft.set_value(product.inputs[1], kernel)
    found = compare(model, draft.content(), data)
    row = found.first_departure
    assert row.layer == "branch" and row.operation == "CONV_2D" and row.elements == 32 * 8 * 8 * 8
    # One channel of eight was turned over: no more than its numbers differ.
    assert 0 < (1 - row.model.equal) * row.elements <= row.elements / 8
    assert "First layer that departs: branch (CONV_2D: " in str(found) and "integers differ, by" in str(found)


def test_other_kernels_than_promised_are_named(case):
    model, file, data = case
    found = compare(model, file, data, kernels="reference")
    assert not found.exact and "Keras computes the integers of the xnnpack kernels" in str(found)


def test_what_is_approximate_is_noted():
    class Odd(layers.Layer):
        def call(self, x):
            return tf.math.sin(x)

        def compute_output_shape(self, shape):
            return shape

    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(3)(Odd(name="odd")(layers.Dense(4)(inputs))))
    data = np.random.default_rng(0).normal(size=(16, 6)).astype("float32")
    quantized = tfc.calibrate(tfc.quantize_model(model, kernels="xnnpack"), data)
    found = compare(quantized, export(quantized, "int8", calibration=data, allow_float=True), data)
    assert any(note.startswith("approximate in Keras: odd, ") for note in found.notes)
    assert any("odd" in row.name and "no exact formula" in str(row) for row in tfc.summary(quantized).rows)


def test_tflite_micro_is_a_kernel_set_of_the_runner(case):
    pytest.importorskip("tflite_micro")
    _, file, data = case
    promised = tfc.quantize_model(keras.Sequential([keras.Input((6,)), layers.Dense(4, name="a")]), kernels="tflm")
    rows = np.random.default_rng(1).normal(size=(64, 6)).astype("float32")
    promised = tfc.calibrate(promised, rows)
    found = compare(promised, export(promised, "int8"), rows)
    assert (found.kernels, found.exact, found.equal) == ("tflm", True, 1)
    assert Runner(file, "tflm")(data).shape == (32, 6)


@pytest.fixture
def four_bits():
    """A model of 4-bit kernels on XNNPACK's integers, and data."""
    inputs = keras.Input((6, 6, 3))
    model = keras.Model(inputs, layers.Conv2D(4, 3, name="conv")(inputs))
    data = np.random.default_rng(0).normal(size=(16, 6, 6, 3)).astype("float32")
    return tfc.calibrate(tfc.quantize_model(model, "w4a8", kernels="xnnpack"), data), data


def test_four_bits_that_are_not_packed_are_noted(four_bits):
    model, data = four_bits
    assert not compare(model, export(model, "int8"), data).notes
    [note] = compare(model, export(model, "int8", int4="unpacked"), data).notes
    assert "4 bits" in note and "one to a byte" in note


def test_nothing_is_promised_before_every_range_was_seen():
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(3)(inputs))
    data = np.random.default_rng(0).normal(size=(16, 6)).astype("float32")
    quantized = tfc.quantize_model(model, kernels="xnnpack")
    found = compare(quantized, export(quantized, "int8", calibration=data), data)
    assert found.promised is None and any("has not seen" in note for note in found.notes)
