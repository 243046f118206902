"""FULLY_CONNECTED and BATCH_MATMUL against the runtimes, element by element."""

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from tests.core.arithmetic import single
from tests.core.arithmetic.layers import layer, on_ties
from tfcompress.core.arithmetic.codes import KERNELS
from tfcompress.core.arithmetic.matrices import batch_matmul, fully_connected

DENSE = {
    "64 to 48": ((1024, 64), (48, 64), {"activation": "relu6"}),
    "one scale": ((1024, 64), (48, 64), {"one_scale": True}),
    "without bias": ((512, 37), (48, 37), {"bias": False}),
    "without bias, deep": ((128, 700), (48, 700), {"bias": False, "one_scale": True}),
    "deep": ((512, 3000), (8, 3000), {}),
    "deeper": ((64, 9000), (8, 9000), {"activation": "relu"}),
    "one output": ((2048, 16), (1, 16), {}),
}
PACKED = {
    "even": ((512, 64), (48, 64), {"one_scale": True}),
    "odd": ((512, 63), (48, 63), {"one_scale": True}),
    "odd, few": ((512, 9), (7, 9), {"one_scale": True}),
}
PRODUCTS = {  # a, b, transposed
    "plain": ((4, 64, 32), (4, 32, 128), (False, False)),
    "transposed": ((4, 32, 64), (4, 128, 32), (True, True)),
    "heads": ((2, 2, 48, 16), (2, 2, 48, 16), (False, True)),
    "shared": ((4, 64, 32), (1, 32, 64), (False, False)),
    "deep": ((2, 64, 700), (2, 700, 32), (False, False)),
}


def check(made, kernels):
    found = made.computed(kernels).values.numpy()
    np.testing.assert_array_equal(found, made.run(kernels, found.shape))


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("name", DENSE)
def test_every_element_equals_the_runtime_s(name, kernels):
    image, kernel, others = DENSE[name]
    check(layer(np.random.default_rng(1), "FULLY_CONNECTED", image, kernel, **others), kernels)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("name", ["64 to 48", "one scale", "without bias", "without bias, deep", "deep"])
def test_in_sixteen_bits(name, kernels):
    image, kernel, others = DENSE[name]
    check(layer(np.random.default_rng(2), "FULLY_CONNECTED", image, kernel, bits=16, **others), kernels)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("name", PACKED)
def test_packed_kernels(name, kernels):
    image, kernel, others = PACKED[name]
    check(layer(np.random.default_rng(3), "FULLY_CONNECTED", image, kernel, packed=True, **others), kernels)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("one_scale", [False, True])
def test_sums_on_the_boundaries_between_codes(one_scale, kernels):
    rng = np.random.default_rng(4)
    for factor in (1.7, 1e-3, 1e-6):
        check(on_ties(rng, "FULLY_CONNECTED", factor, one_scale=one_scale), kernels)
    check(on_ties(rng, "FULLY_CONNECTED", 1e-3, one_scale=one_scale, bits=16), kernels)
    for inputs in (8, 9):
        check(on_ties(rng, "FULLY_CONNECTED", 1e-5, one_scale=True, packed=True, inputs=inputs), kernels)


def multiplied(a, b, grids, out, transposed, kernels):
    """The runtime's BATCH_MATMUL and the library's."""
    found = batch_matmul(single.codes(a, grids[0]), single.codes(b, grids[1]), out, transpose_a=transposed[0],
                         transpose_b=transposed[1], kernels=kernels).values.numpy()  # fmt: skip
    operands = [single.activation(a.shape, grids[0]), single.activation(b.shape, grids[1])]
    options = schema.BatchMatMulOptionsT(adjX=transposed[0], adjY=transposed[1])
    content = single.file_of("BATCH_MATMUL", operands, single.activation(found.shape, out), options)
    return single.run(content, [a, b], kernels), found


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("name", PRODUCTS)
def test_products_of_two_activations(name, bits, kernels):
    rng = np.random.default_rng(5)
    shape_a, shape_b, transposed = PRODUCTS[name]
    for centered in (False, True):  # XNNPACK takes a second operand of zero point 0 only
        grids = [single.random_lattice(rng, bits), single.random_lattice(rng, bits)]
        if centered:
            grids[1] = single.lattice(float(grids[1].scale), 0, bits)
        depth = shape_a[-2 if transposed[0] else -1]
        spread = float(grids[0].scale) * float(grids[1].scale) * 2.0 ** (bits - 1) * 0.4 * np.sqrt(depth)
        out = single.lattice(spread * rng.uniform(0.8, 2), int(rng.integers(-128, 128)) if bits == 8 else 0, bits)
        a, b = single.random_codes(rng, shape_a, bits), single.random_codes(rng, shape_b, bits)
        expected, found = multiplied(a, b, grids, out, transposed, kernels)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("zero", [0, -1])
def test_products_on_the_boundaries_between_codes(zero, kernels):
    # Rows of 127 and a rest make any sum; the scales make codes of about 100 of sums of 10**8.
    rng = np.random.default_rng(6)
    depth, rows = 6000, 1024
    grids = [single.lattice(0.21), single.lattice(0.037, zero)]
    out = single.lattice(0.21 * 0.037 * depth * 127 * 127 / 100)
    m = float(grids[0].scale) * float(grids[1].scale) / float(out.scale)
    sums = np.round((rng.integers(0, 95, rows) + 0.5) / m).astype(int) + rng.integers(-8, 9, rows)
    whole, rest = sums // 127, sums % 127
    a, b = np.zeros((1, rows, depth), np.int8), np.full((1, depth, 1), 127 + zero, np.int8)
    b[0, -200:] = 1 + zero
    for row in range(rows):
        a[0, row, : whole[row] // 127] = 127
        a[0, row, whole[row] // 127] = whole[row] % 127
        a[0, row, depth - 200 : depth - 200 + rest[row]] = 1
    np.testing.assert_array_equal((a[0].astype(int) @ (b[0].astype(int) - zero))[:, 0], sums)
    expected, found = multiplied(a, b, grids, out, (False, False), kernels)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("kernels", KERNELS)
def test_in_a_graph_of_any_batch_size_and_compiled(kernels, jit):
    made = layer(np.random.default_rng(7), "FULLY_CONNECTED", (256, 16), (48, 16))
    signature = [tf.TensorSpec([None, 16], tf.float32)]
    function = tf.function(lambda x: made.computed(kernels, x).values, input_signature=signature, jit_compile=jit)
    found = function(tf.constant(made.x, tf.float32)).numpy()
    np.testing.assert_array_equal(found, made.run(kernels, found.shape))


def test_the_leading_axes_of_a_dense_layer_are_kept():
    made = layer(np.random.default_rng(8), "FULLY_CONNECTED", (24, 16), (5, 16))
    flat = made.computed("xnnpack").values.numpy()
    x = tf.reshape(tf.constant(made.x, tf.float32), [2, 3, 4, 16])
    np.testing.assert_array_equal(made.computed("xnnpack", x).values, flat.reshape(2, 3, 4, 5))
    function = tf.function(lambda x: made.computed("xnnpack", x).values)
    traced = function.get_concrete_function(tf.TensorSpec([None, 3, 4, 16], tf.float32))
    assert traced.output_shapes.as_list() == [None, 3, 4, 5]


def test_an_unknown_kernel_set_is_refused():
    made = layer(np.random.default_rng(9), "FULLY_CONNECTED", (4, 8), (8, 8))
    x = made.computed("tflm")
    with pytest.raises(ValueError, match="`kernels` must be one of"):
        fully_connected(x, tf.constant(made.kernel, tf.float32), tf.constant(made.scale), None, made.out, kernels="")
    with pytest.raises(ValueError, match="`kernels` must be one of"):
        batch_matmul(x, x, made.out, kernels="")
