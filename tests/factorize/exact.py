"""Layers written as products at given ranks, whether that pays or not."""

import numpy as np
import tensorflow as tf

from tfcompress.core.replay import replay
from tfcompress.core.trace import trace
from tfcompress.factorize.candidates import candidates
from tfcompress.factorize.decompose import full_ranks
from tfcompress.factorize.ranks import Option
from tfcompress.factorize.writer import Writer

keras = tf.keras


def one_layer(layer, shape, dtype="float32"):
    """A model of one layer with random weights, its bias among them."""
    inputs = keras.Input(shape, dtype=dtype)
    model = keras.Model(inputs, layer(inputs))
    rng = np.random.default_rng(3)
    model.set_weights([rng.normal(size=w.shape).astype("float32") * 0.5 for w in model.get_weights()])
    return model


def methods(model):
    """All that the model's layers can be decomposed by."""
    targets, _ = candidates(trace(model), None)
    return sorted({method for target in targets for method in target.methods})


def written(model, method, ranks=None):
    """(model, costs): all layers that know a method written by it, at these ranks or the full ones, and their costs."""
    flat = trace(model)
    targets = [target for target in candidates(flat, None)[0] if method in target.methods]
    plan = {id(t.layer): Option(method, tuple(ranks or full_ranks(t.shape, method)), 0.0) for t in targets}
    costs = [target.costs((method, plan[id(target.layer)].ranks)) for target in targets]
    return replay(flat, Writer(flat, targets, plan, {}).call), costs


def error(model, other, x):
    """Largest difference of outputs over the largest output."""
    expected, received = np.asarray(model(x)), np.asarray(other(x))
    assert expected.shape == received.shape
    return np.abs(expected - received).max() / np.abs(expected).max()
