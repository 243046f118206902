"""Importances by hand, and budgets that are held."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from tfcompress import prune_channels
from tfcompress.core.budgets import cost_of
from tfcompress.core.trace import trace
from tfcompress.prune.amounts import by_budget
from tfcompress.prune.channels import candidates
from tfcompress.prune.flow import Flow
from tfcompress.prune.importance import importance
from tfcompress.prune.objective import objective

keras = tf.keras
layers = keras.layers


def two_layers(normalized=False):
    inputs = keras.Input((2,))
    x = layers.Dense(3, name="body", use_bias=False)(inputs)
    if normalized:
        x = layers.BatchNormalization(name="norm")(x)
    model = keras.Model(inputs, layers.Dense(1, name="head", use_bias=False)(x))
    model.get_layer("body").set_weights([np.array([[1.0, -2.0, 0.0], [3.0, 0.0, 1.0]], "float32")])
    model.get_layer("head").set_weights([np.array([[1.0], [0.5], [4.0]], "float32")])
    return model


def scores(model, name, data=None):
    flow = Flow(trace(model))
    (found,) = importance(flow, candidates(flow, None)[0], name, data, model)
    return found


def test_norms_of_filters_over_their_mean():
    # columns of the kernel: (1, 3), (-2, 0), (0, 1); L1 4, 2, 1 over 7/3; L2 sqrt(10), 2, 1
    np.testing.assert_allclose(scores(two_layers(), "l1"), np.array([4, 2, 1]) * 3 / 7)
    l2 = np.array([np.sqrt(10), 2, 1])
    np.testing.assert_allclose(scores(two_layers(), "l2"), l2 / l2.mean())


def test_distances_to_the_other_filters():
    # |a-b| = |(3, 3)|, |a-c| = |(1, 2)|, |b-c| = |(-2, -1)|
    ab, ac, bc = np.sqrt(18), np.sqrt(5), np.sqrt(5)
    total = np.array([ab + ac, ab + bc, ac + bc])
    np.testing.assert_allclose(scores(two_layers(), "fpgm"), total / total.mean(), rtol=1e-6)


def test_scales_of_normalizations_and_none_where_there_is_none():
    model = two_layers(normalized=True)
    model.get_layer("norm").gamma.assign([-2.0, 0.5, 1.0])
    np.testing.assert_allclose(scores(model, "bn"), [2, 0.5, 1])
    assert scores(two_layers(), "bn") is None
    with pytest.raises(ValueError, match="says nothing of any group"):
        prune_channels(two_layers(), 0.5, importance="bn", round_to=1)


def test_mean_magnitudes_where_channels_are_read():
    x = np.array([[1.0, 1.0], [1.0, -1.0]], "float32")  # body gives (4, -2, 1) and (-2, -2, -1)
    means = np.array([3.0, 2.0, 1.0])
    np.testing.assert_allclose(scores(two_layers(), "activation", x), means / 2)


def test_the_first_order_change_of_the_loss():
    # head sums 4*1 - 2*.5 + 1*4 = 7 for x = (1, 1); squared error to 5: d/d gate = 2 (7 - 5) * part
    x, y = np.array([[1.0, 1.0]], "float32"), np.array([[5.0]], "float32")
    np.testing.assert_allclose(scores(two_layers(), "taylor", (x, y)), [16.0**2, 4.0**2, 16.0**2], rtol=1e-5)


def test_the_compiled_loss_is_used_and_another_derived():
    model = two_layers()
    y, p = np.array([[1.0]], "float32"), np.array([[4.0]], "float32")
    assert float(objective(model)(y, p)) == 9.0
    model.compile("sgd", "mae")
    assert float(objective(model)(y, p)) == 3.0
    shares, classes = np.array([[0.25, 0.75]], "float32"), np.array([1])
    np.testing.assert_allclose(float(objective(two_layers())(classes, shares)), -np.log(0.75), rtol=1e-5)
    logits = np.array([[0.0, 2.0]], "float32")
    np.testing.assert_allclose(float(objective(two_layers())(classes, logits)), np.log(1 + np.exp(-2)), rtol=1e-5)


@pytest.mark.parametrize(("name", "message"), [("l3", "one of l1, l2"), ("taylor", r"`data` must be \(x, y\)"),
                                               ("activation", "`data` must be samples")])  # fmt: skip
def test_what_is_unknown_or_missing_is_named(name, message):
    with pytest.raises(ValueError, match=message):
        prune_channels(two_layers(), 0.5, importance=name, round_to=1)


def wide(first=32, second=48):
    inputs = keras.Input((12, 12, 3))
    x = layers.Conv2D(first, 3, activation="relu", name="first")(inputs)
    x = layers.Conv2D(second, 3, activation="relu", name="second")(x)
    return keras.Model(inputs, layers.Dense(10, name="head")(layers.GlobalAveragePooling2D()(x)))


@pytest.mark.parametrize("round_to", [1, 8])
@pytest.mark.parametrize("amount", [{"macs": 0.5}, {"params": 0.3}, {"bytes": 30_000}, {"macs": 0.6, "params": 0.4}])
def test_a_budget_is_held_and_nearly_used(amount, round_to):
    model = wide()
    small = prune_channels(model, amount, round_to=round_to)
    before, after = cost_of(trace(model)), cost_of(small)
    limits = {kind: value * before[kind] if value <= 1 else value for kind, value in amount.items()}
    assert all(after[kind] <= limit for kind, limit in limits.items())
    if round_to == 1:
        assert max(after[kind] / limit for kind, limit in limits.items()) > 0.95
    counts = [small.get_layer(name).filters for name in ("first", "second")]
    assert all(count % round_to == 0 for count in counts)
    for more in ((round_to, 0), (0, round_to)):  # nothing could be given back
        larger = cost_of(wide(*np.add(counts, more)))
        assert any(larger[kind] > limit for kind, limit in limits.items())
    assert after["params"] == small.count_params()


def test_what_costs_least_of_the_loss_for_what_it_saves_goes_first():
    class Linear:
        def of(self, kept):
            return {"macs": 10 * kept[0] + 4 * kept[1]}

    groups = [SimpleNamespace(size=10)] * 2
    scores = [np.full(10, 5.0), np.full(10, 3.0)]

    def kept(importance):
        return by_budget(groups, scores, {"macs": 100}, [1, 1], Linear(), importance)

    every = itertools.product(range(1, 11), repeat=2)
    best = max((pair for pair in every if 10 * pair[0] + 4 * pair[1] <= 100), key=lambda p: 5 * p[0] + 3 * p[1])
    assert kept("taylor") == list(best) == [6, 10]
    assert kept("bn") == [9, 2]  # one threshold for all scales, as network slimming has it


def test_multiply_accumulates_of_inputs_of_any_size_are_no_budget():
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, layers.Conv2D(2, 1)(layers.Conv2D(16, 3)(inputs)))
    with pytest.raises(ValueError, match="macs are not known"):
        prune_channels(model, {"macs": 0.5})
    assert prune_channels(model, {"params": 0.6}).count_params() < model.count_params()


def test_a_budget_that_cannot_be_held_says_what_is_left():
    with pytest.raises(ValueError, match=r"cannot be held: with the fewest channels the model has \{'params': "):
        prune_channels(wide(), {"params": 50})
