"""Layers taken apart compute what they computed whole."""

import numpy as np
import pytest

from tests.zoo import ZOO, enliven, keras, layers
from tfcompress.core.trace import trace
from tfcompress.quantize.expand import expand, fold_batch_norm

RNG = np.random.default_rng(9)


def model_of(shape, *parts):
    model = keras.Sequential([keras.Input(shape), *parts])
    enliven(model)
    return model, RNG.normal(size=(4, *shape)).astype("float32")


def names(model):
    return [layer.name for layer in model.layers if not isinstance(layer, layers.InputLayer)]


@pytest.mark.parametrize("activation", ["gelu", "swish", "softmax", "tanh", "elu", "sigmoid"])
def test_an_activation_that_no_kernel_fuses_becomes_a_layer(activation):
    model, x = model_of((5,), layers.Dense(4, activation=activation, name="body"))
    found = expand(trace(model))
    assert len(names(found)) == 2 and names(found)[0] == "body" and names(found)[1].startswith("body_")
    assert found.get_layer("body").activation is keras.activations.linear
    np.testing.assert_allclose(found(x), model(x), atol=1e-6)


def test_an_activation_that_is_a_layer_becomes_that_layer():
    model, x = model_of((5,), layers.Dense(4, activation=layers.LeakyReLU(0.3), name="body"))
    found = expand(trace(model))
    assert isinstance(found.layers[-1], layers.LeakyReLU)
    np.testing.assert_allclose(found(x), model(x), atol=1e-6)


@pytest.mark.parametrize("activation", ["relu", None])
def test_what_a_kernel_fuses_stays(activation):
    model, _ = model_of((5,), layers.Dense(4, activation=activation, name="body"))
    assert names(expand(trace(model))) == ["body"]


def test_the_activation_of_a_recurrent_layer_stays():
    model, x = model_of((6, 3), layers.LSTM(4, activation="sigmoid", name="body"))
    found = expand(trace(model))
    assert names(found) == ["body"]
    np.testing.assert_allclose(found(x), model(x), atol=1e-6)


SEPARABLE = {
    "plain": (lambda: layers.SeparableConv2D(5, 3, name="body"), (8, 8, 3)),
    "all options": (lambda: layers.SeparableConv2D(5, 3, strides=2, padding="same", depth_multiplier=2, use_bias=False,
                                                   name="body"), (9, 8, 3)),
    "dilated": (lambda: layers.SeparableConv2D(5, (3, 2), dilation_rate=2, activation="relu", name="body"), (9, 9, 2)),
    "activation": (lambda: layers.SeparableConv2D(5, 3, activation="tanh", name="body"), (8, 8, 3)),
    "1d": (lambda: layers.SeparableConv1D(5, 3, strides=2, name="body"), (9, 3)),
}  # fmt: skip


@pytest.mark.parametrize("case", SEPARABLE)
def test_a_separable_convolution_is_a_depthwise_and_a_pointwise_one(case):
    make, shape = SEPARABLE[case]
    model, x = model_of(shape, make())
    found = expand(trace(model))
    assert names(found)[:2] == ["body_depthwise", "body"]
    assert found.count_params() == model.count_params()
    np.testing.assert_allclose(found(x), model(x), atol=1e-6)


def test_a_shared_separable_convolution_is_split_once():
    inputs = keras.Input((8, 8, 3))
    body = layers.SeparableConv2D(3, 3, padding="same", activation="tanh", name="body")
    model = keras.Model(inputs, body(body(inputs)))
    x = RNG.normal(size=(2, 8, 8, 3)).astype("float32")
    found = expand(trace(model))
    assert len(found.weights) == len(model.weights)
    np.testing.assert_allclose(found(x), model(x), atol=1e-6)


NORMS = {
    "Conv2D": lambda: layers.Conv2D(4, 3, name="body"),
    "no bias": lambda: layers.Conv2D(4, 3, use_bias=False, name="body"),
    "grouped": lambda: layers.Conv2D(4, 3, groups=2, name="body"),
    "depthwise": lambda: layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False, name="body"),
    "transposed": lambda: layers.Conv2DTranspose(4, 3, strides=2, name="body"),
    "Dense": lambda: layers.Dense(4, use_bias=False, name="body"),
}


@pytest.mark.parametrize("case", NORMS)
@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False}, {"epsilon": 0.1}])
def test_folding_a_normalization_computes_the_same(case, options):
    model, x = model_of((6, 6, 4), NORMS[case](), layers.BatchNormalization(**options), layers.ReLU(name="act"))
    found = fold_batch_norm(expand(trace(model)))
    assert names(found) == ["body", "act"]
    np.testing.assert_allclose(found(x), model(x), atol=1e-5)


def test_a_whole_network_folds():
    model, x = ZOO["depthwise"]()
    found = fold_batch_norm(expand(trace(model)))
    assert not [layer for layer in found.layers if isinstance(layer, layers.BatchNormalization)]
    np.testing.assert_allclose(found(x), model(x), atol=1e-5)


def left(inputs):
    body = layers.Conv2D(4, 3, padding="same", name="body")
    return body, layers.BatchNormalization(name="norm"), body(inputs)


def read_twice(inputs):
    _, norm, x = left(inputs)
    return layers.Add()([norm(x), x])


def an_output(inputs):
    _, norm, x = left(inputs)
    return [norm(x), x]


def behind_an_activation(inputs):
    return layers.BatchNormalization(name="norm")(layers.Conv2D(4, 3, activation="relu", name="body")(inputs))


def shared_body(inputs):
    body, norm, x = left(inputs)
    return layers.Add()([norm(x), body(inputs)])


def shared_norm(inputs):
    _, norm, x = left(inputs)
    return norm(layers.Activation("tanh")(norm(x)))


@pytest.mark.parametrize("build", [read_twice, an_output, behind_an_activation, shared_body, shared_norm])
def test_a_normalization_stays_where_folding_would_change_something_else(build):
    inputs = keras.Input((6, 6, 4))
    model = keras.Model(inputs, build(inputs))
    enliven(model)
    x = RNG.normal(size=(2, 6, 6, 4)).astype("float32")
    found = fold_batch_norm(expand(trace(model)))
    assert "norm" in names(found)
    for ours, theirs in zip(keras.Model.predict_on_batch(found, x), model.predict_on_batch(x), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
