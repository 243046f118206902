"""What rows are multiplied by: ranges of roots and reciprocals.

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

Samples = list[list[np.ndarray]]
_CANDIDATES = 64


def limit_factors(draft: Draft, samples: Samples) -> None:
    """Pins the range of roots and reciprocals that rows without content would make too wide.

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
    for (index, _), found in zip(factors, rows, strict=True):
        size, energy = (np.concatenate(part).astype(np.float64) for part in zip(*found, strict=True))
        if np.all(np.isfinite(size)) and size.min() >= 0 and size.max() > 0:
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
