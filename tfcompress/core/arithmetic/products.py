"""Convolutions and matrix products in integers.

    sum  = bias + sum over the window of (x - z_x) * w         (whole numbers, exact)
    code = clip(round(sum * s_x * s_w / s_y) + z_y, low, high)

`w` are the kernel's codes (zero point 0), `s_w` their scale, one for each output or one for all. How the product is
rounded is the kernel sets' own:

    xnnpack     rint(float32(sum) * m), m = s_x * s_w / s_y in float32, from left to right
    reference   FULLY_CONNECTED: round(sum * m) in float64; all others: m as fixed point, rounded twice
    tflm        m as fixed point, rounded twice; FULLY_CONNECTED with one scale takes s_x * s_w in float32

In 16 bits (int16 activations, int8 kernel, int64 bias) no set has kernels of its own: all compute the fixed point whose
mantissa is cut to 16 bits, but for LiteRT's FULLY_CONNECTED, which rounds in float64.
"""

from collections.abc import Sequence

import tensorflow as tf

from tfcompress.core.arithmetic import requantize, sums
from tfcompress.core.arithmetic.codes import Codes, Lattice, check_kernels, clamped


def _centered(x: Codes) -> tf.Tensor:
    return x.values - tf.cast(x.lattice.zero, tf.float32)


def _real(x: Lattice, kernel_scale: tf.Tensor, out: Lattice) -> tf.Tensor:
    """s_x * s_w / s_y in float64, from the file's float32 scales."""
    wide = [tf.cast(scale, tf.float64) for scale in (x.scale, kernel_scale, out.scale)]
    return wide[0] * wide[1] / wide[2]


def _codes(
    total: tf.Tensor,
    x: Lattice,
    kernel_scale: tf.Tensor,
    out: Lattice,
    kernels: str,
    low: tf.Tensor | None,
    high: tf.Tensor | None,
) -> Codes:
    """From sums to codes, as every product but FULLY_CONNECTED."""
    if out.bits == 16:
        rounded = requantize.rounded_short(total, requantize.fixed_point(_real(x, kernel_scale, out)))
    elif kernels == "xnnpack":
        rounded = requantize.rounded_single(total, x.scale * kernel_scale / out.scale)
    else:
        rounded = requantize.rounded_twice(total, requantize.fixed_point(_real(x, kernel_scale, out)))
    return clamped(rounded + tf.cast(out.zero, rounded.dtype), out, low, high)


def _summed(
    x: Codes,
    kernel: tf.Tensor,
    bias: tf.Tensor | None,
    contraction: sums.Contraction,
    *,
    depth: int,
    axes: tuple[int, ...],
    padded: bool,
    dtype: tf.DType,
) -> tf.Tensor:
    """The sums; `kernel` as `contraction` takes it, its `axes` those that are summed over."""
    if x.lattice.bits == 16:
        return sums.wide_total(x.values, kernel, bias, contraction)
    if padded:  # padding means real zeros
        return sums.total(_centered(x), kernel, bias, contraction, reach=255.0, depth=depth, axes=axes, dtype=dtype)
    # sum of (x - z) * w = sum of x * w - z * sum of w: the activations need no pass of their own.
    columns = tf.cast(tf.reshape(tf.reduce_sum(kernel, axes), [-1]), tf.int32)
    moved = (0 if bias is None else tf.cast(bias, tf.int32)) - x.lattice.zero * columns
    return sums.total(x.values, kernel, moved, contraction, reach=128.0, depth=depth, axes=axes, dtype=dtype)


def _dtype(kernels: str) -> tf.DType:
    """What the requantization starts from: XNNPACK rounds the sum to float32, the others keep it."""
    return tf.float32 if kernels == "xnnpack" else tf.int32


def conv_2d(
    x: Codes,
    kernel: tf.Tensor,
    kernel_scale: tf.Tensor,
    bias: tf.Tensor | None,
    out: Lattice,
    *,
    strides: Sequence[int] = (1, 1),
    dilations: Sequence[int] = (1, 1),
    padding: str = "SAME",
    kernels: str,
    low: tf.Tensor | None = None,
    high: tf.Tensor | None = None,
) -> Codes:
    """CONV_2D, also grouped: the kernel then has a part of the input's channels.

        sum[b, i, j, o] = bias[o] + sum over h, w, c of (x[b, i*s + h*d, j*s + w*d, c] - z_x) * kernel[o, h, w, c]

    Args:
        x: [batch, height, width, channels].
        kernel: [out, height, width, channels / groups], float32 codes.
        kernel_scale: float32 [out] or [1].
        bias: int32 [out] (int64 where `x` has 16 bits), in steps of s_x * s_w, or None.
        out: the output's lattice, of as many bits as the input's.
        strides: rows, columns.
        dilations: rows, columns.
        padding: "SAME" or "VALID".
        kernels: the kernel set, one of `KERNELS`.
        low: smallest code that a fused activation leaves, or None.
        high: largest, or None.

    Returns:
        Codes [batch, rows, columns, out].

    Raises:
        ValueError: `kernels` names no kernel set.

    Source: LiteRT, reference_integer_ops::ConvPerChannel; XNNPACK, qs8_qc8w igemm and gemm, "fp32".

    >>> steps = Lattice(tf.constant(1.0), tf.constant(0))
    >>> image = Codes(tf.ones([1, 2, 2, 1]), steps)
    >>> conv_2d(image, 3 * tf.ones([1, 2, 2, 1]), tf.constant([0.5]), None, steps, padding="VALID",
    ...         kernels="tflm").values.numpy().tolist()
    [[[[6.0]]]]
    """
    check_kernels(kernels)
    _, rows, columns, channels = kernel.shape
    window = tf.transpose(kernel, [1, 2, 3, 0])

    def contraction(values: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
        return tf.nn.conv2d(values, window, list(strides), padding, dilations=list(dilations))

    found = _summed(
        x,
        window,
        bias,
        contraction,
        depth=rows * columns * channels,
        axes=(0, 1, 2),
        padded=padding == "SAME" and rows * columns > 1,
        dtype=_dtype(kernels),
    )
    return _codes(found, x.lattice, kernel_scale, out, kernels, low, high)


def depthwise_conv_2d(
    x: Codes,
    kernel: tf.Tensor,
    kernel_scale: tf.Tensor,
    bias: tf.Tensor | None,
    out: Lattice,
    *,
    strides: Sequence[int] = (1, 1),
    dilations: Sequence[int] = (1, 1),
    padding: str = "SAME",
    kernels: str,
    low: tf.Tensor | None = None,
    high: tf.Tensor | None = None,
) -> Codes:
    """DEPTHWISE_CONV_2D: every channel has windows of its own, `multiplier` of them.

        sum[b, i, j, c*m + q] = bias[c*m + q] + sum over h, w of (x[b, i*s + h*d, j*s + w*d, c] - z_x)
                                                                 * kernel[0, h, w, c*m + q]

    Args:
        x: [batch, height, width, channels].
        kernel: [1, height, width, channels * multiplier], float32 codes.
        kernel_scale: float32 [channels * multiplier] or [1].
        bias: int32 [channels * multiplier] (int64 where `x` has 16 bits), or None.
        out: the output's lattice.
        strides: rows, columns; equal.
        dilations: rows, columns.
        padding: "SAME" or "VALID".
        kernels: the kernel set, one of `KERNELS`.
        low: smallest code that a fused activation leaves, or None.
        high: largest, or None.

    Returns:
        Codes [batch, rows, columns, channels * multiplier].

    Raises:
        ValueError: `kernels` names no kernel set.

    Source: LiteRT, reference_integer_ops::DepthwiseConvPerChannel; XNNPACK, qs8_qc8w dwconv, "fp32".
    """
    check_kernels(kernels)
    _, rows, columns, outputs = kernel.shape
    channels = x.values.shape[-1]
    window = tf.reshape(kernel, [rows, columns, channels, outputs // channels])

    def contraction(values: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
        return tf.nn.depthwise_conv2d(values, window, [1, *strides, 1], padding, dilations=list(dilations))

    found = _summed(
        x,
        window,
        bias,
        contraction,
        depth=rows * columns,
        axes=(0, 1),
        padded=padding == "SAME" and rows * columns > 1,
        dtype=_dtype(kernels),
    )
    return _codes(found, x.lattice, kernel_scale, out, kernels, low, high)


def transpose_conv(
    x: Codes,
    kernel: tf.Tensor,
    kernel_scale: tf.Tensor,
    bias: tf.Tensor | None,
    out: Lattice,
    *,
    size: Sequence[int],
    strides: Sequence[int] = (1, 1),
    padding: str = "SAME",
    kernels: str,
    low: tf.Tensor | None = None,
    high: tf.Tensor | None = None,
) -> Codes:
    """TRANSPOSE_CONV: every input is spread over a window of outputs.

        sum[b, i*s + h - p, j*s + w - p, o] += (x[b, i, j, c] - z_x) * kernel[o, h, w, c]

    Args:
        x: [batch, height, width, channels].
        kernel: [out, height, width, channels], float32 codes.
        kernel_scale: float32 [out] or [1].
        bias: int32 [out] (int64 where `x` has 16 bits), or None.
        out: the output's lattice.
        size: the output's rows and columns.
        strides: rows, columns.
        padding: "SAME" or "VALID".
        kernels: the kernel set, one of `KERNELS`.
        low: smallest code that a fused activation leaves, or None.
        high: largest, or None.

    Returns:
        Codes [batch, rows, columns, out].

    Raises:
        ValueError: `kernels` names no kernel set.

    Source: LiteRT, reference_integer_ops::TransposeConv; XNNPACK, qs8_qc8w deconvolution.
    """
    check_kernels(kernels)
    outputs, rows, columns, channels = kernel.shape
    window = tf.transpose(kernel, [1, 2, 0, 3])

    def contraction(values: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
        shape = [tf.shape(values)[0], *size, outputs]
        return tf.nn.conv2d_transpose(values, window, shape, list(strides), padding)

    found = _summed(
        x,
        window,
        bias,
        contraction,
        depth=rows * columns * channels,
        axes=(0, 1, 3),
        padded=True,
        dtype=_dtype(kernels),
    )
    return _codes(found, x.lattice, kernel_scale, out, kernels, low, high)


def fully_connected(
    x: Codes,
    kernel: tf.Tensor,
    kernel_scale: tf.Tensor,
    bias: tf.Tensor | None,
    out: Lattice,
    *,
    kernels: str,
    low: tf.Tensor | None = None,
    high: tf.Tensor | None = None,
) -> Codes:
    """FULLY_CONNECTED along the last axis.

        sum[..., o] = bias[o] + sum over c of (x[..., c] - z_x) * kernel[o, c]

    Args:
        x: [..., in].
        kernel: [out, in], float32 codes.
        kernel_scale: float32 [out], or [1]: one scale for all outputs (another rounding of m on microcontrollers).
        bias: int32 [out] (int64 where `x` has 16 bits), or None.
        out: the output's lattice.
        kernels: the kernel set, one of `KERNELS`.
        low: smallest code that a fused activation leaves, or None.
        high: largest, or None.

    Returns:
        Codes [..., out].

    Raises:
        ValueError: `kernels` names no kernel set.

    Source: LiteRT, reference_integer_ops::FullyConnected and FullyConnectedPerChannel; XNNPACK, qs8_qc8w gemm, "fp32".

    >>> steps = Lattice(tf.constant(1.0), tf.constant(0))
    >>> row = Codes(tf.constant([[3.0, 2.0]]), steps)
    >>> fully_connected(row, tf.constant([[1.0, 1.0]]), tf.constant([0.5]), None, steps,
    ...                 kernels="xnnpack").values.numpy().tolist()
    [[2.0]]
    """
    check_kernels(kernels)
    outputs, inputs = kernel.shape

    def contraction(values: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return tf.matmul(values, kernel, transpose_b=True)

    flat = Codes(tf.reshape(x.values, [-1, inputs]), x.lattice)
    found = _summed(flat, kernel, bias, contraction, depth=inputs, axes=(1,), padded=False, dtype=_dtype(kernels))
    if kernels == "xnnpack" and out.bits == 8:
        rounded = requantize.rounded_single(found, x.lattice.scale * kernel_scale / out.scale)
    elif kernels == "tflm":
        real = (
            _shared_real(x.lattice, kernel_scale, out) if _is_one(kernel_scale) else _real(x.lattice, kernel_scale, out)
        )
        factor = requantize.fixed_point(real)
        rounded = requantize.rounded_short(found, factor) if out.bits == 16 else requantize.rounded_twice(found, factor)
    else:
        rounded = requantize.rounded_double(found, _real(x.lattice, kernel_scale, out))
    made = clamped(rounded + tf.cast(out.zero, rounded.dtype), out, low, high)
    return Codes(tf.reshape(made.values, tf.concat([tf.shape(x.values)[:-1], [outputs]], 0)), out)


def _is_one(kernel_scale: tf.Tensor) -> bool:
    return kernel_scale.shape.num_elements() == 1


def _shared_real(x: Lattice, kernel_scale: tf.Tensor, out: Lattice) -> tf.Tensor:
    """float64(s_x * s_w) / s_y, the product rounded to float32 first."""
    return tf.cast(x.scale * kernel_scale, tf.float64) / tf.cast(out.scale, tf.float64)


def batch_matmul(
    a: Codes,
    b: Codes,
    out: Lattice,
    *,
    transpose_a: bool = False,
    transpose_b: bool = False,
    kernels: str,
) -> Codes:
    """BATCH_MATMUL of two activations.

        sum[..., i, j] = sum over k of (a[..., i, k] - z_a) * (b[..., k, j] - z_b)

        xnnpack, z_b = 0:   rint(float32(sum) * m), m = s_a * s_b / s_y in float32
        else:               m = float64(float32(s_a * s_b)) / s_y as fixed point, rounded twice

    Args:
        a: [..., rows, inner].
        b: [..., inner, columns]; leading axes broadcast.
        out: the output's lattice.
        transpose_a: `a` is given as [..., inner, rows].
        transpose_b: `b` is given as [..., columns, inner].
        kernels: the kernel set, one of `KERNELS`.

    Returns:
        Codes [..., rows, columns].

    Raises:
        ValueError: `kernels` names no kernel set.

    Source: LiteRT, reference_ops::BatchMatMul; the XNNPACK delegate takes it where the second zero point is 0.
    """
    check_kernels(kernels)
    left, right = _centered(a), _centered(b)

    def contraction(left: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
        return tf.matmul(left, right, transpose_a=transpose_a, transpose_b=transpose_b)

    factor = _shared_real(a.lattice, b.lattice.scale, out)
    if out.bits == 16:
        found = sums.wide_total(left, right, None, contraction)
        rounded = requantize.rounded_short(found, requantize.fixed_point(factor))
        return clamped(rounded, out)
    depth = left.shape[-2 if transpose_a else -1]
    found = sums.total_of_two(left, right, contraction, depth=depth)
    twice = requantize.rounded_twice(found, requantize.fixed_point(factor))
    if kernels == "xnnpack":
        single = requantize.rounded_single(found, a.lattice.scale * b.lattice.scale / out.scale)
        twice = tf.where(tf.equal(b.lattice.zero, 0), tf.cast(single, tf.int32), twice)
    return clamped(twice + out.zero, out)
