"""The call: what it takes, what it refuses, what it says."""

import numpy as np
import pytest
import tensorflow as tf

import tfcompress as tfc
from tests.prune.oracle import error
from tfcompress import prune_channels

keras = tf.keras
layers = keras.layers


def network():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(16, 3, padding="same", name="stem")(inputs)
    y = layers.Conv2D(32, 3, padding="same", name="inner")(x)
    x = layers.Add(name="sum")([x, layers.Conv2D(16, 3, padding="same", name="outer")(y)])
    x = layers.Conv2D(24, 3, name="last")(x)
    return keras.Model(inputs, layers.Dense(5, name="head")(layers.GlobalAveragePooling2D()(x)))


def filters(model):
    return {layer.name: layer.filters for layer in model.layers if hasattr(layer, "filters")}


def test_a_ratio_goes_from_every_group_in_multiples():
    assert filters(prune_channels(network(), 0.5)) == {"stem": 8, "inner": 16, "outer": 8, "last": 16}
    assert filters(prune_channels(network(), 0.5, round_to=1)) == {"stem": 8, "inner": 16, "outer": 8, "last": 12}
    assert filters(prune_channels(network(), 0.9)) == {"stem": 8, "inner": 8, "outer": 8, "last": 8}


def test_numbers_of_numpy_are_numbers():
    assert filters(prune_channels(network(), np.float32(0.5), round_to=np.int64(8))) == {
        "stem": 8, "inner": 16, "outer": 8, "last": 16,
    }  # fmt: skip


def test_counts_are_multiples_in_every_kernel():
    inputs = keras.Input((4, 4, 3))
    x = layers.Conv2D(24, 1, name="body")(inputs)
    model = keras.Model(inputs, layers.Dense(5)(layers.Flatten()(x)))  # which reads 16 positions of each channel
    assert filters(prune_channels(model, 0.4)) == {"body": 16}


def test_heads_of_attention_go_one_by_one():
    inputs = keras.Input((5, 16))
    x = layers.MultiHeadAttention(6, 8, name="attention")(inputs, inputs)
    small = prune_channels(keras.Model(inputs, layers.Dense(2)(x)), 0.5)
    assert sorted({tuple(w.shape) for w in small.weights if len(w.shape) == 3}) == [(3, 8, 8), (16, 3, 8)]


@pytest.mark.parametrize("value_dim", [4, 16])
def test_values_of_attention_may_be_wider_or_narrower_than_its_keys(value_dim):
    inputs = keras.Input((5, 16))
    x = layers.MultiHeadAttention(6, 8, value_dim=value_dim, name="attention")(inputs, inputs)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    small = prune_channels(model, 0.5, round_to=1)
    shapes = {tuple(w.shape) for w in small.weights if len(w.shape) == 3}
    assert shapes == {(16, 3, 8), (16, 3, value_dim), (3, value_dim, 8)}
    assert error(model, small, np.random.default_rng(0).normal(size=(4, 5, 16)).astype("float32")) < 1e-5


@pytest.mark.parametrize("activation", ["hard_sigmoid", "gelu", "swish", "elu"])
def test_activations_of_single_numbers_keep_channels_apart(activation):
    model = keras.Sequential([keras.Input((8,)), layers.Dense(16, activation), layers.Dense(2)])
    assert prune_channels(model, 0.5).count_params() == 8 * 8 + 8 + 8 * 2 + 2


def test_ratios_by_layers_and_a_selection():
    small = prune_channels(network(), {"inner": 0.75, "last": 0.25}, round_to=2)
    assert filters(small) == {"stem": 16, "inner": 8, "outer": 16, "last": 18}
    assert filters(prune_channels(network(), 0.5, select="inner")) == {"stem": 16, "inner": 16, "outer": 16, "last": 24}


def test_the_least_important_go_and_the_order_stays():
    model = keras.Sequential([keras.Input((1,)), layers.Dense(4, name="a", use_bias=False), layers.Dense(1, name="b")])
    model.layers[0].set_weights([np.array([[3.0, -0.1, -2.0, 0.2]], "float32")])
    small = prune_channels(model, 0.5, round_to=1)
    np.testing.assert_array_equal(small.get_layer("a").kernel, np.array([[3.0, -2.0]], "float32"))


def test_the_summary_says_what_became_of_each_layer():
    small = prune_channels(network(), 0.5)
    done = {row.name: row.done for row in tfc.summary(small).rows}
    assert done["stem"] == "channels 16 → 8"
    assert done["inner"] == "inputs 16 → 8, channels 32 → 16"
    assert done["head"] == "channels kept: it is an output of the model, inputs 24 → 16" or (
        done["head"] == "inputs 24 → 16")  # fmt: skip


def test_a_tied_layer_that_is_not_selected_is_named():
    with pytest.raises(ValueError, match="tied to outer, which is not selected"):
        prune_channels(network(), 0.5, select="stem")
    with pytest.raises(ValueError, match=r"names no channels .* by 'stem': tied to others in \['stem', 'outer'\]"):
        prune_channels(network(), {"stem": 0.5})


def test_a_quantized_model_is_refused():
    with pytest.raises(ValueError, match="prune before quantize"):
        prune_channels(tfc.quantize_model(network()), 0.5)


@pytest.mark.parametrize(("amount", "error", "message"), [
    (0.0, ValueError, "ratio in"), (1.0, ValueError, "ratio in"), ("half", TypeError, "ratio of channels"),
    ({}, ValueError, "hold something"), ({"macs": 0.5, "stem": 0.5}, ValueError, "not both"),
    ({"macs": 0}, ValueError, "fraction"), ({"macs": 1.5}, ValueError, "fraction"), ({3: 0.5}, TypeError, "names"),
    ({"stem": 2.0}, ValueError, "ratio in"),
])  # fmt: skip
def test_amounts_that_are_none(amount, error, message):
    with pytest.raises(error, match=message):
        prune_channels(network(), amount)


def test_other_arguments_that_are_wrong():
    with pytest.raises(ValueError, match="`round_to`"):
        prune_channels(network(), 0.5, round_to=0)
    with pytest.raises(ValueError, match="`data` must hold samples for reconstruct=True"):
        prune_channels(network(), 0.5, reconstruct=True)
    with pytest.raises(TypeError, match="`model`"):
        prune_channels("model", 0.5)


def test_the_result_trains():
    small = prune_channels(network(), 0.5)
    small.compile("sgd", "mse")
    x, y = np.ones((4, 8, 8, 3), "float32"), np.ones((4, 5), "float32")
    before = small.evaluate(x, y, verbose=0)
    small.fit(x, y, epochs=3, verbose=0)
    assert small.evaluate(x, y, verbose=0) < before


def test_groups_that_lose_nothing_are_named():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8, name="few"), layers.Dense(16, name="some"),
                              layers.Dense(32, name="many"), layers.Dense(2, name="head")])  # fmt: skip
    notes = prune_channels(model, 0.2).notes
    assert [name for name, note in notes.items() if "`round_to`" in note] == ["few", "some"]
    assert notes["many"] == "channels 32 → 24"
    again = prune_channels(prune_channels(model, {"some": 0.5}), {"many": 0.5})
    assert again.notes["some"] == "channels 16 → 8"


def test_of_several_names_the_first_counts():
    small = prune_channels(network(), {"inner": 0.75, "i*": 0.25}, round_to=8)
    assert filters(small)["inner"] == 8
