"""States: outputs that have the name of an input, and are handed on to it with the next call.

A state's integers only mean the same on both sides when it has one grid: as input and as output, and in every signature
of the file. And the tensors of several signatures that come from the same place of the model have the same range, so
that the file holds one kernel, one bias and one table for all.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.draft import Draft
from tflite_export.errors import ExportError
from tflite_export.integers import Measured
from tflite_export.learned import FIXED, SAME_GRID, grid_of

_TANH = (-1.0, 127 / 128)
_CLOSE = 1e-4


def join(parts: Sequence[Measured]) -> None:
    """Gives tensors of the same name the same measured range, and each state one grid.

    Args:
        parts: one for each signature, changed in place.
    """
    _join_names(parts)
    for name in dict.fromkeys(name for part in parts for name in states(part)):
        _join_state(parts, name)


def states(part: Measured) -> dict[str, tuple[int, int]]:
    """Name of each state of real numbers -> its input and its output."""
    inputs = {spec.name: index for spec, index in zip(part.source.inputs, part.draft.inputs, strict=True)}
    outputs = dict(zip(part.source.outputs, part.draft.outputs, strict=True))
    both = {name: (inputs[name], outputs[name]) for name in inputs if name in outputs}
    return {name: ends for name, ends in both.items() if part.draft.is_float(ends[0]) and _fits(part.draft, *ends)}


def _fits(draft: Draft, before: int, after: int) -> bool:
    """Whether an output can be handed on as that input: a cache may have grown, but its rows are of one size."""
    shapes = [list(draft.tensors[index].shape) for index in (before, after)]
    return len(shapes[0]) == len(shapes[1]) and shapes[0][-1:] == shapes[1][-1:]


def check(parts: Sequence[tuple[Draft, Sequence[str], Sequence[str]]]) -> None:
    """Makes sure that every state has one grid.

    Args:
        parts: for each signature the integer file, the names of its inputs and those of its outputs.

    Raises:
        ExportError: a state has several grids; the message names it.
    """
    seen: dict[str, tuple[float, int]] = {}
    for draft, inputs, outputs in parts:
        after = dict(zip(outputs, draft.outputs, strict=True))
        ends = {name: (index, after[name]) for name, index in zip(inputs, draft.inputs, strict=True) if name in after}
        pairs = [(name, index) for name, both in ends.items() if _fits(draft, *both) for index in both]
        for name, index in pairs:
            grid = _boundary_grid(draft, index)
            if grid is None:
                continue
            first = seen.setdefault(name, grid)
            if abs(first[0] - grid[0]) > _CLOSE * first[0] or first[1] != grid[1]:
                raise ExportError(
                    f"State {name!r} has no single grid: scale and zero point are {first} in one place, {grid} in "
                    "another, and its integers cannot be handed on"
                )


def _boundary_grid(draft: Draft, index: int) -> tuple[float, int] | None:
    """Scale and zero point of an input or output, behind or before its QUANTIZE or DEQUANTIZE."""
    if draft.is_float(index):
        readers = [op.outputs[0] for op in draft.users().get(index, []) if draft.kind(op) == "QUANTIZE"]
        maker = draft.makers().get(index)
        index = maker.inputs[0] if maker is not None else readers[0] if readers else index
    grid = draft.grid(index)
    return None if grid is None else (float(np.ravel(grid.scale)[0]), int(np.ravel(grid.zeroPoint)[0]))


def _join_names(parts: Sequence[Measured]) -> None:
    """The union of the ranges of tensors of one name. Masked scores keep theirs: the mask has its size for it."""
    whole: dict[str, tuple[float, float]] = {}
    for part, index, name in _named(parts):
        whole[name] = _union(part.found[index], whole.get(name))
    for part, index, name in _named(parts):
        part.found[index] = whole[name]


def _named(parts: Sequence[Measured]) -> Iterator[tuple[Measured, int, str]]:
    for part in parts:
        for index in part.found:
            if index not in part.lows:
                yield part, index, part.draft.name(index)


def _join_state(parts: Sequence[Measured], name: str) -> None:
    """One range for the tensors that hold a state: learned ones where there are any, else what was measured."""
    learned: list[tuple[Draft, int]] = []
    ranges: list[tuple[float, float]] = []
    free: list[tuple[Measured, int]] = []
    for part in parts:
        for index in states(part).get(name, ()):
            stored, open_, fixed = _holders(part, index)
            learned += [(part.draft, i) for i in stored]
            free += [(part, i) for i in open_]
            ranges += fixed
    if learned:
        grids = [(draft.grid(i), draft.type(i)) for draft, i in learned]
        ends = [_ends(grid, type_name) for grid, type_name in grids]
        whole = _union(*ends)
        if len(set(ends)) > 1:
            for draft, i in learned:
                _put_grid(draft, i, *whole)
    else:
        whole = _union(*ranges, *(_range(part, i) for part, i in free))
    for part, i in free:
        (part.taught if i in part.taught else part.found)[i] = whole
        part.pins.add(i)


def _holders(part: Measured, index: int) -> tuple[list[int], list[int], list[tuple[float, float]]]:
    """What gives an input or output its grid.

    Returns:
        (integer tensors of a learned range, float tensors whose range is still to be written, ranges that the runtime
        prescribes).
    """
    draft = part.draft
    stored: list[int] = []
    makers, users = draft.makers(), draft.users()
    for op in users.get(index, []) if index in draft.inputs else []:
        while draft.kind(op) == "CONCATENATION" or (draft.kind(op) in SAME_GRID and op.outputs[0] in part.known):
            behind = users.get(op.outputs[0], [])
            if not behind or op.outputs[0] not in part.known:
                break
            op = behind[0]
        if draft.kind(op) == "QUANTIZE":
            stored.append(op.outputs[0])
    source = index
    while source in makers and source not in part.found and source not in part.taught:
        op = makers[source]
        if draft.kind(op) == "DEQUANTIZE":
            stored.append(op.inputs[0])
        if draft.kind(op) in FIXED:
            return stored, [], [_TANH if draft.kind(op) == "TANH" else (0.0, 255 / 256)]
        if draft.kind(op) not in SAME_GRID:
            break
        source = next(i for i in op.inputs if draft.is_float(i) and not draft.is_constant(i))
    return stored, [i for i in {index, source} if i in part.found or i in part.taught], []


def _range(part: Measured, index: int) -> tuple[float, float]:
    return part.taught[index] if index in part.taught else part.found[index]


def _union(*ranges: tuple[float, float] | None) -> tuple[float, float]:
    known = [pair for pair in ranges if pair is not None]
    return min(low for low, _ in known), max(high for _, high in known)


def _ends(grid: Any, type_name: str) -> tuple[float, float]:
    limits = np.iinfo(type_name.lower())
    scale, zero = float(np.ravel(grid.scale)[0]), int(np.ravel(grid.zeroPoint)[0])
    return (int(limits.min) - zero) * scale, (int(limits.max) - zero) * scale


def _put_grid(draft: Draft, index: int, low: float, high: float) -> None:
    """Gives an integer tensor the grid of a range; the converter's own 8-bit pairs are of UINT8."""
    type_name = draft.type(index)
    scale, zero = grid_of(low, high, 16 if type_name == "INT16" else 8)
    draft.tensors[index].quantization = schema.QuantizationParametersT(
        scale=np.array([scale], np.float32), zeroPoint=np.array([zero + 128 * (type_name == "UINT8")], np.int64)
    )
