"""The demo from the first image to the table."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import tfcompress as tfc
import tflite_export
from tfcompress.core.flavor import NAME, keras
from tfcompress.demo import data as images
from tfcompress.demo import network
from tfcompress.demo.plot import plot
from tfcompress.demo.results import Result, as_json, table, write

_STEPS = 1_200  # of float training: what two cores do in about a minute
_SEEN = 20_000  # images of one epoch at most
_CALIBRATION = 500
_TIMED = 200  # inferences of each file


@dataclass(frozen=True)
class _Variant:
    name: str
    file: str
    model: Any
    exported: tflite_export.Exported


def run(*, data: Path | None, out: Path, epochs: int | None = None, console: Console | None = None) -> list[Result]:
    """Trains, compresses, exports, measures; prints a table and writes everything to a folder.

    Args:
        data: an `.npz` file of images and labels, see `tfcompress.demo.data.load`; None takes scikit-learn's digits.
        out: folder for `float32.tflite`, `float16.tflite`, `ptq.tflite`, `qat.tflite`, `results.json` and
            `accuracy_over_size.png`; made when it is not there.
        epochs: of float training; None takes what a minute allows. Training with quantization takes a quarter of it.
        console: where to print; None prints nothing.

    Returns:
        One result for each of the four files, float32 first.

    Raises:
        ValueError: the data cannot be trained on.
        OSError: the folder cannot be written to, or the data not read.
    """
    start = time.perf_counter()
    console = console or Console(quiet=True)
    _check_writable(out)
    source = images.load(data)
    keras.utils.set_random_seed(0)
    x, y = _sample(source.x_train, source.y_train)
    epochs = epochs or max(1, min(15, round(_STEPS / network.batches(len(x)))))
    console.print(
        f"{source.name}: {source.classes} classes, images of {' x '.join(map(str, x.shape[1:]))}, {NAME}\n"
        f"training on {_of(len(x), len(source.x_train))} for {epochs} epochs, testing on {len(source.x_test):,} images",
        highlight=False,
    )
    with _progress(console) as stage:
        variants = _variants(x, y, source.classes, epochs, stage)
        results = _measure(variants, source, out, stage)
    plot(results, out / "accuracy_over_size.png", f"{source.name}: four files of one network")
    seconds = time.perf_counter() - start
    about = {
        "data": source.name,
        "images": len(source.x_test),
        "epochs": epochs,
        "keras": NAME,
        "seconds": round(seconds, 1),
    }
    write(out / "results.json", as_json(results, **about))
    console.print(table(results, len(source.x_test)))
    console.print(f"{seconds:.0f} s; files, plot and results.json are in {out}", highlight=False, soft_wrap=True)
    return results


def _variants(
    x: np.ndarray, y: np.ndarray, classes: int, epochs: int, stage: Callable[[str, int], Callable[[], None]]
) -> list[_Variant]:
    model = network.build(x.shape[1:], classes)
    advance = stage("train in float", epochs * network.batches(len(x)))
    network.train(model, x, y, epochs=epochs, learning_rate=2e-3, advance=advance)

    advance = stage("quantize without training", 1)
    calibrated = tfc.calibrate(tfc.quantize_model(model), x[:_CALIBRATION])
    advance()

    again = max(1, epochs // 4)
    advance = stage("train with quantization", again * network.batches(len(x)))
    trained = tfc.quantize_model(model)
    network.train(trained, x, y, epochs=again, learning_rate=2e-4, advance=advance)

    advance = stage("convert", 4)
    variants = []
    for name, file, source, precision in (
        ("float32", "float32.tflite", model, "float32"),
        ("float16", "float16.tflite", model, "float16"),
        ("INT8 calibrated", "ptq.tflite", calibrated, "int8"),
        ("INT8 trained", "qat.tflite", trained, "int8"),
    ):
        variants.append(_Variant(name, file, source, tflite_export.export(source, precision)))
        advance()
    return variants


def _measure(
    variants: list[_Variant], source: images.Data, out: Path, stage: Callable[[str, int], Callable[[], None]]
) -> list[Result]:
    advance = stage("run on the test images", len(variants))
    decisions = []
    for variant in variants:
        variant.exported.save(out / variant.file)
        in_keras = variant.model.predict(source.x_test, batch_size=250, verbose=0).argmax(-1)
        decisions.append(
            (in_keras, np.asarray(tflite_export.Runner(variant.exported, process=True)(source.x_test)).argmax(-1))
        )
        advance()
    advance = stage("time", 1)
    times = _medians(variants)
    advance()
    return [
        Result(
            name=variant.name,
            file=variant.file,
            keras_accuracy=float(np.mean(in_keras == source.y_test)),
            file_accuracy=float(np.mean(in_file == source.y_test)),
            agreement=float(np.mean(in_keras == in_file)),
            bytes=len(variant.exported.content),
            milliseconds=milliseconds,
        )
        for variant, (in_keras, in_file), milliseconds in zip(variants, decisions, times, strict=True)
    ]


def _medians(variants: list[_Variant]) -> list[float]:
    """Milliseconds of one image on one thread of the optimized kernels, files by turns.

    Raises:
        ExportError: a file does not run here, or computes something else than the reference kernels.
    """
    times = []
    for measured in tflite_export.benchmark({variant.name: variant.exported for variant in variants}, runs=_TIMED):
        if measured.median is None or measured.status != "ok":
            raise tflite_export.ExportError(f"{measured.name} could not be timed: {measured.reason}")
        times.append(measured.median)
    return times


def _sample(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    chosen = np.random.default_rng(0).permutation(len(x))[:_SEEN]
    return x[chosen], y[chosen]


def _of(used: int, images: int) -> str:
    return f"{used:,} images" if used == images else f"{used:,} of {images:,} images"


def _check_writable(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise OSError(f"`--out` must be a folder that can be written to. Received: {out} ({error.strerror})") from error


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[str, int], Callable[[], None]]]:
    """Gives `stage(description, steps) -> advance`; one line for each stage."""
    columns = (TextColumn("{task.description:<26}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:

        def stage(description: str, steps: int) -> Callable[[], None]:
            task = progress.add_task(description, total=steps)
            return lambda: progress.advance(task)

        yield stage
