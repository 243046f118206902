"""Integers found again in a file by value."""

import numpy as np
import pytest

from tfcompress.core.grid import IntegerWeight
from tflite_export.kernels import Integers

rng = np.random.default_rng(0)


def weight(shape, bits=4, scale_shape=None):
    top = 2 ** (bits - 1) - 1
    codes = rng.integers(-top, top + 1, shape)
    scale = rng.uniform(0.01, 0.1, scale_shape or (1,) * (len(shape) - 1) + shape[-1:])
    return IntegerWeight("layer", "kernel", codes.astype("int32"), scale.astype("float32"), bits)


# Keras' layout to the file's: the permutation, the channel axis of the file.
LAYOUTS = {
    "convolution": ((3, 3, 5, 6), lambda q: q.transpose(3, 0, 1, 2), 0),
    "convolution, one axis": ((3, 5, 6), lambda q: q.transpose(2, 0, 1)[:, None], 0),
    "depthwise": ((3, 3, 6, 2), lambda q: q.reshape(1, 3, 3, 12), 3),
    "dense": ((7, 6), lambda q: q.T, 0),
    "square dense": ((6, 6), lambda q: q.T, 0),
    "transposed convolution": ((3, 3, 6, 5), lambda q: q.transpose(2, 0, 1, 3), 0),
    "heads, into": ((8, 2, 3), lambda q: q.reshape(8, 6).T, 0),
    "heads, out of": ((2, 3, 8), lambda q: q.reshape(6, 8).T, 0),
    "experts": ((2, 5, 3), lambda q: q.transpose(0, 2, 1).reshape(6, 5), 0),
}


@pytest.mark.parametrize("shape, turn, axis", LAYOUTS.values(), ids=LAYOUTS)
def test_a_scaled_kernel_is_found_in_the_files_layout(shape, turn, axis):
    w = weight(shape)
    codes = turn(w.codes)
    channels = [-1 if a == axis else 1 for a in range(codes.ndim)]
    factors = (rng.uniform(0.5, 2, codes.shape[axis]) * rng.choice([-1, 1], codes.shape[axis])).reshape(channels)
    kernel = (codes * factors * 0.03).astype("float32")
    found = Integers([weight(shape), w, weight((4, 4))]).match(kernel, axis)
    np.testing.assert_array_equal(found.codes, codes * np.sign(factors))
    np.testing.assert_allclose(found.scale, np.abs(factors).ravel() * 0.03, rtol=1e-6)
    assert (found.bits, found.source, found.codes.dtype) == (4, "layer/kernel", np.int8)


@pytest.mark.parametrize("gate", range(4))
def test_the_gates_of_a_recurrent_kernel_are_found_with_one_scale_each(gate):
    w = weight((5, 24), bits=8)
    part = w.codes[:, 6 * gate : 6 * gate + 6].T
    found = Integers([w]).match((part * 0.02).astype("float32"), None)
    np.testing.assert_array_equal(found.codes, part)
    np.testing.assert_allclose(found.scale, [0.02], rtol=1e-6)


def test_a_slice_of_depth_is_found():
    w = weight((3, 2, 2, 4, 6))
    found = Integers([w]).match((w.codes[1].transpose(3, 0, 1, 2) * 0.05).astype("float32"), 0)
    np.testing.assert_array_equal(found.codes, w.codes[1].transpose(3, 0, 1, 2))


def test_equal_scales_become_one():
    w = weight((7, 6))
    assert Integers([w]).match((w.codes.T * np.float32(0.1)), 0).scale.shape == (1,)


def test_one_scale_only_where_the_file_allows_no_more():
    w = weight((10, 4))
    kernel = w.codes * np.array([0.1, 0.1, 0.1, 0.2])
    assert Integers([w]).match(kernel.astype("float32"), None) is None


def test_a_channel_of_zeros_has_a_scale():
    w = weight((7, 3))
    kernel = (w.codes * np.array([0.1, 0.0, 0.1])).T.astype("float32")
    found = Integers([w]).match(kernel, 0)
    assert not found.codes[1].any() and (found.scale > 0).all()


def test_a_stranger_is_not_taken_for_a_known_one():
    integers = Integers([weight((7, 6))])
    assert integers.match(rng.normal(size=(6, 7)).astype("float32"), 0) is None
    assert integers.lost() == ["layer/kernel"]


@pytest.mark.parametrize("bits", range(2, 8))
def test_a_grid_is_read_off_the_numbers(bits):
    top = 2 ** (bits - 1) - 1
    codes = rng.integers(-top, top + 1, (6, 40))
    codes[:, 0], codes[:, 1:3] = top, [[1, 0]] * 6
    scale = rng.uniform(0.1, 1, (6, 1))
    found = Integers([]).match((codes * scale).astype("float32"), 0)
    assert (found.bits, found.source) == (bits, "values")
    np.testing.assert_array_equal(found.codes, codes)
    np.testing.assert_allclose(found.scale, scale.ravel(), rtol=1e-6)


def test_8_bits_and_chance_are_left_to_the_converter():
    codes = rng.integers(-127, 128, (4, 50))
    codes[:, 0] = 127
    assert Integers([]).match(codes.astype("float32"), 0) is None
    assert Integers([]).match(np.float32([[3.0], [0.7]]), 0) is None  # a channel of one number lies on every grid
