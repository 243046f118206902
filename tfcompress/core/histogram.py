"""The range of a tensor from a histogram of its values: minimum and maximum, percentile, mean square error, entropy."""

from dataclasses import dataclass, field

import numpy as np

METHODS = ("minmax", "percentile", "mse", "entropy")
BINS = 2048
_SHRINK = np.linspace(1.0, 0.2, 81)


@dataclass
class Histogram:
    """Counts of values in equal bins between two ends that are known before.

    Attributes:
        low, high: the smallest and the largest value; zero is put between them.
        counts: float64 [BINS], without the exact zeros.
        zeros: how many exact zeros there were. Every grid holds them, and after a ReLU they are most of the values.
    """

    low: float
    high: float
    counts: np.ndarray = field(default_factory=lambda: np.zeros(BINS))
    zeros: int = 0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.low) and np.isfinite(self.high)):
            raise ValueError(f"`low` and `high` must be finite. Received: low={self.low}, high={self.high}")
        self.low, self.high = min(float(self.low), 0.0), max(float(self.high), 0.0)

    def add(self, values: np.ndarray) -> None:
        """Count values; those outside the ends go to the outermost bins."""
        others = values[values != 0]
        self.zeros += values.size - others.size
        if self.high > self.low:
            self.counts += np.histogram(np.clip(others, self.low, self.high), BINS, (self.low, self.high))[0]

    @property
    def centers(self) -> np.ndarray:
        edges = np.linspace(self.low, self.high, BINS + 1)
        return (edges[:-1] + edges[1:]) / 2

    def range(self, method: str, bits: int = 8, percentile: float = 99.99) -> tuple[float, float]:
        """The range that a method chooses; zero lies inside.

        Args:
            method: "minmax", "percentile", "mse" or "entropy".
            bits: of the grid that the range will get, 8 or 16.
            percentile: in (50, 100], for "percentile".

        Returns:
            (low, high), inside the ends.

        Raises:
            ValueError: an unknown method, or a percentile outside its range.
        """
        check_method(method, percentile)
        if method == "minmax" or self.high <= self.low or not self.counts.any():
            return self.low, self.high
        if method == "percentile":
            return self._percentile(percentile)
        return self._mse(bits) if method == "mse" else self._entropy(bits)

    def _percentile(self, percentile: float) -> tuple[float, float]:
        """The ends that leave (100 - percentile) % of the values outside on each side that has any."""
        edges = np.linspace(self.low, self.high, BINS + 1)
        counts = self.counts.copy()
        counts[min(int(np.searchsorted(edges, 0.0, side="right")) - 1, BINS - 1)] += self.zeros
        total = np.cumsum(counts) / counts.sum()
        tail = 1.0 - percentile / 100.0
        high = edges[min(int(np.searchsorted(total, 1.0 - tail)) + 1, BINS)]
        low = edges[int(np.searchsorted(total, tail, side="right"))]
        return min(float(low), 0.0), max(float(high), 0.0)

    def _error(self, low: float, high: float, bits: int) -> float:
        """Sum of squared rounding and clipping errors on the grid of a range."""
        step = max(high - low, 1e-30) / (2**bits - 1)
        below = np.round(-low / step)
        first, last = -below * step, (2**bits - 1 - below) * step
        rounded = np.clip(np.round(self.centers / step) * step, first, last)
        # Values spread evenly over a bin: the part of the error that its center does not show.
        width = (self.high - self.low) / BINS
        spread = min(width, step) ** 2 / 12
        return float(np.sum(self.counts * ((self.centers - rounded) ** 2 + spread)))

    def _mse(self, bits: int) -> tuple[float, float]:
        """Both ends pulled in, one after the other, to the least squared error."""
        low, high = self.low, self.high
        for _ in range(2):
            high = min((self.high * s for s in _SHRINK), key=lambda end: self._error(low, end, bits))
            low = min((self.low * s for s in _SHRINK), key=lambda end: self._error(end, high, bits))
        return low, high

    def _entropy(self, bits: int) -> tuple[float, float]:
        """The threshold on |x| whose clipped, coarsened histogram is nearest to the true one in KL divergence.

        Source: Migacz, "8-bit inference with TensorRT", GTC 2017, calibration by relative entropy.
        """
        largest = max(-self.low, self.high)
        levels = 2 ** (bits - 1) - 1 if self.low < 0 else 2**bits - 1
        counts = np.histogram(np.abs(self.centers), BINS, (0, largest), weights=self.counts)[0]
        best, threshold = np.inf, largest
        for end in range(levels, BINS + 1, 8):
            divergence = _divergence(counts, end, levels)
            if divergence < best:
                best, threshold = divergence, largest * end / BINS
        return max(self.low, -threshold), min(self.high, threshold)


def _divergence(counts: np.ndarray, end: int, levels: int) -> float:
    """KL divergence of the histogram clipped at bin `end` from its version of `levels` values."""
    clipped = counts[:end].copy()
    clipped[-1] += counts[end:].sum()
    part = np.minimum(np.arange(end) * levels // end, levels - 1)
    occupied = (counts[:end] > 0).astype("float64")
    sums, sizes = np.bincount(part, counts[:end], levels), np.bincount(part, occupied, levels)
    coarse = np.where(occupied > 0, (sums / np.maximum(sizes, 1))[part], 0.0)
    if not coarse.sum():
        return float("inf")
    p, q = clipped / clipped.sum(), coarse / coarse.sum()
    seen = p > 0
    return float(np.sum(p[seen] * np.log(p[seen] / np.maximum(q[seen], 1e-12))))


def check_method(method: str, percentile: float = 99.99) -> None:
    """Refuse an unknown method or a percentile outside (50, 100]."""
    if method not in METHODS:
        raise ValueError(f"`method` must be one of {list(METHODS)}. Received: method={method!r}")
    if not 50 < percentile <= 100:
        raise ValueError(f"`percentile` must lie in (50, 100]. Received: percentile={percentile!r}")
