"""Small teachers, students and data that the tests of distillation share."""

import numpy as np
import tensorflow as tf

keras = tf.keras
layers = keras.layers
RNG = np.random.default_rng(11)
X = RNG.normal(size=(24, 6)).astype("float32")
Y = RNG.integers(0, 3, size=24)
IMAGES = RNG.normal(size=(16, 8, 8, 1)).astype("float32")
LABELS = RNG.integers(0, 3, size=16)
CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy


def dense(width=8, activation=None, classes=3, name=None):
    """6 values - "hidden" - classes."""
    inputs = keras.Input((6,))
    hidden = layers.Dense(width, "relu", name="hidden")(inputs)
    return keras.Model(inputs, layers.Dense(classes, activation, name="out")(hidden), name=name)


def conv(width=4, strides=1, activation=None):
    """Images of 8 x 8 - "conv", normalized - mean - 3 classes."""
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(width, 3, strides, padding="same", use_bias=False, name="conv")(inputs)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(x))
    return keras.Model(inputs, layers.Dense(3, activation, name="out")(layers.GlobalAveragePooling2D()(x)))


def compiled(model, logits=True, rate=0.05, optimizer=None, **options):
    """Eager unless asked otherwise: a few steps take less time than their graph."""
    graph = {"jit_compile", "steps_per_execution", "run_eagerly"} & set(options)
    options = options if graph else {**options, "run_eagerly": True}
    model.compile(optimizer or keras.optimizers.SGD(rate), CROSSENTROPY(from_logits=logits), **options)
    return model


class Own(keras.Model):
    """A subclassed model whose call takes no `training`."""

    def __init__(self, width=5):
        super().__init__()
        self.first, self.last = layers.Dense(width, "relu", name="first"), layers.Dense(3, name="last")

    def call(self, x):
        return self.last(self.first(x))


def own(width=5):
    model = Own(width)
    model(X[:1])
    return model
