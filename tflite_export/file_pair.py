"""Do two files compute the same: run on the same inputs, each in a process of its own."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tflite_export.agreement import Agreement, agreement
from tflite_export.bench.check import run_outputs
from tflite_export.bench.inputs import Feeds, feeds
from tflite_export.errors import ExportError
from tflite_export.flatbuffer import File, content_of, name_of, read
from tflite_export.port import Port, ports
from tflite_export.rendering import render, table

_TIMEOUT, _SECONDS = 600.0, 60.0


@dataclass(frozen=True)
class OutputPair:
    """One output of the first file and the one of the second that stands for it."""

    first: str
    second: str
    agreement: Agreement


@dataclass(frozen=True)
class FilePair:
    """How far two files agree; str() prints a table.

    Attributes:
        names: of the files.
        sizes: bytes.
        operations: number of each.
        kernels: that both ran on.
        rows: inferences that were compared.
        generated: the inputs were made up.
        outputs: one a pair of outputs; steps are those of the second file's grid.
    """

    names: tuple[str, str]
    sizes: tuple[int, int]
    operations: tuple[int, int]
    kernels: str
    rows: int
    generated: bool
    outputs: tuple[OutputPair, ...]

    def to_json(self) -> str:
        """Everything as JSON; what is infinite is null."""
        record = asdict(self)
        for row in record["outputs"]:
            row["agreement"] = {k: v if v is None or np.isfinite(v) else None for k, v in row["agreement"].items()}
        return json.dumps(record, ensure_ascii=False)

    def __str__(self) -> str:
        sides = [
            (name, f"{size:,}", f"{count:,}")
            for name, size, count in zip(self.names, self.sizes, self.operations, strict=True)
        ]
        rows = [
            (
                row.first if row.first == row.second else f"{row.first} / {row.second}",
                f"{100 * row.agreement.equal:.4g} %",
                "" if row.agreement.steps is None else row.agreement.steps,
                f"{row.agreement.largest:.4g}",
                f"{row.agreement.snr:.1f} dB",
                "" if row.agreement.argmax is None else f"{100 * row.agreement.argmax:.4g} %",
            )
            for row in self.outputs
        ]
        heads = ("output", "equal", "largest (steps)", "largest (real)", "signal to noise", "same argmax")
        what = "made up inputs" if self.generated else "inputs"
        title = f"{self.rows} inferences on {what}, {self.kernels} kernels"
        files = table("Files", ("file", "bytes", "operations"), sides, right=("bytes", "operations"))
        return render(files, "", table(title, heads, rows, right=heads[1:]))


def compare_files(first: File, second: File, samples: Any = None, *, kernels: str = "xnnpack") -> FilePair:
    """Runs two files on the same real inputs.

    Args:
        first: what is expected.
        second: what is compared with it. Inputs and outputs are paired by name, or in order where the names differ.
        samples: rows of real inputs as `Runner` takes them; made up for the first file when left out.
        kernels: "xnnpack", "builtin" or "reference", of both.

    Raises:
        ValueError: not TFLite files, the samples do not fit, or numbers or shapes of inputs or outputs differ.
        ExportError: the runtime does not run a file.
    """
    contents, names = [content_of(file) for file in (first, second)], (name_of(first), name_of(second))
    models = [read(content, name=name) for content, name in zip(contents, names, strict=True)]
    given = feeds(contents[0], samples)
    if samples is None:
        samples = _real(given, _sides(models[0], "inputs"), _sides(models[1], "inputs"))
    found = []
    both = (given, feeds(contents[1], samples))
    for name, content, fed in zip(names, contents, both, strict=True):
        try:
            found.append(run_outputs(content, fed, kernels=kernels, timeout=_TIMEOUT, seconds=_SECONDS))
        except ExportError as error:
            raise ExportError(f"{name} does not run: {error}") from error
    outputs = _compared(found, [_sides(model, "outputs") for model in models])
    counts = [sum(len(graph.operators) for graph in model.subgraphs) for model in models]
    times = min(len(values) for side in found for values in side.values())
    return FilePair(
        names, (models[0].size, models[1].size), (counts[0], counts[1]), kernels, times, given.generated, outputs
    )


def _sides(model: Any, side: str) -> tuple[Port, ...]:
    return ports(model, model.signature(), side)


def _real(given: Feeds, own: tuple[Port, ...], other: tuple[Port, ...]) -> Any:
    """Made up inputs of one file as real values under the names of the other's."""
    if len(own) != len(other):
        raise ValueError(f"The files have {len(own)} and {len(other)} inputs")
    values = {port.name: port.real(given.arrays[port.name]) for port in own}
    return {theirs.name: values[ours.name] for ours, theirs in _paired(own, other)}


def _paired(own: tuple[Port, ...], other: tuple[Port, ...]) -> list[tuple[Port, Port]]:
    named = {port.name: port for port in other}
    if all(port.name in named for port in own):
        return [(port, named[port.name]) for port in own]
    return list(zip(own, other, strict=True))


def _compared(found: list[dict[str, np.ndarray]], sides: list[tuple[Port, ...]]) -> tuple[OutputPair, ...]:
    if len(sides[0]) != len(sides[1]):
        raise ValueError(f"The files have {len(sides[0])} and {len(sides[1])} outputs")
    rows = []
    for left, right in _paired(*sides):
        expected, got = (_values(values, port) for values, port in zip(found, (left, right), strict=True))
        if expected.shape[1:] != got.shape[1:]:
            raise ValueError(
                f"Outputs {left.text} and {right.text} have shapes {list(expected.shape)} and {list(got.shape)}"
            )
        count = min(len(expected), len(got))
        grid, dtype = (right.grid, right.tensor.dtype) if right.grid is not None else (None, None)
        rows.append(OutputPair(left.name, right.name, agreement(expected[:count], got[:count], grid, dtype)))
    return tuple(rows)


def _values(values: Mapping[str, np.ndarray], port: Port) -> np.ndarray:
    """[rows, ...] real values: inferences and batch are one axis."""
    raw = values[port.name]
    return port.real(raw.reshape(-1, *raw.shape[2:]) if raw.ndim > 1 else raw)
