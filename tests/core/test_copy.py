"""Copies compute and train as the original does, and share nothing with it."""

import gc
import weakref

import numpy as np
import pytest
import tensorflow as tf

from tests.zoo import ZOO, keras, layers, targets
from tfcompress.core.copy import copy_layer, substitute
from tfcompress.core.trace import trace
from tfcompress.core.transformed import Transformed


@pytest.mark.parametrize("name", ZOO)
def test_a_copy_of_a_model_computes_the_same_and_shares_no_variable(name):
    model, x = ZOO[name]()
    copy = copy_layer(model)
    for p, q in zip(tf.nest.flatten(copy(x, training=False)), tf.nest.flatten(model(x, training=False)), strict=True):
        np.testing.assert_array_equal(p, q)
    assert len(copy.variables) == len(model.variables)
    assert not {id(v) for v in copy.variables} & {id(v) for v in model.variables}


@pytest.mark.parametrize("name", ["residual", "subclassed_transformer"])
def test_a_copy_trains_and_leaves_the_original_as_it_was(name):
    model, x = ZOO[name]()
    model.compile("sgd", "mse")
    goal = targets(model, x)
    before = [np.array(w) for w in model.get_weights()]
    copy = copy_layer(model)
    assert getattr(copy, "optimizer", None) is None
    copy.compile("sgd", "mse", run_eagerly=name != "residual")
    copy.fit(x, goal, verbose=0)
    assert any(np.any(a != b) for a, b in zip(copy.get_weights(), before, strict=True))
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("change", [copy_layer, trace, lambda model: Transformed(copy_layer(model.layers[-1]), {})])
@pytest.mark.parametrize("kind", [layers.LSTM, layers.GRU, layers.SimpleRNN])
def test_a_state_that_lasts_from_call_to_call_is_copied(kind, change):
    inputs = keras.Input((3, 2), batch_size=1)
    model = keras.Model(inputs, kind(4, stateful=True)(inputs))
    x = np.random.default_rng(0).normal(size=(2, 1, 3, 2)).astype("float32")
    changed = change(model)
    found = [np.array(changed(one)) for one in x]
    expected = [np.array(model(one)) for one in x]  # from its own zeros: the copy has moved no state of the model's
    np.testing.assert_allclose(found, expected, atol=1e-6)
    model.layers[-1].reset_states()
    assert np.abs(np.array(model(x[1])) - expected[1]).max() > 1e-3


def test_a_closure_over_a_layer_computes_with_the_copy():
    class Closing(layers.Layer):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(1, use_bias=False)
            dense = self.dense
            self.run = lambda x: dense(x)

        def call(self, x):
            return self.run(x)

    old, x = Closing(), np.float32([[2.0]])
    old(x)
    new = copy_layer(old)
    new.dense.set_weights([np.float32([[5.0]])])
    np.testing.assert_array_equal(new(x), [[10.0]])


def test_a_copy_keeps_nothing_of_the_original_alive():
    old = layers.Dense(2)
    old.build((None, 3))
    new, gone = copy_layer(old), weakref.ref(old)
    del old
    gc.collect()
    assert gone() is None and new.units == 2


def test_one_memo_keeps_one_object_one():
    shared = layers.Dense(2, name="shared")
    shared.build((None, 2))
    memo: dict = {}
    first, second = copy_layer(shared, memo), copy_layer(shared, memo)
    assert first is second and first is not shared and copy_layer(shared) is not first


def test_a_substitute_stands_wherever_the_old_layer_stood():
    class Pair(layers.Layer):
        def __init__(self):
            super().__init__()
            self.parts = [layers.ReLU(), {"second": layers.ReLU()}]

        def call(self, x):
            return self.parts[1]["second"](self.parts[0](x))

    pair = Pair()
    pair(np.zeros((1, 2), "float32"))
    new = substitute(pair, {id(pair.parts[1]["second"]): layers.Rescaling(4.0)})
    np.testing.assert_array_equal(new(np.float32([[1, 2]])), [[4, 8]])
    np.testing.assert_array_equal(pair(np.float32([[1, 2]])), [[1, 2]])


def test_a_substitute_for_a_stranger_is_refused():
    dense = layers.Dense(1)
    with pytest.raises(ValueError, match="ids of sublayers of 'dense"):
        substitute(dense, {1: layers.ReLU(name="new")})


def test_a_copied_sequential_saves_and_loads(tmp_path):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2), layers.BatchNormalization()])
    x = np.random.normal(size=(4, 3)).astype("float32")
    copy_layer(model).save(tmp_path / "copy.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "copy.keras")(x), model(x))
