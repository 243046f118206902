"""AVERAGE_POOL_2D, MAX_POOL_2D, MEAN, SUM, REDUCE_MAX and REDUCE_MIN against the runtimes."""

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from tests.core.arithmetic import single
from tfcompress.core.arithmetic import fused, pooling
from tfcompress.core.arithmetic.codes import KERNELS, Codes, Lattice

PADDINGS = {"SAME": schema.Padding.SAME, "VALID": schema.Padding.VALID}
WINDOWS = [  # window, strides, padding, height and width
    ((2, 2), (2, 2), "VALID", (64, 60)),
    ((3, 3), (1, 1), "SAME", (40, 31)),
    ((3, 2), (2, 1), "SAME", (40, 41)),
    ((7, 9), (7, 9), "VALID", (63, 63)),
    ((40, 40), (3, 3), "SAME", (43, 44)),
    ((1, 1), (2, 2), "VALID", (64, 64)),
]
POOLS = {"AVERAGE_POOL_2D": pooling.average_pool, "MAX_POOL_2D": pooling.max_pool}
AXES = [  # axes, shape, kept
    ((1, 2), (20, 8, 8, 100), False),
    ((1, 2), (20, 7, 7, 100), True),
    ((1, 2), (4, 32, 32, 40), True),
    ((2,), (40, 60, 30), False),
    ((-1,), (40, 60, 30), True),
    ((1,), (100, 3, 40), False),
    ((1, 2, 3), (100, 4, 4, 10), False),
]


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("kind", POOLS)
def test_pools(kind, bits, kernels):
    rng = np.random.default_rng(1)
    for window, strides, padding, size in WINDOWS:
        grid = single.random_lattice(rng, bits)
        values = single.random_codes(rng, (1, *size, 16), bits)
        activation = "relu" if window == (3, 2) else None
        low, high = fused.bounds(activation, grid, kernels=kernels)
        got = POOLS[kind](single.codes(values, grid), window=window, strides=strides, padding=padding,
                          kernels=kernels, low=low, high=high)  # fmt: skip
        options = schema.Pool2DOptionsT(
            padding=PADDINGS[padding], strideH=strides[0], strideW=strides[1], filterHeight=window[0],
            filterWidth=window[1], fusedActivationFunction=int(activation is not None),
        )  # fmt: skip
        content = single.file_of(
            kind, [single.activation(values.shape, grid)], single.activation(got.values.shape, grid), options
        )
        np.testing.assert_array_equal(got.values, single.run(content, [values], kernels))


def reduced(kind, values, grid, out, axes, keep, kernels):
    """The runtime's integers."""
    operands = [single.activation(values.shape, grid), single.constant(np.array(axes, np.int32))]
    shape = np.sum(values, axis=axes, keepdims=keep).shape
    content = single.file_of(kind, operands, single.activation(shape, out), schema.ReducerOptionsT(keepDims=keep))
    return single.run(content, [values], kernels)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("kind", ["MEAN", "SUM"])
def test_means_and_sums(kind, bits, kernels):
    if (kind, bits, kernels) == ("SUM", 16, "reference"):
        pytest.skip("LiteRT's reference kernel reads half the bytes of 16 bits")
    rng = np.random.default_rng(2)
    for axes, shape, keep in AXES:
        count = int(np.prod([shape[axis] for axis in axes]))
        grid = single.random_lattice(rng, bits, 1e-2, 1e-1)
        factor = float(rng.uniform(0.3, 1.5)) * (1 if kind == "MEAN" else count)
        out = single.lattice(float(grid.scale) * factor, int(rng.integers(-128, 128)) if bits == 8 else 0, bits)
        # Of every channel the numbers lie around one place, that the means do not all lie in the middle.
        place = rng.integers(-100, 100, [1] * (len(shape) - 1) + [shape[-1]]) * 2 ** (bits - 8)
        ends = np.iinfo(single.TYPES[bits])
        values = np.clip(single.random_codes(rng, shape, bits) // 3 + place, ends.min, ends.max)
        values = values.astype(single.TYPES[bits])
        function = pooling.mean if kind == "MEAN" else pooling.total
        got = function(single.codes(values, grid), out, axes=axes, keep=keep, kernels=kernels)
        np.testing.assert_array_equal(got.values, reduced(kind, values, grid, out, axes, keep, kernels))


@pytest.mark.parametrize("kernels", KERNELS)
def test_means_of_two_on_ties(kernels):
    first, second = np.meshgrid(np.arange(-128, 128), np.arange(-128, 128))
    values = np.stack([first, second]).astype(np.int8)
    for zero in (0, 5):
        grid, out = single.lattice(0.5, 3), single.lattice(0.5, zero)
        got = pooling.mean(single.codes(values, grid), out, axes=(0,), keep=False, kernels=kernels)
        np.testing.assert_array_equal(got.values, reduced("MEAN", values, grid, out, (0,), False, kernels))


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize(("kind", "function"), [("REDUCE_MAX", pooling.largest), ("REDUCE_MIN", pooling.smallest)])
def test_extremes(kind, function, kernels):
    rng = np.random.default_rng(3)
    for axes, shape, keep in AXES:
        grid, values = single.random_lattice(rng), single.random_codes(rng, shape)
        got = function(single.codes(values, grid), axes=axes, keep=keep, kernels=kernels)
        np.testing.assert_array_equal(got.values, reduced(kind, values, grid, grid, axes, keep, kernels))


def test_a_compiled_mean_rounds_its_product_before_it_adds():
    """A compiler makes one operation with one rounding of the two; what runs eagerly equals the runtime, above."""
    rng = np.random.default_rng(5)
    rows = rng.normal(rng.normal(-100, 10, (4000, 1)), 20, (4000, 496))
    x = tf.constant(np.clip(rows.round(), -128, 127), tf.float32)

    def mean(values, given, made):
        x, out = Codes(values, Lattice(given, tf.constant(-128))), Lattice(made, tf.constant(-128))
        return pooling.mean(x, out, axes=[1], keep=False, kernels="xnnpack").values

    compiled = tf.function(mean, jit_compile=True)
    for given, smaller in rng.uniform((0.01, 0.2), (0.1, 0.6), (40, 2)).astype("float32"):
        scales = tf.constant(given), tf.constant(given * smaller)
        np.testing.assert_array_equal(compiled(x, *scales).numpy(), mean(x, *scales).numpy())
