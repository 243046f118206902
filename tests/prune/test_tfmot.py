"""Masks are those of tfmot for the same weights, schedule and share."""

import os

import numpy as np
import pytest
import tensorflow as tf

from tests.prune.small import compiled, fit, network
from tfcompress.prune import ConstantSparsity, PolynomialDecay, Pruning
from tfcompress.prune.patterns import kept_count, resolve

pytestmark = pytest.mark.skipif(os.environ.get("TF_USE_LEGACY_KERAS") != "1", reason="tfmot knows tf_keras alone")
SIZES = [(37, 11), (3, 3, 5, 8), (128, 64), (1, 1, 24, 40)]


@pytest.fixture(scope="module")
def tfmot():
    return pytest.importorskip("tensorflow_model_optimization").sparsity.keras


def theirs(weights, sparsity, block=(1, 1), m_by_n=None):
    from tensorflow_model_optimization.python.core.sparsity.keras import pruning_impl

    schedule = lambda step: (tf.constant(True), tf.constant(sparsity, tf.float32))  # noqa: E731
    variable = tf.Variable(weights)
    made = pruning_impl.Pruning(lambda: 0, [(variable, None, None)], schedule, block, "AVG", m_by_n)
    return np.asarray(made._maybe_update_block_mask(variable)[1]) > 0


def ours(weights, sparsity, pattern):
    pattern, axis = resolve(pattern), weights.ndim - 1
    units = pattern.units(np.abs(weights), axis)
    return pattern.kept(units, kept_count(units.size, sparsity), weights.shape, axis)


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.3333, 0.5, 0.625, 0.8, 0.9, 0.99])
def test_masks_of_single_weights(tfmot, shape, sparsity):
    weights = np.random.default_rng(0).normal(size=shape).astype("float32")
    np.testing.assert_array_equal(ours(weights, sparsity, "unstructured"), theirs(weights, sparsity))
    tied = np.round(weights, 1)  # many equal ones, zeros among them
    np.testing.assert_array_equal(ours(tied, sparsity, "unstructured"), theirs(tied, sparsity))


@pytest.mark.parametrize("block", [(1, 4), (4, 1), (2, 3), (16, 8)])
def test_masks_of_blocks(tfmot, block):
    """Of sizes that blocks divide: at an edge tfmot scores windows that lie elsewhere than the blocks they decide."""
    weights = np.random.default_rng(0).normal(size=(48, 24)).astype("float32")
    for sparsity in (0.5, 0.8):
        np.testing.assert_array_equal(ours(weights, sparsity, block), theirs(weights, sparsity, block))


@pytest.mark.parametrize("shape", [(128, 64), (3, 3, 8, 8), (1, 1, 24, 40)])
def test_masks_of_two_in_four(tfmot, shape):
    weights = np.random.default_rng(0).normal(size=shape).astype("float32")
    np.testing.assert_array_equal(ours(weights, 0.5, "2:4"), theirs(weights, 0.5, m_by_n=(2, 4)))


def test_schedules_answer_the_same(tfmot):
    pairs = [
        (PolynomialDecay(0.1, 0.8, 5, 105, frequency=10), tfmot.PolynomialDecay(0.1, 0.8, 5, 105, frequency=10)),
        (PolynomialDecay(0.0, 0.9, 0, 60, 2, 20), tfmot.PolynomialDecay(0.0, 0.9, 0, 60, power=2, frequency=20)),
        (ConstantSparsity(0.5, 10, 90, 7), tfmot.ConstantSparsity(0.5, 10, 90, 7)),
    ]
    for mine, other in pairs:
        for step in range(120):
            due, share = other(step)
            assert mine(step)[0] == bool(due), step
            if due:
                assert mine(step)[1] == pytest.approx(float(share), abs=1e-7)


@pytest.mark.parametrize("whose", ["ours", "tfmot's"])
def test_training_comes_to_the_same_weights(tfmot, whose):
    """SGD so slow that no zero of tfmot's grows past the threshold between two steps, as it may there.

    tfmot counts the step that is about to be made, from 1; ours are the steps that are done.
    """
    schedule = tfmot.PolynomialDecay(0.0, 0.75, begin_step=1, end_step=13, frequency=3)
    wrapped = tfmot.prune_low_magnitude(network(), schedule)
    fit(compiled(wrapped, tf.keras.optimizers.SGD(1e-4), run_eagerly=False), tfmot.UpdatePruningStep(), epochs=2)
    expected = tfmot.strip_pruning(wrapped).get_weights()
    own = PolynomialDecay(0.0, 0.75, begin_step=0, end_step=12, frequency=3) if whose == "ours" else schedule
    model = fit(compiled(network(), tf.keras.optimizers.SGD(1e-4), run_eagerly=False), Pruning(own), epochs=2)
    for theirs_, mine in zip(expected, model.get_weights(), strict=True):
        np.testing.assert_array_equal(theirs_ == 0, mine == 0)
        np.testing.assert_allclose(theirs_, mine, atol=1e-6)
