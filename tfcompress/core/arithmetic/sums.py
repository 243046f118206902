"""Sums of products of whole numbers, exact although they are computed in floating point.

float32 holds every whole number up to 2**24, so a sum of products is exact, in whatever order it is added up, where

    reach * max over outputs of (sum of |w|) + |bias| < 2**24,   reach: the largest |x|

A sum that may grow larger is put together from two, of the kernel's upper and lower digits in base 16:

    w = 16 * u + l, |l| <= 8:   sum of x * w = 16 * sum of x * u + sum of x * l

and where even these are not certain, or the activations have 16 bits, float64 (2**53) takes over.
"""

from collections.abc import Callable

import tensorflow as tf

EXACT = 2**24
_DIGIT = 16

# Two tensors of one floating type -> their sums of products, the outputs on the last axis.
Contraction = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def total(
    values: tf.Tensor,
    kernel: tf.Tensor,
    bias: tf.Tensor | None,
    contraction: Contraction,
    *,
    reach: float,
    depth: int,
    axes: tuple[int, ...],
    then: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
) -> tf.Tensor:
    """What `then` makes of the sums of products of `values` and `kernel`, and of the bias.

    Args:
        values: float32 whole numbers.
        kernel: float32 whole numbers of 8 bits, as `contraction` takes it.
        bias: int32, one number an output or one a place of it, or None.
        contraction: adds up the products.
        reach: the largest |value| there can be.
        depth: how many products are summed up.
        axes: of the kernel, those that are summed over.
        then: takes the exact sums and the bias ([1] where there is none) that it adds to them; both float32 where this
            holds the totals, else int32.
    """
    zero = tf.zeros([1], tf.int32) if bias is None else tf.cast(bias, tf.int32)
    bound = reach * tf.reduce_max(tf.reduce_sum(tf.abs(kernel), axes)) + tf.cast(
        tf.reduce_max(tf.abs(zero)), tf.float32
    )

    def at_once() -> tf.Tensor:
        return then(contraction(values, kernel), tf.cast(zero, tf.float32))

    def in_parts() -> tf.Tensor:
        return then(_by_digits(values, kernel, contraction, reach, depth), zero)

    # A float32 sum of many magnitudes is itself rounded; the margin is wider than its error.
    return tf.cond(bound < EXACT * (1 - 2**-8), at_once, in_parts)


def _by_digits(values: tf.Tensor, kernel: tf.Tensor, contraction: Contraction, reach: float, depth: int) -> tf.Tensor:
    """int32 sums of products, from the kernel's two digits."""
    if reach * _DIGIT * depth >= EXACT:
        return tf.cast(contraction(tf.cast(values, tf.float64), tf.cast(kernel, tf.float64)), tf.int32)
    upper = tf.round(kernel / _DIGIT)
    lower = kernel - _DIGIT * upper
    return _DIGIT * tf.cast(contraction(values, upper), tf.int32) + tf.cast(contraction(values, lower), tf.int32)


def wide_total(values: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor | None, contraction: Contraction) -> tf.Tensor:
    """As `total`, of 16-bit activations: int64 sums, exact up to 2**53."""
    sums = contraction(tf.cast(values, tf.float64), tf.cast(kernel, tf.float64))
    return tf.cast(sums, tf.int64) + (0 if bias is None else tf.cast(bias, tf.int64))


def total_of_two(left: tf.Tensor, right: tf.Tensor, contraction: Contraction, *, depth: int | None) -> tf.Tensor:
    """int32 sums of products of two activations of 8 bits, each less its zero point: |.| <= 255.

    Args:
        left: float32 whole numbers.
        right: likewise.
        contraction: adds up the products.
        depth: how many products are summed up; None where it is not known before the model runs.
    """
    if depth is not None and 255 * 255 * depth < EXACT:
        return tf.cast(contraction(left, right), tf.int32)
    return _by_digits(left, right, contraction, 255.0, EXACT if depth is None else depth)
