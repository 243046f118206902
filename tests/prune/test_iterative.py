"""Rounds of pruning with training between them: as one call, continued after an interruption, and as a callback."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from tfcompress.core.projected import Mask, attach, mask_of, project
from tfcompress.prune import ChannelPruning, prune_iteratively

keras = tf.keras
layers = keras.layers
X = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
Y = X[:, :2] * X[:, 2:4]


def network():
    keras.utils.set_random_seed(3)
    inputs = keras.Input((6,))
    x = layers.Dense(16, activation="relu", name="first")(inputs)
    x = layers.Dense(16, activation="relu", name="second")(x)
    return keras.Model(inputs, layers.Dense(2, name="head")(x))


def widths(model):
    return [layer.units for layer in model.layers if isinstance(layer, layers.Dense)][:2]


def fit(model, **options):
    model.compile(keras.optimizers.Adam(0.01), "mse", **options)
    noisy = X + np.random.normal(0, 0.1, X.shape).astype("float32")  # follows the seed
    model.fit(noisy, Y, batch_size=16, epochs=2, verbose=0)


def test_the_same_share_goes_in_each_round():
    seen = []
    prune_iteratively(network(), 0.75, lambda m: seen.append(widths(m)), rounds=4, round_to=1)
    assert seen == [[11, 11], [8, 8], [6, 6], [4, 4]]  # 16 * 0.25 ** (k / 4) = 11.3, 8, 5.7, 4


def test_a_budget_is_reached_in_the_last_round():
    model = network()
    small = prune_iteratively(model, {"params": 0.5}, lambda m: None, rounds=3, round_to=1)
    assert 0.45 * model.count_params() < small.count_params() <= 0.5 * model.count_params()


def interrupted(train):
    """Training that is broken off when its second round begins."""
    rounds = iter([train])

    def stops(model):
        next(rounds, _stopped)(model)

    return stops


def _stopped(model):
    raise KeyboardInterrupt


def test_an_interrupted_call_goes_on_to_the_same_end(tmp_path):
    options = {"rounds": 3, "seed": 5, "round_to": 1}
    whole = prune_iteratively(network(), 0.5, fit, **options)
    with pytest.raises(KeyboardInterrupt):
        prune_iteratively(network(), 0.5, interrupted(fit), folder=tmp_path, **options)
    rounds = []
    again = prune_iteratively(network(), 0.5, lambda m: rounds.append(1) or fit(m), folder=tmp_path, **options)
    assert len(rounds) == 2
    for a, b in zip(whole.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="rounds of the same model and the same arguments"):
        prune_iteratively(network(), 0.6, fit, folder=tmp_path, **options)
    other = network()
    other.layers[1].bias.assign(np.ones(16, "float32"))
    with pytest.raises(ValueError, match="rounds of the same model and the same arguments"):
        prune_iteratively(other, 0.5, fit, folder=tmp_path, **options)


def dead(model):
    return [int(np.sum(~np.any(np.asarray(model.get_layer(name).kernel), axis=1))) for name in ("second", "head")]


def test_the_callback_holds_channels_at_zero_and_takes_them_out():
    model = network()
    model.compile(keras.optimizers.Adam(0.01), "mse")
    seen = []
    pruning = ChannelPruning(0.75, rounds=2, begin=1, every=2, round_to=1)
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(dead(model)))
    model.fit(X, Y, batch_size=16, epochs=5, verbose=0, callbacks=[pruning, watch])
    assert seen == [[0, 0], [8, 8], [8, 8], [12, 12], [12, 12]]
    small = pruning.shrink()
    assert widths(small) == [4, 4]
    np.testing.assert_allclose(small(X), model(X), rtol=1e-5, atol=1e-6)


def test_a_restored_checkpoint_goes_on_to_the_same_channels(tmp_path):
    def run(model, first, last):
        pruning = ChannelPruning(0.75, rounds=3, round_to=1)
        for epoch in range(first, last):  # as one fit would: the seed is that of the epoch
            keras.utils.set_random_seed(epoch)
            model.fit(X, Y, batch_size=16, initial_epoch=epoch, epochs=epoch + 1, verbose=0, shuffle=False,
                      callbacks=[pruning])  # fmt: skip
        return pruning

    model = network()
    model.compile(keras.optimizers.Adam(0.01), "mse")
    run(model, 0, 2)
    model.save(tmp_path / "middle.keras")
    whole = run(model, 2, 4).shrink()
    loaded = keras.models.load_model(tmp_path / "middle.keras")
    again = run(loaded, 2, 4).shrink()
    assert widths(whole) == widths(again) == [4, 4]
    for a, b in zip(whole.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_model_with_layers_inside_layers_is_told_to_be_traced():
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(8, name="a")], name="inner")
    model = keras.Sequential([keras.Input((6,)), inner, layers.Dense(2)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"tfcompress.trace\(model\)"):
        model.fit(X, Y, verbose=0, callbacks=[ChannelPruning(0.5)])


def test_zeros_that_were_held_are_held_again(tmp_path):
    quick = functools.partial(fit, run_eagerly=True)

    def model():
        made = network()
        mask = Mask(np.random.default_rng(0).uniform(size=(16, 16)) < 0.3)
        attach(made.get_layer("second").kernel, mask)
        project(made.get_layer("second").kernel)
        return made

    options = {"rounds": 2, "seed": 5, "round_to": 1}
    whole = prune_iteratively(model(), 0.5, quick, **options)
    with pytest.raises(KeyboardInterrupt):
        prune_iteratively(model(), 0.5, interrupted(quick), folder=tmp_path, **options)
    again = prune_iteratively(model(), 0.5, quick, folder=tmp_path, **options)
    finished = prune_iteratively(model(), 0.5, quick, folder=tmp_path, **options)
    assert 0.5 < np.mean(np.asarray(whole.get_layer("second").kernel) == 0) < 0.9
    for other in (again, finished):
        for a, b in zip(whole.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(*(mask_of(m.get_layer("second").kernel).kept for m in (whole, other)))


def test_what_train_returns():
    def history(model):
        model.compile("sgd", "mse")
        return model.fit(X, Y, verbose=0)

    assert widths(prune_iteratively(network(), 0.75, history, rounds=2, round_to=1)) == [4, 4]
    other = network()
    assert prune_iteratively(network(), 0.5, lambda m: other, rounds=1) is other
    with pytest.raises(TypeError, match="`train` must return a model, or None"):
        prune_iteratively(network(), 0.5, lambda m: (m, "history"), rounds=1)


def test_a_predicate_is_known_again_by_what_it_selects(tmp_path):
    for select in (lambda layer: layer.name == "first", lambda layer: layer.name.startswith("fir"), "first"):
        prune_iteratively(network(), 0.5, lambda m: None, rounds=1, folder=tmp_path, select=select)
    with pytest.raises(ValueError, match="rounds of the same model and the same arguments"):
        prune_iteratively(
            network(), 0.5, lambda m: None, rounds=1, folder=tmp_path, select=lambda layer: layer.name == "second"
        )


def test_a_budget_that_cannot_be_counted_is_refused():
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, layers.Conv2D(2, 1)(layers.Conv2D(16, 3)(inputs)))
    with pytest.raises(ValueError, match="macs are not known"):
        prune_iteratively(model, {"macs": 0.5}, fit)
