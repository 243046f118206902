"""Small models and data for tests of adapters."""

import numpy as np
import tensorflow as tf

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


@keras.utils.register_keras_serializable("lora_tests")
class TiedHead(layers.Layer):
    """A projection, then products with the rows of another layer's table."""

    def __init__(self, table, **kwargs):
        super().__init__(**kwargs)
        self.table = table

    def build(self, _):
        self.kernel = self.add_weight(name="kernel", shape=(32, 32))
        self.built = True

    def call(self, x):
        x = tf.matmul(x, tf.convert_to_tensor(self.kernel))
        return tf.matmul(x, tf.convert_to_tensor(self.table.embeddings), transpose_b=True)

    def compute_output_shape(self, shape):
        return (*shape[:-1], 50)


def language_model():
    """A table of 50 x 32 that the output layer reads too."""
    inputs, table = keras.Input((6,), dtype="int32"), layers.Embedding(50, 32, name="table")
    x = layers.Dense(32, name="middle")(table(inputs))
    return keras.Model(inputs, TiedHead(table, name="out")(x)), rng.integers(0, 50, (4, 6)).astype("int32")


@keras.utils.register_keras_serializable("lora_tests")
class LossOfTwo(layers.Layer):
    """Two dense layers and a loss, so that it stays closed."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.one, self.two = layers.Dense(16), layers.Dense(16)

    def build(self, shape):
        self.one.build(shape)
        self.two.build(shape)
        self.built = True

    def call(self, x):
        y = self.two(self.one(x))
        self.add_loss(keras.ops.mean(y) if hasattr(keras, "ops") else tf.reduce_mean(y))
        return y

    def compute_output_shape(self, shape):
        return shape


@keras.utils.register_keras_serializable("lora_tests")
class LossOfNormed(LossOfTwo):
    """Closed too, with a normalization in place of the first dense layer."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.one = layers.BatchNormalization()


def closed_network():
    """A closed layer with statistics, which has a matrix of 16 x 16, and a head of 16 x 4."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16,))
    return keras.Model(inputs, layers.Dense(4, name="head")(LossOfNormed(name="closed")(inputs)), name="closed_network")


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
