"""Compiled, the whole-number arithmetic gives the same integers as step by step."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from tests.core.arithmetic import single
from tfcompress.core.arithmetic import elementwise, onepass, rectifiers, resize, tables
from tfcompress.core.arithmetic.codes import KERNELS, Codes

FIRST, SECOND = (grid.astype(np.float32) for grid in np.meshgrid(np.arange(-128, 128), np.arange(-128, 128)))
OPERATIONS = {
    "add": lambda a, b, out, kernels: elementwise.add(a, b, out, kernels=kernels),
    "subtract": lambda a, b, out, kernels: elementwise.subtract(a, b, out, kernels=kernels),
    "multiply": lambda a, b, out, kernels: elementwise.multiply(a, b, out, kernels=kernels),
    "squared_difference": lambda a, b, out, kernels: elementwise.squared_difference(a, b, out, kernels=kernels),
    "requantize": lambda a, b, out, kernels: rectifiers.requantize(a, out, kernels=kernels),
    "leaky_relu": lambda a, b, out, kernels: rectifiers.leaky_relu(a, out, slope=0.3, kernels=kernels),
    "hard_swish": lambda a, b, out, kernels: tables.hard_swish(a, out, kernels=kernels),
}


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_compiled_and_step_by_step_agree_on_every_pair_of_codes(name, kernels, monkeypatch):
    for seed in range(2):
        rng = np.random.default_rng(seed)
        grids = [single.random_lattice(rng, low=1e-2, high=1e-1) for _ in range(2)]
        out = single.random_lattice(rng, low=3e-2, high=3e-1)
        a, b = single.codes(FIRST, grids[0]), single.codes(SECOND, grids[1])
        plain = OPERATIONS[name](a, b, out, kernels).values.numpy()
        with monkeypatch.context() as patch:
            patch.setattr(onepass, "LARGE", 0)
            compiled = OPERATIONS[name](a, b, out, kernels).values.numpy()
        np.testing.assert_array_equal(compiled, plain)
        assert len(np.unique(plain)) > 3


@pytest.mark.parametrize("kernels", KERNELS)
def test_resizing_compiled_and_step_by_step(kernels, monkeypatch):
    codes = single.codes(single.random_codes(np.random.default_rng(1), (2, 14, 15, 9)), single.lattice(0.1, 3))

    def resized():
        return resize.resize_bilinear(
            codes, size=(31, 28), align_corners=False, half_pixel_centers=True, kernels=kernels
        ).values.numpy()

    plain = resized()
    monkeypatch.setattr(onepass, "LARGE", 0)
    np.testing.assert_array_equal(resized(), plain)


@pytest.mark.parametrize("size", [2, 300])
def test_of_unknown_sizes_the_larger_is_compiled(size, monkeypatch):
    monkeypatch.setattr(onepass, "LARGE", 2**16)
    grid, out = single.lattice(0.1, 3), single.lattice(0.17, -4)
    factor = np.arange(-128, 128, dtype=np.float32)

    @tf.function(input_signature=[tf.TensorSpec((None, 256), tf.float32)])
    def product(values):
        found = elementwise.multiply(Codes(values, grid), single.codes(factor, grid), out, kernels="xnnpack")
        assert found.values.shape.as_list() == [None, 256]
        return found.values

    values = np.random.default_rng(1).integers(-128, 128, (size, 256)).astype(np.float32)
    # (q - 3) (p - 3) * 0.1 * 0.1 / 0.17 - 4, the nearest whole number; no product lies in the middle of two.
    real = (values.astype(np.float64) - 3) * (factor - 3) * (float(grid.scale) ** 2 / float(out.scale)) - 4
    np.testing.assert_array_equal(product(values), np.clip(np.rint(real), -128, 127))


def test_shapes_broadcast_and_are_known():
    a, b = tf.constant([[1.0], [2.0]]), tf.constant([3.0, 4.0])
    found = onepass.in_one_pass(tf.multiply, [a, b])
    np.testing.assert_array_equal(found, [[3.0, 4.0], [6.0, 8.0]])
    assert found.shape.as_list() == [2, 2]


def test_under_several_replicas_nothing_is_compiled(monkeypatch):
    def refused(function, kinds):
        raise AssertionError("compiled")

    monkeypatch.setattr(onepass, "LARGE", 0)
    monkeypatch.setattr(onepass, "_compiled", refused)
    operands = [tf.constant([1.0, 2.0]), tf.constant(3.0)]
    with pytest.raises(AssertionError, match="compiled"):
        onepass.in_one_pass(tf.add, operands)
    monkeypatch.setattr(tf.distribute, "get_strategy", lambda: SimpleNamespace(num_replicas_in_sync=2))
    np.testing.assert_array_equal(onepass.in_one_pass(tf.add, operands), [4.0, 5.0])
