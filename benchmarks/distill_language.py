"""A small language model learns from a large one: plain distillation, GKD and MiniLLM, on characters of SMS messages.

Each student begins as the same one, trained on text for a while (as in both papers), and trains on for as many steps:
on text alone, on text with the teacher's answers, on texts that the teacher wrote, with generalized Jensen-Shannon
divergence on text and on what it writes itself (GKD), and by MiniLLM's gradient on what it writes. Perplexity is that
of messages that nobody trained on. Sampled quality: how likely the teacher finds what a student writes behind the first
characters of such messages (the teacher's perplexity of it; its own writing stands in the first row), and how many of
the words are words of the training text.
"""

import argparse
import time
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from characters import DATA, messages
from flavors import add_flavor, current, each
from rich.console import Console
from rich.table import Table

import tfcompress as tfc

keras = tf.keras
layers = keras.layers
distill = tfc.distill
LENGTH, GIVEN, BATCH = 64, 16, 32
Batches = Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]


@keras.utils.register_keras_serializable("language")
class Positions(layers.Layer):
    """x + a learned table of positions."""

    def build(self, given: Any) -> None:
        self.table = self.add_weight(name="table", shape=(LENGTH, given[-1]), initializer="random_normal")
        self.built = True

    def call(self, x: Any) -> Any:
        return x + self.table[: tf.shape(x)[1]]


def language(count: int, width: int, blocks: int, seed: int) -> Any:
    """A causal Transformer: characters [N, T] to logits [N, T, count]."""
    keras.utils.set_random_seed(seed)
    tokens = keras.Input((None,), dtype="int32")
    x = Positions()(layers.Embedding(count, width)(tokens))
    for _ in range(blocks):
        h = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(4, width // 4)(h, h, use_causal_mask=True)
        h = layers.Dense(3 * width, activation="gelu")(layers.LayerNormalization()(x))
        x = x + layers.Dense(width)(h)
    return keras.Model(tokens, layers.Dense(count)(layers.LayerNormalization()(x)))


def text_batches(rows: np.ndarray, seed: int) -> Batches:
    rng = np.random.default_rng(seed)
    while True:
        part = rows[rng.integers(0, len(rows), BATCH)]
        yield part[:, :-1], part[:, 1:], np.ones((BATCH, LENGTH - 1), np.float32)


def fit(model: Any, batches: Batches, steps: int, rate: float) -> None:
    """A cosine schedule over all steps."""
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps, alpha=0.05)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(schedule), loss, jit_compile=False)
    signature = tuple(tf.TensorSpec((BATCH, LENGTH - 1), kind) for kind in (tf.int32, tf.int32, tf.float32))
    data = tf.data.Dataset.from_generator(lambda: islice(iter(batches), steps), output_signature=signature)
    model.fit(data, steps_per_epoch=steps, verbose=0)


def likelihood(model: Any, rows: np.ndarray, start: int) -> float:
    """exp of the mean negative log likelihood of the characters from place `start` on."""
    losses = []
    for at in range(0, len(rows), BATCH):
        part = rows[at : at + BATCH]
        logits = np.asarray(model(part[:, :-1], training=False), "float64")[:, start - 1 :]
        logits -= logits.max(-1, keepdims=True)
        truth = part[:, start:, None]
        losses.append((np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, truth, -1)[..., 0]).ravel())
    return float(np.exp(np.mean(np.concatenate(losses))))


def words(rows: np.ndarray, letters: list[str], known: set[str]) -> float:
    """Share of whole words behind the prompts that are words of the training text."""
    found = ["".join(letters[i] for i in row[GIVEN:]).split(" ")[1:-1] for row in rows]
    flat = [word.strip(".,!?\n") for line in found for word in line if word.strip(".,!?\n")]
    return float(np.mean([word in known for word in flat])) if flat else 0.0


def ways(teacher: Any, rows: np.ndarray, steps: int, rate: float) -> dict[str, Callable[[Any], None]]:
    """What trains a student, by name."""

    def distilled(student: Any, loss: Any, batches: Batches, weight: float = 0.0) -> None:
        fit(distill.Distiller(teacher, student, loss, student_loss_weight=weight), batches, steps, rate)

    def own(student: Any, share: float, mix: float = 0.0) -> Any:
        return distill.OnPolicy(student, rows, GIVEN, share=share, batch_size=BATCH, teacher=teacher, mix=mix, seed=3)

    def of_teacher(student: Any) -> None:
        written = distill.teacher_texts(teacher, rows[: 8 * BATCH, :GIVEN], LENGTH, batch_size=8 * BATCH)
        fit(student, text_batches(written, 3), steps, rate)

    def minillm(student: Any) -> None:
        batches = own(student, 1.0, 0.2)
        distilled(student, batches.policy_gradient(), batches)

    return {
        "text alone": lambda student: fit(student, text_batches(rows, 3), steps, rate),
        "plain distillation": lambda s: distilled(s, distill.Logits(temperature=1.0), text_batches(rows, 3), 0.3),
        "teacher's texts": of_teacher,
        "GKD": lambda s: distilled(s, distill.JensenShannon(0.5), own(s, 0.5)),
        "MiniLLM": minillm,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flavor(parser)
    parser.add_argument("--data", type=Path, default=DATA, help="SMSSpamCollection (default: %(default)s)")
    parser.add_argument("--teacher", type=int, default=2000, help="steps of the teacher (%(default)s)")
    parser.add_argument("--start", type=int, default=600, help="steps of the student that all begin as (%(default)s)")
    parser.add_argument("--steps", type=int, default=200, help="of each way (%(default)s)")
    parser.add_argument("--rate", type=float, default=5e-4, help="of each way (%(default)s)")
    options = parser.parse_args()
    each(options.flavor)
    train, test, letters = messages(options.data)
    count = len(letters)
    flat, held = np.concatenate(train), np.concatenate(test)
    rows = flat[: len(flat) // LENGTH * LENGTH].reshape(-1, LENGTH)
    judged = held[: len(held) // LENGTH * LENGTH].reshape(-1, LENGTH)[:256]
    known = {word.strip(".,!?\n") for word in "".join(letters[i] for i in flat).replace("\n", " ").split(" ")}
    teacher = language(count, 96, 3, 0)
    fit(teacher, text_batches(rows, 1), options.teacher, 2e-3)
    begun = language(count, 32, 1, 1)
    fit(begun, text_batches(rows, 2), options.start, 2e-3)

    title = f"character-level language models, {current()}"
    table = Table("", "parameters", "perplexity", "the teacher's of its texts", "words known", "s", title=title)

    def show(name: str, model: Any, seconds: float) -> float:
        written = distill.sample(model, judged[:128, :GIVEN], LENGTH, seed=7)
        own = likelihood(model, judged, 1)
        table.add_row(
            name, f"{model.count_params():,}", f"{own:.3f}", f"{likelihood(teacher, written, GIVEN):.2f}",
            f"{100 * words(written, letters, known):.1f} %", f"{seconds:.0f}",
        )  # fmt: skip
        return own

    show("teacher", teacher, 0)
    show("student, as all begin", begun, 0)
    for name, way in ways(teacher, rows, options.steps, options.rate).items():
        student = language(count, 32, 1, 1)
        student.set_weights(begun.get_weights())
        start = time.perf_counter()
        way(student)
        show(name, student, time.perf_counter() - start)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
