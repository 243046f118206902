"""Kernels of every scheme beside the runtime: one scale, four bits packed two to a byte, activations of 16 bits."""

import numpy as np
import pytest

import tfcompress
from tests.quantize.faithful import small
from tests.zoo import keras, layers


@pytest.mark.parametrize("kernels", ["xnnpack", "reference"])
@pytest.mark.parametrize("scheme", ["int8_per_tensor", "w4a8", "int16x8"])
def test_kernels_of_each_scheme(scheme, kernels):
    small.check("block", kernels, scheme)


def test_what_16_bits_do_otherwise_is_listed():
    inputs = small.image()
    x = layers.Conv2D(4, 3)(inputs)
    model = keras.Model(
        inputs,
        layers.Concatenate(name="joined")([layers.AveragePooling2D(2, name="pool")(x), layers.MaxPooling2D()(x)]),
    )
    for scheme, listed in (("int8", set()), ("int16x8", {"joined", "pool"})):
        notes = tfcompress.quantize_model(model, scheme, kernels="xnnpack").notes
        assert listed == {name for name, why in notes.items() if "no exact formula" in why}


def test_curves_without_16_bits_and_kernels_of_two_widths_are_listed():
    inputs = small.image()
    bent = [layers.Activation(name, name=name)(layers.Conv2D(4, 3)(inputs)) for name in ("gelu", "exponential", "tanh")]
    notes = tfcompress.quantize_model(keras.Model(inputs, bent), "int16x8", kernels="xnnpack").notes
    assert {name for name, why in notes.items() if "no exact formula" in why} == {"gelu", "exponential"}


def test_what_a_kernel_set_does_without_is_listed():
    inputs = small.image()
    model = keras.Model(inputs, layers.Activation("gelu", name="bent")(layers.Conv2D(4, 3)(inputs)))
    assert "tflm" in tfcompress.quantize_model(model, kernels="tflm").notes["bent"]
    assert "bent" not in tfcompress.quantize_model(model, kernels="reference").notes


def test_prescribed_ranges_of_16_bits_are_the_runtimes():
    inputs = small.image()
    x = layers.Conv2D(6, 3)(inputs)
    gate = layers.Multiply()([layers.Activation("tanh")(x), layers.Conv2D(6, 3, activation="sigmoid")(inputs)])
    scores = layers.Dense(5, activation="softmax")(layers.Flatten()(layers.Conv2D(4, 1)(gate)))
    quantized, file, x = small.prepared(small.lively(keras.Model(inputs, scores)), "int16x8")
    expected, found = small.of_runtime(file, x, "xnnpack"), small.of_keras(quantized, x, "xnnpack")
    np.testing.assert_array_equal(found[""], expected[""])


def test_a_relu_that_the_file_does_not_fuse_is_listed():
    inputs = small.image()
    x = layers.Conv2DTranspose(4, 3, use_bias=False, name="up")(inputs)
    notes = tfcompress.quantize_model(keras.Model(inputs, layers.ReLU(name="bent")(x)), kernels="xnnpack").notes
    assert "before this ReLU" in notes["bent"]
    y = layers.Conv2DTranspose(4, 3, name="up")(inputs)
    model = keras.Model(inputs, layers.ReLU(name="bent")(y))
    assert "bent" not in tfcompress.quantize_model(model, kernels="tflm").notes
