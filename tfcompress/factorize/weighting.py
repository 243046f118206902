"""Decompositions weighted by what a kernel reads: what they take apart instead, and the way back."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.factorize.sketch import Sketch

#: Of a second moment: lower triangular [n, n], its diagonal [n], or a sketch.
Root = np.ndarray | Sketch


def arrangement(shape: Sequence[int], method: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The order of a kernel's axes, and the sizes behind it, by which what a method's first factor reads is a row.

    [..., rows, rest]: the numbers that it reads, and all others; of "depthwise" such a matrix for each input.

    >>> [arrangement((3, 5, 4, 6), method)[1] for method in ("svd", "channel", "spatial", "depthwise")]
    [(60, 6), (4, 90), (12, 30), (4, 15, 6)]
    """
    *window, inputs, outputs = shape
    last, places = len(shape) - 1, math.prod(window)
    if method == "svd":
        return tuple(range(last + 1)), (places * inputs, outputs)
    if method == "spatial":
        return (0, 2, 1, 3), (window[0] * inputs, window[1] * outputs)
    order = (last - 1, *range(last - 1), last)
    return order, (inputs, places, outputs) if method == "depthwise" else (inputs, places * outputs)


def arranged(kernel: np.ndarray, method: str) -> np.ndarray:
    """A kernel as `arrangement` says."""
    order, sizes = arrangement(kernel.shape, method)
    return kernel.transpose(order).reshape(sizes)


def _restored(matrix: np.ndarray, shape: Sequence[int], method: str) -> np.ndarray:
    """A kernel of this shape from what `arranged` gives."""
    order, _ = arrangement(shape, method)
    return matrix.reshape([shape[axis] for axis in order]).transpose(np.argsort(order))


class Weighting:
    """Turns a weighted decomposition into a plain one.

        min |S' (A(W) - A(W'))|  is the plain decomposition of  A^-1(S' A(W)), and S'^-1 of its first factor

    A is `arranged`, S S' the second moment of what the first factor reads: R R' itself of "svd", which is the change of
    the layer's output; of the others its sum over the places at which the first factor reads the same.

    Args:
        root: R with R R' the second moment of what the kernel is multiplied with, n = window * inputs numbers.
        shape: of the kernel.
        method: as of `decompose`.
    """

    def __init__(self, root: Root, shape: Sequence[int], method: str) -> None:
        self._given, self._shape, self._method = root, tuple(shape), method

    @functools.cached_property
    def _root(self) -> Root:
        """S, its diagonal alone where R's is known; of mean square one, so that all factors stay of comparable size."""
        given = self._given
        if isinstance(given, Sketch):
            if self._method == "svd":
                return given.scaled(math.sqrt(len(given.vectors) / given.squares))
            root = self._summed(given.vectors * np.sqrt(given.values), given.floor)
        elif given.ndim == 1:
            root = np.sqrt(np.sum(self._reads(given) ** 2, -1))
            return root / np.sqrt(np.mean(root**2, -1, keepdims=True))
        else:
            root = given if self._method == "svd" else self._summed(given)
        return root * np.sqrt(root.shape[-1] / np.sum(root**2, (-2, -1), keepdims=True))

    def _summed(self, root: np.ndarray, floor: float = 0.0) -> np.ndarray:
        """S, triangular, from any root [n, numbers] of the second moment and what is added on its diagonal."""
        reads = self._reads(root)
        floor *= len(root) / math.prod(reads.shape[:-1])
        return np.linalg.cholesky(reads @ np.swapaxes(reads, -1, -2) + floor * np.eye(reads.shape[-2]))

    def _reads(self, root: np.ndarray) -> np.ndarray:
        """[..., rows, rest]: a root's rows by what the first factor reads, its places beside each other."""
        return arranged(root.reshape(*self._shape[:-1], -1), self._method)

    def on(self, kernel: np.ndarray) -> np.ndarray:
        """What is taken apart in a kernel's place."""
        return _restored(weighted(self._root, arranged(kernel, self._method)), kernel.shape, self._method)

    def off(self, first: np.ndarray) -> np.ndarray:
        """The first factor of the kernel from that of what was taken apart."""
        return _restored(_unweighted(self._root, arranged(first, self._method)), first.shape, self._method)


def checked_root(root: Any, shape: Sequence[int]) -> Root:
    """A root as of `Weighting`, arrays float64.

    Raises:
        ValueError: it is none for a kernel of this shape.
    """
    n = math.prod(shape[:-1])
    if isinstance(root, Sketch) and len(root.vectors) == n:
        return root
    try:
        found = np.asarray(root, np.float64)
    except (TypeError, ValueError):
        found = None
    problem = type(root).__name__ if found is None else _root_problem(found, n)
    if found is None or problem:
        raise ValueError(
            f"`root` must be finite numbers, lower triangular ({n}, {n}) or a diagonal ({n},), of positive diagonal, "
            f"for a kernel {tuple(shape)}. Received: {problem}"
        )
    return found


def _root_problem(root: np.ndarray, n: int) -> str:
    if root.shape not in ((n,), (n, n)):
        return f"an array of shape {root.shape}"
    if not np.isfinite(root).all():
        return "NaN or infinity in it"
    if not ((root if root.ndim == 1 else np.diagonal(root)) > 0).all():
        return "a diagonal that is not positive"
    return "numbers above the diagonal" if root.ndim == 2 and np.triu(root, 1).any() else ""


def weighted(root: Root, matrix: np.ndarray) -> np.ndarray:
    """R' M for a root as of `Weighting`, or for several of them."""
    if isinstance(root, Sketch):
        return root.times(matrix)
    return root[..., None] * matrix if root.ndim < matrix.ndim else np.swapaxes(root, -1, -2) @ matrix


def _unweighted(root: Root, matrix: np.ndarray) -> np.ndarray:
    """The inverse of `weighted`."""
    if isinstance(root, Sketch):
        return root.solve(matrix)
    if root.ndim < matrix.ndim:
        return matrix / root[..., None]
    return tf.linalg.triangular_solve(root, matrix, adjoint=True).numpy()
