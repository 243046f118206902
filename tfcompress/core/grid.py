"""Integer grids: which real numbers an integer tensor can hold, and the nearest of them.

A weight grid is symmetric, a whole number of steps on each side of zero:

    scale = max|w| / Q,   code = clip(round(w / scale), -Q, Q),   value = code * scale,   Q = 2**(bits - 1) - 1

An activation grid has a zero point, and its real zero is exact:

    scale = (high - low) / (2**bits - 1),   value = (code - zero_point) * scale
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core.arithmetic.codes import quotient

# So much wider a range may become to have its zero in the middle: 2 decibels.
BALANCED = 1.25

Axis = int | tuple[int, ...] | str | None


@dataclass(frozen=True)
class Grid:
    """The grid of a weight: its bits, and which of its numbers share one scale.

    Attributes:
        bits: 2 to 8. The file stores 8-bit integers, or packed 4-bit ones where `bits` <= 4.
        axis: "channel" (one scale for each output channel of the layer, wherever that axis is), None (one scale for
            the whole tensor), or the axis or axes of the weight that keep a scale for each index.
        groups: the last kept axis is cut into this many equal parts that share one scale each (an LSTM kernel
            [inputs, 4 * units] has one scale a gate: groups=4). None: every index has its own.
        step: "max" (the largest magnitude decides, as the converter does) or "learned" (LSQ: the step is trained).

    Raises:
        ValueError: an attribute is outside its range.

    >>> Grid(bits=4, axis=-1).top
    7
    """

    bits: int = 8
    axis: Axis = "channel"
    groups: int | None = None
    step: str = "max"

    def __post_init__(self) -> None:
        if not isinstance(self.bits, int) or not 2 <= self.bits <= 8:
            raise ValueError(f"`bits` must be a whole number from 2 to 8. Received: bits={self.bits!r}")
        if self.axis is not None and not isinstance(self.axis, int | str):  # JSON makes lists of tuples
            object.__setattr__(self, "axis", tuple(self.axis))
        axes = self.axis if isinstance(self.axis, tuple) else (self.axis,)
        if self.axis is not None and self.axis != "channel" and not all(isinstance(a, int) for a in axes):
            raise ValueError(f'`axis` must be "channel", None, an axis or several. Received: axis={self.axis!r}')
        if self.groups is not None and (not isinstance(self.groups, int) or self.groups < 1):
            raise ValueError(f"`groups` must be a positive whole number or None. Received: groups={self.groups!r}")
        if self.step not in ("max", "learned"):
            raise ValueError(f'`step` must be "max" or "learned". Received: step={self.step!r}')

    @property
    def top(self) -> int:
        """The largest code: 127 at 8 bits, 7 at 4."""
        return 2 ** (self.bits - 1) - 1

    def kept(self, rank: int) -> tuple[int, ...]:
        """The axes of a weight of this rank that keep a scale for each index, counted from 0."""
        if self.axis == "channel":
            raise ValueError('a grid whose axis is "channel" must be resolved for its layer first')
        axes = self.axis if isinstance(self.axis, tuple) else () if self.axis is None else (self.axis,)
        if not all(isinstance(a, int) and -rank <= a < rank for a in axes):
            raise ValueError(f"`axis` must lie within a weight of rank {rank}. Received: axis={self.axis!r}")
        return tuple(sorted(int(a) % rank for a in axes))

    def get_config(self) -> dict[str, Any]:
        return asdict(self)


def magnitude(weight: tf.Tensor, grid: Grid) -> tf.Tensor:
    """The largest magnitude among the numbers that share a scale, of a shape that broadcasts to the weight's.

    >>> magnitude(tf.constant([[1.0, -4.0], [-2.0, 3.0]]), Grid(axis=-1)).numpy().tolist()
    [[2.0, 4.0]]
    """
    kept = grid.kept(len(weight.shape))
    largest = tf.reduce_max(tf.abs(weight), axis=[a for a in range(len(weight.shape)) if a not in kept], keepdims=True)
    if grid.groups is None or not kept:
        return largest
    axis, size = kept[-1], weight.shape[kept[-1]]
    if size % grid.groups:
        raise ValueError(f"`groups` must divide axis {axis} of size {size}. Received: groups={grid.groups}")
    shape = largest.shape.as_list()
    parts = tf.reshape(largest, [*shape[:axis], grid.groups, size // grid.groups, *shape[axis + 1 :]])
    parts = tf.broadcast_to(tf.reduce_max(parts, axis=axis + 1, keepdims=True), parts.shape)
    return tf.reshape(parts, shape)


def scale_of(weight: tf.Tensor, grid: Grid) -> tf.Tensor:
    """scale = max|w| / Q; 1 where every number is zero, so that nothing divides by zero."""
    largest = magnitude(weight, grid)
    return tf.where(largest > 0, quotient(largest, grid.top), tf.ones_like(largest))


def codes_of(weight: tf.Tensor, scale: tf.Tensor, grid: Grid) -> tf.Tensor:
    """clip(round(w / scale), -Q, Q), in floating point; ties go to the even integer."""
    return tf.clip_by_value(tf.round(weight / scale), -grid.top, grid.top)


@dataclass(frozen=True)
class IntegerWeight:
    """The integers that a weight stands for.

    weight = codes * scale, with `codes` of the weight's shape and `scale` broadcastable to it.
    """

    layer: str
    weight: str
    codes: np.ndarray
    scale: np.ndarray
    bits: int


def fixed_points(low: float, high: float, bits: int, symmetric: bool) -> tuple[float, int]:
    """Scale and zero point of an activation grid, real zero exact, codes signed.

    Asymmetric: scale = (high - low) / (2**bits - 1), zero_point = round(-2**(bits-1) - low / scale).
    Symmetric: scale = max(|low|, |high|) / (2**(bits-1) - 1), zero_point = 0.

    >>> fixed_points(0.0, 255.0, 8, symmetric=False)
    (1.0, -128)
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if symmetric:
        return max(-low, high, 1e-9) / (2 ** (bits - 1) - 1), 0
    scale = max(high - low, 1e-9) / (2**bits - 1)
    return scale, int(np.clip(np.round(-(2 ** (bits - 1)) - low / scale), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1))
