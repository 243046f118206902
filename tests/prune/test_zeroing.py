"""Channels at zero while a model trains: what stays there, how many go, and what is said where none can."""

import numpy as np
import pytest
import tensorflow as tf

from tfcompress.prune import ChannelPruning

keras = tf.keras
layers = keras.layers
X = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
Y = np.random.default_rng(1).normal(size=(64, 8)).astype("float32")


def chain(*units, inputs=8):
    keras.utils.set_random_seed(0)
    inner = [layers.Dense(count, name=f"d{n}") for n, count in enumerate(units)]
    model = keras.Sequential([keras.Input((inputs,)), *inner])
    model.compile(keras.optimizers.SGD(0.05), "mse", run_eagerly=True)
    return model


def dead(model, name="d1"):
    return int(np.sum(~np.any(np.asarray(model.get_layer(name).kernel), axis=1)))


def units(model):
    return [layer.units for layer in model.layers if isinstance(layer, layers.Dense)]


def test_what_a_restored_run_finds_at_zero_stays_between_rounds(tmp_path):
    model = chain(32, 8)
    model.fit(X, Y, epochs=1, verbose=0, callbacks=[ChannelPruning(0.75, rounds=2, every=2)])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    seen = []
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(dead(loaded)))
    loaded.fit(X, Y, initial_epoch=1, epochs=3, verbose=0, callbacks=[ChannelPruning(0.75, rounds=2, every=2), watch])
    assert seen == [16, 24]  # 32 * 0.25 ** (k / 2) live after round k; none is made when epoch 1 begins


def test_a_kernel_that_was_never_trained_is_not_held():
    model = chain(32, 8)
    model.get_layer("d1").kernel.assign(np.zeros((32, 8)))
    model.fit(X, Y, epochs=1, verbose=0, callbacks=[ChannelPruning(0.5, rounds=1, begin=1)])
    assert dead(model) == 0


def test_for_a_budget_each_group_loses_its_share():
    model = chain(64, 64, 8)
    first = model.get_layer("d0").kernel  # norms that differ by orders: on one scale these channels would all go first
    first.assign(np.asarray(first) * np.exp(np.random.default_rng(0).normal(size=64) * 2))
    pruning = ChannelPruning({"params": 0.5}, rounds=1, round_to=1)
    model.fit(X, Y, epochs=1, verbose=0, callbacks=[pruning])
    # 8 a + a + a b + b + 8 b + 8 numbers, 5256 for a = b = 64: the half holds 42 and 43, 2579, and not 43 twice, 2631
    assert sorted(units(pruning.shrink())) == [8, 42, 43]


def product(*behind):
    """Channels of "q" and "k", which an operation without weights sums over, and layers behind it."""
    inputs = keras.Input((6, 8))
    x = layers.Dot((2, 2))([layers.Dense(16, name="q")(inputs), layers.Dense(16, name="k")(inputs)])
    for layer in behind:
        x = layer(x)
    model = keras.Model(inputs, x)
    model.compile("sgd", "mse", run_eagerly=True)
    return model


def test_channels_that_an_operation_sums_over_are_named():
    x, y = np.ones((4, 6, 8), "float32"), np.zeros((4, 6, 6), "float32")
    model, pruning = product(layers.Dense(32, name="mid"), layers.Dense(6, name="head")), ChannelPruning(0.5, rounds=1)
    model.fit(x, y, verbose=0, callbacks=[pruning])
    small = pruning.shrink()
    assert [small.get_layer(name).units for name in ("q", "k", "mid")] == [16, 16, 16]
    assert small.notes["mid"] == "channels 32 → 16"
    for name in ("q", "k"):
        assert "an operation without weights sums over them" in small.notes[name]
    with pytest.raises(ValueError, match=r"channels that kernels alone read.*q: .*an operation without weights"):
        product().fit(x, y, verbose=0, callbacks=[ChannelPruning(0.5, rounds=1)])


def test_an_importance_that_says_nothing_is_refused():
    with pytest.raises(ValueError, match="'bn' says nothing of any group"):
        chain(32, 8).fit(X, Y, verbose=0, callbacks=[ChannelPruning(0.5, rounds=1, importance="bn")])


@pytest.mark.parametrize(("options", "epochs", "left"), [({"rounds": 4}, (0, 2), 24), ({"rounds": 1}, (3, 4), 32)])
def test_rounds_that_were_not_made_are_told(options, epochs, left):
    model, pruning = chain(32, 8), ChannelPruning(0.5, **options)
    model.fit(X, Y, initial_epoch=epochs[0], epochs=epochs[1], verbose=0, callbacks=[pruning])
    with pytest.warns(UserWarning, match="`amount` is not reached"):
        assert units(pruning.shrink()) == [left, 8]
