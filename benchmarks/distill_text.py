"""A text Transformer of four layers on SMS spam, distilled into two layers and into convolutions.

"DistilBERT": every other layer with its weights (`student_from`), then answers and hidden states' cosine beside labels.
"TinyBERT": a new, narrower student; attention matrices and hidden states of every other layer first, then answers.
"convolutions": embedding and two convolutions, taught by the Transformer's answers.
"""

import argparse
from typing import Any

import messages
import numpy as np
import tensorflow as tf
from flavors import add_flavor, current, each
from rich.console import Console
from rich.table import Table

import tfcompress as tfc
import tflite_export

keras = tf.keras
layers = keras.layers
distill = tfc.distill
WORDS = 600


@keras.utils.register_keras_serializable("benchmarks")
class Places(layers.Layer):
    """[B, N, D] -> [B, N, D]: adds a row for each place."""

    def build(self, input_shape: Any) -> None:
        self.table = self.add_weight(name="table", shape=(1, *input_shape[1:]), initializer="random_normal")
        self.built = True

    def call(self, x: Any) -> Any:
        return x + self.table


def transformer(length: int, depth: int, width: int, hidden: int, seed: int = 0) -> Any:
    """Encoder layers that normalize behind their halves, as BERT's; logits of two classes."""
    keras.utils.set_random_seed(seed)
    tokens = keras.Input((length,), dtype="int32")
    x = layers.LayerNormalization()(Places(name="places")(layers.Embedding(WORDS, width, name="embedding")(tokens)))
    for number in range(depth):
        attention = layers.MultiHeadAttention(4, width // 4, name=f"attention_{number}")(x, x)
        x = layers.LayerNormalization(name=f"attended_{number}")(x + attention)
        inner = layers.Dense(width, name=f"down_{number}")(layers.Dense(hidden, "relu", name=f"up_{number}")(x))
        x = layers.LayerNormalization(name=f"layer_{number}")(x + inner)
    return keras.Model(tokens, layers.Dense(2)(layers.GlobalAveragePooling1D()(x)))


def convolutions(length: int, seed: int = 0) -> Any:
    keras.utils.set_random_seed(seed)
    tokens = keras.Input((length,), dtype="int32")
    x = layers.Embedding(WORDS, 32)(tokens)
    for width in (48, 64):
        x = layers.Conv1D(width, 5, padding="same", activation="relu")(x)
    return keras.Model(tokens, layers.Dense(2)(layers.GlobalMaxPooling1D()(x)))


def fit(model: Any, x: np.ndarray, y: np.ndarray, epochs: int, callbacks: list, rate: float = 1e-3) -> None:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    schedule = keras.optimizers.schedules.CosineDecay(rate, epochs * -(-len(x) // 64))
    model.compile(keras.optimizers.Adam(schedule), loss, jit_compile=False)
    model.fit(x, y, batch_size=64, epochs=epochs, verbose=0, callbacks=callbacks)


def distilbert(teacher: Any, seed: int) -> tuple[Any, Any, list]:
    keras.utils.set_random_seed(seed)
    student = distill.student_from(teacher, 2)
    last = [layer.name for layer in student.layers if layer.name.startswith("layer_")][-1]
    losses = [distill.Logits(2.0), distill.Cosine("layer_3", last)]
    return student, distill.Distiller(teacher, student, losses, [1.0, 0.5], 0.3), []


def tinybert(teacher: Any, seed: int, epochs: int) -> tuple[Any, Any, list]:
    student = transformer(teacher.input_shape[1], 2, 48, 192, seed)
    inner = [
        *distill.layer_map(distill.AttentionMatrices, teacher, student, "attention_*"),
        *distill.layer_map(distill.Features, teacher, student, "layer_*"),
        distill.Features("embedding", "embedding"),
    ]
    count = len(inner)
    stages = [
        distill.Stage(0, [1.0] * count + [0.0], 0.0),
        distill.Stage(epochs // 2, [0.1] * count + [1.0], 0.3),
    ]
    return student, distill.Distiller(teacher, student, [*inner, distill.Logits(1.0)]), [distill.Progressive(stages)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_flavor(parser)
    messages.add_data(parser)
    parser.add_argument("--length", type=int, default=48, help="words of a message (%(default)s)")
    parser.add_argument("--epochs", type=int, default=6, help="(%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each student (%(default)s)")
    options = parser.parse_args()
    each(options.flavor)
    x, y, x_test, y_test = messages.load(options.data, options.length, WORDS - 2)

    def accuracy(model: Any) -> float:
        return 100 * float(np.mean(np.argmax(model.predict(x_test, verbose=0), -1) == y_test))

    teacher = transformer(options.length, 4, 64, 256)
    fit(teacher, x, y, options.epochs, [])
    files, scores = {"teacher": tflite_export.export(teacher)}, {"teacher": [accuracy(teacher)]}
    for seed in range(options.seeds):
        alone = transformer(options.length, 2, 48, 192, seed)
        cnn = convolutions(options.length, seed)
        rows = {
            "two layers alone": (alone, alone, []),
            "DistilBERT": distilbert(teacher, seed),
            "TinyBERT": tinybert(teacher, seed, options.epochs),
            "convolutions": (cnn, distill.Distiller(teacher, cnn, distill.Logits(2.0), None, 0.3), []),
        }
        for name, (student, trained, callbacks) in rows.items():
            fit(trained, x, y, options.epochs, callbacks)
            scores.setdefault(name, []).append(accuracy(student))
            files.setdefault(name, tflite_export.export(student))
    timed = dict(zip(files, tflite_export.benchmark(files, runs=100), strict=True))
    table = Table(title=f"SMS spam, {options.length} words, {current()}")
    for heading in ("model", "accuracy %", "spread", "of the teacher's %", "bytes", "time", "faster"):
        table.add_column(heading, justify="right")
    whole, best = len(files["teacher"].content), scores["teacher"][0]
    for name, found in scores.items():
        mean, size = float(np.mean(found)), len(files[name].content) / whole
        faster = 1 / timed[name].ratio if timed[name].ratio else 1.0
        row = f"{mean:.2f}", f"{np.std(found):.2f}", f"{100 * mean / best:.1f}", f"{size:.2f}"
        table.add_row(name, *row, f"{timed[name].median:.3f} ms", f"{faster:.2f}x")
        if name in ("DistilBERT", "TinyBERT", "convolutions"):
            print(
                f"{name}: {100 * (1 - size):.0f} % smaller (bar 40), {100 * mean / best:.1f} % of the teacher "
                f"(bar 97), {faster:.2f}x faster (bar 1.6)"
            )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
