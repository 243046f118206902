"""Schedules: what stands still from a step on, and what goes on."""

import itertools

import numpy as np
import pytest

import tfcompress
from tests.zoo import keras, layers
from tfcompress.quantize import FreezeBatchNorm, FreezeRanges, MovingAverage
from tfcompress.quantize.quantizer import quantizers

RNG = np.random.default_rng(2)
# Each batch of 4 is wider than the one before it, so that a range that follows it moves.
X = (RNG.normal(size=(24, 4, 4, 1)) * np.repeat(np.arange(1, 7), 4)[:, None, None, None]).astype("float32")
Y = RNG.normal(size=(24, 2)).astype("float32")


class Record(keras.callbacks.Callback):
    """What the model holds after each step."""

    def __init__(self):
        super().__init__()
        self.steps = []

    def on_train_batch_end(self, batch, logs=None):
        norm, conv = self.model.get_layer("norm"), self.model.get_layer("conv")
        ranges = [np.array(q.observed) for q in quantizers(self.model)]
        ranges += [np.array(q.step)[None] for q in quantizers(self.model) if hasattr(q, "step")]
        statistics = dict(zip(("gamma", "beta", "mean", "variance"), norm.get_weights(), strict=True))
        self.steps.append({"ranges": np.concatenate(ranges), "kernel": np.array(conv.kernel), **statistics})

    def moved(self, name):
        """After which steps (counted from 2) it differs from the step before."""
        values = [step[name] for step in self.steps]
        return [i + 2 for i, (a, b) in enumerate(itertools.pairwise(values)) if not np.array_equal(a, b)]


def quantized(ranges=None):
    inputs = keras.Input((4, 4, 1))
    x = layers.BatchNormalization(name="norm", momentum=0.5)(layers.Conv2D(2, 3, name="conv")(inputs))
    model = keras.Model(inputs, layers.Dense(2, name="head")(layers.Flatten()(layers.ReLU(name="relu")(x))))
    return tfcompress.quantize_model(model, ranges=ranges or MovingAverage(0.5))


def fitted(*callbacks, model=None, **options):
    model, record = model or quantized(), Record()
    if getattr(model, "optimizer", None) is None:
        model.compile(keras.optimizers.SGD(0.001), "mse", **options)
    # Recorded before the callback acts on the end of the same step.
    model.fit(X, Y, batch_size=4, shuffle=False, verbose=0, callbacks=[record, *callbacks])
    return model, record


def test_without_schedules_everything_moves_in_every_step():
    _, record = fitted(run_eagerly=True)
    for name in ("ranges", "kernel", "gamma", "beta", "mean", "variance"):
        assert record.moved(name) == [2, 3, 4, 5, 6], name


@pytest.mark.parametrize("eager", [True, False])
def test_ranges_stand_still_from_a_step_on(eager):
    model, record = fitted(FreezeRanges(3), run_eagerly=eager)
    assert record.moved("ranges") == [2, 3]
    assert record.moved("kernel") == record.moved("mean") == [2, 3, 4, 5, 6]
    assert [float(np.asarray(q.frozen)) for q in quantizers(model)] == [1.0, 1.0, 1.0]


def test_learned_steps_stand_still_too():
    _, record = fitted(FreezeRanges(4), model=quantized("lsq"), run_eagerly=True)
    assert record.moved("ranges") == [2, 3, 4]


def test_ranges_frozen_from_the_start_take_the_first_batch():
    model, record = fitted(FreezeRanges(0), run_eagerly=True)
    assert record.moved("ranges") == []
    np.testing.assert_allclose(np.array(quantizers(model)[0].observed), [X[:4].min(), X[:4].max(), 1.0], rtol=1e-6)


@pytest.mark.parametrize("eager", [True, False])
def test_batch_normalization_stands_still_from_a_step_on(eager):
    model, record = fitted(FreezeBatchNorm(3), run_eagerly=eager)
    for name in ("gamma", "beta", "mean", "variance"):
        assert record.moved(name) == [2, 3], name
    assert record.moved("kernel") == record.moved("ranges") == [2, 3, 4, 5, 6]
    assert not model.get_layer("norm").trainable


def test_several_steps_at_once_act_at_their_end():
    model = quantized()
    model.compile(keras.optimizers.SGD(0.001), "mse", steps_per_execution=2)
    before = []

    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            before.append(np.array(quantizers(self.model)[0].observed))

    model.fit(X, Y, batch_size=4, shuffle=False, verbose=0, callbacks=[Look(), FreezeRanges(3)])
    assert len(before) == 3  # after steps 2, 4 and 6; three steps are done at the second of them
    assert not np.array_equal(before[0], before[1])
    np.testing.assert_array_equal(before[1], before[2])


def test_steps_are_counted_over_several_fits():
    callback = FreezeRanges(9)
    model, first = fitted(callback, run_eagerly=True)  # six steps
    _, second = fitted(callback, model=model)  # and three
    assert first.moved("ranges") == [2, 3, 4, 5, 6]
    assert second.moved("ranges") == [2, 3]


@pytest.mark.parametrize("kind", [FreezeRanges, FreezeBatchNorm])
@pytest.mark.parametrize("steps", [-1, 2.0, "3", None])
def test_steps_are_whole_numbers_from_zero_on(kind, steps):
    with pytest.raises(ValueError, match="`steps` must be a whole number from 0 on"):
        kind(steps)


@pytest.mark.parametrize(
    ("callback", "words"),
    [
        (FreezeRanges(0), "`FreezeRanges` needs a quantized model. Received: 'plain'"),
        (FreezeBatchNorm(0), "`FreezeBatchNorm` found no BatchNormalization in 'plain'"),
    ],
)
def test_a_model_without_what_they_freeze_is_refused(callback, words):
    inputs = keras.Input((4, 4, 1))
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(inputs)), name="plain")
    model.compile("sgd", "mse", run_eagerly=True)
    with pytest.raises(ValueError, match=words):
        model.fit(X, Y, verbose=0, callbacks=[callback])
