"""Scores by curvature; the last two also change the weights that live, so that they stand in for those that go.

For one layer, with its inputs as rows of X (for a convolution, its windows) and its kernel as a matrix W, the change of
what it computes is ||X W - X W'||², whose Hessian for each column of W is H = X^T X.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.prune.activations import ActivationSums, Measure
from tfcompress.prune.data_scores import ActivationScore, GradientScore
from tfcompress.prune.matrices import MatrixView, view_of
from tfcompress.prune.patterns import NofM, Pattern, Unstructured, kept_count, largest
from tfcompress.prune.targets import Target


class OBD(GradientScore):
    """w² * F / 2 with F = sum over batches of g²: the change of the loss by a diagonal curvature.

    F is the diagonal of the empirical Fisher matrix; with `batch_size=1` of its samples, else of its batches.

    Args: see `GradientScore`.

    Source: LeCun, Denker & Solla 1990, "Optimal brain damage", eq. 5, with the Fisher diagonal for the Hessian's.
    """

    def summand(self, gradient: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
        return tf.square(gradient)

    def from_sum(self, total: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return 0.5 * total * np.square(weight)


class _Hessians(ActivationScore):
    """Hessians of layers, and the score w² / [H⁻¹]_pp: what the layer's outputs lose at best when w_p goes.

    Args:
        damping: what is added to the diagonal of H, as a share of its mean, > 0.
        positions: windows of a convolution that count in each batch, at most.
    """

    compensates = True

    def __init__(self, data: Any = None, *, batches: int = 8, batch_size: int = 64, damping: float = 0.01,
                 positions: int = 4096) -> None:  # fmt: skip
        super().__init__(data, batches=batches, batch_size=batch_size)
        if not damping > 0:
            raise ValueError(f"`damping` must be > 0. Received: damping={damping!r}")
        if isinstance(positions, bool) or not isinstance(positions, int) or positions < 1:
            raise ValueError(f"`positions` must be a whole number >= 1. Received: positions={positions!r}")
        self.damping, self.positions = damping, positions
        self._views: list[MatrixView] = []
        self._held: dict[int, np.ndarray] = {}
        self._places: dict[int, int] = {}

    def attach(self, model: Any, targets: Sequence[Target]) -> bool:
        self._views = [view_of(target) for target in targets]
        self._places = {id(target): place for place, target in enumerate(targets)}
        return super().attach(model, targets)

    def measure(self, target: Target) -> tuple[Measure, tuple[int, ...]]:
        view = view_of(target)

        def measure(given: tf.Tensor, made: tf.Tensor) -> tf.Tensor:
            rows = view.rows(tf.cast(given, tf.float32))
            step = tf.maximum(tf.shape(rows)[0] // self.positions, 1)
            rows = rows[::step]
            return tf.matmul(rows, rows, transpose_a=True)

        return measure, (view.inputs, view.inputs)

    def from_sum(self, total: np.ndarray, target: Target) -> np.ndarray:
        place = self._places[id(target)]
        self._held[place] = total
        view, inverse = self._views[place], np.linalg.inv(self._damped(total))
        saliency = np.square(view.matrix(target.value())) / np.diag(inverse)[:, None]
        return view.kernel(saliency).astype(np.float32)

    def hessian(self, target: Target) -> np.ndarray:
        """The damped Hessian of a layer whose inputs come from layers that were changed already, float64 [k, k]."""
        place = self._places[id(target)]
        if self.data is not None and place > 0:
            sums: ActivationSums = self._sums  # type: ignore[assignment]
            sums.fill(self.data, self.batch_size, [place])
            self._held[place] = sums.total(place)
            sums.reset()
        return self._damped(self._held.pop(place))

    def _damped(self, total: np.ndarray) -> np.ndarray:
        hessian = total.astype(np.float64)
        mean = float(np.mean(np.diag(hessian)))
        return hessian + (self.damping * mean if mean > 0 else 1.0) * np.eye(len(hessian))


class OBS(_Hessians):
    """w² / [H⁻¹]_pp decides what goes; what lives is refitted by least squares, column by column.

    With K the weights of a column w that live:  w'_K = H_KK⁻¹ H_K: w  is the best that they can do together.
    With `data`, layers are done in order, each on what the changed ones before it return.

    Args:
        data: (x, y) or x of arrays, a `tf.data.Dataset`, or batches. None: the batches of `fit`.
        batches: so many, >= 1.
        batch_size: rows of a batch, where `data` are arrays.
        damping: what is added to the diagonal of H, as a share of its mean, > 0.
        positions: windows of a convolution that count in each batch, at most.

    Raises:
        ValueError: an argument is outside its range.

    Source: Hassibi & Stork 1993, "Second order derivatives for network pruning: optimal brain surgeon", eq. 5, for
        several weights at once; layer by layer as in Dong et al. 2017, arXiv:1705.07565.
    """

    def compensate(self, target: Target, kept: np.ndarray, pattern: Pattern) -> tuple[np.ndarray, np.ndarray]:
        view = self._views[self._places[id(target)]]
        hessian, value = self.hessian(target), target.value()
        refitted = refit(view.matrix(value).astype(np.float64), view.matrix(kept), hessian)
        return view.kernel(refitted).astype(value.dtype), kept


class SparseGPT(_Hessians):
    """Input by input: what an input's weights lose is put on the weights of the inputs that come after it.

    Which weights go is decided anew for each `block` of inputs, on weights that were changed already, by
    w² / [H⁻¹]_pp; other patterns than "unstructured" and "N:M" are decided beforehand.

    Args:
        data: (x, y) or x of arrays, a `tf.data.Dataset`, or batches. None: the batches of `fit`.
        batches: so many, >= 1.
        batch_size: rows of a batch, where `data` are arrays.
        damping: what is added to the diagonal of H, as a share of its mean, > 0.
        positions: windows of a convolution that count in each batch, at most.
        block: inputs for which zeros are decided together, >= 1.

    Raises:
        ValueError: an argument is outside its range.

    Source: Frantar & Alistarh 2023, arXiv:2301.00774, algorithm 1.
    """

    def __init__(self, data: Any = None, *, batches: int = 8, batch_size: int = 64, damping: float = 0.01,
                 positions: int = 4096, block: int = 128) -> None:  # fmt: skip
        super().__init__(data, batches=batches, batch_size=batch_size, damping=damping, positions=positions)
        if isinstance(block, bool) or not isinstance(block, int) or block < 1:
            raise ValueError(f"`block` must be a whole number >= 1. Received: block={block!r}")
        self.block = block

    def compensate(self, target: Target, kept: np.ndarray, pattern: Pattern) -> tuple[np.ndarray, np.ndarray]:
        view = self._views[self._places[id(target)]]
        value, matrix = target.value(), view.matrix(kept)
        group = None
        if isinstance(pattern, NofM) and view.channels % pattern.m == 0:
            group = pattern.m
        free = view.matrix(target.mask.kept | kept) if isinstance(pattern, Unstructured) or group else None
        weights, lives = swept(view.matrix(value).astype(np.float64), matrix, self.hessian(target), self.block,
                               free, group)  # fmt: skip
        return view.kernel(weights).astype(value.dtype), view.kernel(lives).astype(bool)


def refit(weights: np.ndarray, kept: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """The weights that live, refitted to what all weights computed.

    Args:
        weights: [k, n].
        kept: [k, n], True where a weight lives.
        hessian: [k, k], positive definite.

    Returns:
        [k, n], zero where no weight lives.

    >>> inputs = np.array([[1.0, 1.0], [2.0, 2.0]])  # two inputs that are the same: one stands in for the other
    >>> hessian = inputs.T @ inputs + 1e-9 * np.eye(2)
    >>> refit(np.array([[1.0], [3.0]]), np.array([[False], [True]]), hessian).round(3).tolist()
    [[0.0], [4.0]]
    """
    result = np.zeros_like(weights)
    wanted = hessian @ weights
    columns: dict[bytes, list[int]] = {}
    for column in range(weights.shape[1]):
        columns.setdefault(kept[:, column].tobytes(), []).append(column)
    for same in columns.values():
        lives = np.flatnonzero(kept[:, same[0]])
        if lives.size:
            solved = np.linalg.solve(hessian[np.ix_(lives, lives)], wanted[:, same][lives])
            result[np.ix_(lives, np.array(same))] = solved
    return result


def swept(weights: np.ndarray, kept: np.ndarray, hessian: np.ndarray, block: int,
          free: np.ndarray | None, group: int | None) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """One sweep over the inputs: weights that go, and what the later ones take over from them.

    Args:
        weights: [k, n].
        kept: [k, n], True where a weight lives; with `free`, only how many of them do counts.
        hessian: [k, k], positive definite.
        block: inputs for which zeros are decided together.
        free: [k, n], True where a weight may live, if that is decided here; None: they live where `kept` says.
        group: with `free`, inputs of each group that has as many zeros as it has in `kept`; None: no groups.

    Returns:
        The weights [k, n], zero where none lives, and where they live.
    """
    weights, kept = weights.copy(), kept.copy()
    upper = np.linalg.cholesky(np.linalg.inv(hessian)).T
    diagonal = np.diag(upper)
    if free is not None:
        share = 1.0 - float(kept.sum()) / max(float(free.sum()), 1.0)
    for start in range(0, len(weights), block):
        stop = min(start + block, len(weights))
        if free is not None and group is None:
            rows = slice(start, stop)
            saliency = np.where(free[rows], np.square(weights[rows] / diagonal[rows, None]), -np.inf)
            kept[rows] = free[rows] & largest(saliency, kept_count(int(free[rows].sum()), share))
        errors = np.zeros_like(weights[start:stop])
        for row in range(start, stop):
            if free is not None and group is not None and row % group == 0:
                rows = slice(row, row + group)
                saliency = np.where(free[rows], np.square(weights[rows] / diagonal[rows, None]), -np.inf)
                order = np.argsort(np.argsort(-saliency, 0), 0)
                kept[rows] = order < kept[rows].sum(0)
            errors[row - start] = np.where(kept[row], 0.0, weights[row]) / diagonal[row]
            weights[row:stop] -= np.outer(upper[row, row:stop], errors[row - start])
        weights[stop:] -= upper[start:stop, stop:].T @ errors
    return np.where(kept, weights, 0.0), kept
