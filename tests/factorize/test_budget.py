"""Distribution beside trying everything; what is measured beside what is computed by hand."""

import itertools
import tracemalloc

import numpy as np
import pytest
import tensorflow as tf

from tests.zoo import answers
from tfcompress.core.budgets import cost_of
from tfcompress.core.replay import calls
from tfcompress.core.trace import trace
from tfcompress.factorize import sensitivity
from tfcompress.factorize.budget import Choices, distribute
from tfcompress.factorize.candidates import candidates
from tfcompress.factorize.covariance import second_moments
from tfcompress.factorize.ranks import Option
from tfcompress.factorize.sensitivity import Sensitivity
from tfcompress.factorize.spectrum import Spectrum

keras = tf.keras
layers = keras.layers


def best(choices, limits):
    """The least change of all combinations that fit."""
    found = np.inf
    for chosen in itertools.product(*(range(len(c.changes)) for c in choices)):
        if (sum(c.costs[n] for c, n in zip(choices, chosen, strict=True)) <= limits).all():
            found = min(found, sum(c.changes[n] for c, n in zip(choices, chosen, strict=True)))
    return found


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kinds", [("macs",), ("macs", "params")])
def test_the_change_is_close_to_the_least_there_is(seed, kinds):
    rng = np.random.default_rng(seed)
    choices = []
    for _ in range(4):
        whole = rng.uniform(5, 20, len(kinds))
        shares = np.r_[1.0, np.sort(rng.uniform(0.1, 0.9, 5))[::-1]]
        choices.append(Choices(np.round(whole * shares[:, None], 3), np.r_[0.0, np.sort(rng.uniform(0, 1, 5))]))
    whole = {kind: float(sum(c.costs[0][k] for c in choices)) for k, kind in enumerate(kinds)}
    for share in (0.9, 0.6, 0.4):
        limits = np.array([share * whole[kind] for kind in kinds])
        least = best(choices, limits)
        if np.isinf(least):
            continue
        chosen = distribute(choices, whole, dict(zip(kinds, limits, strict=True)))
        cost = sum(c.costs[n] for c, n in zip(choices, chosen, strict=True))
        assert (cost <= limits + 1e-9).all()
        change = sum(c.changes[n] for c, n in zip(choices, chosen, strict=True))
        assert change <= (1.001 if len(kinds) == 1 else 1.6) * least + 1e-9


def test_what_cannot_be_held_is_refused():
    choices = [Choices(np.array([[10.0], [5.0]]), np.array([0.0, 0.1]))]
    with pytest.raises(ValueError, match="cannot be held"):
        distribute(choices, {"macs": 10}, {"macs": 4})
    assert distribute(choices, {"macs": 10}, {"macs": 10}) == [0]


def test_two_kinds_are_held_where_one_price_for_both_finds_nothing():
    choices = [Choices(np.array([[10.0, 10.0], [2.0, 6.0], [5.0, 2.0]]), np.array([0.0, 0.5, 0.5]))]
    assert distribute(choices, {"macs": 10, "params": 10}, {"macs": 3, "params": 7}) == [1]
    rng = np.random.default_rng(1)
    refused = held = 0
    for _ in range(60):
        some = [Choices(np.vstack([[10, 10], rng.uniform(1, 9, (4, 2))]), np.r_[0.0, rng.uniform(size=4)])
                for _ in range(3)]  # fmt: skip
        limits = rng.uniform(10, 20, 2)
        if np.isfinite(best(some, limits)):
            try:
                distribute(some, {"macs": 30, "params": 30}, {"macs": limits[0], "params": limits[1]})
                held += 1
            except ValueError:
                refused += 1
    assert held > 20 and refused <= 0.05 * held


def network():
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(5, 3, strides=2, padding="same", name="conv")(inputs)
    return keras.Model(inputs, layers.Dense(3, activation="softmax", name="head")(layers.Flatten()(x)))


X = np.random.default_rng(0).normal(size=(40, 6, 6, 2)).astype("float32")


def test_costs_are_counted_by_hand():
    # 3 * 3 * 2 * 5 = 90 numbers at 9 places, 45 * 3 at one; 90 + 5 + 135 + 3 parameters.
    assert cost_of(trace(network())) == {"macs": 945, "params": 233, "bytes": 932}


def test_second_moments_are_those_of_patches_by_hand():
    model = trace(network())
    targets, _ = candidates(model, None)
    roots = second_moments(model, targets, [[X[:30]], [X[30:]]])
    padded = np.pad(X.astype("float64"), ((0, 0), (0, 1), (0, 1), (0, 0)))  # "same" of 6 with stride 2: all at the end
    rows = np.array([padded[n, i : i + 3, j : j + 3].ravel() for n in range(40) for i in (0, 2, 4) for j in (0, 2, 4)])
    moment = rows.T @ rows / len(rows)
    expected = moment + 0.01 * np.trace(moment) / 18 * np.eye(18)
    root = roots[id(targets[0].layer)]
    np.testing.assert_allclose(root @ root.T, expected, atol=1e-5)


def test_the_moment_of_a_table_counts_its_rows():
    inputs = keras.Input((4,), dtype="int32")
    model = trace(keras.Model(inputs, layers.Embedding(5, 3)(inputs)))
    targets, _ = candidates(model, None)
    (root,) = second_moments(model, targets, [[np.array([[0, 0, 1, 3], [0, 3, 3, 3]])]]).values()
    shares = np.array([3, 1, 0, 4, 0]) / 8
    np.testing.assert_allclose(root**2, shares + 0.01 * shares.mean(), rtol=1e-6)


def test_changes_are_measured_and_the_model_stays():
    model = trace(network())
    before = [w.copy() for w in model.get_weights()]
    targets, _ = candidates(model, None)
    measured = Sensitivity(model, [[X[:25]], [X[25:]]])
    spectrum = Spectrum(targets[0].kernel, "svd")
    options = [Option("svd", (rank,), spectrum.error((rank,))) for rank in (1, 2, 3, 4)]
    changes = measured.changes(targets[0], [spectrum], options)
    w, b = model.get_layer("conv").get_weights()
    p = answers(model, X).astype("float64")
    for option, change in zip(options, changes, strict=True):
        u, s, v = np.linalg.svd(w.reshape(18, 5), full_matrices=False)
        rank = option.ranks[0]
        model.get_layer("conv").set_weights([((u[:, :rank] * s[:rank]) @ v[:rank]).reshape(w.shape), b])
        q = answers(model, X).astype("float64")
        moved = np.mean(np.sum(p * np.log(p / q), -1))
        assert 0.5 * moved - 1e-6 <= change <= 2 * moved + 1e-6
        model.get_layer("conv").set_weights([w, b])
    assert all(np.array_equal(a, c) for a, c in zip(before, model.get_weights(), strict=True))
    assert len(calls(model)) == 3


def test_what_is_masked_in_every_row_does_not_count():
    rng = np.random.default_rng(0)
    before = rng.normal(size=(50, 4))
    after = before + rng.normal(size=(50, 4)) * 0.1
    expected = np.mean(np.mean((before - after) ** 2, 0) / np.var(before, 0))
    assert sensitivity._distance(before, after) == pytest.approx(expected)
    for hidden in (-1e9, -np.inf):
        masked = [np.hstack([values, np.full((50, 2), hidden)]) for values in (before, after)]
        assert sensitivity._distance(*masked) == pytest.approx(expected)
    after[3, 1] = np.nan
    assert 1e6 < sensitivity._distance(before, after) < np.inf


def test_rows_of_large_inputs_are_taken_some_at_a_time(monkeypatch):
    model = trace(network())
    targets, _ = candidates(model, None)
    whole = second_moments(model, targets, [[X]])
    monkeypatch.setattr("tfcompress.factorize.covariance._NUMBERS", 6 * 6 * 2 * 8)
    parts = second_moments(model, targets, [[X]])
    for target in targets:
        np.testing.assert_allclose(parts[id(target.layer)], whole[id(target.layer)], rtol=1e-6)


def test_large_batches_are_run_some_examples_at_a_time(monkeypatch):
    model = trace(network())
    (target, _), _ = candidates(model, None)
    seen, rows = [], type(target).rows
    monkeypatch.setattr(type(target), "rows", lambda self, values: seen.append(len(values)) or rows(self, values))
    second_moments(model, [target], [[np.concatenate([X, X])], [X[:3]]])
    assert seen == [32, 32, 16, 3]
    seen.clear()
    monkeypatch.setattr("tfcompress.factorize.covariance._HELD", 17 * 6 * 6 * 2)  # of 17 examples of the layer's input
    second_moments(model, [target], [[X]])
    assert seen == [17, 17, 6]


def test_sums_are_given_up_for_their_roots():
    inputs = x = keras.Input((800,))
    for _ in range(6):
        x = layers.Dense(800)(x)
    model = trace(keras.Model(inputs, x))
    targets, _ = candidates(model, None)
    data = [[np.random.default_rng(0).normal(size=(8, 800)).astype("float32")]]
    tracemalloc.start()
    second_moments(model, targets, data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 9 * 8 * 800**2  # of float64: six of the layers, and what one of them is made with
