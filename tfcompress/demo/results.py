"""What was measured of each file: as rows, as a table for people, as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table


@dataclass(frozen=True)
class Result:
    """One file.

    Attributes:
        name: how the model was made.
        file: the file's name.
        keras_accuracy: share of test images that the Keras model gets right, in [0, 1].
        file_accuracy: the same for the file, on the real runtime.
        agreement: share of test images on which model and file decide alike, in [0, 1].
        bytes: size of the file.
        milliseconds: median latency of one image.
    """

    name: str
    file: str
    keras_accuracy: float
    file_accuracy: float
    agreement: float
    bytes: int
    milliseconds: float


def table(results: Sequence[Result], images: int) -> Table:
    """The results for people, the first row being what the others are measured against.

    Args:
        results: at least one.
        images: how many test images the accuracies are over.
    """
    rows = Table(caption=f"over {images:,} test images; latency: median, one thread, this machine")
    rows.add_column("model", no_wrap=True)
    for heading in ("Keras", "file", "agree", "bytes", "latency"):
        rows.add_column(heading, justify="right", no_wrap=True)
    first = results[0]
    for result in results:
        rows.add_row(
            result.name,
            f"{result.keras_accuracy:.2%}",
            f"{result.file_accuracy:.2%}",
            f"{result.agreement:.2%}",
            f"{result.bytes:,} {result.bytes / first.bytes:.2f}x",
            f"{result.milliseconds:.3f} ms {result.milliseconds / first.milliseconds:.2f}x",
        )
    return rows


def as_json(results: Sequence[Result], **about: object) -> str:
    """The results for programs, with what else is worth knowing of the run.

    >>> row = Result("float32", "float32.tflite", 0.9, 0.9, 1.0, 1000, 0.5)
    >>> json.loads(as_json([row], data="digits"))["results"][0]["bytes"]
    1000
    """
    return json.dumps({**about, "results": [asdict(result) for result in results]}, indent=2) + "\n"


def write(path: Path, text: str) -> None:
    """Writes `path` whole or not at all."""
    beside = path.with_name(f".{path.name}.part")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
