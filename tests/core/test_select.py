"""A selection is a predicate, and each of its entries selects something."""

import numpy as np
import pytest

from tests.zoo import keras, layers
from tfcompress.core.select import matcher
from tfcompress.core.trace import trace


@pytest.fixture
def model():
    block = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="up"), layers.ReLU(name="act")], name="block")
    parts = layers.Dense(4, name="stem"), block, layers.Dense(2, name="head")
    return trace(keras.Sequential([keras.Input((4,)), *parts]))


CASES = {
    "class": (lambda m: layers.Dense, ["stem", "block.up", "head"]),
    "name": (lambda m: "head", ["head"]),
    "pattern": (lambda m: "block/*", ["block.up", "block.act"]),
    "dotted": (lambda m: "block.*", ["block.up", "block.act"]),
    "component": (lambda m: "up", ["block.up"]),
    "opened": (lambda m: "block", ["block.up", "block.act"]),
    "class of what was opened": (lambda m: keras.Sequential, ["block.up", "block.act"]),
    "layer": (lambda m: m.get_layer("stem"), ["stem"]),
    "predicate": (lambda m: lambda layer: getattr(layer, "units", 0) == 2, ["head"]),
    "list": (lambda m: ["stem", layers.ReLU], ["stem", "block.act"]),
    "everything": (lambda m: None, ["stem", "block.up", "block.act", "head"]),
}


@pytest.mark.parametrize("case", CASES)
def test_each_kind_of_selection_selects_these(case, model):
    make, expected = CASES[case]
    chosen = matcher(make(model), model)
    assert [layer.name for layer in model.layers[1:] if chosen(layer)] == expected


def test_the_class_of_a_composite_selects_what_was_traced_out_of_it():
    inputs = keras.Input((5, 8))
    x = layers.MultiHeadAttention(2, 4, name="attention")(inputs, inputs)
    flat = trace(keras.Model(inputs, layers.Dense(2, name="head")(x)))
    chosen = matcher(layers.MultiHeadAttention, flat)
    found = {layer.name for layer in flat.layers if layer.weights and chosen(layer)}
    assert found == {f"attention.{part}" for part in ("query", "key", "value", "attention_output")}


def test_a_path_names_a_layer_of_a_nested_model_that_was_not_traced():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="d")], name="inner")
    nested = keras.Sequential([keras.Input((4,)), inner, layers.Dense(4, name="e")])
    chosen = matcher("inner/*", nested)
    assert chosen(inner.layers[0]) and not chosen(nested.layers[-1])


def test_a_layer_of_the_original_selects_its_copy(model):
    original = layers.Dense(4, name="stem")
    assert [layer.name for layer in model.layers if matcher(original, model)(layer)] == ["stem"]


@pytest.mark.parametrize("entry", ["haed", layers.Conv2D, lambda layer: False, layers.Dense(1, name="other")])
def test_an_entry_that_selects_nothing_is_refused_even_beside_others(entry, model):
    with pytest.raises(ValueError, match=r"`only` entry .* selects no layer"):
        matcher(["stem", entry], model, "only")


def test_the_message_lists_the_names_most_like_it_first(model):
    with pytest.raises(ValueError, match=r"There are: head, stem, block\.up, block\.act"):
        matcher("haed", model)


@pytest.mark.parametrize("entry", [3, np.zeros(2)])
def test_what_is_no_selection_is_refused(entry, model):
    with pytest.raises(TypeError, match="must be a layer class, a name pattern"):
        matcher([entry], model)


def test_an_empty_list_is_refused(model):
    with pytest.raises(ValueError, match="must select something"):
        matcher([], model)
