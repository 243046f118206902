"""Normalizations in 16 bits inside of an 8-bit file.

What lies between the rows that are normalized and the result has no grid that training knows: every step of it, the
mean, the difference, the root and the products, would be rounded to 8 bits once more than in the model. The rows become
16 bits wide, exactly, and so does all that follows up to the result, which goes back to 8 bits:

    int8 -> QUANTIZE -> MEAN -> SUB -> BATCH_MATMUL -> MUL -> ADD -> RSQRT -> MUL -> MUL -> ADD -> QUANTIZE -> int8
"""

from typing import Any

from tflite_export.draft import Draft
from tflite_export.widening import VERSIONS, Constants, widen

# A mean that is rounded to so small a part of the differences' step adds a tenth of their noise.
_FINE = 0.35
_MOVING = ("RESHAPE", "TRANSPOSE", "QUANTIZE")


def widen_normalizations(draft: Draft, constants: Constants) -> int:
    """Lets everything between rows and their normalized form be 16-bit integers.

    Args:
        draft: an integer file, changed in place.
        constants: of `widening.float_constants`.

    Returns:
        How many.
    """
    count = 0
    for op in list(draft.operators):
        if _is_square(draft, op):
            inside = _between(draft, _rows(draft, op.inputs[0]), op)
            if any(draft.kind(one) == "RSQRT" for one in inside):
                widen(draft, inside, constants)
                count += 1
    return count


def _is_square(draft: Draft, op: Any) -> bool:
    """Whether an operation multiplies 8-bit rows with themselves, [N, 1, C] with its transpose."""
    if draft.kind(op) != "BATCH_MATMUL" or op.inputs[0] != op.inputs[1] or draft.type(op.outputs[0]) != "INT8":
        return False
    shape = draft.tensors[op.inputs[0]].shape
    return len(shape) == 3 and shape[1] == 1 and bool(op.builtinOptions.adjY) and not op.builtinOptions.adjX


def _rows(draft: Draft, index: int) -> int:
    """x of the x - mean(x) that is squared, or what is squared itself."""
    makers = draft.makers()

    def behind(index: int, *kinds: str) -> int:
        while index in makers and draft.kind(makers[index]) in kinds:
            index = next(i for i in makers[index].inputs if not draft.is_constant(i))
        return index

    index = behind(index, "RESHAPE", "TRANSPOSE")
    if index in makers and draft.kind(makers[index]) == "SUB":
        x, mean = makers[index].inputs
        mean = behind(mean, "RESHAPE", "QUANTIZE")
        if mean in makers and draft.kind(makers[mean]) == "MEAN" and makers[mean].inputs[0] == x:
            return x
    return index


def _between(draft: Draft, rows: int, square: Any) -> list[Any]:
    """The operations that compute with `rows` and constants alone, and lead to `square` or come from it."""
    known, found, finest = {rows}, [], _FINE * _step(draft, square.inputs[0])
    for op in draft.operators:
        if draft.kind(op) == "MEAN" and op.inputs[0] == rows and _step(draft, op.outputs[0]) <= finest:
            known.add(op.outputs[0])  # 8 bits, on a grid of its own, take a hundredth of the time
            continue
        moving = [i for i in op.inputs if not draft.is_constant(i)]
        fits = draft.kind(op) in VERSIONS and draft.type(op.outputs[0]) == "INT8"
        if moving and fits and set(moving) <= known:
            known.add(op.outputs[0])
            found.append(op)
    leading, coming = set(square.inputs), set(square.outputs)
    for op in reversed(found):
        if op.outputs[0] in leading:
            leading.update(op.inputs)
    for op in found:
        if coming & set(op.inputs):
            coming.update(op.outputs)
    inside, read = [], set()
    for op in reversed(found):
        # What is only moved behind the result stays in 8 bits.
        if op.outputs[0] in leading | coming and (draft.kind(op) not in _MOVING or op.outputs[0] in read):
            inside.append(op)
            read.update(op.inputs)
    return inside[::-1]


def _step(draft: Draft, index: int) -> float:
    return float(draft.grid(index).scale[0])
