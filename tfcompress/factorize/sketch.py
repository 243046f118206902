"""Second moments of what reads too many numbers for a matrix of them: the directions of a sample, and a floor."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Sketch:
    """A symmetric root R of a second moment of which few directions are known, never laid out.

        R R' = V diag(v) V' + floor I

    Attributes:
        vectors: V, [n, k], orthonormal.
        values: v, [k], at least 0.
        floor: above 0.
    """

    vectors: np.ndarray
    values: np.ndarray
    floor: float

    @property
    def squares(self) -> float:
        """The sum of the squared numbers of R."""
        return float(np.sum(self.values)) + self.floor * len(self.vectors)

    def scaled(self, factor: float) -> "Sketch":
        """The root times a number."""
        return Sketch(self.vectors, self.values * factor**2, self.floor * factor**2)

    def times(self, matrix: np.ndarray) -> np.ndarray:
        """R M."""
        return self._with(matrix, np.sqrt(self.values + self.floor), self.floor**0.5)

    def solve(self, matrix: np.ndarray) -> np.ndarray:
        """The inverse of R times M."""
        return self._with(matrix, (self.values + self.floor) ** -0.5, self.floor**-0.5)

    def _with(self, matrix: np.ndarray, inside: np.ndarray, outside: float) -> np.ndarray:
        """M by its parts in the known directions and beside them."""
        return outside * matrix + self.vectors @ ((inside - outside)[:, None] * (self.vectors.T @ matrix))
