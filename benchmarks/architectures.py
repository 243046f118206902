"""The models of the coverage table: families of keras.applications with random weights, and the everyday topologies."""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.zoo import ZOO, enliven, targets

keras = tf.keras

# name -> pixels a side: the smallest that the family takes, 64 where it takes less
FAMILIES = {
    "Xception": 71,
    "VGG16": 64,
    "ResNet50": 64,
    "ResNet50V2": 64,
    "InceptionV3": 75,
    "InceptionResNetV2": 75,
    "MobileNet": 64,
    "MobileNetV2": 64,
    "MobileNetV3Small": 64,
    "DenseNet121": 64,
    "NASNetMobile": 64,
    "EfficientNetB0": 64,
    "EfficientNetV2B0": 64,
    "ConvNeXtTiny": 64,
    "RegNetX002": 64,
    "ResNetRS50": 64,
}
TOPOLOGIES = (
    "lstm",
    "bidirectional_gru",
    "attention",
    "text",
    "unet",
    "nested",
    "shared",
    "separable",
    "conv3d",
    "gelu_silu",
    "operations",
    "subclassed",
)
BEYOND = tuple(name for name in ZOO if name not in TOPOLOGIES)


__all__ = ["BEYOND", "FAMILIES", "TOPOLOGIES", "build", "names", "targets"]


def names() -> list[str]:
    return [*FAMILIES, *TOPOLOGIES, *BEYOND]


def build(name: str) -> tuple:
    """A model and a batch for it, or (None, None) where this flavor has no such family."""
    if name in ZOO:
        return ZOO[name]()
    family = getattr(keras.applications, name, None)
    if family is None:
        return None, None
    keras.utils.set_random_seed(7)
    side = FAMILIES[name]
    model = family(weights=None, input_shape=(side, side, 3), classes=10)
    rescales = any(type(layer).__name__ in ("Rescaling", "Normalization") for layer in model.layers)
    x = np.random.default_rng(7).uniform(0, 255 if rescales else 1, (8, side, side, 3)).astype("float32")
    settle(model, x)
    return model, x


def settle(model: object, x: np.ndarray) -> None:
    """Gives every BatchNormalization the statistics of `x`, so that random weights do not blow the activations up."""
    normalizations = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in normalizations]
    for layer in normalizations:
        layer.momentum = 0.0
    model(x, training=True)
    for layer, momentum in zip(normalizations, momenta, strict=True):
        layer.momentum = momentum
    enliven(model)
