"""Curves of 16 bits, tables with straight lines between their places: LOGISTIC, TANH and what SOFTMAX is made of.

All in whole numbers; `>>` is an arithmetic shift.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tfcompress.core.arithmetic.codes import Codes, Lattice
from tfcompress.core.arithmetic.onepass import in_one_pass
from tfcompress.core.arithmetic.requantize import fixed_point, rounded_twice


def _sigmoids() -> np.ndarray:
    """2**16 / (1 + exp(-i / 24)) for i = 0...255, less a sixteenth of the second difference: half of what a straight
    line between two places is off in its middle. The last is the end of the range."""
    curve = 65536 / (1 + np.exp(-np.arange(-1.0, 257.0) / 24))
    places = np.floor(curve[1:-1] - (curve[2:] - 2 * curve[1:-1] + curve[:-2]) / 16 + 0.5).astype(np.int32)
    places[-1] = 65535
    return places


SIGMOIDS = _sigmoids()


def logistic(x: Codes, out: Lattice) -> Codes:
    """LOGISTIC of 16 bits, the same in every set; `out` has scale 2**-15.

    With n = floor(3 * 2**12 * s_x * 2**l), l the least shift (of 0 to 31) that makes it more than 2**14 - 1/2:

        a = x * n + 2**(l - 1) >> l                                    steps of 1 / (3 * 2**12)
        u = 2**9 * T[i] + (T[i + 1] - T[i]) * (|a| mod 2**9),          i = |a| >> 9, T of steps 1/24
        y = u + 2**9 >> 10 where a >= 0,   2**25 - u + 2**9 - 1 >> 10 otherwise

    and u = 2**10 * (2**15 - 1) where i >= 255.

    Args:
        x: codes of 16 bits, any shape; a scale of 2**-12 is computed otherwise by xnnpack's set (that is not followed).
        out: the lattice of the result.

    Returns:
        Codes of the same shape.

    Source: LiteRT, reference/integer_ops/logistic.h.

    >>> grid, out = Lattice(tf.constant(1e-3), tf.constant(0), 16), Lattice(tf.constant(2.0**-15), tf.constant(0), 16)
    >>> logistic(Codes(tf.constant([0.0, 2000.0]), grid), out).values.numpy().tolist()
    [16384.0, 28862.0]
    """
    return Codes(in_one_pass(_logistic, [x.values], *_multiplier(x.lattice), tf.constant(SIGMOIDS)), out)


def _logistic(x: tf.Tensor, multiplier: tf.Tensor, shift: tf.Tensor, table: tf.Tensor) -> tf.Tensor:
    a = _steps(x, multiplier, shift)
    found = _between(tf.abs(a), table, 9, 0x7FFF << 10)
    found = tf.where(a >= 0, found + (1 << 9), (1 << 25) - found + (1 << 9) - 1)
    return tf.cast(tf.bitwise.right_shift(found, 10), tf.float32)


def tanh(x: Codes, out: Lattice) -> Codes:
    """TANH of 16 bits, the same in every set: 2 / (1 + exp(-2 x)) - 1; `out` has scale 2**-15. With a as in `logistic`:

        u = 2**8 * T[i] + (T[i + 1] - T[i]) * (|a| mod 2**8),          i = |a| >> 8
        y = u - 2**23 + 2**7 >> 8 where a >= 0,   -u + 2**23 + 2**7 - 1 >> 8 otherwise

    and u = 2**8 * (2**16 - 1) where i >= 255.

    Args, Returns: as `logistic` (xnnpack's set computes scales of 2**-12 and 2**-11 otherwise).

    Source: LiteRT, reference/integer_ops/tanh.h.

    >>> grid, out = Lattice(tf.constant(1e-3), tf.constant(0), 16), Lattice(tf.constant(2.0**-15), tf.constant(0), 16)
    >>> tanh(Codes(tf.constant([0.0, 2000.0]), grid), out).values.numpy().tolist()
    [0.0, 31589.0]
    """
    return Codes(in_one_pass(_tanh, [x.values], *_multiplier(x.lattice), tf.constant(SIGMOIDS)), out)


def _tanh(x: tf.Tensor, multiplier: tf.Tensor, shift: tf.Tensor, table: tf.Tensor) -> tf.Tensor:
    a = _steps(x, multiplier, shift)
    found = _between(tf.abs(a), table, 8, 0xFFFF << 8)
    found = tf.where(a >= 0, found - (1 << 23) + (1 << 7), -found + (1 << 23) + (1 << 7) - 1)
    return tf.cast(tf.bitwise.right_shift(found, 8), tf.float32)


def _multiplier(grid: Lattice) -> tuple[tf.Tensor, tf.Tensor]:
    """n and l of `logistic`."""
    real = tf.cast(grid.scale, tf.float64) * 4096.0 * 3.0
    places = tf.range(32, dtype=tf.int32)
    enough = real * 2.0 ** tf.cast(places, tf.float64) > 32767.0 / 2.0
    shift = tf.where(tf.reduce_any(enough), tf.argmax(enough, output_type=tf.int32), 31)
    return tf.cast(tf.floor(real * 2.0 ** tf.cast(shift, tf.float64)), tf.int32), shift


def _steps(x: tf.Tensor, multiplier: tf.Tensor, shift: tf.Tensor) -> tf.Tensor:
    half = tf.bitwise.right_shift(tf.bitwise.left_shift(1, shift), 1)
    return tf.bitwise.right_shift(tf.cast(x, tf.int32) * multiplier + half, shift)


def _between(a: tf.Tensor, table: tf.Tensor, bits: int, end: int) -> tf.Tensor:
    place = tf.bitwise.right_shift(a, bits)
    inside = tf.minimum(place, 254)
    first, second = tf.gather(table, inside), tf.gather(table, inside + 1)
    found = tf.bitwise.left_shift(first, bits) + (second - first) * tf.bitwise.bitwise_and(a, (1 << bits) - 1)
    return tf.where(place >= 255, end, found)


def _table(function: Callable[[np.ndarray], np.ndarray], low: float, high: float, kind: type) -> np.ndarray:
    """513 places of a function from low...high to steps of 2 / 65535, as LiteRT's LUTPopulate makes them.

    A place is lowered by half of what the straight line to the next is too high in its middle.
    """
    step = kind((kind(high) - kind(low)) / kind(512))
    scale = kind(2.0 / 65535.0)
    per_one = kind(65536) / (scale * kind(32767) - scale * kind(-32768))
    number: np.ndarray = np.arange(513).astype(kind)
    away: list[np.ndarray] = [
        function((kind(low) + number * step + part).astype(np.float64)).astype(kind) for part in (0, step / kind(2))
    ]
    here = _rounded(away[0] * per_one)
    line = _rounded((away[0][1:] * per_one + here[:-1]) / kind(2))
    here[:-1] -= _rounded((line - _rounded(away[1][:-1] * per_one)) / kind(2))
    return np.clip(here, -32768, 32767).astype(np.int32)


def _rounded(values: np.ndarray) -> np.ndarray:
    return np.sign(values) * np.floor(np.abs(values) + 0.5).astype(values.dtype)


# exp of -10...0 and 1 / (1 + x) of 0...1, in float64; TFLM makes them in float32.
_TABLES = {
    kind: (_table(np.exp, -10.0, 0.0, kind), _table(lambda x: 1 / (1 + x), 0.0, 1.0, kind))
    for kind in (np.float32, np.float64)
}


def softmax(x: Codes, out: Lattice, *, single: bool) -> Codes:
    """SOFTMAX (beta 1) of 16 bits along the last axis, x of zero 0 and `out` of scale 2**-15 and zero 0.

        e = E[M(x - max(x), s_x * 65535 / 10) + 2**15 - 1],   E = exp of -10...0 in 513 places
        t = sum(e), shifted left until its highest bit is the 31st;   r = R[t + 2**13 >> 14 less 3 * 2**15]
        y = e * r + half >> 31 - (empty bits above sum(e));           R = 1 / (1 + x) of 0...1 in 513 places

    M is the product with two roundings; between two places of a table lies a straight line of 128 steps.

    Args:
        x: codes of 16 bits [..., classes].
        out: the lattice of the result.
        single: the tables are those that float32 gives, as in tflm, and not float64.

    Returns:
        Codes of the same shape.

    Source: LiteRT, reference/softmax.h, SoftmaxInt16.

    >>> grid, out = Lattice(tf.constant(1e-3), tf.constant(0), 16), Lattice(tf.constant(2.0**-15), tf.constant(0), 16)
    >>> softmax(Codes(tf.constant([[0.0, 2000.0]]), grid), out, single=False).values.numpy().tolist()
    [[3906.0, 28863.0]]
    """
    powers, inverse = (tf.constant(table) for table in _TABLES[np.float32 if single else np.float64])
    difference = tf.cast(x.values - tf.reduce_max(x.values, -1, keepdims=True), tf.int32)
    factor = fixed_point(tf.cast(x.lattice.scale, tf.float64) / (10.0 / 65535.0))
    found = _looked_up(rounded_twice(difference, factor) + 32767, powers)
    total = tf.cast(tf.reduce_sum(found, -1, keepdims=True), tf.int64)
    bits = tf.bitcast(tf.cast(total, tf.float64), tf.int64)
    empty = 31 - (tf.bitwise.right_shift(bits, tf.constant(52, tf.int64)) - 1023)
    full = tf.bitwise.right_shift(tf.bitwise.left_shift(total, empty - 1) + (1 << 13), tf.constant(14, tf.int64))
    scale = tf.cast(_looked_up(tf.cast(full, tf.int32) - 3 * (1 << 15), inverse), tf.int64)
    half = tf.bitwise.left_shift(tf.ones_like(empty), 30 - empty)
    result = tf.bitwise.right_shift(tf.cast(found, tf.int64) * scale + half, 31 - empty)
    return Codes(tf.cast(tf.clip_by_value(result, 0, 32767), tf.float32), out)


def _looked_up(values: tf.Tensor, table: tf.Tensor) -> tf.Tensor:
    values = tf.clip_by_value(values, -32768, 32767)
    place = tf.bitwise.right_shift(values, 7) + 256
    first, second = tf.gather(table, place), tf.gather(table, place + 1)
    return first + tf.bitwise.right_shift((second - first) * tf.bitwise.bitwise_and(values, 127) + 64, 7)
