"""How far two arrays agree that should hold the same numbers."""

from dataclasses import dataclass

import numpy as np

from tflite_export.graph import Quantization


@dataclass(frozen=True)
class Agreement:
    """Of what one side computed with what the other did.

    Attributes:
        equal: share of elements that are the same integer of the grid; without a grid, the same number.
        steps: largest difference in steps of the grid; None without one.
        rms: root of the mean square of the difference in steps; None without a grid.
        largest: largest difference of real values.
        snr: 10 log10(sum(expected^2) / sum((expected - got)^2)) in dB; infinite when there is no difference.
        argmax: share of rows with the same largest element along the last axis; None where there is only one element.
    """

    equal: float
    steps: int | None
    rms: float | None
    largest: float
    snr: float
    argmax: float | None


def agreement(
    expected: np.ndarray, got: np.ndarray, grid: Quantization | None = None, dtype: np.dtype | None = None
) -> Agreement:
    """Compares real values.

    Args:
        expected: [rows, ...] real values.
        got: real values of the same shape.
        grid: the integer grid that `got` lies on; `expected` is rounded to it before steps are counted.
        dtype: integer type of the grid.

    Raises:
        ValueError: the shapes differ.

    >>> grid = Quantization(np.float32([0.5]), np.array([0]))
    >>> found = agreement(np.array([[1.0, 2.1]]), np.array([[1.0, 3.0]]), grid, np.dtype("int8"))
    >>> found.equal, found.steps, found.argmax, round(found.snr, 2)
    (0.5, 2, 1.0, 8.25)
    """
    if expected.shape != got.shape:
        raise ValueError(f"Arrays of shapes {list(expected.shape)} and {list(got.shape)} cannot be compared")
    left, right = expected.astype(np.float64), got.astype(np.float64)
    noise = float(np.sum((left - right) ** 2))
    signal = float(np.sum(left**2))
    steps, rms = None, None
    if grid is not None and dtype is not None:
        apart = grid.integers(expected, dtype).astype(np.int64) - grid.integers(got, dtype).astype(np.int64)
        equal = float(np.mean(apart == 0)) if apart.size else 1.0
        steps = int(np.abs(apart).max(initial=0))
        rms = float(np.sqrt(np.mean(apart.astype(np.float64) ** 2))) if apart.size else 0.0
    else:
        equal = float(np.mean(left == right)) if left.size else 1.0
    several = left.ndim > 1 and left.shape[-1] > 1
    return Agreement(
        equal=equal,
        steps=steps,
        rms=rms,
        largest=float(np.abs(left - right).max(initial=0.0)),
        snr=_decibels(signal, noise),
        argmax=float(np.mean(left.argmax(-1) == right.argmax(-1))) if several else None,
    )


def _decibels(signal: float, noise: float) -> float:
    if noise == 0:
        return float("inf")
    return 10 * float(np.log10(signal / noise)) if signal > 0 else float("-inf")
