"""ADD, SUB, MUL, SQUARED_DIFFERENCE, MAXIMUM and MINIMUM against the runtimes: every pair of codes."""

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from tests.core.arithmetic import single
from tfcompress.core.arithmetic import elementwise, fused
from tfcompress.core.arithmetic.codes import KERNELS

FIRST, SECOND = (grid.astype(np.int8) for grid in np.meshgrid(np.arange(-128, 128), np.arange(-128, 128)))
FUSED = {None: 0, "relu": 1, "relu6": 3}
SUMS = {"ADD": (elementwise.add, schema.AddOptionsT), "SUB": (elementwise.subtract, schema.SubOptionsT)}


def run(kind, operands, grids, out, options, kernels):
    """The runtime's integers; the shape is the broadcast one."""
    shape = np.broadcast_shapes(*(operand.shape for operand in operands))
    tensors = [single.activation(operand.shape, grid) for operand, grid in zip(operands, grids, strict=True)]
    return single.run(single.file_of(kind, tensors, single.activation(shape, out), options), operands, kernels)


def check_sum(kind, operands, grids, out, kernels, activation=None):
    function, options = SUMS[kind]
    given = options(fusedActivationFunction=FUSED[activation])
    if out.bits == 16:
        given.potScaleInt16 = False
    low, high = fused.bounds(activation, out, kernels=kernels)
    codes = [single.codes(operand, grid) for operand, grid in zip(operands, grids, strict=True)]
    got = function(*codes, out, kernels=kernels, low=low, high=high)
    np.testing.assert_array_equal(got.values, run(kind, operands, grids, out, given, kernels))


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("kind", SUMS)
def test_sums_of_every_pair_of_codes(kind, kernels):
    rng = np.random.default_rng(1)
    for activation in (None, "relu", "relu6"):
        grids = [single.random_lattice(rng, low=1e-2, high=1e-1) for _ in range(2)]
        check_sum(kind, (FIRST, SECOND), grids, single.random_lattice(rng, low=3e-2, high=3e-1), kernels, activation)
    # Ties: every second sum lies in the middle of two codes, or at every fourth place between.
    for first, second, out in ((1.0, 1.0, 2.0), (1.0, 0.5, 2.0), (1.0, 1.0, 1.0)):
        grids = [single.lattice(first, 3), single.lattice(second, -5)]
        check_sum(kind, (FIRST, SECOND), grids, single.lattice(out, 7), kernels)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("kind", SUMS)
def test_sums_that_broadcast_or_lie_beyond_xnnpack_s_ratios(kind, kernels):
    rng = np.random.default_rng(2)
    for shape in ((1, 1, 37), (1, 1, 1), (1, 29, 1)):
        grids = [single.random_lattice(rng, low=1e-2, high=1e-1) for _ in range(2)]
        operands = single.random_codes(rng, (3, 29, 37)), single.random_codes(rng, shape)
        check_sum(kind, operands, grids, single.random_lattice(rng, low=3e-2, high=3e-1), kernels)
    grids = [single.lattice(1.0, 3), single.lattice(2.0**-12, -5)]  # XNNPACK takes ratios from 2**-10 on
    check_sum(kind, (FIRST, SECOND), grids, single.lattice(1.7, 7), kernels)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("kind", SUMS)
def test_sums_of_sixteen_bits(kind, kernels):
    rng = np.random.default_rng(3)
    for scale in (1.0, 1.93):
        grids = [single.random_lattice(rng, 16, 1e-4, 1e-3) for _ in range(2)]
        out = single.lattice(scale * float(max(grid.scale for grid in grids)), 0, 16)
        operands = [single.random_codes(rng, (50000,), 16) for _ in range(2)]
        check_sum(kind, operands, grids, out, kernels, "relu" if scale > 1 else None)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("bits", [8, 16])
def test_products(bits, kernels):
    rng = np.random.default_rng(4)
    for factor, activation in ((20.0, None), (60.0, "relu6"), (128.0, None), (0.9, None)):
        grids = [single.random_lattice(rng, bits, 1e-3, 1e-1) for _ in range(2)]
        factor = factor if bits == 8 else 400 * factor
        zero = int(rng.integers(-128, 128)) if bits == 8 else 0
        out = single.lattice(factor * float(grids[0].scale * grids[1].scale), zero, bits)
        operands = [FIRST, SECOND] if bits == 8 else [single.random_codes(rng, (40000,), 16) for _ in range(2)]
        low, high = fused.bounds(activation, out, kernels=kernels)
        codes = [single.codes(operand, grid) for operand, grid in zip(operands, grids, strict=True)]
        got = elementwise.multiply(*codes, out, kernels=kernels, low=low, high=high)
        options = schema.MulOptionsT(fusedActivationFunction=FUSED[activation])
        np.testing.assert_array_equal(got.values, run("MUL", operands, grids, out, options, kernels))


@pytest.mark.parametrize("kernels", KERNELS)
def test_products_on_ties_and_beyond_xnnpack_s_ratios(kernels):
    for out in (16.0, 2.0**18):  # a multiple of 1/16; XNNPACK takes products of 2**-16 output steps and more
        grids = [single.lattice(1.0, 3), single.lattice(1.0, -5)]
        codes = [single.codes(operand, grid) for operand, grid in zip((FIRST, SECOND), grids, strict=True)]
        got = elementwise.multiply(*codes, single.lattice(out, 1), kernels=kernels)
        expected = run("MUL", (FIRST, SECOND), grids, single.lattice(out, 1), schema.MulOptionsT(), kernels)
        np.testing.assert_array_equal(got.values, expected)


@pytest.mark.parametrize("kernels", KERNELS)
def test_squared_differences(kernels):
    rng = np.random.default_rng(5)
    for factor in (40.0, 150.0):
        grids = [single.random_lattice(rng, low=1e-2, high=1e-1) for _ in range(2)]
        out = single.lattice(factor * float(max(grid.scale for grid in grids)) ** 2, -11)
        codes = [single.codes(operand, grid) for operand, grid in zip((FIRST, SECOND), grids, strict=True)]
        got = elementwise.squared_difference(*codes, out, kernels=kernels)
        options = schema.SquaredDifferenceOptionsT()
        expected = run("SQUARED_DIFFERENCE", (FIRST, SECOND), grids, out, options, kernels)
        np.testing.assert_array_equal(got.values, expected)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize(("kind", "function"), [("MAXIMUM", np.maximum), ("MINIMUM", np.minimum)])
def test_larger_and_smaller(kind, function, kernels):
    grid = single.lattice(0.1, 3)
    ours = getattr(elementwise, kind.lower())(single.codes(FIRST, grid), single.codes(SECOND, grid), kernels=kernels)
    expected = run(kind, (FIRST, SECOND), (grid, grid), grid, schema.MaximumMinimumOptionsT(), kernels)
    np.testing.assert_array_equal(expected, function(FIRST, SECOND))
    np.testing.assert_array_equal(ours.values, expected)


def test_scales_may_be_variables_inside_a_function_of_unknown_batch():
    grid, out = single.lattice(0.1, 3), single.lattice(0.17, -4)
    scale = tf.Variable(0.1)

    @tf.function(input_signature=[tf.TensorSpec((None, 256), tf.float32)] * 2)
    def added(a, b):
        first = elementwise.Codes(a, elementwise.Lattice(tf.convert_to_tensor(scale), tf.constant(3)))
        return elementwise.add(first, elementwise.Codes(b, grid), out, kernels="xnnpack").values

    for value in (0.1, 0.37, 1e-5):  # the last beyond XNNPACK's ratios
        scale.assign(value)
        grids = [single.lattice(value, 3), grid]
        expected = run("ADD", (FIRST, SECOND), grids, out, schema.AddOptionsT(), "xnnpack")
        np.testing.assert_array_equal(added(FIRST.astype(np.float32), SECOND.astype(np.float32)), expected)


def test_what_names_no_kernel_set_is_refused():
    grid = single.lattice(0.1, 3)
    codes = single.codes(FIRST, grid)
    for function in (elementwise.add, elementwise.multiply, elementwise.squared_difference):
        with pytest.raises(ValueError, match="`kernels` must be one of"):
            function(codes, codes, grid, kernels="optimized")
