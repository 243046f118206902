"""Curves of one activation: LOGISTIC, TANH, GELU, ELU, EXP, LOG, HARD_SWISH.

Of 8 bits a curve has 256 values: they are computed once, and each code looks its own up.
"""

import math
from collections.abc import Callable

import tensorflow as tf

from tfcompress.core.arithmetic import fixedpoint, interpolated
from tfcompress.core.arithmetic.codes import Codes, Lattice, check_kernels, half_away, quotient, rounded_product
from tfcompress.core.arithmetic.onepass import in_one_pass
from tfcompress.core.arithmetic.requantize import fixed_point, rounded_twice


def looked_up(x: Codes, out: Lattice, values: Callable[[Codes], tf.Tensor]) -> Codes:
    """y = values(x), computed for each of the 256 codes once.

    Args:
        x: codes of 8 bits, any shape.
        out: the lattice of the result.
        values: from all the codes [256] to the codes of the result [256], clamped to what `out` has.

    Raises:
        ValueError: `x` is of 16 bits, whose tables the kernels interpolate.

    >>> grid = Lattice(tf.constant(1.0), tf.constant(0))
    >>> looked_up(Codes(tf.constant([3.0]), grid), grid, lambda every: every.values + 1.0).values.numpy().tolist()
    [4.0]
    """
    if x.lattice.bits != 8:
        raise ValueError(f"a table needs codes of 8 bits. Received: bits={x.lattice.bits}")
    every = tf.range(x.lattice.first, x.lattice.last + 1, dtype=tf.float32)
    table = tf.clip_by_value(tf.cast(values(Codes(every, x.lattice)), tf.float32), out.first, out.last)
    return Codes(in_one_pass(_found, [x.values], table), out)


def _found(values: tf.Tensor, table: tf.Tensor) -> tf.Tensor:
    return tf.gather(table, tf.cast(values, tf.int32) + 128)


def _curve(x: Codes, out: Lattice, function: Callable[[tf.Tensor], tf.Tensor], kernels: str, delegated: bool) -> Codes:
    """A curve of real numbers, `function` from float32 to float32.

    xnnpack, where it takes the operation:  y = rint(f(x) * (1 / s_y) + z_y), ties to even
    otherwise:                              y = round(f(x) * (1 / s_y)) + z_y, ties away from zero
    """
    check_kernels(kernels)
    zero = tf.cast(out.zero, tf.float32)

    def values(every: Codes) -> tf.Tensor:
        # Through float64 and back: else an optimizer of graphs would multiply the constants among the factors first.
        real = tf.cast(tf.cast(every.real(), tf.float64), tf.float32)
        steps = rounded_product(function(real), 1.0 / out.scale)
        return tf.round(steps + zero) if delegated and kernels == "xnnpack" else half_away(steps) + zero

    return looked_up(x, out, values)


def _wide(function: Callable[[tf.Tensor], tf.Tensor]) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function computed in float64 and rounded to float32: C's float functions are within half a step of it."""
    return lambda real: tf.cast(function(tf.cast(real, tf.float64)), tf.float32)


def logistic(x: Codes, out: Lattice, *, kernels: str) -> Codes:
    """LOGISTIC; of 8 bits `out` has scale 1/256 and zero -128 (of 16 bits: `interpolated.logistic`).

    xnnpack:    y = rint(f * 256 - 128),    f = float32(e / (1 + e)), e = exp(x) in float64
    reference:  y = round(f * 256) - 128,   f = 1 / (1 + exp(-x)) in float32
    tflm:       y = round(f / 2**23) - 128, f = 1 / (1 + exp(-x)) in 32-bit fixed point, x in 4 integer bits

    Args:
        x: codes, any shape.
        out: the lattice of the result, of as many bits.
        kernels: the kernel set, one of `KERNELS`.

    Returns:
        Codes of the same shape.

    Raises:
        ValueError: `kernels` names no kernel set.

    Source: XNNPACK, reference/unary-elementwise.cc; LiteRT, activations.cc and reference/integer_ops/logistic.h.

    >>> grid, out = Lattice(tf.constant(0.1), tf.constant(0)), Lattice(tf.constant(1 / 256), tf.constant(-128))
    >>> logistic(Codes(tf.constant([0.0, 20.0]), grid), out, kernels="tflm").values.numpy().tolist()
    [0.0, 97.0]
    """
    check_kernels(kernels)
    if x.lattice.bits == 16:
        return interpolated.logistic(x, out)
    if kernels == "tflm":
        return _fixed(x, out, lambda a: fixedpoint.halved(fixedpoint.logistic(a, 4), 23) - 128)
    if kernels == "xnnpack":
        return _curve(x, out, _wide(lambda real: tf.exp(real) / (1.0 + tf.exp(real))), kernels, True)
    exponential = _wide(tf.exp)
    return _curve(x, out, lambda real: 1.0 / (1.0 + exponential(-real)), kernels, False)


def tanh(x: Codes, out: Lattice, *, kernels: str) -> Codes:
    """TANH; of 8 bits `out` has scale 1/128 and zero 0 (of 16 bits: `interpolated.tanh`).

    xnnpack:    y = rint(tanh(x) * 128)
    reference:  y = round(tanh(x) * 128)
    tflm:       y = round(tanh(x) / 2**24), the tangent in 32-bit fixed point, x in 4 integer bits

    Args, Returns, Raises: as `logistic`.

    Source: XNNPACK, reference/unary-elementwise.cc; LiteRT, activations.cc and reference/integer_ops/tanh.h.

    >>> grid, out = Lattice(tf.constant(0.1), tf.constant(0)), Lattice(tf.constant(1 / 128), tf.constant(0))
    >>> tanh(Codes(tf.constant([0.0, 10.0]), grid), out, kernels="tflm").values.numpy().tolist()
    [0.0, 97.0]
    """
    check_kernels(kernels)
    if x.lattice.bits == 16:
        return interpolated.tanh(x, out)
    if kernels == "tflm":
        return _fixed(x, out, lambda a: fixedpoint.halved(fixedpoint.tanh(a, 4), 24))
    return _curve(x, out, _wide(tf.tanh), kernels, True)


def _fixed(x: Codes, out: Lattice, function: Callable[[tf.Tensor], tf.Tensor]) -> Codes:
    """A curve in fixed point of 4 integer bits; beyond 15/16 of their range the result is at its end."""

    def values(every: Codes) -> tf.Tensor:
        factor = fixed_point(tf.cast(x.lattice.scale, tf.float64) * 2.0**27)
        radius = tf.cast(tf.floor(15.0 * 2.0**27 / 2.0 ** tf.cast(factor.shift, tf.float64)), tf.float32)
        centred = every.values - tf.cast(x.lattice.zero, tf.float32)
        inside = tf.clip_by_value(centred, 1.0 - radius, radius - 1.0)
        found = function(tf.cast(rounded_twice(tf.cast(inside, tf.int32), factor), tf.int64))
        found = tf.where(centred >= radius, tf.constant(out.last, tf.int64), found)
        return tf.where(centred <= -radius, tf.constant(out.first, tf.int64), found)

    return looked_up(x, out, values)


def gelu(x: Codes, out: Lattice, *, approximate: bool, kernels: str) -> Codes:
    """GELU of 8 bits, of the built-in kernels (tflm has none, and is given theirs); all in float32.

        exact:        f = x / 2 * erfc(-x / sqrt(2))
        approximate:  f = x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))
        y = round(f * (1 / s_y)) + z_y

    Args, Returns, Raises: as `logistic`; of 8 bits.

    Source: LiteRT, reference/gelu.h.

    >>> grid = Lattice(tf.constant(0.1), tf.constant(0))
    >>> x = Codes(tf.constant([-10.0, 10.0]), grid)
    >>> gelu(x, grid, approximate=False, kernels="xnnpack").values.numpy().tolist()
    [-2.0, 8.0]
    """
    if not approximate:
        complement, root = _wide(tf.math.erfc), tf.constant(-math.sqrt(0.5), tf.float32)
        return _curve(x, out, lambda real: 0.5 * real * complement(real * root), kernels, False)
    tangent, root = _wide(tf.tanh), tf.constant(math.sqrt(2 / math.pi), tf.float32)

    def bent(real: tf.Tensor) -> tf.Tensor:
        return 0.5 * real * (1.0 + tangent(root * (real + 0.044715 * real * real * real)))

    return _curve(x, out, bent, kernels, False)


def elu(x: Codes, out: Lattice, *, kernels: str) -> Codes:
    """ELU of 8 bits: f = x where x >= 0, else expm1(x); tflm computes exp(x) - 1 in float32.

        xnnpack:  y = rint(f * (1 / s_y) + z_y);   otherwise:  y = round(f * (1 / s_y)) + z_y

    Args, Returns, Raises: as `logistic`; of 8 bits.

    Source: XNNPACK, reference/unary-elementwise.cc; LiteRT, activations.cc; TFLM, elu.cc.

    >>> grid = Lattice(tf.constant(0.1), tf.constant(0))
    >>> elu(Codes(tf.constant([-10.0, 10.0]), grid), grid, kernels="reference").values.numpy().tolist()
    [-6.0, 10.0]
    """
    less, exponential = _wide(tf.math.expm1), _wide(tf.exp)
    below = (lambda real: exponential(real) - 1.0) if kernels == "tflm" else less
    return _curve(x, out, lambda real: tf.where(real < 0, below(tf.minimum(real, 0.0)), real), kernels, True)


def exp(x: Codes, out: Lattice, *, kernels: str) -> Codes:
    """EXP of 8 bits, of the built-in kernels: y = round(exp(x) * (1 / s_y)) + z_y. (tflm has it in float alone.)

    Args, Returns, Raises: as `logistic`; of 8 bits.

    >>> grid = Lattice(tf.constant(0.1), tf.constant(0))
    >>> exp(Codes(tf.constant([0.0, 10.0]), grid), grid, kernels="reference").values.numpy().tolist()
    [10.0, 27.0]
    """
    return _curve(x, out, _wide(tf.exp), kernels, False)


def log(x: Codes, out: Lattice, *, kernels: str) -> Codes:
    """LOG of 8 bits, of the built-in kernels: y = round(log(x) * (1 / s_y)) + z_y, of x <= 0 the first code.

    Args, Returns, Raises: as `logistic`; of 8 bits. (tflm has it in float alone.)

    >>> grid = Lattice(tf.constant(0.1), tf.constant(0))
    >>> log(Codes(tf.constant([-1.0, 20.0]), grid), grid, kernels="reference").values.numpy().tolist()
    [-128.0, 7.0]
    """
    logarithm = _wide(tf.math.log)
    lowest = tf.cast(out.first - out.zero, tf.float32) * out.scale
    return _curve(
        x, out, lambda real: tf.where(real > 0, logarithm(tf.where(real > 0, real, 1.0)), lowest), kernels, False
    )


def hard_swish(x: Codes, out: Lattice, *, kernels: str) -> Codes:
    """HARD_SWISH of 8 bits, of the built-in kernels in every set: x * relu6(x + 3) / 6 in 16-bit fixed point.

    With short(r) = (m', e), r = m' * 2**(e - 15), of r = s_x / 128 / s_y (m, e) and of s_x / 128 / (3 / 2**15)
    (n, d), P(a, b) = (a * b + 2**14) >> 15 and T(a, b) = a * b / 2**15 cut off towards zero:

        u = (x - z_x) * 2**7
        w = u, d > 0: held(2 * P(held(u * 2**(d - 1)), n));  d <= 0: P(u, n) / 2**-d, ties away from zero
        y = round(T((w + 2**15) >> 1, P(u, m)) / 2**-e) + z_y,   held: within 16 bits

    Args, Returns, Raises: as `logistic`; of 8 bits, and s_x / 128 / s_y is below 1.

    Source: LiteRT, reference/hard_swish.h.

    >>> grid = Lattice(tf.constant(0.1), tf.constant(0))
    >>> hard_swish(Codes(tf.constant([-10.0, 10.0, 50.0]), grid), grid, kernels="tflm").values.numpy().tolist()
    [-3.0, 7.0, 50.0]
    """
    check_kernels(kernels)
    fine = (1.0 / 128.0) * x.lattice.scale
    main, main_shift = _short(quotient(fine, out.scale))
    relu, relu_shift = _short(quotient(fine, tf.constant(3.0 / 32768.0, tf.float32)))

    def values(every: Codes) -> tf.Tensor:
        u = (tf.cast(every.values, tf.int32) - x.lattice.zero) * 128
        left = tf.maximum(relu_shift - 1, 0)
        bent = _product(_held(u * tf.bitwise.left_shift(1, tf.minimum(left, 15))), relu)
        bent = tf.where(relu_shift > 0, _held(bent * 2), _halved(bent, tf.maximum(-relu_shift, 0)))
        gate = tf.bitwise.right_shift(bent + (1 << 15), 1)
        raw = gate * _product(u, main)
        cut = tf.sign(raw) * tf.bitwise.right_shift(tf.abs(raw), 15)
        return _halved(cut, -main_shift) + out.zero

    return looked_up(x, out, values)


def _short(ratio: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """A float32 ratio as m * 2**(e - 15), m of 15 bits."""
    factor = fixed_point(tf.cast(ratio, tf.float64))
    mantissa = tf.minimum(tf.bitwise.right_shift(factor.mantissa + (1 << 15), tf.constant(16, tf.int64)), 32767)
    return tf.cast(mantissa, tf.int32), tf.cast(factor.shift, tf.int32)


def _product(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    return tf.bitwise.right_shift(a * b + (1 << 14), 15)


def _held(a: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(a, -32768, 32767)


def _halved(a: tf.Tensor, exponent: tf.Tensor) -> tf.Tensor:
    """a / 2**exponent, ties away from zero."""
    half = tf.bitwise.right_shift(tf.bitwise.left_shift(1, exponent), 1)
    return tf.sign(a) * tf.bitwise.right_shift(tf.abs(a) + half, exponent)
