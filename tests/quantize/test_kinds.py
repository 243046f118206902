"""The table of kinds: what every layer and operation does to tensor boundaries."""

import pytest
import tensorflow as tf

from tests import zoo
from tests.zoo import keras, layers
from tfcompress.core.opaque import Weight
from tfcompress.core.replay import calls
from tfcompress.quantize.kinds import Kind, activation_name, fixed_range, kind_of, relu_of

TABLE = {
    "PRODUCT": [lambda: layers.Dense(2), lambda: layers.Conv2D(2, 3), lambda: layers.DepthwiseConv2D(3),
                lambda: layers.Conv1DTranspose(2, 3), lambda: layers.EinsumDense("ab,bc->ac", (2,)),
                lambda: layers.Conv3D(2, 3), lambda: layers.Dense(2, activation="relu")],
    "JOIN": [layers.Add, layers.Subtract, layers.Multiply],
    "NORM": [layers.BatchNormalization],
    "RELU": [layers.ReLU, lambda: layers.ReLU(6.0), lambda: layers.Activation("relu"),
             lambda: layers.Activation(tf.nn.relu6)],
    "SAME": [layers.Flatten, lambda: layers.Reshape((2,)), layers.MaxPooling2D,
             lambda: layers.AveragePooling2D(2),
             layers.GlobalMaxPooling1D, layers.ZeroPadding2D, layers.Cropping1D, layers.UpSampling2D,
             lambda: layers.Permute((2, 1))],
    "CONCAT": [layers.Concatenate],
    "TRANSPARENT": [lambda: layers.Dropout(0.5), lambda: layers.GaussianNoise(0.5), lambda: layers.Activation("linear"),
                    lambda: layers.SpatialDropout2D(0.5)],
    "FIXED": [layers.Softmax, lambda: layers.Activation("sigmoid"), lambda: layers.Activation("tanh"),
              lambda: layers.Activation("softmax")],
    "TABLE": [lambda: layers.Embedding(3, 2)],
    "CONSTANT": [lambda: Weight((2, 2), dtype="float32")],
    # ReLUs of another shape, averages that are sums, and what no rule knows: a boundary of its own
    "OTHER": [lambda: layers.ReLU(4.0), lambda: layers.ReLU(threshold=1.0), lambda: layers.ReLU(negative_slope=0.1),
              layers.LeakyReLU, layers.PReLU, layers.GlobalAveragePooling2D, layers.LayerNormalization,
              lambda: layers.LSTM(2), lambda: layers.Activation("gelu"), lambda: layers.MultiHeadAttention(2, 2),
              layers.Average, layers.Maximum],
}  # fmt: skip


@pytest.mark.parametrize(("kind", "index"), [(kind, i) for kind, makes in TABLE.items() for i in range(len(makes))])
def test_the_kind_of_each_layer(kind, index):
    assert kind_of(TABLE[kind][index]()) is Kind[kind]


def test_a_subclass_is_of_its_parents_kind():
    class Mine(layers.Dense):
        pass

    class Sum(layers.Add):
        pass

    assert kind_of(Mine(2)) is Kind.PRODUCT
    assert kind_of(Sum()) is Kind.JOIN


def relu6(x):
    return keras.ops.relu6(x) if hasattr(keras, "ops") else tf.nn.relu6(x)


OPERATIONS = {
    "JOIN": [lambda x: x + x, lambda x: x * x, lambda x: x - x],
    "SAME": [lambda x: x[:, 1:], lambda x: zoo.reshape(x, (-1, 2, 2)), lambda x: zoo.transpose(x, (1, 0))],
    "CONCAT": [lambda x: zoo.concatenate([x, x], 1)],
    "FIXED": [zoo.sigmoid],
    "RELU": [relu6],
    "OTHER": [zoo.absolute, lambda x: x / 2.0],
}


@pytest.mark.parametrize(("kind", "i"), [(kind, i) for kind, makes in OPERATIONS.items() for i in range(len(makes))])
def test_the_kind_of_each_operation(kind, i):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, OPERATIONS[kind][i](inputs))
    (call,) = calls(model)
    assert kind_of(call.operation) is Kind[kind]


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (layers.ReLU, "relu"),
        (lambda: layers.ReLU(6.0), "relu6"),
        (lambda: layers.ReLU(3.0), None),
        (lambda: layers.ReLU(negative_slope=0.5), None),
        (lambda: layers.Dense(2, activation="relu"), "relu"),
        (lambda: layers.Activation(tf.nn.relu6), "relu6"),
        (lambda: layers.Dense(2, activation="tanh"), None),
        (lambda: layers.Dense(2), None),
    ],
)
def test_which_relu_a_layer_ends_in(make, name):
    assert relu_of(make()) == name


def test_the_name_of_an_activation():
    assert activation_name(layers.Dense(2)) == "linear"
    assert activation_name(layers.Flatten()) == "linear"
    assert activation_name(layers.Dense(2, activation=layers.PReLU())) == ""


@pytest.mark.parametrize(
    ("name", "eight", "sixteen"),
    [
        ("softmax", (0.0, 255 / 256), (-1.0, 32767 / 32768)),
        ("sigmoid", (0.0, 255 / 256), (-1.0, 32767 / 32768)),
        ("tanh", (-1.0, 127 / 128), (-1.0, 32767 / 32768)),
    ],
)
def test_the_ranges_that_the_specification_prescribes(name, eight, sixteen):
    layer = layers.Activation(name)
    assert fixed_range(layer, 8) == eight
    assert fixed_range(layer, 16) == sixteen
