"""Statistics of a batch against numpy, and which names and values are accepted."""

import numpy as np
import pytest
import tensorflow as tf

from tests.zoo import keras
from tfcompress.quantize.ranges import LearnedStep, MovingAverage, Percentile, resolve

VALUES = np.random.default_rng(0).normal(size=(40, 7)).astype("float32")
serialize, deserialize = keras.utils.serialize_keras_object, keras.utils.deserialize_keras_object


@pytest.mark.parametrize(("rows", "seen"), [(None, VALUES), (16, VALUES[:16]), (1, VALUES[:1])])
def test_moving_average_looks_at_the_first_rows(rows, seen):
    low, high = MovingAverage(rows=rows).ends(tf.constant(VALUES), nonnegative=False)
    assert (float(low), float(high)) == (seen.min(), seen.max())


def test_where_nothing_is_negative_the_smallest_is_zero():
    assert float(MovingAverage().ends(tf.constant([3.0, 5.0]), nonnegative=True)[0]) == 0.0
    assert float(Percentile().ends(tf.constant([3.0, 5.0]), nonnegative=True)[0]) == 0.0


@pytest.mark.parametrize("percentile", [75.0, 90.0, 99.0, 100.0])
def test_percentile_is_numpys_nearest(percentile):
    low, high = Percentile(percentile).ends(tf.constant(VALUES), nonnegative=False)
    assert float(high) == np.percentile(VALUES, percentile, method="nearest")
    assert float(low) == np.percentile(VALUES, 100 - percentile, method="nearest")


def test_a_sample_is_spread_over_the_batch_and_over_the_channels():
    # Even channels hold values near 0, odd ones near 100: an even stride would see only one kind.
    values = np.tile([0.0, 100.0], (512, 16)).astype("float32") + np.arange(512)[:, None] / 1024
    low, high = Percentile(90.0, sample=200).ends(tf.constant(values), nonnegative=False)
    assert float(low) < 0.5 and float(high) >= 100.0


def test_learned_step_statistics():
    low, high, mean = LearnedStep(rows=4).statistics(tf.constant(VALUES))
    seen = VALUES[:4]
    np.testing.assert_allclose([low, high, mean], [seen.min(), seen.max(), np.abs(seen).mean()], rtol=1e-6)
    assert float(LearnedStep().statistics(tf.constant([1.0, 2.0]))[0]) == 0.0  # zero belongs to the range


def test_a_scalar_is_taken_whole():
    assert float(MovingAverage().ends(tf.constant(2.0), nonnegative=False)[1]) == 2.0
    assert float(LearnedStep().statistics(tf.constant(-2.0))[2]) == 2.0


@pytest.mark.parametrize(("name", "kind"), [("ema", MovingAverage), ("percentile", Percentile), ("lsq", LearnedStep)])
def test_names_stand_for_the_defaults(name, kind):
    assert resolve(name) == kind()


def test_an_object_stands_for_itself_and_survives_serialization():
    for ranges in (MovingAverage(0.5, None), Percentile(95.0, 0.9, 100), LearnedStep(8)):
        assert resolve(ranges) is ranges
        assert deserialize(serialize(ranges)) == ranges


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: MovingAverage(1.0), r"`momentum` must lie in \[0, 1\). Received: momentum=1.0"),
        (lambda: MovingAverage(-0.1), "`momentum` must lie in"),
        (lambda: MovingAverage(rows=0), "`rows` must be a positive whole number or None. Received: rows=0"),
        (lambda: Percentile(50.0), r"`percentile` must lie in \(50, 100\]"),
        (lambda: Percentile(momentum=2), "`momentum` must lie in"),
        (lambda: Percentile(sample=1), "`sample` must be at least 2. Received: sample=1"),
        (lambda: resolve("max"), r"`ranges` must be one of \['ema', 'lsq', 'percentile'\]"),
    ],
)
def test_bad_arguments_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
