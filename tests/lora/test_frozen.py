"""What is frozen under adapters, and what is free again after them, in layers that make layers when they are made."""

import numpy as np
import pytest

import tfcompress as tfc
from tests.lora.small import LossOfTwo, fit, rng, values
from tests.zoo import keras, layers


@keras.utils.register_keras_serializable("lora_tests")
class CellOfTwo(layers.Layer):
    """A recurrent cell of a user's own that holds two dense layers."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.state_size = self.output_size = 16
        self.new, self.old = layers.Dense(16), layers.Dense(16)

    def build(self, shape):
        self.new.build(shape)
        self.old.build((None, 16))
        self.built = True

    def call(self, x, states):
        y = self.new(x) + self.old(states[0])
        return y, [y]


# layer, shape of its input
LAYERS = {
    "convlstm1d": (lambda: layers.ConvLSTM1D(4, 3), (3, 8, 4)),
    "convlstm2d": (lambda: layers.ConvLSTM2D(8, 3), (3, 6, 6, 4)),
    "bidirectional": (lambda: layers.Bidirectional(layers.ConvLSTM2D(4, 3, padding="same")), (3, 6, 6, 4)),
    "own cell": (lambda: layers.RNN(CellOfTwo()), (3, 16)),
    "closed": (LossOfTwo, (16,)),
}


def network_of(make, shape):
    """The layer, and a head of four."""
    return keras.Sequential([keras.Input(shape), make(), layers.Flatten(), layers.Dense(4, name="head")])


def shapes(weights):
    return [tuple(w.shape) for w in weights]


@pytest.mark.parametrize("options", [{}, {"base": "int8"}, {"select": "head"}], ids=str)
@pytest.mark.parametrize("kind", LAYERS)
def test_the_base_of_a_loaded_model_is_frozen_at_every_depth(kind, options, tmp_path):
    make, shape = LAYERS[kind]
    adapted = tfc.add_lora(network_of(make, shape), 1, **options)
    adapted.save(tmp_path / "a.keras")
    loaded = keras.models.load_model(tmp_path / "a.keras")
    clone = keras.models.clone_model(adapted)
    assert sorted(shapes(loaded.trainable_weights)) == sorted(shapes(adapted.trainable_weights))
    if "select" not in options:  # else Keras makes the plain layer anew, by its own rules
        assert sorted(shapes(clone.trainable_weights)) == sorted(shapes(adapted.trainable_weights))
    before = values(loaded.non_trainable_weights)
    fit(loaded, 1, rng.normal(size=(4, *shape)).astype("float32"), np.ones((4, 4)))
    assert all(np.array_equal(a, b) for a, b in zip(before, values(loaded.non_trainable_weights), strict=True))
    tfc.lora.activate(loaded, None)
    assert not loaded.trainable_weights


def nested(kind):
    """A model in each step of a sequence: [8] to [16] to [8]."""
    if kind == "sequential":
        return keras.Sequential([keras.Input((8,)), layers.Dense(16), layers.Dense(8)])
    inputs = keras.Input((8,))
    return keras.Model(inputs, layers.Dense(8)(layers.Dense(16)(inputs)))


def in_each_step(kind):
    """(3, 8) to (3, 4), with the nested model in a wrapper."""
    wrapped = layers.TimeDistributed(nested(kind), name="td")
    return keras.Sequential([keras.Input((3, 8)), wrapped, layers.Dense(4, name="head")])


@pytest.mark.parametrize("frozen", [None, "part", "whole"])
@pytest.mark.parametrize("base", [None, "int8"])
@pytest.mark.parametrize("kind", ["sequential", "functional"])
def test_a_model_inside_a_wrapper_is_as_free_after_merging_as_before(kind, base, frozen, tmp_path):
    model = in_each_step(kind)
    wrapper = model.get_layer("td")
    if frozen is not None:
        (wrapper if frozen == "whole" else wrapper.layer.layers[-1]).trainable = False
    expected = shapes(model.trainable_weights)
    assert len(expected) == {None: 6, "part": 4, "whole": 2}[frozen]
    adapted = tfc.add_lora(model, 1, base=base)
    adapted.save(tmp_path / "a.keras")
    loaded = keras.models.load_model(tmp_path / "a.keras")
    for made in (adapted, loaded):
        assert sorted(shapes(tfc.merge_lora(made).trainable_weights)) == sorted(expected)
        two = tfc.add_lora(made, 1, name="two", select="td")
        assert sorted(shapes(two.trainable_weights)) == [(1, 8), (1, 16), (8, 1), (16, 1)]
        assert sorted(shapes(tfc.merge_lora(two).trainable_weights)) == sorted(expected)


def test_the_base_is_frozen_where_a_layer_says_so_and_its_cell_does_not(tmp_path):
    plain = network_of(*LAYERS["convlstm2d"])
    plain.layers[0].trainable = False
    plain.save(tmp_path / "plain.keras")
    adapted = tfc.add_lora(keras.models.load_model(tmp_path / "plain.keras"), 1)
    expected = [(36, 1), (1, 32), (72, 1), (1, 32), (128, 1), (1, 4)]
    assert sorted(shapes(adapted.trainable_weights)) == sorted(expected)
    assert sorted(shapes(tfc.merge_lora(adapted).trainable_weights)) == [(4,), (128, 4)]
