"""Small models of every everyday topology, by name.

Each entry of `ZOO` is `() -> (model, x)`: a built, seeded Keras model of the flavor in force and a batch that fits it
(an array, or the structure of arrays that the model takes). No weight is left at a constant, so that a forgotten
bias, a swapped scale or an unfolded batch normalization shows.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

keras = tf.keras
layers = keras.layers

# Keras 3 records its own operations in a graph, tf_keras records TensorFlow's.
_ops = getattr(keras, "ops", None)
absolute = _ops.absolute if _ops else tf.abs
broadcast_to = _ops.broadcast_to if _ops else tf.broadcast_to
concatenate = _ops.concatenate if _ops else tf.concat
mean = _ops.mean if _ops else tf.reduce_mean
reshape = _ops.reshape if _ops else tf.reshape
shape = _ops.shape if _ops else tf.shape
sigmoid = _ops.sigmoid if _ops else tf.sigmoid
transpose = _ops.transpose if _ops else tf.transpose

Entry = Callable[[], tuple[Any, Any]]
ZOO: dict[str, Entry] = {}


def entry(build: Callable[[np.random.Generator], tuple[Any, Any]]) -> Entry:
    """Registers a builder under its name, seeded and with lively weights."""

    def make() -> tuple[Any, Any]:
        keras.utils.set_random_seed(7)
        model, x = build(np.random.default_rng(7))
        model(x)
        enliven(model)
        return model, x

    ZOO[build.__name__] = make
    return make


def enliven(model: Any, seed: int = 11) -> None:
    """Moves every float weight that holds one constant (zeros, ones) off it, by up to 0.3; variances stay positive."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        value = np.asarray(weight)
        if value.ndim and np.issubdtype(value.dtype, np.floating) and value.size > 1 and np.ptp(value) == 0:
            weight.assign(value + rng.uniform(-0.3, 0.3, value.shape).astype(value.dtype))


def answers(model: Any, x: Any) -> Any:
    """The model's outputs as arrays. It is called as it is: for a few rows `predict` would first make a graph."""
    return tf.nest.map_structure(np.asarray, model(x, training=False))


def targets(model: Any, x: Any, seed: int = 3) -> Any:
    """Arrays in the structure of the model's outputs, near them: what one training step with "mse" can learn."""
    rng = np.random.default_rng(seed)
    return tf.nest.map_structure(lambda p: rng.normal(p, 0.5).astype("float32"), answers(model, x))


def images(rng: np.random.Generator, *size: int, count: int = 16) -> np.ndarray:
    return rng.uniform(0, 1, (count, *size)).astype("float32")


def signals(rng: np.random.Generator, *size: int) -> np.ndarray:
    return rng.normal(size=(16, *size)).astype("float32")


def words(rng: np.random.Generator, low: int, high: int, length: int) -> np.ndarray:
    return rng.integers(low, high, (16, length)).astype("int32")


def conv_bn(x: Any, filters: int, kernel: int = 3, strides: int = 1, activation: Any = "relu", depthwise: bool = False):
    if depthwise:
        x = layers.DepthwiseConv2D(kernel, strides=strides, padding="same", use_bias=False)(x)
    else:
        x = layers.Conv2D(filters, kernel, strides=strides, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization(momentum=0.9)(x)
    return x if activation is None else activation(x) if callable(activation) else layers.Activation(activation)(x)


def relu6(x: Any) -> Any:
    return layers.ReLU(6.0)(x)


def hard_sigmoid(x: Any) -> Any:
    return layers.ReLU(6.0)(x + 3.0) * (1.0 / 6.0)


def hard_swish(x: Any) -> Any:
    return layers.Multiply()([x, hard_sigmoid(x)])


def classifier(x: Any, classes: int = 5) -> Any:
    return layers.Dense(classes, activation="softmax", name="head")(x)


@entry
def residual(rng):
    inputs = keras.Input((16, 16, 3), name="image")
    x = conv_bn(inputs, 8)
    for filters, strides in ((8, 1), (16, 2)):
        y = conv_bn(conv_bn(x, filters, strides=strides), filters, activation=None)
        if strides != 1:
            x = layers.Conv2D(filters, 1, strides=strides)(x)
        x = layers.ReLU()(layers.Add()([x, y]))
    model = keras.Model(inputs, classifier(layers.GlobalAveragePooling2D()(x)), name="residual")
    return model, images(rng, 16, 16, 3)


@entry
def depthwise(rng):
    inputs = keras.Input((16, 16, 3))
    x = conv_bn(inputs, 8, strides=2)
    for filters, strides in ((12, 1), (16, 2)):
        x = conv_bn(conv_bn(x, 0, strides=strides, depthwise=True, activation=relu6), filters, 1, activation=relu6)
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, classifier(x)), images(rng, 16, 16, 3)


@entry
def inverted_residual(rng):
    inputs = keras.Input((16, 16, 3))
    x = conv_bn(inputs, 8, strides=2, activation=hard_swish)
    for filters, strides, activation in ((8, 1, relu6), (12, 2, hard_swish), (12, 1, hard_swish)):
        y = conv_bn(x, 3 * x.shape[-1], 1, activation=activation)
        y = conv_bn(y, 0, strides=strides, depthwise=True, activation=activation)
        squeezed = layers.GlobalAveragePooling2D(keepdims=True)(y)
        squeezed = layers.Conv2D(4, 1, activation="relu")(squeezed)
        squeezed = hard_sigmoid(layers.Conv2D(y.shape[-1], 1)(squeezed))
        y = conv_bn(layers.Multiply()([y, squeezed]), filters, 1, activation=None)
        x = layers.Add()([x, y]) if strides == 1 and x.shape[-1] == filters else y
    return keras.Model(inputs, classifier(layers.GlobalAveragePooling2D()(x))), images(rng, 16, 16, 3)


@entry
def lstm(rng):
    inputs = keras.Input((12, 6))
    x = layers.LSTM(8, return_sequences=True)(inputs)
    return keras.Model(inputs, classifier(layers.LSTM(10)(x))), signals(rng, 12, 6)


@entry
def bidirectional_gru(rng):
    inputs = keras.Input((10, 6))
    x = layers.Bidirectional(layers.GRU(8, return_sequences=True))(inputs)
    x = layers.TimeDistributed(layers.Dense(6, activation="relu"))(x)
    return keras.Model(inputs, classifier(layers.GlobalMaxPooling1D()(x))), signals(rng, 10, 6)


@entry
def attention(rng):
    inputs = keras.Input((12, 10))
    x = layers.Dense(16)(inputs)
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 8)(x, x))
    y = layers.Dense(16)(layers.Dense(24, activation="gelu")(x))
    x = layers.LayerNormalization()(x + y)
    return keras.Model(inputs, classifier(layers.GlobalAveragePooling1D()(x))), signals(rng, 12, 10)


@entry
def text(rng):
    inputs = keras.Input((20,), dtype="int32", name="tokens")
    x = layers.Embedding(50, 12)(inputs)
    x = layers.Conv1D(16, 3, padding="same", activation="relu")(x)
    x = layers.MaxPooling1D()(x)
    x = layers.Conv1D(16, 3, padding="valid", dilation_rate=2, activation="relu")(x)
    return keras.Model(inputs, classifier(layers.GlobalMaxPooling1D()(x))), words(rng, 0, 50, 20)


@entry
def unet(rng):
    inputs = keras.Input((16, 16, 1))
    skip = conv_bn(inputs, 8)
    low = conv_bn(layers.MaxPooling2D()(skip), 12)
    deep = conv_bn(layers.AveragePooling2D(2)(low), 16)
    x = layers.Conv2DTranspose(12, 3, strides=2, padding="same", activation="relu")(deep)
    x = conv_bn(layers.Concatenate()([x, low]), 12)
    x = layers.Concatenate()([layers.UpSampling2D()(x), skip])
    return keras.Model(inputs, layers.Conv2D(1, 1, activation="sigmoid")(x)), images(rng, 16, 16, 1)


@entry
def nested(rng):
    inner_inputs = keras.Input((8, 8, 6))
    inner = keras.Model(inner_inputs, layers.Add()([inner_inputs, conv_bn(inner_inputs, 6)]), name="block")
    head = keras.Sequential([layers.Flatten(), layers.Dense(12, activation="relu"), layers.Dense(5)], name="top")
    inputs = keras.Input((8, 8, 3))
    x = inner(inner(layers.Conv2D(6, 3, padding="same", activation="relu")(inputs)))
    return keras.Model(inputs, layers.Softmax()(head(x))), images(rng, 8, 8, 3)


@entry
def shared(rng):
    # Keras 3 sorts a dictionary's keys, iteration keeps the order: "right" before "left" on purpose.
    inputs = {"right": keras.Input((10,), name="right"), "left": keras.Input((10,), name="left")}
    encode = layers.Dense(8, activation="relu", name="encode")
    project = layers.Dense(6, name="project")
    left, right = project(encode(inputs["left"])), project(encode(inputs["right"]))
    x = layers.Concatenate()([layers.Multiply()([left, right]), layers.Subtract()([left, right])])
    x = layers.Dense(1, activation="sigmoid")(x)
    return keras.Model(inputs, x), {k: signals(rng, 10) for k in inputs}


@entry
def separable(rng):
    inputs = keras.Input((16, 16, 3))
    x = layers.SeparableConv2D(8, 3, padding="same")(inputs)
    x = layers.PReLU(shared_axes=[1, 2])(x)
    x = layers.ZeroPadding2D(1)(x)
    x = layers.SeparableConv2D(12, 3, strides=2, use_bias=False)(x)
    x = layers.LeakyReLU(0.1)(layers.BatchNormalization()(x))
    return keras.Model(inputs, classifier(layers.GlobalAveragePooling2D()(x))), images(rng, 16, 16, 3)


@entry
def conv3d(rng):
    inputs = keras.Input((6, 8, 8, 2))
    x = layers.Conv3D(6, 3, padding="same", activation="relu")(inputs)
    x = layers.Conv3D(8, 3, strides=2, padding="same", activation="relu")(x)
    return keras.Model(inputs, classifier(layers.Flatten()(x))), images(rng, 6, 8, 8, 2, count=8)


@entry
def gelu_silu(rng):
    inputs = keras.Input((12,))
    x = layers.Dense(16, activation="gelu")(inputs)
    x = layers.Dense(16, activation="swish")(x)
    x = layers.Dense(16, activation="elu")(x)
    return keras.Model(inputs, classifier(layers.Dense(16, activation="tanh")(x))), signals(rng, 12)


@entry
def operations(rng):
    inputs = keras.Input((8, 8, 4))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    left, right = x[:, :, :, :4], x[:, :, :, 4:]
    x = concatenate([left * sigmoid(right), absolute(left - right), (left + right) / 2.0], -1)
    x = transpose(reshape(x, (-1, 16, 4, 12)), (0, 2, 1, 3))
    x = layers.Dense(6, activation="relu")(mean(x, axis=1))
    return keras.Model(inputs, classifier(layers.Flatten()(x))), images(rng, 8, 8, 4)


@entry
def two_headed(rng):
    inputs = [keras.Input((12, 12, 3), name="picture"), keras.Input((4,), name="numbers")]
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(inputs[0])
    x = layers.Concatenate()([layers.GlobalMaxPooling2D()(x), layers.Dense(6, activation="relu")(inputs[1])])
    outputs = {"kind": layers.Dense(3, activation="softmax", name="kind")(x), "box": layers.Dense(4, name="box")(x)}
    return keras.Model(inputs, outputs), [images(rng, 12, 12, 3), signals(rng, 4)]


@keras.utils.register_keras_serializable("zoo")
class Subclassed(keras.Model):
    """A model without a graph: its `call` uses layers, a list of layers and operations."""

    def __init__(self, width: int = 8, **kwargs: Any):
        super().__init__(**kwargs)
        self.width = width
        self.stem = layers.Conv2D(width, 3, padding="same", activation="relu")
        self.blocks = [layers.Conv2D(width, 3, padding="same", activation="relu") for _ in range(2)]
        self.normalize = layers.BatchNormalization()
        self.dropout = layers.Dropout(0.1)
        self.head = layers.Dense(5, activation="softmax")

    def call(self, inputs: Any, training: Any = None) -> Any:
        x = self.stem(inputs)
        for block in self.blocks:
            x = x + block(x)
        x = mean(self.normalize(x, training=training), axis=(1, 2))
        return self.head(self.dropout(x, training=training))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width}


@entry
def subclassed(rng):
    return Subclassed(), images(rng, 12, 12, 3)


@keras.utils.register_keras_serializable("zoo")
class EncoderBlock(layers.Layer):
    """x + attention(norm(x)), then x + feed_forward(norm(x)): a composite layer as published models have them."""

    def __init__(self, heads: int = 2, hidden: int = 24, **kwargs: Any):
        super().__init__(**kwargs)
        self.heads, self.hidden = heads, hidden

    def build(self, input_shape: Any) -> None:
        size = input_shape[-1]
        self.first = layers.LayerNormalization(name="first")
        self.attention = layers.MultiHeadAttention(self.heads, size // self.heads, name="attention")
        self.second = layers.LayerNormalization(name="second")
        self.expand = layers.Dense(self.hidden, activation="gelu", name="expand")
        self.contract = layers.Dense(size, name="contract")
        self.dropout = layers.Dropout(0.1)
        for layer in (self.first, self.second, self.expand):
            layer.build(input_shape)
        self.contract.build((*input_shape[:-1], self.hidden))
        builder = getattr(self.attention, "_build_from_signature", None)
        (builder or self.attention.build)(*([tf.TensorShape(input_shape)] * 2 if builder else [input_shape] * 2))
        self.built = True

    def call(self, x: Any, training: Any = None) -> Any:
        y = self.first(x)
        x = x + self.dropout(self.attention(y, y), training=training)
        return x + self.dropout(self.contract(self.expand(self.second(x))), training=training)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "heads": self.heads, "hidden": self.hidden}


@keras.utils.register_keras_serializable("zoo")
class ClassToken(layers.Layer):
    """[B, N, D] -> [B, 1 + N, D]: a learned token in front, learned positions added."""

    def build(self, input_shape: Any) -> None:
        self.token = self.add_weight(name="token", shape=(1, 1, input_shape[-1]), initializer="random_normal")
        self.position = self.add_weight(name="position", shape=(1, input_shape[1] + 1, input_shape[-1]),
                                        initializer="random_normal")  # fmt: skip
        self.built = True

    def call(self, x: Any) -> Any:
        token = broadcast_to(self.token, (shape(x)[0], 1, x.shape[-1]))
        return concatenate([token, x], 1) + self.position


@entry
def composite_encoder(rng):
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(16, 4, strides=4, name="patches")(inputs)
    x = ClassToken(name="token")(layers.Reshape((16, 16))(x))
    for i in range(2):
        x = EncoderBlock(name=f"block_{i}")(x)
    return keras.Model(inputs, classifier(layers.LayerNormalization()(x)[:, 0])), images(rng, 16, 16, 3)


@keras.utils.register_keras_serializable("zoo")
class SubclassedTransformer(keras.Model):
    """Composite blocks in a list, inside a model without a graph."""

    def __init__(self, depth: int = 2, **kwargs: Any):
        super().__init__(**kwargs)
        self.depth = depth
        self.embed = layers.Dense(16)
        self.blocks = [EncoderBlock(name=f"block_{i}") for i in range(depth)]
        self.normalize = layers.LayerNormalization()
        self.head = layers.Dense(5, activation="softmax")

    def call(self, inputs: Any, training: Any = None) -> Any:
        x = self.embed(inputs)
        for block in self.blocks:
            x = block(x, training=training)
        return self.head(mean(self.normalize(x), axis=1))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "depth": self.depth}


@entry
def subclassed_transformer(rng):
    return SubclassedTransformer(), signals(rng, 10, 6)


@entry
def masked_text(rng):
    inputs = keras.Input((16,), dtype="int32", name="tokens")
    x = layers.Embedding(40, 16, mask_zero=True)(inputs)
    x = layers.LayerNormalization()(layers.Add()([x, layers.MultiHeadAttention(2, 8)(x, x)]))
    x = layers.GlobalAveragePooling1D()(layers.Dense(16, activation="relu")(x))
    tokens = words(rng, 1, 40, 16)
    for row, length in zip(tokens, rng.integers(4, 17, 16), strict=True):
        row[length:] = 0
    return keras.Model(inputs, classifier(x)), tokens
