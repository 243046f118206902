"""Shares of zeros over steps: as rows, and as TensorBoard reads them."""

import numpy as np
import pytest
import tensorflow as tf

from tests.prune.small import compiled, fit, network
from tfcompress.prune import OneShot, PolynomialDecay, Pruning, PruningSummaries


def scalars(folder):
    found = {}
    for path in sorted(folder.glob("events*")):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                found[value.tag, event.step] = float(tf.make_ndarray(value.tensor))
                assert value.metadata.plugin_data.plugin_name == "scalars"
    return found


def test_decisions_and_ends_of_epochs_are_recorded(tmp_path):
    seen = PruningSummaries(tmp_path)
    pruning = Pruning(PolynomialDecay(0.0, 0.75, 0, 10, frequency=5))
    fit(compiled(network()), pruning, seen, epochs=2)
    head = [(step, share) for step, name, share in seen.rows if name == "head/kernel"]
    # 32 weights, 0.75 * (1 - (1/2)³) = 0.65625 at step 5
    assert head == [(0, 0.0), (5, 0.65625), (8, 0.65625), (10, 0.75), (16, 0.75)]
    every = {step: share for step, name, share in seen.rows if not name}
    assert every[16] == pytest.approx(0.75) and set(every) == {8, 16}
    written = scalars(tmp_path)
    assert written["sparsity/head/kernel", 5] == pytest.approx(0.65625)
    assert written["sparsity", 16] == pytest.approx(0.75)


def test_a_model_without_masks_has_a_row_an_epoch():
    model = network()
    weights = model.get_weights()
    weights[0] = np.where(np.arange(8) < 2, 0.0, weights[0])
    model.set_weights(weights)
    seen = PruningSummaries(select="first")
    fit(compiled(model, tf.keras.optimizers.SGD(0.0)), seen)
    assert seen.rows == [(8, "first/kernel", 0.25), (8, "", 0.25)]


def test_each_kernel_of_each_model_is_recorded():
    seen = PruningSummaries()
    for _ in range(2):
        inner = tf.keras.Sequential([tf.keras.Input((8,)), tf.keras.layers.Dense(8, name="d")], name="inner")
        model = tf.keras.Sequential([tf.keras.Input((8,)), inner, tf.keras.layers.Dense(4, name="d")])
        model.compile("sgd", "mse")
        model.fit(np.ones((2, 8)), np.ones((2, 4)), verbose=0, callbacks=[Pruning(OneShot(0.5)), seen])
    for name in ("d/kernel", "d/kernel_1"):  # the decision and the end of the epoch, of both models
        assert [(step, share) for step, which, share in seen.rows if which == name] == 2 * [(0, 0.5), (1, 0.5)]
