"""LOGISTIC, TANH, HARD_SWISH, GELU, ELU, EXP and LOG against the runtimes: every code on many lattices."""

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tests.core.arithmetic import single
from tfcompress.core.arithmetic import tables
from tfcompress.core.arithmetic.codes import KERNELS

EVERY = np.tile(np.arange(-128, 128), 64).reshape(1, -1).astype(np.int8)
LATTICES = 7


def check(kind, function, outs, kernels, options=None, scales=(1e-3, 0.6)):
    """The library's integers and the runtime's on `LATTICES` lattices; `outs` makes the result's of the input's."""
    rng = np.random.default_rng(1)
    for _ in range(LATTICES):
        grid = single.random_lattice(rng, 8, *scales)
        out = outs(rng, grid)
        content = single.file_of(
            kind, [single.activation(EVERY.shape, grid)], single.activation(EVERY.shape, out), options
        )
        got = function(single.codes(EVERY, grid), out, kernels=kernels)
        np.testing.assert_array_equal(got.values, single.run(content, [EVERY], kernels))


def near(rng, grid):
    """A lattice whose scale is up to three times smaller or larger."""
    return single.random_lattice(rng, 8, float(grid.scale) / 3, 3 * float(grid.scale))


@pytest.mark.parametrize("kernels", KERNELS)
def test_logistic(kernels):
    check("LOGISTIC", tables.logistic, lambda rng, grid: single.lattice(1 / 256, -128), kernels)


@pytest.mark.parametrize("kernels", KERNELS)
def test_tanh(kernels):
    check("TANH", tables.tanh, lambda rng, grid: single.lattice(1 / 128), kernels)


@pytest.mark.parametrize("kernels", KERNELS)
def test_hard_swish(kernels):
    check("HARD_SWISH", tables.hard_swish, near, kernels, schema.HardSwishOptionsT())


@pytest.mark.parametrize("kernels", ["xnnpack", "reference"])  # tflm has no GELU
@pytest.mark.parametrize("approximate", [False, True])
def test_gelu(approximate, kernels):
    def function(x, out, *, kernels):
        return tables.gelu(x, out, approximate=approximate, kernels=kernels)

    check("GELU", function, near, kernels, schema.GeluOptionsT(approximate=approximate), (1e-3, 0.3))


@pytest.mark.parametrize("kernels", ["xnnpack", "tflm"])  # the reference kernels have no ELU
def test_elu(kernels):
    check("ELU", tables.elu, near, kernels, scales=(1e-3, 0.3))


@pytest.mark.parametrize("kernels", ["xnnpack", "reference"])  # tflm has both in float alone
def test_exp_and_log(kernels):
    def some(rng, grid):
        return single.random_lattice(rng, 8, 1e-2, 1.0)

    check("EXP", tables.exp, some, kernels, schema.ExpOptionsT(), (1e-3, 0.03))
    check("LOG", tables.log, some, kernels, scales=(1e-3, 0.3))


def test_sixteen_bits_have_no_table():
    grid = single.lattice(1e-3, 0, 16)
    with pytest.raises(ValueError, match=r"needs codes of 8 bits. Received: bits=16"):
        tables.hard_swish(single.codes(EVERY, grid), grid, kernels="tflm")
