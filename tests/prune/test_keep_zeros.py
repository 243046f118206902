"""Zeros that a model brings are held, and nothing else is."""

import numpy as np
import tensorflow as tf

import tfcompress
from tests.prune.small import compiled, fit, kernels, network, zeros
from tfcompress.prune import KeepZeros

keras = tf.keras


def sparse():
    model = network()
    rng = np.random.default_rng(0)
    weights = [w * (rng.random(w.shape) < 0.5) if w.ndim == 4 else w for w in model.get_weights()]
    model.set_weights(weights)
    return model


def test_zeros_of_a_loaded_model_are_held_where_they_are(tmp_path):
    sparse().save(tmp_path / "model.keras")
    model = compiled(keras.models.load_model(tmp_path / "model.keras"))
    before = kernels(model)
    fit(model, KeepZeros())
    for old, new in zip(before, kernels(model), strict=True):
        np.testing.assert_array_equal(old == 0, new == 0)
    assert not np.array_equal(before[0], kernels(model)[0])


def test_zeros_are_held_in_a_quantized_model_and_a_fit_that_was_traced_before():
    quantized = compiled(tfcompress.quantize_model(sparse()), keras.optimizers.SGD(0.0), run_eagerly=False)
    fit(quantized)
    places = [kernel == 0 for kernel in kernels(quantized)]
    quantized.optimizer.learning_rate.assign(0.01)
    fit(quantized, KeepZeros())
    for place, kernel in zip(places, kernels(quantized), strict=True):
        np.testing.assert_array_equal(kernel == 0, place)


def test_a_kernel_of_nothing_but_zeros_is_held_only_when_it_is_selected():
    for select, expected in ((None, 0.0), ("head", 1.0)):
        model = network()
        head = model.get_layer("head")
        head.set_weights([np.zeros((8, 4)), np.zeros(4)])
        fit(compiled(model), KeepZeros(select))
        assert zeros(model)[2] == expected
