"""Scales and biases of kernels to the last bit as the model has them, in place of what the converter rounded anew.

The converter folds a BatchNormalization in float32 and derives a kernel's scale and its bias from the result; each can
differ by its last digit from what the model computes with, and an inference in integers would feel it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tfcompress.core.folding import IntegerKernel
from tflite_export.draft import Draft
from tflite_export.kernels import CHANNEL_AXES, Codes, rows_of
from tflite_export.pairs import grid_of

# The converter's numbers differ from the model's by rounding only.
_SAME = 1e-4
# Where an operation has its input and its bias, and the channels' axis of its kernel.
_PLACES = {**{kind: (0, 2, axis) for kind, axis in CHANNEL_AXES.items()}, "TRANSPOSE_CONV": (2, 3, 0)}


@dataclass(frozen=True)
class Folded:
    """A kernel of the model with the normalization behind it.

    Attributes:
        source: "layer/weight".
        codes: [channels, numbers of a channel in the file's order].
        scale: float32 [channels] or [1].
        kernel: of the model.
    """

    source: str
    codes: np.ndarray
    scale: np.ndarray
    kernel: IntegerKernel


def folded(kernels: Sequence[IntegerKernel]) -> list[Folded]:
    """The kernels of a model as arrays."""
    found = []
    for kernel in kernels:
        codes = kernel.codes.numpy()
        found.append(Folded(kernel.source, codes.reshape(codes.shape[0], -1), kernel.scale.numpy(), kernel))
    return found


def exact_scale(codes: Codes, kernels: Sequence[Folded], axis: int | None) -> Codes:
    """The codes with the model's own scale, where it is theirs up to rounding."""
    rows = None if axis is None else rows_of(codes.codes, axis)
    for one in kernels:
        if one.source == codes.source and rows is not None and _is_scale(codes.scale, one.scale):
            if np.array_equal(rows, one.codes):
                return replace(codes, scale=one.scale)
    return codes


def _is_scale(found: np.ndarray, own: np.ndarray) -> bool:
    return found.size in (1, own.size) and bool(np.all(np.abs(found - own) <= _SAME * own))


def exact_biases(draft: Draft, kernels: Sequence[Folded]) -> None:
    """Writes the model's own biases where the converter's differ from them by rounding only.

    Args:
        draft: an integer file, changed in place.
        kernels: of the model.
    """
    readers = draft.users()
    for op in draft.operators:
        read, place, axis = _PLACES.get(draft.kind(op), (0, len(op.inputs), 0))
        index = op.inputs[place] if place < len(op.inputs) else -1
        if index < 0 or len(readers.get(index, [op])) > 1 or draft.type(index) not in ("INT32", "INT64"):
            continue
        one, grid = _kernel_of(draft, op, axis, kernels), grid_of(draft, op.inputs[read])
        if one is None or grid is None or one.kernel.bias is None:
            continue
        bias = draft.value(index)
        own = one.kernel.bias_codes(grid.scale[0], 16 if bias.dtype == np.int64 else 8).numpy()  # type: ignore[union-attr]
        if bias.shape == own.shape and np.all(np.abs(bias - own) <= np.maximum(1, _SAME * np.abs(own))):
            draft.set_value(index, own.astype(bias.dtype))


def _kernel_of(draft: Draft, op: Any, axis: int, kernels: Sequence[Folded]) -> Folded | None:
    """The model's kernel that an operation computes with."""
    index = op.inputs[1]
    grid = draft.grid(index)
    if grid is None or not draft.is_constant(index) or draft.type(index) != "INT8":
        return None
    rows, scale = rows_of(draft.value(index), axis), np.asarray(grid.scale, np.float32)
    return next((k for k in kernels if np.array_equal(scale, k.scale) and np.array_equal(rows, k.codes)), None)
