"""From integer sums to codes: how each kernel set multiplies a sum by a real number and rounds.

A sum of products stands for sum * s_x * s_w; the output's codes are multiples of s_y:

    code = round(sum * m) + zero,   m = s_x * s_w / s_y

The kernel sets differ in how they hold m and in how they round. `rint` takes ties to the even number, `round` away from
zero; >> is an arithmetic shift.
"""

from dataclasses import dataclass

import tensorflow as tf

from tfcompress.core.arithmetic.codes import half_away


@dataclass(frozen=True)
class FixedPoint:
    """A positive real number as mantissa * 2**(shift - 31), the mantissa a whole number of 31 bits.

    Attributes:
        mantissa: int64, 2**30 to 2**31 - 1; 0 where the number is below 2**-32.
        shift: int64, of the same shape.
    """

    mantissa: tf.Tensor
    shift: tf.Tensor


def fixed_point(real: tf.Tensor) -> FixedPoint:
    """A float64 number as LiteRT's QuantizeMultiplier holds it.

        real = f * 2**shift, 1/2 <= f < 1;   mantissa = round(f * 2**31)

    The fraction's 53 bits are read off the number's own bits, so that the scales may be tensors.

    >>> made = fixed_point(tf.constant([0.75, 3.0], tf.float64))
    >>> made.mantissa.numpy().tolist(), made.shift.numpy().tolist()
    ([1610612736, 1610612736], [0, 2])
    """
    bits = tf.bitcast(real, tf.int64)
    shift = tf.bitwise.right_shift(bits, tf.constant(52, tf.int64)) - 1022
    fraction = tf.bitwise.bitwise_and(bits, tf.constant((1 << 52) - 1, tf.int64)) + (1 << 52)
    mantissa = tf.bitwise.right_shift(fraction + (1 << 21), tf.constant(22, tf.int64))
    carried = mantissa >= 1 << 31
    mantissa = tf.where(carried, tf.constant(1 << 30, tf.int64), mantissa)
    shift = tf.where(carried, shift + 1, shift)
    lost = shift < -31
    return FixedPoint(tf.where(lost, tf.zeros_like(mantissa), mantissa), tf.where(lost, tf.zeros_like(shift), shift))


def rounded_twice(total: tf.Tensor, factor: FixedPoint, *, ties_up: bool | tf.Tensor = False) -> tf.Tensor:
    """total * factor of int32 sums, rounded twice: LiteRT's MultiplyByQuantizedMultiplier(int32).

        h = (total * 2**left * mantissa + 2**30) >> 31,   left = max(shift, 0)
        y = round(h / 2**right),                          right = max(-shift, 0)

    The first rounding takes ties up (the saturating, rounding, doubling high product), the second away from zero.

    Args:
        total: int32.
        factor: broadcasts to `total`.
        ties_up: the second rounding takes ties up as well, as the built-in optimized kernels do; a tensor says which.

    Returns:
        int32 of the shape of `total`.

    Source: gemmlowp, SaturatingRoundingDoublingHighMul and RoundingDivideByPOT.

    >>> rounded_twice(tf.constant([5, -5, 7]), fixed_point(tf.constant(0.5, tf.float64))).numpy().tolist()
    [3, -2, 4]
    >>> quarter = fixed_point(tf.constant(0.25, tf.float64))
    >>> rounded_twice(tf.constant([10, -10]), quarter).numpy().tolist()
    [3, -3]
    >>> rounded_twice(tf.constant([10, -10]), quarter, ties_up=True).numpy().tolist()
    [3, -2]
    """
    left = tf.cast(tf.maximum(factor.shift, 0), tf.int32)
    right = tf.cast(tf.maximum(-factor.shift, 0), tf.int32)
    wide = tf.cast(tf.bitwise.left_shift(total, left), tf.int64) * factor.mantissa
    high = tf.cast(tf.bitwise.right_shift(wide + (1 << 30), tf.constant(31, tf.int64)), tf.int32)
    half = tf.where(right > 0, tf.bitwise.left_shift(tf.ones_like(right), tf.maximum(right - 1, 0)), 0)
    if ties_up is not True:  # less 1 where negative: its ties go down
        half += tf.where((right > 0) & tf.logical_not(ties_up), tf.bitwise.right_shift(high, 31), 0)
    return tf.bitwise.right_shift(high + half, right)


def rounded_short(total: tf.Tensor, factor: FixedPoint) -> tf.Tensor:
    """total * factor of int64 sums, the mantissa cut to 16 bits: LiteRT's MultiplyByQuantizedMultiplier(int64).

        short = (mantissa + 2**15) >> 16, at most 2**15 - 1
        y = (total * short + 2**(14 - shift)) >> (15 - shift)

    Args:
        total: int64, of less than 48 bits.
        factor: broadcasts to `total`; less than 2**7.

    Returns:
        int64 of the shape of `total`.

    >>> rounded_short(tf.constant([10, -10], tf.int64), fixed_point(tf.constant(0.25, tf.float64))).numpy().tolist()
    [3, -2]
    """
    short = tf.bitwise.right_shift(factor.mantissa + (1 << 15), tf.constant(16, tf.int64))
    short = tf.where(factor.mantissa < 0x7FFF0000, short, tf.constant(0x7FFF, tf.int64))
    half = tf.bitwise.left_shift(tf.ones_like(factor.shift), 14 - factor.shift)
    return tf.bitwise.right_shift(total * short + half, 15 - factor.shift)


def rounded_double(total: tf.Tensor, real: tf.Tensor) -> tf.Tensor:
    """round(total * real) in float64, ties away from zero: LiteRT's reference FULLY_CONNECTED.

    >>> rounded_double(tf.constant([10, -10]), tf.constant(0.25, tf.float64)).numpy().tolist()
    [3.0, -3.0]
    """
    return half_away(tf.cast(total, tf.float64) * real)


def rounded_single(total: tf.Tensor, real: tf.Tensor) -> tf.Tensor:
    """rint(float32(total) * real) in float32, ties to even: XNNPACK's requantization.

    Source: XNNPACK, the "fp32" kernels (qs8, qs8_qc8w).

    >>> rounded_single(tf.constant([10, -10, 14]), tf.constant(0.25)).numpy().tolist()
    [2.0, -2.0, 4.0]
    """
    return tf.round(tf.cast(total, tf.float32) * real)
