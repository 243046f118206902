"""Whole residual branches."""

import numpy as np
import pytest
import tensorflow as tf

from tests.zoo import ZOO
from tfcompress import prune_layers
from tfcompress.core.trace import trace
from tfcompress.prune.blocks import blocks

keras = tf.keras
layers = keras.layers


def tower(scales=(1.0, 0.01, 2.0)):
    inputs = keras.Input((6,))
    x = layers.Dense(8, name="stem")(inputs)
    for n, _ in enumerate(scales):
        y = layers.Dense(12, activation="relu", name=f"up_{n}")(x)
        x = layers.Add(name=f"join_{n}")([layers.Dense(8, name=f"down_{n}")(y), x])
    model = keras.Model(inputs, layers.Dense(2, name="head")(x))
    for n, scale in enumerate(scales):
        for name in (f"up_{n}", f"down_{n}"):
            model.get_layer(name).kernel.assign(scale * model.get_layer(name).kernel)
    return model


def names(model):
    return {layer.name for layer in model.layers if not isinstance(layer, layers.InputLayer)}


DATA = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")


def zeroed(model, *names):
    """The model with branches at zero: the kernels that end them are zero, biases too."""
    other = keras.models.clone_model(model)
    other.set_weights(model.get_weights())
    for name in names:
        other.get_layer(name).set_weights([np.zeros_like(w) for w in other.get_layer(name).get_weights()])
    return other


@pytest.mark.parametrize(("importance", "data"), [("l1", None), ("l2", None), ("influence", DATA),
                                                  ("taylor", (DATA, np.ones((32, 2), "float32")))])  # fmt: skip
def test_the_least_important_branch_goes_and_the_rest_is_exact(importance, data):
    model = tower()
    small = prune_layers(model, 1, importance=importance, data=data)
    assert names(model) - names(small) == {"up_1", "down_1", "join_1"}
    np.testing.assert_allclose(small(DATA), zeroed(model, "down_1")(DATA), rtol=1e-5, atol=1e-6)
    assert model.get_layer("join_1") is not None


def test_ratios_budgets_and_selections():
    model = tower()
    assert len(prune_layers(model, 2 / 3).layers) == len(model.layers) - 6
    assert prune_layers(model, {"params": 0.75}).count_params() <= 0.75 * model.count_params()
    assert names(model) - names(prune_layers(model, 1, select=["up_2", "down_2"])) == {"up_2", "down_2", "join_2"}


def test_attention_and_feed_forward_are_branches_and_a_projected_shortcut_is_none():
    assert len(blocks(trace(ZOO["subclassed_transformer"]()[0]))) == 4
    assert len(blocks(trace(ZOO["residual"]()[0]))) == 1  # the other block changes the number of filters
    model, x = ZOO["subclassed_transformer"]()
    assert prune_layers(model, 1)(x).shape == model(x).shape


def test_a_multiplication_is_no_branch():
    inputs = keras.Input((6,))
    x = layers.Dense(8)(inputs)
    x = layers.Multiply()([x, layers.Dense(8, activation="sigmoid")(x)])
    assert blocks(trace(keras.Model(inputs, layers.Dense(2)(x)))) == []


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="must have residual branches"):
        prune_layers(ZOO["lstm"]()[0], 1)
    with pytest.raises(ValueError, match="at most the 3 branches"):
        prune_layers(tower(), 4)
    with pytest.raises(ValueError, match="cannot be held"):
        prune_layers(tower(), {"params": 0.01})
    with pytest.raises(ValueError, match="`data` must be given"):
        prune_layers(tower(), 1, importance="influence")


def test_influence_is_a_mean_over_positions():
    """The first branch leaves a long position as it is and turns a short one round: cosines 1 and -1, flattened 0.98.
    The second one turns both by 60 degrees, which is 0.5 in either."""
    inputs = keras.Input((2, 2))
    x = inputs
    for name in ("first", "second"):
        x = layers.Add(name=f"join_{name}")([x, layers.Dense(2, use_bias=False, name=name)(x)])
    model = keras.Model(inputs, layers.Dense(1, name="head")(x))
    sine = np.sqrt(3) / 2
    model.get_layer("first").set_weights([np.diag([0.0, -2.0])])
    model.get_layer("second").set_weights([np.array([[0.5, sine], [-sine, 0.5]]) - np.eye(2)])
    data = np.array([[[10.0, 0.0], [0.0, 1.0]]], "float32")
    small = prune_layers(model, 1, importance="influence", data=data)
    assert names(model) - names(small) == {"second", "join_second"}


def images():
    inputs = keras.Input((None, None, 8))
    x = layers.Conv2D(8, 3, padding="same")(inputs)
    for _ in range(2):
        x = layers.Add()([x, layers.Conv2D(8, 3, padding="same")(x)])
    return keras.Model(inputs, x)


def test_multiply_accumulates_of_inputs_of_any_size_are_no_budget():
    with pytest.raises(ValueError, match="macs are not known"):
        prune_layers(images(), {"macs": 0.5})
    # three convolutions of 8 * 8 * 9 + 8 = 584 numbers
    assert prune_layers(images(), {"params": 2 / 3}).count_params() == 2 * 584


@pytest.mark.parametrize("amount", [2.5, 1.0, 0, -1, True, "half"])
def test_amounts_that_are_none_are_refused_before_data_are_read(amount):
    def data():
        raise AssertionError("the data were read")
        yield

    with pytest.raises(ValueError, match="`amount` must be a whole number of branches, a ratio of them in"):
        prune_layers(tower(), amount, importance="influence", data=data())
