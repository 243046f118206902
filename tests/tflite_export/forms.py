"""Small models of one form each: what transformers and their kin compute besides products. `FORMS` has them by name.

An entry is `() -> (model, x)`: a built, seeded model of the flavor in force and 64 rows for it. Activations are as wide
as real ones: means far from zero, some channels six times the others, rows of different sizes.
"""

import numpy as np
import tensorflow as tf

from tests.zoo import enliven
from tfcompress.core import flavor

keras, layers = tf.keras, tf.keras.layers
KERAS3 = flavor.NAME == "keras 3"
serializable = flavor.saving.register_keras_serializable("forms")
ROWS = 64


def leaf(name, call, weights=None, integers=()):
    """A layer that computes with TensorFlow's own operations; `weights`: name -> shape (a function of the input's)."""

    def build(self, shape):
        for key, size in (weights or {}).items():
            size = size(shape) if callable(size) else size
            setattr(self, key, self.add_weight(name=key, shape=size, initializer="random_normal"))
        self.built = True

    made = type(name, (layers.Layer,), {"build": build, "call": call})
    return serializable(made)


def wide(*shape, offset=3.0, outliers=2, factor=6.0, octaves=1, seed=1):
    """Normal values around `offset`, some channels `factor` times as large, rows from 2^-octaves to 2^octaves."""
    rng = np.random.default_rng(seed)
    scale = np.ones(shape[-1])
    scale[rng.choice(shape[-1], outliers, replace=False)] = factor
    rows = np.exp2(rng.uniform(-octaves, octaves, (ROWS, *[1] * (len(shape) - 1), 1)))
    return (rng.normal(size=(ROWS, *shape)) * scale * rows + offset).astype("float32")


def emptied(x):
    """Every third step of every sample is constant, as padding is: its root is a thousand times the others'."""
    x[:, ::3] = 3.0
    return x


def plain(*shape, scale=1.0, seed=2):
    return (np.random.default_rng(seed).normal(size=(ROWS, *shape)) * scale).astype("float32")


def chain(x, *parts):
    first = y = keras.Input(x.shape[1:], dtype=x.dtype.name, name="x")
    for part in parts:
        y = part(y)
    return keras.Model(first, y), x


def of_function(call, name="form"):
    """A layer that computes `call`."""
    return leaf(name.title().replace("_", ""), lambda self, x: call(x))


# --- normalizations


def rms_norm():
    if hasattr(layers, "RMSNormalization"):
        return chain(wide(6, 32), layers.RMSNormalization())
    return own_rms_norm()


RmsNorm = leaf(
    "RmsNorm",
    lambda self, x: x * tf.math.rsqrt(tf.reduce_mean(tf.square(x), -1, keepdims=True) + 1e-6) * self.scale,
    {"scale": lambda shape: (shape[-1],)},
)
OwnNorm = leaf(
    "OwnNorm",
    lambda self, x: own_norm(x) * self.scale + self.bias,
    {"scale": lambda shape: (shape[-1],), "bias": lambda shape: (shape[-1],)},
)


def own_norm(x):
    """As written by hand, with a square root and a division."""
    mean = tf.reduce_mean(x, -1, keepdims=True)
    return (x - mean) / tf.sqrt(tf.reduce_mean((x - mean) ** 2, -1, keepdims=True) + 1e-6)


def own_rms_norm():
    return chain(wide(6, 32), RmsNorm())


def rms_norm_in_graph():
    """Plain operations of the graph, each with a learned range of its own."""
    inputs, ops = keras.Input((6, 32)), keras.ops if KERAS3 else tf
    mean, rsqrt = (keras.ops.mean, keras.ops.rsqrt) if KERAS3 else (tf.reduce_mean, tf.math.rsqrt)
    root = rsqrt(mean(ops.square(inputs), -1, keepdims=True) + 1e-6)
    return keras.Model(inputs, layers.Dense(16)(inputs * root)), wide(6, 32)


# --- activations


def hard_swish_layer():
    if KERAS3:
        return layers.Activation("hard_silu")
    return of_function(lambda x: x * tf.nn.relu6(x + 3) / 6, "hard_swish")()


def block(x, *parts):
    return chain(x, layers.Dense(32, name="up"), *parts, layers.Dense(8, name="down"))


def squeeze_excite():
    image = keras.Input((8, 8, 12))
    x = layers.Conv2D(16, 3, padding="same", activation="swish")(image)
    g = layers.GlobalAveragePooling2D(keepdims=True)(x)
    g = layers.Conv2D(4, 1, activation="swish")(g)
    g = layers.Conv2D(16, 1, activation="sigmoid")(g)
    x = layers.Multiply()([x, g])
    return keras.Model(image, layers.Conv2D(8, 1)(x)), plain(8, 8, 12)


# --- positions


def rotate(x):
    """[B, T, H, D]: pairs of halves turned by the position."""
    steps, half = x.shape[1], x.shape[-1] // 2
    angle = np.arange(steps)[:, None] / 100 ** (np.arange(half) / half)
    cos, sin = (np.concatenate([f(angle)] * 2, -1).astype("float32")[None, :, None] for f in (np.cos, np.sin))
    one, two = tf.split(x, 2, -1)
    return x * cos + tf.concat([-two, one], -1) * sin


def interleave(x):
    """[B, T, H, D]: even and odd neighbours turned by the position, packed with their negatives."""
    steps, half = x.shape[1], x.shape[-1] // 2
    angle = np.arange(steps)[:, None] / 100 ** (np.arange(half) / half)
    cos, sin = (np.repeat(f(angle), 2, -1).astype("float32")[None, :, None] for f in (np.cos, np.sin))
    turned = tf.reshape(tf.stack([-x[..., 1::2], x[..., ::2]], -1), [-1, *x.shape[1:]])
    return x * cos + turned * sin


def rotary_layer(turn):
    def call(self, x):
        heads = tf.reshape(x, [-1, x.shape[1], 2, x.shape[2] // 2])
        return tf.reshape(turn(heads), [-1, *x.shape[1:]])

    return leaf("Rotary" + turn.__name__.title(), call)()


Positions = leaf("Positions", lambda self, x: x + self.table, {"table": lambda shape: tuple(shape[1:])})


def learned_positions():
    ids = keras.Input((10,), dtype="int32")
    x = Positions()(layers.Embedding(40, 16)(ids))
    model = keras.Model(ids, layers.Dense(6)(x))
    return model, np.random.default_rng(3).integers(0, 40, (ROWS, 10)).astype("int32")


# --- attention


def call_grouped(self, x):
    """4 heads of queries, 2 of keys and values, causal."""
    steps = x.shape[1]
    q = tf.reshape(self.query(x), [-1, steps, 2, 2, 8])
    k = tf.reshape(self.key(x), [-1, steps, 2, 8])
    v = tf.reshape(self.value(x), [-1, steps, 2, 8])
    scores = tf.einsum("btgrd,bsgd->bgrts", q, k) / np.float32(np.sqrt(8))
    causal = np.triu(np.full((steps, steps), -1e9, "float32"), 1)
    y = tf.einsum("bgrts,bsgd->btgrd", tf.nn.softmax(scores + causal), v)
    return self.out(tf.reshape(y, [-1, steps, 32]))


@serializable
class Grouped(layers.Layer):
    def build(self, shape):
        self.query, self.key, self.value, self.out = (layers.Dense(n) for n in (32, 16, 16, 16))
        for part, size in ((self.query, 16), (self.key, 16), (self.value, 16), (self.out, 32)):
            part.build((None, shape[1], size))
        self.built = True

    call = call_grouped


def grouped_query():
    if hasattr(layers, "GroupQueryAttention"):
        x = keras.Input((8, 16))
        return keras.Model(x, layers.GroupQueryAttention(8, 4, 2)(x, x, use_causal_mask=True)), plain(8, 16, scale=2)
    return own_grouped_query()


def own_grouped_query():
    return chain(plain(8, 16, scale=2), Grouped())


def call_experts(self, x):
    """Every expert computes; the router's probabilities weigh them."""
    weights = tf.nn.softmax(tf.matmul(x, self.router))
    hidden = tf.nn.gelu(tf.einsum("btd,edh->bteh", x, self.up), approximate=True)
    y = tf.einsum("bteh,ehd->bted", hidden, self.down)
    return tf.reduce_sum(y * weights[..., None], 2)


Experts = leaf("Experts", call_experts, {
    "router": lambda shape: (shape[-1], 4),
    "up": lambda shape: (4, shape[-1], 24),
    "down": lambda shape: (4, 24, shape[-1]),
})  # fmt: skip


def call_windows(self, x):
    """[B, 8, 8, C]: shifted by 2, windows of 4 x 4, relative position bias from a table, a mask between regions."""
    size, n, c = 4, 16, x.shape[-1]
    x = tf.roll(x, [-2, -2], [1, 2])
    x = tf.reshape(tf.transpose(tf.reshape(x, [-1, 2, size, 2, size, c]), [0, 1, 3, 2, 4, 5]), [-1, 4, n, c])
    q, k, v = (
        tf.transpose(tf.reshape(part, [-1, 4, n, 2, c // 2]), [0, 1, 3, 2, 4])
        for part in tf.split(tf.matmul(x, self.qkv), 3, -1)
    )
    scores = tf.matmul(q, k, transpose_b=True) * np.float32((c // 2) ** -0.5)
    at = np.stack(np.meshgrid(np.arange(size), np.arange(size), indexing="ij")).reshape(2, -1)
    away = at[:, :, None] - at[:, None, :] + size - 1
    bias = tf.gather(self.table, (away[0] * (2 * size - 1) + away[1]).ravel())
    scores += tf.transpose(tf.reshape(bias, [n, n, 2]), [2, 0, 1])[None, None]
    region = np.arange(8) // 4 + (np.arange(8) >= 6)
    region = (region[:, None] * 3 + region[None]).reshape(2, size, 2, size).transpose(0, 2, 1, 3).reshape(4, n)
    mask = np.where(region[:, :, None] == region[:, None], 0, -100).astype("float32")
    y = tf.matmul(tf.nn.softmax(scores + mask[None, :, None]), v)
    y = tf.reshape(tf.transpose(y, [0, 1, 3, 2, 4]), [-1, 2, 2, size, size, c])
    y = tf.reshape(tf.transpose(y, [0, 1, 3, 2, 4, 5]), [-1, 8, 8, c])
    return tf.roll(y, [2, 2], [1, 2])


Windows = leaf("Windows", call_windows, {"qkv": lambda shape: (shape[-1], 3 * shape[-1]), "table": (49, 2)})


# --- softmax


def by_hand(axis):
    def softmax(x):
        e = tf.exp(x - tf.reduce_max(x, axis, keepdims=True))
        return e / tf.reduce_sum(e, axis, keepdims=True)

    return softmax


def by_logarithm(x):
    return tf.exp(x - tf.reduce_logsumexp(x, -1, keepdims=True))


def with_softmax(call):
    return chain(plain(8, 16, scale=3), layers.Dense(12, name="scores"), of_function(call, "softmax")())


def masked_mean():
    ids = keras.Input((12,), dtype="int32")
    x = layers.Dense(16)(layers.Embedding(40, 16, mask_zero=True)(ids))
    model = keras.Model(ids, layers.Dense(5)(layers.GlobalAveragePooling1D()(x)))
    return model, tokens()


def tokens():
    rng = np.random.default_rng(4)
    ids = rng.integers(1, 40, (ROWS, 12)) * (np.arange(12) < rng.integers(4, 13, (ROWS, 1)))
    return ids.astype("int32")


def own_masked_mean():
    x, m = keras.Input((12, 16), name="x"), keras.Input((12,), name="m")

    def call(self, inputs):
        values, mask = inputs
        return tf.reduce_sum(values * mask[..., None], 1) / tf.maximum(tf.reduce_sum(mask, 1, keepdims=True), 1e-9)

    y = leaf("MaskedMean", call)()([x, m])
    return keras.Model([x, m], y), [plain(12, 16) + 1, (tokens() > 0).astype("float32")]


FORMS = {
    "layer_norm": lambda: chain(wide(6, 32), layers.LayerNormalization()),
    "layer_norm_spatial": lambda: chain(wide(6, 6, 8), layers.LayerNormalization(axis=[1, 2, 3])),
    "layer_norm_empty_rows": lambda: chain(emptied(wide(6, 32)), layers.LayerNormalization(epsilon=1e-6)),
    "layer_norm_uneven": lambda: chain(
        wide(6, 32, offset=0.0, factor=2.0, octaves=2, seed=9), layers.LayerNormalization()
    ),
    "own_layer_norm": lambda: chain(wide(6, 32), OwnNorm()),
    "rms_norm": rms_norm,
    "own_rms_norm": own_rms_norm,
    "rms_norm_in_graph": rms_norm_in_graph,
    "group_norm": lambda: chain(wide(6, 6, 16, factor=5.0), layers.GroupNormalization(4)),
    "unit_norm": lambda: chain(wide(6, 16, offset=0.5, factor=3.0), layers.UnitNormalization()),
    "l2_normalize": lambda: chain(
        wide(6, 16, offset=0.5, factor=3.0), of_function(lambda x: tf.math.l2_normalize(x, -1), "l2")()
    ),
    "l2_normalize_axis": lambda: chain(
        wide(6, 16, offset=0.5, factor=3.0), of_function(lambda x: tf.math.l2_normalize(x, 1), "l2")()
    ),
    "gelu": lambda: block(plain(6, 16), layers.Activation("gelu")),
    "gelu_erf": lambda: block(
        plain(6, 16), of_function(lambda x: x * (1 + tf.math.erf(x * 0.70710678)) / 2, "gelu_erf")()
    ),
    "gelu_tanh": lambda: block(plain(6, 16), of_function(lambda x: tf.nn.gelu(x, True), "gelu_tanh")()),
    "swish": lambda: block(plain(6, 16), layers.Activation("swish")),
    "hard_swish": lambda: block(plain(6, 16, scale=2), hard_swish_layer()),
    "squeeze_excite": squeeze_excite,
    "rotary_halves": lambda: block(plain(6, 16), rotary_layer(rotate)),
    "rotary_pairs": lambda: block(plain(6, 16), rotary_layer(interleave)),
    "repeated": lambda: block(plain(6, 16), of_function(lambda x: tf.tile(x, [1, 2, 1]) * 0.5, "repeated")()),
    "learned_positions": learned_positions,
    "grouped_query": grouped_query,
    "own_grouped_query": own_grouped_query,
    "experts": lambda: chain(plain(6, 16), Experts()),
    "windows": lambda: chain(plain(8, 8, 16, scale=2), Windows()),
    "softmax_axis": lambda: chain(plain(8, 16, scale=3), layers.Dense(12), layers.Softmax(axis=1)),
    "softmax_by_hand": lambda: with_softmax(by_hand(-1)),
    "softmax_by_hand_axis": lambda: with_softmax(by_hand(1)),
    "softmax_by_logarithm": lambda: with_softmax(by_logarithm),
    "log_softmax": lambda: with_softmax(tf.nn.log_softmax),
    "masked_mean": masked_mean,
    "own_masked_mean": own_masked_mean,
}


def make(name):
    """A model and its rows; no weight at a constant, weights of attention large enough to matter."""
    keras.utils.set_random_seed(5)
    model, x = FORMS[name]()
    enliven(model)
    for weight in model.weights:
        value = np.asarray(weight)
        if value.ndim >= 2 and np.std(value) < 0.08:  # random_normal of 0.05 would leave every score near zero
            weight.assign(value / np.std(value) * (0.5 if "table" in weight.name else 1 / np.sqrt(value.shape[-2])))
        elif "scale" in weight.name and np.std(value) < 0.08 and abs(np.mean(value)) < 0.1:
            weight.assign(value + 1)
    return model, x
