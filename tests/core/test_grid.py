"""Integer grids against numbers worked by hand and the TFLite converter's own."""

import numpy as np
import pytest
import tensorflow as tf

from tests.zoo import keras
from tfcompress.core.grid import Grid, codes_of, fixed_points, magnitude, scale_of

KERNEL = [[3.0, -6.0], [1.4, 2.9], [-0.5, -1.0], [2.5, 5.0]]


def on_grid(weight, grid):
    weight = tf.constant(weight, tf.float32)
    scale = scale_of(weight, grid)
    return codes_of(weight, scale, grid).numpy(), scale.numpy()


def test_per_channel_codes_and_scales():
    # 3 bits: Q = 3. Columns: max 3 and 6, so steps 1 and 2; 2.5 / 1 and 5 / 2 and -0.5 / 1 are ties, which go to even.
    codes, scale = on_grid(KERNEL, Grid(bits=3, axis=-1))
    np.testing.assert_array_equal(scale, [[1.0, 2.0]])
    np.testing.assert_array_equal(codes, [[3, -3], [1, 1], [0, 0], [2, 2]])


def test_per_tensor_codes_and_scale():
    # Q = 3, max 6: one step of 2. 3/2 = 1.5 -> 2, 1.4/2 = .7 -> 1, 2.9/2 = 1.45 -> 1, 2.5/2 = 1.25 -> 1, 5/2 = 2.5 -> 2
    codes, scale = on_grid(KERNEL, Grid(bits=3, axis=None))
    np.testing.assert_array_equal(scale, [[2.0]])
    np.testing.assert_array_equal(codes, [[2, -3], [1, 1], [0, 0], [1, 2]])


def test_two_kept_axes_share_no_scale():
    weight = np.array([[[1.0, -2.0], [3.0, 4.0]], [[-5.0, 1.0], [2.0, 0.5]]])  # [2, 2, 2], axes -2 and -1 kept
    found = magnitude(tf.constant(weight), Grid(axis=(-2, -1))).numpy()
    np.testing.assert_array_equal(found, [[[5.0, 2.0], [3.0, 4.0]]])  # the larger of weight[0] and weight[1]


def test_the_four_gates_of_an_lstm_have_one_scale_each():
    # 2 bits: Q = 1. Gates of two columns: max 2, 6, 0 (scale 1) and 1.5. 1/2 and 3/6 are ties: 0. .5/1.5 = .33: 0
    codes, scale = on_grid([[1.0, 2.0, 3.0, -6.0, 0.0, 0.0, 0.5, 1.5]], Grid(bits=2, axis=-1, groups=4))
    np.testing.assert_array_equal(scale, [[2.0, 2.0, 6.0, 6.0, 1.0, 1.0, 1.5, 1.5]])
    np.testing.assert_array_equal(codes, [[0, 1, 0, -1, 0, 0, 0, 1]])


def test_groups_of_a_kept_axis_in_the_middle():
    weight = tf.constant(np.arange(1.0, 13.0).reshape(1, 4, 3))  # rows 1-3, 4-6, 7-9, 10-12; kept axis 1, in pairs
    np.testing.assert_array_equal(magnitude(weight, Grid(axis=1, groups=2)).numpy()[0, :, 0], [6, 6, 12, 12])


def test_a_channel_of_zeros_has_scale_one_and_codes_zero():
    codes, scale = on_grid([[0.0, 7.0], [0.0, -3.5]], Grid(bits=4, axis=-1))
    np.testing.assert_array_equal(scale, [[1.0, 1.0]])  # 7 / 7
    np.testing.assert_array_equal(codes, [[0, 7], [0, -4]])  # -3.5 is a tie, even is -4


@pytest.mark.parametrize(("bits", "top"), [(2, 1), (3, 3), (4, 7), (5, 15), (6, 31), (7, 63), (8, 127)])
def test_every_code_of_every_width_is_reached_and_none_beyond(bits, top):
    integers = np.arange(-top, top + 1)
    codes, scale = on_grid(integers * 0.25, Grid(bits=bits, axis=None))
    assert Grid(bits=bits).top == top
    np.testing.assert_array_equal(scale, [0.25])
    np.testing.assert_array_equal(codes, integers)
    beyond = codes_of(tf.constant([99.0, -99.0]), tf.constant(0.25), Grid(bits=bits, axis=None))
    np.testing.assert_array_equal(beyond, [top, -top])


def test_kept_axes_are_counted_from_zero_and_sorted():
    assert Grid(axis=(-1, 0)).kept(4) == (0, 3)
    assert Grid(axis=-2).kept(4) == (2,)
    assert Grid(axis=None).kept(4) == ()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"bits": 1}, "`bits` must be a whole number from 2 to 8. Received: bits=1"),
        ({"bits": 9}, "`bits` must be a whole number from 2 to 8. Received: bits=9"),
        ({"bits": 4.0}, "`bits` must be a whole number from 2 to 8. Received: bits=4.0"),
        ({"axis": "last"}, "`axis` must be"),
        ({"axis": (0, "x")}, "`axis` must be"),
        ({"groups": 0}, "`groups` must be a positive whole number or None. Received: groups=0"),
        ({"step": "min"}, '`step` must be "max" or "learned"'),
    ],
)
def test_a_bad_grid_never_exists(arguments, words):
    with pytest.raises(ValueError) as error:
        Grid(**arguments)
    assert words in str(error.value)


def test_an_axis_outside_the_weight_and_groups_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match=r"`axis` must lie within a weight of rank 2. Received: axis=2"):
        magnitude(tf.zeros((2, 2)), Grid(axis=2))
    with pytest.raises(ValueError, match="must be resolved for its layer first"):
        magnitude(tf.zeros((2, 2)), Grid())
    with pytest.raises(ValueError, match=r"`groups` must divide axis 1 of size 6. Received: groups=4"):
        magnitude(tf.zeros((2, 6)), Grid(axis=-1, groups=4))


def test_a_grid_survives_its_config_as_json_holds_it():
    grid = Grid(bits=5, axis=(-2, -1), step="learned")
    config = {**grid.get_config(), "axis": [-2, -1]}  # JSON has no tuples
    assert Grid(**config) == grid


@pytest.mark.parametrize(
    ("low", "high", "scale", "zero"),
    [
        (-1.0, 1.55, 0.01, -28),  # 2.55 / 255; -128 + 1 / .01
        (-1.0063, 1.5437, 0.01, -27),  # 100.63 steps below zero: -27.37 is nearest to -27
        (2.0, 5.1, 0.02, -128),  # zero belongs to it: 5.1 / 255, -128 + 0
        (-5.1, -2.0, 0.02, 127),  # -128 + 5.1 / .02 = 127
        (-0.3, 0.21, 0.002, 22),  # .51 / 255; -128 + 150
    ],
)
def test_asymmetric_fixed_points(low, high, scale, zero):
    found = fixed_points(low, high, 8, symmetric=False)
    assert found[0] == pytest.approx(scale, rel=1e-12)
    assert found[1] == zero


def test_symmetric_fixed_points_have_no_zero_point():
    assert fixed_points(-3.0, 1.0, 16, symmetric=True) == (pytest.approx(3.0 / 32767, rel=1e-12), 0)
    assert fixed_points(-1.0, 6.0, 16, symmetric=True) == (pytest.approx(6.0 / 32767, rel=1e-12), 0)


def test_an_empty_range_has_a_positive_scale():
    assert fixed_points(0.0, 0.0, 8, symmetric=False) == (pytest.approx(1e-9 / 255), -128)
    assert fixed_points(0.0, 0.0, 16, symmetric=True)[0] > 0


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.55), (0.0, 3.3), (-0.5, 1.5)])
def test_fixed_points_are_those_the_converter_writes(low, high):
    from ai_edge_litert.interpreter import Interpreter

    @tf.function(input_signature=[tf.TensorSpec((1, 4))])
    def double(x):
        return x @ tf.constant(np.eye(4), tf.float32)

    converter = tf.lite.TFLiteConverter.from_concrete_functions([double.get_concrete_function()])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    converter.representative_dataset = lambda: iter([[np.array([[low, high, 0.0, 0.0]], "float32")]])
    scale, zero = Interpreter(model_content=converter.convert()).get_input_details()[0]["quantization"]
    ours = fixed_points(low, high, 8, symmetric=False)
    assert (np.float32(ours[0]), ours[1]) == (pytest.approx(np.float32(scale), rel=2e-7), zero)


def test_the_largest_number_of_a_layer_is_the_last_code_of_its_channel():
    keras.utils.set_random_seed(3)
    kernel = np.random.default_rng(3).normal(size=(3, 3, 2, 5)).astype("float32")
    codes, scale = on_grid(kernel, Grid(axis=-1))
    flat = kernel.reshape(-1, 5)
    np.testing.assert_allclose(scale.ravel(), np.abs(flat).max(0) / 127, rtol=1e-6)
    np.testing.assert_array_equal(np.abs(codes.reshape(-1, 5)).max(0), [127] * 5)
    assert np.abs(codes * scale - kernel).max() <= scale.max() / 2 * 1.0001


def test_scales_are_one_division_also_where_the_graph_is_optimized():
    # TensorFlow replaces a division by a constant with a product, whose last digit differs.
    weight = np.random.default_rng(0).normal(size=(3, 4096)).astype("float32")
    variable = tf.Variable(weight)
    made = tf.function(lambda: scale_of(variable + 0.0, Grid(8, axis=-1)))
    np.testing.assert_array_equal(made()[0], np.abs(weight).max(axis=0) / np.float32(127))
