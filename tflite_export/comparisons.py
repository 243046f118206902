"""Comparisons of quantized tensors: their integers are compared, as integers of 32 bits.

    x > c  <=>  q > floor(c / scale) + zero_point            of x = scale * (q - zero_point)

The runtime's kernels for 8 bits rescale both operands to steps of 1 / 256, in which small numbers are all equal, and
know no scale from 1 on; NOT_EQUAL is left in float by the quantizer.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.draft import Draft
from tflite_export.learned import grid_of

# How a constant behind the operation becomes an integer.
_ROUNDED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "EQUAL": np.round,
    "NOT_EQUAL": np.round,
    "GREATER": np.floor,
    "LESS_EQUAL": np.floor,
    "GREATER_EQUAL": np.ceil,
    "LESS": np.ceil,
}
_MIRRORED = {"GREATER": "LESS", "LESS": "GREATER", "GREATER_EQUAL": "LESS_EQUAL", "LESS_EQUAL": "GREATER_EQUAL"}
_BITS = {"INT8": 8, "INT16": 16}
_CLOSE = 1e-3  # of a step: a constant that is so near to a value of the grid is that value


def compare_integers(draft: Draft) -> None:
    """Lets comparisons of quantized tensors, with a constant or with each other, compare 32-bit integers.

    Args:
        draft: an integer file, changed in place.
    """
    for op in [op for op in draft.operators if draft.kind(op) in _ROUNDED]:
        found = {place: _stored(draft, i) for place, i in enumerate(op.inputs) if not draft.is_constant(i)}
        moving = {place: index for place, index in found.items() if index is not None}
        if not moving or len(moving) < len(found):
            continue
        before = list(op.inputs)
        scale, zero = _common(draft, op, moving)
        for place, index in enumerate(before):
            if place in moving:
                op.inputs[place] = _cast(draft, op, moving[place])
            else:
                kind = draft.kind(op) if place else _MIRRORED.get(draft.kind(op), draft.kind(op))
                steps = _real(draft, index) / scale
                near = np.abs(steps - np.round(steps)) < _CLOSE
                codes = np.where(near, np.round(steps), _ROUNDED[kind](steps)) + zero
                codes = np.clip(codes, np.iinfo(np.int32).min, np.iinfo(np.int32).max)
                op.inputs[place] = draft.add_constant(codes.astype(np.int32), f"{draft.name(index)}/integers")
        draft.become(op, draft.kind(op), op.inputs, op.builtinOptions)
        _drop_unread(draft, before)


def _stored(draft: Draft, index: int) -> int | None:
    """The integers of a tensor: its own, those that it is dequantized from, or those that it is quantized to."""
    maker = draft.makers().get(index)
    found = [index]
    if maker is not None and draft.kind(maker) == "DEQUANTIZE":
        found.append(maker.inputs[0])
    found += [op.outputs[0] for op in draft.users().get(index, []) if draft.kind(op) == "QUANTIZE"]
    return next((i for i in found if draft.type(i) in _BITS and draft.grid(i) is not None), None)


def _grid(draft: Draft, index: int) -> tuple[float, int]:
    grid = draft.grid(index)
    return float(np.ravel(grid.scale)[0]), int(np.ravel(grid.zeroPoint)[0])


def _real(draft: Draft, index: int) -> np.ndarray:
    """The real values of a constant."""
    value = draft.value(index).astype(np.float64)
    if draft.grid(index) is None:
        return value
    scale, zero = _grid(draft, index)
    return (value - zero) * scale


def _common(draft: Draft, op: Any, moving: dict[int, int]) -> tuple[float, int]:
    """The grid of all operands; where they have several, one that holds both, on which they are put."""
    for stored in moving.values():
        maker = draft.makers().get(stored)
        if maker is not None and draft.place(maker) > draft.place(op):  # a QUANTIZE; what it reads is there already
            draft.operators.remove(maker)
            draft.operators.insert(draft.place(op), maker)
    grids = {_grid(draft, stored) for stored in moving.values()}
    if len(grids) == 1:
        return grids.pop()
    type_name = draft.type(moving[0])
    limits = np.iinfo(type_name.lower())
    lows, highs = zip(
        *(((limits.min - zero) * scale, (limits.max - zero) * scale) for scale, zero in grids), strict=True
    )
    scale, zero = grid_of(min(lows), max(highs), _BITS[type_name])
    for place, stored in moving.items():
        quantization = schema.QuantizationParametersT(scale=np.array([scale], np.float32), zeroPoint=np.array([zero]))
        name = f"{draft.name(op.outputs[0])}/common_{place}"
        moving[place] = draft.add_tensor(draft.tensors[stored].shape, type_name, name, quantization=quantization)
        draft.insert(draft.place(op), "QUANTIZE", [stored], [moving[place]], schema.QuantizeOptionsT(), version=2)
    return scale, zero


def _cast(draft: Draft, op: Any, stored: int) -> int:
    """The integers of a tensor as integers of 32 bits, computed in front of the operation."""
    wide = draft.add_tensor(draft.tensors[stored].shape, "INT32", f"{draft.name(stored)}/integers")
    types = schema.TensorType
    options = schema.CastOptionsT(getattr(types, draft.type(stored)), types.INT32)
    draft.insert(draft.place(op), "CAST", [stored], [wide], options)
    return wide


def _drop_unread(draft: Draft, tensors: list[int]) -> None:
    """Takes out what made tensors that nothing reads any more."""
    makers, users = draft.makers(), draft.users()
    for index in tensors:
        if index in makers and not users.get(index) and index not in draft.outputs:
            draft.operators.remove(makers[index])
