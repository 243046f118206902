"""CONCATENATION, PACK, PAD and PADV2 against the runtimes."""

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from tests.core.arithmetic import single
from tests.tflite_export import handmade
from tfcompress.core.arithmetic import joins
from tfcompress.core.arithmetic.codes import KERNELS
from tflite_export.flatbuffer import load, store

PADDINGS = np.array([[0, 0], [1, 2], [0, 3], [2, 0]], np.int32)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("bits", [8, 16])
def test_parts_of_one_lattice(bits, kernels):
    rng = np.random.default_rng(1)
    grid = single.random_lattice(rng, bits)
    for axis, channels in ((3, (3, 8)), (-1, (40, 8, 4, 1, 2, 3)), (1, (5, 5, 5))):
        parts = [single.random_codes(rng, (2, 25, 36, count), bits) for count in channels]
        got = joins.concatenate([single.codes(part, grid) for part in parts], grid, axis=axis, kernels=kernels)
        content = single.file_of("CONCATENATION", [single.activation(part.shape, grid) for part in parts],
                                 single.activation(got.values.shape, grid),
                                 schema.ConcatenationOptionsT(axis=axis))  # fmt: skip
        np.testing.assert_array_equal(got.values, single.run(content, parts, kernels))


def joined(parts, grids, out, shape):
    """The file that a converter writes of parts whose lattices differ: QUANTIZE of each, then CONCATENATION."""
    count = len(parts)
    given = [single.activation(part.shape, grid) for part, grid in zip(parts, grids, strict=True)]
    middle = [single.activation(part.shape, out) for part in parts]
    steps = [handmade.op("QUANTIZE", [number], [count + number], schema.QuantizeOptionsT()) for number in range(count)]
    whole = range(count, 2 * count)
    steps.append(handmade.op("CONCATENATION", list(whole), [2 * count], schema.ConcatenationOptionsT(axis=2)))
    tensors = [*given, *middle, single.activation(shape, out)]
    return store(load(handmade.file_of(tensors, steps, list(range(count)), [2 * count])))


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("bits", [8, 16])
def test_parts_of_other_lattices_are_requantized_first(bits, kernels):
    rng = np.random.default_rng(2)
    for _ in range(3):
        out = single.random_lattice(rng, bits, 1e-2, 1e-1)
        grids = [single.random_lattice(rng, bits, 1e-2, 1e-1), out, single.lattice(float(out.scale) / 2, 0, bits)]
        parts = [single.random_codes(rng, (40, 40, count), bits) for count in (3, 8, 14)]
        codes = [single.codes(part, grid) for part, grid in zip(parts, grids, strict=True)]
        got = joins.concatenate(codes, out, axis=2, kernels=kernels)
        np.testing.assert_array_equal(
            got.values, single.run(joined(parts, grids, out, got.values.shape), parts, kernels)
        )


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("bits", [8, 16])
def test_pack(bits, kernels):
    rng = np.random.default_rng(3)
    grid = single.random_lattice(rng, bits)
    parts = [single.random_codes(rng, (30, 50, 25), bits) for _ in range(3)]
    got = joins.pack([single.codes(part, grid) for part in parts], grid, axis=1, kernels=kernels)
    tensors = [single.activation(part.shape, grid) for part in parts]
    options = schema.PackOptionsT(axis=1, valuesCount=3)
    content = single.file_of("PACK", tensors, single.activation(got.values.shape, grid), options)
    np.testing.assert_array_equal(got.values, single.run(content, parts, kernels))


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("bits", [8, 16])
def test_pad(bits, kernels):
    rng = np.random.default_rng(4)
    grid, values = single.random_lattice(rng, bits), single.random_codes(rng, (2, 35, 36, 40), bits)
    for value in (None, 17):
        fill = None if value is None else tf.constant(value)
        got = joins.pad(single.codes(values, grid), paddings=PADDINGS, value=fill, kernels=kernels)
        kind, options = ("PAD", schema.PadOptionsT()) if value is None else ("PADV2", schema.PadV2OptionsT())
        operands = [single.activation(values.shape, grid), single.constant(PADDINGS)]
        if value is not None:
            code = np.array([value], single.TYPES[bits])
            operands.append(single.constant(code, float(grid.scale), int(grid.zero)))
        content = single.file_of(kind, operands, single.activation(got.values.shape, grid), options)
        np.testing.assert_array_equal(got.values, single.run(content, [values], kernels))
