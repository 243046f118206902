"""Compensation against brute force: least squares by numpy's own solver, and errors that must fall."""

import numpy as np
import pytest
import tensorflow as tf

from tests.prune.small import X, Y, compiled, network
from tfcompress.core.projected import mask_of
from tfcompress.prune import OBS, Iterative, Magnitude, OneShot, Pruning, SparseGPT
from tfcompress.prune.matrices import view_of
from tfcompress.prune.second_order import refit, swept
from tfcompress.prune.targets import targets

keras = tf.keras
layers = keras.layers


def problem(inputs=12, outputs=5, rows=200, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, inputs)) @ rng.normal(size=(inputs, inputs))  # correlated
    return x, rng.normal(size=(inputs, outputs))


def test_what_lives_is_refitted_by_least_squares():
    x, weights = problem()
    kept = np.random.default_rng(1).random(weights.shape) < 0.4
    found = refit(weights, kept, x.T @ x)
    for column in range(weights.shape[1]):
        lives = kept[:, column]
        expected = np.linalg.lstsq(x[:, lives], x @ weights[:, column], rcond=None)[0]
        np.testing.assert_allclose(found[lives, column], expected, rtol=1e-6)
        assert not found[~lives, column].any()


def test_the_score_is_what_the_outputs_lose_at_best():
    """w² / [H⁻¹]_pp is the error of the best refit when the weight p alone goes."""
    x, weights = problem(inputs=5, outputs=1)
    hessian = x.T @ x
    saliency = weights[:, 0] ** 2 / np.diag(np.linalg.inv(hessian))
    for gone in range(5):
        kept = np.arange(5)[:, None] != gone
        error = ((x @ weights - x @ refit(weights, kept, hessian)) ** 2).sum()
        assert error == pytest.approx(saliency[gone], rel=1e-6)


def test_a_sweep_with_fixed_zeros_is_the_step_by_step_update():
    """Each input in turn: its error over its place in the inverse Hessian of the inputs that are left."""
    x, weights = problem(inputs=7, outputs=3)
    hessian = x.T @ x
    kept = np.random.default_rng(1).random(weights.shape) < 0.5
    expected = weights.copy()
    for row in range(7):
        inverse = np.linalg.inv(hessian[row:, row:])
        error = np.where(kept[row], 0, expected[row]) / inverse[0, 0]
        expected[row:] -= np.outer(inverse[:, 0], error)
    for block in (2, 7, 128):
        found, lives = swept(weights, kept, hessian, block, free=None, group=None)
        np.testing.assert_allclose(found, np.where(kept, expected, 0), atol=1e-9)
        np.testing.assert_array_equal(lives, kept)


def test_a_free_sweep_keeps_the_share_and_groups():
    x, weights = problem(inputs=16, outputs=6)
    half = np.arange(16)[:, None] % 2 == np.zeros((1, 6))
    found, kept = swept(weights, half, x.T @ x, 8, free=np.ones_like(half), group=None)
    assert kept[:8].mean() == kept[8:].mean() == 0.5 and (found[~kept] == 0).all()
    _, kept = swept(weights, half, x.T @ x, 8, free=np.ones_like(half), group=4)
    assert (kept.reshape(4, 4, 6).sum(1) == 2).all()


@pytest.mark.parametrize("group", [None, 4])
def test_a_free_sweep_revives_nothing(group):
    x, weights = problem(inputs=16, outputs=6)
    lives = np.random.default_rng(2).random((16, 6)) < np.linspace(0.9, 0.4, 16)[:, None]  # fewer in later blocks
    half = np.cumsum(lives, 0) % 2 == 1
    wanted = lives & half
    found, kept = swept(np.where(lives, weights, 0), wanted, x.T @ x, 8, lives, group)
    assert not kept[~lives].any() and (found[~kept] == 0).all()
    if group:
        np.testing.assert_array_equal(kept.reshape(4, 4, 6).sum(1), wanted.reshape(4, 4, 6).sum(1))
    else:
        counts = [lives[rows].sum() * wanted.sum() / lives.sum() for rows in (slice(8), slice(8, 16))]
        assert [kept[:8].sum(), kept[8:].sum()] == [round(float(count)) for count in counts]


@pytest.mark.parametrize("pattern", ["unstructured", "1:4"])
def test_rounds_leave_zeros_where_they_are(pattern):
    model = compiled(network())
    pruning = Pruning(Iterative(0.75, rounds=2, recovery_steps=1), score=SparseGPT(X, block=8), pattern=pattern,
                      select=["second", "head"])  # fmt: skip
    pruning.attach(model)
    places = []
    for step in range(2):
        pruning.step(step)
        places.append([np.asarray(target.variable) == 0 for target in pruning.targets])
    for first, second in zip(*places, strict=True):
        assert second[first].all() and [first.mean(), second.mean()] == pytest.approx([0.5, 0.75], abs=0.02)


@pytest.mark.parametrize("score", ["magnitude", "sparsegpt"])
def test_two_of_four_inputs_live_in_attention(score):
    inputs = keras.Input((5, 8))
    model = keras.Model(inputs, layers.MultiHeadAttention(2, 4, name="attention")(inputs, inputs))
    x = np.random.default_rng(0).normal(size=(8, 5, 8)).astype("float32")
    pruning = Pruning(OneShot(0.5), score=SparseGPT(x) if score == "sparsegpt" else score, pattern="2:4")
    pruning.attach(model)
    pruning.step(0)
    shapes = [target.shape for target in pruning.targets]
    assert sorted(shapes) == [(2, 4, 8), (8, 2, 4), (8, 2, 4), (8, 2, 4)]
    for target, shape in zip(pruning.targets, shapes, strict=True):
        rows = (np.asarray(target.variable) != 0).reshape(2, 4, 8)  # inputs: 8 = 2 x 4, or heads x their width
        assert (rows.sum(1) == 2).all(), shape


def test_compensation_beats_what_it_begins_with():
    x, weights = problem(inputs=40, outputs=20)
    hessian = x.T @ x
    size = np.abs(weights)
    kept = size >= np.quantile(size, 0.6)
    lost = {"none": np.where(kept, weights, 0), "refit": refit(weights, kept, hessian)}
    lost["sweep"] = swept(weights, kept, hessian, 128, free=None, group=None)[0]
    error = {name: ((x @ weights - x @ w) ** 2).sum() for name, w in lost.items()}
    assert error["refit"] < error["sweep"] < error["none"]


ARGUMENTS = [
    {"padding": "same"}, {"padding": "valid", "strides": 2}, {"padding": "same", "dilation_rate": 2},
]  # fmt: skip


@pytest.mark.parametrize(
    "layer",
    [
        *(lambda a=a: (layers.Conv2D(4, (3, 2), use_bias=False, **a), (7, 6, 3)) for a in ARGUMENTS),
        lambda: (layers.Conv1D(4, 3, padding="causal", use_bias=False), (9, 5)),
        lambda: (layers.Conv1D(4, 3, strides=2, use_bias=False), (9, 5)),
        lambda: (layers.Dense(4, use_bias=False), (6, 5)),
        lambda: (layers.EinsumDense("abc,cde->abde", (6, 2, 3)), (6, 5)),
        lambda: (layers.EinsumDense("...de,def->...f", (6, 4)), (6, 2, 3)),
    ],
)
def test_rows_times_matrix_is_the_layer(layer):
    layer, shape = layer()
    inputs = keras.Input(shape)
    model = keras.Model(inputs, layer(inputs))
    x = np.random.default_rng(0).normal(size=(3, *shape)).astype("float32")
    target = targets(model)[0]
    view = view_of(target)
    kernel = target.value()
    found = np.asarray(view.rows(tf.constant(x))) @ view.matrix(kernel)
    np.testing.assert_allclose(found.reshape(-1), np.asarray(model(x)).reshape(-1), atol=1e-5)
    np.testing.assert_array_equal(view.kernel(view.matrix(kernel)), kernel)


def test_layers_that_are_no_product_of_matrices_are_named():
    model = keras.Sequential([keras.Input((6, 6, 4)), layers.Conv2D(4, 3, groups=2, name="grouped")])
    with pytest.raises(ValueError, match=r"needs layers that are a product of matrices.*grouped"):
        view_of(targets(model)[0])


def pruned(score, share=0.5, **arguments):
    model = compiled(network())
    pruning = Pruning(OneShot(share), score=score, **arguments)
    pruning.attach(model)
    pruning.score.attach(model, pruning.targets)
    pruning.step(0)
    return model


SMOOTH = X.cumsum(1).cumsum(2) / 6  # neighbours are alike, as in images: one can stand in for the other


def error(model):
    return float(np.mean((np.asarray(model(SMOOTH)) - np.asarray(network()(SMOOTH))) ** 2))


@pytest.mark.parametrize("kind", [OBS, SparseGPT])
def test_outputs_of_a_network_stay_nearer_than_by_magnitude(kind):
    by_magnitude = error(pruned(Magnitude()))
    model = pruned(kind((SMOOTH, Y), batch_size=16))
    assert [mask_of(model.get_layer(n).kernel).sparsity for n in ("first", "second")] == [0.5, 0.5]
    assert error(model) < 0.5 * by_magnitude


@pytest.mark.parametrize("pattern", ["2:4", "channels", (2, 2)])
@pytest.mark.parametrize("kind", [OBS, SparseGPT])
def test_patterns_hold_in_what_is_compensated(kind, pattern):
    model = pruned(kind(X, batch_size=32), pattern=pattern, select="second")
    kernel = model.get_layer("second").get_weights()[0]
    groups = {"2:4": (3, 3, 2, 4, 8), "channels": (72, 8), (2, 2): (9, 4, 2, 4, 2)}[pattern]
    axes = {"2:4": 3, "channels": 0, (2, 2): (2, 4)}[pattern]
    zeros = (kernel == 0).reshape(groups).mean(axes)
    assert set(np.unique(zeros)) == ({0.5} if pattern == "2:4" else {0.0, 1.0})


def test_layers_are_done_in_order_on_what_changed_ones_return():
    data = OBS(X, batch_size=32, damping=1e-4)
    model = pruned(data)
    original = network()
    probe = keras.Model(model.input, model.get_layer("second").input)
    given = np.asarray(probe(X)).astype("float64")
    target = next(t for t in targets(model) if t.name.startswith("second"))
    rows = np.asarray(view_of(target).rows(tf.constant(given, tf.float32)), "float64")
    wanted = view_of(target).matrix(original.get_layer("second").get_weights()[0]).astype("float64")
    found, kept = view_of(target).matrix(target.value()), view_of(target).matrix(target.mask.kept)
    lives = kept[:, 0]
    expected = np.linalg.lstsq(rows[:, lives], rows @ wanted[:, 0], rcond=None)[0]
    np.testing.assert_allclose(found[lives, 0], expected, atol=2e-3)


@pytest.mark.parametrize(("argument", "value"), [("damping", 0.0), ("positions", 0), ("block", 0)])
def test_wrong_numbers_are_refused(argument, value):
    with pytest.raises(ValueError, match=f"`{argument}` must be"):
        SparseGPT(X, **{argument: value})
