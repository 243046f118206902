"""Kernels as products of smaller ones: from one array [..., inputs, outputs] to the arrays of the layers in its place.

| method    | layers in its place                                          | ranks            |
|-----------|--------------------------------------------------------------|------------------|
| svd       | k x k to r channels, 1 x 1 (of a matrix: two matrices)       | r                |
| channel   | 1 x 1 to r channels, k x k                                   | r                |
| spatial   | k x 1 to r channels, 1 x k                                   | r                |
| tucker2   | 1 x 1 to r1 channels, k x k to r2 channels, 1 x 1            | r1, r2           |
| cp        | 1 x 1 to r channels, k x k of each channel alone, 1 x 1      | r                |
| depthwise | k x k of each channel alone, m times, 1 x 1                  | m                |

Tucker-2 and CP are tensorly's. The others are singular value decompositions of one matrix or of one for each channel,
and NumPy's: tensorly has no kernels in it, and passes such a matrix to NumPy.
"""

import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfcompress.core.scalars import is_whole
from tfcompress.factorize.weighting import Root, Weighting, arranged, checked_root, weighted

METHODS = ("svd", "tucker2", "cp", "spatial", "channel", "depthwise")
_GRAM = 1 << 16  # numbers in a matrix from which on its Gram matrix is decomposed instead


def methods_of(shape: Sequence[int]) -> tuple[str, ...]:
    """The methods that a kernel of this shape can be decomposed by; without a window, all would be the same.

    "spatial" is of windows of two axes, both longer than one.

    >>> methods_of((64, 32)), methods_of((3, 32, 64))
    (('svd',), ('svd', 'tucker2', 'cp', 'channel', 'depthwise'))
    """
    window = shape[:-2]
    if math.prod(window) == 1:
        return ("svd",)
    flat = len(window) != 2 or min(window) == 1
    return tuple(method for method in METHODS if not (method == "spatial" and flat))


def _check(shape: Sequence[int], method: str) -> None:
    if method not in METHODS:
        raise ValueError(f"`method` must be one of {', '.join(METHODS)}. Received: method={method!r}")
    fits, axes = (len(shape) == 4, "four") if method == "spatial" else (len(shape) >= 2, "at least two")
    if not fits or 0 in shape:
        raise ValueError(f"`kernel` must have {axes} axes for {method!r}, none empty. Received: {tuple(shape)}")


def full_ranks(shape: Sequence[int], method: str) -> tuple[int, ...]:
    """The ranks at which a method gives any kernel of this shape exactly.

    Of CP it is a bound that always suffices, the product of the two smallest of the axes' sizes.

    Raises:
        ValueError: the method is unknown, or not for a kernel of so many axes.

    >>> full_ranks((3, 3, 16, 32), "tucker2"), full_ranks((3, 3, 16, 32), "spatial")
    ((16, 32), (48,))
    """
    _check(shape, method)
    *window, inputs, outputs = shape
    places = math.prod(window)
    if method == "tucker2":
        return min(inputs, places * outputs), min(outputs, places * inputs)
    first, second = {
        "svd": (places * inputs, outputs),
        "channel": (inputs, places * outputs),
        "spatial": (window[0] * inputs, window[-1] * outputs) if window else (0, 0),
        "depthwise": (places, outputs),
        "cp": tuple(sorted((places, inputs, outputs))[:2]),
    }[method]
    return (first * second,) if method == "cp" else (min(first, second),)


def factor_shapes(shape: Sequence[int], method: str, ranks: Sequence[int]) -> list[tuple[int, ...]]:
    """The shapes of what `decompose` returns.

    >>> factor_shapes((3, 3, 16, 32), "tucker2", (4, 8))
    [(1, 1, 16, 4), (3, 3, 4, 8), (1, 1, 8, 32)]
    """
    *window, inputs, outputs = shape
    ones, rank, last = (1,) * len(window), ranks[0], ranks[-1]
    first, second = ((window[0], 1), (1, window[-1])) if window else ((), ())
    return {
        "svd": lambda: [(*window, inputs, rank), (*ones, rank, outputs)],
        "channel": lambda: [(*ones, inputs, rank), (*window, rank, outputs)],
        "spatial": lambda: [(*first, inputs, rank), (*second, rank, outputs)],
        "tucker2": lambda: [(*ones, inputs, rank), (*window, rank, last), (*ones, last, outputs)],
        "cp": lambda: [(*ones, inputs, rank), (*window, rank, 1), (*ones, rank, outputs)],
        "depthwise": lambda: [(*window, inputs, rank), (*ones, inputs * rank, outputs)],
    }[method]()


def decompose(kernel: np.ndarray, method: str, ranks: Sequence[int], root: Root | None = None) -> list[np.ndarray]:
    """The arrays of the layers that stand for a kernel.

    svd:        min over rank(W') <= r of |R' (W - W')|,   R = `root`, the identity by default

    The other methods are weighted by R likewise, as far as it tells what their first factor reads (`Weighting`); of
    Tucker-2 with a root it is the fit or the truncated higher-order SVD, whichever has the smaller |R' (W - W')|.

    Args:
        kernel: [..., inputs, outputs], the axes of the window first; a matrix has none.
        method: one of `methods_of(kernel.shape)`.
        ranks: as many as the table above says, each at least 1; more than `full_ranks` are cut to these.
        root: R with R R' the second moment of what the kernel is multiplied with, n = window * inputs numbers: [n, n]
            lower triangular or the diagonal [n], its diagonal positive; or a `Sketch`.

    Returns:
        float64 arrays in Keras' layouts, first applied first: kernels [..., inputs, outputs]; of a convolution of each
        channel alone [..., channels, multiplier].

    Raises:
        ValueError: the method is unknown or not for the kernel's axes; ranks of another number, or below 1; a kernel
            that is not finite; a root of another shape, not finite, not triangular or not of positive diagonal.
        ImportError: Tucker-2 or CP without tensorly.

    Source: Zhang et al. 2016, arXiv:1505.06798 (svd); Jaderberg et al. 2014, arXiv:1405.3866 (spatial); Kim et al.
    2016, arXiv:1511.06530 (tucker2); Lebedev et al. 2015, arXiv:1412.6553 (cp); Guo et al. 2018, arXiv:1808.05517
    (depthwise); Chen et al. 2021 (DRONE), Wang et al. 2024, arXiv:2403.07378 (weighted svd).

    >>> first, second = decompose(np.outer([1.0, 2.0], [3.0, 4.0, 5.0]), "svd", [1])
    >>> np.round(first @ second, 6).tolist()
    [[3.0, 4.0, 5.0], [6.0, 8.0, 10.0]]
    """
    kernel = np.asarray(kernel, np.float64)
    limits = full_ranks(kernel.shape, method)
    if not np.isfinite(kernel).all():
        raise ValueError("`kernel` must be finite. Received: NaN or infinity in it")
    if len(ranks) != len(limits) or not all(map(is_whole, ranks)):
        raise ValueError(
            f"`ranks` must be {len(limits)} whole numbers of at least 1 for {method!r}. Received: {ranks!r}"
        )
    ranks = [min(int(rank), limit) for rank, limit in zip(ranks, limits, strict=True)]
    if root is None:
        return _SPLIT[method](kernel, *ranks)
    root = checked_root(root, kernel.shape)
    weighting = Weighting(root, kernel.shape, method)
    whole = weighting.on(kernel)
    splits = [_SPLIT[method]] if method != "tucker2" else [_tucker2, _truncated_tucker2]
    found = [[weighting.off(first), *others] for first, *others in (split(whole, *ranks) for split in splits)]

    def change(factors: Sequence[np.ndarray]) -> float:
        return float(np.linalg.norm(weighted(root, arranged(kernel - compose(method, factors), "svd"))))

    return min(found, key=change) if len(found) > 1 else found[0]


def compose(method: str, factors: Sequence[np.ndarray]) -> np.ndarray:
    """The kernel that arrays of `decompose` stand for.

    >>> compose("svd", [np.ones((2, 1)), np.ones((1, 3))]).tolist()
    [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """
    first, *_, last = factors
    last = last.reshape(last.shape[-2:]) if method not in ("spatial", "channel") else last
    if method == "svd":
        return first @ last
    if method == "channel":
        return np.einsum("ir,...ro->...io", first.reshape(first.shape[-2:]), last)
    if method == "spatial":
        return np.einsum("hir,wro->hwio", first[:, 0], last[0])
    if method == "depthwise":
        pointwise = last.reshape(first.shape[-2], first.shape[-1], -1)
        return np.einsum("...im,imo->...io", first, pointwise)
    reduce = first.reshape(first.shape[-2:])
    if method == "tucker2":
        return np.einsum("ia,...ab,bo->...io", reduce, factors[1], last, optimize=True)
    return np.einsum("ir,...r,ro->...io", reduce, factors[1][..., 0], last, optimize=True)


def thin_svd(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Singular vectors and values: matrix = U diag(s) V, s falling.

    Large matrices go by the eigenvectors of the smaller Gram matrix, which is several times faster; singular values
    below 1e-7 of the largest are noise there, and what they span is kept whole by the product with the matrix.
    """
    if matrix.size < _GRAM:
        return np.linalg.svd(matrix, full_matrices=False)
    if matrix.shape[0] < matrix.shape[1]:
        left, values, right = thin_svd(matrix.T)
        return right.T, values, left.T
    _, vectors = np.linalg.eigh(matrix.T @ matrix)
    right = vectors[:, ::-1]
    scaled = matrix @ right
    values = np.linalg.norm(scaled, axis=0)
    return scaled / np.maximum(values, 1e-300), values, right.T


def principal(matrix: np.ndarray, count: int) -> np.ndarray:
    """[rows, count]: orthonormal left singular vectors, those of the largest values first, whatever the rank is."""
    _, vectors = np.linalg.eigh(matrix @ matrix.T)
    return vectors[:, ::-1][:, :count]


def balanced(matrix: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """The nearest matrix of a rank as two factors of equal norms."""
    left, values, right = thin_svd(matrix)
    root = np.sqrt(values[:rank])
    return left[:, :rank] * root, root[:, None] * right[:rank]


def _svd(kernel: np.ndarray, rank: int) -> list[np.ndarray]:
    first, second = balanced(arranged(kernel, "svd"), rank)
    ones = (1,) * (kernel.ndim - 2)
    return [first.reshape(*kernel.shape[:-1], rank), second.reshape(*ones, rank, -1)]


def _channel(kernel: np.ndarray, rank: int) -> list[np.ndarray]:
    *window, inputs, outputs = kernel.shape
    first, second = balanced(arranged(kernel, "channel"), rank)
    core = np.moveaxis(second.reshape(rank, *window, outputs), 0, -2)
    return [first.reshape(*(1,) * len(window), inputs, rank), core]


def _spatial(kernel: np.ndarray, rank: int) -> list[np.ndarray]:
    height, width, inputs, outputs = kernel.shape
    first, second = balanced(arranged(kernel, "spatial"), rank)
    across = second.reshape(rank, width, outputs).transpose(1, 0, 2)
    return [first.reshape(height, 1, inputs, rank), across[None]]


def higher_order_svd(kernel: np.ndarray, reads: int, makes: int) -> list[np.ndarray]:
    """[inputs, reads], [..., reads, makes] and [makes, outputs]: Tucker-2 by the leading singular vectors of both axes.

    The most important come first: of lower ranks it is the first rows and columns of these.
    """
    first = principal(arranged(kernel, "tucker2"), reads)
    last = principal(arranged(kernel, "svd").T, makes).T
    return [first, np.einsum("...io,ia,bo->...ab", kernel, first, last, optimize=True), last]


def _truncated_tucker2(kernel: np.ndarray, reads: int, makes: int) -> list[np.ndarray]:
    return _even_tucker2(*higher_order_svd(kernel, reads, makes))


def _tucker2(kernel: np.ndarray, reads: int, makes: int) -> list[np.ndarray]:
    *window, inputs, outputs = kernel.shape
    if not kernel.any():
        return _truncated_tucker2(kernel, reads, makes)
    (core, (first, last)), _ = _fitted(
        "partial_tucker", kernel.reshape(-1, inputs, outputs), [reads, makes], modes=[1, 2]
    )
    return _even_tucker2(first, core.reshape(*window, reads, makes), last.T)


def _even_tucker2(first: np.ndarray, core: np.ndarray, last: np.ndarray) -> list[np.ndarray]:
    """Orthonormal factors and a core as three arrays of comparable size: they are trained on."""
    ones, norm = (1,) * (core.ndim - 2), max(float(np.linalg.norm(core)), 1e-300)
    scale = norm ** (1 / 3)
    return [(first * scale).reshape(*ones, *first.shape), core * (scale / norm),
            (last * scale).reshape(*ones, *last.shape)]  # fmt: skip


def _cp(kernel: np.ndarray, rank: int) -> list[np.ndarray]:
    *window, inputs, outputs = kernel.shape
    tensor = kernel.reshape(-1, inputs, outputs)
    factors = _exact_cp(tensor) if rank == full_ranks(kernel.shape, "cp")[0] else _fitted_cp(tensor, rank)
    norms = [np.maximum(np.linalg.norm(factor, axis=0), 1e-30) for factor in factors]
    mean = np.cbrt(np.prod(norms, axis=0))
    places, reads, makes = (factor / norm * mean for factor, norm in zip(factors, norms, strict=True))
    ones = (1,) * len(window)
    return [reads.reshape(*ones, inputs, rank), places.reshape(*window, rank, 1), makes.T.reshape(*ones, rank, outputs)]


def _fitted_cp(tensor: np.ndarray, rank: int) -> list[np.ndarray]:
    if not tensor.any():
        return [np.zeros((size, rank)) for size in tensor.shape]
    weights, factors = _fitted("parafac", tensor, rank, init="svd", random_state=0)
    return [factors[0] * weights, *factors[1:]]


def _exact_cp(tensor: np.ndarray) -> list[np.ndarray]:
    """One component for each pair of places on the two shortest axes; its third factor is what stands there."""
    order = np.argsort(tensor.shape, kind="stable")
    first, second, long = np.transpose(tensor, order).shape
    pairs = list(itertools.product(range(first), range(second)))
    found = [np.eye(first)[:, [a for a, _ in pairs]], np.eye(second)[:, [b for _, b in pairs]],
             np.transpose(tensor, order).reshape(-1, long).T]  # fmt: skip
    return [found[list(order).index(axis)] for axis in range(3)]


def _depthwise(kernel: np.ndarray, multiplier: int) -> list[np.ndarray]:
    *window, inputs, outputs = kernel.shape
    left, values, right = np.linalg.svd(arranged(kernel, "depthwise"), full_matrices=False)
    root = np.sqrt(values[:, :multiplier])
    first = np.moveaxis(left[..., :multiplier] * root[:, None], 0, 1)
    pointwise = root[..., None] * right[:, :multiplier]
    ones = (1,) * len(window)
    return [first.reshape(*window, inputs, multiplier), pointwise.reshape(*ones, inputs * multiplier, outputs)]


_SPLIT: dict[str, Callable[..., list[np.ndarray]]] = {
    "svd": _svd, "channel": _channel, "spatial": _spatial, "tucker2": _tucker2, "cp": _cp, "depthwise": _depthwise,
}  # fmt: skip


def check_tensorly(method: str) -> None:
    """Refuse a method whose library is not there, before anything is computed.

    Raises:
        ImportError: with the command that installs it.
    """
    if method in ("tucker2", "cp"):
        _tensorly()


def _fitted(name: str, *args: Any, **kwargs: Any) -> Any:
    """What a decomposition of tensorly returns."""
    decomposition = _tensorly()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Trying to compute SVD")  # more components than an axis has places
        return getattr(decomposition, name)(*args, **kwargs)


def _tensorly() -> Any:
    try:
        from tensorly import decomposition
    except ModuleNotFoundError as error:
        if error.name != "tensorly":
            raise
        raise ImportError("Tucker-2 and CP need tensorly: pip install 'tfcompress[factorize]'") from error
    return decomposition
