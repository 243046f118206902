"""Real numbers to codes and back, and the codes of fused activations, against the runtimes."""

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from tests.core.arithmetic import single
from tests.core.arithmetic.layers import layer
from tests.tflite_export import handmade
from tfcompress.core.arithmetic import fused
from tfcompress.core.arithmetic.codes import KERNELS, Lattice, codes_of, half_away


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("bits", [8, 16])
def test_real_numbers_become_codes(bits, kernels):
    rng = np.random.default_rng(bits)
    for grid in (single.random_lattice(rng, bits), single.lattice(0.5, 3 if bits == 8 else 0, bits)):
        scale, top = float(grid.scale), 2.0 ** (bits - 1)
        ties = rng.integers(-3 * top, 3 * top, 20000) / 2
        steps = np.concatenate([rng.uniform(-1.2 * top, 1.2 * top, 20000), ties])
        x = (steps * scale).astype(np.float32)
        operand = handmade.tensor(x.shape, "FLOAT32")
        content = single.file_of("QUANTIZE", [operand], single.activation(x.shape, grid), schema.QuantizeOptionsT())
        found = codes_of(tf.constant(x), grid, kernels=kernels)
        np.testing.assert_array_equal(found.values, single.run(content, [x], kernels))


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("bits", [8, 16])
def test_codes_become_real_numbers(bits, kernels):
    rng = np.random.default_rng(bits)
    grid, x = single.random_lattice(rng, bits), single.random_codes(rng, (50000,), bits)
    out = handmade.tensor(x.shape, "FLOAT32")
    content = single.file_of("DEQUANTIZE", [single.activation(x.shape, grid)], out, schema.DequantizeOptionsT())
    np.testing.assert_array_equal(single.codes(x, grid).real(), single.run(content, [x], kernels))


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("activation", fused.ACTIVATIONS)
def test_fused_activations_clamp_where_the_runtime_does(activation, kernels):
    rng = np.random.default_rng(0)
    for scale in (4.0, 0.4):  # 6 / 4 and 1 / 0.4 are ties
        for zero in (-128, -3, 126):
            made = layer(rng, "CONV_2D", (1, 8, 8, 8), (8, 1, 1, 8), activation=activation)
            made.scale = (made.scale * scale / float(made.out.scale)).astype(np.float32)
            made.out = single.lattice(scale, zero)
            found = made.computed(kernels).values.numpy()
            np.testing.assert_array_equal(found, made.run(kernels, found.shape))


def test_fused_activations_of_sixteen_bits():
    made = layer(np.random.default_rng(1), "CONV_2D", (1, 16, 16, 8), (8, 1, 1, 8), bits=16, activation="relu6")
    made.scale = (made.scale * 3e-4 / float(made.out.scale)).astype(np.float32)
    made.out = single.lattice(3e-4, 0, 16)
    for kernels in KERNELS:
        found = made.computed(kernels).values.numpy()
        np.testing.assert_array_equal(found, made.run(kernels, found.shape))
        assert found.max() == 20000  # 6 / 3e-4


def test_no_activation_and_no_such_activation():
    grid = single.lattice(0.1)
    assert fused.bounds(None, grid, kernels="tflm") == (None, None)
    with pytest.raises(ValueError, match="`activation` must be one of relu, relu6, relu_n1_to_1, or None"):
        fused.bounds("elu", grid, kernels="tflm")


def test_half_away_is_exact_beside_the_ties():
    values = np.array([0.5, -0.5, 2.5, -2.5, np.nextafter(0.5, 0), -np.nextafter(0.5, 0), 4503599627370495.5])
    assert half_away(tf.constant(values)).numpy().tolist() == [1, -1, 3, -3, 0, 0, 4503599627370496]


def test_the_ends_of_a_lattice_and_an_unknown_set():
    assert (single.lattice(1.0).first, single.lattice(1.0).last) == (-128, 127)
    wide = Lattice(tf.constant(1.0), tf.constant(0), 16)
    assert (wide.first, wide.last) == (-32768, 32767)
    with pytest.raises(ValueError, match="`kernels` must be one of xnnpack, reference, tflm"):
        codes_of(tf.constant([1.0]), wide, kernels="neon")


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("kernels", KERNELS)
def test_scales_that_are_constants_of_the_graph(kernels, jit):
    # An optimized graph multiplies by the reciprocal of a constant; the ties of 0.3 then fall on the other side.
    scale = np.float32(0.3)
    x = tf.constant(np.arange(-600, 600).astype(np.float32) / 2 * scale)

    def converted(x):
        return codes_of(x, Lattice(tf.constant(scale), tf.constant(3)), kernels=kernels).values

    np.testing.assert_array_equal(tf.function(converted, jit_compile=jit)(x), converted(x))
