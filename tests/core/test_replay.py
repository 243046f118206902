"""Calls of a graph made again compute what they computed."""

import numpy as np
import pytest
import tensorflow as tf

from tests.zoo import ZOO, keras, layers
from tfcompress.core.replay import calls, replay

GRAPHS = [name for name in ZOO if not name.startswith("subclassed")]


def assert_equal(a, b):
    tf.nest.assert_same_structure(a, b)
    for p, q in zip(tf.nest.flatten(a), tf.nest.flatten(b), strict=True):
        np.testing.assert_array_equal(p, q)


def two_inputs():
    """Inputs in a dict that is not sorted, a shared layer, tuple outputs, keywords, an input that is an output."""

    class Swap(layers.Layer):
        def call(self, left=None, right=None):
            return right - left, left * 2

    z, a, dense = keras.Input((3,), name="z"), keras.Input((3,), name="a"), layers.Dense(3, name="both")
    first, second = Swap(name="swap")(left=dense(z), right=dense(a))
    rng = np.random.default_rng(0)
    x = {"z": rng.normal(size=(4, 3)).astype("float32"), "a": rng.normal(size=(4, 3)).astype("float32")}
    return keras.Model({"z": z, "a": a}, {"q": [first, second[:, :2] + 1.0], "b": a}), x


@pytest.mark.parametrize("name", [*GRAPHS, "two_inputs"])
def test_a_replay_computes_the_same_with_the_same_layers_names_and_structure(name):
    model, x = ZOO[name]() if name in ZOO else two_inputs()
    again = replay(model)
    assert_equal(again(x, training=False), model(x, training=False))
    assert again is not model and again.name == model.name
    assert getattr(again, "output_names", None) == getattr(model, "output_names", None)
    assert {id(v) for v in again.variables} == {id(v) for v in model.variables}


def test_what_call_returns_takes_the_place_of_the_old_outputs():
    model = keras.Sequential([keras.Input((2,)), layers.ReLU(name="a"), layers.ReLU(name="b")])
    triple = replay(model, lambda old, args, kwargs: layers.Rescaling(3.0, name=old.name)(*args, **kwargs), name="n")
    np.testing.assert_array_equal(triple(np.float32([[-1, 2]])), [[-9, 18]])
    assert triple.name == "n"


def test_a_shared_layer_is_called_twice_and_a_nested_model_once():
    inner = keras.Sequential([keras.Input((3,)), layers.Dense(3), layers.ReLU()], name="inner")
    i, dense = keras.Input((3,)), layers.Dense(3, name="dense")
    model = keras.Model(i, dense(inner(dense(i))))
    assert [call.name for call in calls(model)] == ["dense", "inner", "dense"]


def test_a_replay_may_have_another_batch_size():
    model = keras.Sequential([keras.Input((2,)), layers.ReLU()])
    assert tuple(replay(model, batch_size=5).inputs[0].shape) == (5, 2)
    assert tuple(replay(model).inputs[0].shape) == (None, 2)


def test_a_replay_may_have_other_shapes():
    i = {"b": keras.Input((None, 2), name="first"), "a": keras.Input((None,), name="second")}
    model = keras.Model(i, [layers.ReLU()(i["a"]), layers.ReLU()(i["b"])])
    again = replay(model, shapes=[(3,), (5, 2)])  # in the order of sorted keys
    assert [tuple(shape) for shape in again.output_shape] == [(None, 3), (None, 5, 2)]


def test_too_few_outputs_are_refused():
    model, _ = two_inputs()
    one = lambda old, args, kwargs: kwargs["right"] if old.name == "swap" else old.operation(*args, **kwargs)  # noqa: E731
    with pytest.raises(ValueError, match=r"as many tensors as 'swap' does \(2\)\. Received: 1"):
        replay(model, one)


def test_a_model_without_a_graph_is_refused():
    class Plain(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match="must be a graph of calls"):
        calls(Plain())
