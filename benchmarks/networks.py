"""The networks that are trained on Fashion-MNIST: 28 x 28 x 1 -> probabilities of ten classes."""

from typing import Any

import tensorflow as tf

keras = tf.keras
layers = keras.layers


def residual(width: int = 16) -> Any:
    """Convolutions, batch normalization, residual additions."""

    def block(x: Any, filters: int, strides: int) -> Any:
        y = layers.ReLU()(_normalized(layers.Conv2D(filters, 3, strides, padding="same", use_bias=False)(x)))
        y = _normalized(layers.Conv2D(filters, 3, padding="same", use_bias=False)(y))
        if strides != 1:
            x = layers.Conv2D(filters, 1, strides=strides, padding="same")(x)
        return layers.ReLU()(layers.Add()([x, y]))

    inputs = keras.Input((28, 28, 1))
    x = layers.Conv2D(width, 3, padding="same", activation="relu")(inputs)
    for filters, strides in ((width, 1), (2 * width, 2), (4 * width, 2)):
        x = block(x, filters, strides)
    return keras.Model(inputs, _head(layers.GlobalAveragePooling2D()(x)))


def depthwise() -> Any:
    """Depthwise and pointwise convolutions by turns."""
    inputs = keras.Input((28, 28, 1))
    x = layers.ReLU()(_normalized(layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False)(inputs)))
    for filters, strides in ((32, 1), (64, 2), (64, 1)):
        x = layers.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False)(x)
        x = layers.ReLU()(_normalized(x))
        x = layers.ReLU()(_normalized(layers.Conv2D(filters, 1, use_bias=False)(x)))
    return keras.Model(inputs, _head(layers.GlobalAveragePooling2D()(x)))


def inverted_residual() -> Any:
    """Expand, depthwise, project without an activation; ReLU6."""
    inputs = keras.Input((28, 28, 1))
    x = layers.ReLU(6.0)(_normalized(layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False)(inputs)))
    for filters, strides in ((16, 1), (24, 2), (24, 1), (32, 1)):
        y = layers.ReLU(6.0)(_normalized(layers.Conv2D(4 * x.shape[-1], 1, use_bias=False)(x)))
        y = layers.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False)(y)
        y = layers.ReLU(6.0)(_normalized(y))
        y = _normalized(layers.Conv2D(filters, 1, use_bias=False)(y))
        x = layers.Add()([x, y]) if strides == 1 and x.shape[-1] == filters else y
    return keras.Model(inputs, _head(layers.GlobalAveragePooling2D()(x)))


def hard_swish() -> Any:
    """Inverted residuals with hard-swish and squeeze-and-excitation, both spelt with layers of either flavor."""

    def clipped(x: Any) -> Any:
        """relu6(x + 3) / 6."""
        return layers.Rescaling(1 / 6)(layers.ReLU(6.0)(layers.Rescaling(1.0, offset=3.0)(x)))

    def swish(x: Any) -> Any:
        return layers.Multiply()([x, clipped(x)])

    def excited(x: Any) -> Any:
        y = layers.GlobalAveragePooling2D(keepdims=True)(x)
        y = layers.Conv2D(x.shape[-1] // 4, 1, activation="relu")(y)
        return layers.Multiply()([x, clipped(layers.Conv2D(x.shape[-1], 1)(y))])

    inputs = keras.Input((28, 28, 1))
    x = swish(_normalized(layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False)(inputs)))
    for filters, strides in ((16, 1), (24, 2), (24, 1)):
        y = swish(_normalized(layers.Conv2D(3 * x.shape[-1], 1, use_bias=False)(x)))
        y = layers.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False)(y)
        y = excited(swish(_normalized(y)))
        y = _normalized(layers.Conv2D(filters, 1, use_bias=False)(y))
        x = layers.Add()([x, y]) if strides == 1 and x.shape[-1] == filters else y
    return keras.Model(inputs, _head(layers.GlobalAveragePooling2D()(x)))


class Positions(layers.Layer):
    """Adds a learned vector to each place of a sequence."""

    def build(self, shape: Any) -> None:
        self.table = self.add_weight(name="table", shape=tuple(shape)[1:], initializer="random_normal")

    def call(self, x: Any) -> Any:
        return x + self.table


def encoder() -> Any:
    """Patches of 4 x 4 with learned positions, two pre-norm encoder blocks."""
    inputs = keras.Input((28, 28, 1))
    x = Positions()(layers.Reshape((49, 32))(layers.Conv2D(32, 4, strides=4)(inputs)))
    for _ in range(2):
        y = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(4, 8)(y, y)])
        y = layers.Dense(64, activation="gelu")(layers.LayerNormalization()(x))
        x = layers.Add()([x, layers.Dense(32)(y)])
    return keras.Model(inputs, _head(layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))))


NETWORKS = {"residual": residual, "depthwise": depthwise, "inverted residual": inverted_residual, "encoder": encoder}


def train(model: Any, x: Any, y: Any, *, epochs: int = 1, learning_rate: float = 2e-3, callbacks: Any = ()) -> Any:
    model.compile(keras.optimizers.Adam(learning_rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, batch_size=64, epochs=epochs, verbose=0, callbacks=list(callbacks))
    return model


def accuracy(predictions: Any, labels: Any) -> float:
    """Share of rows whose largest value stands at the label."""
    return float((predictions.argmax(-1) == labels).mean())


def _normalized(x: Any) -> Any:
    return layers.BatchNormalization(momentum=0.9)(x)


def _head(x: Any) -> Any:
    return layers.Dense(10, activation="softmax")(x)
