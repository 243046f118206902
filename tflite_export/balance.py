"""Ranges of what is the second factor of a product of activations.

XNNPACK multiplies 8-bit matrices only where the second has the zero point 0; other kernels take ten times as long. A
range that is nearly even is made so. Products of rows with themselves it takes one by one, which is slower than the
other kernels: their range is kept from having its zero there.
"""

from typing import Any

from tfcompress.core.grid import BALANCED
from tflite_export.draft import Draft
from tflite_export.learned import SAME_GRID, grid_of

# Moves the zero point by two or three.
_AWAY = 1.04
Ranges = dict[int, tuple[float, float]]


def balance(draft: Draft, found: Ranges) -> None:
    """Puts zero into the middle of measured ranges of second factors, where that makes them at most a quarter wider,
    and out of it where rows are multiplied with themselves.

    Args:
        draft: a float file.
        found: measured ranges by tensor, changed in place.
    """
    makers = draft.makers()
    for op in draft.operators:
        if draft.kind(op) != "BATCH_MATMUL" or draft.is_constant(op.inputs[1]):
            continue
        index = _origin(draft, op.inputs[1], makers)
        if index not in found:
            continue
        low, high = found[index]
        if op.inputs[0] != op.inputs[1]:
            found[index] = balanced(low, high) or (low, high)
        elif grid_of(low, high, 8)[1] == 0:
            found[index] = (_AWAY * low, high)


def balanced(low: float, high: float) -> tuple[float, float] | None:
    """The range [-m 128/127, m] around one, None where it would be much wider.

    >>> balanced(-1.0, 1.27), balanced(0.0, 1.0)
    ((-1.28, 1.27), None)
    """
    most = max(high, -low * 127 / 128)
    return (-most * 128 / 127, most) if most * 255 / 127 <= BALANCED * (high - low) else None


def _origin(draft: Draft, index: int, makers: dict[int, Any]) -> int:
    """What a tensor is moved from: it has its grid."""
    while index in makers and draft.kind(makers[index]) in SAME_GRID:
        index = makers[index].inputs[0]
    return index
