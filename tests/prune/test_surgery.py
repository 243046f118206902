"""The smaller model equals the original with the same channels at zero where they are read."""

import numpy as np
import pytest
import tensorflow as tf

from tests.core import composites
from tests.prune.oracle import error
from tests.zoo import ZOO, concatenate, conv_bn, enliven, reshape, transpose
from tfcompress import prune_channels
from tfcompress.core.projected import Mask, attach, mask_of, projections

keras = tf.keras
layers = keras.layers
_ops = getattr(keras, "ops", None)
NAMES = ["residual", "inverted_residual", "lstm", "bidirectional_gru", "attention", "text", "unet", "nested", "shared",
         "separable", "conv3d", "operations", "subclassed", "composite_encoder", "masked_text"]  # fmt: skip


def ready(inputs, outputs):
    model = keras.Model(inputs, outputs)
    enliven(model)
    return model


def batch(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=(8, *shape)).astype("float32")


def check(model, x, amount=0.5, **options):
    before = [np.array(w) for w in model.weights]
    small = prune_channels(model, amount, **{"round_to": 1, **options})
    assert small.count_params() < model.count_params()
    assert error(model, small, x) < 1e-4
    assert all(np.array_equal(a, b) for a, b in zip(before, model.weights, strict=True))
    return small


@pytest.mark.parametrize("name", NAMES)
def test_everyday_topologies(name):
    model, x = ZOO[name]()
    check(model, x)


@pytest.mark.parametrize("name", ["encoder", "shared_block", "cross_attention", "causal", "masked_lstm", "classifier"])
def test_composites(name):
    model, x = composites.make(name)
    check(model, x)


def test_attention_written_by_hand_loses_the_same_places_of_all_its_heads():
    matmul = tf.matmul if _ops is None else _ops.matmul
    inputs = keras.Input((5, 6))

    def split(x):
        return transpose(reshape(x, (-1, 5, 2, 8)), (0, 2, 1, 3))

    q, k, v = (split(layers.Dense(16, name=name)(inputs)) for name in "qkv")
    scores = layers.Softmax()(matmul(q, transpose(k, (0, 1, 3, 2))) * 0.35)
    x = reshape(transpose(matmul(scores, v), (0, 2, 1, 3)), (-1, 5, 16))
    model = ready(inputs, layers.Dense(3, name="out")(x))
    small = check(model, batch(5, 6), select=["q", "k"])
    assert [small.get_layer(name).units for name in "qkv"] == [8, 8, 16]
    small = check(model, batch(5, 6))
    assert [small.get_layer(name).units for name in "qkv"] == [8, 8, 8]


def test_a_layer_without_weights_is_shared_by_what_shrinks_and_what_does_not():
    inputs = keras.Input((4,))
    dropout = layers.Dropout(0.5)
    x = dropout(layers.Dense(8)(dropout(inputs)))
    model = ready(inputs, layers.Dense(2)(x))
    small = check(model, batch(4))
    assert sum(isinstance(layer, layers.Dropout) for layer in small.layers) == 1


def test_a_grouped_convolution_keeps_groups_equal():
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(16, 1, name="before")(inputs)
    x = layers.Conv2D(24, 3, groups=2, name="grouped")(x)
    model = ready(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    kernel = model.get_layer("grouped").kernel
    kernel.assign(kernel * np.repeat([3.0, 1.0], 12))  # by themselves the first group's filters would all stay
    small = check(model, batch(6, 6, 3))
    grouped = small.get_layer("grouped")
    assert (grouped.groups, grouped.filters, tuple(grouped.kernel.shape)) == (2, 12, (3, 3, 4, 12))


def test_many_narrow_groups_go_whole():
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(12, 1)(inputs)
    x = layers.Conv2D(12, 3, groups=6, name="grouped")(x)
    model = ready(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    small = check(model, batch(6, 6, 3))
    grouped = small.get_layer("grouped")
    assert (grouped.groups, grouped.filters, tuple(grouped.kernel.shape)) == (3, 6, (3, 3, 2, 6))


def test_a_depthwise_multiplier_repeats_its_inputs():
    inputs = keras.Input((6, 6, 3))
    x = layers.DepthwiseConv2D(3, depth_multiplier=2)(layers.Conv2D(8, 1)(inputs))
    model = ready(inputs, layers.Dense(2, name="head")(layers.GlobalAveragePooling2D()(x)))
    assert tuple(check(model, batch(6, 6, 3)).get_layer("head").kernel.shape) == (8, 2)


def test_a_group_normalization_loses_whole_groups():
    inputs = keras.Input((6, 6, 3))
    x = layers.GroupNormalization(4, name="norm")(layers.Conv2D(16, 1)(inputs))
    model = ready(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(layers.ReLU()(x))))
    small = check(model, batch(6, 6, 3))
    assert (small.get_layer("norm").groups, tuple(small.get_layer("norm").gamma.shape)) == (2, (8,))


def test_split_and_shuffle():
    inputs = keras.Input((6, 6, 3))
    x = conv_bn(inputs, 12)
    left, right = x[..., :6], conv_bn(x[..., 6:], 6)
    x = reshape(concatenate([left, right], -1), (-1, 6, 6, 2, 6))
    x = reshape(transpose(x, (0, 1, 2, 4, 3)), (-1, 6, 6, 12))
    model = ready(inputs, layers.Dense(2)(layers.Flatten()(layers.Conv2D(4, 3)(x))))
    check(model, batch(6, 6, 3))


def test_channels_first_axes_and_squeeze_and_excitation():
    inputs = keras.Input((6, 6, 3))
    x = conv_bn(inputs, 10)
    s = layers.Dense(4, activation="relu")(layers.GlobalAveragePooling2D()(x))
    x = layers.Multiply()([x, layers.Reshape((1, 1, 10))(layers.Dense(10, activation="sigmoid")(s))])
    x = layers.Permute((3, 1, 2))(x)
    model = ready(inputs, layers.Dense(2)(layers.Permute((2, 3, 1))(x)))
    check(model, batch(6, 6, 3))


def test_a_constant_of_channels_is_sliced_with_them():
    inputs = keras.Input((6, 6, 3))
    x = layers.ReLU()(layers.Conv2D(8, 3)(inputs)) * np.linspace(1, 2, 8, dtype="float32")
    model = ready(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    check(model, batch(6, 6, 3))


def test_states_of_recurrent_layers_go_together():
    inputs = keras.Input((5, 4))
    y, h, c = layers.LSTM(8, return_sequences=True, return_state=True)(inputs)
    z = layers.LSTM(8)(y, initial_state=[h, c])
    model = ready(inputs, layers.Dense(2)(z))
    check(model, batch(5, 4))


@pytest.mark.skipif(not hasattr(layers, "GroupQueryAttention") and not hasattr(layers, "GroupedQueryAttention"),
                    reason="this flavor has no grouped queries")  # fmt: skip
def test_grouped_queries_lose_whole_groups_of_heads():
    kind = getattr(layers, "GroupQueryAttention", None) or layers.GroupedQueryAttention
    inputs = keras.Input((5, 12))
    x = kind(head_dim=4, num_query_heads=8, num_key_value_heads=4, name="attention")(inputs, inputs)
    model = ready(inputs, layers.Dense(2)(x))
    small = check(model, batch(5, 12))
    shapes = {w.path.split("/")[-2].split(".")[-1]: tuple(w.shape) for w in small.weights if "kernel" in w.path}
    assert shapes["query"] == (12, 4, 4)
    assert shapes["key"] == (12, 2, 4)


def test_where_selected_a_layer_normalization_normalizes_over_what_stays():
    inputs = keras.Input((6,))
    x = layers.Dense(8, name="body")(inputs)
    x = layers.LayerNormalization(name="norm")(x)
    model = ready(inputs, layers.Dense(2, name="head")(x))
    with pytest.raises(ValueError, match="only when selected"):
        prune_channels(model, 0.5, round_to=1)
    small = prune_channels(model, 0.5, round_to=1, select="body")
    kernel, bias = (np.asarray(w, "float64") for w in model.get_layer("body").weights)
    left = np.sort(np.argsort(np.abs(kernel).sum(0))[4:])  # the four largest filters by L1
    x = batch(6)
    y = x @ kernel[:, left] + bias[left]
    y = (y - y.mean(1, keepdims=True)) / np.sqrt(y.var(1, keepdims=True) + 1e-3)
    norm, head = model.get_layer("norm"), model.get_layer("head")
    y = y * np.asarray(norm.gamma)[left] + np.asarray(norm.beta)[left]
    expected = y @ np.asarray(head.kernel)[left] + np.asarray(head.bias)
    np.testing.assert_allclose(small(x), expected, rtol=1e-4, atol=1e-5)


def test_it_is_saved_and_loaded(tmp_path):
    model, x = ZOO["inverted_residual"]()
    small = prune_channels(model, 0.5, round_to=1)
    small.save(tmp_path / "small.keras")
    loaded = keras.models.load_model(tmp_path / "small.keras")
    np.testing.assert_allclose(loaded(x), small(x), rtol=1e-5, atol=1e-6)
    assert loaded.notes == small.notes


def test_masks_travel_sliced_like_their_weights():
    model, x = ZOO["residual"]()
    layer = model.layers[1]
    kept = np.random.default_rng(0).uniform(size=layer.kernel.shape) > 0.5
    layer.kernel.assign(layer.kernel * kept)
    attach(layer.kernel, Mask(kept))
    small = check(model, x)
    new = small.layers[1].kernel
    assert new.shape[-1] == 4
    assert len(projections(new)) == 1
    assert np.array_equal(mask_of(new).kept, np.asarray(new) != 0)


def test_half_precision_models_are_understood():
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        inputs = keras.Input((8, 8, 3))
        x = layers.Concatenate()([layers.Conv2D(8, 3)(inputs), layers.Conv2D(6, 3)(inputs)])
        model = ready(inputs, layers.Dense(2, dtype="float32")(layers.Flatten()(layers.ReLU()(x))))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    small = prune_channels(model, 0.5, round_to=1)
    assert [layer.filters for layer in small.layers if isinstance(layer, layers.Conv2D)] == [4, 3]
