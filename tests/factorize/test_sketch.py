"""Roots of second moments of wide layers, beside the matrices that they stand for."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import linalg

import tfcompress as tfc
from tests.zoo import answers
from tfcompress.core.trace import trace
from tfcompress.factorize import covariance, decompose
from tfcompress.factorize.candidates import candidates
from tfcompress.factorize.sketch import Sketch

keras = tf.keras
layers = keras.layers


def test_a_sketch_is_the_symmetric_root():
    rng = np.random.default_rng(0)
    vectors, values = np.linalg.qr(rng.normal(size=(9, 4)))[0], np.array([5.0, 2.0, 0.3, 0.0])
    root = linalg.sqrtm(vectors @ np.diag(values) @ vectors.T + 0.2 * np.eye(9))
    sketch, matrix = Sketch(vectors, values, 0.2), rng.normal(size=(9, 3))
    np.testing.assert_allclose(sketch.times(matrix), root @ matrix, atol=1e-9)
    np.testing.assert_allclose(sketch.solve(matrix), linalg.solve(root, matrix), atol=1e-9)
    np.testing.assert_allclose(sketch.scaled(3.0).times(matrix), 3 * root @ matrix, atol=1e-9)
    assert sketch.squares == pytest.approx(np.sum(root**2))


def test_a_sketch_of_another_kernel_is_refused():
    with pytest.raises(ValueError, match=r"`root` must be finite numbers, .* for a kernel \(5, 4\). Received: Sketch"):
        decompose(np.ones((5, 4)), "svd", [1], Sketch(np.eye(6), np.ones(6), 1.0))


def test_the_moment_of_a_wide_layer_is_that_of_its_rows(monkeypatch):
    monkeypatch.setattr(covariance, "_WIDEST", 20)
    inputs = keras.Input((30,))
    model = trace(keras.Model(inputs, layers.Dense(4)(inputs)))
    targets, _ = candidates(model, None)
    x = np.random.default_rng(0).normal(size=(12, 30)).astype("float32")
    (root,) = covariance.second_moments(model, targets, [[x[:5]], [x[5:]]]).values()
    moment = x.T.astype("float64") @ x / 12
    expected = moment + 0.01 * np.trace(moment) / 30 * np.eye(30)
    np.testing.assert_allclose(root.times(root.times(np.eye(30))), expected, atol=1e-6)
    (root,) = covariance.second_moments(model, targets, [[np.concatenate([x, x])]]).values()
    assert root.vectors.shape[1] <= 20 * 20 // 30  # no more numbers than the widest matrix has


def test_rows_of_all_batches_are_as_likely_to_be_kept(monkeypatch):
    monkeypatch.setattr(covariance, "_SAMPLED", 300)
    sample = covariance._Sample(np.random.default_rng(0))
    for axis in range(6):
        sample.add(np.tile(np.eye(6, dtype="float32")[axis], (500, 1)))
    root = sample.root()
    moment = root.times(root.times(np.eye(6))) - root.floor * np.eye(6)
    np.testing.assert_allclose(moment, np.eye(6) / 6, atol=0.06)
    assert np.trace(moment) == pytest.approx(1)


@pytest.mark.parametrize("rank", [4, {"error": 0.1}, {"params": 0.3}])
def test_wide_layers_are_weighed_by_what_they_read(rank):
    rng = np.random.default_rng(0)
    inputs = keras.Input((4500,))
    model = keras.Model(inputs, layers.Dense(32, use_bias=False, name="wide")(inputs))
    mix = rng.normal(size=(4, 4500))
    data, other = ((rng.normal(size=(60, 4)) @ mix).astype("float32") for _ in range(2))
    small = tfc.factorize_model(model, rank, data=data)
    expected = answers(model, other)
    assert np.linalg.norm(answers(small, other) - expected) < 0.1 * np.linalg.norm(expected)
    assert small.count_params() < 0.3 * model.count_params()
