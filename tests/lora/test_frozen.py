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
