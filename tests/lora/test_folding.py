"""Which axes of each kind of weight are rows, columns and batches of a matrix."""

import numpy as np
import pytest
import tensorflow as tf

from tests.zoo import keras, layers
from tfcompress.core.transformed import named_weights
from tfcompress.lora.folding import Folding, foldings

# layer, shape of its input, (g, m, n) of each matrix
KINDS = {
    "dense": (lambda: layers.Dense(5), (7,), [(1, 7, 5)]),
    "conv1d": (lambda: layers.Conv1D(5, 3), (8, 2), [(1, 6, 5)]),
    "conv2d": (lambda: layers.Conv2D(5, 3, padding="same"), (8, 8, 2), [(1, 18, 5)]),
    "conv3d": (lambda: layers.Conv3D(4, 2), (4, 4, 4, 2), [(1, 16, 4)]),
    "grouped": (lambda: layers.Conv2D(6, 3, groups=2), (8, 8, 4), [(1, 18, 6)]),
    "transposed1d": (lambda: layers.Conv1DTranspose(5, 3), (8, 2), [(1, 6, 5)]),
    "transposed2d": (lambda: layers.Conv2DTranspose(5, 3), (8, 8, 2), [(1, 18, 5)]),
    "depthwise1d": (lambda: layers.DepthwiseConv1D(3), (8, 4), [(1, 3, 4)]),
    "depthwise2d": (lambda: layers.DepthwiseConv2D(3, depth_multiplier=2), (8, 8, 4), [(1, 9, 8)]),
    "separable": (lambda: layers.SeparableConv2D(5, 3), (8, 8, 4),
                  [(1, 9, 4), (1, 4, 5)]),
    "heads": (lambda: layers.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de"), (4, 7), [(1, 7, 6)]),
    "joined": (lambda: layers.EinsumDense("abde,dec->abc", (None, 7)), (4, 2, 3), [(1, 6, 7)]),
    "experts": (lambda: layers.EinsumDense("agi,gio->ago", (3, 5)), (3, 4), [(3, 4, 5)]),
    "lstm": (lambda: layers.LSTM(3), (6, 4), [(1, 4, 12), (1, 3, 12)]),
    "gru": (lambda: layers.GRU(3), (6, 4), [(1, 4, 9), (1, 3, 9)]),
    "normalization": (lambda: layers.BatchNormalization(), (4,), []),
    "prelu": (lambda: layers.PReLU(), (3, 4), []),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_layer_has_its_matrices(kind):
    make, shape, expected = KINDS[kind]
    layer = make()
    layer(keras.Input(shape))
    sizes = {name: tuple(weight.shape) for name, weight in named_weights(layer).items()}
    assert [folding.sizes(sizes[name]) for name, folding in foldings(layer).items()] == expected


def test_a_table_is_a_matrix_of_its_entries():
    layer = layers.Embedding(11, 4)
    layer(keras.Input((3,), dtype="int32"))
    (folding,) = foldings(layer).values()
    assert (folding.sizes((11, 4)), folding.table) == ((1, 11, 4), True)


def test_matrices_find_their_places_in_a_weight():
    rng = np.random.default_rng(0)
    rows, columns = rng.normal(size=(2, 3, 5)), rng.normal(size=(2, 5, 28))  # g = 2, m = 3, n = 4 * 7
    folding = Folding(rows=(1,), columns=(3, 0), batch=(2,))  # of a weight [7, 3, 2, 4]
    found = folding.unfold(tf.matmul(rows, columns), (7, 3, 2, 4))
    expected = np.einsum("gmr,grdk->kmgd", rows, columns.reshape(2, 5, 4, 7))
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_frozen_weights_are_matrices_all_the_same():
    layer = layers.Dense(5)
    layer(keras.Input((7,)))
    layer.trainable = False
    assert list(foldings(layer)) == ["kernel"]
    assert not layer.trainable and not layer.trainable_weights
