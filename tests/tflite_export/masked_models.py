"""Models with a mask of every kind, whose attention matters: `MODELS` has them by name."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tests.zoo import keras, layers

ROWS, STEPS, SIZE, WORDS = 40, 12, 16, 30
ops = keras.ops if hasattr(keras, "ops") else tf
matmul = ops.matmul if hasattr(keras, "ops") else tf.linalg.matmul
softmax = ops.softmax if hasattr(keras, "ops") else tf.nn.softmax
maximum = ops.max if hasattr(keras, "ops") else tf.reduce_max
total = ops.sum if hasattr(keras, "ops") else tf.reduce_sum
transpose = ops.transpose
serializable = keras.utils.register_keras_serializable("masked")
LENGTHS = np.random.default_rng(3).integers(3, STEPS + 1, ROWS)
KEEP = np.arange(STEPS)[None] < LENGTHS[:, None]
CAUSAL = np.tril(np.ones((STEPS, STEPS), bool))[None]


@dataclass
class Masked:
    """A model, its inputs, and where it looks.

    Attributes:
        model: with small, lively weights.
        x: its inputs.
        keep: [rows, queries or 1, keys] where attention may look; None for a maximum.
    """

    model: Any
    x: Any
    keep: np.ndarray | None


MODELS: dict[str, Any] = {}


def entry(build):
    def make() -> Masked:
        keras.utils.set_random_seed(2)
        found = build()
        rng = np.random.default_rng(7)
        for weight in found.model.trainable_weights:
            if len(weight.shape) > 1:
                weight.assign(rng.normal(0, 1.6 / np.sqrt(SIZE), weight.shape))
        return found

    MODELS[build.__name__] = make
    return build


def features():
    x = np.random.default_rng(4).normal(size=(ROWS, STEPS, SIZE)).astype("float32")
    return np.where(KEEP[..., None], x, 0.0).astype("float32")


def words():
    return np.where(KEEP, np.random.default_rng(5).integers(1, WORDS, (ROWS, STEPS)), 0).astype("int32")


def head(x):
    return layers.Dense(4, activation="softmax", name="head")(layers.Flatten()(x))


def by_hand(mask, of=softmax, kind="float32"):
    """Attention written out; `mask` is given the scores and the mask, [B, 1, N]."""
    x, m = keras.Input((STEPS, SIZE), name="x"), keras.Input((STEPS,), name="mask", dtype=kind)
    q, k, v = (layers.Dense(SIZE, name=name)(x) for name in "qkv")
    scores = matmul(q, transpose(k, (0, 2, 1))) * SIZE**-0.5
    y = head(matmul(of(mask(scores, m[:, None, :])), v))
    return Masked(keras.Model([x, m], y), [features(), KEEP.astype(kind)], KEEP[:, None])


def added(constant):
    return lambda: by_hand(lambda s, m: s + (1.0 - m) * constant)


def chosen(constant):
    return lambda: by_hand(lambda s, m: ops.where(m, s, constant), kind="bool")


def rounded_off(s):
    """A softmax written by hand."""
    e = ops.exp(s - maximum(s, axis=-1, keepdims=True))
    return e / total(e, axis=-1, keepdims=True)


for _name, _build in {
    "added_1e9": added(-1e9),
    "added_1e4": added(-1e4),
    "added_float16_min": added(-65504.0),
    "added_float32_min": added(float(np.finfo("float32").min)),
    "added_100": added(-100.0),
    "chosen_1e9": chosen(-1e9),
    "chosen_infinity": chosen(-np.inf),
}.items():
    _build.__name__ = _name
    entry(_build)


@entry
def subtracted():
    return by_hand(lambda s, m: s - 1e9 * (1.0 - m))


@entry
def softmax_layer():
    return by_hand(lambda s, m: layers.Softmax(name="probabilities")(s, mask=m), of=lambda s: s, kind="bool")


@entry
def causal_table():
    table = np.where(CAUSAL, 0.0, -np.inf).astype("float32")
    x = keras.Input((STEPS, SIZE), name="x")
    q, k, v = (layers.Dense(SIZE, name=name)(x) for name in "qkv")
    scores = matmul(q, transpose(k, (0, 2, 1))) * SIZE**-0.5 + table
    return Masked(keras.Model(x, head(matmul(softmax(scores), v))), features(), CAUSAL)


@entry
def attention_mask():
    x, m = keras.Input((STEPS, SIZE), name="x"), keras.Input((1, STEPS), name="mask", dtype="bool")
    y = layers.MultiHeadAttention(2, 8, name="attention")(x, x, attention_mask=m)
    return Masked(keras.Model([x, m], head(y)), [features(), KEEP[:, None]], KEEP[:, None, None])


@entry
def causal():
    x = keras.Input((STEPS, SIZE), name="x")
    y = layers.MultiHeadAttention(2, 8, name="attention")(x, x, use_causal_mask=True)
    return Masked(keras.Model(x, head(y)), features(), CAUSAL[:, None])


@entry
def mask_zero_and_dropout():
    t = keras.Input((STEPS,), dtype="int32", name="tokens")
    x = layers.Embedding(WORDS, SIZE, mask_zero=True, name="table")(t)
    x = layers.LayerNormalization(name="norm")(x)
    y = layers.MultiHeadAttention(2, 8, dropout=0.1, name="attention")(x, x)
    y = layers.GlobalAveragePooling1D(name="mean")(layers.Add()([x, y]))
    return Masked(keras.Model(t, head(y)), words(), (KEEP[:, None] & KEEP[:, :, None])[:, None])


@entry
def attention_layer():
    x, m = keras.Input((STEPS, SIZE), name="x"), keras.Input((STEPS,), name="mask", dtype="bool")
    q, k, v = (layers.Dense(SIZE, name=name)(x) for name in "qkv")
    y = layers.Attention(name="attention")([q, v, k], mask=[m, m], use_causal_mask=True)
    return Masked(keras.Model([x, m], head(y)), [features(), KEEP], KEEP[:, None] & CAUSAL)


@serializable
class Block(layers.Layer):
    """A composite that makes the mask itself, as BERT does."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.parts = [layers.Dense(SIZE) for _ in range(3)]

    def call(self, x, keep):
        q, k, v = (part(x) for part in self.parts)
        scores = matmul(q, transpose(k, (0, 2, 1))) * SIZE**-0.5
        hidden = (1.0 - ops.cast(keep, "float32")) * -10000.0
        return matmul(softmax(scores + hidden[:, None, :]), v)


@entry
def composite():
    x, m = keras.Input((STEPS, SIZE), name="x"), keras.Input((STEPS,), name="mask", dtype="int32")
    return Masked(
        keras.Model([x, m], head(Block(name="block")(x, m))), [features(), KEEP.astype("int32")], KEEP[:, None]
    )


@entry
def written_out():
    return by_hand(lambda s, m: s + (1.0 - m) * -1e9, of=rounded_off)


def pooled(constant):
    def build():
        x, m = keras.Input((STEPS, SIZE), name="x"), keras.Input((STEPS,), name="mask", dtype="bool")
        y = ops.where(m[:, :, None], layers.Dense(SIZE, name="dense")(x), constant)
        y = layers.GlobalMaxPooling1D(name="most")(y)
        return Masked(keras.Model([x, m], layers.Dense(4, name="head")(y)), [features(), KEEP], None)

    return build


for _name, _build in {"most_1e9": pooled(-1e9), "most_infinity": pooled(-np.inf)}.items():
    _build.__name__ = _name
    entry(_build)


@entry
def padded_with_infinity():
    x = keras.Input((8, 8, 3), name="x")
    y = layers.Conv2D(6, 3, padding="same", name="conv")(x)
    width = [[0, 0], [1, 1], [1, 1], [0, 0]]
    y = ops.pad(y, width, constant_values=-np.inf)
    y = layers.MaxPooling2D(3, 2, name="pool")(y)
    image = np.random.default_rng(6).normal(size=(ROWS, 8, 8, 3)).astype("float32")
    return Masked(keras.Model(x, layers.Dense(4, name="head")(layers.Flatten()(y))), image, None)
