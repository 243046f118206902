"""A digit classifier for a microcontroller: integers in, integers out, weights of four bits where that costs little."""

import argparse
from pathlib import Path

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

import tfcompress as tfc
import tflite_export

keras = tf.keras


def network() -> keras.Model:
    """Depthwise and pointwise convolutions: 2 800 weights."""
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(16, 3, padding="same", activation="relu")(inputs)
    for filters in (32, 48):
        x = keras.layers.DepthwiseConv2D(3, strides=2 if filters == 48 else 1, padding="same", activation="relu")(x)
        x = keras.layers.Conv2D(filters, 1, activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(10, activation="softmax")(x))


def fit(model: keras.Model, x: np.ndarray, y: np.ndarray, epochs: int, learning_rate: float) -> keras.Model:
    model.compile(keras.optimizers.Adam(learning_rate), "sparse_categorical_crossentropy")
    model.fit(x, y, batch_size=32, epochs=epochs, verbose=0)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20, help="of float training (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("digits.tflite"))
    options = parser.parse_args()
    images, labels = load_digits(return_X_y=True)
    x = (images.reshape(-1, 8, 8, 1) / 16.0).astype("float32")
    order = np.random.default_rng(0).permutation(len(x))
    train, test = order[400:], order[:400]

    model = fit(network(), x[train], labels[train], options.epochs, 3e-3)
    scheme = tfc.quantize.Scheme.named("int8").override(keras.layers.Conv2D, weights=tfc.quantize.Grid(bits=4))
    quantized = fit(tfc.quantize_model(model, scheme), x[train], labels[train], max(1, options.epochs // 4), 5e-4)

    exported = tflite_export.export(quantized, "int8", inputs="int8", outputs="int8")
    exported.save(options.out)
    print(tflite_export.describe(exported))
    right = np.mean(tflite_export.Runner(exported, "reference")(x[test]).argmax(-1) == labels[test])
    in_float = np.mean(model.predict(x[test], verbose=0).argmax(-1) == labels[test])
    print(f"{options.out}: {len(exported.content):,} bytes, {right:.2%} right on 400 digits (float: {in_float:.2%})")


if __name__ == "__main__":
    main()
