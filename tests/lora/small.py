"""Small models and data for tests of adapters."""

import numpy as np

from tests.zoo import keras, layers
from tfcompress.lora.names import members

rng = np.random.default_rng(0)
X = rng.normal(size=(32, 16)).astype("float32")
Y = rng.normal(size=(32, 4)).astype("float32")


def network(seed=0):
    """Matrices of 16 x 24 and 24 x 24, a normalization between, a head of 24 x 4."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((16,))
    x = layers.Dense(24, activation="relu", name="first")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Dense(24, activation="relu", name="second")(x)
    return keras.Model(inputs, layers.Dense(4, name="head")(x), name="network")


def fit(model, epochs=2, x=X, y=Y, eager=True):
    """Eager unless asked otherwise: a few steps take less time than their graph."""
    model.compile(keras.optimizers.Adam(1e-2), "mse", run_eagerly=eager)
    model.fit(x, y, epochs=epochs, batch_size=16, verbose=0)
    return model


def stir(model, name="default", seed=5):
    """Gives every part of an adapter numbers of its own."""
    numbers = np.random.default_rng(seed)
    for _, _, adapter in members(model, name):
        adapter.set_weights([numbers.normal(0, 0.3, w.shape) for w in adapter.get_weights()])
    return model


def values(weights):
    return [np.array(w) for w in weights]
