"""16-bit activations as the runtime's kernels want them, where the converter does otherwise."""

from collections.abc import Mapping

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.draft import Draft
from tflite_export.learned import SAME_GRID, grid_of

# Operations with a bias, and where it is.
_BIASES = {"CONV_2D": 2, "DEPTHWISE_CONV_2D": 2, "FULLY_CONNECTED": 2, "TRANSPOSE_CONV": 3}
# Operations whose constant operand is an activation, not a kernel.
_ELEMENTWISE = frozenset(
    "ADD SUB MUL DIV MAXIMUM MINIMUM SQUARED_DIFFERENCE CONCATENATION PACK SELECT SELECT_V2 PADV2 PRELU GATHER".split()
)
# Their operands and their result share one grid.
_JOINING = frozenset("SELECT SELECT_V2 MAXIMUM MINIMUM PACK CONCATENATION PADV2".split())
_HALF_OPEN = ("LOGISTIC", "TANH")


def joined(draft: Draft, ranges: Mapping[int, tuple[float, float]]) -> dict[int, tuple[float, float]]:
    """The same ranges, one for all tensors that must share a grid; those of constants are added.

    A selection, a maximum, a concatenation gives out what it reads: operands and result are on one grid, and so is
    what a reshape, a slice or a look-up makes of them.

    Args:
        draft: a float file.
        ranges: of its float tensors.
    """
    ranges = dict(ranges)
    owner: dict[int, int] = {}

    def root(index: int) -> int:
        while owner.get(index, index) != index:
            index = owner[index]
        return index

    for op in draft.operators:
        ends = [i for i in (*op.inputs, *op.outputs) if draft.is_float(i)]
        if draft.kind(op) in _ELEMENTWISE:
            ranges.update((i, _span(draft.value(i))) for i in op.inputs if draft.is_float(i) and draft.is_constant(i))
        if draft.kind(op) in _JOINING | SAME_GRID and ends:
            for index in ends[1:]:
                owner[root(index)] = root(ends[0])
    widest: dict[int, tuple[float, float]] = {}
    for index, (low, high) in ranges.items():
        before = widest.get(root(index), (0.0, 0.0))
        widest[root(index)] = min(low, before[0]), max(high, before[1])
    return {index: widest[root(index)] for index in ranges}


def _span(value: np.ndarray) -> tuple[float, float]:
    return float(value.min(initial=0.0)), float(value.max(initial=0.0))


def constants(draft: Draft, ranges: Mapping[int, tuple[float, float]]) -> None:
    """Writes float constants that stand for activations as 16-bit integers, a DEQUANTIZE behind each.

    The converter would make them 8-bit ones, and the kernels want both operands of one type.

    Args:
        draft: a float file, changed in place.
        ranges: of `joined`.
    """
    done: dict[int, int] = {}
    for op in list(draft.operators):
        if draft.kind(op) not in _ELEMENTWISE:
            continue
        for place, index in enumerate(op.inputs):
            if draft.is_float(index) and draft.is_constant(index):
                if index not in done:
                    done[index] = _sixteen(draft, index, *ranges[index])
                op.inputs[place] = done[index]


def _sixteen(draft: Draft, index: int, low: float, high: float) -> int:
    value, name = draft.value(index).astype(np.float64), draft.name(index)
    scale = np.float32(grid_of(low, high, 16)[0])
    grid = schema.QuantizationParametersT(scale=np.array([scale]), zeroPoint=np.zeros(1, np.int64))
    stored = draft.add_constant(np.round(value / scale).astype(np.int16), name, quantization=grid)
    real = draft.add_tensor(value.shape, "FLOAT32", name + "_real")
    draft.insert(0, "DEQUANTIZE", [stored], [real], schema.DequantizeOptionsT(), version=3)
    return real


def settle(draft: Draft) -> None:
    """Biases become 64-bit integers, sigmoid and tanh give the scale 1 / 32768 that their kernels ask for, and matrices
    of constants have the zero point 0.

    The converter writes 32-bit biases, which microcontrollers do not take with 16-bit activations and which could
    overflow, and the scale 1 / 65536 for a sigmoid, which no kernel takes.

    Args:
        draft: an integer file, changed in place.
    """
    wide: dict[int, int] = {}
    for op in draft.operators:
        if draft.kind(op) == "BATCH_MATMUL" and draft.type(op.outputs[0]) == "INT16":
            op.inputs = [_symmetric(draft, index) for index in op.inputs]
        place = _BIASES.get(draft.kind(op))
        if place is not None and len(op.inputs) > place and draft.type(op.outputs[0]) == "INT16":
            index = op.inputs[place]
            if index >= 0 and draft.is_constant(index) and draft.type(index) == "INT32":
                if index not in wide:
                    grid = draft.tensors[index].quantization
                    value = draft.value(index).astype(np.int64)
                    wide[index] = draft.add_constant(value, draft.name(index), quantization=grid)
                op.inputs[place] = wide[index]
        elif draft.kind(op) in _HALF_OPEN and draft.type(op.outputs[0]) == "INT16":
            grid = schema.QuantizationParametersT(
                scale=np.array([1 / 32768], np.float32), zeroPoint=np.zeros(1, np.int64)
            )
            draft.tensors[op.outputs[0]].quantization = grid


def _symmetric(draft: Draft, index: int) -> int:
    """A matrix of constants with the zero point 0: the 16-bit kernel takes no other."""
    if not draft.is_constant(index) or draft.type(index) != "INT8" or not np.any(draft.grid(index).zeroPoint):
        return index
    grid = draft.grid(index)
    value = (draft.value(index).astype(np.float64) - int(grid.zeroPoint[0])) * float(grid.scale[0])
    scale = np.float32(np.abs(value).max() / 127)
    own = schema.QuantizationParametersT(scale=np.array([scale]), zeroPoint=np.zeros(1, np.int64))
    return draft.add_constant(np.round(value / scale).astype(np.int8), draft.name(index), quantization=own)
