"""FULLY_CONNECTED and BATCH_MATMUL in integers; how they round stands in `products`."""

import tensorflow as tf

from tfcompress.core.arithmetic import requantize, sums
from tfcompress.core.arithmetic.codes import Codes, Lattice, check_kernels, clamped, quotient
from tfcompress.core.arithmetic.products import centered, product, real_factor, requantized, way


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
    packed: bool = False,
) -> Codes:
    """FULLY_CONNECTED along the last axis.

        sum[..., o] = bias[o] + sum over c of (x[..., c] - z_x) * kernel[o, c]

    Args:
        x: [..., in].
        kernel: [out, in], float32 codes.
        kernel_scale: float32 [out], or [1].
        bias: int32 [out] (int64 where `x` has 16 bits), or None.
        out: the output's lattice.
        kernels: the kernel set, one of `KERNELS`.
        low: smallest code that a fused activation leaves, or None.
        high: largest, or None.
        packed: the file stores the kernel two codes to a byte (INT4).

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

    rounding = way(kernels, packed=packed and inputs % 2 == 1)  # XNNPACK takes whole bytes only
    if kernels == "reference" or (kernels == "xnnpack" and out.bits == 16):
        rounding = "up" if kernels == "xnnpack" and bias is None else "double"
    shared = rounding == "up" and kernel_scale.shape.num_elements() == 1

    def rounded(total: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
        return requantized(total, bias, x.lattice, kernel_scale, out, rounding, low, high, shared=shared).values

    flat = Codes(tf.reshape(x.values, [-1, inputs]), x.lattice)
    found = product(flat, kernel, bias, contraction, depth=inputs, axes=(1,), padded=False, then=rounded)
    values = tf.reshape(found, tf.concat([tf.shape(x.values)[:-1], [outputs]], 0))
    return Codes(tf.ensure_shape(values, [*x.values.shape[:-1], outputs]), out)


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

        xnnpack, z_b = 0:                   rint(float32(sum) * m), m = s_a * s_b / s_y in float32
        xnnpack, z_b not 0; reference:      m = float64(float32(s_a * s_b)) / s_y as fixed point, rounded twice
        tflm:                               m = s_a * s_b / s_y in float64 as fixed point, rounded twice

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
    left, right = centered(a), centered(b)

    def contraction(left: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
        return tf.matmul(left, right, transpose_a=transpose_a, transpose_b=transpose_b)

    real = real_factor(a.lattice, b.lattice.scale, out, shared=kernels != "tflm")
    factor = requantize.fixed_point(real)
    if out.bits == 16:
        return clamped(requantize.rounded_short(sums.wide_total(left, right, None, contraction), factor), out)
    depth = left.shape[-2 if transpose_a else -1]
    found = sums.total_of_two(left, right, contraction, depth=depth)
    twice = requantize.rounded_twice(found, factor)
    if kernels == "xnnpack":
        single = requantize.rounded_single(found, quotient(a.lattice.scale * b.lattice.scale, out.scale))
        twice = tf.where(tf.equal(b.lattice.zero, 0), tf.cast(single, tf.int32), twice)
    return clamped(twice + out.zero, out)
