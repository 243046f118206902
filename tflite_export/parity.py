"""Does a file compute what its Keras model computes: compared on data, beside what the runtime differs from itself."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tflite_export.agreement import Agreement, agreement
from tflite_export.drift import LayerRow, candidates, fused, grid_of, layer_row, matched, real, silent_softmaxes
from tflite_export.errors import ExportError
from tflite_export.flatbuffer import File, content_of, read
from tflite_export.graph import Model, Subgraph, Tensor
from tflite_export.port import Port
from tflite_export.rendering import render, table
from tflite_export.runner import Runner

if TYPE_CHECKING:
    from tflite_export.collapse import Collapse
    from tflite_export.taps import Tap

# Rows for the comparison of layers, whose every tensor is kept in memory.
_LAYER_ROWS = 32
# The slower kernel sets need up to a hundred times as long: the noise floor takes as many rows as fit into this time.
_FLOOR_SECONDS = 5.0


@dataclass(frozen=True)
class OutputRow:
    """One output.

    Attributes:
        name: as the signature says.
        step: of the output's integer grid, in real units; None for a float file.
        model: agreement of the file with the Keras model.
        floor: agreement of the file's two kernel sets; None when the other set does not run the file.
    """

    name: str
    step: float | None
    model: Agreement
    floor: Agreement | None


@dataclass(frozen=True)
class Parity:
    """How far a file agrees with its Keras model; rows are plain data, str() prints them as tables.

    Attributes:
        kernels: that the file ran on.
        other: kernels of the noise floor.
        rows: number of rows compared.
        floor_rows: of them, those in the noise floor.
        outputs: one row an output.
        layers: one row a layer whose tensor is found in the file, in the file's order.
        silent: names of softmax inputs that hold one or two values.
        lost: tensors of an integer file, also those inside layers, that do not hold what they hold in float.
        notes: what could not be compared, and why; layers that Keras computes only approximately.
        promised: the kernel set whose very integers the Keras model computes; None: it only rounds to their grids.
    """

    kernels: str
    other: str
    rows: int
    floor_rows: int
    outputs: tuple[OutputRow, ...]
    layers: tuple[LayerRow, ...]
    silent: tuple[str, ...]
    lost: tuple["Collapse", ...]
    notes: tuple[str, ...]
    promised: str | None = None

    @property
    def exact(self) -> bool:
        """Whether the Keras model promises the very integers of the kernels that the file ran on."""
        return self.promised == self.kernels

    @property
    def first_departure(self) -> LayerRow | None:
        """The first layer, in the file's order, that differs by more than the kernel sets do; None when none does.

        Where the integers were promised, the first that differs at all.
        """
        return next((row for row in self.layers if self.differs(row)), None)

    def differs(self, row: LayerRow) -> bool:
        """Whether a layer differs by more than the kernel sets do; where the integers were promised, at all."""
        return row.departs or (self.exact and row.model.equal < 1)

    @property
    def collapsed(self) -> tuple[str, ...]:
        """Layers and softmax inputs whose many values became few in the file, that saturate or no longer follow."""
        names = (*(row.layer for row in self.layers if row.collapsed), *self.silent, *(one.layer for one in self.lost))
        return tuple(dict.fromkeys(names))

    @property
    def equal(self) -> float:
        """Share of equal elements of the worst output."""
        return min(row.model.equal for row in self.outputs)

    @property
    def argmax(self) -> float | None:
        """Share of rows with the same largest element of the worst output; None when no output has several."""
        shares = [row.model.argmax for row in self.outputs if row.model.argmax is not None]
        return min(shares) if shares else None

    def __str__(self) -> str:
        parts: list[Any] = [_outputs(self)]
        if self.layers:
            parts += ["", _layers(self)]
        first = self.first_departure
        departs = f"First layer that departs: {first.layer} ({self._why(first)})" if first else "No layer departs"
        lines = [departs] if self.layers else []
        lines += [f"Lost: {one}; {one.advice}" for one in self.lost]
        explained = {one.layer for one in self.lost}
        lines += [f"Collapsed: {name}" for name in self.collapsed if name not in explained]
        lines += [
            f"Coarse: {row.layer} ({row.distinct[1]} different values of {row.distinct[0]:,})"
            for row in self.layers
            if row.coarse and not row.collapsed
        ]
        lines += [f"Saturates: {row.layer} ({100 * row.clipped:.0f} % outside)" for row in self.layers if row.saturates]
        if self.promised is not None:
            lines.append(self._promise())
        return render(*parts, "", *lines, *(f"Note: {n}" for n in self.notes))

    def _promise(self) -> str:
        text = f"Keras computes the integers of the {self.promised} kernels"
        text += ", but for what is approximate" if any(n.startswith("approximate") for n in self.notes) else ""
        differs = next((row for row in self.layers if row.model.equal < 1), None)
        return text if self.exact or differs is None else f"{text}; the first layer that differs here: {differs.layer}"

    def _why(self, row: LayerRow) -> str:
        if not self.exact or row.collapsed or row.saturates or not row.elements:
            return _why(row)
        differ = round((1 - row.model.equal) * row.elements)
        return f"{row.operation}: {differ:,} of {row.elements:,} integers differ, by {row.model.steps} at most"


def compare(model: Any, exported: File, data: Any, *, kernels: str | None = None) -> Parity:
    """Compares a file with the Keras model that it came from.

    Args:
        model: a built Keras model, also a quantized one.
        exported: what `export` returned, or bytes, or a path.
        data: inputs as the model takes them: an array [rows, ...], a list or dict of arrays, or a `tf.data.Dataset`.
        kernels: kernel set that the file runs on: "xnnpack", "builtin", "reference" or "tflm" (outputs only). Default:
            the one whose integers the model promises (`quantize_model(kernels=)`), else "xnnpack".

    Returns:
        Agreement of outputs on all rows and of layers on the first 32, each beside the noise floor: the same file on
        two kernel sets (the reference kernels and the optimized ones), on as many of the rows as 5 seconds allow.

    Raises:
        ValueError, TypeError: data that the model does not take; a file with other inputs or outputs than the model.
        ExportError: the runtime does not run the file.
    """
    from tfcompress.core import flavor
    from tfcompress.core.trace import trace
    from tflite_export.taps import outputs_of, sample_arrays, taps

    flavor.check_model(model)
    graph = model if flavor.is_graph(model) else trace(model)
    content = content_of(exported)
    whole = read(content)
    promised = _promised(model, whole)
    kernels = kernels or promised or "xnnpack"
    runner = Runner(content, kernels)
    names, arrays = sample_arrays(graph, data)
    feeds = _feeds(runner, names, arrays)
    expected = outputs_of(graph, arrays)
    raw = _by_name(runner, runner.integers(feeds))
    order = _paired([value.shape for value in expected], [raw[name].shape for name in runner.outputs])
    rows = len(arrays[0])
    file = whole.subgraphs[0]
    other = "xnnpack" if kernels in ("reference", "tflm") else "reference"
    notes = _exceptions(model, kernels, whole)
    second = _second(content, other, feeds, runner, notes)
    floor, floor_rows = _floor(second, feeds, rows, runner)
    found, ends = [], {}
    for (name, port), place in zip(runner.outputs.items(), order, strict=True):
        tensor = ends[place] = _grid_tensor(file, port)
        real_values = port.real(raw[name])
        again = agreement(real_values[:floor_rows], floor[name], grid_of(tensor), tensor.dtype) if floor else None
        grid = grid_of(tensor)
        model_row = agreement(expected[place], real_values, grid, tensor.dtype)
        found.append(OutputRow(name, float(grid.scale[0]) if grid else None, model_row, again))
    few = _few(rows, floor_rows, runner)
    seen = taps(graph, [array[:few] for array in arrays])
    layers, silent = _drift(file, runner, second, seen, ends, [feed[:few] for feed in feeds])
    lost = _lost(model, content, runner, dict(zip(names, arrays, strict=True)), feeds, notes)
    return Parity(kernels, other, rows, floor_rows, tuple(found), layers, silent, lost, tuple(notes), promised)


def _promised(model: Any, file: Model) -> str | None:
    """The kernel set whose integers a model computes of a file; none as long as there is a range it has not seen."""
    evaluator = getattr(model, "evaluator", None)
    integers = any(tensor.type in ("INT8", "INT16") for graph in file.subgraphs for tensor in graph.tensors)
    return evaluator.kernels if evaluator is not None and integers and bool(evaluator.ready(model)) else None


def _exceptions(model: Any, kernels: str, file: Model) -> list[str]:
    """Where a model does not compute the very integers of a file, although it was made for its kernel set; why."""
    from tfcompress.core.folding import integer_kernels

    evaluator = getattr(model, "evaluator", None)
    if evaluator is None or evaluator.kernels != kernels:
        return []
    if not bool(evaluator.ready(model)):
        return ["Keras computes in real numbers: there are ranges that the model has not seen"]
    notes = [f"approximate in Keras: {name}, {reason}" for name, reason in evaluator.approximate(model).items()]
    packed = any(tensor.type == "INT4" for graph in file.subgraphs for tensor in graph.tensors)
    if kernels == "xnnpack" and not packed and any(kernel.bits <= 4 for kernel in integer_kernels(model)):
        notes.append("approximate in Keras: kernels of 4 bits, which the file stores one to a byte")
    return notes


def _feeds(runner: Runner, names: Sequence[str], arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The model's inputs in the order of the file's: by name when the names are the same, else as they come."""
    if len(runner.inputs) != len(arrays):
        raise ValueError(f"The model takes {len(arrays)} inputs {list(names)}, the file {list(runner.inputs)}")
    by_name = dict(zip(names, arrays, strict=True))
    return [by_name[name] for name in runner.inputs] if set(by_name) == set(runner.inputs) else list(arrays)


def _by_name(runner: Runner, values: Any) -> dict[str, np.ndarray]:
    return values if isinstance(values, dict) else {next(iter(runner.outputs)): values}


def _paired(model: Sequence[tuple], file: Sequence[tuple]) -> list[int]:
    """For each output of the file the place of the model's: the same place where shapes agree, else by shape alone."""
    if list(model) == list(file):
        return list(range(len(file)))
    if sorted(model) != sorted(file) or len(set(model)) != len(model):
        raise ValueError(f"The model's outputs have the shapes {list(model)}, the file's {list(file)}")
    return [list(model).index(shape) for shape in file]


def _grid_tensor(graph: Subgraph, port: Port) -> Tensor:
    """The integer tensor behind an output: the file hands out real values of it through a last DEQUANTIZE."""
    maker = graph.maker.get(port.tensor.index)
    if maker is not None and maker.kind == "DEQUANTIZE":
        return graph.tensors[maker.inputs[0]]
    return port.tensor


def _second(
    content: bytes, other: str, feeds: list[np.ndarray], runner: Runner, notes: list[str]
) -> tuple[Runner, float] | None:
    """The file on another kernel set and the seconds of one run; None, and a note, when that set does not run it."""
    batch = _batch(runner)
    try:
        second = Runner(content, other)
        begin = time.perf_counter()
        second([feed[:batch] for feed in feeds])
        return second, time.perf_counter() - begin
    except ExportError as error:
        notes.append(f"no noise floor: {error}")
        return None


def _floor(
    second: tuple[Runner, float] | None, feeds: list[np.ndarray], rows: int, runner: Runner
) -> tuple[dict[str, np.ndarray], int]:
    """Real outputs of the other kernel set, and for how many rows."""
    if second is None:
        return {}, 0
    other, seconds = second
    count = min(rows, _batch(runner) * max(1, int(_FLOOR_SECONDS / max(seconds, 1e-6))))
    return _by_name(runner, other([feed[:count] for feed in feeds])), count


def _batch(runner: Runner) -> int:
    return max((port.batch for port in runner.inputs.values()), default=1)


def _few(rows: int, floor_rows: int, runner: Runner) -> int:
    """Rows for the layers: at most 32, whole batches, no more than the slower kernel set has time for."""
    batch = _batch(runner)
    return max(batch, min(_LAYER_ROWS, rows, floor_rows or rows) // batch * batch)


def _drift(
    graph: Subgraph,
    runner: Runner,
    second: tuple[Runner, float] | None,
    seen: Sequence["Tap"],
    ends: Mapping[int, Tensor],
    feeds: list[np.ndarray],
) -> tuple[tuple[LayerRow, ...], tuple[str, ...]]:
    """Rows of the layers whose tensors are found, in the file's order; softmax inputs that hold almost no value."""
    named = candidates(graph, [tap.names for tap in seen])
    # The model's outputs have other names in the file: their place says which layer they come from.
    for place, tap in enumerate(seen):
        if tap.output is not None and tap.output in ends and ends[tap.output].index in graph.maker:
            named.append((place, ends[tap.output].index))
    near = [pair for pair in fused(named, [tap.feeds for tap in seen]) if seen[pair[0]].names]
    scores = [op.inputs[0] for op in graph.operators if op.kind == "SOFTMAX" and op.inputs[0] in graph.maker]
    wanted = sorted({index for _, index in named} | set(scores))
    if not wanted:
        return (), ()
    ours = runner.tensors(feeds, wanted)
    theirs = second[0].tensors(feeds, wanted) if second else {}
    reals = {index: real(graph.tensors[index], raw) for index, raw in ours.items()}
    named, near = ([pair for pair in pairs if pair[1] in ours] for pairs in (named, near))
    places = matched(named, near, [tap.values for tap in seen], reals)
    order = {index: op.index for op in graph.operators for index in op.outputs}
    rows = []
    for index in sorted(places, key=order.__getitem__):
        tap = seen[places[index]]
        rows.append(layer_row(tap.layer, tap.values, tap.distinct, graph, index, ours[index], theirs.get(index)))
    collapsed = {row.tensor for row in rows if row.collapsed}
    return tuple(rows), tuple(name for name in silent_softmaxes(graph, ours) if name not in collapsed)


def _lost(
    model: Any,
    content: bytes,
    runner: Runner,
    arrays: Mapping[str, np.ndarray],
    feeds: Sequence[np.ndarray],
    notes: list[str],
) -> tuple["Collapse", ...]:
    """What tensors of an integer file do not hold of what the float file, converted anew, holds."""
    from tflite_export.collapse import collapses, has_grids
    from tflite_export.draft import Draft
    from tflite_export.original import original

    file = Draft(content)
    batch, ports = _batch(runner), list(runner.inputs.values())
    turns = range(len(feeds[0]) // batch)
    if not has_grids(file) or not turns:
        return ()
    raw = {port.tensor.index: port.feed(feed, raw=False) for port, feed in zip(ports, feeds, strict=True)}
    results = {file.type(index) for op in file.operators for index in op.outputs}
    sixteen = "INT16" in results and "INT8" not in results  # in an 8-bit file normalizations have 16
    shapes = {port.name: tuple(port.tensor.shape[1:]) for port in ports if port.name in arrays}
    try:
        reference = original(model, "int16x8" if sixteen else "int8", batch, shapes)
        samples, given = (
            [[array[turn * batch : (turn + 1) * batch] for array in columns] for turn in turns]
            for columns in (list(arrays.values()), [raw[index] for index in file.inputs])
        )
        return tuple(collapses(reference, file, samples, given, tidy=True))
    except (ExportError, ValueError) as error:
        notes.append(f"tensors inside layers were not compared: {error}")
        return ()


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"


def _steps(row: Agreement) -> str:
    return f"{row.largest:.3g}" if row.steps is None else str(row.steps)


def _outputs(parity: Parity) -> Any:
    rows = []
    for row in parity.outputs:
        for who, found in (("Keras", row.model), (f"{parity.other} kernels", row.floor)):
            if found is not None:
                shown = (_percent(found.equal), _steps(found), f"{found.snr:.1f} dB", _percent(found.argmax))
                rows.append((row.name, who, *shown, parity.rows if who == "Keras" else parity.floor_rows))
    columns = ("output", "against", "equal", "largest step", "SNR", "same argmax", "rows")
    return table(f"The file on {parity.kernels} kernels", columns, rows, right=columns[2:])


def _layers(parity: Parity) -> Any:
    rows = []
    for row in parity.layers:
        floor = (_percent(row.floor.equal), f"{row.floor.snr:.1f} dB") if row.floor else ("-", "-")
        rows.append(
            (
                row.layer,
                row.operation,
                _percent(row.model.equal),
                floor[0],
                f"{row.model.snr:.1f} dB",
                floor[1],
                _steps(row.model),
                f"{row.distinct[0]:,} / {row.distinct[1]:,}",
                "departs" if parity.differs(row) else "",
            )
        )
    columns = ("layer", "operation", "equal", "floor", "SNR", "floor ", "largest step", "distinct Keras / file", "")
    return table("Layers, in the file's order", columns, rows, right=columns[2:8])


def _why(row: LayerRow) -> str:
    if row.collapsed:
        return f"{row.distinct[0]:,} different values in Keras, {row.distinct[1]} in the file"
    if row.saturates:
        return f"{100 * row.clipped:.0f} % of its values lie outside of the tensor's range"
    floor = f", the kernel sets in {_percent(row.floor.equal)}" if row.floor else ""
    return f"equal in {_percent(row.model.equal)}{floor}; SNR {row.model.snr:.1f} dB"
