"""A VGG16 for small images: thirteen convolutions in five stages, each with batch normalization."""

from typing import Any

import tensorflow as tf

keras = tf.keras
layers = keras.layers
STAGES = ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))  # (width, convolutions)


def vgg(width: int = 16) -> Any:
    """28 x 28 x 1 -> probabilities of ten classes; `width` is that of the first stage (64 in VGG16)."""
    x = inputs = keras.Input((28, 28, 1))
    for stage, (wide, count) in enumerate(STAGES, 1):
        for number in range(1, count + 1):
            x = layers.Conv2D(wide * width, 3, padding="same", use_bias=False, name=f"conv{stage}_{number}")(x)
            x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
        if stage < len(STAGES):
            x = layers.MaxPooling2D()(x)
    x = layers.Dense(8 * width, activation="relu", name="fc")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(10, activation="softmax", name="head")(x), name="vgg")
