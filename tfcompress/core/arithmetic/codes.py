"""Whole numbers on a lattice: what a quantized file's activations are, and how real numbers become them.

    real = (code - zero) * scale

The codes travel as float32 tensors that hold whole numbers: TensorFlow computes with these fastest, and 8 and 16 bits
fit exactly. Scales and zero points are tensors: in training they are variables.
"""

from dataclasses import dataclass

import tensorflow as tf

# LiteRT's default (XNNPACK where it takes the operation), its reference kernels, LiteRT for Microcontrollers.
KERNELS = ("xnnpack", "reference", "tflm")


@dataclass(frozen=True)
class Lattice:
    """The numbers an activation can hold.

    Attributes:
        scale: float32 scalar, the very number that stands in the file.
        zero: int32 scalar, the code of the real zero.
        bits: 8 or 16; the codes are signed.
    """

    scale: tf.Tensor
    zero: tf.Tensor
    bits: int = 8

    @property
    def first(self) -> int:
        """The smallest code: -128 at 8 bits, -32768 at 16."""
        return -(2 ** (self.bits - 1))

    @property
    def last(self) -> int:
        """The largest code: 127 at 8 bits, 32767 at 16."""
        return 2 ** (self.bits - 1) - 1


@dataclass(frozen=True)
class Codes:
    """The codes of one activation.

    Attributes:
        values: float32 tensor of whole numbers, any shape.
        lattice: what they stand for.
    """

    values: tf.Tensor
    lattice: Lattice

    def real(self) -> tf.Tensor:
        """The real numbers, float32, as DEQUANTIZE computes them: (code - zero) * scale, rounded once.

        >>> Codes(tf.constant([-128.0, 3.0]), Lattice(tf.constant(0.5), tf.constant(1))).real().numpy().tolist()
        [-64.5, 1.0]
        """
        return (self.values - tf.cast(self.lattice.zero, tf.float32)) * self.lattice.scale


def lattice_of(low: tf.Tensor, high: tf.Tensor) -> Lattice:
    """The 8-bit lattice of a range, as the converter makes it of a learned one or of a constant.

        scale = (high - low) / 255,   zero = round(-128 - low / scale), or from `high` where that rounds less

    Args:
        low, high: float64 scalars, low <= 0 <= high, low < high.

    Source: Jacob et al. 2018, arXiv:1712.05877, section 3; MLIR, fakeQuantAttrsToType.

    >>> made = lattice_of(tf.constant(-1.0, tf.float64), tf.constant(1.55, tf.float64))
    >>> round(float(made.scale), 6), int(made.zero)
    (0.01, -28)
    """
    scale = (high - low) / held(255.0, tf.float64)
    below, above = low / scale, high / scale
    zero = tf.where(128.0 - below < 127.0 + above, -128.0 - below, 127.0 - above)
    zero = tf.clip_by_value(half_away(zero), -128.0, 127.0)
    return Lattice(held(tf.cast(scale, tf.float32)), held(tf.cast(zero, tf.int32)))


def held(number: tf.Tensor | float, dtype: tf.DType = tf.float32) -> tf.Tensor:
    """A number that TensorFlow's graph optimizer does not compute with.

    It replaces a division by a constant with a product by the reciprocal, which it approximates: 1 / 4 becomes
    0.24999999, and what was a tie is none any more.
    """
    number = tf.convert_to_tensor(number) if tf.is_tensor(number) else tf.constant(number, dtype)
    return tf.raw_ops.PlaceholderWithDefault(input=number, shape=number.shape)


def rounded_product(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """a * b in float32, rounded before anything is added to it.

    Of a float32 product and a sum a compiler (XLA with `jit_compile`) makes one operation that rounds once, and it
    looks through conversions, minima and selections. So the product is made in float64, where it is exact, and its
    lowest 29 bits are rounded off, ties to even, as integers.

    >>> float(rounded_product(tf.constant(0.1), tf.constant(3.0)))
    0.30000001192092896
    """
    bits = tf.bitcast(tf.cast(a, tf.float64) * tf.cast(b, tf.float64), tf.int64)
    odd = tf.bitwise.bitwise_and(tf.bitwise.right_shift(bits, tf.constant(29, tf.int64)), tf.constant(1, tf.int64))
    kept = tf.bitwise.bitwise_and(bits + odd + ((1 << 28) - 1), tf.constant(-(1 << 29), tf.int64))
    return tf.cast(tf.bitcast(kept, tf.float64), tf.float32)


def clamped(values: tf.Tensor, out: Lattice, low: tf.Tensor | None = None, high: tf.Tensor | None = None) -> Codes:
    """Codes between `low` and `high`, which a fused activation sets; None: the lattice's first and last."""
    low = tf.cast(out.first if low is None else low, values.dtype)
    high = tf.cast(out.last if high is None else high, values.dtype)
    return Codes(tf.cast(tf.clip_by_value(values, low, high), tf.float32), out)


def check_kernels(kernels: str) -> None:
    """Refuses what names no kernel set."""
    if kernels not in KERNELS:
        raise ValueError(f"`kernels` must be one of {', '.join(KERNELS)}. Received: kernels={kernels!r}")


def half_away(values: tf.Tensor) -> tf.Tensor:
    """C's round(): the nearest whole number, ties away from zero (of float32 and float64, each computed exactly)."""
    whole = tf.floor(tf.abs(values))
    return tf.sign(values) * (whole + tf.cast(tf.abs(values) - whole >= 0.5, values.dtype))


def quotient(above: tf.Tensor, below: tf.Tensor | float) -> tf.Tensor:
    """above / below of float32 numbers, rounded once.

    Computed in float64, and so right even where the graph is optimized: a division by a constant becomes a product with
    its reciprocal, whose error in float64 (2**-52) is far below the distance of a quotient of float32 numbers from the
    middle between two of them (2**-49).
    """
    return tf.cast(tf.cast(above, tf.float64) / tf.cast(below, tf.float64), above.dtype)


def codes_of(real: tf.Tensor, lattice: Lattice, *, kernels: str = "xnnpack") -> Codes:
    """Real numbers as codes, as QUANTIZE computes them, in float32.

        xnnpack:           code = clip(rint(real * (1 / scale)) + zero), ties to even
        reference, tflm:   code = clip(round(real / scale) + zero), ties away from zero

    Args:
        real: float32 tensor, any shape.
        lattice: the codes' grid.
        kernels: the kernel set whose integers are wanted, one of `KERNELS`.

    Returns:
        Codes of the same shape.

    Raises:
        ValueError: `kernels` names no kernel set.

    >>> half = Lattice(tf.constant(0.5), tf.constant(0))
    >>> codes_of(tf.constant([0.25, -0.75, 1e9]), half).values.numpy().tolist()
    [0.0, -2.0, 127.0]
    >>> codes_of(tf.constant([0.25, -0.75, 1e9]), half, kernels="tflm").values.numpy().tolist()
    [1.0, -2.0, 127.0]
    """
    check_kernels(kernels)
    if kernels == "xnnpack":
        steps = tf.round(real * (1.0 / lattice.scale))
    else:
        steps = half_away(quotient(real, lattice.scale))
    return clamped(steps + tf.cast(lattice.zero, tf.float32), lattice)
