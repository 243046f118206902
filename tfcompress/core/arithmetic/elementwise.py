"""Two activations, element by element: ADD, SUB, MUL, SQUARED_DIFFERENCE, MAXIMUM, MINIMUM.

Operands broadcast as NumPy's do; a constant operand is `Codes` like any other.
"""

import tensorflow as tf

from tfcompress.core.arithmetic.codes import Codes, Lattice, check_kernels, clamped, quotient
from tfcompress.core.arithmetic.onepass import either, in_one_pass
from tfcompress.core.arithmetic.requantize import FixedPoint, fixed_point, rounded_single, rounded_twice

# So many bits are put in front of the point before two operands meet: their sum stays below 2**31.
HEADROOM = {8: 20, 16: 15}
# Ratios of scales for which XNNPACK takes the operation; the others go to the built-in kernel.
TAKES_SUM = (2.0**-10, 2.0**8)
TAKES_PRODUCT = (2.0**-16, 2.0**8)


def add(
    a: Codes, b: Codes, out: Lattice, *, kernels: str, low: tf.Tensor | None = None, high: tf.Tensor | None = None
) -> Codes:
    """ADD: the sum of two activations, each brought to the output's scale.

    xnnpack, 8 bits, s_a / s_y and s_b / s_y in [2**-10, 2**8), all in float32:

        k = 20 - floor(log2(max(s_a, s_b) / s_y)),   A = rint(s_a / s_y * 2**k),   B = rint(s_b / s_y * 2**k)
        y = ((a - z_a) * A + (b - z_b) * B + 2**(k - 1) >> k) + z_y

    otherwise, with L = 20 (16 bits: 15), s = 2 * max(s_a, s_b) and M(v, r) the product with two roundings:

        y = M(M((a - z_a) * 2**L, s_a / s) + M((b - z_b) * 2**L, s_b / s), s / (2**L * s_y)) + z_y

    (Of 16 bits and equal shapes xnnpack's set has vector instructions for ADD: M(a - z_a, 2**L * s_a / s) rounds once.
    The last codes of a tensor, fewer than 16, are computed without: that is not followed.)

    Args:
        a: codes, any shape that broadcasts with `b`.
        b: codes of as many bits.
        out: the lattice of the result.
        kernels: the kernel set, one of `KERNELS`.
        low: the smallest code a fused activation leaves; None: the lattice's first.
        high: the largest; None: the lattice's last.

    Returns:
        Codes of the broadcast shape.

    Raises:
        ValueError: `kernels` names no kernel set.

    Source: XNNPACK, xnn_init_qs8_add_minmax_scalar_params; LiteRT, reference/integer_ops/add.h.

    >>> one = Lattice(tf.constant(1.0), tf.constant(0))
    >>> two = Codes(tf.constant([2.0, 100.0]), one)
    >>> add(two, two, one, kernels="tflm").values.numpy().tolist()
    [4.0, 127.0]
    """
    return _sum(a, b, out, 1, kernels, low, high)


def subtract(
    a: Codes, b: Codes, out: Lattice, *, kernels: str, low: tf.Tensor | None = None, high: tf.Tensor | None = None
) -> Codes:
    """SUB: `add` with the second operand's multiplier negated (xnnpack) or its rounded product subtracted (others).

    Source: XNNPACK, init_binary_elementwise_nd; LiteRT, reference/sub.h.

    >>> one = Lattice(tf.constant(1.0), tf.constant(0))
    >>> subtract(Codes(tf.constant([2.0]), one), Codes(tf.constant([5.0]), one), one, kernels="xnnpack").values.numpy()
    array([-3.], dtype=float32)
    """
    return _sum(a, b, out, -1, kernels, low, high)


def _sum(
    a: Codes, b: Codes, out: Lattice, sign: int, kernels: str, low: tf.Tensor | None, high: tf.Tensor | None
) -> Codes:
    check_kernels(kernels)

    at_once = kernels == "xnnpack" and out.bits == 16 and sign > 0 and a.values.shape == b.values.shape

    def built_in() -> tf.Tensor:
        return _sum_of_products(a, b, out, sign, at_once)

    if kernels != "xnnpack" or out.bits != 8:
        return clamped(built_in(), out, low, high)
    first, second = quotient(a.lattice.scale, out.scale), quotient(b.lattice.scale, out.scale)
    taken = _within(tf.minimum(first, second), TAKES_SUM) & _within(tf.maximum(first, second), TAKES_SUM)
    values = either(taken, lambda: _shifted_sum(a, b, out, first, sign * second), built_in)
    return clamped(values, out, low, high)


def _shifted_sum(a: Codes, b: Codes, out: Lattice, first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """XNNPACK's sum in int32; the multipliers have 21 bits, so that nothing overflows."""
    largest = tf.maximum(first, tf.abs(second))
    exponent = tf.bitwise.right_shift(tf.bitcast(largest, tf.int32), 23) - 127
    shift = 20 - exponent
    unit = tf.bitcast(tf.bitwise.left_shift(shift + 127, 23), tf.float32)  # 2**shift
    one, other = tf.cast(tf.round(first * unit), tf.int32), tf.cast(tf.round(second * unit), tf.int32)
    bias = tf.bitwise.left_shift(1, shift - 1) - one * a.lattice.zero - other * b.lattice.zero
    return in_one_pass(_shifted, [a.values, b.values], one, other, bias, shift, out.zero)


def _shifted(
    a: tf.Tensor, b: tf.Tensor, one: tf.Tensor, other: tf.Tensor, bias: tf.Tensor, shift: tf.Tensor, zero: tf.Tensor
) -> tf.Tensor:
    total = tf.cast(a, tf.int32) * one + (tf.cast(b, tf.int32) * other + bias)
    return tf.cast(tf.bitwise.right_shift(total, shift) + zero, tf.float32)


def _sum_of_products(a: Codes, b: Codes, out: Lattice, sign: int, at_once: bool) -> tf.Tensor:
    """The built-in kernels' sum: three products of two roundings; `at_once` takes the headroom into the ratio."""
    unit = 2.0 ** HEADROOM[out.bits]
    before, inside = (1.0, unit) if at_once else (unit, 1.0)
    factors, twice = _factors(a, b, inside)
    last = fixed_point(twice / (unit * tf.cast(out.scale, tf.float64)))
    whole = [a.lattice.zero, b.lattice.zero, tf.constant(int(before)), tf.constant(sign), out.zero]
    return in_one_pass(_products_summed, [a.values, b.values], *factors, last.mantissa, last.shift, *whole)


def _factors(a: Codes, b: Codes, unit: float) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Mantissa and shift of unit * s_a / s and unit * s_b / s, and s = 2 * max(s_a, s_b) in float64."""
    scales = [tf.cast(grid.scale, tf.float64) for grid in (a.lattice, b.lattice)]
    twice = 2.0 * tf.maximum(*scales)
    made = [fixed_point(unit * scale / twice) for scale in scales]
    return [part for factor in made for part in (factor.mantissa, factor.shift)], twice


def _products_summed(a: tf.Tensor, b: tf.Tensor, m_a: tf.Tensor, e_a: tf.Tensor, m_b: tf.Tensor, e_b: tf.Tensor,
                     m_y: tf.Tensor, e_y: tf.Tensor, z_a: tf.Tensor, z_b: tf.Tensor, unit: tf.Tensor,
                     sign: tf.Tensor, zero: tf.Tensor) -> tf.Tensor:  # fmt: skip
    one = rounded_twice((tf.cast(a, tf.int32) - z_a) * unit, FixedPoint(m_a, e_a))
    other = rounded_twice((tf.cast(b, tf.int32) - z_b) * unit, FixedPoint(m_b, e_b))
    return tf.cast(rounded_twice(one + sign * other, FixedPoint(m_y, e_y)) + zero, tf.float32)


def multiply(
    a: Codes, b: Codes, out: Lattice, *, kernels: str, low: tf.Tensor | None = None, high: tf.Tensor | None = None
) -> Codes:
    """MUL: the product of two activations.

        xnnpack, 8 bits:  y = rint(float32((a - z_a) * (b - z_b)) * r) + z_y,   r = s_a * s_b / s_y in [2**-16, 2**8)
        otherwise:        y = M((a - z_a) * (b - z_b), r) + z_y,   M the product with two roundings

    r is computed in float32; tflm computes it in float64. (On x86: XNNPACK's kernels for ARM multiply by r in fixed
    point and take ties up; that is not followed.)

    Args, Returns, Raises: as `add`.

    Source: XNNPACK, qs8-vmul; LiteRT, mul.cc and reference/integer_ops/mul.h.

    >>> half = Lattice(tf.constant(0.5), tf.constant(0))
    >>> multiply(Codes(tf.constant([3.0, 9.0]), half), Codes(tf.constant([5.0]), half), half, kernels="xnnpack").values
    <tf.Tensor: shape=(2,), dtype=float32, numpy=array([ 8., 22.], dtype=float32)>
    """
    check_kernels(kernels)
    single = quotient(a.lattice.scale * b.lattice.scale, out.scale)

    zeros = (a.lattice.zero, b.lattice.zero, out.zero)

    def built_in() -> tf.Tensor:
        scales = [tf.cast(grid.scale, tf.float64) for grid in (a.lattice, b.lattice, out)]
        ratio = scales[0] * scales[1] / scales[2] if kernels == "tflm" else tf.cast(single, tf.float64)
        factor = fixed_point(ratio)
        return in_one_pass(_product_twice, [a.values, b.values], factor.mantissa, factor.shift, *zeros)

    def delegated() -> tf.Tensor:
        return in_one_pass(_product_once, [a.values, b.values], single, *zeros)

    if kernels != "xnnpack" or out.bits != 8:
        return clamped(built_in(), out, low, high)
    return clamped(either(_within(single, TAKES_PRODUCT), delegated, built_in), out, low, high)


def _product_twice(
    a: tf.Tensor, b: tf.Tensor, m: tf.Tensor, e: tf.Tensor, z_a: tf.Tensor, z_b: tf.Tensor, zero: tf.Tensor
) -> tf.Tensor:
    total = (tf.cast(a, tf.int32) - z_a) * (tf.cast(b, tf.int32) - z_b)
    return tf.cast(rounded_twice(total, FixedPoint(m, e)) + zero, tf.float32)


def _product_once(
    a: tf.Tensor, b: tf.Tensor, ratio: tf.Tensor, z_a: tf.Tensor, z_b: tf.Tensor, zero: tf.Tensor
) -> tf.Tensor:
    # Of whole numbers, that no optimizer of graphs multiplies a constant operand by the ratio first.
    total = (tf.cast(a, tf.int32) - z_a) * (tf.cast(b, tf.int32) - z_b)
    return rounded_single(total, ratio) + tf.cast(zero, tf.float32)


def squared_difference(a: Codes, b: Codes, out: Lattice, *, kernels: str) -> Codes:
    """SQUARED_DIFFERENCE, 8 bits, of the built-in kernels in every set; with s = 2 * max(s_a, s_b):

        d = M((a - z_a) * 2**7, s_a / s) - M((b - z_b) * 2**7, s_b / s)
        y = M(d * d, s**2 / (2**14 * s_y)) + z_y,   M the product with two roundings

    Args, Returns, Raises: as `add`.

    Source: LiteRT, squared_difference.cc.

    >>> one = Lattice(tf.constant(1.0), tf.constant(0))
    >>> squared_difference(Codes(tf.constant([2.0]), one), Codes(tf.constant([5.0]), one), one, kernels="tflm").values
    <tf.Tensor: shape=(1,), dtype=float32, numpy=array([9.], dtype=float32)>
    """
    check_kernels(kernels)
    factors, twice = _factors(a, b, 1.0)
    last = fixed_point(twice * twice / (2.0**14 * tf.cast(out.scale, tf.float64)))
    zeros = (a.lattice.zero, b.lattice.zero, out.zero)
    values = in_one_pass(_squared, [a.values, b.values], *factors, last.mantissa, last.shift, *zeros)
    return clamped(values, out)


def _squared(a: tf.Tensor, b: tf.Tensor, m_a: tf.Tensor, e_a: tf.Tensor, m_b: tf.Tensor, e_b: tf.Tensor,
             m_y: tf.Tensor, e_y: tf.Tensor, z_a: tf.Tensor, z_b: tf.Tensor, zero: tf.Tensor) -> tf.Tensor:  # fmt: skip
    one = rounded_twice((tf.cast(a, tf.int32) - z_a) * 128, FixedPoint(m_a, e_a))
    other = rounded_twice((tf.cast(b, tf.int32) - z_b) * 128, FixedPoint(m_b, e_b))
    return tf.cast(rounded_twice((one - other) * (one - other), FixedPoint(m_y, e_y)) + zero, tf.float32)


def maximum(a: Codes, b: Codes, *, kernels: str) -> Codes:
    """MAXIMUM: y = max(a, b) of the codes themselves; the file gives all three one lattice, that of `a`.

    >>> one = Lattice(tf.constant(1.0), tf.constant(0))
    >>> maximum(Codes(tf.constant([2.0]), one), Codes(tf.constant([5.0]), one), kernels="tflm").values.numpy().tolist()
    [5.0]
    """
    check_kernels(kernels)
    return Codes(tf.maximum(a.values, b.values), a.lattice)


def minimum(a: Codes, b: Codes, *, kernels: str) -> Codes:
    """MINIMUM: y = min(a, b) of the codes themselves; the file gives all three one lattice, that of `a`.

    >>> one = Lattice(tf.constant(1.0), tf.constant(0))
    >>> minimum(Codes(tf.constant([2.0]), one), Codes(tf.constant([5.0]), one), kernels="tflm").values.numpy().tolist()
    [2.0]
    """
    check_kernels(kernels)
    return Codes(tf.minimum(a.values, b.values), a.lattice)


def _within(ratio: tf.Tensor, ends: tuple[float, float]) -> tf.Tensor:
    return (ratio >= ends[0]) & (ratio < ends[1])
