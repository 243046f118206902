"""The loss that importances differentiate is the one that `evaluate` reports."""

import numpy as np
import pytest
import tensorflow as tf

from tfcompress import prune_channels
from tfcompress.prune.objective import examples, objective

keras = tf.keras
layers = keras.layers
RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 8)).astype("float32")
Z, A = RNG.normal(size=(32, 3)).astype("float32"), 10 + RNG.normal(size=(32, 3)).astype("float32")
WEIGHTS = RNG.uniform(size=32).astype("float32")


def two_outputs(**compiled):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8,))
    x = layers.Dense(16, name="body")(inputs)
    model = keras.Model(inputs, [layers.Dense(3, name="z")(x), layers.Dense(3, name="a")(x)])
    if compiled:
        model.compile("sgd", **compiled)
    return model


def errors(model):
    """Mean squared error of each row and output."""
    return [np.mean((np.asarray(p) - y) ** 2, axis=1) for p, y in zip(model(X), (Z, A), strict=True)]


@pytest.mark.parametrize("labels", [[Z, A], {"z": Z, "a": A}])
@pytest.mark.parametrize(("compiled", "z", "a"), [
    ({}, 1, 1), ({"loss": "mse"}, 1, 1), ({"loss": {"z": "mse", "a": "mse"}}, 1, 1),
    ({"loss": ["mse", "mse"], "loss_weights": [0.5, 2.0]}, 0.5, 2), ({"loss": ["mse", None]}, 1, 0),
    ({"loss": {"z": "mse", "a": "mse"}, "loss_weights": {"z": 1.0, "a": 0.0}}, 1, 0),
])  # fmt: skip
def test_labels_weights_of_losses_and_outputs_without_one(compiled, z, a, labels):
    model = two_outputs(**compiled)
    of_z, of_a = errors(model)
    assert float(objective(model)(labels, model(X))) == pytest.approx(z * of_z.mean() + a * of_a.mean(), rel=1e-5)


@pytest.mark.parametrize("compiled", [{}, {"loss": ["mse", "mse"]}])
def test_sample_weights_count(compiled):
    model = two_outputs(**compiled)
    expected = sum((WEIGHTS * rows).mean() for rows in errors(model))
    ((arrays, labels, weights),) = examples((X, [Z, A], WEIGHTS), model, batch_size=32)
    assert float(objective(model)(labels, model(arrays[0]), weights)) == pytest.approx(expected, rel=1e-5)


def test_metrics_do_not_count_it():
    model = two_outputs(loss=["mse", "mse"])
    model.train_on_batch(X, [Z, A])
    before = [float(np.asarray(metric.result())) for metric in model.metrics if metric.name.endswith("loss")]
    objective(model)([Z + 100, A], model(X))
    assert before == [float(np.asarray(m.result())) for m in model.metrics if m.name.endswith("loss")]


def test_opposite_weights_of_losses_choose_opposite_channels():
    """Units 0 to 7 are read by the one output, 8 to 15 by the other."""
    kept = []
    for loss_weights in ([1.0, 0.0], [0.0, 1.0]):
        model = two_outputs(loss=["mse", "mse"], loss_weights=loss_weights)
        first = np.arange(16) < 8
        for name, read in (("z", first), ("a", ~first)):
            layer = model.get_layer(name)
            layer.kernel.assign(np.asarray(layer.kernel) * read[:, None])
        small = prune_channels(model, 0.5, importance="taylor", data=(X, [Z, A]))
        whole, left = (np.asarray(m.get_layer("body").kernel) for m in (model, small))
        kept.append([int(np.argmin(np.abs(whole - column[:, None]).sum(0))) for column in left.T])
    assert kept == [list(range(8)), list(range(8, 16))]
