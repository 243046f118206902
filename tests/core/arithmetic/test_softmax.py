"""SOFTMAX and L2_NORMALIZATION against the runtimes, and the fixed point they compute in against real numbers."""

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from tests.core.arithmetic import single
from tfcompress.core.arithmetic import fixedpoint, softmax
from tfcompress.core.arithmetic.codes import KERNELS

SHAPES = [(3000, 10), (2000, 10), (1000, 35), (2000, 2), (100, 197), (20, 1001), (10, 1)]


@pytest.mark.parametrize("kernels", KERNELS)
def test_softmax(kernels):
    rng = np.random.default_rng(1)
    out = single.lattice(1 / 256, -128)
    for shape in SHAPES:
        for scales in ((1e-3, 3e-2), (3e-2, 1.5)):
            grid, values = single.random_lattice(rng, 8, *scales), single.random_codes(rng, shape)
            got = softmax.softmax(single.codes(values, grid), out, kernels=kernels)
            content = single.file_of("SOFTMAX", [single.activation(shape, grid)], single.activation(shape, out),
                                     schema.SoftmaxOptionsT(beta=1.0))  # fmt: skip
            np.testing.assert_array_equal(got.values, single.run(content, [values], kernels))


@pytest.mark.parametrize("kernels", KERNELS)
def test_l2_normalization(kernels):
    rng = np.random.default_rng(2)
    out = single.lattice(1 / 128)
    for shape, part in (((3000, 10), 1), ((100, 500), 1), ((1000, 64), 16), ((30, 3000), 1), ((20, 10000), 1)):
        grid, values = single.random_lattice(rng), single.random_codes(rng, shape) // part
        got = softmax.l2_normalization(single.codes(values, grid), out, kernels=kernels)
        content = single.file_of("L2_NORMALIZATION", [single.activation(shape, grid)],
                                 single.activation(shape, out), schema.L2NormOptionsT())  # fmt: skip
        np.testing.assert_array_equal(got.values, single.run(content, [values], kernels))


def test_rows_of_zeros_and_ones_have_a_norm():
    grid, out = single.lattice(0.1, 3), single.lattice(1 / 128)
    values = np.int8([[3, 3, 3], [3, 4, 3], [2, 3, 3]])
    content = single.file_of("L2_NORMALIZATION", [single.activation(values.shape, grid)],
                             single.activation(values.shape, out), schema.L2NormOptionsT())  # fmt: skip
    got = softmax.l2_normalization(single.codes(values, grid), out, kernels="tflm")
    np.testing.assert_array_equal(got.values, single.run(content, [values], "tflm"))


def test_norms_of_sixteen_bits_are_refused():
    codes = single.codes(np.zeros((1, 2)), single.lattice(1e-3, 0, 16))
    with pytest.raises(ValueError, match=r"computed of 8 bits. Received: bits=16"):
        softmax.l2_normalization(codes, codes.lattice, kernels="tflm")


@pytest.mark.parametrize(
    ("name", "real"), [("logistic", lambda x: 1 / (1 + np.exp(-x))), ("tanh", np.tanh), ("exponential", np.exp)]
)
def test_fixed_point_is_near_the_real_function(name, real):
    x = np.linspace(-15.5, 0.0 if name == "exponential" else 15.5, 2001)  # of 4 integer bits: steps of 2**-27
    found = getattr(fixedpoint, name)(tf.constant(np.rint(x * 2**27), tf.int64), 4).numpy() / 2.0**31
    np.testing.assert_allclose(found, real(x), atol=2e-6)
