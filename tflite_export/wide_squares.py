"""Sums of squares and their roots in 16 bits inside of an 8-bit file.

Where the largest sum of a row's squares is hundreds of times the smallest, the small ones would be zero in 8 bits. The
row becomes 16 bits wide, exactly, and so does what follows up to and with the root, which goes back to 8 bits:

    int8 -> QUANTIZE -> BATCH_MATMUL -> MUL -> ADD -> RSQRT -> QUANTIZE -> int8

Only the first of these tensors is as large as the row, all others hold one number a row.
"""

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.draft import Draft

# In the name of a sum of squares that shall have 16 bits.
WIDE = "_wide"
_GOES_ON = frozenset("RESHAPE MUL ADD MAXIMUM MEAN QUANTIZE RSQRT".split())
_VERSIONS = {"RESHAPE": 1, "RSQRT": 2, "BATCH_MATMUL": 2, "MEAN": 2, "ADD": 3}
_LAST = 32767


def widen_squares(draft: Draft) -> None:
    """Lets sums of squares and their roots be 16-bit integers.

    Args:
        draft: an integer file, changed in place.
    """
    for op in list(draft.operators):
        if _is_square(draft, op):
            _widen(draft, op)


def _is_square(draft: Draft, op: Any) -> bool:
    """Whether an operation multiplies 8-bit rows with themselves, [N, 1, C] with its transpose, and is to be wide."""
    if draft.kind(op) != "BATCH_MATMUL" or op.inputs[0] != op.inputs[1] or draft.type(op.outputs[0]) != "INT8":
        return False
    if WIDE not in draft.name(op.outputs[0]):
        return False
    shape = draft.tensors[op.inputs[0]].shape
    return len(shape) == 3 and shape[1] == 1 and bool(op.builtinOptions.adjY) and not op.builtinOptions.adjX


def _widen(draft: Draft, op: Any) -> None:
    source = op.inputs[0]
    scale = float(draft.grid(source).scale[0])
    wide = _tensor(draft, source, scale)
    draft.insert(draft.place(op), "QUANTIZE", [source], [wide], schema.QuantizeOptionsT(), version=2)
    op.inputs = [wide, wide]
    while True:
        result = op.outputs[0]
        op.outputs = [wide := _tensor(draft, result, _scale(draft, op, result))]
        draft.become(op, draft.kind(op), op.inputs, op.builtinOptions, _VERSIONS.get(draft.kind(op), 2))
        readers = draft.users().get(result, [])
        following = readers[0] if len(readers) == 1 and result not in draft.outputs else None
        if following is None or draft.kind(op) == "RSQRT" or not _can_follow(draft, following, result):
            break
        following.inputs = [_operand(draft, i, result, wide, following) for i in following.inputs]
        op = following
    draft.insert(draft.place(op) + 1, "QUANTIZE", [wide], [result], schema.QuantizeOptionsT(), version=2)


def _can_follow(draft: Draft, op: Any, index: int) -> bool:
    others = [i for i in op.inputs if i != index]
    return (
        draft.kind(op) in _GOES_ON
        and draft.type(op.outputs[0]) == "INT8"
        and op.inputs.count(index) == 1
        and all(draft.is_constant(i) for i in others)
    )


def _scale(draft: Draft, op: Any, result: int) -> float:
    """The 16-bit step of a result: the range that it had in 8 bits, or the grid of what is only handed on."""
    if draft.kind(op) in ("RESHAPE", "MAXIMUM"):
        moving = next(i for i in op.inputs if draft.type(i) == "INT16" and not draft.is_constant(i))
        return float(draft.grid(moving).scale[0])
    grid = draft.grid(result)
    ends = [(code - int(grid.zeroPoint[0])) * float(grid.scale[0]) for code in (-128, 127)]
    return max(map(abs, ends)) / _LAST


def _operand(draft: Draft, index: int, old: int, new: int, op: Any) -> int:
    """What stands in 16 bits for an operand: the tensor before, or a constant on a grid of its own."""
    if index == old:
        return new
    if draft.type(index) != "INT8":
        return index
    grid = draft.grid(index)
    value = (draft.value(index).astype(np.float64) - int(grid.zeroPoint[0])) * float(grid.scale[0])
    largest = float(np.abs(value).max(initial=0.0)) or 1.0
    scale = float(draft.grid(new).scale[0]) if draft.kind(op) == "MAXIMUM" else largest / _LAST
    codes = np.clip(np.round(value / np.float32(scale)), -_LAST, _LAST).astype(np.int16)
    return draft.add_constant(codes, f"{draft.name(index)}_int16", quantization=_grid(scale))


def _tensor(draft: Draft, like: int, scale: float) -> int:
    shape, name = draft.tensors[like].shape, f"{draft.name(like)}_int16"
    return draft.add_tensor(shape, "INT16", name, quantization=_grid(scale))


def _grid(scale: float) -> Any:
    return schema.QuantizationParametersT(scale=np.array([scale], np.float32), zeroPoint=np.zeros(1, np.int64))
