"""A character-level decoder with its cache: trained, quantized, one file of two signatures, text from it.

    python examples/decoder.py my_text.txt --prompt "Call me"

The model takes a few tokens with their positions and the states so far, and returns the logits of the next tokens and
the states with these tokens joined to them: past positions, and the keys and values of every block. With many tokens it
reads a prompt ("prefill"), with one it writes ("decode"): two signatures of one model, which share all weights.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

import tfcompress as tfc
import tflite_export

keras = tf.keras
layers = keras.layers
ops = getattr(keras, "ops", tf)  # what is used of them has the same name in both flavors

Tensors = dict[str, Any]


@keras.utils.register_keras_serializable("decoder")
class Table(layers.Embedding):
    """Rows of a table, or (`reverse`) the product with the table: input and output of a language model share it."""

    def call(self, inputs: Any, reverse: bool = False) -> Any:
        return ops.matmul(inputs, ops.transpose(self.embeddings)) if reverse else super().call(inputs)

    def compute_output_spec(self, inputs: Any, reverse: bool = False) -> Any:
        shape = (*inputs.shape[:-1], self.input_dim) if reverse else (*inputs.shape, self.output_dim)
        return keras.KerasTensor(shape, dtype=self.compute_dtype)


class Decoder:
    """The layers of a decoder, and the two models made of them.

    Args:
        vocabulary: number of different tokens.
        length: positions that the model knows and tokens that the cache holds.
        width: of the residual stream.
        heads: of each attention.
        depth: number of blocks.
    """

    def __init__(self, vocabulary: int, length: int, width: int = 96, heads: int = 4, depth: int = 2) -> None:
        self.length, self.heads, self.depth, self.size = length, heads, depth, width // heads
        self.table = Table(vocabulary, width, name="table")
        self.places = layers.Embedding(length, width, name="places")
        self.blocks = [
            {
                "attend": layers.LayerNormalization(name=f"attend_norm_{i}"),
                **{name: layers.Dense(width, name=f"{name}_{i}") for name in ("query", "key", "value", "out")},
                "feed": layers.LayerNormalization(name=f"feed_norm_{i}"),
                "expand": layers.Dense(4 * width, activation="relu", name=f"expand_{i}"),
                "contract": layers.Dense(width, name=f"contract_{i}"),
            }
            for i in range(depth)
        ]
        self.norm = layers.LayerNormalization(name="norm")

    def whole(self) -> keras.Model:
        """tokens and positions [B, T] -> logits [B, T, vocabulary]: the model that is trained."""
        inputs, outputs = self._model(cached=False)
        return keras.Model(inputs, outputs["logits"], name="whole")

    def step(self) -> keras.Model:
        """The same with states: inputs "past", "keys_0", "values_0", ... and outputs of the same names."""
        return keras.Model(*self._model(cached=True), name="step")

    def _model(self, *, cached: bool) -> tuple[Tensors, Tensors]:
        inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in ("tokens", "positions")}
        outputs: Tensors = {}
        at = inputs["positions"]  # of a token that only fills up: -1
        seen = self._joined("past", at, (), "int32", inputs, outputs) if cached else at
        visible = ops.logical_and(
            ops.less_equal(ops.expand_dims(seen, 1), ops.expand_dims(at, 2)),
            ops.greater_equal(ops.expand_dims(seen, 1), 0),
        )
        x = self.table(inputs["tokens"]) + self.places(ops.maximum(at, 0))
        for number, block in enumerate(self.blocks):
            y = block["attend"](x)
            keys, values = (
                self._joined(f"{kind}s_{number}", self._split(block[kind](y)), (self.heads, self.size), "float32",
                             inputs, outputs) if cached else self._split(block[kind](y))
                for kind in ("key", "value")
            )  # fmt: skip
            query = self._split(block["query"](y) * self.size**-0.5)
            scores = ops.matmul(ops.transpose(query, (0, 2, 1, 3)), ops.transpose(keys, (0, 2, 3, 1)))
            shares = layers.Softmax()(ops.where(ops.expand_dims(visible, 1), scores, -1e9))
            y = ops.transpose(ops.matmul(shares, ops.transpose(values, (0, 2, 1, 3))), (0, 2, 1, 3))
            x = x + block["out"](layers.Reshape((-1, self.heads * self.size))(y))
            x = x + block["contract"](block["expand"](block["feed"](x)))
        return inputs, {**outputs, "logits": self.table(self.norm(x), reverse=True)}

    def _split(self, x: Any) -> Any:
        return layers.Reshape((-1, self.heads, self.size))(x)

    def _joined(self, name: str, new: Any, shape: tuple, dtype: str, inputs: Tensors, outputs: Tensors) -> Any:
        """The state with what is new behind it; of that the last `length` are the next state."""
        inputs[name] = keras.Input((self.length, *shape), dtype=dtype, name=name)
        both = layers.Concatenate(axis=1, dtype=dtype)([inputs[name], new])
        outputs[name] = both[:, -self.length :]
        return both


Step = Callable[[Tensors], Tensors]


def start(step: keras.Model, rows: int) -> Tensors:
    """The states before anything was read."""
    states = {}
    for tensor in step.inputs:
        name = tensor.name.split(":")[0]
        if name not in ("tokens", "positions"):
            shape = (rows, *tensor.shape[1:])
            states[name] = np.full(shape, -1, "int32") if name == "past" else np.zeros(shape, "float32")
    return states


def filled(prompts: Sequence[Sequence[int]], window: int) -> Tensors:
    """Prompts as rows of `window` tokens, filled up in front."""
    tokens, positions = np.zeros((len(prompts), window), "int32"), np.full((len(prompts), window), -1, "int32")
    for row, prompt in enumerate(prompts):
        tokens[row, window - len(prompt) :] = prompt
        positions[row, window - len(prompt) :] = np.arange(len(prompt))
    return {"tokens": tokens, "positions": positions}


def greedy(prefill: Step, decode: Step, states: Tensors, prompt: Tensors, count: int) -> Iterator[tuple[Tensors, Any]]:
    """Reads prompts and writes the likeliest tokens, one after the other.

    Args:
        prefill: of many tokens.
        decode: of one token.
        states: before anything was read.
        prompt: tokens and positions [B, window].
        count: number of tokens to write.

    Yields:
        (what the step was given, the tokens [B] that follow).
    """
    given, run = {**prompt, **states}, prefill
    for number in range(count):
        outputs = dict(run(given))
        tokens = np.argmax(outputs.pop("logits")[:, -1], -1).astype("int32")
        yield given, tokens
        position = prompt["positions"][:, -1:] + np.int32(1 + number)
        given, run = {"tokens": tokens[:, None], "positions": position, **outputs}, decode


def quantized_file(step: keras.Model, prompts: Tensors, tokens: int) -> tuple[keras.Model, tflite_export.Exported]:
    """The step model in integers, its ranges from what it reads and writes itself, and its file of two signatures.

    Args:
        step: trained.
        prompts: tokens and positions [N, window] of representative texts; "prefill" reads `window` tokens at once.
        tokens: to write behind each prompt.
    """
    run = step.predict_on_batch
    seen = [given for given, _ in greedy(run, run, start(step, len(prompts["tokens"])), prompts, tokens)]
    written = {name: np.concatenate([given[name] for given in seen[1:]]) for name in seen[1]}
    quantized = tfc.calibrate(tfc.quantize_model(step), lambda: iter(seen))
    file = tflite_export.export(
        quantized,
        "int8",
        inputs="int8",
        outputs="int8",
        calibration={"prefill": seen[0], "decode": written},
        signatures={name: dict.fromkeys(("tokens", "positions"), (length,))
                    for name, length in (("prefill", prompts["tokens"].shape[1]), ("decode", 1))},
    )  # fmt: skip
    return quantized, file


def train(decoder: Decoder, windows: np.ndarray, batch: int = 32, rate: float = 3e-3) -> None:
    """Trains the decoder's layers to predict each token of windows [N, length + 1] from those before it."""
    model = decoder.whole()
    schedule = keras.optimizers.schedules.CosineDecay(rate, len(windows) // batch)
    model.compile(keras.optimizers.Adam(schedule), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    positions = np.tile(np.arange(decoder.length, dtype="int32"), (len(windows), 1))
    model.fit({"tokens": windows[:, :-1], "positions": positions}, windows[:, 1:], batch_size=batch, verbose=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path, help="a text to learn from, some 100 kB")
    parser.add_argument("--prompt", default="The ", help="what the written text begins with (default: %(default)r)")
    parser.add_argument("--steps", type=int, default=1500, help="of training (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("decoder.tflite"))
    options = parser.parse_args()
    text = options.text.read_text(encoding="utf-8", errors="replace") + options.prompt
    letters = sorted(set(text))
    ids = np.array([letters.index(letter) for letter in text], "int32")
    decoder = Decoder(len(letters), length=96)
    begins = np.random.default_rng(0).integers(0, len(ids) - decoder.length - 1, 32 * options.steps)
    train(decoder, ids[begins[:, None] + np.arange(decoder.length + 1)])

    window, step = 32, decoder.step()
    begins = np.random.default_rng(1).integers(0, len(ids) - window, 32)
    quantized, file = quantized_file(step, filled([ids[i : i + window] for i in begins], window), tokens=48)
    file.save(options.out)
    print(tflite_export.describe(file))

    prompt = filled([[letters.index(letter) for letter in options.prompt[-window:]]], window)
    runners = [tflite_export.Runner(file, signature=name) for name in ("prefill", "decode")]
    for name, runs in (("Keras", [quantized.predict_on_batch] * 2), ("file", runners)):
        written = [letters[tokens[0]] for _, tokens in greedy(*runs, start(step, 1), prompt, count=64)]
        print(f"{name}: {options.prompt}{''.join(written)}")


if __name__ == "__main__":
    main()
