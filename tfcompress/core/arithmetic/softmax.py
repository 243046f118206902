"""The last axis made a distribution or a direction: SOFTMAX and L2_NORMALIZATION."""

import tensorflow as tf

from tfcompress.core.arithmetic import interpolated
from tfcompress.core.arithmetic.codes import Codes, Lattice, check_kernels, clamped, half_away
from tfcompress.core.arithmetic.fixedpoint import exponential, halved, leading_zeros, product, reciprocal, scaled
from tfcompress.core.arithmetic.requantize import FixedPoint, fixed_point, rounded_twice

DIFFERENCES = 256  # between two codes of 8 bits: 0...255


def softmax(x: Codes, out: Lattice, *, kernels: str) -> Codes:
    """SOFTMAX (beta 1) along the last axis; of 8 bits `out` has scale 1/256 and zero -128. With d = max(x) - x:

    xnnpack, all in float32, the sum taken from the first code to the last:

        e = exp(-s_x * d),   y = round(e * (1 / (sum(e) * s_y))) + z_y

    (On x86: built with clang for 64-bit ARM the kernel has tables of 16-bit whole numbers; that is not followed.)

    reference, tflm, in 32-bit fixed point; d * s_x has 5 integer bits, the sum 12, ties away from zero:

        e = exp(-s_x * d) where d <= floor(31 * 2**26 / 2**l), else 0,   2**l the power of two above s_x * 2**26
        y = round(e / sum(round(e / 2**12))) - 128,   the quotient by Newton and Raphson

    Of 16 bits: `interpolated.softmax`.

    Args:
        x: codes [..., classes].
        out: the lattice of the result, of as many bits.
        kernels: the kernel set, one of `KERNELS`.

    Returns:
        Codes of the same shape.

    Raises:
        ValueError: `kernels` names no kernel set.

    Source: LiteRT, optimized_ops.h and reference/softmax.h.

    >>> grid, out = Lattice(tf.constant(0.1), tf.constant(0)), Lattice(tf.constant(1 / 256), tf.constant(-128))
    >>> softmax(Codes(tf.constant([[0.0, 10.0]]), grid), out, kernels="tflm").values.numpy().tolist()
    [[-59.0, 59.0]]
    """
    check_kernels(kernels)
    if x.lattice.bits == 16:
        return interpolated.softmax(x, out, single=kernels == "tflm")
    difference = tf.cast(tf.reduce_max(x.values, -1, keepdims=True) - x.values, tf.int32)
    if kernels != "xnnpack":
        return _fixed(x, out, difference)
    steps = tf.range(DIFFERENCES, dtype=tf.float32)
    table = tf.cast(tf.exp(tf.cast(-x.lattice.scale * steps, tf.float64)), tf.float32)
    powers = tf.gather(table, difference)
    # A running sum adds one after the other, as the kernel does; reduce_sum adds in an order of its own.
    total = tf.cumsum(powers, axis=-1)[..., -1:]
    return clamped(half_away(powers * (1.0 / (total * out.scale))) + tf.cast(out.zero, tf.float32), out)


def _fixed(x: Codes, out: Lattice, difference: tf.Tensor) -> Codes:
    real = tf.minimum(tf.cast(x.lattice.scale, tf.float64) * 2.0**26, 2.0**31 - 1)
    factor = fixed_point(real)
    farthest = tf.cast(tf.floor(31.0 * 2.0**26 / 2.0 ** tf.cast(factor.shift, tf.float64)), tf.int64)
    steps = tf.minimum(tf.range(DIFFERENCES, dtype=tf.int64), farthest)
    table = exponential(product(-tf.bitwise.left_shift(steps, factor.shift), factor.mantissa), 5)
    far = tf.range(DIFFERENCES, dtype=tf.int64) > farthest
    table = tf.where(far, tf.zeros_like(table), table)
    powers = tf.gather(table, difference)
    total = tf.reduce_sum(tf.gather(halved(table, 12), difference), -1, keepdims=True)
    zeros = leading_zeros(total)
    quotient = scaled(reciprocal(tf.bitwise.left_shift(total, zeros) - (1 << 31)), 1)
    result = halved(product(powers, quotient), 12 - zeros + 31 - 8)
    return clamped(tf.cast(result + out.first, tf.float32), out)


def l2_normalization(x: Codes, out: Lattice, *, kernels: str) -> Codes:
    """L2_NORMALIZATION of 8 bits along the last axis, the same in every set; `out` has scale 1/128 and zero 0.

        y = M(x - z_x, 2**7 / sqrt(sum((x - z_x)**2)))

    M is the product with two roundings, the root that of five steps of Newton and Raphson in 32-bit fixed point.

    Args:
        x: codes of 8 bits [..., numbers], fewer than 2**15 numbers.
        out: the lattice of the result.
        kernels: the kernel set, one of `KERNELS`.

    Returns:
        Codes of the same shape.

    Raises:
        ValueError: `kernels` names no kernel set, or `x` is of 16 bits.

    Source: LiteRT, reference/integer_ops/l2normalization.h.

    >>> grid, out = Lattice(tf.constant(0.1), tf.constant(0)), Lattice(tf.constant(1 / 128), tf.constant(0))
    >>> l2_normalization(Codes(tf.constant([[30.0, -40.0]]), grid), out, kernels="tflm").values.numpy().tolist()
    [[77.0, -102.0]]
    """
    check_kernels(kernels)
    if x.lattice.bits != 8:
        raise ValueError(f"L2_NORMALIZATION is computed of 8 bits. Received: bits={x.lattice.bits}")
    centred = tf.cast(x.values, tf.int32) - x.lattice.zero
    squares = tf.reduce_sum(centred * centred, -1, keepdims=True)
    root = _inverse_root(tf.cast(squares, tf.int64))
    scaled_up = rounded_twice(centred, FixedPoint(root.mantissa, root.shift + 7))
    return clamped(tf.cast(scaled_up, tf.float32), out)


def _inverse_root(a: tf.Tensor) -> FixedPoint:
    """1 / sqrt(a) of whole numbers; of 0 and 1 the number next to 1."""
    small = a <= 1
    large = a >= 1 << 29
    value = tf.where(large, a // 4, tf.where(small, tf.constant(2, tf.int64), a))
    pairs = (leading_zeros(value) - 1) // 2 - 1
    shift = tf.where(large, tf.constant(12, tf.int64), tf.constant(11, tf.int64)) - pairs
    value = tf.bitwise.right_shift(tf.bitwise.left_shift(value, 2 * pairs), tf.constant(1, tf.int64))
    half = halved(value, 1)
    x = tf.ones_like(a) * (1 << 28)
    for _ in range(5):
        cube = scaled(product(product(x, x), x), 6)
        x = scaled(product(tf.constant((1 << 28) + (1 << 27), tf.int64), x) - product(half, cube), 3)
    x = product(x, 1518500250)  # sqrt(1/2)
    x = tf.bitwise.left_shift(x, tf.maximum(-shift, 0))
    return FixedPoint(
        tf.where(small, tf.constant(2**31 - 1, tf.int64), x), -tf.where(small, tf.zeros_like(a), tf.maximum(shift, 0))
    )
