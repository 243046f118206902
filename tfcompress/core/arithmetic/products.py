"""What convolutions and matrix products in integers have in common.

    sum  = bias + sum over the window of (x - z_x) * w         (whole numbers, exact)
    code = clip(round(sum * s_x * s_w / s_y) + z_y, low, high)

`w` are the kernel's codes (zero point 0), `s_w` their scale, one for each output or one for all. How the product is
rounded is the kernel sets' own:

    xnnpack     rint(float32(sum) * m), m = s_x * s_w / s_y in float32, from left to right
    reference   FULLY_CONNECTED: round(sum * m) in float64; all others: m as fixed point, rounded twice
    tflm        m as fixed point, rounded twice

`m` as fixed point has a mantissa of 31 bits. Packed kernels (INT4, two codes to a byte) XNNPACK leaves to the built-in
optimized kernels, which round twice, all ties up. Exceptions: FULLY_CONNECTED of an even number of inputs is XNNPACK's
(sums beyond 2**27 wrap around there), grouped convolutions run on the reference kernels, depthwise ones round so for
whole eights of channels.

In 16 bits (int16 activations, int8 kernel, int64 bias) no set has kernels of its own: all compute the fixed point whose
mantissa is cut to 16 bits. LiteRT's FULLY_CONNECTED rounds in float64; without a bias, its optimized kernel sums
in int32 and rounds twice, all ties up.

The built-in FULLY_CONNECTED with one scale, and LiteRT's BATCH_MATMUL, round s_x * s_w to float32 before it enters m.
"""

from collections.abc import Callable, Sequence

import tensorflow as tf

from tfcompress.core.arithmetic import requantize, sums
from tfcompress.core.arithmetic.codes import Codes, Lattice, clamped, quotient
from tfcompress.core.arithmetic.onepass import compiled_if_large


def centered(x: Codes) -> tf.Tensor:
    """x - z_x."""
    return x.values - tf.cast(x.lattice.zero, tf.float32)


def real_factor(x: Lattice, kernel_scale: tf.Tensor, out: Lattice, *, shared: bool = False) -> tf.Tensor:
    """s_x * s_w / s_y in float64, from the file's float32 scales; `shared`: s_x * s_w is rounded to float32 first."""
    if shared:
        return tf.cast(x.scale * kernel_scale, tf.float64) / tf.cast(out.scale, tf.float64)
    wide = [tf.cast(scale, tf.float64) for scale in (x.scale, kernel_scale, out.scale)]
    return wide[0] * wide[1] / wide[2]


def way(kernels: str, *, packed: bool = False) -> str:
    """How a kernel set rounds a product in 8 bits: "single", "twice" or "up" (twice, all ties up)."""
    if kernels != "xnnpack":
        return "twice"
    return "up" if packed else "single"


def requantized(
    total: tf.Tensor,
    bias: tf.Tensor,
    x: Lattice,
    kernel_scale: tf.Tensor,
    out: Lattice,
    way: str,
    low: tf.Tensor | None,
    high: tf.Tensor | None,
    *,
    shared: bool = False,
) -> Codes:
    """From sums to codes.

    Args:
        total: float32 or int32 sums; int64 in 16 bits.
        bias: what is added to them first, of their type: [out], [1], or for each place [1, ..., out].
        x: the input's lattice.
        kernel_scale: float32 [out] or [1].
        out: the output's lattice.
        way: "single", "twice", "up", "eights" ("up" for whole eights of channels, "twice" for the rest) or "double", in
            float64. In 16 bits "single" and "twice" mean the short mantissa.
        low: smallest code that a fused activation leaves, or None.
        high: largest, or None.
        shared: see `real_factor`.
    """
    real = real_factor(x, kernel_scale, out, shared=shared)
    if way == "double":
        rounded = requantize.rounded_double(total + bias, real)
        return clamped(rounded + tf.cast(out.zero, tf.float64), out, low, high)
    factor = requantize.fixed_point(real)
    if out.bits == 16 and way != "up":
        return clamped(requantize.rounded_short(total + bias, factor) + tf.cast(out.zero, tf.int64), out, low, high)
    if way == "single":
        return _passed(_once, total, bias, [quotient(x.scale * kernel_scale, out.scale)], out, low, high)
    channels = total.shape[-1]
    ties_up = tf.range(channels) < channels // 8 * 8 if way == "eights" else tf.constant([way == "up"])
    parts = [factor.mantissa, factor.shift, ties_up]
    return _passed(_twice, total, bias, parts, out, low, high)


def _passed(
    function: Callable[..., tf.Tensor],
    total: tf.Tensor,
    bias: tf.Tensor,
    parts: Sequence[tf.Tensor],
    out: Lattice,
    low: tf.Tensor | None,
    high: tf.Tensor | None,
) -> Codes:
    """Rounds and clamps sums [..., channels] by `_once` or `_twice`; `parts`: factors, [channels] or [1]."""
    channels = total.shape[-1]
    ends = [tf.cast(end, tf.int32) for end in (out.first if low is None else low, out.last if high is None else high)]
    places = bias.shape.num_elements() // channels or 1
    operands = (
        tf.reshape(total, [-1, places, channels]),
        tf.reshape(tf.broadcast_to(bias, [*bias.shape[:-1], channels]), [places, channels]),
        *(tf.broadcast_to(part, [channels]) for part in parts),
        out.zero,
        *ends,
    )
    kinds = (
        ((None, places, channels), total.dtype),
        *((tuple(operand.shape), operand.dtype) for operand in operands[1:]),
    )
    made = compiled_if_large(function, kinds, tf.size(total), *operands)
    return Codes(tf.ensure_shape(tf.reshape(made, tf.shape(total)), total.shape), out)


def _once(
    total: tf.Tensor, bias: tf.Tensor, factor: tf.Tensor, zero: tf.Tensor, low: tf.Tensor, high: tf.Tensor
) -> tf.Tensor:
    zero, low, high = (tf.cast(number, tf.float32) for number in (zero, low, high))
    return tf.clip_by_value(requantize.rounded_single(total + bias, factor) + zero, low, high)


def _twice(
    total: tf.Tensor,
    bias: tf.Tensor,
    mantissa: tf.Tensor,
    shift: tf.Tensor,
    ties_up: tf.Tensor,
    zero: tf.Tensor,
    low: tf.Tensor,
    high: tf.Tensor,
) -> tf.Tensor:
    rounded = requantize.rounded_twice(
        tf.cast(total + bias, tf.int32), requantize.FixedPoint(mantissa, shift), ties_up=ties_up
    )
    return tf.cast(tf.clip_by_value(rounded + zero, low, high), tf.float32)


def product(
    x: Codes,
    kernel: tf.Tensor,
    bias: tf.Tensor | None,
    contraction: sums.Contraction,
    *,
    depth: int,
    axes: tuple[int, ...],
    padded: bool,
    then: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
) -> tf.Tensor:
    """What `then` makes of the sums.

    Args:
        x: the input.
        kernel: codes, as `contraction` takes them.
        bias: in the sums' steps, or None.
        contraction: adds up products.
        depth: how many.
        axes: of the kernel, those that are summed over.
        padded: zeros are put around the input.
        then: from the sums and the bias (float32 or int32; int64 in 16 bits) to codes' values.
    """
    if x.lattice.bits == 16:
        return then(sums.wide_total(x.values, kernel, bias, contraction), tf.zeros([1], tf.int64))
    met = _met(x, kernel, contraction, axes, padded)
    if met is None:
        return sums.total(centered(x), kernel, bias, contraction, reach=255.0, depth=depth, axes=axes, then=then)
    # sum of (x - z) * w = sum of x * w - z * sum of w: the activations need no pass of their own.
    moved = (0 if bias is None else tf.cast(bias, tf.int32)) - x.lattice.zero * tf.cast(met, tf.int32)
    return sums.total(x.values, kernel, moved, contraction, reach=128.0, depth=depth, axes=axes, then=then)


def _met(
    x: Codes, kernel: tf.Tensor, contraction: sums.Contraction, axes: tuple[int, ...], padded: bool
) -> tf.Tensor | None:
    """The sum of the kernel's numbers that meet a number of the input, not padding: for each output or, where zeros are
    put around the input, for each of its places; None where the input's size is not known."""
    if not padded:
        return tf.reshape(tf.reduce_sum(kernel, axes), [-1])
    size = x.values.shape[1:]
    found = contraction(tf.ones([1, *size]), kernel) if size.is_fully_defined() else None
    return found if found is not None and found.shape.is_fully_defined() else None
