"""What a teacher is worth to a small student: alone, with its answers, features and attention, with peers, with heads.

The teacher sees all training data; students see the few that --train names. Beside it quantization-aware training with
and without a teacher, exported. Every row is the mean over --seeds runs; the spread is the standard deviation.
"""

import argparse
import tempfile
from collections.abc import Callable
from typing import Any

import fashion
import numpy as np
import speech
import tensorflow as tf
from flavors import add_flavor, current, each
from rich.console import Console
from rich.table import Table

import tfcompress as tfc
import tflite_export

keras = tf.keras
layers = keras.layers
distill = tfc.distill
TEMPERATURE = 4.0
# Channels of the teacher, of the students of few examples, and of the one that keeps the teacher's accuracy.
LARGE, SMALL, MIDDLE = (32, 64, 64), (16, 32, 32), (20, 38, 38)


def network(shape: tuple, widths: tuple[int, ...], seed: int) -> Any:
    """Convolutions of 3 x 3 by strides of two, normalized; logits."""
    keras.utils.set_random_seed(seed)
    x = inputs = keras.Input(shape)
    for number, width in enumerate(widths):
        x = layers.Conv2D(width, 3, 2, padding="same", use_bias=False)(x)
        x = layers.ReLU(name=f"block_{number}")(layers.BatchNormalization(momentum=0.9)(x))
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def fit(model: Any, x: np.ndarray, y: np.ndarray, epochs: int, rate: float = 3e-3) -> Any:
    """A cosine schedule over all steps."""
    batch = 32 if len(x) < 2_000 else 64
    schedule = keras.optimizers.schedules.CosineDecay(rate, epochs * -(-len(x) // batch))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(schedule), loss, jit_compile=False)
    model.fit(x, y, batch_size=batch, epochs=epochs, verbose=0)
    return model


def accuracy(answer: Callable[[np.ndarray], Any], x: np.ndarray, y: np.ndarray) -> float:
    return 100 * float(np.mean(np.argmax(answer(x), -1) == y))


def predicted(model: Any) -> Callable[[np.ndarray], Any]:
    return lambda x: model.predict(x, batch_size=256, verbose=0)


class Ways:
    """Each way to train a student, from a seed to a trained model."""

    def __init__(self, teacher: Any, stored: Any, x: np.ndarray, y: np.ndarray, widths: tuple, epochs: int) -> None:
        self.teacher, self.stored, self.x, self.y, self.widths, self.epochs = teacher, stored, x, y, widths, epochs

    def new(self, seed: int) -> Any:
        return network(self.x.shape[1:], self.widths, seed)

    def fit(self, model: Any) -> Any:
        return fit(model, self.x, self.y, self.epochs)

    def taught(self, seed: int, losses: Any, weights: Any = None, teacher: Any = None) -> Any:
        student = self.new(seed)
        self.fit(distill.Distiller(teacher or self.teacher, student, losses, weights, 0.1))
        return student

    def logits(self, seed: int) -> Any:
        return self.taught(seed, distill.Logits(TEMPERATURE), teacher=self.stored)

    def decoupled(self, seed: int) -> Any:
        return self.taught(seed, distill.DecoupledLogits(TEMPERATURE, 1.0, 2.0), teacher=self.stored)

    def features(self, seed: int) -> Any:
        losses = [distill.Logits(TEMPERATURE), distill.Features("block_2", "block_2")]
        return self.taught(seed, losses, [1.0, 0.5])

    def attention(self, seed: int) -> Any:
        pairs = [distill.AttentionTransfer(f"block_{n}", f"block_{n}") for n in (1, 2)]
        return self.taught(seed, [distill.Logits(TEMPERATURE), *pairs], [1.0, 5.0, 5.0])

    def online(self, seed: int) -> Any:
        peers = [self.new(seed), self.new(seed + 100)]
        self.fit(distill.MutualLearning(peers))
        return peers[0]

    def itself(self, seed: int) -> Any:
        student = self.new(seed)
        self.fit(distill.SelfDistiller(student, ["block_0", "block_1"]))
        return student

    def alone(self, seed: int) -> Any:
        return self.fit(self.new(seed))


WAYS = {
    "alone": Ways.alone, "logits": Ways.logits, "decoupled": Ways.decoupled, "logits + features": Ways.features,
    "logits + attention": Ways.attention, "online, two peers": Ways.online, "itself": Ways.itself,
}  # fmt: skip


def taught(name: str, data: tuple, options: argparse.Namespace, console: Console) -> tuple[Any, Ways]:
    """Prints the table and the bar of one data set."""
    x, y, x_test, y_test = data
    teacher = fit(network(x.shape[1:], LARGE, 0), x, y, options.teacher_epochs)
    few = x[: options.train]
    with tempfile.TemporaryDirectory() as folder:
        stored = distill.cache_teacher(teacher, few, f"{folder}/few", batch_size=256, verbose=0)
        ways = Ways(teacher, stored, few, y[: options.train], SMALL, options.epochs)
        best = accuracy(predicted(teacher), x_test, y_test)
        table = Table(title=f"{name}, {current()}: {len(x)} for the teacher, {len(few)} for students")
        for heading in ("way", "accuracy %", "spread", "over alone", "of the teacher's %"):
            table.add_column(heading, justify="right")
        table.add_row("teacher", f"{best:.2f}", "", "", "100.0")
        scores = {}
        for way in options.ways:
            runs = [accuracy(predicted(WAYS[way](ways, seed)), x_test, y_test) for seed in range(options.seeds)]
            scores[way] = float(np.mean(runs))
            gain = f"{scores[way] - scores['alone']:+.2f}" if "alone" in scores else ""
            table.add_row(way, f"{scores[way]:.2f}", f"{np.std(runs):.2f}", gain, f"{100 * scores[way] / best:.1f}")
        console.print(table)
        told = {way: score for way, score in scores.items() if way not in ("alone", "online, two peers", "itself")}
        if "alone" in scores and told:
            way = max(told, key=told.__getitem__)
            print(
                f"{name}: best with a teacher ({way}) {told[way] - scores['alone']:+.2f} points over alone (bar +1.00)"
            )
        everything = distill.cache_teacher(teacher, x, f"{folder}/all", batch_size=256, verbose=0)
        full = Ways(teacher, everything, x, y, MIDDLE, 3 * options.teacher_epochs)
        kept = [accuracy(predicted(full.logits(seed)), x_test, y_test) for seed in range(options.seeds)]
        sizes = [len(tflite_export.export(model).content) for model in (teacher, full.new(0))]
        print(
            f"{name}: on all data, {sizes[1] / sizes[0]:.2f} of the teacher's bytes (bar 0.40), "
            f"{100 * np.mean(kept) / best:.1f} % of its accuracy (bar 97.0), {np.mean(kept):.2f} +- {np.std(kept):.2f}"
        )
    return teacher, ways


def quantized(name: str, teacher: Any, ways: Ways, data: tuple, options: argparse.Namespace, console: Console) -> None:
    """Quantization-aware training of one float student, alone and with the teacher; the files are what is measured."""
    *_, x_test, y_test = data
    table = Table(title=f"{name}, {current()}: quantization-aware training, INT8 files")
    for heading in ("seed", "float", "alone", "with a teacher", "file = Keras"):
        table.add_column(heading, justify="right")
    differences = []
    for seed in range(options.seeds):
        plain = ways.alone(seed)
        scores, agree = [], []
        for taught_by in (None, teacher):
            keras.utils.set_random_seed(seed)
            student = tfc.quantize_model(plain)
            model = student
            if taught_by is not None:
                model = distill.Distiller(teacher, student, distill.Logits(TEMPERATURE), student_loss_weight=0.1)
            fit(model, ways.x, ways.y, options.qat_epochs, 1e-3)
            runner = tflite_export.Runner(tflite_export.export(student, "int8"))
            found, expected = np.asarray(runner(x_test)), student.predict(x_test, batch_size=256, verbose=0)
            scores.append(accuracy(lambda _, found=found: found, x_test, y_test))
            agree.append(100 * float(np.mean(found.argmax(-1) == expected.argmax(-1))))
        differences.append(scores[1] - scores[0])
        float_score = accuracy(predicted(plain), x_test, y_test)
        table.add_row(str(seed), *(f"{score:.2f}" for score in (float_score, *scores)), f"{min(agree):.2f} %")
    console.print(table)
    print(
        f"{name}: distillation and quantization in one fit over quantization alone "
        f"{np.mean(differences):+.2f} +- {np.std(differences):.2f} points (bar: 0 or more)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_flavor(parser)
    fashion.add_data(parser)
    speech.add_speech(parser)
    parser.add_argument("--only", choices=("fashion", "speech"), help="one data set")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS), help="ways to train a student")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each row (%(default)s)")
    parser.add_argument("--images", type=int, default=12_000, help="Fashion-MNIST for the teacher (%(default)s)")
    parser.add_argument("--train", type=int, default=600, help="examples for students (%(default)s)")
    parser.add_argument("--epochs", type=int, default=60, help="of students on few data (%(default)s)")
    parser.add_argument("--teacher-epochs", type=int, default=8, help="on all data (%(default)s)")
    parser.add_argument("--qat-epochs", type=int, default=5, help="(%(default)s)")
    options = parser.parse_args()
    each(options.flavor)
    console = Console(width=110)
    sets = {
        "speech": lambda: speech.load(options.speech),
        "fashion": lambda: fashion.load(options.data, train=options.images, test=4_000),
    }
    for name, load in sets.items():
        if options.only in (None, name):
            data = load()
            teacher, ways = taught(name, data, options, console)
            quantized(name, teacher, ways, data, options, console)


if __name__ == "__main__":
    main()
