"""Which weights must be zero together: single ones, N of M, blocks, whole channels."""

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np


def kept_count(size: int, sparsity: float) -> int:
    """How many of `size` units live: max(round(size * (1 - sparsity)), 1), in float32, halves to the even number.

    >>> kept_count(10, 0.75), kept_count(3, 0.9)
    (2, 1)
    """
    return max(int(np.round(np.float32(size) * (np.float32(1) - np.float32(sparsity)))), 1)


def largest(scores: np.ndarray, count: int) -> np.ndarray:
    """True where a score is not below the `count`-th largest one; so equal scores live or die together.

    >>> largest(np.array([3.0, 1.0, 2.0, 1.0]), 2).tolist()
    [True, False, True, False]
    """
    if count >= scores.size:
        return np.ones(scores.shape, bool)
    flat = scores.reshape(-1)
    return scores >= np.partition(flat, flat.size - count)[flat.size - count]


def ranked(scores: np.ndarray, ties: np.ndarray) -> np.ndarray:
    """Scores replaced by their places in ascending order; of equal ones the one with less in `ties` comes first.

    >>> ranked(np.array([0.0, 0.0, -1.0]), np.array([2.0, 1.0, 9.0])).tolist()
    [2, 1, 0]
    """
    order = np.lexsort((ties.reshape(-1), scores.reshape(-1)))
    ranks = np.empty(scores.size, np.int64)
    ranks[order] = np.arange(scores.size)
    return ranks.reshape(scores.shape)


class Pattern(ABC):
    """Units of a kernel that live or die together.

    A unit's score is the mean over its weights, so that units of different sizes compare.
    """

    @abstractmethod
    def units(self, scores: np.ndarray, axis: int) -> np.ndarray:
        """The scores of the units.

        Args:
            scores: of the kernel's weights, in its shape.
            axis: the kernel's axis of output channels.
        """

    @abstractmethod
    def spread(self, units: np.ndarray, shape: tuple[int, ...], axis: int) -> np.ndarray:
        """What holds for units as an array of the kernel's shape."""

    def kept(self, units: np.ndarray, count: int, shape: tuple[int, ...], axis: int,
             inputs: int | None = None) -> np.ndarray:  # fmt: skip
        """True where a weight lives, in the kernel's shape, when `count` of the units with these scores shall live.

        `inputs` is the kernel's axis of input channels; None: of its last two axes the one that is not `axis`.
        """
        return self.spread(largest(units, count), shape, axis)

    def limit(self) -> float:
        """The largest share of zeros that the pattern can have."""
        return 1.0


@dataclass(frozen=True)
class Unstructured(Pattern):
    """Each weight by itself."""

    def units(self, scores: np.ndarray, axis: int) -> np.ndarray:
        return scores

    def spread(self, units: np.ndarray, shape: tuple[int, ...], axis: int) -> np.ndarray:
        return units


@dataclass(frozen=True)
class NofM(Pattern):
    """N weights live in each group of M that follow one another along the input channels, at a share of 1 - N / M.

    That is along the last axis of a kernel as a `.tflite` file stores it. While a schedule is on its way, or where a
    budget gives a kernel less, each group has round(M * sparsity) zeros; where it gives more, 1 - N / M is the end. A
    last group that is shorter has its share of them.

    Args:
        n: weights that live in a group, 1 <= n < m.
        m: weights of a group.

    Raises:
        ValueError: an argument is outside its range.

    Source: Mishra et al. 2021, arXiv:2104.08378 (2:4).

    >>> kernel = np.array([[0.1], [0.4], [0.3], [0.2]])  # 4 inputs, 1 output
    >>> NofM(2, 4).kept(kernel, 2, (4, 1), axis=1)[:, 0].tolist()
    [False, True, True, False]
    """

    n: int
    m: int

    def __post_init__(self) -> None:
        if not (isinstance(self.n, int) and isinstance(self.m, int) and 1 <= self.n < self.m):
            raise ValueError(f"`n` and `m` must be whole numbers, 1 <= n < m. Received: n={self.n!r}, m={self.m!r}")

    def limit(self) -> float:
        return 1.0 - self.n / self.m

    def units(self, scores: np.ndarray, axis: int) -> np.ndarray:
        return scores

    def spread(self, units: np.ndarray, shape: tuple[int, ...], axis: int) -> np.ndarray:
        return units

    def kept(self, units: np.ndarray, count: int, shape: tuple[int, ...], axis: int,
             inputs: int | None = None) -> np.ndarray:  # fmt: skip
        along = inputs
        if along is None:
            along = len(shape) - 2 if axis == len(shape) - 1 else len(shape) - 1
        rows = np.moveaxis(units, along, -1)
        length = rows.shape[-1]
        missing = -length % self.m
        padded = np.concatenate([rows, np.full((*rows.shape[:-1], missing), -np.inf)], -1)
        groups = padded.reshape(*rows.shape[:-1], -1, self.m)
        zeros = min(int(np.floor(self.m * (1.0 - count / units.size) + 0.5)), self.m - self.n)
        order = np.argsort(np.argsort(-groups, axis=-1, kind="stable"), axis=-1, kind="stable")
        whole = order < self.m - zeros
        if missing:  # the last group's places that do not exist count as none of its zeros
            own = self.m - missing
            whole[..., -1, :] = order[..., -1, :] < own - (zeros * own) // self.m
        return np.moveaxis(whole.reshape(*rows.shape[:-1], -1)[..., :length], -1, along)


@dataclass(frozen=True)
class Block(Pattern):
    """Rectangles of the matrix of inputs and outputs (the last two axes), at each place of a convolution's window.

    Blocks at an edge that is no multiple of the size are smaller.

    Args:
        height: inputs in a block, >= 1.
        width: outputs in a block, >= 1.

    Raises:
        ValueError: an argument is outside its range.

    >>> Block(2, 2).units(np.array([[1.0, 1.0, 0.0, 0.1], [1.0, 1.0, 0.2, 0.1]]), axis=1).round(3).tolist()
    [[1.0, 0.1]]
    """

    height: int
    width: int

    def __post_init__(self) -> None:
        for name, value in (("height", self.height), ("width", self.width)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"`{name}` must be a whole number >= 1. Received: {name}={value!r}")

    def units(self, scores: np.ndarray, axis: int) -> np.ndarray:
        return _mean_of_runs(_mean_of_runs(scores, self.height, -2), self.width, -1)

    def spread(self, units: np.ndarray, shape: tuple[int, ...], axis: int) -> np.ndarray:
        tall = np.repeat(np.repeat(units, self.height, axis=-2), self.width, axis=-1)
        return tall[..., : shape[-2], : shape[-1]]


def _mean_of_runs(values: np.ndarray, length: int, axis: int) -> np.ndarray:
    """Means over runs of `length` along an axis; a last run may be shorter."""
    starts = np.arange(0, values.shape[axis], length)
    sizes = np.diff(np.append(starts, values.shape[axis])).astype(values.dtype)
    shape = [1] * values.ndim
    shape[axis] = -1
    return np.add.reduceat(values, starts, axis=axis) / sizes.reshape(shape)


@dataclass(frozen=True)
class Channels(Pattern):
    """Whole output channels of a kernel; biases stay. `tfcompress.prune_channels` takes such channels out for good.

    >>> Channels().kept(np.array([3.0, 1.5]), 1, (2, 2), axis=1).tolist()
    [[True, False], [True, False]]
    """

    def units(self, scores: np.ndarray, axis: int) -> np.ndarray:
        return scores.mean(axis=tuple(a for a in range(scores.ndim) if a != axis))

    def spread(self, units: np.ndarray, shape: tuple[int, ...], axis: int) -> np.ndarray:
        lined = units.reshape([-1 if a == axis else 1 for a in range(len(shape))])
        return np.broadcast_to(lined, shape).copy()


def resolve(pattern: Any) -> Pattern:
    """What a user passed as a pattern: an object, "unstructured", "channels", "N:M" such as "2:4", or (height, width).

    Raises:
        ValueError: it is none of these.

    >>> resolve("2:4"), resolve((4, 1))
    (NofM(n=2, m=4), Block(height=4, width=1))
    """
    if isinstance(pattern, Pattern):
        return pattern
    if isinstance(pattern, str):
        if pattern in ("unstructured", "channels"):
            return {"unstructured": Unstructured, "channels": Channels}[pattern]()
        ratio = re.fullmatch(r"(\d+):(\d+)", pattern)
        if ratio:
            return NofM(int(ratio[1]), int(ratio[2]))
    if isinstance(pattern, tuple | list) and len(pattern) == 2:
        return Block(*pattern)
    raise ValueError(
        f"`pattern` must be 'unstructured', 'channels', 'N:M' such as '2:4', a block (height, width), or an object of "
        f"`tfcompress.prune`. Received: pattern={pattern!r}"
    )
