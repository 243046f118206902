"""Multiply-accumulates counted by hand."""

import numpy as np
import pytest

from tests.zoo import keras, layers
from tfcompress.core.macs import macs_of
from tfcompress.core.replay import calls
from tfcompress.core.transformed import Transformed


@keras.utils.register_keras_serializable("test_macs")
class Mixer(layers.Layer):
    """A layer of the user's whose formula nobody knows."""

    def build(self, input_shape):
        self.kernel = self.add_weight(name="kernel", shape=(input_shape[-1], 3))
        self.built = True

    def call(self, x):
        return x @ self.kernel

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], 3)


# name: (layer, shape of one sample, the count worked by hand)
CASES = {
    "dense": (lambda: layers.Dense(3), (4,), 4 * 3),
    "dense over steps": (lambda: layers.Dense(3), (5, 4), 5 * 4 * 3),
    "conv": (lambda: layers.Conv2D(4, 3, strides=2), (8, 8, 3), (3 * 3 * 3 * 4) * (3 * 3)),  # (8 - 3) // 2 + 1 = 3
    "same conv": (lambda: layers.Conv2D(4, 3, padding="same"), (8, 6, 3), 108 * 48),
    "grouped conv": (lambda: layers.Conv2D(4, 3, groups=2, padding="same"), (8, 8, 6), (9 * 3 * 4) * 64),
    "conv1d": (lambda: layers.Conv1D(4, 3), (10, 2), 3 * 2 * 4 * 8),
    "conv3d": (lambda: layers.Conv3D(2, 2), (3, 3, 3, 2), 8 * 2 * 2 * 8),
    "depthwise": (lambda: layers.DepthwiseConv2D(3, depth_multiplier=2), (6, 6, 3), 9 * 3 * 2 * 16),
    "separable": (lambda: layers.SeparableConv2D(5, 3), (6, 6, 3), (9 * 3 + 3 * 5) * 16),
    "transposed": (lambda: layers.Conv2DTranspose(4, 3, strides=2), (5, 5, 2), 9 * 4 * 2 * 25),  # each input position
    "einsum": (lambda: layers.EinsumDense("abc,cd->abd", (None, 7)), (4, 3), 4 * 3 * 7),
    "einsum of two axes": (lambda: layers.EinsumDense("abc,cde->abde", (None, 2, 5)), (4, 3), 4 * 3 * 2 * 5),
    "einsum to one axis": (lambda: layers.EinsumDense("abcd,cde->abe", (None, 6)), (4, 2, 5), 4 * 2 * 5 * 6),
    "einsum with bias": (lambda: layers.EinsumDense("abc,cde->abde", (None, 2, 5), bias_axes="de"), (4, 3), 120),
    "lstm": (lambda: layers.LSTM(5), (7, 3), 7 * (3 + 5) * 4 * 5),
    "gru": (lambda: layers.GRU(5), (7, 3), 7 * (3 + 5) * 3 * 5),
    "both ways": (lambda: layers.Bidirectional(layers.LSTM(5)), (7, 3), 2 * 7 * (3 + 5) * 4 * 5),
    "embedding": (lambda: layers.Embedding(9, 4), (6,), 0),
    "normalization": (lambda: layers.BatchNormalization(), (6,), 0),
    "prelu": (lambda: layers.PReLU(), (6, 2), 0),
    "relu": (lambda: layers.ReLU(), (6,), 0),
    "one's own": (lambda: Mixer(), (6,), None),
    "steps unknown": (lambda: layers.LSTM(5), (None, 3), None),
    "size unknown": (lambda: layers.Conv2D(4, 3), (None, None, 3), None),
}


@pytest.mark.parametrize("case", CASES)
def test_the_count_of_one_call(case):
    make, shape, expected = CASES[case]
    inputs = keras.Input(shape, dtype="int32" if case == "embedding" else "float32")
    model = keras.Model(inputs, make()(inputs))
    assert macs_of(calls(model)[-1]) == expected


def test_a_wrapped_layer_counts_as_the_layer_it_holds():
    dense = layers.Dense(3)
    dense.build((None, 4))
    inputs = keras.Input((4,))
    model = keras.Model(inputs, Transformed(dense, {"kernel": []})(inputs))
    assert macs_of(calls(model)[0]) == 12


def test_an_operation_that_is_no_layer_counts_nothing():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, inputs + np.float32(1))
    assert [macs_of(call) for call in calls(model)] == [0]
