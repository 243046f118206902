"""The bundle that the app's tests on the JVM open: three models of one small network on Fashion-MNIST.

python -m tests.android_demo.sample FASHION_MNIST.npz android_demo/app/src/test/resources/bundle.zip
"""

import sys

import numpy as np
import tensorflow as tf

import tfcompress
import tflite_export

LABELS = ["T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]


def network() -> "tf.keras.Model":
    keras = tf.keras
    inputs = x = keras.Input((28, 28, 1), name="image")
    for filters in (8, 16, 16):
        x = keras.layers.Conv2D(filters, 3, strides=2, padding="same", activation="relu")(x)
    x = keras.layers.Flatten()(x)
    return keras.Model(inputs, keras.layers.Dense(10, activation="softmax", name="garment")(x))


def bundle(x: np.ndarray, y: np.ndarray, samples: np.ndarray, out, epochs: int = 1) -> "tflite_export.Bundle":
    """float32, int8 with real inputs and outputs, int8 with integers."""
    tf.keras.utils.set_random_seed(0)
    model = network()
    model.compile(tf.keras.optimizers.Adam(4e-3), "sparse_categorical_crossentropy")
    model.fit(x, y, batch_size=64, epochs=epochs, verbose=0)
    quantized = tfcompress.calibrate(tfcompress.quantize_model(model), x[:256])
    models = {
        "float32": tflite_export.export(model),
        "int8": tflite_export.export(quantized, "int8"),
        "int8, integers in and out": tflite_export.export(quantized, "int8", inputs="int8", outputs="int8"),
    }
    # The runtime of the tests on the JVM has XNNPACK for float alone, integers run on its built-in kernels.
    return tflite_export.export_bundle(
        models, out, labels=LABELS, input_range=(0.0, 1.0), samples=samples, name="Fashion", kernels="builtin"
    )


if __name__ == "__main__":
    with np.load(sys.argv[1]) as data:
        images, labels, test = (data[key] for key in ("x_train", "y_train", "x_test"))
    scaled = [(array[..., None] / 255.0).astype("float32") for array in (images, test[:8])]
    print(bundle(scaled[0], labels, scaled[1], sys.argv[2], epochs=5))
