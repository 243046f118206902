"""Kernels of every scheme beside the runtime: one scale, four bits packed two to a byte, activations of 16 bits."""

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
