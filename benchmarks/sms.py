"""A masked text Transformer on SMS spam, messages padded to 128 words: float, INT8 with its masks, INT8 without.

The rows "mask ignored" have the same weights; the padding is attended to and averaged like words.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import messages
import networks
import numpy as np
from flavors import add_flavor, current, each
from ptq import converter
from rich.console import Console
from rich.table import Table

import tfcompress as tfc
import tflite_export

keras = networks.keras
layers = keras.layers
register = keras.utils.register_keras_serializable("benchmarks")


@register
class TokensAndPositions(layers.Layer):
    """[B, N] -> [B, N, D]: a row of a table for each word and one for its place."""

    def __init__(self, words: int, size: int, masked: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.words, self.size, self.masked = words, size, masked
        # Rows of unit size: what stands for padding is no smaller than a word, so it matters whether it is masked.
        start = keras.initializers.RandomNormal(stddev=1.0)
        self.tokens = layers.Embedding(words, size, embeddings_initializer=start, mask_zero=masked)

    def build(self, input_shape: Any) -> None:
        self.tokens.build(input_shape)
        self.position = self.add_weight(
            name="position", shape=(1, input_shape[1], self.size), initializer="random_normal"
        )
        self.built = True

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return self.tokens.compute_mask(inputs)

    def call(self, inputs: Any) -> Any:
        return self.tokens(inputs) + self.position

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "words": self.words, "size": self.size, "masked": self.masked}


@register
class Encoder(layers.Layer):
    """x + attention(norm(x)), then x + feed_forward(norm(x)); the padding is not attended to."""

    def __init__(self, heads: int, size: int, hidden: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heads, self.size, self.hidden = heads, size, hidden
        self.supports_masking = True
        self.norms = [layers.LayerNormalization(), layers.LayerNormalization()]
        self.attention = layers.MultiHeadAttention(heads, size // heads, name="attention")
        self.expand = layers.Dense(hidden, activation="gelu")
        self.contract = layers.Dense(size)
        self.dropout = layers.Dropout(0.2)

    def call(self, x: Any, mask: Any = None, training: Any = None) -> Any:
        y = self.norms[0](x)
        attended = self.attention(y, y, attention_mask=None if mask is None else mask[:, None, :])
        x = x + self.dropout(attended, training=training)
        y = self.contract(self.expand(self.norms[1](x)))
        return x + self.dropout(y, training=training)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "heads": self.heads, "size": self.size, "hidden": self.hidden}


def network(length: int, words: int, masked: bool = True) -> Any:
    """The classifier; without its mask it has the same weights."""
    inputs = keras.Input((length,), dtype="int32", name="tokens")
    x = TokensAndPositions(words, 32, masked, name="embed")(inputs)
    for i in range(2):
        x = Encoder(2, 32, 64, name=f"encoder_{i}")(x)
    x = layers.GlobalAveragePooling1D(name="mean")(layers.LayerNormalization(name="norm")(x))
    return keras.Model(inputs, layers.Dense(2, activation="softmax", name="head")(layers.Dropout(0.2)(x)))


def exported(model: Any, samples: np.ndarray) -> bytes:
    return tflite_export.export(model, "int8", calibration=samples).content


def calibrated(model: Any, samples: np.ndarray) -> bytes:
    return exported(tfc.calibrate(tfc.quantize_model(model), samples), samples)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flavor(parser)
    messages.add_data(parser)
    parser.add_argument("--length", type=int, default=128, help="words of a padded message (%(default)s)")
    parser.add_argument("--epochs", type=int, default=5, help="of float training (%(default)s)")
    parser.add_argument("--samples", type=int, default=300, help="messages for calibration (%(default)s)")
    options = parser.parse_args()
    each(options.flavor)
    words = 4000
    x, y, x_test, y_test = messages.load(options.data, options.length, words)
    keras.utils.set_random_seed(0)
    model = networks.train(network(options.length, words + 2), x, y, epochs=options.epochs)
    quantized = networks.train(tfc.quantize_model(model), x, y, epochs=2, learning_rate=2e-4)
    blind = network(options.length, words + 2, masked=False)
    blind.set_weights(model.get_weights())
    samples = x[: options.samples]
    files: dict[str, Callable[[], bytes]] = {
        "QAT": lambda: exported(quantized, samples),
        "calibrate": lambda: calibrated(model, samples),
        "tflite_export alone": lambda: exported(model, samples),
        "converter": lambda: converter(model, samples),
        "mask ignored, tflite_export": lambda: exported(blind, samples),
        "mask ignored, converter": lambda: converter(blind, samples),
    }
    share = networks.accuracy(model.predict(x_test, verbose=0), y_test)
    padding, spam = float((x_test == 0).mean()), float(y_test.mean())
    table = Table(
        title=f"{len(x_test):,} test messages, {spam:.1%} spam, {padding:.0%} of the words padding, {current()}"
    )
    for heading in ("INT8 file", "accuracy", "to float", "spam found", "float ops", "bytes", "s"):
        table.add_column(heading, justify="left" if heading == "INT8 file" else "right", no_wrap=True)
    in_keras = model.predict(x_test, verbose=0).argmax(-1)
    table.add_row("float, Keras", f"{share:.2%}", "", f"{in_keras[y_test == 1].mean():.1%}", "", "", "", style="dim")
    points: dict[str, float] = {}
    for name, make in files.items():
        start = time.perf_counter()
        content = make()
        seconds = time.perf_counter() - start
        answers = np.asarray(tflite_export.Runner(content, process=True)(x_test))
        accuracy = networks.accuracy(answers, y_test)
        points[name] = 100 * (accuracy - share)
        found = float(answers.argmax(-1)[y_test == 1].mean())
        left = len(tflite_export.describe(content).float_operations())
        table.add_row(
            name, f"{accuracy:.2%}", f"{points[name]:+.2f}", f"{found:.1%}", str(left), f"{len(content):,}",
            f"{seconds:.1f}",
        )  # fmt: skip
    Console(width=120).print(table)
    print(
        f"bar 2, {current()}: QAT {points['QAT']:+.2f} points to float (allowed -0.50), post-training "
        f"{points['calibrate']:+.2f} (allowed -1.00), tflite_export alone {points['tflite_export alone']:+.2f}; "
        f"mask ignored {points['mask ignored, tflite_export']:+.2f}, "
        f"plain converter {points['converter']:+.2f} with the mask, {points['mask ignored, converter']:+.2f} without"
    )


if __name__ == "__main__":
    main()
