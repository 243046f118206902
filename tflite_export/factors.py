"""What rows are multiplied by: ranges of roots and reciprocals, and which roots need 16 bits.

A row that is nearly zero has an enormous root, which would be the range of all of them, and counts for nothing: it
multiplies what is nearly zero. The range ends at R where

    sum over rows of e ((min(r, R) - r)^2 + (R / 255)^2 / 12)

is smallest, e the sum of the squares of what the row is multiplied with.
"""

from typing import Any

import numpy as np

from tflite_export.draft import Draft
from tflite_export.learned import pin
from tflite_export.measure import runs
from tflite_export.wide_squares import WIDE

Samples = list[list[np.ndarray]]
_CANDIDATES = 64
# Roots noisier than 33 dB are computed in 16 bits, which takes three times as long.
_NOISE = 5e-4


def limit_factors(draft: Draft, samples: Samples) -> None:
    """Pins the range of roots and reciprocals that rows without content would make too wide; marks sums of squares
    whose roots would be lost in 8 bits.

    Args:
        draft: a float file, changed in place.
        samples: calibration data.
    """
    factors = _factors(draft)
    if not factors:
        return
    tensors = [index for pair in factors for index in pair]
    rows: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in factors]
    for values in runs(draft, samples, tensors):
        for found, factor, other in zip(rows, values[0::2], values[1::2], strict=True):
            found.append((factor.ravel().copy(), _energy(factor, other).ravel()))
    makers = draft.makers()
    for (index, _), found in zip(factors, rows, strict=True):
        size, energy = (np.concatenate(part).astype(np.float64) for part in zip(*found, strict=True))
        if np.all(np.isfinite(size)) and size.min() >= 0 and size.max() > 0:
            if draft.kind(makers[index]) == "RSQRT" and root_noise(size, energy) > _NOISE:
                _mark(draft, index, makers)
            end = best_end(size, energy)
            if end < 0.9 * size.max():
                tensor = draft.tensors[index]  # it no longer holds what the float model's tensor of this name holds
                tensor.name = f"{draft.name(index)}_limited".encode()
                pin(draft, index, 0.0, end, bits=8)


def best_end(values: np.ndarray, energy: np.ndarray) -> float:
    """The end of the range [0, R] at which the weighted error is smallest.

    >>> round(best_end(np.array([1.0, 1.0, 1000.0]), np.array([5.0, 5.0, 0.0])), 1)
    1.0
    """
    largest = float(values.max())
    smallest = max(float(values[values > 0].min(initial=largest)), largest * 1e-9)
    ends = np.geomspace(smallest, largest, _CANDIDATES)
    clipped = np.array([np.sum(energy * (np.minimum(values, end) - values) ** 2) for end in ends])
    return float(ends[np.argmin(clipped + energy.sum() * (ends / 255) ** 2 / 12)])


def root_noise(roots: np.ndarray, energy: np.ndarray) -> float:
    """Mean square of the relative error of roots of numbers that are rounded to 8 bits.

    Of the largest number 255 steps, of one whose root is k times as large 255 / k^2; half the relative error of a
    number is that of its root. Rows of which nothing is left do not count.

    >>> round(root_noise(np.array([1.0, 1.0]), np.ones(2)) * (2 * 255) ** 2 * 12, 6)
    1.0
    """
    rows = (energy > 0) & (roots > 0)
    if not rows.any():
        return 0.0
    times = np.square(roots[rows] / roots[rows].min())
    return float(np.mean(np.square(np.minimum(times / (2 * 255 * np.sqrt(12)), 1.0))))


def _mark(draft: Draft, index: int, makers: dict[int, Any]) -> None:
    """Asks for 16 bits where the sum of squares is made whose root this is."""
    while index in makers and draft.kind(makers[index]) != "BATCH_MATMUL":
        moving = [i for i in makers[index].inputs if not draft.is_constant(i)]
        if len(moving) != 1:
            return
        index = moving[0]
    if index in makers and makers[index].inputs[0] == makers[index].inputs[1]:
        draft.tensors[index].name = f"{draft.name(index)}{WIDE}".encode()


def _factors(draft: Draft) -> list[tuple[int, int]]:
    """(root or reciprocal, what it is multiplied with) of those that stand in one product and have no learned range."""
    users, found = draft.users(), []
    for op in draft.operators:
        if draft.kind(op) == "RSQRT" or (draft.kind(op) == "DIV" and draft.is_constant(op.inputs[0])):
            index = op.outputs[0]
            products = [user for user in users.get(index, []) if draft.kind(user) == "MUL"]
            if len(products) == 1 == len(users[index]) and index not in draft.outputs:
                other = next((i for i in products[0].inputs if i != index), None)
                if other is not None and not draft.is_constant(other):
                    found.append((index, other))
    return found


def _energy(factor: np.ndarray, other: np.ndarray) -> Any:
    """Sum of the squares of what each element of a factor is multiplied with, in the factor's shape."""
    rank = max(factor.ndim, other.ndim)
    shape = (1,) * (rank - factor.ndim) + factor.shape
    squares = np.square(other.astype(np.float64)).reshape((1,) * (rank - other.ndim) + other.shape)
    axes = tuple(axis for axis in range(rank) if shape[axis] == 1)
    return np.broadcast_to(squares.sum(axes, keepdims=True), shape)
