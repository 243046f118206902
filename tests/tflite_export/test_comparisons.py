"""Comparisons in integer files are right on every grid, by every kernel set."""

import numpy as np
import pytest
import tensorflow as tf

import tfcompress as tfc
from tests.tflite_export.forms import KERAS3
from tests.zoo import answers
from tflite_export import Runner, describe, export

keras, layers = tf.keras, tf.keras.layers
ops = keras.ops if KERAS3 else tf
KINDS = ("equal", "not_equal", "greater", "greater_equal", "less", "less_equal")
KERNELS = ("xnnpack", "builtin", "reference")


def kinds(exported):
    return [row.kind for row in describe(exported).operations]


@pytest.fixture(scope="module")
def masked_recurrent():
    """(a model with masked steps, the same quantized, sequences of one to four steps)."""
    rng = np.random.default_rng(0)
    steps = np.arange(4) < rng.integers(1, 5, (64, 1))
    x = (rng.normal(size=(64, 4, 4)) * steps[..., None]).astype("float32")
    inputs = keras.Input((4, 4))
    keras.utils.set_random_seed(0)
    model = keras.Model(inputs, layers.Dense(2)(layers.GRU(5)(layers.Masking()(inputs))))
    return model, tfc.calibrate(tfc.quantize_model(model), x), x


@pytest.mark.parametrize("precision", ["int8", "int16x8"])
def test_a_masked_recurrent_layer_computes_in_integers(precision, masked_recurrent):
    model, quantized, x = masked_recurrent
    exported = export(quantized, precision, calibration=x)
    assert exported.report.float_operations == ()
    expected = answers(model, x)
    for kernels in KERNELS:
        found = Runner(exported, kernels=kernels)(x)
        assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("size", [0.05, 300.0])
@pytest.mark.parametrize("kind", KINDS)
def test_neighbours_on_a_grid_are_told_apart_whatever_its_scale(kind, size):
    x = (np.arange(-128, 128)[:, None] / 128 * size).astype("float32")  # the values of the grid
    inputs = keras.Input((1,))
    compare, border, ones = getattr(ops, kind), float(x[130, 0]), layers.Rescaling(0.0, 1.0)(inputs)
    both = compare(inputs, border), compare(ops.convert_to_tensor(np.float32(border)), inputs)
    chosen = [ops.where(held, ones, 0.0 * inputs) for held in both]
    exported = export(keras.Model(inputs, chosen), "int8", calibration=x)
    assert exported.report.float_operations == ()
    expected = [getattr(np, kind)(x, x[130]), getattr(np, kind)(x[130], x)]
    for kernels in KERNELS:
        found = Runner(exported, kernels=kernels)(x)
        found = list(found.values()) if isinstance(found, dict) else found
        np.testing.assert_array_equal([y > 0.5 for y in found], expected)


def test_what_lies_on_no_grid_is_never_equal():
    x = np.linspace(0, 1, 32, dtype="float32")[:, None]
    inputs = keras.Input((1,))
    ones = layers.Rescaling(0.0, 1.0)(inputs)
    model = keras.Model(inputs, ops.where(ops.not_equal(inputs, -1.0), inputs, ones))  # on the grid, -1 would be 0
    np.testing.assert_allclose(Runner(export(model, "int8", calibration=x))(x), x, atol=1 / 255)


@pytest.mark.parametrize("size", [1.0, 300.0])
def test_tensors_on_two_grids_are_compared_on_one_that_holds_both(size):
    rng = np.random.default_rng(0)
    x = {"a": rng.uniform(0, size, (64, 5)), "b": rng.uniform(-size / 10, size / 10, (64, 5))}
    x = {name: values.astype("float32") for name, values in x.items()}
    a, b = keras.Input((5,), name="a"), keras.Input((5,), name="b")
    ones = layers.Rescaling(0.0, 1.0)(a)
    model = keras.Model({"a": a, "b": b}, ops.where(ops.greater(a, b), ones, 0.0 * b))
    exported = export(model, "int8", calibration=x)
    far = np.abs(x["a"] - x["b"]) > 1.1 * size / 255  # one step of [-size / 10, size]
    for kernels in KERNELS:
        found = Runner(exported, kernels=kernels)(x) > 0.5
        np.testing.assert_array_equal(found[far], (x["a"] > x["b"])[far])


def test_tensors_on_one_grid_are_compared_as_they_are():
    x = np.random.default_rng(0).integers(-3, 4, (64, 5)).astype("float32")
    inputs = keras.Input((5,))
    model = keras.Model(inputs, ops.where(ops.equal(inputs, inputs[:, ::-1]), 2.0 * inputs, inputs))
    exported = export(model, "int8", calibration=x)
    assert exported.report.float_operations == () and kinds(exported).count("QUANTIZE") == 1
    for kernels in KERNELS:
        np.testing.assert_allclose(Runner(exported, kernels=kernels)(x), answers(model, x), atol=0.05)
