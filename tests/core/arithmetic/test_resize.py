"""RESIZE_BILINEAR and RESIZE_NEAREST_NEIGHBOR against the runtimes."""

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tests.core.arithmetic import single
from tfcompress.core.arithmetic import resize
from tfcompress.core.arithmetic.codes import KERNELS

SIZES = [((8, 8), (16, 16)), ((7, 9), (21, 13)), ((20, 31), (9, 12)), ((5, 5), (1, 1)), ((1, 1), (6, 7)),
         ((14, 14), (28, 31)), ((3, 4), (50, 60)), ((37, 13), (111, 123)), ((9, 4), (82, 41))]  # fmt: skip
OPTIONS = {
    "RESIZE_BILINEAR": (resize.resize_bilinear, schema.ResizeBilinearOptionsT),
    "RESIZE_NEAREST_NEIGHBOR": (resize.resize_nearest, schema.ResizeNearestNeighborOptionsT),
}


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("align", "centred"), [(False, False), (False, True), (True, False)])
@pytest.mark.parametrize("kind", OPTIONS)
def test_every_pixel_equals_the_runtime_s(kind, align, centred, bits, kernels):
    if (kind, bits, kernels) == ("RESIZE_BILINEAR", 16, "tflm"):
        pytest.skip("tflm has no RESIZE_BILINEAR of 16 bits")
    rng = np.random.default_rng(1)
    function, options = OPTIONS[kind]
    for before, after in SIZES:
        grid, values = single.random_lattice(rng, bits), single.random_codes(rng, (1, *before, 7), bits)
        got = function(single.codes(values, grid), size=after, align_corners=align, half_pixel_centers=centred,
                       kernels=kernels)  # fmt: skip
        operands = [single.activation(values.shape, grid), single.constant(np.array(after, np.int32))]
        content = single.file_of(kind, operands, single.activation(got.values.shape, grid),
                                 options(alignCorners=align, halfPixelCenters=centred))  # fmt: skip
        np.testing.assert_array_equal(got.values, single.run(content, [values], kernels))


@pytest.mark.parametrize("kernels", KERNELS)
def test_means_on_ties(kernels):
    first, second = np.meshgrid(np.arange(-128, 128), np.arange(-128, 128))
    values = np.stack([first.ravel(), second.ravel()], 0)[None, None].astype(np.int8)  # [1, 1, 2, 65536]
    grid = single.lattice(0.1, 3)
    got = resize.resize_bilinear(single.codes(values, grid), size=(1, 3), align_corners=True,
                                 half_pixel_centers=False, kernels=kernels)  # fmt: skip
    operands = [single.activation(values.shape, grid), single.constant(np.array([1, 3], np.int32))]
    content = single.file_of("RESIZE_BILINEAR", operands, single.activation(got.values.shape, grid),
                             schema.ResizeBilinearOptionsT(alignCorners=True))  # fmt: skip
    np.testing.assert_array_equal(got.values, single.run(content, [values], kernels))


def test_two_ways_of_placing_exclude_each_other():
    codes = single.codes(np.zeros((1, 2, 2, 1)), single.lattice(0.1))
    with pytest.raises(ValueError, match="exclude each other"):
        resize.resize_bilinear(codes, size=(4, 4), align_corners=True, half_pixel_centers=True, kernels="tflm")
