"""LOGISTIC, TANH and SOFTMAX of 16 bits against the runtimes: every code."""

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tests.core.arithmetic import single
from tfcompress.core.arithmetic import interpolated, softmax, tables
from tfcompress.core.arithmetic.codes import KERNELS

EVERY = np.arange(-32768, 32768).reshape(1, -1).astype(np.int16)
OUT = single.lattice(2.0**-15, 0, 16)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize(("kind", "function"), [("LOGISTIC", tables.logistic), ("TANH", tables.tanh)])
def test_curves(kind, function, kernels):
    scales = [3e-5, 1e-4, 3.3e-4, 1e-3, 2e-2]
    if kernels != "xnnpack":  # its set computes powers of two otherwise
        scales += [2.0**-12, 2.0**-11]
    for scale in scales:
        grid = single.lattice(scale, 0, 16)
        content = single.file_of(kind, [single.activation(EVERY.shape, grid)], single.activation(EVERY.shape, OUT))
        got = function(single.codes(EVERY, grid), OUT, kernels=kernels)
        np.testing.assert_array_equal(got.values, single.run(content, [EVERY], kernels))


@pytest.mark.parametrize("kernels", KERNELS)
def test_softmax(kernels):
    rng = np.random.default_rng(1)
    for shape in ((3000, 10), (100, 300), (3000, 2), (10, 1)):
        for scale in (1e-5, 3e-4, 1e-3):
            grid = single.lattice(scale * rng.uniform(0.5, 2), 0, 16)
            values = single.random_codes(rng, shape, 16)
            content = single.file_of("SOFTMAX", [single.activation(shape, grid)], single.activation(shape, OUT),
                                     schema.SoftmaxOptionsT(beta=1.0))  # fmt: skip
            got = softmax.softmax(single.codes(values, grid), OUT, kernels=kernels)
            np.testing.assert_array_equal(got.values, single.run(content, [values], kernels))


def test_the_table_is_near_the_sigmoid():
    # A place lies at most half of a line's error above the curve, and that is (1/24)**2 / 8 * max|s''| / 2 = 1e-5.
    np.testing.assert_allclose(interpolated.SIGMOIDS / 2**16, 1 / (1 + np.exp(-np.arange(256) / 24)), atol=2e-5)
