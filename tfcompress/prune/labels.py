"""Labels of channels: numbers that flow through a graph, so that what must live or die together has one name."""

from collections.abc import Iterable
from typing import Any

import numpy as np

#: One label for each position along an axis of a tensor or weight; 0 is what no one can remove.
Vector = np.ndarray
#: The labels of a tensor, axis by axis; None for an axis of any length. A number of the tensor is removed when the
#: label of its position on some axis is.
Axes = tuple[Vector | None, ...]


class Labels:
    """Labels in classes: those of one class live or die together.

    >>> labels = Labels()
    >>> first, second = labels.fresh(3), labels.fresh(3)
    >>> labels.tie(first, second)
    >>> labels.fix(first[:1], "it is an output")
    >>> labels.roots(second).tolist(), labels.reason(second[0]), labels.reason(second[1])
    ([1, 2, 3], 'it is an output', None)
    """

    def __init__(self) -> None:
        self._parents = np.zeros(64, np.int64)
        self._count = 1
        self._fixed: dict[int, str] = {0: "it comes from an input of the model or from a constant"}
        self._rescaled: dict[int, str] = {}

    def fresh(self, count: int) -> Vector:
        """Labels that no other axis has, [count]."""
        if self._count + count > len(self._parents):
            grown = np.zeros(2 * (self._count + count), np.int64)
            grown[: self._count] = self._parents[: self._count]
            self._parents = grown
        new = np.arange(self._count, self._count + count)
        self._parents[new] = new
        self._count += count
        return new

    def roots(self, vector: Vector) -> Vector:
        """The class of each label: one number for all labels of a class."""
        found = self._parents[vector]
        while True:
            above = self._parents[found]
            if np.array_equal(above, found):
                return found
            found = above

    def tie(self, first: Vector, second: Vector) -> None:
        """Let labels live or die together, pair by pair; a label tied to 0 is fixed."""
        pairs = np.stack([self.roots(np.ravel(first)), self.roots(np.ravel(second))], 1)
        for a, b in np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0):
            self._tie(int(a), int(b))

    def tie_rows(self, matrix: np.ndarray) -> None:
        """Let all labels of each row of [n, m] live or die together."""
        for column in np.unique(matrix[:, 1:], axis=1).T if matrix.shape[1] > 1 else ():
            self.tie(matrix[:, 0], column)

    def _tie(self, a: int, b: int) -> None:
        a, b = (int(self.roots(np.array([label]))[0]) for label in (a, b))
        if a == b:
            return
        low, high = min(a, b), max(a, b)
        if low == 0:
            self._fixed.setdefault(high, "it meets an input of the model or a constant")
            return
        self._parents[high] = low
        for marks in (self._fixed, self._rescaled):
            if high in marks:
                marks.setdefault(low, marks.pop(high))

    def fix(self, vectors: Vector | Iterable[Vector | None], reason: str, *, above: bool = False) -> None:
        """Let labels live, for a reason; one that stands `above` others is told in their place."""
        self._mark(self._fixed, vectors, reason, above)

    def rescale(self, vector: Vector, reason: str) -> None:
        """Note that removing these labels is not the same as setting them to zero, for a reason."""
        self._mark(self._rescaled, vector, reason)

    def _mark(self, marks: dict[int, str], vectors: Any, reason: str, above: bool = False) -> None:
        for vector in [vectors] if isinstance(vectors, np.ndarray) else vectors:
            for root in np.unique(self.roots(np.ravel(vector))) if vector is not None else ():
                marks[int(root)] = reason if above else marks.get(int(root), reason)

    def reason(self, label: Any) -> str | None:
        """Why a label cannot be removed, or None."""
        return self._fixed.get(int(self.roots(np.array([label]))[0]))

    def rescaling(self, label: Any) -> str | None:
        """Why removing a label is not the same as setting it to zero, or None."""
        return self._rescaled.get(int(self.roots(np.array([label]))[0]))

    def free(self, vector: Vector | None) -> bool:
        """Whether some label of an axis may be removed."""
        return vector is not None and any(int(root) not in self._fixed for root in np.unique(self.roots(vector)))

    def along(self, elements: np.ndarray, taken: Iterable[int] = ()) -> tuple[int, Vector]:
        """The axis of a tensor along which its labels lie, and the labels there.

        Where every position along some axis has one label (-1 stands for any), nothing is tied. Otherwise the labels
        of a position are tied, along the axis that leaves the most classes: after a split of channels into groups
        those that have the same place within their group.

        Args:
            elements: a label or -1 for each number of the tensor.
            taken: axes that hold other labels already.

        Returns:
            The axis and its labels, which are tied already; 0 where all are -1.
        """
        axes = [axis for axis in range(elements.ndim) if axis not in set(taken) and elements.shape[axis] > 1]
        total = np.unique(elements[elements >= 0]).size
        best: tuple[tuple[int, bool], int, np.ndarray] | None = None
        elements = np.where(elements < 0, -1, self.roots(np.maximum(elements, 0)))
        for axis in axes:
            rows = np.moveaxis(elements, axis, 0).reshape(elements.shape[axis], -1)
            first = np.max(rows, axis=1)
            exact = bool(np.all((rows == first[:, None]) | (rows < 0)))
            rows = first[:, None] if exact else np.unique(np.where(rows < 0, first[:, None], rows), axis=1)
            score = np.unique(first).size if exact else _components(rows), exact
            if best is None or score > best[0]:
                best = score, axis, rows
            if exact and score[0] == total:
                break
        if best is None:
            raise ValueError(f"`elements` must have a free axis that is longer than 1. Received: {elements.shape}")
        _, axis, rows = best
        vector = np.maximum(rows[:, 0], 0)
        self.tie_rows(np.maximum(rows, 0))
        return axis, vector


def _components(rows: np.ndarray) -> int:
    """How many classes remain when the labels of each row are tied."""
    labels, places = np.unique(rows, return_inverse=True)
    parents = np.arange(labels.size)

    def root(i: int) -> int:
        while parents[i] != i:
            i = parents[i]
        return i

    for row in np.unique(places.reshape(rows.shape), axis=0):
        unique = np.unique(row)
        for other in unique[1:]:
            a, b = root(int(unique[0])), root(int(other))
            parents[max(a, b)] = min(a, b)
    return len({root(i) for i in range(labels.size)})
