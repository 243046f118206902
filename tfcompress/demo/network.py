"""The demo's network and how it is trained."""

from collections.abc import Callable
from typing import Any

from tfcompress.core.flavor import keras

BATCH = 64


def build(shape: tuple[int, ...], classes: int, width: int = 16) -> Any:
    """A small residual network: [height, width, channels] -> probabilities [classes].

    Args:
        shape: of one image, [height, width, channels].
        classes: number of classes.
        width: filters of the first convolution; the two blocks have twice and four times as many.

    Returns:
        A model that is not compiled.
    """
    layers = keras.layers
    inputs = keras.Input(shape, name="image")
    x = _normalized(inputs, width)
    for filters in (2 * width, 4 * width):
        y = _normalized(x, filters, strides=2)
        y = _normalized(y, filters, activation=False)
        x = layers.ReLU()(layers.Add()([y, layers.Conv2D(filters, 1, strides=2)(x)]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(classes, activation="softmax", name="probabilities")(x), name="demo")


def _normalized(x: Any, filters: int, strides: int = 1, activation: bool = True) -> Any:
    x = keras.layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False)(x)
    x = keras.layers.BatchNormalization(momentum=0.9)(x)
    return keras.layers.ReLU()(x) if activation else x


def train(model: Any, x: Any, y: Any, *, epochs: int, learning_rate: float, advance: Callable[[], None]) -> None:
    """Fits `model` in place with Adam; the learning rate falls to nothing along a cosine.

    Args:
        model: a classifier with probabilities.
        x: images [N, height, width, channels].
        y: class numbers [N].
        epochs: how often every image is seen.
        learning_rate: of the first step.
        advance: called after each batch.
    """
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, epochs * batches(len(x)))
    model.compile(keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy", metrics=["accuracy"])
    tick = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs=None: advance())
    model.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0, callbacks=[tick])


def batches(images: int) -> int:
    """Steps of one epoch."""
    return -(-images // BATCH)
