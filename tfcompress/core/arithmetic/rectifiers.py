"""Straight lines of one activation: QUANTIZE from one lattice to another, RELU, RELU6, LEAKY_RELU, PRELU, ABS."""

import tensorflow as tf

from tfcompress.core.arithmetic.codes import Codes, Lattice, check_kernels, clamped, quotient
from tfcompress.core.arithmetic.fused import bounds
from tfcompress.core.arithmetic.onepass import either
from tfcompress.core.arithmetic.requantize import fixed_point, rounded_twice
from tfcompress.core.arithmetic.tables import looked_up

# Ratios of scales for which XNNPACK takes the operation; the others go to the built-in kernel.
TAKES = (2.0**-8, 2.0**7)


def requantize(x: Codes, out: Lattice, *, kernels: str) -> Codes:
    """QUANTIZE of codes: the same numbers on another lattice.

        xnnpack, 8 bits, s_x / s_y in [2**-8, 2**7]:  y = ((x - z_x) * rint(256 * s_x / s_y) + 128 >> 8) + z_y
        otherwise:  y = M(x - z_x, s_x / s_y) + z_y,  the ratio in float64 and M the product with two roundings

    (Beyond XNNPACK's ratios its set has vector instructions whose second rounding takes ties up, not away from zero;
    the last codes of a tensor, fewer than 16, are rounded as M does there: that is not followed.)

    Args:
        x: codes, any shape; 8 or 16 bits.
        out: the lattice of the result, 8 or 16 bits.
        kernels: the kernel set, one of `KERNELS`.

    Returns:
        Codes of the same shape.

    Raises:
        ValueError: `kernels` names no kernel set.

    Source: XNNPACK, qs8-vcvt; LiteRT, reference/requantize.h.

    >>> fine, coarse = Lattice(tf.constant(1.0), tf.constant(0)), Lattice(tf.constant(4.0), tf.constant(0))
    >>> x = Codes(tf.constant([2.0, -2.0]), fine)
    >>> requantize(x, coarse, kernels="xnnpack").values.numpy().tolist()
    [1.0, 0.0]
    >>> requantize(x, coarse, kernels="reference").values.numpy().tolist()
    [1.0, -1.0]
    """
    check_kernels(kernels)
    exact = tf.cast(x.lattice.scale, tf.float64) / tf.cast(out.scale, tf.float64)
    if kernels != "xnnpack" or x.lattice.bits != 8 or out.bits != 8:
        return _line(x, out, exact)
    ratio = quotient(x.lattice.scale, out.scale)
    taken = (ratio >= TAKES[0]) & (ratio <= TAKES[1])
    return Codes(either(taken, lambda: _shifted(x, out, ratio, ratio).values,
                        lambda: _line(x, out, exact, ties_up=True).values), out)  # fmt: skip


def _line(x: Codes, out: Lattice, ratio: tf.Tensor, low: tf.Tensor | None = None,
          high: tf.Tensor | None = None, ties_up: bool = False) -> Codes:  # fmt: skip
    """M(x - z_x, ratio) + z_y; of 8 bits looked up."""

    def values(every: Codes) -> tf.Tensor:
        scaled = rounded_twice(tf.cast(every.values, tf.int32) - x.lattice.zero, fixed_point(ratio), ties_up=ties_up)
        return clamped(tf.cast(scaled + out.zero, tf.float32), out, low, high).values

    return looked_up(x, out, values) if x.lattice.bits == 8 else Codes(values(x), out)


def _shifted(x: Codes, out: Lattice, above: tf.Tensor, below: tf.Tensor) -> Codes:
    """XNNPACK's ((x - z_x) * rint(256 * r) + 128 >> 8) + z_y, r one ratio for x >= z_x and another for x < z_x."""
    factors = [tf.cast(tf.round(256.0 * ratio), tf.int32) for ratio in (above, below)]

    def values(every: Codes) -> tf.Tensor:
        centred = tf.cast(every.values, tf.int32) - x.lattice.zero
        scaled = centred * tf.where(centred < 0, factors[1], factors[0])
        return tf.cast(tf.bitwise.right_shift(scaled + 128, 8) + out.zero, tf.float32)

    return looked_up(x, out, values)


def relu(x: Codes, out: Lattice, *, kernels: str) -> Codes:
    """RELU that stands alone, of the built-in kernels in every set:

        y = max(M(x - z_x, s_x / s_y) + z_y, z_y),   M the product with two roundings

    The ratio is computed in float32; tflm computes it in float64.

    Args, Returns, Raises: as `requantize`.

    Source: LiteRT, optimized_ops.h, ReluX.

    >>> grid = Lattice(tf.constant(1.0), tf.constant(0))
    >>> relu(Codes(tf.constant([3.0, -3.0]), grid), grid, kernels="tflm").values.numpy().tolist()
    [3.0, 0.0]
    """
    check_kernels(kernels)
    return _line(x, out, _ratio(kernels, x.lattice.scale, out.scale), low=out.zero)


def relu6(x: Codes, out: Lattice, *, kernels: str) -> Codes:
    """RELU6 that stands alone: `relu`, and at most six = z_y + round(6 / s_y).

    tflm rescales nothing: y = clip(x, z_x, z_x + round(6 / s_x)), whatever `out` is.

    Args, Returns, Raises: as `requantize`.

    Source: LiteRT, optimized_ops.h, ReluX; TFLM, activations_common.cc.

    >>> grid = Lattice(tf.constant(1.0), tf.constant(0))
    >>> relu6(Codes(tf.constant([3.0, 9.0]), grid), grid, kernels="tflm").values.numpy().tolist()
    [3.0, 6.0]
    """
    check_kernels(kernels)
    if kernels == "tflm":
        return Codes(clamped(x.values, x.lattice, *bounds("relu6", x.lattice, kernels=kernels)).values, out)
    return _line(x, out, _ratio(kernels, x.lattice.scale, out.scale), *bounds("relu6", out, kernels="reference"))


def six(grid: Lattice) -> tf.Tensor:
    """The code of 6: z + round(6 / s), ties away from zero, within the lattice; int32.

    >>> int(six(Lattice(tf.constant(4.0), tf.constant(1))))
    3
    """
    high = bounds("relu6", grid, kernels="reference")[1]
    return tf.cast(grid.last if high is None else high, tf.int32)


def leaky_relu(x: Codes, out: Lattice, *, slope: float, kernels: str) -> Codes:
    """LEAKY_RELU: x where x >= 0, else slope * x.

    xnnpack, 8 bits, with p = s_x / s_y in [2**-8, 2**7] and |n| = |p * slope| >= 2**-8, n in [-127.99609375, 2**7]:

        y = ((x - z_x) * rint(256 * (p or n)) + 128 >> 8) + z_y

    otherwise, with the ratios p and s_x * slope / s_y in float32 (tflm: float64) and M the product with two roundings
    (a negative slope is M's sign, turned):

        y = M(x - z_x, p or n) + z_y

    Args:
        x: codes, any shape.
        out: the lattice of the result, of as many bits.
        slope: of the negative numbers.
        kernels: the kernel set, one of `KERNELS`.

    Returns:
        Codes of the same shape.

    Raises:
        ValueError: `kernels` names no kernel set.

    Source: XNNPACK, qs8-vlrelu; LiteRT, reference/leaky_relu.h.

    >>> grid = Lattice(tf.constant(1.0), tf.constant(0))
    >>> leaky_relu(Codes(tf.constant([3.0, -20.0]), grid), grid, slope=0.1, kernels="tflm").values.numpy().tolist()
    [3.0, -2.0]
    """
    check_kernels(kernels)
    turn = tf.constant(slope, tf.float32)

    def built_in() -> tf.Tensor:
        ratios = (_ratio(kernels, x.lattice.scale, out.scale, factor) for factor in (1.0, turn))
        return _bent(x, out, *ratios).values

    if kernels != "xnnpack" or out.bits != 8 or slope == 0:
        return Codes(built_in(), out)
    above = quotient(x.lattice.scale, out.scale)
    below = above * turn
    taken = (above >= TAKES[0]) & (above <= TAKES[1]) & (below >= -127.99609375) & (below <= TAKES[1])
    taken = taken & (tf.abs(below) >= TAKES[0])
    return Codes(either(taken, lambda: _shifted(x, out, above, below).values, built_in), out)


def _bent(x: Codes, out: Lattice, above: tf.Tensor, below: tf.Tensor) -> Codes:
    def values(every: Codes) -> tf.Tensor:
        centred = tf.cast(every.values, tf.int32) - x.lattice.zero
        right = rounded_twice(tf.maximum(centred, 0), fixed_point(above))
        left = rounded_twice(tf.minimum(centred, 0), fixed_point(tf.abs(below)))
        left = left * tf.cast(tf.sign(below), tf.int32)
        return clamped(tf.cast(tf.where(centred >= 0, right, left) + out.zero, tf.float32), out).values

    return looked_up(x, out, values) if x.lattice.bits == 8 else Codes(values(x), out)


def prelu(x: Codes, slope: Codes, out: Lattice, *, kernels: str) -> Codes:
    """PRELU, of the built-in kernels in every set, M the product with two roundings:

        y = M(x - z_x, s_x / s_y) + z_y                             where x >= z_x
        y = M((x - z_x) * (a - z_a), s_x * s_a / s_y) + z_y         otherwise

    The ratios are computed in float32; tflm computes them in float64.

    Args:
        x: codes, any shape.
        slope: codes of the slopes, 8 bits, of a shape that broadcasts to that of `x`.
        out: the lattice of the result.
        kernels: the kernel set, one of `KERNELS`.

    Returns:
        Codes of the shape of `x`.

    Raises:
        ValueError: `kernels` names no kernel set.

    Source: LiteRT, reference/prelu.h.

    >>> grid = Lattice(tf.constant(1.0), tf.constant(0))
    >>> slope = Codes(tf.constant([2.0]), Lattice(tf.constant(0.1), tf.constant(0)))
    >>> prelu(Codes(tf.constant([3.0, -20.0]), grid), slope, grid, kernels="tflm").values.numpy().tolist()
    [3.0, -4.0]
    """
    check_kernels(kernels)
    right = _line(x, out, _ratio(kernels, x.lattice.scale, out.scale)).values
    centred = tf.cast(x.values, tf.int32) - x.lattice.zero
    bend = tf.minimum(centred, 0) * (tf.cast(slope.values, tf.int32) - slope.lattice.zero)
    left = rounded_twice(bend, fixed_point(_ratio(kernels, x.lattice.scale, out.scale, slope.lattice.scale)))
    left = clamped(tf.cast(left + out.zero, tf.float32), out).values
    return Codes(tf.where(centred >= 0, right, left), out)


def absolute(x: Codes, out: Lattice, *, kernels: str) -> Codes:
    """ABS, of the built-in kernels in every set: y = M(|x - z_x|, s_x / s_y) + z_y.

    The ratio is computed in float32; tflm computes it in float64.

    Args, Returns, Raises: as `requantize`.

    Source: LiteRT, elementwise.cc.

    >>> grid = Lattice(tf.constant(1.0), tf.constant(0))
    >>> absolute(Codes(tf.constant([3.0, -3.0]), grid), grid, kernels="tflm").values.numpy().tolist()
    [3.0, 3.0]
    """
    check_kernels(kernels)
    ratio = fixed_point(_ratio(kernels, x.lattice.scale, out.scale))

    def values(every: Codes) -> tf.Tensor:
        centred = tf.abs(tf.cast(every.values, tf.int32) - x.lattice.zero)
        return clamped(tf.cast(rounded_twice(centred, ratio) + out.zero, tf.float32), out).values

    return looked_up(x, out, values) if x.lattice.bits == 8 else Codes(values(x), out)


def _ratio(kernels: str, given: tf.Tensor, out: tf.Tensor, factor: tf.Tensor | float = 1.0) -> tf.Tensor:
    """given * factor / out in float32, for tflm in float64; as float64."""
    if kernels == "tflm":
        return tf.cast(given, tf.float64) * tf.cast(factor, tf.float64) / tf.cast(out, tf.float64)
    return tf.cast(quotient(given * factor, out), tf.float64)
