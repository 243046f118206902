"""What goes into a file while it is measured: the user's samples, or values made up for it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tflite_export.flatbuffer import read
from tflite_export.graph import Quantization, Subgraph
from tflite_export.port import Port, arranged, ports, runs

ROWS = 8
# Operations that hand values on, so that indices stay indices behind them.
_PASSING = frozenset({"CAST", "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE", "SLICE", "STRIDED_SLICE", "SPLIT"})
# Operation -> (input that holds indices, input whose rows they count).
_LOOKUPS = {"GATHER": (1, 0), "GATHER_ND": (1, 0), "EMBEDDING_LOOKUP": (0, 1)}
_TEXT = np.array([b"a text of a few words"])


@dataclass(frozen=True)
class Feeds:
    """Inputs of a file's first signature, in the file's own types.

    Attributes:
        arrays: name -> [times * batch, ...], in the order of the signature.
        times: inferences that they are enough for.
        generated: made up, not the user's.
    """

    arrays: dict[str, np.ndarray]
    times: int
    generated: bool

    def turn(self, number: int) -> list[np.ndarray]:
        """The arrays of inference `number`, one an input; after the last one the first comes again."""
        number %= self.times
        found = []
        for array in self.arrays.values():
            batch = array.shape[0] // self.times if array.ndim else 0
            found.append(array[number * batch : (number + 1) * batch] if batch else array)
        return found

    def head(self, times: int) -> "Feeds":
        """The first `times` inferences alone."""
        times = min(times, self.times)
        arrays = {
            name: array[: array.shape[0] // self.times * times] if array.ndim else array
            for name, array in self.arrays.items()
        }
        return Feeds(arrays, times, self.generated)


def feeds(content: bytes, samples: Any = None, *, times: int = ROWS, seed: int = 0) -> Feeds:
    """Inputs for a file.

    Made up values are, for each input: any integer of a quantized type; real values of the grid where a QUANTIZE is
    the first to see them, else 0 to 1; rows that exist where a table is looked up, else 0 and 1; any truth value.

    Args:
        content: of the file.
        samples: rows of real values as `Runner` takes them; None for made up ones.
        times: inferences to make values up for.
        seed: of made up values.

    Raises:
        ValueError: not a whole TFLite file, or the samples do not fit it.

    >>> found = feeds(open("model.tflite", "rb").read())         # doctest: +SKIP
    """
    model = read(content)
    signature = model.signature()
    inputs = ports(model, signature, "inputs")
    if samples is not None:
        given = [port.feed(value, raw=False) for port, value in zip(inputs, arranged(inputs, samples), strict=True)]
        return Feeds({port.name: array for port, array in zip(inputs, given, strict=True)}, runs(inputs, given), False)
    graph, random = model.subgraphs[signature.subgraph], np.random.default_rng(seed)
    return Feeds({port.name: _made_up(port, graph, times, random) for port in inputs}, times, True)


def _made_up(port: Port, graph: Subgraph, times: int, random: np.random.Generator) -> np.ndarray:
    tensor = port.tensor
    shape = (times * tensor.shape[0], *tensor.shape[1:]) if tensor.shape else ()
    if tensor.dtype is None:
        return np.broadcast_to(_TEXT, shape).copy() if tensor.type == "STRING" else np.zeros(shape, np.uint8)
    if tensor.dtype.kind == "b":
        return random.integers(0, 2, shape).astype(bool)
    if tensor.dtype.kind in "iu":
        if port.grid is not None:
            low, high = (-8, 7) if tensor.type == "INT4" else (np.iinfo(tensor.dtype).min, np.iinfo(tensor.dtype).max)
        else:
            low, high = 0, max(1, _rows(graph, tensor.index) - 1)
        return random.integers(low, high, shape, endpoint=True, dtype=np.int64).astype(tensor.dtype)
    grid = _first_grid(graph, tensor.index)
    values = random.random(shape)
    if grid is not None:
        least, most = (float(grid.real(np.array([code]))[0]) for code in (-128, 127))
        values = least + values * (most - least)
    return values.astype(tensor.dtype)


def _first_grid(graph: Subgraph, index: int) -> Quantization | None:
    """The int8 or uint8 grid that a real input is quantized to at once, moved to int8 numbers."""
    for operator in graph.operators:
        if operator.kind == "QUANTIZE" and operator.inputs[:1] == (index,) and operator.outputs:
            output = graph.tensors[operator.outputs[0]]
            grid = output.quantization
            if grid is None or grid.scale.size != 1 or output.type not in ("INT8", "UINT8"):
                return None
            moved = grid.zero_point - 128 if output.type == "UINT8" else grid.zero_point
            return Quantization(grid.scale, moved)
    return None


def _rows(graph: Subgraph, index: int) -> int:
    """The fewest rows of a table that this tensor's values look up, through operations that pass them on; 2 if none."""
    found = [rows for kind_rows in _tables(graph, index, {index}) for rows in kind_rows]
    return min(found, default=2)


def _tables(graph: Subgraph, index: int, seen: set[int]) -> Iterator[list[int]]:
    for operator in graph.operators:
        if index not in operator.inputs:
            continue
        if operator.kind in _LOOKUPS:
            at, table = _LOOKUPS[operator.kind]
            if max(at, table) < len(operator.inputs) and operator.inputs[at] == index:
                shape = graph.tensors[operator.inputs[table]].shape
                axis = getattr(operator.options, "axis", 0) or 0
                if shape and -len(shape) <= axis < len(shape):
                    yield [shape[axis]]
        elif operator.kind in _PASSING:
            for output in set(operator.outputs) - seen:
                seen.add(output)
                yield from _tables(graph, output, seen)
