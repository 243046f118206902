"""Scores by formulas computed another way, from data and from the batches of `fit`."""

import contextlib

import numpy as np
import pytest
import tensorflow as tf

from tests.prune.small import LOSS, X, Y, compiled, fit, kernels, network, zeros
from tfcompress.prune import (
    OBD,
    Apoz,
    Gradient,
    Magnitude,
    Movement,
    OneShot,
    PolynomialDecay,
    Pruning,
    Random,
    Taylor,
    Wanda,
)
from tfcompress.prune.targets import targets

keras = tf.keras
layers = keras.layers
DATA = (X[:16], Y[:16])


def scored(score, model=None):
    """The scores of a model's kernels, and the kernels."""
    model = compiled(network()) if model is None else model
    found = targets(model)
    score.attach(model, found)
    return score.scores(found), [target.value() for target in found]


def gradients(model, x, y):
    """Of the loss, in inference mode, for each kernel."""
    with tf.GradientTape() as tape:
        loss = LOSS(y, model(x, training=False))
    return [g.numpy() for g in tape.gradient(loss, model.trainable_variables) if len(g.shape) >= 2]


def per_batch(model, size=8):
    return [gradients(model, DATA[0][i : i + size], DATA[1][i : i + size]) for i in range(0, 16, size)]


FORMULAS = {
    Gradient: lambda batches, w: sum(np.abs(g) for g in batches),
    Taylor: lambda batches, w: sum((g * w) ** 2 for g in batches),
    Movement: lambda batches, w: -sum(g * w for g in batches),
    OBD: lambda batches, w: 0.5 * w**2 * sum(g**2 for g in batches),
}


@pytest.mark.parametrize("kind", list(FORMULAS))
def test_scores_from_data_are_sums_over_their_batches(kind):
    model = compiled(network())
    found, weights = scored(kind(DATA, batch_size=8), model)
    batches = per_batch(model)
    for place, (score, weight) in enumerate(zip(found, weights, strict=True)):
        expected = FORMULAS[kind]([batch[place] for batch in batches], weight)
        np.testing.assert_allclose(score, expected, rtol=1e-3, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("kind", list(FORMULAS))
def test_scores_from_fit_are_sums_over_the_same_batches(kind):
    """With a learning rate of 0 the gradients of `fit` are those of data."""
    model = compiled(network(), keras.optimizers.SGD(0.0), run_eagerly=False)
    score = kind(batches=2)
    found = targets(model)
    score.attach(model, found)
    assert not score.is_ready()
    model.fit(*DATA, batch_size=8, shuffle=False, verbose=0)
    assert score.is_ready()
    batches = per_batch(model)
    for place, total in enumerate(score.scores(found)):
        expected = FORMULAS[kind]([batch[place] for batch in batches], found[place].value())
        np.testing.assert_allclose(total, expected, rtol=1e-3, atol=1e-6 * np.abs(expected).max())
    score.detach()
    assert "apply" not in vars(model.optimizer) and "apply_gradients" not in vars(model.optimizer)
    assert score.is_ready() == (kind is Movement)  # sums begin anew at each decision, but that of movement


class Interrupts(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        raise KeyboardInterrupt


def test_batches_of_a_fit_after_one_that_was_interrupted_count_once():
    model = compiled(network(), keras.optimizers.SGD(0.0))
    pruning = Pruning(OneShot(0.5, begin_step=100), score=Movement())
    batches = per_batch(model, size=16)
    for callbacks in ([pruning, Interrupts()], [pruning]):
        with contextlib.suppress(KeyboardInterrupt):
            model.fit(*DATA, batch_size=16, verbose=0, callbacks=callbacks)
    for place, total in enumerate(pruning.score.scores(pruning.targets)):
        expected = FORMULAS[Movement]([batches[0][place]] * 2, pruning.targets[place].value())
        np.testing.assert_allclose(total, expected, rtol=1e-3, atol=1e-6 * np.abs(expected).max())


def rowwise(labels, predictions):
    return keras.losses.sparse_categorical_crossentropy(labels, predictions, from_logits=True)


@pytest.mark.parametrize("loss", [LOSS, rowwise])
def test_rows_weigh_in_a_loss_of_ones_own(loss):
    model, weights = network(), np.random.default_rng(0).random(16).astype("float32")
    found, _ = scored(Gradient((*DATA, weights), batch_size=16, loss=loss), model)
    with tf.GradientTape() as tape:
        value = tf.reduce_mean(rowwise(DATA[1], model(DATA[0])) * weights)
    expected = [g for g in tape.gradient(value, model.trainable_variables) if len(g.shape) >= 2]
    for score, gradient in zip(found, expected, strict=True):
        np.testing.assert_allclose(score, np.abs(gradient), rtol=1e-3, atol=1e-6)
    with pytest.raises(ValueError, match="`loss` must return a number for each row"):
        scored(Gradient((*DATA, weights), loss=lambda y, p: tf.reduce_mean(rowwise(y, p))), network())


def test_data_without_labels_are_refused():
    with pytest.raises(ValueError, match="`data` must hold labels"):
        scored(Taylor(X))


def test_data_that_run_once_are_kept_for_all_decisions():
    score, model = Taylor((DATA[0][i : i + 8], DATA[1][i : i + 8]) for i in (0, 8)), compiled(network())
    found, weights = scored(score, model)
    again = score.scores(targets(model))
    for place, weight in enumerate(weights):
        expected = FORMULAS[Taylor]([batch[place] for batch in per_batch(model)], weight)
        np.testing.assert_allclose(found[place], expected, rtol=1e-3, atol=1e-6 * np.abs(expected).max())
        np.testing.assert_array_equal(again[place], found[place])


def test_a_score_from_data_leaves_metrics_alone():
    model = compiled(network(), metrics=["accuracy"])
    fit(model)
    before = [np.asarray(v) for m in model.metrics for v in m.variables]
    scored(Gradient(DATA), model)
    for old, new in zip(before, [np.asarray(v) for m in model.metrics for v in m.variables], strict=True):
        np.testing.assert_array_equal(old, new)


def test_magnitude_and_random():
    found, weights = scored(Magnitude())
    np.testing.assert_array_equal(found[0], np.abs(weights[0]))
    first, again, other = scored(Random(3))[0], scored(Random(3))[0], scored(Random(4))[0]
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[1], other[1])


def activations(model):
    """What each layer with a kernel reads and returns for the data."""
    names = ["first", "second", "head"]
    ends = [[model.get_layer(n).input, model.get_layer(n).output] for n in names]
    return [[np.asarray(t) for t in pair] for pair in keras.Model(model.input, ends)(DATA[0])]


def test_wanda_is_the_weight_times_the_norm_of_its_input_channel():
    model = compiled(network())
    found, weights = scored(Wanda(DATA, batch_size=4), model)
    for score, weight, (given, _) in zip(found, weights, activations(model), strict=True):
        norms = np.sqrt((given.reshape(-1, given.shape[-1]) ** 2).sum(0))
        np.testing.assert_allclose(score, np.abs(weight) * norms[:, None], rtol=1e-4)


@pytest.mark.parametrize("eagerly", [True, False])
def test_activations_of_fit_are_those_of_training(eagerly):
    model = compiled(network(), keras.optimizers.SGD(0.0), run_eagerly=eagerly)
    score, found = Wanda(batches=8), targets(model)
    score.attach(model, found)
    model.fit(*DATA, batch_size=8, epochs=2, shuffle=False, verbose=0, validation_data=(DATA[0] * 1000, DATA[1]))
    model.predict(DATA[0] * 1000, verbose=0)
    norms = np.sqrt(2 * (DATA[0] ** 2).sum((0, 1, 2)))
    np.testing.assert_allclose(score.scores(found)[0], np.abs(found[0].value()) * norms[:, None], rtol=1e-4)
    score.detach()
    assert not {"test_step", "predict_step"} & set(vars(model))


def test_apoz_of_a_channel_is_the_mean_of_what_a_depthwise_layer_makes_of_it():
    model = keras.Sequential([keras.Input((4, 4, 2)), layers.DepthwiseConv2D(1, depth_multiplier=2, name="each")])
    model.get_layer("each").set_weights([np.array([1.0, 1.0, -1.0, 2.0]).reshape(1, 1, 2, 2), np.zeros(4)])
    score, found = Apoz(np.ones((8, 4, 4, 2), "float32")), targets(model, "each")
    score.attach(model, found)
    assert score.scores(found)[0].reshape(2, 2).tolist() == [[1.0, 1.0], [0.5, 0.5]]


def test_apoz_is_the_share_of_outputs_above_zero():
    model = compiled(network())
    found, _ = scored(Apoz(DATA, batch_size=16), model)
    for score, (_, made) in zip(found, activations(model), strict=True):
        share = (made.reshape(-1, made.shape[-1]) > 0).mean(0)
        np.testing.assert_allclose(score, np.broadcast_to(share, score.shape), atol=1e-6)


def test_wanda_knows_the_inputs_of_einsums_and_depthwise_layers():
    inputs = keras.Input((5, 6))
    x = layers.EinsumDense("abc,cde->abde", (5, 2, 3), name="split")(inputs)
    x = layers.EinsumDense("...de,def->...f", (5, 4), name="join")(x)
    model = keras.Model(inputs, x)
    x = np.random.default_rng(0).normal(size=(8, 5, 6)).astype("float32")
    found = targets(model)
    score = Wanda(x, batch_size=8)
    score.attach(model, found)
    first, second = score.scores(found)
    norms = np.sqrt((x**2).sum((0, 1)))
    np.testing.assert_allclose(first, np.abs(found[0].value()) * norms[:, None, None], rtol=1e-4)
    middle = np.einsum("abc,cde->abde", x, found[0].value())
    norms = np.sqrt((middle**2).sum((0, 1)))
    np.testing.assert_allclose(second, np.abs(found[1].value()) * norms[..., None], rtol=1e-4)


def test_a_layer_that_a_score_cannot_look_at_is_named():
    model = keras.Sequential([keras.Input((4, 3)), layers.LSTM(5, name="memory")])
    with pytest.raises(ValueError, match=r"`score` 'wanda' looks at .* by `select`.*kernel' of LSTM"):
        scored(Wanda(np.zeros((4, 4, 3), "float32")), model)


@pytest.mark.parametrize("score", ["taylor", "wanda", "movement"])
def test_a_decision_waits_for_the_batches_of_fit(score):
    pruning = Pruning(PolynomialDecay(0.3, 0.75, 0, 4, frequency=2), score=score)
    pruning.score.batches = 3
    model = fit(compiled(network(), run_eagerly=False), pruning)
    assert [step for step, _ in pruning.targets[0].mask.history] == [2, 4]
    assert zeros(model) == [0.75, 0.75, 0.75]
    assert all("call" not in vars(target.layer) for target in pruning.targets)


def test_equal_scores_do_not_spoil_the_share():
    model = compiled(network())
    first = model.get_layer("first")
    first.set_weights([first.get_weights()[0], np.full(8, -9.0)])  # a ReLU that lets nothing pass: gradients are 0
    fit(model, Pruning(OneShot(0.5), score=Taylor(DATA)))
    assert zeros(model) == [0.5, 0.5, 0.5]


def test_random_zeros_are_the_same_with_the_same_seed():
    places = [kernels(fit(compiled(network()), Pruning(OneShot(0.5), score=Random(5))))[0] == 0 for _ in range(2)]
    np.testing.assert_array_equal(*places)


@pytest.mark.parametrize(("argument", "value"), [("batches", 0), ("batch_size", 1.5)])
def test_wrong_numbers_are_refused(argument, value):
    with pytest.raises(ValueError, match=f"`{argument}` must be a whole number >= 1"):
        Taylor(DATA, **{argument: value})


def test_a_model_without_a_loss_is_refused():
    with pytest.raises(ValueError, match="needs a loss: compile"):
        scored(Taylor(DATA), network())
    found, _ = scored(Taylor(DATA, loss=LOSS), network())
    assert found[0].any()
