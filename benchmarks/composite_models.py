"""Models of composite layers, tiny, each with a task that only attention (or a gate) solves: name -> (model, x, y).

In both flavors: layers whose call uses other layers and plain operations. Keras 3 alone: four families of keras-hub.
Outputs are logits, [B, classes] or [B, T, classes]; y holds class numbers.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

keras = tf.keras
layers = keras.layers
ops = getattr(keras, "ops", None)
concatenate = ops.concatenate if ops else tf.concat
einsum = ops.einsum if ops else tf.einsum
matmul = ops.matmul if ops else tf.matmul
mean = ops.mean if ops else tf.reduce_mean
reshape = ops.reshape if ops else tf.reshape
roll = ops.roll if ops else tf.roll
rsqrt = ops.rsqrt if ops else tf.math.rsqrt
shape = ops.shape if ops else tf.shape
silu = ops.silu if ops else tf.nn.silu
softmax = ops.softmax if ops else tf.nn.softmax
take = ops.take if ops else tf.gather
transpose = ops.transpose if ops else tf.transpose
broadcast_to = ops.broadcast_to if ops else tf.broadcast_to
serializable = keras.utils.register_keras_serializable("composites")

WORDS, STEPS, WIDTH, ROWS = 24, 16, 32, 2048
Built = tuple[Any, Any, np.ndarray]


class Configured(layers.Layer):
    """A layer whose constructor arguments are its config."""

    def __init__(self, **kwargs: Any) -> None:
        own = {name: kwargs.pop(name, default) for name, default in self.options.items()}
        super().__init__(**kwargs)
        self.own = own
        for name, value in own.items():
            setattr(self, name, value)

    options: dict[str, Any] = {}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.own}


@serializable
class ClassToken(Configured):
    """[B, N, D] -> [B, 1 + N, D]: a learned token in front, learned positions added."""

    def build(self, given: Any) -> None:
        self.token = self.add_weight(name="token", shape=(1, 1, given[-1]), initializer="random_normal")
        self.position = self.add_weight(
            name="position", shape=(1, given[1] + 1, given[-1]), initializer=keras.initializers.RandomNormal(stddev=0.3)
        )
        self.built = True

    def call(self, x: Any) -> Any:
        return concatenate([broadcast_to(self.token, (shape(x)[0], 1, x.shape[-1])), x], 1) + self.position


@serializable
class Positions(Configured):
    """[B, N, D] + a learned table [N, D]; masks go on."""

    def build(self, given: Any) -> None:
        self.supports_masking = True
        self.table = self.add_weight(
            name="table", shape=(given[1], given[-1]), initializer=keras.initializers.RandomNormal(stddev=0.3)
        )
        self.built = True

    def call(self, x: Any) -> Any:
        return x + self.table


@serializable
class Block(Configured):
    """Attention and feed-forward with residual connections: x + f(norm(x)), or norm(x + f(x))."""

    options = {"heads": 2, "before": True, "causal": False}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.norms = [layers.LayerNormalization(name="norm_0"), layers.LayerNormalization(name="norm_1")]
        self.attention = layers.MultiHeadAttention(self.heads, WIDTH // self.heads, name="attention")
        self.feed = {"up": layers.Dense(2 * WIDTH, "gelu", name="up"), "down": layers.Dense(WIDTH, name="down")}

    def attend(self, x: Any, mask: Any) -> Any:
        return self.attention(
            x, x, attention_mask=None if mask is None else mask[:, None, :], use_causal_mask=self.causal
        )

    def call(self, x: Any, mask: Any = None) -> Any:
        if self.before:
            x = x + self.attend(self.norms[0](x), mask)
            return x + self.feed["down"](self.feed["up"](self.norms[1](x)))
        x = self.norms[0](x + self.attend(x, mask))
        return self.norms[1](x + self.feed["down"](self.feed["up"](x)))


@serializable
class RMSNorm(Configured):
    """x / sqrt(mean(x^2) + 1e-6) * scale, the scale a bare weight."""

    def build(self, given: Any) -> None:
        self.scale = self.add_weight(name="scale", shape=(given[-1],), initializer="ones")
        self.built = True

    def call(self, x: Any) -> Any:
        return x * rsqrt(mean(x * x, -1, keepdims=True) + 1e-6) * self.scale


@serializable
class RMSBlock(Configured):
    """RMS norm, attention written out, RMS norm, gated feed-forward (SiLU)."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.norms = [RMSNorm(name="norm_0"), RMSNorm(name="norm_1")]
        self.query, self.key, self.value, self.out = (
            layers.Dense(WIDTH, use_bias=False, name=name) for name in ("query", "key", "value", "out")
        )
        self.gate, self.up = layers.Dense(2 * WIDTH, name="gate"), layers.Dense(2 * WIDTH, name="up")
        self.down = layers.Dense(WIDTH, name="down")

    def call(self, x: Any) -> Any:
        y = self.norms[0](x)
        scores = matmul(self.query(y), transpose(self.key(y), (0, 2, 1))) / WIDTH**0.5
        x = x + self.out(matmul(softmax(scores, axis=-1), self.value(y)))
        y = self.norms[1](x)
        return x + self.down(silu(self.gate(y)) * self.up(y))


@serializable
class Experts(Configured):
    """Mixture of experts with dense routing: every expert computes, a softmax gate weighs them. Kernels are 3-D."""

    options = {"count": 4}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.gate = layers.Dense(self.count, activation="softmax", name="gate")

    def build(self, given: Any) -> None:
        make, wide = self.add_weight, 2 * WIDTH
        self.up = make(name="up", shape=(self.count, given[-1], wide), initializer="he_normal")
        self.down = make(name="down", shape=(self.count, wide, given[-1]), initializer="he_normal")
        self.gate.build(given)
        self.built = True

    def call(self, x: Any) -> Any:
        y = silu(einsum("btd,edh->bteh", x, self.up))
        y = einsum("bteh,ehd->bted", y, self.down)
        return einsum("bted,bte->btd", y, self.gate(x))


@serializable
class ExpertBlock(Configured):
    """A pre-norm block whose feed-forward is a mixture of experts."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.norms = [layers.LayerNormalization(name="norm_0"), layers.LayerNormalization(name="norm_1")]
        self.attention = layers.MultiHeadAttention(2, WIDTH // 2, name="attention")
        self.experts = Experts(name="experts")

    def call(self, x: Any) -> Any:
        y = self.norms[0](x)
        x = x + self.attention(y, y)
        return x + self.experts(self.norms[1](x))


@serializable
class WindowBlock(Configured):
    """[B, side, side, D]: attention within windows, shifted by half a window or not, relative positions from a table.

    Source: Liu et al. 2021, arXiv:2103.14030, section 3.2.
    """

    options = {"side": 8, "window": 4, "shift": 0, "heads": 2}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.norms = [layers.LayerNormalization(name="norm_0"), layers.LayerNormalization(name="norm_1")]
        self.qkv, self.out = layers.Dense(3 * WIDTH, name="qkv"), layers.Dense(WIDTH, name="out")
        self.up, self.down = layers.Dense(2 * WIDTH, "gelu", name="up"), layers.Dense(WIDTH, name="down")
        at = np.stack(np.meshgrid(*[np.arange(self.window)] * 2, indexing="ij"), -1).reshape(-1, 2)
        apart = at[:, None] - at[None] + self.window - 1
        self.apart = (apart[..., 0] * (2 * self.window - 1) + apart[..., 1]).astype("int32").ravel()
        region = np.zeros((self.side, self.side))
        if self.shift:  # what the shift brings together from opposite edges must not attend to each other
            cut = [slice(0, -self.window), slice(-self.window, -self.shift), slice(-self.shift, None)]
            for number, (i, j) in enumerate((i, j) for i in cut for j in cut):
                region[i, j] = number
        many = self.side // self.window
        region = region.reshape(many, self.window, many, self.window).transpose(0, 2, 1, 3).reshape(many * many, -1)
        self.mask = np.where(region[:, None, :] == region[:, :, None], 0.0, -1e9).astype("float32")[None, :, None]

    def build(self, given: Any) -> None:
        self.bias = self.add_weight(
            name="bias_table", shape=((2 * self.window - 1) ** 2, self.heads), initializer="random_normal"
        )
        self.built = True

    def attend(self, x: Any) -> Any:
        many, inside, deep = self.side // self.window, self.window**2, WIDTH // self.heads
        x = transpose(reshape(x, (-1, many, self.window, many, self.window, WIDTH)), (0, 1, 3, 2, 4, 5))
        x = reshape(self.qkv(x), (-1, many * many, inside, 3, self.heads, deep))
        x = transpose(x, (3, 0, 1, 4, 2, 5))
        query, key, value = x[0], x[1], x[2]
        bias = transpose(reshape(take(self.bias, self.apart, axis=0), (inside, inside, self.heads)), (2, 0, 1))
        scores = matmul(query * deep**-0.5, transpose(key, (0, 1, 2, 4, 3))) + bias
        if self.shift:
            scores = scores + self.mask
        x = transpose(matmul(softmax(scores, axis=-1), value), (0, 1, 3, 2, 4))
        x = transpose(reshape(x, (-1, many, many, self.window, self.window, WIDTH)), (0, 1, 3, 2, 4, 5))
        return self.out(reshape(x, (-1, self.side, self.side, WIDTH)))

    def call(self, x: Any) -> Any:
        y, shift = self.norms[0](x), self.shift
        y = roll(y, (-shift, -shift), (1, 2)) if shift else y
        y = self.attend(y)
        x = x + (roll(y, (shift, shift), (1, 2)) if shift else y)
        return x + self.down(self.up(self.norms[1](x)))


def recall(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Vectors [B, STEPS, 16]: a key and a class each, the first holds a key alone; the answer is that key's class."""
    keys = np.argsort(rng.random((ROWS, 8)), 1)
    values = rng.integers(0, 8, (ROWS, 8))
    x = rng.normal(0, 0.05, (ROWS, STEPS, 16))
    rows, wanted = np.arange(ROWS), rng.integers(0, 8, ROWS)
    for i in range(8):
        x[rows, 1 + i, keys[:, i]] += 1
        x[rows, 1 + i, 8 + values[:, i]] += 1
    x[rows, 0, keys[rows, wanted]] += 2
    return x.astype("float32"), values[rows, wanted]


def phrases(rng: np.random.Generator, padded: bool) -> tuple[np.ndarray, np.ndarray]:
    """Tokens [B, STEPS]: word 1 stands before the word whose number is the answer; 0 pads the end."""
    x = rng.integers(2, WORDS, (ROWS, STEPS))
    place, answer, rows = rng.integers(0, 5, ROWS), rng.integers(0, 8, ROWS), np.arange(ROWS)
    x[rows, place], x[rows, place + 1] = 1, 2 + answer
    if padded:
        x[np.arange(STEPS)[None] >= rng.integers(6, STEPS + 1, (ROWS, 1))] = 0
    return x.astype("int32"), answer


def echoes(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Tokens [B, STEPS] that repeat after a random number of steps; the answer is the next token."""
    period = rng.integers(3, 7, (ROWS, 1))
    first = rng.integers(1, WORDS, (ROWS, 7))
    x = np.take_along_axis(first, np.arange(STEPS + 1)[None] % period, 1)
    return x[:, :-1].astype("int32"), x[:, 1:]


def scenes(rng: np.random.Generator, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures [B, side, side, 3]: a bright spot shows where to look up the color that is the answer."""
    x = rng.normal(0, 0.1, (ROWS, 4, 4, 3))
    color = rng.integers(0, 3, (ROWS, 4, 4))
    x += np.eye(3)[color]
    rows, place = np.arange(ROWS), rng.integers(0, 4, (2, ROWS))
    x[rows, place[0], place[1]] *= 3
    return np.kron(x, np.ones((1, side // 4, side // 4, 1))).astype("float32"), color[rows, place[0], place[1]]


def encoder(rng: np.random.Generator, before: bool) -> Built:
    x, y = recall(rng)
    inputs = keras.Input(x.shape[1:], name="signal")
    z = ClassToken(name="token")(layers.Dense(WIDTH, name="embed")(inputs))
    for i in range(2):
        z = Block(before=before, name=f"block_{i}")(z)
    return keras.Model(inputs, layers.Dense(8, name="head")(layers.LayerNormalization(name="norm")(z)[:, 0])), x, y


def decoder(rng: np.random.Generator) -> Built:
    x, y = echoes(rng)
    inputs = keras.Input((STEPS,), dtype="int32", name="tokens")
    z = Positions(name="positions")(layers.Embedding(WORDS, WIDTH, name="embed")(inputs))
    for i in range(2):
        z = Block(causal=True, name=f"block_{i}")(z)
    return keras.Model(inputs, layers.Dense(WORDS, name="head")(layers.LayerNormalization(name="norm")(z))), x, y


def masked_text(rng: np.random.Generator) -> Built:
    x, y = phrases(rng, padded=True)
    inputs = keras.Input((STEPS,), dtype="int32", name="tokens")
    z = Positions(name="positions")(layers.Embedding(WORDS, WIDTH, mask_zero=True, name="embed")(inputs))
    for i in range(2):
        z = Block(name=f"block_{i}")(z)
    return keras.Model(inputs, layers.Dense(8, name="head")(layers.GlobalAveragePooling1D(name="pool")(z))), x, y


def of_blocks(rng: np.random.Generator, make: Callable[..., Any]) -> Built:
    x, y = recall(rng)
    inputs = keras.Input(x.shape[1:], name="signal")
    z = layers.Dense(WIDTH, name="embed")(inputs)
    for i in range(2):
        z = make(name=f"block_{i}")(z)
    return keras.Model(inputs, layers.Dense(8, name="head")(z[:, 0])), x, y


def windows(rng: np.random.Generator) -> Built:
    x, y = scenes(rng, 16)
    inputs = keras.Input(x.shape[1:], name="picture")
    z = layers.Conv2D(WIDTH, 2, strides=2, name="patches")(inputs)
    for i, shift in enumerate((0, 2)):
        z = WindowBlock(shift=shift, name=f"block_{i}")(z)
    z = layers.GlobalAveragePooling2D(name="pool")(layers.LayerNormalization(name="norm")(z))
    return keras.Model(inputs, layers.Dense(3, name="head")(z)), x, y


def hub_vit(rng: np.random.Generator) -> Built:
    from keras_hub import models

    x, y = scenes(rng, 16)
    backbone = models.ViTBackbone((16, 16, 3), 4, num_layers=2, num_heads=2, hidden_dim=WIDTH, mlp_dim=2 * WIDTH)
    return keras.Model(backbone.input, layers.Dense(3, name="head")(backbone.output[:, 0])), x, y


def hub_bert(rng: np.random.Generator) -> Built:
    from keras_hub import models

    tokens, y = phrases(rng, padded=True)
    x = {"token_ids": tokens, "segment_ids": np.zeros_like(tokens), "padding_mask": (tokens > 0).astype("int32")}
    inputs = {name: keras.Input((STEPS,), dtype="int32", name=name) for name in x}
    backbone = models.BertBackbone(WORDS, 2, 2, WIDTH, 2 * WIDTH, dropout=0.0, max_sequence_length=STEPS)
    z = backbone(inputs)["sequence_output"]
    return keras.Model(inputs, layers.Dense(8, name="head")(z[:, 0])), x, y


def hub_efficient_net(rng: np.random.Generator) -> Built:
    from keras_hub import models

    x, y = scenes(rng, 32)
    backbone = models.EfficientNetBackbone(
        stackwise_width_coefficients=[1.0] * 2, stackwise_depth_coefficients=[1.0] * 2,
        stackwise_kernel_sizes=[3, 3], stackwise_num_repeats=[2, 2], stackwise_input_filters=[16, 16],
        stackwise_output_filters=[16, 32], stackwise_expansion_ratios=[2, 2],
        stackwise_squeeze_and_excite_ratios=[0.0, 0.25], stackwise_strides=[1, 2],
        stackwise_block_types=["fused", "unfused"], num_features=64, dropout=0.0, input_shape=(32, 32, 3),
    )  # fmt: skip
    z = layers.GlobalAveragePooling2D(name="pool")(backbone.output)
    return keras.Model(backbone.input, layers.Dense(3, name="head")(z)), x, y


def hub_llama(rng: np.random.Generator) -> Built:
    from keras_hub import models

    tokens, y = echoes(rng)
    x = {"token_ids": tokens, "padding_mask": np.ones_like(tokens)}
    inputs = {name: keras.Input((STEPS,), dtype="int32", name=name) for name in x}
    backbone = models.LlamaBackbone(WORDS, 2, 4, WIDTH, 2 * WIDTH, 2)
    return keras.Model(inputs, layers.Dense(WORDS, name="head")(backbone(inputs))), x, y


OWN: dict[str, Callable[[np.random.Generator], Built]] = {
    "pre-norm encoder": lambda rng: encoder(rng, True),
    "post-norm encoder": lambda rng: encoder(rng, False),
    "causal decoder": decoder,
    "masked text": masked_text,
    "RMS-norm block": lambda rng: of_blocks(rng, RMSBlock),
    "MoE block": lambda rng: of_blocks(rng, ExpertBlock),
    "window attention": windows,
}
HUB: dict[str, Callable[[np.random.Generator], Built]] = {
    "hub ViT": hub_vit,
    "hub BERT": hub_bert,
    "hub EfficientNet": hub_efficient_net,
    "hub Llama": hub_llama,
}


def build(name: str) -> Built | None:
    """A model with random weights and its data; None where this flavor has no such model."""
    if name in HUB and ops is None:
        return None
    keras.utils.set_random_seed(7)
    model, x, y = {**OWN, **HUB}[name](np.random.default_rng(7))
    model(tf.nest.map_structure(lambda a: a[:2], x))
    return model, x, y
