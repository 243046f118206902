"""Functions of numbers in [-1, 1) and a little more, in 32-bit fixed point: what kernels without floats compute with.

A number of k integer bits is a whole number of steps of 2**(k - 31). The whole numbers travel as int64, so that no
product overflows; every result is within 32 bits, as the kernels' own.

    product(a, b) = (a * b + 2**30) >> 31          ties up; the integer bits of the operands add up
    halved(a, e)  = a / 2**e                       ties away from zero
    scaled(a, e)  = clip(a * 2**e, -2**31, 2**31 - 1)

Source: gemmlowp, fixedpoint/fixedpoint.h.
"""

import tensorflow as tf

ONE = 2**31 - 1  # of no integer bits; the nearest number below 1
# exp(-2**e) of no integer bits, for e = -2...4.
POWERS = {-2: 1672461947, -1: 1302514674, 0: 790015084, 1: 290630308, 2: 39332535, 3: 720401, 4: 242}


def product(a: tf.Tensor, b: tf.Tensor | int) -> tf.Tensor:
    """(a * b + 2**30) >> 31: the saturating, rounding, doubling high product.

    >>> int(product(tf.constant(1 << 30, tf.int64), 1 << 30)) == 1 << 29
    True
    """
    return tf.bitwise.right_shift(a * b + (1 << 30), tf.constant(31, tf.int64))


def halved(a: tf.Tensor, exponent: int | tf.Tensor) -> tf.Tensor:
    """a / 2**exponent, ties away from zero; the exponent int64, broadcast to `a`.

    >>> halved(tf.constant([3, -3, 1], tf.int64), 1).numpy().tolist()
    [2, -2, 1]
    """
    exponent = tf.cast(exponent, tf.int64)
    half = tf.bitwise.right_shift(tf.bitwise.left_shift(tf.ones_like(exponent), exponent), tf.ones_like(exponent))
    return tf.sign(a) * tf.bitwise.right_shift(tf.abs(a) + half, exponent)


def scaled(a: tf.Tensor, exponent: int) -> tf.Tensor:
    """a * 2**exponent, held within 32 bits.

    >>> scaled(tf.constant([3, 1 << 30], tf.int64), 1).numpy().tolist()
    [6, 2147483647]
    """
    return tf.clip_by_value(a * (1 << exponent), tf.constant(-(2**31), tf.int64), tf.constant(2**31 - 1, tf.int64))


def exponential(a: tf.Tensor, integer_bits: int) -> tf.Tensor:
    """exp(a) of a <= 0, without integer bits.

    a is q - r with q in [-1/4, 0) and r a multiple of 1/4; exp(q) is a polynomial of fourth degree around -1/8, and
    the bits of r choose among exp(-1/4), exp(-1/2), exp(-1)...

    Args:
        a: int64, of `integer_bits` integer bits, not above 0.
        integer_bits: up to 5.

    >>> half = exponential(tf.constant([0, -(1 << 26)], tf.int64), 5)  # exp(0), exp(-1)
    >>> (half / 2**31).numpy().round(5).tolist()
    [1.0, 0.36788]
    """
    quarter = 1 << (31 - integer_bits - 2)
    part = tf.bitwise.bitwise_and(a, tf.constant(quarter - 1, tf.int64)) - quarter
    result = _near_zero(scaled(part, integer_bits))
    remainder = part - a
    for exponent, power in POWERS.items():
        if exponent < integer_bits:
            bit = tf.bitwise.bitwise_and(remainder, tf.constant(1 << (31 - integer_bits + exponent), tf.int64))
            result = tf.where(bit != 0, product(result, power), result)
    return tf.where(a == 0, tf.constant(ONE, tf.int64), result)


def _near_zero(a: tf.Tensor) -> tf.Tensor:
    """exp(a) of a in [-1/4, 0), of no integer bits: exp(-1/8) (1 + x + x**2/2 + x**3/6 + x**4/24), x = a + 1/8."""
    middle = 1895147668  # exp(-1/8)
    x = a + (1 << 28)
    square = product(x, x)
    cube, fourth = product(square, x), product(square, square)
    rest = halved(product(halved(fourth, 2) + cube, 715827883) + square, 1)  # 1/3
    return middle + product(x + rest, middle)


def reciprocal(a: tf.Tensor) -> tf.Tensor:
    """x with x * (1 + a) = 2 of a in [0, 1], of two integer bits: three steps of Newton and Raphson.

    >>> round(float(reciprocal(tf.constant(ONE, tf.int64)) / 2**29), 6)
    1.0
    """
    denominator = tf.bitwise.right_shift(a + ONE + 1, tf.constant(1, tf.int64))  # (1 + a) / 2
    x = 1515870810 + product(denominator, -1010580540)  # 48/17 - 32/17 * denominator
    for _ in range(3):
        x = x + scaled(product(x, (1 << 29) - product(denominator, x)), 2)
    return x


def logistic(a: tf.Tensor, integer_bits: int) -> tf.Tensor:
    """1 / (1 + exp(-a)), of no integer bits.

    >>> (logistic(tf.constant([0, 1 << 27, -(1 << 27)], tf.int64), 4) / 2**31).numpy().round(6).tolist()
    [0.5, 0.731059, 0.268941]
    """
    above = scaled(reciprocal(exponential(-tf.abs(a), integer_bits)), 1)
    return tf.where(a == 0, tf.constant(1 << 30, tf.int64), tf.where(a > 0, above, ONE - above))


def tanh(a: tf.Tensor, integer_bits: int) -> tf.Tensor:
    """tanh(a) = (1 - exp(-2 a)) / (1 + exp(-2 a)), of no integer bits.

    >>> (tanh(tf.constant([0, 1 << 27, -(1 << 27)], tf.int64), 4) / 2**31).numpy().round(6).tolist()
    [0.0, 0.761594, -0.761594]
    """
    above = scaled(reciprocal(exponential(-tf.abs(a), integer_bits + 1)) - (1 << 29), 2)
    return tf.where(a == 0, tf.zeros_like(a), tf.where(a > 0, above, -above))


def leading_zeros(a: tf.Tensor) -> tf.Tensor:
    """How many of 32 bits stand empty above the highest of a positive whole number.

    >>> leading_zeros(tf.constant([1, 2**31 - 1], tf.int64)).numpy().tolist()
    [31, 1]
    """
    bits = tf.bitcast(tf.cast(a, tf.float64), tf.int64)  # the exponent of a float64 that holds it exactly
    return 31 - (tf.bitwise.right_shift(bits, tf.constant(52, tf.int64)) - 1023)
