"""The codes between which a fused activation clamps."""

import tensorflow as tf

from tfcompress.core.arithmetic.codes import Lattice, check_kernels, half_away, quotient

# The real numbers that an activation leaves.
_RANGES: dict[str, tuple[float | None, float | None]] = {
    "relu": (0.0, None),
    "relu6": (0.0, 6.0),
    "relu_n1_to_1": (-1.0, 1.0),
}
ACTIVATIONS = tuple(_RANGES)


def bounds(activation: str | None, out: Lattice, *, kernels: str) -> tuple[tf.Tensor | None, tf.Tensor | None]:
    """The smallest and the largest code that an activation leaves, for `low` and `high` of an operation.

        xnnpack, 8 bits:   rint(r / scale + zero), ties to even
        else:              round(r / scale) + zero, ties away from zero

    Args:
        activation: one of `ACTIVATIONS`, or None.
        out: the output's lattice.
        kernels: the kernel set, one of `KERNELS`.

    Returns:
        int32 scalars; None where the lattice's own end stands.

    Raises:
        ValueError: `activation` or `kernels` names nothing known.

    Source: LiteRT, CalculateActivationRangeQuantized; XNNPACK, xnn_qs8_quantize.

    >>> low, high = bounds("relu6", Lattice(tf.constant(4.0), tf.constant(-3)), kernels="xnnpack")
    >>> int(low), int(high)  # -1.5 is a tie
    (-3, -2)
    >>> low, high = bounds("relu6", Lattice(tf.constant(4.0), tf.constant(-3)), kernels="tflm")
    >>> int(low), int(high)
    (-3, -1)
    """
    check_kernels(kernels)
    if activation is None:
        return None, None
    if activation not in _RANGES:
        known = ", ".join(_RANGES)
        raise ValueError(f"`activation` must be one of {known}, or None. Received: activation={activation!r}")

    def code(real: float | None) -> tf.Tensor | None:
        if real is None:
            return None
        steps = quotient(tf.constant(real), out.scale)
        if kernels == "xnnpack" and out.bits == 8:
            found = tf.cast(tf.round(steps + tf.cast(out.zero, tf.float32)), tf.int32)
        else:
            found = tf.cast(half_away(steps), tf.int32) + out.zero
        return tf.clip_by_value(found, out.first, out.last)

    low, high = _RANGES[activation]
    return code(low), code(high)
