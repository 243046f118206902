"""Penalties by their formulas: in the loss while they are attached, gone afterwards, never in a file."""

import numpy as np
import pytest
import tensorflow as tf

import tfcompress
from tests.prune.small import X, Y, compiled, fit, kernels, network
from tfcompress.prune import L1, GroupLasso, Slimming

keras = tf.keras
layers = keras.layers


def total(model):
    return float(sum(np.asarray(loss) for loss in model.losses))


def test_l1_and_group_lasso_are_their_formulas():
    model = network()
    first, second, head = kernels(model)
    for penalty, expected in (
        (L1(0.1), 0.1 * sum(np.abs(w).sum() for w in (first, second, head))),
        (L1(0.1, select="head"), 0.1 * np.abs(head).sum()),
        (GroupLasso(0.1, select="first"), 0.1 * np.sqrt(27) * np.sqrt((first**2).sum((0, 1, 2))).sum()),
    ):
        penalty.attach(model)
        assert total(model) == pytest.approx(expected, rel=1e-5)
        penalty.attach(model)  # once is enough
        assert len(model.losses) in (1, 3)
        penalty.detach()
        assert not model.losses


def test_a_group_of_a_transposed_convolution_is_an_output_channel():
    model = keras.Sequential([keras.Input((4, 4, 3)), layers.Conv2DTranspose(2, 3, name="up")])
    penalty = GroupLasso(1.0)
    penalty.attach(model)
    kernel = model.get_weights()[0]
    assert total(model) == pytest.approx(np.sqrt(27) * np.sqrt((kernel**2).sum((0, 1, 3))).sum(), rel=1e-5)


def test_slimming_is_on_scales_and_refuses_a_model_without_one():
    model = keras.Sequential([keras.Input((4,)), layers.BatchNormalization(), layers.BatchNormalization(scale=False)])
    penalty = Slimming(0.5)
    penalty.attach(model)
    assert total(model) == pytest.approx(0.5 * 4)
    with pytest.raises(ValueError, match="`Slimming` needs a BatchNormalization with a scale"):
        Slimming(0.5).attach(network())


def test_as_a_callback_it_shows_in_the_loss_of_that_fit_alone():
    model = compiled(network(), keras.optimizers.SGD(0.0))
    plain = model.fit(X, Y, batch_size=8, verbose=0).history["loss"][0]
    penalty = L1(0.1)
    with_it = model.fit(X, Y, batch_size=8, verbose=0, callbacks=[penalty]).history["loss"][0]
    after = model.fit(X, Y, batch_size=8, verbose=0).history["loss"][0]
    assert with_it - plain == pytest.approx(0.1 * sum(np.abs(w).sum() for w in kernels(model)), rel=1e-4)
    assert after == pytest.approx(plain, rel=1e-5) and not model.losses


def test_the_users_own_regularizer_stays():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2, kernel_regularizer=keras.regularizers.L2(0.5))(inputs))
    kernel = model.get_weights()[0]
    penalty = L1(0.25)
    penalty.attach(model)
    assert total(model) == pytest.approx(0.5 * (kernel**2).sum() + 0.25 * np.abs(kernel).sum(), rel=1e-5)
    penalty.detach()
    assert total(model) == pytest.approx(0.5 * (kernel**2).sum(), rel=1e-5)


def test_channels_that_are_zero_have_finite_gradients():
    model = compiled(network(), keras.optimizers.SGD(0.01))
    head = model.get_layer("head")
    head.set_weights([np.zeros((8, 4)), np.zeros(4)])
    fit(model, GroupLasso(0.01))
    assert all(np.isfinite(w).all() for w in model.get_weights())


def test_weights_become_small():
    sizes = {}
    for name, callbacks in (("plain", []), ("l1", [L1(0.05)])):
        model = fit(compiled(network()), *callbacks, epochs=3)
        sizes[name] = sum(np.abs(w).sum() for w in kernels(model))
    assert sizes["l1"] < 0.8 * sizes["plain"]


def test_a_quantized_model_is_penalized_and_a_file_is_plain(tmp_path):
    quantized = tfcompress.quantize_model(network())
    penalty = L1(0.1)
    penalty.attach(quantized)
    assert total(quantized) == pytest.approx(0.1 * sum(np.abs(w).sum() for w in kernels(quantized)), rel=1e-5)
    model = network()
    L1(0.1).attach(model)
    model.save(tmp_path / "model.keras")
    assert not keras.models.load_model(tmp_path / "model.keras").losses


@pytest.mark.parametrize("strength", [0, -1.0, True, "much"])
def test_wrong_strengths_are_refused(strength):
    with pytest.raises(ValueError, match="`strength` must be a finite number above 0"):
        L1(strength)


def test_two_penalties_leave_in_any_order():
    model = compiled(network())
    fit(model, L1(0.1), GroupLasso(0.1))
    assert not model.losses
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2, kernel_regularizer=keras.regularizers.L2(0.5))(inputs))
    kernel = model.get_weights()[0]
    first, second = L1(0.25), L1(0.125)
    first.attach(model)
    second.attach(model)
    first.detach()
    assert total(model) == pytest.approx(0.5 * (kernel**2).sum() + 0.125 * np.abs(kernel).sum(), rel=1e-5)
    second.detach()
    assert total(model) == pytest.approx(0.5 * (kernel**2).sum(), rel=1e-5)


def test_one_penalty_is_on_every_model_that_it_is_attached_to():
    penalty, models = L1(0.1), [network(0), network(1)]
    for model in models:
        penalty.attach(model)
    for model in models:
        assert total(model) == pytest.approx(0.1 * sum(np.abs(w).sum() for w in kernels(model)), rel=1e-5)
    penalty.detach()
    assert not any(model.losses for model in models)


class Interruption(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        raise KeyboardInterrupt


def test_a_fit_after_one_that_was_interrupted_is_penalized():
    penalty, first, second = L1(1.0), compiled(network(0)), compiled(network(1), keras.optimizers.SGD(0.0))
    plain = second.fit(X, Y, batch_size=8, verbose=0).history["loss"][0]
    with pytest.raises(KeyboardInterrupt):
        fit(first, penalty, Interruption())
    loss = second.fit(X, Y, batch_size=8, verbose=0, callbacks=[penalty]).history["loss"][0]
    assert loss - plain == pytest.approx(sum(np.abs(w).sum() for w in kernels(second)), rel=1e-4)
    assert not first.losses and not second.losses


def test_evaluation_after_a_fit_with_validation_knows_nothing_of_the_penalty():
    model = compiled(network(), keras.optimizers.SGD(0.0), run_eagerly=False)
    plain = model.evaluate(X, Y, verbose=0)
    history = model.fit(X, Y, verbose=0, validation_data=(X, Y), callbacks=[L1(1.0)]).history
    assert history["val_loss"][0] - plain == pytest.approx(sum(np.abs(w).sum() for w in kernels(model)), rel=1e-4)
    assert model.evaluate(X, Y, verbose=0) == pytest.approx(plain, rel=1e-5)


def test_slimming_of_a_part_is_on_the_layers_in_it():
    body = keras.Sequential([keras.Input((8,)), layers.Dense(8), layers.BatchNormalization()], name="body")
    model = keras.Sequential([keras.Input((8,)), body, layers.BatchNormalization(), layers.Dense(2)])
    Slimming(0.5, select="body").attach(model)
    assert total(model) == pytest.approx(0.5 * 8)
