"""Functions of one 8-bit tensor as a table of 256 integers.

    y = table[x + 128]          CAST to 32 bits, ADD 128, GATHER

The table is rounded once, every kernel set computes the same, and no operation of it is float.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.draft import Draft

# Of the operation's operands, the tensor replaced by all its 256 real values. Functions of one value at a time.
TABLES: dict[str, Callable[..., np.ndarray]] = {
    "CEIL": np.ceil,
    "COS": np.cos,
    "DIV": np.divide,
    "FLOOR": np.floor,
    "POW": np.power,
    "ROUND": np.round,
    "SIGN": np.sign,
    "SIN": np.sin,
    "SQRT": np.sqrt,
}
_CODES = np.arange(-128, 128)


def is_tabled(draft: Draft, op: Any) -> bool:
    """Whether an operation is a function of one tensor that a table can hold."""
    if draft.kind(op) not in TABLES:
        return False
    moving = [i for i in op.inputs if not draft.is_constant(i)]
    constants = [i for i in op.inputs if draft.is_constant(i)]
    known = all(draft.is_float(i) or draft.grid(i) is not None for i in constants)
    return len(moving) == 1 and known and all(draft.value(i).size == 1 for i in constants)


def look_up(draft: Draft) -> None:
    """Operations of `TABLES` whose operand and result are 8-bit integers look their results up.

    Args:
        draft: an integer file, changed in place.
    """
    for op in list(draft.operators):
        if is_tabled(draft, op) and draft.type(op.outputs[0]) == "INT8":
            source = next(i for i in op.inputs if not draft.is_constant(i))
            if draft.type(source) == "INT8":
                _tabulate(draft, op, source)


def _tabulate(draft: Draft, op: Any, source: int) -> None:
    result = op.outputs[0]
    grid, name = draft.grid(result), draft.name(result)
    operands = [_real(draft, i, _CODES) if i == source else _real(draft, i, draft.value(i)) for i in op.inputs]
    with np.errstate(all="ignore"):
        values = np.broadcast_to(np.nan_to_num(TABLES[draft.kind(op)](*operands), nan=0.0), _CODES.shape)
        codes = np.round(values / float(grid.scale[0])) + int(grid.zeroPoint[0])
    table = draft.add_constant(np.clip(codes, -128, 127).astype(np.int8), f"{name}/table", quantization=grid)
    shape, place = draft.tensors[source].shape, draft.place(op)
    number = draft.add_tensor(shape, "INT32", f"{name}/cast")
    position = draft.add_tensor(shape, "INT32", f"{name}/position")
    types = schema.TensorType
    draft.insert(place, "CAST", [source], [number], schema.CastOptionsT(types.INT8, types.INT32))
    half = draft.add_constant(np.array(128, np.int32), f"{name}/half")
    draft.insert(place + 1, "ADD", [number, half], [position], schema.AddOptionsT())
    draft.become(op, "GATHER", [table, position], schema.GatherOptionsT(), version=2)


def _real(draft: Draft, index: int, codes: np.ndarray) -> np.ndarray:
    """Real values of a tensor's integers; a real constant is itself."""
    grid = draft.grid(index)
    if grid is None:
        return np.float64(np.ravel(codes)[0])
    return (codes.astype(np.float64).ravel() - int(grid.zeroPoint[0])) * float(grid.scale[0])
