"""Windows and axes made one number: AVERAGE_POOL_2D, MAX_POOL_2D, MEAN, SUM, REDUCE_MAX, REDUCE_MIN."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfcompress.core.arithmetic.codes import (
    Codes,
    Lattice,
    check_kernels,
    clamped,
    half_away,
    quotient,
    rounded_product,
)
from tfcompress.core.arithmetic.requantize import FixedPoint, fixed_point, rounded_twice


def average_pool(
    x: Codes,
    *,
    window: Sequence[int],
    strides: Sequence[int],
    padding: str,
    kernels: str,
    low: tf.Tensor | None = None,
    high: tf.Tensor | None = None,
) -> Codes:
    """AVERAGE_POOL_2D, of the built-in kernels in every set: one lattice before and after.

        y = (sum of the window's n codes) / n, ties away from zero

    Only codes inside the image count, with padding too.

    Args:
        x: codes [batch, height, width, channels]; height and width known.
        window: height and width of the window.
        strides: along the height and the width.
        padding: "SAME" or "VALID".
        kernels: the kernel set, one of `KERNELS`.
        low: the smallest code a fused activation leaves; None: the lattice's first.
        high: the largest; None: the lattice's last.

    Returns:
        Codes [batch, out_height, out_width, channels].

    Raises:
        ValueError: `kernels` names no kernel set.

    Source: LiteRT, reference/integer_ops/pooling.h.

    >>> grid = Lattice(tf.constant(1.0), tf.constant(0))
    >>> x = Codes(tf.constant([1.0, 2.0, -1.0, -2.0], shape=(1, 1, 4, 1)), grid)
    >>> y = average_pool(x, window=(1, 2), strides=(1, 2), padding="VALID", kernels="tflm")
    >>> y.values.numpy().ravel().tolist()
    [2.0, -2.0]
    """
    check_kernels(kernels)
    sums = tf.float32 if x.lattice.bits == 8 else tf.float64  # that hold the sum of a window exactly
    pooled = tf.nn.avg_pool2d(tf.cast(x.values, sums), window, strides, padding)
    count = np.outer(*(_counted(x.values.shape[axis + 1], window[axis], strides[axis], padding) for axis in (0, 1)))[
        None, :, :, None
    ]
    # The mean times n is within a rounding of the sum, a whole number. Quotients by 2 n lie at least 1 / (2 n) apart:
    # `more` is far below that and far above what a product with the reciprocal is off.
    small = x.lattice.bits == 8 and count.max() <= 1024
    kind, more = (np.float32, 2.0**-13) if small else (np.float64, 2.0**-30)
    total = tf.cast(tf.round(pooled * tf.constant(count, sums)), kind)
    half, reciprocal = count.astype(kind) / kind(2), (1.0 / count).astype(kind)
    whole = tf.floor((tf.abs(total) + half) * reciprocal + more)
    return clamped(tf.sign(total) * whole, x.lattice, low, high)


def _counted(size: int, window: int, stride: int, padding: str) -> np.ndarray:
    """How many places of each window lie inside an axis."""
    outside = 0 if padding == "VALID" else max((-(-size // stride) - 1) * stride + window - size, 0)
    places = (size + outside - window) // stride + 1
    start = np.arange(places) * stride - outside // 2
    return np.minimum(start + window, size) - np.maximum(start, 0)


def max_pool(
    x: Codes,
    *,
    window: Sequence[int],
    strides: Sequence[int],
    padding: str,
    kernels: str,
    low: tf.Tensor | None = None,
    high: tf.Tensor | None = None,
) -> Codes:
    """MAX_POOL_2D: the largest code of the window, one lattice before and after.

    Args, Returns, Raises: as `average_pool`.

    >>> grid = Lattice(tf.constant(1.0), tf.constant(0))
    >>> x = Codes(tf.constant([1.0, 2.0, -1.0, -2.0], shape=(1, 1, 4, 1)), grid)
    >>> y = max_pool(x, window=(1, 2), strides=(1, 2), padding="VALID", kernels="tflm")
    >>> y.values.numpy().ravel().tolist()
    [2.0, -1.0]
    """
    check_kernels(kernels)
    return clamped(tf.nn.max_pool2d(x.values, window, strides, padding), x.lattice, low, high)


def mean(x: Codes, out: Lattice, *, axes: Sequence[int], keep: bool, kernels: str) -> Codes:
    """MEAN over n numbers of the axes.

    xnnpack, 8 bits, all in float32:

        r = s_x / s_y * (1 / n),   y = rint(sum(x) * r + (z_y - n * z_x * r))

    otherwise, with m * 2**(e - 31) = s_x / s_y (m of 31 bits) and t = min(floor(log2(n)), 32, 31 + e):

        y = M(sum(x) - n * z_x, floor(m * 2**t / n), e - t) + z_y,   M the product with two roundings

    Args:
        x: codes of any shape, its axes of known sizes.
        out: the lattice of the result.
        axes: which are averaged.
        keep: whether they stay, with size 1.
        kernels: the kernel set, one of `KERNELS`.

    Returns:
        Codes of the reduced shape.

    Raises:
        ValueError: `kernels` names no kernel set.

    Source: XNNPACK, operators/reduce-nd.c; LiteRT, reference/integer_ops/mean.h.

    >>> grid = Lattice(tf.constant(1.0), tf.constant(0))
    >>> x = Codes(tf.constant([[1.0, 2.0], [5.0, 8.0]]), grid)
    >>> mean(x, grid, axes=[1], keep=False, kernels="reference").values.numpy().tolist()
    [2.0, 7.0]
    """
    return _reduced(x, out, axes, keep, kernels, True)


def total(x: Codes, out: Lattice, *, axes: Sequence[int], keep: bool, kernels: str) -> Codes:
    """SUM over n numbers of the axes.

        xnnpack, 8 bits:   as `mean` with r = s_x / s_y
        xnnpack, 16 bits:  y = round(float32(sum(x)) * r) + z_y in float32, ties away from zero
        tflm, reference:   y = M(sum(x) - n * z_x, s_x / s_y) + z_y

    LiteRT's reference kernel takes the bytes of 8 signed bits for unsigned ones, before and after: x is x + 256 where
    it is negative, y is clamped to 0...255, and codes above 127 are y - 256. (Of 16 bits it reads half the bytes; that
    is not followed.)

    Args, Returns, Raises: as `mean`.

    Source: LiteRT, reduce.cc.

    >>> grid = Lattice(tf.constant(1.0), tf.constant(0))
    >>> x = Codes(tf.constant([[1.0, 2.0], [5.0, 8.0]]), grid)
    >>> total(x, grid, axes=[1], keep=False, kernels="reference").values.numpy().tolist()
    [3.0, 13.0]
    """
    if kernels != "reference" or out.bits != 8:
        return _reduced(x, out, axes, keep, kernels, False)
    unsigned = Codes(tf.where(x.values < 0, x.values + 256.0, x.values), x.lattice)
    whole = _exact_sum(unsigned, list(axes), keep) - _count(x, axes) * x.lattice.zero
    scaled = tf.clip_by_value(rounded_twice(whole, _ratio(x.lattice, out)) + out.zero, 0, 255)
    return Codes(tf.cast(tf.where(scaled > 127, scaled - 256, scaled), tf.float32), out)


def _reduced(x: Codes, out: Lattice, axes: Sequence[int], keep: bool, kernels: str, average: bool) -> Codes:
    check_kernels(kernels)
    count, summed = _count(x, axes), _exact_sum(x, list(axes), keep)
    if kernels == "xnnpack" and (out.bits == 8 or not average):
        ratio = quotient(x.lattice.scale, out.scale) * (
            np.float32(1.0) / np.float32(count) if average else np.float32(1.0)
        )
        if out.bits == 16:
            return clamped(half_away(tf.cast(summed, tf.float32) * ratio), out)
        zero = tf.cast(out.zero, tf.float32) - rounded_product(tf.cast(count * x.lattice.zero, tf.float32), ratio)
        return clamped(tf.round(rounded_product(tf.cast(summed, tf.float32), ratio) + zero), out)
    factor = _ratio(x.lattice, out)
    if average:
        shift = tf.minimum(tf.constant(min(count.bit_length() - 1, 32), tf.int64), 31 + factor.shift)
        factor = FixedPoint(tf.bitwise.left_shift(factor.mantissa, shift) // count, factor.shift - shift)
    return clamped(tf.cast(rounded_twice(summed - count * x.lattice.zero, factor) + out.zero, tf.float32), out)


def _count(x: Codes, axes: Sequence[int]) -> int:
    return int(np.prod([x.values.shape[axis] for axis in axes]))


def _exact_sum(x: Codes, axes: list[int], keep: bool) -> tf.Tensor:
    """The sum in int32; float32 adds whole numbers exactly as long as it stays below 2**24."""
    kind = tf.float32 if _count(x, axes) * 2**x.lattice.bits <= 2**24 else tf.float64
    return tf.cast(tf.reduce_sum(tf.cast(x.values, kind), axes, keepdims=keep), tf.int32)


def _ratio(given: Lattice, out: Lattice) -> FixedPoint:
    return fixed_point(tf.cast(given.scale, tf.float64) / tf.cast(out.scale, tf.float64))


def largest(x: Codes, *, axes: Sequence[int], keep: bool, kernels: str) -> Codes:
    """REDUCE_MAX: the largest code along the axes; one lattice before and after.

    >>> x = Codes(tf.constant([[1.0, 2.0], [5.0, 8.0]]), Lattice(tf.constant(1.0), tf.constant(0)))
    >>> largest(x, axes=[1], keep=False, kernels="reference").values.numpy().tolist()
    [2.0, 8.0]
    """
    check_kernels(kernels)
    return Codes(tf.reduce_max(x.values, list(axes), keepdims=keep), x.lattice)


def smallest(x: Codes, *, axes: Sequence[int], keep: bool, kernels: str) -> Codes:
    """REDUCE_MIN: the smallest code along the axes; one lattice before and after.

    >>> x = Codes(tf.constant([[1.0, 2.0], [5.0, 8.0]]), Lattice(tf.constant(1.0), tf.constant(0)))
    >>> smallest(x, axes=[1], keep=False, kernels="reference").values.numpy().tolist()
    [1.0, 5.0]
    """
    check_kernels(kernels)
    return Codes(tf.reduce_min(x.values, list(axes), keepdims=keep), x.lattice)
