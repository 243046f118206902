"""The output channels of every kind of kernel, from a table written by hand."""

import pytest

from tests.zoo import keras, layers
from tfcompress.core.grid import Grid
from tfcompress.core.opaque import Weight
from tfcompress.quantize.layouts import kernel_grids


@keras.utils.register_keras_serializable("test_layouts")
class Own(layers.Layer):
    """A matrix, a tensor of three axes and a vector, as a user's layer may hold them."""

    def build(self, input_shape):
        self.matrix = self.add_weight(name="matrix", shape=(input_shape[-1], 3))
        self.cube = self.add_weight(name="cube", shape=(2, 3, 4))
        self.vector = self.add_weight(name="vector", shape=(3,))
        self.bias = self.add_weight(name="bias", shape=(1, 3))
        self.fixed = self.add_weight(name="fixed", shape=(4, 4), trainable=False)
        self.built = True

    def call(self, x):
        return x @ self.matrix


@keras.utils.register_keras_serializable("test_layouts")
class Holder(layers.Layer):
    """A composite whose inner layers are a depthwise convolution and a Dense layer."""

    def build(self, input_shape):
        self.depthwise, self.dense = layers.DepthwiseConv2D(3, name="depthwise"), layers.Dense(2, name="dense")
        self.depthwise.build(input_shape)
        self.dense.build(input_shape)
        self.built = True

    def call(self, x):
        return self.dense(self.depthwise(x))


def both(layer):
    return {"kernel": layer, "recurrent_kernel": layer}


DEPTHWISE = "depthwise_kernel" if "tf_keras" in keras.Model.__module__ else "kernel"
SECOND = "kernel_1" if DEPTHWISE == "kernel" else "kernel"  # a second weight of the name gets a number
LAST, GATES = (-1, None), (-1, 4)
# name: (layer, input shape with batch, {weight: (axes that keep a scale, groups)})
CASES = {
    "Dense": (lambda: layers.Dense(3), (None, 4), {"kernel": LAST}),
    "Conv1D": (lambda: layers.Conv1D(3, 2), (None, 8, 4), {"kernel": LAST}),
    "Conv2D": (lambda: layers.Conv2D(3, 2), (None, 8, 8, 4), {"kernel": LAST}),
    "grouped Conv2D": (lambda: layers.Conv2D(4, 2, groups=2), (None, 8, 8, 4), {"kernel": LAST}),
    "Conv3D": (lambda: layers.Conv3D(3, 2), (None, 8, 8, 8, 4), {"kernel": LAST}),
    "DepthwiseConv1D": (lambda: layers.DepthwiseConv1D(3), (None, 8, 4), {DEPTHWISE: ((-2, -1), None)}),
    "DepthwiseConv2D": (lambda: layers.DepthwiseConv2D(3), (None, 8, 8, 4), {DEPTHWISE: ((-2, -1), None)}),
    "Conv1DTranspose": (lambda: layers.Conv1DTranspose(3, 2), (None, 8, 4), {"kernel": (-2, None)}),
    "Conv2DTranspose": (lambda: layers.Conv2DTranspose(3, 2), (None, 8, 8, 4), {"kernel": (-2, None)}),
    "Conv3DTranspose": (lambda: layers.Conv3DTranspose(3, 2), (None, 4, 4, 4, 2), {"kernel": (-2, None)}),
    # queries: the kernel's d is contracted, its heads and sizes are channels
    "EinsumDense heads": (lambda: layers.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de"), (None, 4, 5),
                          {"kernel": ((-2, -1), None)}),
    "EinsumDense back": (lambda: layers.EinsumDense("abcd,cde->abe", (None, 3)), (None, 4, 2, 5),
                         {"kernel": ((-1,), None)}),
    "EinsumDense ...": (lambda: layers.EinsumDense("...x,xy->...y", (3,)), (None, 5), {"kernel": ((-1,), None)}),
    "EinsumDense first": (lambda: layers.EinsumDense("ab,cb->ac", (3,)), (None, 5), {"kernel": ((-2,), None)}),
    # one kernel for each b: the axis is in input and output, so it is no channel of one product
    "EinsumDense batch": (lambda: layers.EinsumDense("abc,bcd->abd", (4, 3)), (None, 4, 5), {"kernel": (None, None)}),
    "Embedding": (lambda: layers.Embedding(9, 4), (None, 6), {"embeddings": (None, None)}),
    "LSTM": (lambda: layers.LSTM(3), (None, 4, 2), both(GATES)),
    "GRU": (lambda: layers.GRU(3), (None, 4, 2), both(LAST)),  # its bias has two axes and is no kernel
    "SimpleRNN": (lambda: layers.SimpleRNN(3), (None, 4, 2), both(LAST)),
    "Bidirectional LSTM": (lambda: layers.Bidirectional(layers.LSTM(3)), (None, 4, 2),
                           {**both(GATES), "kernel_1": GATES, "recurrent_kernel_1": GATES}),
    "Bidirectional GRU": (lambda: layers.Bidirectional(layers.GRU(3)), (None, 4, 2),
                          {**both(LAST), "kernel_1": LAST, "recurrent_kernel_1": LAST}),
    "TimeDistributed": (lambda: layers.TimeDistributed(layers.Conv2D(3, 2)), (None, 4, 8, 8, 2), {"kernel": LAST}),
    "PReLU": (lambda: layers.PReLU(), (None, 4, 2), {}),
    "BatchNormalization": (lambda: layers.BatchNormalization(), (None, 4), {}),
    "LayerNormalization of two axes": (lambda: layers.LayerNormalization(axis=(1, 2)), (None, 4, 2), {}),
    "ReLU": (lambda: layers.ReLU(), (None, 4), {}),
    # the last axis of a matrix; nothing is known of three axes; vectors, biases and constants are no kernels
    "one's own": (Own, (None, 5), {"matrix": LAST, "cube": (None, None)}),
    "composite": (Holder, (None, 8, 8, 4), {DEPTHWISE: ((-2, -1), None), SECOND: LAST}),
}  # fmt: skip


def built(case):
    make, shape, expected = CASES[case]
    layer = make()
    layer.build(shape)
    return layer, expected


@pytest.mark.parametrize("case", CASES)
def test_channels_of_each_kind(case):
    layer, expected = built(case)
    found = kernel_grids(layer, Grid(bits=5))
    assert {name: (grid.axis, grid.groups) for name, grid in found.items()} == expected
    assert {grid.bits for grid in found.values()} <= {5}


@pytest.mark.parametrize("case", ["Dense", "EinsumDense heads"])
def test_four_bit_matrices_have_one_scale_because_tflm_packs_no_other(case):
    assert kernel_grids(built(case)[0], Grid(bits=4))["kernel"].axis is None
    assert kernel_grids(built(case)[0], Grid(bits=4, axis=-1))["kernel"].axis == -1


@pytest.mark.parametrize("case", [c for c in CASES if CASES[c][2]])
def test_a_grid_per_tensor_stays_one_scale_for_every_kernel(case):
    layer, expected = built(case)
    found = kernel_grids(layer, Grid(axis=None))
    assert set(found) == set(expected)
    assert {(grid.axis, grid.groups) for grid in found.values()} == {(None, None)}


def test_a_bare_weight_is_no_kernel():
    bare = Weight((4, 3), dtype="float32")
    bare.build(None)
    assert kernel_grids(bare, Grid()) == {}


def test_kernels_of_a_layer_that_is_not_trained_are_kernels_all_the_same():
    dense = layers.Dense(3, trainable=False)
    dense.build((None, 4))
    assert list(kernel_grids(dense, Grid())) == ["kernel"]
