"""The rank of what a noisy matrix holds: variational Bayesian matrix factorization, solved analytically."""

import math

import numpy as np

_TAU = 2.5129  # z of the zero of the function that decides whether a component is kept, over the root of alpha

_PRECISION = 1e-6  # of float32: what is smaller is how numbers were rounded


def vbmf_rank(matrix: np.ndarray) -> int:
    """How many components of a matrix stand out of its noise, of which nothing is known beforehand.

    With L <= M the sizes, alpha = L / M, t = 2.5129 sqrt(alpha) and the noise's variance v that minimizes the free
    energy, a component is kept when its singular value is above  sqrt(M v (1 + t) (1 + alpha / t)).

    Args:
        matrix: two axes of any sizes.

    Returns:
        0 (only noise) to min(matrix.shape).

    Raises:
        ValueError: not a matrix, or values that are not finite.

    Source: Nakajima et al. 2013, "Global analytic solution of fully-observed variational Bayesian matrix
    factorization", JMLR 14, theorem 2, corollary 2 and theorem 3.

    >>> rng = np.random.default_rng(0)
    >>> vbmf_rank(rng.normal(size=(60, 3)) @ rng.normal(size=(3, 80)) + 0.3 * rng.normal(size=(60, 80)))
    3
    """
    matrix = np.asarray(matrix, np.float64)
    if matrix.ndim != 2 or not np.isfinite(matrix).all():
        raise ValueError(f"`matrix` must have two axes and finite values. Received: shape {matrix.shape}")
    rows, columns = sorted(matrix.shape)
    values = np.linalg.svd(matrix, compute_uv=False)
    if rows == 0 or values[0] == 0.0:
        return 0
    alpha = rows / columns
    most = min(math.ceil(rows / (1 + alpha)) - 1, rows - 1)  # no more components than this can be told from noise
    if values[most] <= _PRECISION * values[0]:  # without noise there is nothing to estimate it from
        return int(np.sum(values > _PRECISION * values[0]))
    threshold = (1 + _TAU * math.sqrt(alpha)) * (1 + math.sqrt(alpha) / _TAU)
    variance = _noise(values, columns, alpha, threshold, most)
    return int(np.sum(values > math.sqrt(columns * variance * threshold)))


def _noise(values: np.ndarray, columns: int, alpha: float, threshold: float, most: int) -> float:
    """The variance of the noise: the minimum of the free energy between the bounds of theorem 3."""
    rest = values[most:] ** 2
    upper = float(np.sum(values**2) / (len(values) * columns))
    lower = max(float(rest[0] / (columns * threshold)), float(np.mean(rest) / columns))
    low, high = math.log(min(lower, upper)), math.log(upper)
    for _ in range(4):  # the free energy has several minima: a grid, made finer around its lowest point
        grid = np.linspace(low, high, 400)
        best = int(np.argmin(_energies(values, columns, alpha, threshold, np.exp(grid))))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    return math.exp((low + high) / 2)


def _energies(values: np.ndarray, columns: int, alpha: float, threshold: float, variances: np.ndarray) -> np.ndarray:
    """Equation 17 for each variance: x - log x of the components that are noise, the rest by their estimated size."""
    x = np.maximum(values, 1e-9 * values[0]) ** 2 / (columns * variances[:, None])  # zeros have no logarithm
    middle = np.where(x > threshold, x - (1 + alpha), 2.0)
    tau = (middle + np.sqrt(np.maximum(middle**2 - 4 * alpha, 0.0))) / 2
    kept = x - tau + np.log((tau + 1) / x) + alpha * np.log(tau / alpha + 1)
    return np.sum(np.where(x > threshold, kept, x - np.log(x)), 1)
