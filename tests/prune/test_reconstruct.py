"""Weights refitted by least squares."""

import numpy as np
import pytest
import tensorflow as tf

from tfcompress import prune_channels
from tfcompress.core.projected import Mask, attach, mask_of, project

keras = tf.keras
layers = keras.layers


def test_what_the_channels_left_can_say_is_said_again():
    # Units 4 to 7 are multiples of units 0 to 3: without them the layer behind can still return what it did.
    inputs = keras.Input((4,))
    x = layers.Dense(8, use_bias=False, name="body")(inputs)
    model = keras.Model(inputs, layers.Dense(3, name="head")(x))
    rng = np.random.default_rng(0)
    half = rng.normal(size=(4, 4)) + 3 * np.eye(4)
    model.get_layer("body").set_weights([np.concatenate([half, 0.3 * half], 1).astype("float32")])
    data = rng.normal(size=(64, 4)).astype("float32")
    plain = prune_channels(model, 0.5, round_to=1)
    refitted = prune_channels(model, 0.5, round_to=1, data=data, reconstruct=True)
    expected = np.asarray(model(data))
    assert np.abs(plain(data) - expected).max() > 0.1
    assert np.abs(refitted(data) - expected).max() < 0.01 * np.abs(expected).max()
    np.testing.assert_array_equal(refitted.get_layer("body").kernel, plain.get_layer("body").kernel)


def test_models_of_half_precision_are_refitted():
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        inputs = keras.Input((4,))
        model = keras.Model(inputs, layers.Dense(3, name="head")(layers.Dense(8, use_bias=False, name="body")(inputs)))
        rng = np.random.default_rng(0)
        half = rng.normal(size=(4, 4)) + 3 * np.eye(4)
        model.get_layer("body").set_weights([np.concatenate([half, 0.3 * half], 1).astype("float32")])
        data = rng.normal(size=(64, 4)).astype("float32")
        expected = np.asarray(model(data), "float32")
        plain, refitted = (
            np.asarray(prune_channels(model, 0.5, round_to=1, data=data, reconstruct=r)(data), "float32")
            for r in (False, True)
        )
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert np.abs(refitted - expected).max() < 0.1 * np.abs(plain - expected).max()


@pytest.mark.parametrize("options", [{"strides": 2, "padding": "same"}, {"dilation_rate": 2}, {"use_bias": False}])
@pytest.mark.parametrize("kind", [layers.Conv1D, layers.Conv2D])
def test_convolutions_come_closer(kind, options):
    spatial = (12,) if kind is layers.Conv1D else (12, 12)
    inputs = keras.Input((*spatial, 3))
    x = kind(12, 3, activation="relu", name="first")(inputs)
    model = keras.Model(inputs, kind(5, 3, name="second", **options)(x))
    data = np.random.default_rng(1).normal(size=(32, *spatial, 3)).astype("float32")
    results = [prune_channels(model, 0.5, round_to=1, data=data, reconstruct=r) for r in (False, True)]
    plain, refitted = (float(np.mean((np.asarray(m(data)) - np.asarray(model(data))) ** 2)) for m in results)
    assert refitted < 0.8 * plain


def test_zeros_that_are_held_stay_and_the_rest_is_fitted_to_them():
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(3, name="head")(layers.Dense(12, name="body")(inputs)))
    head, rng = model.get_layer("head"), np.random.default_rng(0)
    attach(head.kernel, Mask(rng.uniform(size=(12, 3)) < 0.7))
    project(head.kernel)
    data = rng.normal(size=(64, 6)).astype("float32")
    small = prune_channels(model, 0.5, round_to=1, data=data, reconstruct=True)
    kernel, kept = np.asarray(small.get_layer("head").kernel), mask_of(small.get_layer("head").kernel).kept
    assert kept.mean() < 1 and not kernel[~kept].any()
    body = np.asarray(keras.Model(small.inputs[0], small.get_layer("body").output)(data))
    rows = np.concatenate([body, np.ones((64, 1))], 1)
    for column, own in enumerate(kept.T):
        own = np.append(own, True)
        best = np.linalg.lstsq(rows[:, own], np.asarray(model(data))[:, column], rcond=None)[0]
        found = np.append(kernel[:, column], np.asarray(small.get_layer("head").bias)[column])[own]
        np.testing.assert_allclose(found, best, atol=0.01)
