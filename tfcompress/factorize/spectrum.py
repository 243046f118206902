"""What each rank of a kernel costs in accuracy: relative errors without a fit for each."""

import functools
import itertools
import math
from collections.abc import Sequence

import numpy as np

from tfcompress.factorize.decompose import (
    check_tensorly,
    compose,
    decompose,
    full_ranks,
    higher_order_svd,
)
from tfcompress.factorize.vbmf import vbmf_rank
from tfcompress.factorize.weighting import Root, Weighting, arranged, weighted

_EACH, _PAIRS, _FITTED = 24, 12, 6  # ranks that a budget chooses from: of one rank, of each of two, of CP


class Spectrum:
    """A kernel's relative error by method and rank.

        error(ranks) = |R' (W - W')| / |R' W|

    R is the identity, or a root of the second moment of what the kernel is multiplied with: then it is the relative
    error of the layer's output. Of Tucker-2 it is that of the truncated higher-order SVD, which the fit only betters.

    Args:
        kernel: [..., inputs, outputs], as of `decompose`.
        method: as of `decompose`.
        root: as of `decompose`.
        most: of "depthwise" the largest multiplier that `grid` and `within` look at; None for all.

    Raises:
        ImportError: Tucker-2 or CP without tensorly.
    """

    def __init__(self, kernel: np.ndarray, method: str, root: Root | None = None, most: int | None = None) -> None:
        check_tensorly(method)
        self.kernel, self.method, self.root = np.asarray(kernel, np.float64), method, root
        self.full = full_ranks(kernel.shape, method)
        self._most = most if most is not None and method == "depthwise" else None
        self._norm = max(float(np.linalg.norm(self._weighted(self.kernel))), 1e-30)
        self._fits: dict[tuple[int, ...], list[np.ndarray]] = {}

    def error(self, ranks: Sequence[int]) -> float:
        """The relative error at these ranks, at least 0."""
        ranks = tuple(min(int(rank), limit) for rank, limit in zip(ranks, self.full, strict=True))
        if ranks == self.full:
            return 0.0
        if self._table is not None:
            return float(self._table[tuple(rank - 1 for rank in ranks)])
        return self.error_of(self.approximation(ranks))

    def error_of(self, other: np.ndarray) -> float:
        """The relative error of another kernel."""
        return float(np.linalg.norm(self._weighted(self.kernel - other))) / self._norm

    def approximation(self, ranks: Sequence[int]) -> np.ndarray:
        """The kernel at these ranks; of Tucker-2 by truncation."""
        ranks = [min(rank, limit) for rank, limit in zip(ranks, self.full, strict=True)]
        if self.method == "cp":
            return compose("cp", self._fit(tuple(ranks)))
        return compose(self.method, self._cut(ranks))

    @functools.cached_property
    def grid(self) -> list[tuple[int, ...]]:
        """Ranks that stand for all: few for each method, multiples of 4 or 8 where there are many."""
        if len(self.full) == 2:
            count = _PAIRS if self._has_table else _PAIRS // 2
            return list(itertools.product(*(steps(limit, count) for limit in self.full)))
        most = self.full[0] if self.method != "cp" else min(self.full[0], max(self.kernel.shape[-2:]))
        count = _FITTED if self.method == "cp" else _EACH if self._has_table else _EACH // 2
        return [(rank,) for rank in steps(most, count) if self._most is None or rank <= self._most]

    def within(self, allowed: float) -> list[tuple[int, ...]]:
        """Ranks whose error is allowed, none of which can be lowered; the full ones always are, if looked at.

        Among all ranks where their errors are known in closed form, among `grid` elsewhere.
        """
        if self._table is None or self._most is not None:
            found = [ranks for ranks in self.grid if self.error(ranks) <= allowed]
            return found or ([self.full] if self._most is None else [])
        fits = self._table <= allowed
        fits[tuple(rank - 1 for rank in self.full)] = True
        if fits.ndim == 1:
            return [(int(np.argmax(fits)) + 1,)]
        rows = np.flatnonzero(fits.any(1))
        return [(int(row) + 1, int(np.argmax(fits[row])) + 1) for row in rows]

    def vbmf(self) -> tuple[int, ...]:
        """The ranks of what stands out of the kernel's noise; 0 where nothing does.

        Raises:
            ValueError: the method's rank is not that of a matrix.
        """
        if self.method in ("cp", "depthwise"):
            raise ValueError(f"`rank` 'vbmf' is of matrices: not of method={self.method!r}")
        sides = ("channel", "svd") if self.method == "tucker2" else (self.method,)
        found = [vbmf_rank(arranged(self.kernel, side)) for side in sides]
        return tuple(min(rank, limit) for rank, limit in zip(found, self.full, strict=True))

    def _weighted(self, kernel: np.ndarray) -> np.ndarray:
        return kernel if self.root is None else weighted(self.root, kernel.reshape(-1, kernel.shape[-1]))

    @property
    def _has_table(self) -> bool:
        return self.method == "svd" or (self.method != "cp" and self.root is None)

    @functools.cached_property
    def _table(self) -> np.ndarray | None:
        """Errors at all ranks; None where each takes a computation of its own."""
        if not self._has_table:
            return None
        if self.method == "tucker2":
            core = self._parts[1]
            kept = np.cumsum(np.cumsum(np.sum(core**2, tuple(range(core.ndim - 2))), 0), 1)
            return np.sqrt(np.maximum(1.0 - kept / self._norm**2, 0.0))
        if self.method == "depthwise":
            left = np.linalg.norm(self._parts[0], axis=tuple(range(len(self.kernel.shape) - 2)))  # roots of the values
            squares = np.sum(left**4, 0)
        elif self.method == "svd":
            squares = np.linalg.norm(self._parts[1].reshape(self.full[0], -1), axis=1) ** 4
        else:
            squares = np.linalg.norm(self._parts[0].reshape(-1, self.full[0]), axis=0) ** 4
        tails = np.cumsum(squares[::-1])[::-1] - squares  # summed from the small end: no cancellation
        return np.sqrt(np.maximum(tails, 0.0) / max(float(np.sum(squares)), 1e-60))

    def _fit(self, ranks: tuple[int, ...]) -> list[np.ndarray]:
        """CP's factors, which take seconds: fitted once."""
        if ranks not in self._fits:
            self._fits[ranks] = decompose(self.kernel, "cp", ranks, self.root)
        return self._fits[ranks]

    @functools.cached_property
    def _parts(self) -> list[np.ndarray]:
        """The factors at full rank, the most important component first."""
        if self.method != "tucker2":
            return decompose(self.kernel, self.method, self.full, self.root)
        weighting = None if self.root is None else Weighting(self.root, self.kernel.shape, "tucker2")
        reads, *others = higher_order_svd(self.kernel if weighting is None else weighting.on(self.kernel), *self.full)
        return [reads if weighting is None else weighting.off(reads), *others]

    def _cut(self, ranks: Sequence[int]) -> list[np.ndarray]:
        first, *middle, last = self._parts
        rank = ranks[0]
        if self.method == "tucker2":
            return [first[:, :rank], middle[0][..., :rank, : ranks[1]], last[: ranks[1]]]
        if self.method == "depthwise":
            channels = last.reshape(*last.shape[:-2], first.shape[-2], -1, last.shape[-1])
            return [first[..., :rank], channels[..., :rank, :].reshape(*last.shape[:-2], -1, last.shape[-1])]
        return [first[..., :rank], last[..., :rank, :]]


def steps(limit: int, count: int) -> list[int]:
    """At most so many ranks up to a limit, multiples of what integer kernels like where there are many; and low ones.

    >>> steps(6, 24), steps(64, 4)
    ([1, 2, 3, 4, 5, 6], [1, 4, 16, 32, 48, 64])
    """
    unit = 1 if limit < 16 else 4 if limit < 64 else 8
    while math.ceil(limit / unit) > count:
        unit += 1 if unit < 4 else unit % 8 or 8
    low = itertools.takewhile(lambda rank: rank < unit, (4**n for n in itertools.count()))
    return sorted({*low, *range(unit, limit + 1, unit), limit})
