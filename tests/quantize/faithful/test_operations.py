"""Whole graphs in the integers of LiteRT's kernels: every operation beside the runtime, element by element."""

import numpy as np
import pytest

from tests.quantize.faithful import small
from tests.zoo import keras, layers


@pytest.mark.parametrize("kernels", ["xnnpack", "reference"])
@pytest.mark.parametrize("name", sorted(small.NETWORKS))
def test_every_output_is_the_runtimes(name, kernels):
    small.check(name, kernels)


def test_elu_is_that_of_xnnpack():
    """LiteRT's reference kernels have none."""
    inputs = small.image(6)
    x = layers.Conv2D(6, 3)(inputs)
    model = small.lively(keras.Model(inputs, layers.Add()([layers.ELU()(x), layers.Activation("elu")(x)])))
    quantized, file, x = small.prepared(model)
    expected, found = small.of_runtime(file, x, "xnnpack"), small.of_keras(quantized, x, "xnnpack")
    np.testing.assert_array_equal(*(next(iter(one.values())) for one in (found, expected)))


def test_microcontrollers_compute_the_same_integers():
    pytest.importorskip("tflite_micro")
    model, file, x = small.made("block")
    some = x[:2]
    expected, found = small.of_runtime(file, some, "tflm"), small.of_keras(model, some, "tflm")
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value, err_msg=key)
