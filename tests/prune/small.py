"""A small network and data for tests of pruning."""

import numpy as np
import tensorflow as tf

keras = tf.keras
layers = keras.layers
X = np.random.default_rng(0).normal(size=(32, 6, 6, 3)).astype("float32")
Y = np.random.default_rng(1).integers(0, 4, 32)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network(seed=0):
    """Two convolutions and a Dense: kernels of 216, 576 and 32 weights."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(8, 3, activation="relu", name="first")(inputs)
    x = layers.Conv2D(8, 3, activation="relu", name="second")(x)
    outputs = layers.Dense(4, name="head", dtype="float32")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, outputs)


def compiled(model, optimizer=None, **arguments):
    """Eager unless asked otherwise: a few steps take less time than their graph."""
    graph = {"jit_compile", "steps_per_execution", "run_eagerly"} & set(arguments)
    arguments = arguments if graph else {**arguments, "run_eagerly": True}
    model.compile(optimizer or keras.optimizers.Adam(1e-2), LOSS, **arguments)
    return model


def fit(model, *callbacks, epochs=1):
    model.fit(X, Y, batch_size=4, epochs=epochs, verbose=0, shuffle=False, callbacks=list(callbacks))  # 8 steps
    return model


def kernels(model):
    return [np.asarray(w) for w in model.get_weights() if w.ndim >= 2]


def zeros(model):
    """Share of zeros in each kernel."""
    return [float(np.mean(kernel == 0)) for kernel in kernels(model)]
