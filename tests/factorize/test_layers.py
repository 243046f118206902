"""The public layers: products from the start, saved, loaded, trained and opened like others."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

import tfcompress as tfc
from tests.factorize.exact import error
from tfcompress.factorize import FactorizedConv2D, FactorizedDense

keras = tf.keras
layers = keras.layers
METHODS = {"svd": 3, "channel": 3, "spatial": 3, "tucker2": (2, 3), "cp": 3, "depthwise": 2}


def test_dense_is_its_formula():
    layer = FactorizedDense(5, 2, activation="relu")
    x = np.random.default_rng(0).normal(size=(4, 3, 7)).astype("float32")
    y = np.asarray(layer(x))
    a, b, bias = layer.reduce.get_weights()[0], *layer.expand.get_weights()
    assert a.shape == (7, 2) and b.shape == (2, 5)
    np.testing.assert_allclose(y, np.maximum(x @ a @ b + bias, 0), atol=1e-5)
    assert tuple(layer.compute_output_shape((None, 3, 7))) == (None, 3, 5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_conv2d_has_the_shape_of_keras_own_and_few_weights(method, padding):
    arguments = {"strides": 2, "padding": padding, "activation": "relu"}
    layer = FactorizedConv2D(12, 3, METHODS[method], method=method, **arguments)
    own = layers.Conv2D(12, 3, **arguments)
    x = np.random.default_rng(0).normal(size=(2, 9, 8, 8)).astype("float32")
    y = np.asarray(layer(x))
    assert y.shape == own(x).shape == tuple(layer.compute_output_shape(x.shape))
    assert y.min() == 0 < y.max()
    assert layer.count_params() < own.count_params()


def network():
    inputs = keras.Input((8, 8, 3))
    x = inputs
    for method, rank in METHODS.items():
        x = FactorizedConv2D(6, 3, rank, method=method, padding="same", activation="relu", name=method)(x)
    x = FactorizedDense(7, 2, activation="gelu", kernel_regularizer="l2", name="dense")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(3, name="head")(x))


X = np.random.default_rng(0).normal(size=(16, 8, 8, 3)).astype("float32")
Y = np.random.default_rng(1).normal(size=(16, 3)).astype("float32")


@pytest.mark.parametrize("make", [
    lambda **options: FactorizedDense(6, 2, **options),
    lambda **options: FactorizedConv2D(6, 3, 2, **options),
])  # fmt: skip
def test_what_is_frozen_stays_so_in_copies(make, tmp_path):
    frozen = make()
    for layer in (make(trainable=False), frozen):
        model = keras.Sequential([keras.Input((6, 6, 4)), layer, layers.Dense(2)])
        frozen.trainable = False
        model.save(tmp_path / "model.keras")
        for one in (model, keras.models.load_model(tmp_path / "model.keras"), keras.models.clone_model(model)):
            assert [tuple(w.shape) for w in one.trainable_weights] == [(6, 2), (2,)]


def test_they_train_and_are_saved_and_loaded(tmp_path):
    model = network()
    model.compile(keras.optimizers.Adam(1e-2, epsilon=1e-12), "mse", run_eagerly=True)
    before = [np.array(w) for w in model.trainable_weights]
    model.fit(X, Y, verbose=0)
    assert all(np.any(np.array(w) != old) for w, old in zip(model.trainable_weights, before, strict=True)
               if old.ndim > 1)  # fmt: skip
    assert len(model.losses) == 2
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert error(model, loaded, X) < 1e-6


@pytest.mark.parametrize("layer", [
    FactorizedDense(5, 2, "relu", kernel_regularizer="l2", bias_constraint="non_neg", name="d"),
    FactorizedConv2D(4, (3, 2), (2, 3), padding="same", dilation_rate=2, use_bias=False, name="c"),
])  # fmt: skip
def test_the_config_holds_every_argument(layer):
    import inspect

    config = layer.get_config()
    parameters = set(inspect.signature(type(layer).__init__).parameters) - {"self", "kwargs"}
    assert parameters <= set(config)
    again = type(layer).from_config(config)
    assert again.get_config() == config


def test_tracing_and_quantizing_see_the_parts():
    model = network()
    flat = tfc.trace(model)
    names = [layer.name for layer in flat.layers]
    assert error(model, flat, X) < 1e-6
    assert {"dense.reduce", "dense.expand", "tucker2.conv.core", "spatial.conv.vertical"} <= set(names)
    quantized = tfc.quantize_model(model)
    assert {"dense.reduce_range", "tucker2.conv.core_range"} <= {layer.name for layer in quantized.layers}


@pytest.mark.parametrize("rank", [0, 1.5, True, "much", (2, 2), None])
def test_wrong_ranks_are_refused(rank):
    with pytest.raises(ValueError, match="`rank` must be a whole number of at least 1"):
        FactorizedDense(5, rank)
    with pytest.raises(ValueError, match="`rank` must be a whole number of at least 1"):
        FactorizedConv2D(5, 3, rank, method="svd")


def test_wrong_methods_are_refused():
    with pytest.raises(ValueError, match="`method` must be one of svd"):
        FactorizedConv2D(5, 3, 2, method="auto")


@pytest.mark.parametrize("make", [
    lambda how: FactorizedDense(6, 6, kernel_initializer=how),
    lambda how: FactorizedConv2D(6, 1, 6, kernel_initializer=how),
])  # fmt: skip
def test_a_seed_gives_each_part_numbers_of_its_own(make):
    layer, again = (make(keras.initializers.GlorotUniform(seed=3)) for _ in range(2))
    for one in (layer, again):
        one.build((None, 6) if isinstance(one, FactorizedDense) else (None, 4, 4, 6))
    kernels = [w.reshape(6, 6) for w in layer.get_weights() if w.ndim > 1]
    assert not any(np.array_equal(a, b) for a, b in itertools.combinations(kernels, 2))
    assert all(np.array_equal(a, b) for a, b in zip(layer.get_weights(), again.get_weights(), strict=True))
    assert layer.get_config()["kernel_initializer"] == type(layer).from_config(layer.get_config()).get_config()[
        "kernel_initializer"]  # fmt: skip
    assert layer.get_config()["kernel_initializer"]["config"]["seed"] == 3
