"""Sums with constants that 8 bits round too coarsely, in 16 bits: learned positions, offsets of inputs.

In the model the constant is exact; in the file its own rounding adds to that of the result, s^2 / 12 each.
"""

from typing import Any

from tflite_export.draft import Draft
from tflite_export.widening import Constants, widen

# A constant's step so large a part of the result's adds half a decibel of noise.
_COARSE = 0.35


def widen_sums(draft: Draft, constants: Constants) -> None:
    """Lets sums with coarsely rounded constants be 16-bit integers.

    Args:
        draft: an integer file, changed in place.
        constants: of `widening.float_constants`.
    """
    for op in list(draft.operators):
        if draft.kind(op) in ("ADD", "SUB") and _is_coarse(draft, op, constants):
            widen(draft, [op], constants)


def _is_coarse(draft: Draft, op: Any, constants: Constants) -> bool:
    if {draft.type(i) for i in (*op.inputs, *op.outputs)} != {"INT8"}:
        return False
    fixed = [i for i in op.inputs if draft.is_constant(i)]
    if len(fixed) != 1 or draft.name(fixed[0]) not in constants or draft.value(fixed[0]).size == 1:
        return False
    return float(draft.grid(fixed[0]).scale[0]) > _COARSE * float(draft.grid(op.outputs[0]).scale[0])
