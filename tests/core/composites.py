"""Models of composite layers: what tracing opens, and what it must leave closed. `MODELS` has them by name."""

import numpy as np
import tensorflow as tf

from tests.zoo import enliven, keras, layers
from tfcompress.core import flavor

KERAS3 = flavor.NAME == "keras 3"
ops = keras.ops if KERAS3 else tf
concat = ops.concatenate if KERAS3 else tf.concat
mean = ops.mean if KERAS3 else tf.reduce_mean
rng = np.random.default_rng(0)
serializable = flavor.saving.register_keras_serializable("tests")


def composite(name, children, call, **attributes):
    """A layer class whose `call` uses its children."""

    def __init__(self, **kwargs):
        layers.Layer.__init__(self, **kwargs)
        for key, value in {**children(self), **attributes}.items():
            setattr(self, key, value)

    return serializable(type(name, (layers.Layer,), {"__init__": __init__, "call": call}))


def floats(*shape):
    return rng.normal(size=(6, *shape)).astype("float32")


def integers(*shape, below=20):
    return rng.integers(0, below, size=(6, *shape)).astype("int32")


def chain(x, *parts):
    first = y = keras.Input(x.shape[1:], dtype=x.dtype.name, name="x")
    for part in parts:
        y = part(y)
    return keras.Model(first, y), x


def built(model, x):
    model(x)
    return model, x


def call_block(self, x, mask=None, training=None):
    attend = None if mask is None else mask[:, None, :]
    normed = self.norms[0](x)
    x = x + self.attention(normed, normed, attention_mask=attend, training=training)
    hidden = self.feed["drop"](self.feed["up"](self.norms[1](x)), training=training)
    return x + self.feed["down"](hidden)


Block = composite(
    "Block", lambda self: {
        "norms": [layers.LayerNormalization(), layers.LayerNormalization()],
        "attention": layers.MultiHeadAttention(2, 4),
        "feed": {"up": layers.Dense(16, activation="gelu"), "drop": layers.Dropout(0.1), "down": layers.Dense(8)},
    }, call_block, supports_masking=True)  # fmt: skip


@serializable
class Patches(layers.Layer):
    """Owns a class token and a position table."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.project = layers.Dense(8)

    def build(self, shape):
        self.token = self.add_weight(name="token", shape=(1, 1, 8), initializer="random_normal", regularizer="l2")
        self.position = self.add_weight(name="position", shape=(1, shape[1] + 1, 8), initializer="random_normal")
        self.project.build(shape)
        self.built = True

    def call(self, x):
        batch = ops.shape(x)[0]
        token = ops.broadcast_to(self.token, (batch, 1, 8))
        return concat([token, self.project(x)], axis=1) + self.position


def call_reshaping(self, x):
    batch, steps = ops.shape(x)[0], x.shape[1]
    y = ops.reshape(self.dense(ops.reshape(x, (batch * steps, 8))), (batch, steps, 4))
    return concat([y, ops.zeros((batch, 1, 4))], axis=1)


def call_pair(self, x):
    return self.pair[1](self.pair[0](x))


Reshaping = composite("Reshaping", lambda self: {"dense": layers.Dense(4)}, call_reshaping)
Nesting = composite("Nesting", lambda self: {"pair": (Block(), Reshaping())}, call_pair)
Keywords = composite(
    "Keywords", lambda self: {"a": layers.Dense(4), "b": layers.Dense(4)},
    lambda self, left=None, right=None: (self.a(left), self.b(right)))  # fmt: skip
Positions = composite(
    "Positions", lambda self: {"tokens": layers.Embedding(20, 8), "table": layers.Embedding(5, 8)},
    lambda self, x: self.tokens(x) + self.table(ops.arange(5) if KERAS3 else tf.range(5)))  # fmt: skip
Frozen = composite(
    "Frozen", lambda self: {"dense": layers.Dense(4), "norm": layers.BatchNormalization()},
    lambda self, x: self.norm(self.dense(x), training=False))  # fmt: skip
Tensorflow = composite(
    "Tensorflow", lambda self: {"dense": layers.Dense(4)},
    lambda self, x: tf.nn.relu(self.dense(tf.sin(x))))  # fmt: skip


def call_branch(self, x, training=None):
    y = self.dense(x)
    return y * ops.ones_like(y) * 2.0 if training else y


def call_depth(self, x, training=None):
    y = self.dense(x)
    if training:
        y = y * (keras.random.uniform((ops.shape(x)[0], 1)) if KERAS3 else tf.random.uniform((tf.shape(x)[0], 1)))
    return y


def call_loss(self, x):
    y = self.dense(x)
    self.add_loss(mean(y))
    return y


def call_tied(self, x):
    return ops.matmul(self.dense(self.table(x)), ops.transpose(self.table.embeddings))


one_dense = lambda self: {"dense": layers.Dense(4)}  # noqa: E731
Branching, RandomDepth, AddsLoss = (
    composite(name, one_dense, call)
    for name, call in (("Branching", call_branch), ("RandomDepth", call_depth), ("AddsLoss", call_loss))
)
Tied = composite("Tied", lambda self: {"table": layers.Embedding(20, 8), "dense": layers.Dense(8)}, call_tied)


class Classifier(keras.Model):
    def __init__(self):
        super().__init__()
        self.patches, self.blocks, self.head = Patches(), [Block(), Block()], layers.Dense(3)

    def call(self, x, training=None):
        x = self.patches(x)
        for block in self.blocks:
            x = block(x, training=training)
        return self.head(x[:, 0])


class Dictionary(keras.Model):
    """Takes and gives dicts, one input is whole numbers."""

    def __init__(self):
        super().__init__()
        self.dense, self.table = layers.Dense(3), layers.Embedding(9, 3)

    def call(self, inputs):
        z = self.dense(inputs["z"])
        return {"sum": z + self.table(inputs["i"]), "z": [z]}


class MaskedText(keras.Model):
    """Masks pass from layer to layer inside its call, through a composite."""

    def __init__(self):
        super().__init__()
        self.table, self.block = layers.Embedding(20, 8, mask_zero=True), Block()
        self.pool, self.head = layers.GlobalAveragePooling1D(), layers.Dense(3)

    def call(self, x):
        return self.head(self.pool(self.block(self.table(x))))


def shared_block():
    z, a, block = keras.Input((5, 8), name="z"), keras.Input((5, 8), name="a"), Block()
    joined = layers.Concatenate()([block(z), block(a)])
    model = keras.Model({"z": z, "a": a}, layers.Dense(3)(layers.LSTM(4)(joined)))
    return model, {"z": floats(5, 8), "a": floats(5, 8)}


def structures():
    z, a = keras.Input((4,), name="z"), keras.Input((4,), name="a")
    left, right = Keywords()(right=a, left=z)
    return keras.Model({"z": z, "a": a}, {"q": [left, right], "b": z}), {"z": floats(4), "a": floats(4)}


def plain_operations():
    x = keras.Input((6, 4), name="x")
    y = layers.Dense(4)(x)
    flat = ops.reshape(x + y, (-1, 24))
    return keras.Model(x, concat([ops.abs(y)[:, 0], flat], axis=-1)), floats(6, 4)


def attention(**options):
    x = keras.Input((5, 8), name="x")
    return keras.Model(x, layers.MultiHeadAttention(2, 4)(x, x, **options)), floats(5, 8)


def cross_attention():
    q, k = keras.Input((5, 8), name="q"), keras.Input((3, 8), name="k")
    m = keras.Input((5, 3), dtype="bool", name="m")
    y = layers.MultiHeadAttention(2, 4)(q, k, attention_mask=m)
    return keras.Model([q, k, m], y), [floats(5, 8), floats(3, 8), rng.random((6, 5, 3)) > 0.3]


def masked(last):
    return chain(integers(7, below=4), layers.Embedding(20, 8, mask_zero=True), Block(), last(), layers.Dense(3))


def nested():
    inner = chain(floats(8, 8, 3), layers.Conv2D(4, 1))[0]
    tail = keras.Sequential([layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU()])
    return chain(floats(8, 8, 3), inner, tail, layers.Flatten(), layers.Dense(3))


OPEN = {
    "nested": nested,
    "encoder": lambda: chain(floats(5, 8), Patches(), Block(), Block(), layers.Flatten(), layers.Dense(3)),
    "nesting": lambda: chain(floats(5, 8), Nesting()),
    "shared_block": shared_block,
    "structures": structures,
    "plain_operations": plain_operations,
    "attention": attention,
    "causal": lambda: attention(use_causal_mask=True),
    "cross_attention": cross_attention,
    "masked_pooling": lambda: masked(layers.GlobalAveragePooling1D),
    "masked_lstm": lambda: masked(lambda: layers.LSTM(4)),
    "gru": lambda: chain(floats(5, 4), layers.Bidirectional(layers.GRU(3)), layers.Dense(2)),
    "time": lambda: chain(floats(5, 4), layers.TimeDistributed(layers.Dense(3)), layers.Flatten()),
    "lambda": lambda: chain(floats(4), layers.Lambda(lambda x: x * 2.0, name="twice"), layers.Dense(2)),
    "positions": lambda: chain(integers(5), Positions(), layers.Dense(2)),
    "classifier": lambda: built(Classifier(), floats(5, 8)),
    "masked_text": lambda: built(MaskedText(), integers(7, below=4)),
    "dictionary": lambda: built(Dictionary(), {"z": floats(4), "i": integers(below=9)}),
}
CLOSED = {
    "branching": (Branching, "in training than in inference"),
    "random_depth": (RandomDepth, "in training than in inference"),
    "adds_loss": (AddsLoss, "adds a loss"),
    "tied": (Tied, "weights? "),
    **({"tensorflow": (Tensorflow, "KerasTensor cannot be used as input to a TensorFlow function")} if KERAS3 else {}),
}


def make(name):
    """A model and a batch; no weight at a constant."""
    keras.utils.set_random_seed(5)
    if name in OPEN:
        model, x = OPEN[name]()
    else:
        model, x = chain(integers(5) if name == "tied" else floats(4), CLOSED[name][0](name="it"), layers.Dense(2))
    enliven(model)
    return model, x
