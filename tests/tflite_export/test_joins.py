"""What is selected or stacked is not cut off to the range of one part."""

import numpy as np
import pytest
import tensorflow as tf

import tfcompress as tfc
from tests.tflite_export.forms import KERAS3
from tests.zoo import answers
from tflite_export import Runner, export

keras, layers = tf.keras, tf.keras.layers
ops = keras.ops if KERAS3 else tf


def errors(model, exported, x):
    """The largest error of each output."""
    found, expected = Runner(exported)(x), answers(model, x)
    return {name: float(np.abs(found[name] - expected[name]).max()) for name in expected}


def test_a_state_that_is_held_has_the_range_of_all_steps():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (64, 3, 4)).astype("float32")
    x[:, 0] *= 8  # the first step is large, and never held over all others
    keep = np.ones((64, 3), "int32")
    keep[:32, 1], keep[32:, 2] = 0, 0
    steps, kept = keras.Input((3, 4), name="steps"), keras.Input((3,), dtype="int32", name="kept")
    state, states = 0.0 * steps[:, 0], []
    for step in range(3):
        state = ops.where(ops.not_equal(kept[:, step : step + 1], 0), steps[:, step] * 1.0, state)
        states.append(layers.Dense(4, kernel_initializer="identity", name=f"state_{step}")(state))
    model = keras.Model({"steps": steps, "kept": kept}, {f"state_{i}": state for i, state in enumerate(states)})
    data = {"steps": x, "kept": keep}
    found = errors(model, export(model, "int8", calibration=data), data)
    assert max(found.values()) < 2 * 16 / 255  # steps of [-8, 8]


def test_what_is_stacked_is_put_on_the_learned_range_of_the_stack():
    x = np.random.default_rng(0).uniform(-1, 1, (64, 4)).astype("float32")
    inputs = keras.Input((4,))
    small, large = (layers.Dense(4, kernel_initializer=keras.initializers.Identity(size))(inputs) for size in (1, 8))
    stacked = layers.Dense(4, kernel_initializer="identity", name="both")(ops.stack([small, large], 1))
    ends = {"small": layers.Dense(2, name="small")(small), "large": layers.Dense(2, name="large")(large)}
    model = tfc.calibrate(tfc.quantize_model(keras.Model(inputs, {"both": stacked, **ends})), x)
    assert errors(model, export(model, "int8", calibration=x), x)["both"] < 2 * 16 / 255  # steps of [-8, 8]


@pytest.mark.parametrize("axis", [1, 2, 3, -1])
def test_a_stack_along_any_axis_is_one(axis):
    x = np.random.default_rng(0).uniform(-1, 1, (32, 3, 4)).astype("float32")
    inputs = keras.Input((3, 4))
    stacked = ops.stack([inputs, 2.0 * inputs, -inputs], axis)
    expected = np.stack([x, 2 * x, -x], axis)
    exported = export(keras.Model(inputs, stacked), "int8", calibration=x)
    assert exported.report.float_operations == ()
    np.testing.assert_allclose(Runner(exported)(x), expected, atol=1.5 * 4 / 255)  # steps of [-2, 2]


def test_all_steps_of_a_quantized_unrolled_layer_keep_their_values():
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(64, 6, 4)) * np.linspace(0.1, 3, 6)[:, None]).astype("float32")  # grows from step to step
    inputs = keras.Input((6, 4))
    model = keras.Model(inputs, layers.Dense(3)(layers.GRU(5, return_sequences=True)(inputs)))
    for weight in model.trainable_weights:
        weight.assign(rng.normal(0, 0.7, weight.shape))
    model = tfc.calibrate(tfc.quantize_model(model), x)
    found, expected = Runner(export(model, "int8", calibration=x))(x), answers(model, x)
    assert np.abs(found - expected).max() < 0.05 * np.ptp(expected)
