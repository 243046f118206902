"""The nuclear norm by its formula, in the loss while it is attached; training under it lowers ranks."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import linalg

import tfcompress as tfc
from tfcompress.factorize import NuclearNorm, nuclear_norm

keras = tf.keras
layers = keras.layers


def total(model):
    return float(sum(np.asarray(loss) for loss in model.losses))


def norm(matrix):
    return linalg.svdvals(matrix).sum()


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4)])
def test_value_and_gradient_are_those_of_the_singular_values(shape):
    w = np.random.default_rng(0).normal(size=shape)
    x = tf.Variable(w.astype("float32"))
    with tf.GradientTape() as tape:
        value = 3 * nuclear_norm(tf.convert_to_tensor(x))
    u, s, v = np.linalg.svd(w, full_matrices=False)
    assert float(value) == pytest.approx(3 * s.sum(), rel=1e-4)
    np.testing.assert_allclose(tape.gradient(value, x), 3 * u @ v, atol=1e-3)


def test_gradients_of_low_rank_and_of_zeros_are_finite():
    for w in (np.zeros((4, 3)), np.ones((4, 3))):
        x = tf.Variable(w.astype("float32"))
        with tf.GradientTape() as tape:
            value = nuclear_norm(tf.convert_to_tensor(x))
        assert np.isfinite(np.asarray(tape.gradient(value, x))).all()
        assert float(value) == pytest.approx(norm(w), rel=1e-3, abs=1e-6)


def test_every_kind_of_layer_by_its_matrix():
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 3, name="conv")(inputs)
    x = layers.EinsumDense("abcd,de->abce", (4, 4, 5), name="einsum")(x)
    model = keras.Model(inputs, layers.Dense(2, name="dense")(layers.Flatten()(x)))
    w = model.get_layer("conv").get_weights()[0]
    reads, makes = w.transpose(2, 0, 1, 3).reshape(3, 36), w.reshape(27, 4)
    dense = norm(model.get_layer("einsum").get_weights()[0]) + norm(model.get_layer("dense").get_weights()[0])
    for method, conv in (("tucker2", (norm(reads) + norm(makes)) / 2), ("svd", norm(makes)), ("channel", norm(reads)),
                         ("spatial", norm(w.transpose(0, 2, 1, 3).reshape(9, 12)))):  # fmt: skip
        penalty = NuclearNorm(0.1, method=method)
        penalty.attach(model)
        penalty.attach(model)  # once is enough
        assert total(model) == pytest.approx(0.1 * (conv + dense), rel=1e-3)
        penalty.detach()
        assert not model.losses
    penalty = NuclearNorm(0.1, select="dense")
    penalty.attach(model)
    assert total(model) == pytest.approx(0.1 * norm(model.get_layer("dense").get_weights()[0]), rel=1e-3)
    penalty.detach()


def test_training_under_it_lowers_the_rank_that_energy_asks_for():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 24)).astype("float32")
    y = (x @ rng.normal(size=(24, 2)) @ rng.normal(size=(2, 24))).astype("float32")
    ranks = {}
    for name, callbacks in (("plain", []), ("nuclear", [NuclearNorm(0.3)])):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((24,)), layers.Dense(24, name="body")])
        model.compile(keras.optimizers.Adam(1e-2), "mse")
        model.fit(x, y, batch_size=64, epochs=12, verbose=0, callbacks=callbacks)
        assert not model.losses
        values = np.linalg.svd(model.get_weights()[0], compute_uv=False)
        ranks[name] = int(np.sum(values > 0.05 * values[0]))
        small = tfc.factorize_model(model, {"energy": 0.99})
        ranks[name + " found"] = small.get_layer("body.reduce").units if len(small.layers) > 2 else 24
    assert 2 * ranks["nuclear"] <= ranks["plain"]
    assert ranks["nuclear found"] <= ranks["plain found"]


def test_models_without_kernels_and_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="NuclearNorm needs kernels with a low-rank form"):
        NuclearNorm(1.0).attach(keras.Sequential([keras.Input((4,)), layers.BatchNormalization()]))
    with pytest.raises(ValueError, match="`strength` must be a finite number above 0"):
        NuclearNorm(0)
    with pytest.raises(ValueError, match="`method` must be one of tucker2"):
        NuclearNorm(1.0, method="cp")


def test_layers_with_adapters_are_none_and_selected_ones_without_a_form_are_named():
    model = keras.Sequential([keras.Input((16,)), layers.Dense(16, name="one"), layers.Dense(16, name="two")])
    adapted = tfc.add_lora(model, 2, select="one", base="int4", train="two")
    with pytest.raises(ValueError, match=r"NuclearNorm needs kernels with a low-rank form.*'one': its weights are"):
        NuclearNorm(1.0).attach(adapted)
    with pytest.raises(ValueError, match="'deep': DepthwiseConv2D has no low-rank form here"):
        NuclearNorm(1.0, select=["deep", "flat"]).attach(keras.Sequential([
            keras.Input((8, 8, 4)), layers.DepthwiseConv2D(3, name="deep"), layers.Conv2D(4, 1, name="flat")]))
