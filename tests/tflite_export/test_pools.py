"""A learned range in front of an average pool, behind which a concatenation has another."""

import numpy as np
import tensorflow as tf

import tfcompress as tfc
import tflite_export

layers = tf.keras.layers


def test_an_average_pool_before_a_concatenation_keeps_its_inputs_grid():
    inputs = tf.keras.Input((8, 8, 2))
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    joined = layers.Concatenate()([layers.AveragePooling2D(2)(x), layers.Conv2D(4, 3, strides=2, padding="same")(x)])
    model = tf.keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(joined)))
    x = np.random.default_rng(0).random((16, 8, 8, 2)).astype("float32")
    exported = tflite_export.export(tfc.calibrate(tfc.quantize_model(model), x), "int8", calibration=x)
    rows = {row.kind: row for row in tflite_export.describe(exported).operations}
    scales = {row.name: row.scales for row in tflite_export.describe(exported).tensors}
    pool = rows["AVERAGE_POOL_2D"]
    assert scales[pool.inputs[0]] == scales[pool.outputs[0]]  # the kernels know no other
    steps = np.abs(tflite_export.Runner(exported)(x) - model(x).numpy()) / np.ptp(model(x)) * 255
    assert steps.max() < 8


def test_a_maximum_that_is_averaged_and_convolved_stays_in_integers():
    inputs = tf.keras.Input((16, 16, 2))
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    pooled = layers.MaxPooling2D(3, strides=2)(x)
    branch = layers.Conv2D(4, 1)(layers.AveragePooling2D(3, strides=1, padding="same")(pooled))
    joined = layers.Concatenate()([layers.Conv2D(4, 1)(pooled), layers.Conv2D(4, 3, padding="same")(pooled), branch])
    model = tf.keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(joined)))
    x = np.random.default_rng(0).random((16, 16, 16, 2)).astype("float32")
    exported = tflite_export.export(tfc.calibrate(tfc.quantize_model(model), x), "int8", calibration=x)
    assert exported.report.float_operations == ()
    steps = np.abs(tflite_export.Runner(exported)(x) - model(x).numpy()) / np.ptp(model(x)) * 255
    assert steps.max() < 8


def test_a_mean_on_the_grid_of_what_it_reads_needs_no_samples():
    inputs = tf.keras.Input((1, 1, 4))
    model = tf.keras.Sequential([inputs, tf.keras.layers.GlobalAveragePooling2D(), tf.keras.layers.Dense(2)])
    ready = tfc.calibrate(tfc.quantize_model(model), np.linspace(-1, 1, 32).reshape(8, 1, 1, 4))
    assert tflite_export.export(ready, "int8").report.float_operations == ()
