"""Ranges that a model has learned: QUANTIZE and DEQUANTIZE pairs in a float file, and the tensors that lack a range."""

from collections.abc import Iterable

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.draft import Draft

# Their one float result has the grid of their one float input: it needs no range of its own.
SAME_GRID = frozenset(
    "RESHAPE TRANSPOSE MAX_POOL_2D STRIDED_SLICE SLICE SPLIT SPLIT_V GATHER GATHER_ND PAD PADV2 MIRROR_PAD SQUEEZE "
    "EXPAND_DIMS BROADCAST_TO TILE SPACE_TO_DEPTH DEPTH_TO_SPACE BATCH_TO_SPACE_ND SPACE_TO_BATCH_ND REVERSE_V2 UNPACK "
    "RESIZE_NEAREST_NEIGHBOR RESIZE_BILINEAR REDUCE_MAX REDUCE_MIN ARG_MAX ARG_MIN TOPK_V2 CUMSUM".split()
)
# Their result has a range of its own, whatever the values.
FIXED = frozenset("SOFTMAX LOGISTIC TANH LOG_SOFTMAX L2_NORMALIZATION".split())


def heal(draft: Draft) -> None:
    """Puts DEQUANTIZE before every float operation that reads 8-bit values.

    The converter sometimes drops one (before a product of matrices), and leaves an operation of mixed types that only
    some kernels run, and not as meant.
    """
    real: dict[int, int] = {}
    for op in list(draft.operators):
        if draft.kind(op) in ("QUANTIZE", "DEQUANTIZE") or not any(draft.is_float(i) for i in op.outputs):
            continue
        for place, index in enumerate(op.inputs):
            if index < 0 or draft.is_constant(index) or draft.grid(index) is None:
                continue
            if index not in real:
                real[index] = draft.add_tensor(draft.tensors[index].shape, "FLOAT32", draft.name(index) + "_real")
                options = schema.DequantizeOptionsT()
                draft.insert(draft.place(op), "DEQUANTIZE", [index], [real[index]], options)
            op.inputs[place] = real[index]


def learned(draft: Draft) -> dict[int, tuple[float, float]]:
    """Float tensors whose range the model has fixed -> that range: results of DEQUANTIZE."""
    found = {}
    for op in draft.operators:
        if draft.kind(op) == "DEQUANTIZE" and draft.grid(op.inputs[0]) is not None and not draft.is_constant(op.inputs[0]):
            found[op.outputs[0]] = _ends(draft, op.inputs[0])
    return found


def input_ranges(draft: Draft) -> dict[int, tuple[float, float]]:
    """Inputs of the file whose range the model has fixed -> that range."""
    found = {}
    for op in draft.operators:
        if draft.kind(op) == "QUANTIZE" and op.inputs[0] in draft.inputs:
            found[op.inputs[0]] = _ends(draft, op.outputs[0])
    return found


def unranged(draft: Draft) -> list[int]:
    """Float tensors that need a measured range, in the order in which they are computed.

    Left out: results of DEQUANTIZE, tensors that are read by QUANTIZE alone, results that share the grid of what they
    are made of, and results of operations with a fixed range.
    """
    users, fixed = draft.users(), set(learned(draft))
    found = []
    for index in (*draft.inputs, *_results(draft)):
        readers = users.get(index, [])
        only_quantized = bool(readers) and all(draft.kind(op) == "QUANTIZE" for op in readers)
        if draft.is_float(index) and index not in fixed and not (only_quantized and index not in draft.outputs):
            found.append(index)
    return list(dict.fromkeys(found))


def symmetric(draft: Draft, top: int = 32767) -> dict[int, tuple[float, float]]:
    """Removes the 8-bit pairs; what they said becomes symmetric ranges around zero, for 16-bit activations.

    Args:
        draft: changed in place.
        top: the largest integer of the grid to come.

    Returns:
        For each float tensor that had a pair behind it the ends of a grid with zero point 0: (-(top + 1) s, top s).
    """
    behind: dict[int, int] = {}
    found: dict[int, tuple[float, float]] = {}
    kept = []
    for op in draft.operators:
        op.inputs = [behind.get(i, i) for i in op.inputs]
        if draft.kind(op) == "QUANTIZE":
            low, high = _ends(draft, op.outputs[0])
            source = op.inputs[0]
            bound = max(-low, high, found.get(source, (0.0, 0.0))[1])
            found[source] = (-bound, bound)
            behind[op.outputs[0]] = source
        elif draft.kind(op) == "DEQUANTIZE" and not draft.is_constant(op.inputs[0]) and op.inputs[0] in behind.values():
            behind[op.outputs[0]] = op.inputs[0]
        else:
            kept.append(op)
    draft.graph.operators = kept
    draft.graph.outputs = [behind.get(i, i) for i in draft.outputs]
    return {index: around_zero(*pair, top) for index, pair in found.items()}


def around_zero(low: float, high: float, top: int = 32767) -> tuple[float, float]:
    """The ends of the narrowest grid with zero point 0 that holds a range.

    >>> around_zero(-1.0, 3.0, top=3)
    (-4.0, 3.0)
    """
    bound = max(-low, high, 1e-9)
    return -bound * (top + 1) / top, bound


def _results(draft: Draft) -> Iterable[int]:
    """Results of operations that need a range of their own."""
    for op in draft.operators:
        kind = draft.kind(op)
        if kind not in ("QUANTIZE", "DEQUANTIZE") and kind not in FIXED:
            shares = kind in SAME_GRID and any(draft.is_float(i) and not draft.is_constant(i) for i in op.inputs)
            if not shares:
                yield from op.outputs


def _ends(draft: Draft, index: int) -> tuple[float, float]:
    """Real values of the smallest and the largest integer of a tensor's grid."""
    grid, limits = draft.grid(index), {"INT8": (-128, 127), "UINT8": (0, 255), "INT16": (-32768, 32767)}[draft.type(index)]
    scale, zero = float(np.ravel(grid.scale)[0]), int(np.ravel(grid.zeroPoint)[0])
    return (limits[0] - zero) * scale, (limits[1] - zero) * scale
