"""CONV_2D, DEPTHWISE_CONV_2D and TRANSPOSE_CONV in integers; how they round stands in `products`."""

from collections.abc import Sequence

import tensorflow as tf

from tfcompress.core.arithmetic.codes import Codes, Lattice, check_kernels
from tfcompress.core.arithmetic.products import product, requantized, way


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
    packed: bool = False,
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
        packed: the file stores the kernel two codes to a byte (INT4).

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
    rounding = way(kernels, packed=packed)
    if rounding == "up" and channels != x.values.shape[-1]:
        rounding = "twice"

    def contraction(values: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
        return tf.nn.conv2d(values, window, list(strides), padding, dilations=list(dilations))

    def rounded(total: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
        return requantized(total, bias, x.lattice, kernel_scale, out, rounding, low, high).values

    found = product(
        x,
        window,
        bias,
        contraction,
        depth=rows * columns * channels,
        axes=(0, 1, 2),
        padded=padding == "SAME" and rows * columns > 1,
        then=rounded,
    )
    return Codes(found, out)


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
    packed: bool = False,
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
        packed: the file stores the kernel two codes to a byte (INT4).

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
    rounding = "eights" if packed and kernels == "xnnpack" else way(kernels)

    def contraction(values: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
        return tf.nn.depthwise_conv2d(values, window, [1, *strides, 1], padding, dilations=list(dilations))

    def rounded(total: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
        return requantized(total, bias, x.lattice, kernel_scale, out, rounding, low, high).values

    found = product(
        x,
        window,
        bias,
        contraction,
        depth=rows * columns,
        axes=(0, 1),
        padded=padding == "SAME" and rows * columns > 1,
        then=rounded,
    )
    return Codes(found, out)


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

    def rounded(total: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
        return requantized(total, bias, x.lattice, kernel_scale, out, way(kernels), low, high).values

    found = product(
        x,
        window,
        bias,
        contraction,
        depth=rows * columns * channels,
        axes=(0, 1, 3),
        padded=True,
        then=rounded,
    )
    return Codes(found, out)
