"""Images made larger or smaller: RESIZE_BILINEAR and RESIZE_NEAREST_NEIGHBOR."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfcompress.core.arithmetic.codes import Codes, check_kernels
from tfcompress.core.arithmetic.onepass import compiled_if_large

# First index, second index and the second's weight for each place of an axis.
Places = tuple[np.ndarray, np.ndarray, np.ndarray]


def resize_bilinear(x: Codes, *, size: Sequence[int], align_corners: bool, half_pixel_centers: bool,
                    kernels: str) -> Codes:  # fmt: skip
    """RESIZE_BILINEAR: each new pixel is a mean of four, with whole weights; one lattice before and after.

    With i_k, j_k the neighbours along the height and the width and w_k, v_k their weights, w_0 + w_1 = v_0 + v_1 = B:

        y = sum over k, l of x[i_k, j_l] * w_k * v_l / B**2

    xnnpack, 8 bits:  B = 2**11, w_1 = rint(2**11 * (p - i_0)) of the place p in float32, held within the image;
                      half of B**2 added and cut off downwards: ties up
    otherwise:        B = 2**10, w_1 = q - 2**10 * i_0 of the place q in whole numbers, not held within the image
                      (beyond it both neighbours are the same); ties away from zero

    p = o * r or, with half pixel centers, o * r + r / 2 - 1/2, of the output's index o and r = in / out (corners
    aligned: (in - 1) / (out - 1)); q the same with r in steps of 2**-10, rounded.

    Args:
        x: codes [batch, height, width, channels]; height and width known.
        size: height and width of the result.
        align_corners: the corners' pixels stay where they are.
        half_pixel_centers: a pixel's place is its middle.
        kernels: the kernel set, one of `KERNELS`.

    Returns:
        Codes [batch, *size, channels].

    Raises:
        ValueError: `kernels` names no kernel set, or both ways of placing are asked for.

    Source: XNNPACK, xnn_indirection_init_resize_bilinear2d_hwc_q11; LiteRT, reference/resize_bilinear.h.

    >>> from tfcompress.core.arithmetic.codes import Lattice
    >>> grid = Lattice(tf.constant(1.0), tf.constant(0))
    >>> x = Codes(tf.constant([0.0, 10.0], shape=(1, 1, 2, 1)), grid)
    >>> y = resize_bilinear(x, size=(1, 4), align_corners=False, half_pixel_centers=True, kernels="xnnpack")
    >>> y.values.numpy().ravel().tolist()
    [0.0, 3.0, 8.0, 10.0]
    """
    check_kernels(kernels)
    if align_corners and half_pixel_centers:
        raise ValueError("`align_corners` and `half_pixel_centers` exclude each other. Received: both True")
    delegated = kernels == "xnnpack" and x.lattice.bits == 8
    places = _single_places if delegated else _whole_places
    made = [places(x.values.shape[axis + 1], size[axis], align_corners, half_pixel_centers) for axis in (0, 1)]
    operands = [tf.constant(part.astype(np.int32)) for axis in made for part in axis]
    function = _in_11_bits if delegated else _in_10_bits if x.lattice.bits == 8 else _of_16_bits
    kinds = (((None,) * 4, tf.float32), *[((None,), tf.int32)] * 6)
    shape = tf.shape(x.values)
    count = shape[0] * size[0] * size[1] * shape[3]
    values = compiled_if_large(function, kinds, count, x.values, *operands)
    return Codes(tf.ensure_shape(values, [x.values.shape[0], *size, x.values.shape[3]]), x.lattice)


def _in_11_bits(x: tf.Tensor, *places: tf.Tensor) -> tf.Tensor:
    values = _summed(tf.cast(x, tf.int32), places, 11)
    return tf.cast(tf.bitwise.right_shift(values + (1 << 21), 22), tf.float32)


def _in_10_bits(x: tf.Tensor, *places: tf.Tensor) -> tf.Tensor:
    values = _summed(tf.cast(x, tf.int32), places, 10)
    return tf.cast(tf.bitwise.right_shift(values + (1 << 19) - tf.cast(values < 0, tf.int32), 20), tf.float32)


def _of_16_bits(x: tf.Tensor, *places: tf.Tensor) -> tf.Tensor:
    values = _summed(tf.cast(x, tf.int64), places, 10)
    nearer = tf.cast(values < 0, tf.int64)  # -1/2 goes down
    return tf.cast(tf.bitwise.right_shift(values + (1 << 19) - nearer, tf.constant(20, tf.int64)), tf.float32)


def _summed(values: tf.Tensor, places: Sequence[tf.Tensor], bits: int) -> tf.Tensor:
    """The sum over the four neighbours, in steps of 2**-(2 * bits)."""
    for axis in (1, 2):
        first, second, weight = places[3 * axis - 3 : 3 * axis]
        ratio = tf.cast(tf.reshape(weight, [-1] + [1] * (3 - axis)), values.dtype)
        near, far = tf.gather(values, first, axis=axis), tf.gather(values, second, axis=axis)
        values = near * (1 << bits) + (far - near) * ratio
    return values


def _single_places(before: int, after: int, align: bool, centred: bool) -> Places:
    """XNNPACK's, in float32 and steps of 2**-11."""
    less = int(align and after != 1)
    ratio = np.float32(before - less) / np.float32(after - less)
    place = np.arange(after, dtype=np.float32) * ratio
    if centred:
        place = np.maximum(place + (np.float32(0.5) * ratio - np.float32(0.5)), np.float32(0))
    place = np.minimum(place, np.float32(before - 1))
    first = place.astype(np.int32)
    return first, np.minimum(first + 1, before - 1), np.rint((place - first.astype(np.float32)) * np.float32(2048))


def _whole_places(before: int, after: int, align: bool, centred: bool) -> Places:
    """The built-in kernels', in whole numbers and steps of 2**-10; C divides towards zero."""
    less = int(align and after > 1)
    ratio = ((before - less) * 1024 + (after - less) // 2) // (after - less)
    place = np.arange(after) * ratio + (ratio // 2 - 512 if centred else 0)
    first = np.maximum(np.trunc(place / 1024).astype(np.int64), 0)
    second = np.minimum(np.trunc((place + 1023) / 1024).astype(np.int64), before - 1)
    return first, second, place - 1024 * first


def resize_nearest(x: Codes, *, size: Sequence[int], align_corners: bool, half_pixel_centers: bool,
                   kernels: str) -> Codes:  # fmt: skip
    """RESIZE_NEAREST_NEIGHBOR, of the built-in kernels in every set; one lattice before and after.

        place = (o + (1/2 with half pixel centers)) * r,   i = min(floor(place), in - 1)

    in float32, r = in / out; with corners aligned r = (in - 1) / (out - 1) and round instead of floor. With neither,
    xnnpack's set computes 8 bits in whole numbers: i = min(o * (2**16 * in // out + 1) >> 16, in - 1).

    Args, Returns, Raises: as `resize_bilinear`.

    Source: LiteRT, reference/resize_nearest_neighbor.h.

    >>> from tfcompress.core.arithmetic.codes import Lattice
    >>> grid = Lattice(tf.constant(1.0), tf.constant(0))
    >>> x = Codes(tf.constant([0.0, 10.0], shape=(1, 1, 2, 1)), grid)
    >>> y = resize_nearest(x, size=(1, 4), align_corners=False, half_pixel_centers=True, kernels="xnnpack")
    >>> y.values.numpy().ravel().tolist()
    [0.0, 0.0, 10.0, 10.0]
    """
    check_kernels(kernels)
    values = x.values
    whole = kernels == "xnnpack" and x.lattice.bits == 8 and not align_corners and not half_pixel_centers
    for axis in (1, 2):
        before, after = x.values.shape[axis], size[axis - 1]
        if whole:
            nearest = np.arange(after) * ((before << 16) // after + 1) >> 16
        else:
            nearest = _nearest(before, after, align_corners, half_pixel_centers)
        values = tf.gather(values, np.clip(nearest, 0, before - 1).astype(np.int32), axis=axis)
    return Codes(values, x.lattice)


def _nearest(before: int, after: int, align: bool, centred: bool) -> np.ndarray:
    less = int(align and after > 1)
    ratio = np.float32(before - less) / np.float32(after - less)
    place = (np.arange(after, dtype=np.float32) + np.float32(0.5 if centred else 0.0)) * ratio
    # C's round() of positive numbers takes a half up; a float32 plus a half may become the next whole number.
    return np.floor(place) + (place - np.floor(place) >= 0.5) if align else np.floor(place)
