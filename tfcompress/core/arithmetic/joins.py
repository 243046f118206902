"""Activations put side by side: CONCATENATION, PACK, PAD and PADV2."""

from collections.abc import Sequence

import tensorflow as tf

from tfcompress.core.arithmetic.codes import Codes, Lattice, check_kernels
from tfcompress.core.arithmetic.rectifiers import requantize


def concatenate(operands: Sequence[Codes], out: Lattice, *, axis: int, kernels: str) -> Codes:
    """CONCATENATION: the codes side by side, each brought to the output's lattice first.

    The kernels themselves demand one lattice for all; of an operand that has another the file holds a QUANTIZE in
    front of the concatenation, which `requantize` computes. On an operand whose lattice is `out` it changes nothing.

    Args:
        operands: codes that agree in every axis but one.
        out: the lattice of the result.
        axis: along which they are joined.
        kernels: the kernel set, one of `KERNELS`.

    Returns:
        Codes on `out`.

    Raises:
        ValueError: `kernels` names no kernel set.

    >>> fine, coarse = Lattice(tf.constant(1.0), tf.constant(0)), Lattice(tf.constant(2.0), tf.constant(1))
    >>> operands = Codes(tf.constant([4.0]), fine), Codes(tf.constant([4.0]), coarse)
    >>> concatenate(operands, coarse, axis=0, kernels="tflm").values.numpy().tolist()
    [3.0, 4.0]
    """
    check_kernels(kernels)
    return Codes(tf.concat(_on(operands, out, kernels), axis), out)


def pack(operands: Sequence[Codes], out: Lattice, *, axis: int, kernels: str) -> Codes:
    """PACK: as `concatenate`, along a new axis.

    >>> grid = Lattice(tf.constant(1.0), tf.constant(0))
    >>> pack([Codes(tf.constant([4.0]), grid)] * 2, grid, axis=1, kernels="tflm").values.numpy().tolist()
    [[4.0, 4.0]]
    """
    check_kernels(kernels)
    return Codes(tf.stack(_on(operands, out, kernels), axis), out)


def _on(operands: Sequence[Codes], out: Lattice, kernels: str) -> list[tf.Tensor]:
    return [
        operand.values if operand.lattice is out else requantize(operand, out, kernels=kernels).values
        for operand in operands
    ]


def pad(x: Codes, *, paddings: Sequence[Sequence[int]], value: tf.Tensor | None = None, kernels: str) -> Codes:
    """PAD with the code of zero, or PADV2 with the code `value`; one lattice before and after.

    Args:
        x: codes, any shape.
        paddings: for each axis how many codes go before and after.
        value: the code that fills; None: the lattice's zero.
        kernels: the kernel set, one of `KERNELS`.

    Returns:
        Codes of the padded shape.

    Raises:
        ValueError: `kernels` names no kernel set.

    >>> grid = Lattice(tf.constant(1.0), tf.constant(-3))
    >>> pad(Codes(tf.constant([4.0]), grid), paddings=[(1, 0)], kernels="tflm").values.numpy().tolist()
    [-3.0, 4.0]
    """
    check_kernels(kernels)
    fill = tf.cast(x.lattice.zero if value is None else value, tf.float32)
    return Codes(tf.pad(x.values - fill, paddings) + fill, x.lattice)
