"""Groups of channels as data and as a table."""

import numpy as np
import pytest
import tensorflow as tf

from tests.zoo import ZOO
from tfcompress import prune_channels
from tfcompress.prune import dependencies

keras = tf.keras
layers = keras.layers


def made(model):
    return {tuple(sorted(group.layers("makes"))): group for group in dependencies(model)}


def test_a_residual_addition_makes_one_group_of_its_operands():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", name="stem")(inputs)
    y = layers.Conv2D(6, 3, padding="same", name="inner")(x)
    x = layers.Add()([x, layers.Conv2D(4, 3, padding="same", name="outer")(y)])
    model = keras.Model(inputs, layers.Dense(2, name="head")(layers.GlobalAveragePooling2D()(x)))
    groups = made(model)
    assert set(groups) == {("outer", "stem"), ("inner",), ("head",)}
    assert groups["outer", "stem"].size == 4
    assert sorted(groups["outer", "stem"].layers("reads")) == ["head", "inner"]
    assert groups[("head",)].fixed == "it is an output of the model"
    assert groups[("inner",)].fixed is None


def test_a_concatenation_keeps_groups_apart_and_flatten_multiplies_positions():
    inputs = keras.Input((4, 4, 3))
    parts = [layers.Conv2D(n, 1, name=f"part_{n}")(inputs) for n in (2, 3)]
    model = keras.Model(inputs, layers.Dense(2, name="head")(layers.Flatten()(layers.Concatenate()(parts))))
    groups = made(model)
    (read,) = [m for m in groups[("part_3",)].members if m.role == "reads"]
    assert read.positions.shape == (3, 16)
    assert read.positions[0].tolist() == [5 * i + 2 for i in range(16)]  # 5 channels a pixel, the first of three is 2


def test_channels_that_are_read_more_often_are_a_group_of_their_own():
    inputs = keras.Input((3,))
    x = layers.Dense(6, name="body")(inputs)
    model = keras.Model(inputs, layers.Dense(2, name="head")(layers.Concatenate()([x, x[:, :2]])))
    sizes = {group.size: [m.positions.shape for m in group.members if m.role == "reads"]
             for group in dependencies(model) if group.fixed is None}  # fmt: skip
    assert sizes == {2: [(2, 2)], 4: [(4, 1)]}


def test_depthwise_and_normalization_follow():
    groups = made(ZOO["depthwise"]()[0])
    group = groups[("conv2d",)] if ("conv2d",) in groups else next(iter(groups.values()))
    assert any("depthwise" in name for name in group.layers("follows"))


def test_heads_are_one_group_and_their_width_is_not_pruned():
    groups = dependencies(ZOO["attention"]()[0])
    heads = [g for g in groups if len(g.layers("makes")) == 3 and g.size == 2]
    assert len(heads) == 1
    assert {m.width for m in heads[0].members if m.role == "makes" and m.weight == "kernel"} == {8}


def test_a_layer_normalization_is_named_as_what_rescales():
    groups = [g for g in dependencies(ZOO["attention"]()[0]) if g.rescaled]
    assert len(groups) == 1
    assert "normalizes over the channels that stay" in groups[0].rescaled


def test_an_unknown_layer_with_weights_fixes_what_it_reads():
    class Odd(layers.Layer):
        def build(self, shape):
            self.scale = self.add_weight(name="scale", shape=(shape[-1],))
            self.built = True

        def call(self, x):
            return x * self.scale

    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2)(Odd(name="odd")(layers.Dense(5, name="body")(inputs))))
    assert made(model)[("body",)].fixed == "odd (Odd) is of a kind that is not known"
    assert str(dependencies(model)).splitlines()[-1] == "left alone: odd, Odd is of a kind that is not known"


def test_a_model_that_stays_closed_says_why():
    class Closed(keras.Model):
        def __init__(self):
            super().__init__(name="closed")
            self.body, self.head = layers.Dense(4), layers.Dense(2)
            self.activity_regularizer = keras.regularizers.L2(0.1)

        def call(self, x):
            return self.head(self.body(x))

    model = Closed()
    model(np.ones((2, 4), "float32"))
    with pytest.raises(ValueError, match="closed, Closed stays closed: has an activity regularizer"):
        prune_channels(model, 0.5)


def test_it_prints_as_a_table_and_draws(tmp_path):
    found = dependencies(ZOO["residual"]()[0])
    assert "channels that live or die together" in str(found)
    assert "no: it is an output of the model" in str(found)
    pytest.importorskip("matplotlib")
    found.plot(tmp_path / "groups.png")
    assert (tmp_path / "groups.png").stat().st_size > 1000
