"""Small networks that together use every rule, their quantized models, files, and what the runtime computes."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

import tfcompress
import tflite_export
from tests.zoo import concatenate, keras, layers, mean
from tfcompress.quantize.faithful import Faithful

NETWORKS: dict[str, Callable[[], tuple[Any, dict[str, Any]]]] = {}


def network(build: Callable[[], tuple[Any, dict[str, Any]]]) -> Callable[[], tuple[Any, dict[str, Any]]]:
    """Registers (inputs, outputs by name)."""
    NETWORKS[build.__name__] = build
    return build


def image(size: int = 8) -> Any:
    return keras.Input((size, size, 4), name="image")


def rows(model: Any, count: int, seed: int, spread: float = 1.0) -> Any:
    """Random inputs as the model takes them: whole numbers where it looks up, else normal ones."""
    rng = np.random.default_rng(seed)

    def of(tensor: Any) -> np.ndarray:
        size = (count, *tensor.shape[1:])
        return rng.integers(0, 20, size).astype("int32") if "int" in str(tensor.dtype) else (
            spread * rng.normal(size=size)).astype("float32")  # fmt: skip

    made = {tensor.name.split(":")[0]: of(tensor) for tensor in model.inputs}
    return made if len(made) > 1 else next(iter(made.values()))


def lively(model: Any) -> Any:
    """Random biases; normalizations with negative factors and one that is zero."""
    rng = np.random.default_rng(6)
    for layer in model.layers:
        weights = layer.get_weights()
        if isinstance(layer, layers.BatchNormalization):
            weights = [rng.normal(size=w.shape) for w in weights[:3]] + [rng.uniform(0.5, 2, weights[3].shape)]
            weights[0][0] = 0.0
        elif isinstance(layer, layers.PReLU):
            weights = [rng.uniform(-0.1, 0.5, weights[0].shape)]
        elif weights and weights[-1].ndim == 1:
            weights[-1] = rng.normal(0, 0.3, weights[-1].shape)
        layer.set_weights(weights)
    return model


def prepared(model: Any, scheme: str = "int8", kernels: str = "xnnpack") -> tuple[Any, Any, Any]:
    """(quantized model with ranges, its file, inputs some of which lie beyond the ranges)."""
    data = rows(model, 32, seed=1)
    quantized = tfcompress.calibrate(tfcompress.quantize_model(model, scheme, kernels=kernels), data)
    precision = "int16x8" if scheme == "int16x8" else "int8"
    file = tflite_export.export(quantized, precision, calibration=data)
    return quantized, file, rows(model, 12, seed=2, spread=1.3)


@functools.cache
def made(name: str, scheme: str = "int8") -> tuple[Any, Any, Any]:
    """`prepared` of a network of this file; each is made once."""
    keras.utils.set_random_seed(5)
    inputs, outputs = NETWORKS[name]()
    return prepared(lively(keras.Model(inputs, outputs)), scheme)


def by_name(outputs: Any) -> dict[str, np.ndarray]:
    """Arrays by the output's name, "" where there is but one."""
    found = outputs if isinstance(outputs, dict) else {"": outputs}
    return {key if len(found) > 1 else "": np.asarray(value) for key, value in found.items()}


def of_runtime(file: Any, x: Any, kernels: str) -> dict[str, np.ndarray]:
    return by_name(tflite_export.Runner(file, kernels)(x))


def of_keras(model: Any, x: Any, kernels: str) -> dict[str, np.ndarray]:
    tensors = tf.nest.map_structure(tf.constant, x)
    return by_name(Faithful(kernels).exact(model, tensors))


def check(name: str, kernels: str, scheme: str = "int8") -> None:
    """Every output of the runtime is that of Keras; none has collapsed to a few numbers."""
    model, file, x = made(name, scheme)
    expected, found = of_runtime(file, x, kernels), of_keras(model, x, kernels)
    assert set(expected) == set(found)
    for key, value in expected.items():
        assert len(np.unique(value)) > 8, key
        np.testing.assert_array_equal(found[key], value, err_msg=key)


@network
def convolutions() -> tuple[Any, dict[str, Any]]:
    inputs = image()
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Conv2D(8, 3, dilation_rate=2, padding="same", activation="relu")(x)
    x = layers.Conv2D(8, 3, groups=2)(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", use_bias=False)(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    y = layers.DepthwiseConv2D(3, strides=2, padding="same", activation="relu")(inputs)
    y = layers.SeparableConv2D(6, 3, dilation_rate=1)(y)
    z = layers.Conv2DTranspose(6, 3, strides=2, padding="same", use_bias=False)(y)
    z = layers.ReLU()(layers.BatchNormalization()(z))
    return inputs, {
        "dense": layers.Dense(5)(layers.Flatten()(layers.Conv2D(6, 1)(x))),
        "separable": layers.Conv2D(3, 2, dilation_rate=1)(y),
        "transposed": layers.Conv2DTranspose(3, 2, strides=2)(z),
    }


@network
def block() -> tuple[Any, dict[str, Any]]:
    inputs = image()
    x = layers.Conv2D(6, 3, use_bias=False)(inputs)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    y = layers.DepthwiseConv2D(3, padding="same")(x)
    return inputs, {"dense": layers.Dense(12)(layers.Flatten()(layers.ReLU()(layers.Add()([x, y]))))}


@network
def sequences() -> tuple[Any, dict[str, Any]]:
    """Two inputs, given by name: one is looked up."""
    words, signal = keras.Input((9,), dtype="int32", name="words"), keras.Input((24, 4), name="signal")
    x = layers.Conv1D(6, 3)(layers.Embedding(20, 8)(words))
    y = layers.Conv1D(8, 3, padding="same", use_bias=False)(signal)
    y = layers.ReLU()(layers.BatchNormalization()(y))
    y = layers.DepthwiseConv1D(3, padding="same")(layers.Conv1D(8, 3, strides=2)(y))
    y = layers.AveragePooling1D(2, padding="same")(layers.MaxPooling1D(2, padding="same")(y))
    y = layers.Dense(6)(layers.GlobalAveragePooling1D()(y))
    x = layers.Dense(6)(layers.GlobalMaxPooling1D()(x))
    return {"words": words, "signal": signal}, {"sum": layers.Dense(8)(layers.Add()([x, y])), "mean": mean(y * x, -1)}


@network
def joins() -> tuple[Any, dict[str, Any]]:
    inputs = image()
    a, b = (layers.Conv2D(6, 3, padding="same")(inputs) for _ in range(2))
    c = layers.Conv2D(6, 1)(inputs)
    difference = layers.Subtract()([layers.Add()([a, b]), c])
    product = layers.Multiply()([difference, a])
    total = layers.ReLU()(layers.Add()([product, difference]))
    y = (a + 0.7) * 1.3 - 0.4
    y = layers.Rescaling(1.0, offset=0.2)(layers.Rescaling(0.3)(2.0 - y / 3.0))
    gate = layers.Conv2D(6, 1, activation="sigmoid")(
        layers.Conv2D(4, 1, activation="relu")(layers.GlobalAveragePooling2D(keepdims=True)(total))
    )
    joined = layers.Conv2D(4, 1)(layers.Concatenate()([total, c, product]))
    return inputs, {"joined": joined, "numbers": y, "excited": layers.Multiply()([total, gate])}


@network
def swishes() -> tuple[Any, dict[str, Any]]:
    """x * relu6(x + 3) / 6 in the order that the converter makes one operation of, and in one that it leaves."""
    inputs = image()
    x = layers.Conv2D(6, 3)(inputs)
    gate = layers.Rescaling(1 / 6)(layers.ReLU(6.0)(layers.Rescaling(1.0, offset=3.0)(x)))
    return inputs, {
        "plain": x * layers.ReLU(6.0)(x + 3.0) / 6.0,
        "layers": swished(x),
        "gated": layers.Multiply()([x, gate]),
        "pooled": swished(layers.MaxPooling2D(2)(x)),
        "dropped": swished(layers.Dropout(0.5)(layers.Conv2D(5, 1)(x))),
    }


def swished(x: Any) -> Any:
    """hard-swish as the converter recognises it."""
    gate = layers.ReLU(6.0)(layers.Rescaling(1.0, offset=3.0)(x))
    return layers.Rescaling(1 / 6)(layers.Multiply()([x, gate]))


@network
def pools() -> tuple[Any, dict[str, Any]]:
    inputs = image()
    x = layers.Conv2D(6, 3, padding="same")(inputs)
    y = layers.Add()([layers.MaxPooling2D(3, 2, padding="same")(x), layers.AveragePooling2D(3, 2, padding="same")(x)])
    y = concatenate([y, layers.AveragePooling2D(2)(x), layers.MaxPooling2D(2)(x)], -1)
    y = layers.Cropping2D(1)(layers.ZeroPadding2D(((1, 2), (0, 1)))(y))
    y = layers.UpSampling2D(2, interpolation="bilinear")(layers.UpSampling2D(2)(y))
    y = layers.Permute((2, 1, 3))(layers.Conv2D(3, 1)(y))
    z, low = (layers.ReLU()(layers.MaxPooling2D(2)(layers.Conv2D(4, 3)(inputs))) for _ in range(2))
    clipped = layers.ReLU(6.0)(layers.Dropout(0.1)(layers.MaxPooling2D(2)(layers.Conv2D(4, 3)(inputs))))
    small = layers.Conv2D(4, 1)(layers.Add()([z, low])), layers.Conv2D(4, 1)(clipped)
    places = {"mean": layers.GlobalAveragePooling2D()(x), "largest": layers.GlobalMaxPooling2D()(x)}
    return inputs, {"rectified": small[0], "clipped": small[1], "resized": y, **places}


def called(x: Any) -> dict[str, Any]:
    """Operations whose options are said in the flavor's own way: by name, or in their place."""
    if hasattr(keras, "ops"):
        ops = keras.ops
        return {"slope": ops.leaky_relu(x, negative_slope=0.3), "rough": ops.gelu(x, approximate=True)}
    return {"slope": tf.nn.leaky_relu(x, alpha=0.3), "second": tf.nn.leaky_relu(x, 0.4), "rough": tf.nn.gelu(x, True)}


@network
def curves() -> tuple[Any, dict[str, Any]]:
    inputs = image(6)
    x = layers.Conv2D(6, 3)(inputs)
    names = ["softmax", "sigmoid", "tanh", "swish", "gelu", "exponential"]
    if hasattr(keras.activations, "hard_silu"):  # Keras 3
        names += ["hard_silu", "hard_sigmoid"]
    found = {name: layers.Activation(name)(x) for name in names}
    found["leaky"] = layers.LeakyReLU(0.15)(x)
    found |= called(layers.Conv2D(6, 3)(inputs))
    found["bent"] = layers.PReLU(shared_axes=[1, 2])(x)
    return inputs, found
