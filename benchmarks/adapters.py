"""Five classes of Fashion-MNIST learned, the other five through adapters: beside training the whole model anew.

Each row starts from the same network, trained on the classes 0 to 4, and learns the classes 5 to 9: all of it, its head
alone, or adapters with the head and the normalizations (`train`). Printed are trained numbers, bytes of the optimizer's
state, bytes of the frozen base over float32, seconds an epoch, accuracy on the new classes, and for adapters the
largest difference of the merged model and whether a frozen number has changed. Bars: within 1 point of training all;
merged to 1e-5; the base bit-identical and, in four bits, at most 0.16 of float32. Rows are means over --seeds.
"""

import argparse
import time
from typing import Any

import fashion
import numpy as np
import tensorflow as tf
from flavors import add_flavor, current, each
from networks import residual
from rich.console import Console
from rich.table import Table

import tfcompress as tfc
import tflite_export

keras = tf.keras
# name -> rank and base of the adapters; None trains every weight, 0 the head alone
WAYS: dict[str, tuple[int | None, str | None]] = {
    "everything": (None, None),
    "head": (0, None),
    "rank 4": (4, None),
    "rank 4, int8": (4, "int8"),
    "rank 4, int4": (4, "int4"),
    "rank 4, nf4": (4, "nf4"),
    "rank 8, nf4": (8, "nf4"),
}
NEAR, MERGED, SHARE = 1.0, 1e-5, 0.16


def fit(model: Any, x: np.ndarray, y: np.ndarray, epochs: int, rate: float) -> float:
    """Trains with a cosine schedule; seconds of the last epoch."""
    schedule = keras.optimizers.schedules.CosineDecay(rate, epochs * -(-len(x) // 64))
    model.compile(keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy", jit_compile=False)
    begun: list[float] = []
    clock = keras.callbacks.LambdaCallback(on_epoch_begin=lambda *_: begun.append(time.perf_counter()))
    model.fit(x, y, batch_size=64, epochs=epochs, verbose=0, callbacks=[clock])
    return time.perf_counter() - begun[-1]


def accuracy(model: Any, x: np.ndarray, y: np.ndarray) -> float:
    return 100 * float(np.mean(model.predict(x, batch_size=256, verbose=0).argmax(-1) == y))


def size(variables: Any) -> int:
    return sum(np.asarray(variable).nbytes for variable in variables)


def started(model: Any, rank: int | None, base: str | None) -> Any:
    """What learns the new classes: a copy of the whole model, or of it with adapters."""
    if rank is None:
        return tfc.trace(model)
    head = model.layers[-1].name
    if not rank:
        copy = tfc.trace(model)
        for layer in copy.layers:
            layer.trainable = layer.name == head
        return copy
    return tfc.add_lora(model, rank, base=base, train=[head, keras.layers.BatchNormalization])


def share(adapted: Any) -> float:
    """Bytes of the frozen base, with scales, biases and normalizations, over those in float32."""
    summary = tfc.summary(adapted)
    return summary.bytes_after / summary.bytes_before


def run(way: str, model: Any, data: tuple, options: argparse.Namespace) -> dict[str, float]:
    rank, base = WAYS[way]
    x, y, x_test, y_test = data
    learner = started(model, rank, base)
    frozen = [np.array(weight) for weight in learner.non_trainable_weights] if rank else []
    plain = {id(v) for layer in learner.layers if "trained itself" in getattr(learner, "notes", {}).get(layer.name, "")
             for v in layer.weights}  # fmt: skip
    kept = [id(weight) not in plain for weight in learner.non_trainable_weights] if rank else []
    seconds = fit(learner, x, y, options.epochs, options.adapter_rate if rank else options.rate)
    found = {
        "trained": sum(int(np.prod(w.shape)) for w in learner.trainable_weights),
        "optimizer": size(w for w in optimizer_variables(learner) if len(w.shape)),
        "seconds": seconds,
        "share": share(learner),
        "accuracy": accuracy(learner, x_test, y_test),
    }
    if rank:
        merged = tfc.merge_lora(learner)
        images = x_test[:512]
        found["difference"] = float(np.abs(np.asarray(merged(images)) - np.asarray(learner(images))).max())
        found["same"] = all(
            np.array_equal(before, np.array(after))
            for before, after, keep in zip(frozen, learner.non_trainable_weights, kept, strict=True) if keep
        )  # fmt: skip
        exported = tflite_export.export(merged, "int8", calibration=x[:200])
        answers = np.asarray(tflite_export.Runner(exported)(x_test))
        found["int8"] = 100 * float(np.mean(answers.argmax(-1) == y_test))
    return found


def optimizer_variables(model: Any) -> list:
    variables = model.optimizer.variables
    return list(variables() if callable(variables) else variables)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_flavor(parser)
    fashion.add_data(parser)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--seeds", type=int, default=2, help="runs of each row (%(default)s)")
    parser.add_argument("--train", type=int, default=12_000, help="images, of both tasks (%(default)s)")
    parser.add_argument("--test", type=int, default=10_000, help="(%(default)s)")
    parser.add_argument("--epochs", type=int, default=4, help="of both tasks (%(default)s)")
    parser.add_argument("--rate", type=float, default=2e-3, help="where weights learn (%(default)s)")
    parser.add_argument("--adapter-rate", type=float, default=1e-2, help="where adapters learn (%(default)s)")
    options = parser.parse_args()
    each(options.flavor)
    x, y, x_test, y_test = fashion.load(options.data, train=options.train, test=options.test)
    new = x[y >= 5], y[y >= 5], x_test[y_test >= 5], y_test[y_test >= 5]
    rows: dict[str, list[dict[str, float]]] = {way: [] for way in options.ways}
    for seed in range(options.seeds):
        keras.utils.set_random_seed(seed)
        model = residual()
        fit(model, x[y < 5], y[y < 5], options.epochs, options.rate)
        for way in options.ways:
            keras.utils.set_random_seed(seed)
            rows[way].append(run(way, model, new, options))
    report(rows)


def report(rows: dict[str, list[dict[str, float]]]) -> None:
    mean = {way: {key: float(np.mean([r[key] for r in found])) for key in found[0]} for way, found in rows.items()}
    table = Table(title=f"{current()}: five new classes")
    for heading in ("way", "trained", "optimizer bytes", "base / float32", "s / epoch", "accuracy", "merged INT8",
                    "merged differs", "base unchanged"):  # fmt: skip
        table.add_column(heading, justify="left" if heading == "way" else "right")
    for way, row in mean.items():
        late = ["", "", ""]
        if "int8" in row:
            late = [f"{row['int8']:.2f}", f"{row['difference']:.1e}", "yes" if row["same"] == 1 else "NO"]
        table.add_row(way, f"{row['trained']:,.0f}", f"{row['optimizer']:,.0f}", f"{row['share']:.3f}",
                      f"{row['seconds']:.1f}", f"{row['accuracy']:.2f}", *late)  # fmt: skip
    Console(width=130).print(table)
    adapted = {way: row for way, row in mean.items() if "int8" in row}
    if not adapted or "everything" not in mean:
        return
    whole = mean["everything"]["accuracy"]
    for way, row in adapted.items():
        four = WAYS[way][1] in ("int4", "nf4")
        passed = (row["accuracy"] >= whole - NEAR and row["difference"] <= MERGED and row["same"] == 1
                  and (not four or row["share"] <= SHARE))  # fmt: skip
        print(f"{current()}: {way}: {row['accuracy'] - whole:+.2f} points (allowed -{NEAR:.2f}): "
              f"{'pass' if passed else 'FAIL'}")  # fmt: skip


if __name__ == "__main__":
    main()
