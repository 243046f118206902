"""How many values of a constant are zero, and how many different ones it holds."""

from dataclasses import dataclass
from math import prod

import numpy as np

from tflite_export.graph import DTYPES, PACKED, Tensor

_CHUNK = 1 << 16


@dataclass(frozen=True)
class Census:
    """What a constant's values are.

    Attributes:
        size: number of values, those included that a sparse constant does not store.
        zeros: how many of them stand for the real number 0; of a quantized constant those at its zero point.
        distinct: how many different values the file holds; integers count as integers, whatever their scales.
    """

    size: int
    zeros: int
    distinct: int

    @property
    def share(self) -> float:
        """Share of zeros, 0 for an empty constant."""
        return self.zeros / self.size if self.size else 0.0


def census(tensor: Tensor) -> Census | None:
    """Counts of a constant; None for a tensor that is none, or whose type holds no numbers.

    Raises:
        ValueError: the bytes of the constant do not fit its shape.
    """
    if tensor.data is None or not (tensor.type in DTYPES or tensor.type in PACKED or tensor.type == "BFLOAT16"):
        return None
    if tensor.is_sparse:
        stored, size = tensor.stored, prod(tensor.shape)
        nonzero = int(np.count_nonzero(_away_from_zero(tensor, stored)))
        missing = size - stored.size
        absent = 1 if missing > 0 and not (stored == 0).any() else 0
        return Census(size, size - nonzero, distinct(stored) + absent)
    values = tensor.values()
    nonzero = int(np.count_nonzero(_away_from_zero(tensor, values)))
    return Census(values.size, values.size - nonzero, distinct(values.reshape(-1)))


def _away_from_zero(tensor: Tensor, values: np.ndarray) -> np.ndarray:
    """An array that is nonzero where `values` do not stand for 0."""
    grid = tensor.quantization
    if grid is None or not grid.zero_point.size or not grid.zero_point.any():
        return values
    if grid.zero_point.size == 1 or tensor.is_sparse:
        return values != grid.zero_point.reshape(-1)[0]
    return values != grid.zero_point.reshape([-1 if axis == grid.axis else 1 for axis in range(values.ndim)])


def distinct(values: np.ndarray) -> int:
    """Number of different values of a flat array; 0.0 and -0.0 are one.

    >>> distinct(np.array([1, 2, 2, 3], "int8")), distinct(np.array([0.0, -0.0, 1.5], "float16"))
    (3, 2)
    """
    if values.dtype.itemsize > 2:
        return int(np.unique(values).size)
    if values.dtype.kind == "f":
        values = np.where(values == 0, np.zeros((), values.dtype), values)  # -0.0 is 0.0
    codes = values.view(f"u{values.dtype.itemsize}")
    seen = np.zeros(1 << (8 * values.dtype.itemsize), bool)
    for start in range(0, codes.size, _CHUNK):
        seen[codes[start : start + _CHUNK]] = True
        if seen.all():
            break
    return int(seen.sum())
