"""Ranges that a model has learned: QUANTIZE and DEQUANTIZE pairs in a float file, and the tensors that lack a range."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfcompress.core.grid import fixed_points
from tflite_export.draft import Draft
from tflite_export.graph import DTYPES

# Their one float result has the grid of their one float input: it needs no range of its own.
SAME_GRID = frozenset(
    "RESHAPE TRANSPOSE MAX_POOL_2D STRIDED_SLICE SLICE SPLIT SPLIT_V GATHER GATHER_ND PAD PADV2 MIRROR_PAD SQUEEZE "
    "EXPAND_DIMS BROADCAST_TO TILE SPACE_TO_DEPTH DEPTH_TO_SPACE BATCH_TO_SPACE_ND SPACE_TO_BATCH_ND REVERSE_V2 UNPACK "
    "RESIZE_NEAREST_NEIGHBOR RESIZE_BILINEAR REDUCE_MAX REDUCE_MIN ARG_MAX ARG_MIN TOPK_V2 CUMSUM".split()
)
# Scales from here down belong to ranges that hold nothing but zero.
_NO_WIDTH = 1e-7
# Their result holds every value of their input and no other: a range that is learned behind them is the input's too.
_RESHAPING = frozenset("RESHAPE TRANSPOSE SQUEEZE EXPAND_DIMS REVERSE_V2 SPACE_TO_DEPTH DEPTH_TO_SPACE".split())
# Their result has a range of its own, whatever the values; in 16 bits its scale is 1 / 32768.
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


def widen(draft: Draft) -> list[str]:
    """Gives a usable grid to learned ranges of no width: those of tensors that are always zero.

    On them the factor from one tensor's scale to the next would be too large for the kernels, and zero stays zero.

    Args:
        draft: changed in place.

    Returns:
        Names of the tensors.
    """
    found = []
    for op in draft.operators:
        if draft.kind(op) == "QUANTIZE" and draft.grid(op.outputs[0]).scale[0] < _NO_WIDTH:
            draft.grid(op.outputs[0]).scale = np.array([1 / 255], np.float32)
            found.append(draft.name(op.outputs[0]))
    return found


def learned(draft: Draft) -> dict[int, tuple[float, float]]:
    """Float tensors whose range the model has fixed -> that range: results of DEQUANTIZE."""
    found = {}
    for op in draft.operators:
        if (
            draft.kind(op) == "DEQUANTIZE"
            and draft.grid(op.inputs[0]) is not None
            and not draft.is_constant(op.inputs[0])
        ):
            found[op.outputs[0]] = _ends(draft, op.inputs[0])
    return found


def ahead(draft: Draft) -> dict[int, tuple[float, float]]:
    """Float tensors that are read by QUANTIZE alone, at once or behind operations that only reorder or join -> that
    range."""
    users = draft.users()
    found: dict[int, tuple[float, float]] = {}
    found.update((op.outputs[0], _ends(draft, op.outputs[0])) for op in draft.operators if draft.kind(op) == "QUANTIZE")
    for index in [*reversed([o for op in draft.operators for o in op.outputs]), *draft.inputs]:
        readers = users.get(index, [])
        known = [_known(draft, op, found) for op in readers]
        if draft.is_float(index) and index not in draft.outputs and known and known[0] and None not in known:
            found[index] = known[0]
    return {index: pair for index, pair in found.items() if draft.is_float(index)}


def _known(draft: Draft, op: Any, found: dict[int, tuple[float, float]]) -> tuple[float, float] | None:
    """The range that an operation gives to what it reads."""
    kind = draft.kind(op)
    # What is joined must be on one grid: with ranges of their own, parts would be clipped to that of one of them.
    joins = kind in ("QUANTIZE", "CONCATENATION", "PACK")
    return found.get(op.outputs[0]) if joins or kind in _RESHAPING else None


def unranged(draft: Draft) -> list[int]:
    """Float tensors that need a measured range, in the order in which they are computed.

    Left out: results of DEQUANTIZE, tensors that only go to a QUANTIZE, results that share the grid of what they are
    made of, and results of operations with a fixed range.
    """
    done = {*learned(draft), *ahead(draft)}
    found = [i for i in (*draft.inputs, *_results(draft)) if draft.is_float(i) and i not in done]
    return list(dict.fromkeys(found))


def without_pairs(draft: Draft) -> dict[int, tuple[float, float]]:
    """Removes the pairs of QUANTIZE and DEQUANTIZE.

    Args:
        draft: changed in place.

    Returns:
        For each float tensor that had pairs behind it the range that they gave it; the widest, if several did.
    """
    behind: dict[int, int] = {}
    found: dict[int, tuple[float, float]] = {}
    kept = []
    for op in draft.operators:
        op.inputs = [behind.get(i, i) for i in op.inputs]
        if draft.kind(op) == "QUANTIZE":
            source, (low, high) = op.inputs[0], _ends(draft, op.outputs[0])
            before = found.get(source, (0.0, 0.0))
            found[source] = min(low, before[0]), max(high, before[1])
            behind[op.outputs[0]] = source
        elif draft.kind(op) == "DEQUANTIZE" and op.inputs[0] in found:
            behind[op.outputs[0]] = op.inputs[0]
        else:
            kept.append(op)
    draft.graph.operators = kept
    draft.graph.outputs = [behind.get(i, i) for i in draft.outputs]
    return found


def fixed(draft: Draft) -> dict[int, tuple[float, float]]:
    """Results of operations whose 16-bit grid is fixed -> the range of that grid."""
    made = [op.outputs[0] for op in draft.operators if draft.kind(op) in FIXED]
    return {index: (-32767 / 32768, 32767 / 32768) for index in made if draft.is_float(index)}


def grid_of(low: float, high: float, bits: int) -> tuple[float, int]:
    """Scale and zero point of a range: 16 bits have the zero point 0, 8 bits the one that fits the range.

    >>> grid_of(0.0, 255.0, 8), grid_of(-1.0, 32767.0, 16)
    ((1.0, -128), (1.0, 0))
    """
    return fixed_points(low, high, bits, symmetric=bits == 16)


def pin(draft: Draft, index: int, low: float, high: float, bits: int) -> None:
    """Puts a QUANTIZE and a DEQUANTIZE behind a tensor: its grid is this one, whatever the quantizer finds elsewhere.

    A written range is not enough in two cases. In 16 bits its zero point becomes 0 or -1 by the last bit of a rounding,
    and the kernels refuse -1. And a range that is learned behind a slice would become that of the whole.

    Args:
        draft: changed in place.
        index: a float tensor.
        low, high: the range that the grid holds.
        bits: 8 or 16.
    """
    scale, zero = grid_of(low, high, bits)
    quantization = schema.QuantizationParametersT(scale=np.array([scale], np.float32), zeroPoint=np.array([zero]))
    shape, name = draft.tensors[index].shape, draft.name(index)
    stored = draft.add_tensor(shape, f"INT{bits}", f"{name}_int{bits}", quantization=quantization)
    real = draft.add_tensor(shape, "FLOAT32", name + "_real")
    makers = [place for place, op in enumerate(draft.operators) if index in op.outputs]
    if index in draft.outputs:  # the pair stands before the name that the user knows
        for op in draft.operators:
            op.outputs = [real if i == index else i for i in op.outputs]
        index, real = real, index
    else:
        draft.replace_uses(index, real)
    at = makers[0] + 1 if makers else 0
    draft.insert(at, "QUANTIZE", [index], [stored], schema.QuantizeOptionsT(), version=2)
    draft.insert(at + 1, "DEQUANTIZE", [stored], [real], schema.DequantizeOptionsT(), version=3)


def behind_parts(draft: Draft) -> set[int]:
    """Tensors of which a part (a slice, looked up rows) has a learned range."""
    known = {*ahead(draft), *learned(draft)}
    parts = SAME_GRID - _RESHAPING
    return {op.inputs[0] for op in draft.operators if draft.kind(op) in parts and known.intersection(op.outputs)}


def behind_pools(draft: Draft) -> dict[int, tuple[float, float]]:
    """Pools of tensors whose range is learned -> that range, as far as an average over windows stands among them.

    All have one grid, which the quantizer does not give them where what follows (a concatenation) asks for another;
    of a maximum that is averaged it then leaves the other readers in float.
    """
    known, ready = learned(draft), ahead(draft)
    makers: dict[int, Any] = {}
    found: dict[int, tuple[float, float]] = {}
    for op in draft.operators:
        source, result = op.inputs[0], op.outputs[0]
        if draft.kind(op) in ("MAX_POOL_2D", "AVERAGE_POOL_2D", *_RESHAPING) and source in known:
            makers[result], known[result] = op, known[source]
        if draft.kind(op) == "AVERAGE_POOL_2D":
            while result in makers:
                found[result] = known[result]
                result = makers[result].inputs[0]
    return {index: pair for index, pair in found.items() if index not in ready}


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
    grid, limits = draft.grid(index), np.iinfo(DTYPES[draft.type(index)])
    scale, zero = float(np.ravel(grid.scale)[0]), int(np.ravel(grid.zeroPoint)[0])
    return (limits.min - zero) * scale, (limits.max - zero) * scale
