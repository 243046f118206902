"""What was done to each layer of a model, what was not and why, and what it costs before and after."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tfcompress.core import flavor
from tfcompress.core.flavor import keras
from tfcompress.core.macs import macs_of
from tfcompress.core.opaque import Opaque
from tfcompress.core.projected import described
from tfcompress.core.replay import Call, calls, readers
from tfcompress.core.trace import trace
from tfcompress.core.transformed import Transformed, named_weights


@dataclass(frozen=True)
class Cost:
    """What weights take.

    Attributes:
        bytes: of the weights; integers in whole bits a weight and 4 bytes a scale, what is held in few bits as it is
            held, everything else 4 bytes a number.
        zeros: share of the kernels' numbers that are zero, in [0, 1].
        distinct: the most distinct values that one kernel holds.
    """

    bytes: int
    zeros: float
    distinct: int


@dataclass(frozen=True)
class Row:
    """One layer: what was done to it, or why nothing was, and its cost without and with its transforms."""

    name: str
    layer: str
    done: str
    parameters: int
    macs: int | None
    before: Cost
    after: Cost


@dataclass(frozen=True)
class Summary:
    """The rows of all layers. Prints as a table."""

    model: str
    rows: tuple[Row, ...]

    @property
    def parameters(self) -> int:
        return sum(row.parameters for row in self.rows)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one sample in the layers where they can be counted."""
        return sum(row.macs or 0 for row in self.rows)

    @property
    def bytes_before(self) -> int:
        return sum(row.before.bytes for row in self.rows)

    @property
    def bytes_after(self) -> int:
        return sum(row.after.bytes for row in self.rows)

    def __str__(self) -> str:
        table = Table(title=self.model, title_justify="left", box=None, pad_edge=False)
        for head in ("layer", "class", "what was done", "parameters", "MACs", "bytes", "zeros", "distinct"):
            table.add_column(head, justify="right" if head in ("parameters", "MACs") else "left", overflow="fold")
        body = [
            [
                row.name, row.layer, row.done, f"{row.parameters:,}", "" if row.macs is None else f"{row.macs:,}",
                _change(f"{row.before.bytes:,}", f"{row.after.bytes:,}"),
                _change(f"{row.before.zeros:.1%}", f"{row.after.zeros:.1%}") if row.before.distinct else "",
                _change(f"{row.before.distinct:,}", f"{row.after.distinct:,}") if row.before.distinct else "",
            ]
            for row in self.rows
        ]  # fmt: skip
        total = ["total", "", "", f"{self.parameters:,}", f"{self.macs:,}",
                 _change(f"{self.bytes_before:,}", f"{self.bytes_after:,}"), "", ""]  # fmt: skip
        for cells in (*body, total):
            table.add_row(*(Text(cell) for cell in cells))
        console = Console(file=io.StringIO(), width=160, color_system=None)
        console.print(table)
        return console.file.getvalue()  # type: ignore[attr-defined]


def _change(before: str, after: str) -> str:
    return before if before == after else f"{before} → {after}"


def _values(layer: Any) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Every weight of a layer as it is trained, and as the layer computes with it."""
    if hasattr(layer, "describe_output"):  # a quantizer's range is no weight
        return [], []
    if not isinstance(layer, Transformed):
        plain = [np.asarray(flavor.read(v)) for v in layer.weights]
        return plain, plain
    before = [np.asarray(layer.trained(name)) for name in named_weights(layer.layer)]
    after = [
        np.asarray(layer.value(name)) if name in layer.transforms else old
        for name, old in zip(named_weights(layer.layer), before, strict=True)
    ]
    return before, after


def _cost(values: list[np.ndarray], bits: dict[int, tuple[int, int]], held: dict[int, int]) -> Cost:
    """bits: for each weight on a grid, by position, its bits and its number of scales. held: the bytes of those that
    are held as something else."""
    kernels = [v for v in values if v.ndim >= 2 and v.size]
    size = 0
    for position, value in enumerate(values):
        width, scales = bits.get(position, (32, 0))
        size += held[position] if position in held else -(-value.size * width // 8) + 4 * scales
    total = sum(v.size for v in kernels)
    zeros = sum(int(np.sum(v == 0)) for v in kernels) / total if total else 0.0
    return Cost(size, zeros, max((np.unique(v).size for v in kernels), default=0))


def _row(name: str, layer: Any, done: str, macs: int | None) -> Row:
    before, after = _values(layer)
    bits, held = {}, {}
    if isinstance(layer, Transformed):
        variables = named_weights(layer.layer)
        names = list(variables)
        bits = {names.index(w.weight): (w.bits, int(w.scale.size)) for w in layer.integers()}
        steps = [(name, layer.held(name)) for name in names]
        held = {names.index(name): step.held_bytes(variables[name]) for name, step in steps if step is not None}
    inner = layer.layer if isinstance(layer, Transformed) else layer
    parameters = sum(v.size for v in before)
    kind = f"{type(inner.layer).__name__}, closed" if isinstance(inner, Opaque) else type(inner).__name__
    return Row(name, kind, done, parameters, macs, _cost(before, {}, {}), _cost(after, bits, held))


def _done(call: Call, notes: dict[str, str], read_by: dict[int, list[Call]]) -> str:
    """What the layer says of itself and the quantizers behind it, or the reason noted."""
    layer = call.operation
    after = [reader.operation for tensor in call.outputs for reader in read_by.get(id(tensor), [])]
    behind = [layer, *(operation for operation in after if not getattr(operation, "activation", None))]
    behind = [operation for operation in behind if hasattr(operation, "describe_output")]
    words = [layer.describe()] if hasattr(layer, "describe") else []
    words += described(layer) if isinstance(layer, keras.layers.Layer) else []
    words += list(dict.fromkeys(q.describe_output() for q in behind))
    if layer.name in notes:
        words.append(notes[layer.name])
    return "; ".join(word for word in words if word)


def summary(model: Any) -> Summary:
    """Per layer: what was done, or why not; parameters, bytes, MACs, zeros and distinct values before and after.

    "Before" are the weights as they are trained (float32), "after" those that the layer computes with.

    Args:
        model: any built model; composites are opened, as `trace` does.

    Returns:
        A `Summary`: `.rows` is data, `str()` is a table.

    Raises:
        TypeError: not a model of this Keras flavor.
        ValueError: the model is not built.

    >>> summary(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])).rows[0].macs
    12
    """
    flavor.check_model(model)
    notes = dict(getattr(model, "notes", {}))
    flat = model if flavor.is_graph(model) and notes else trace(model)
    rows: list[Row] = []
    seen: set[int] = set()
    steps = calls(flat)
    read_by = readers(steps)
    for call in steps:
        layer = call.operation
        bare = hasattr(layer, "describe_output") and getattr(layer, "activation", None) is None
        if not isinstance(layer, keras.layers.Layer) or bare or id(layer) in seen:
            continue
        seen.add(id(layer))
        macs = [macs_of(c) for c in steps if c.operation is layer]
        total = None if any(m is None for m in macs) else sum(m for m in macs if m is not None)
        rows.append(_row(layer.name, layer, _done(call, notes, read_by), total))
    return Summary(model.name, tuple(rows))
