"""QUANTIZE, RELU, RELU6, LEAKY_RELU, PRELU and ABS against the runtimes: every code on many lattices."""

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tests.core.arithmetic import single
from tfcompress.core.arithmetic import rectifiers
from tfcompress.core.arithmetic.codes import KERNELS, Lattice

EVERY = np.tile(np.arange(-128, 128), 64).reshape(1, -1).astype(np.int8)
WIDE = np.concatenate([np.random.default_rng(0).integers(-32768, 32768, 15995), [-32768, 32767, -1, 0, 1]])
VALUES = {8: EVERY, 16: WIDE.reshape(1, -1).astype(np.int16)}


def lattices(bits, out_bits=None, ends=(0.2, 5.0), count=7):
    """Pairs of lattices: the same scale, twice, four times the scale (ties), and random ones."""
    out_bits = out_bits or bits
    rng = np.random.default_rng(1)
    for number in range(count):
        grid = single.random_lattice(rng, bits, 1e-3, 0.5)
        out = single.random_lattice(rng, out_bits, *(float(grid.scale) * end for end in ends))
        factor = {0: 1.0, 1: 2.0, 2: 4.0}.get(number)
        if factor and bits == out_bits:
            out = Lattice(grid.scale * factor, out.zero, out_bits)
        yield grid, out


def check(kind, function, pairs, kernels, options=None):
    for grid, out in pairs:
        values = VALUES[grid.bits]
        content = single.file_of(
            kind, [single.activation(values.shape, grid)], single.activation(values.shape, out), options
        )
        got = function(single.codes(values, grid), out, kernels=kernels)
        np.testing.assert_array_equal(got.values, single.run(content, [values], kernels))


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize(
    ("bits", "out_bits", "ends"),
    [(8, 8, (0.2, 5.0)), (8, 8, (2e-3, 500.0)), (16, 16, (0.2, 5.0)), (16, 8, (100.0, 500.0)), (8, 16, (2e-3, 1e-2))],
)
def test_requantize(bits, out_bits, ends, kernels):
    pairs = lattices(bits, out_bits, ends)
    check("QUANTIZE", rectifiers.requantize, pairs, kernels, schema.QuantizeOptionsT())


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("bits", [8, 16])
def test_relu_and_relu6_that_stand_alone(bits, kernels):
    check("RELU", rectifiers.relu, lattices(bits), kernels)
    check("RELU6", rectifiers.relu6, lattices(bits), kernels)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("slope", [0.1, 0.3, -0.2, 1e-4])
def test_leaky_relu(slope, bits, kernels):
    def function(x, out, *, kernels):
        return rectifiers.leaky_relu(x, out, slope=slope, kernels=kernels)

    check("LEAKY_RELU", function, lattices(bits), kernels, schema.LeakyReluOptionsT(alpha=slope))


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("bits", [8, 16])
def test_absolute(bits, kernels):
    check("ABS", rectifiers.absolute, lattices(bits), kernels, schema.AbsOptionsT())


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("bits", [8, 16])
def test_prelu(bits, kernels):
    rng = np.random.default_rng(2)
    for shape in ((1, 1, 20), (30, 40, 20)):
        for grid, out in lattices(bits, count=4):
            values, slopes = single.random_codes(rng, (1, 30, 40, 20), bits), single.random_codes(rng, shape)
            slope = single.random_lattice(rng, 8, 1e-3, 1e-2)
            operands = [
                single.activation(values.shape, grid),
                single.constant(slopes, float(slope.scale), int(slope.zero)),
            ]
            content = single.file_of("PRELU", operands, single.activation(values.shape, out))
            got = rectifiers.prelu(single.codes(values, grid), single.codes(slopes, slope), out, kernels=kernels)
            np.testing.assert_array_equal(got.values, single.run(content, [values], kernels))
