"""Plain models again: merged, trained on, pruned before, quantized and exported after."""

import numpy as np
import pytest

import tfcompress as tfc
import tflite_export
from tests.lora.small import LossOfTwo, X, fit, network, stir, values
from tests.zoo import answers, keras, layers
from tfcompress.core.projected import Mask, Projection, attach, mask_of, project
from tfcompress.core.transformed import transformed_layers


@pytest.mark.parametrize("base", [None, "int4"])
def test_merged_equals_adapted_and_is_plain(base, tmp_path):
    adapted = fit(tfc.add_lora(network(), 2, base=base, train="head"))
    before = values(adapted.weights)
    merged = tfc.merge_lora(adapted)
    np.testing.assert_allclose(merged(X), adapted(X), atol=1e-5)
    assert type(merged) is keras.Model or type(merged).__name__ == "Functional"
    assert [type(layer).__name__ for layer in merged.layers[1:]] == ["Dense", "BatchNormalization", "Dense", "Dense"]
    assert {w.dtype for w in values(merged.weights)} == {np.dtype("float32")}
    assert [tuple(w.shape) for w in merged.weights] == [tuple(w.shape) for w in network().weights]
    fit(merged)
    assert all(np.array_equal(a, b) for a, b in zip(before, values(adapted.weights), strict=True))
    merged.save(tmp_path / "plain.keras")
    assert "tfcompress" not in merged.to_json()


def test_what_the_user_froze_stays_frozen_after_merging():
    model = network()
    model.get_layer("second").trainable = False
    adapted = tfc.add_lora(tfc.add_lora(model, 2, name="one"), 2, name="two", base=None)
    merged = tfc.merge_lora(adapted)
    assert {layer.name: layer.trainable for layer in merged.layers[1:]} == {
        "first": True, "norm": True, "second": False, "head": True}  # fmt: skip
    assert "frozen before" in adapted.notes["second"]


def partly_frozen(kind):
    """A model one part of which is frozen inside a layer, and the shapes of what can be trained."""
    if kind == "closed":
        inputs, layer = keras.Input((16,)), LossOfTwo(name="d")
        model = keras.Model(inputs, layer(inputs))
        layer.one.trainable = False
        return model, [(16, 16), (16,)]
    inputs, layer = keras.Input((5, 8)), layers.Bidirectional(layers.LSTM(4), name="d")
    model = keras.Model(inputs, layer(inputs))
    layer.forward_layer.trainable = False
    return model, [(8, 16), (4, 16), (16,)]


@pytest.mark.parametrize("base", [None, "int4"])
@pytest.mark.parametrize("kind", ["closed", "bidirectional"])
def test_parts_that_the_user_froze_stay_frozen(kind, base, tmp_path):
    model, shapes = partly_frozen(kind)
    kept = {id(w) for w in model.trainable_weights}
    order = [id(w) in kept for w in model.weights]
    assert [tuple(w.shape) for w in model.trainable_weights] == shapes
    adapted = stir(tfc.add_lora(model, 1, base=base))
    adapted.save(tmp_path / "a.keras")
    x = np.random.default_rng(0).normal(size=(4, *model.input_shape[1:])).astype("float32")
    for made in (adapted, keras.models.load_model(tmp_path / "a.keras"), tfc.add_lora(adapted, 1, name="other")):
        merged = tfc.merge_lora(made)
        assert [tuple(w.shape) for w in merged.trainable_weights] == shapes
        trained = {id(w) for w in merged.trainable_weights}
        assert [id(w) in trained for w in merged.weights] == order
        np.testing.assert_allclose(merged(x), made(x), atol=1e-5)


def test_regularizers_and_constraints_are_there_again():
    inputs = keras.Input((16,))
    layer = layers.Dense(16, name="d", kernel_regularizer=keras.regularizers.L2(0.5), kernel_constraint="non_neg")
    model = keras.Model(inputs, layer(inputs))
    merged = tfc.merge_lora(stir(tfc.add_lora(model, 2, base="int4")))
    kernel = merged.get_layer("d").get_weights()[0]
    assert float(sum(merged.losses)) == pytest.approx(0.5 * float(np.sum(kernel**2)), rel=1e-5)
    fit(merged, y=np.zeros((32, 16), "float32"))
    assert merged.get_layer("d").get_weights()[0].min() >= 0


@pytest.mark.parametrize("base", [None, "nf4"])
def test_zeros_that_pruning_holds_are_held_through_adapters_and_after(base):
    model, kept = network(), {}
    for name in ("first", "second"):
        kernel = model.get_layer(name).kernel
        kept[name] = np.random.default_rng(0).uniform(size=tuple(kernel.shape)) > 0.7
        attach(kernel, Mask(kept[name]))
        project(kernel)
    adapted = fit(tfc.add_lora(model, 2, base=base, select="first"))
    assert not np.asarray(adapted.get_layer("first").kernel)[~kept["first"]].any()
    merged = fit(tfc.merge_lora(adapted))
    for name in kept:
        kernel = merged.get_layer(name).get_weights()[0]
        assert not kernel[~kept[name]].any() and np.mean(kernel == 0) < 0.8


@pytest.mark.parametrize("base", [None, "nf4"])
def test_zeros_that_pruning_holds_come_back_from_a_file(base, tmp_path):
    model, kept = network(), {}
    for name in ("first", "second"):
        kernel = model.get_layer(name).kernel
        kept[name] = np.random.default_rng(0).uniform(size=tuple(kernel.shape)) > 0.7
        attach(kernel, Mask(kept[name], [(0, 0.0), (9, 0.7)]))
        project(kernel)
    adapted = stir(tfc.add_lora(model, 2, base=base))
    adapted.save(tmp_path / "pruned.keras")
    loaded = keras.models.load_model(tmp_path / "pruned.keras")
    np.testing.assert_array_equal(loaded(X), adapted(X))
    assert not np.asarray(loaded.get_layer("first").kernel)[~kept["first"]].any()
    second = fit(tfc.add_lora(loaded, 3, name="second"))
    merged = fit(tfc.merge_lora(second))
    for name in kept:
        kernel = merged.get_layer(name).get_weights()[0]
        np.testing.assert_array_equal(kernel != 0, kept[name])
        assert mask_of(merged.get_layer(name).kernel).history == [(0, 0.0), (9, 0.7)]


def test_what_else_is_held_on_a_weight_is_refused():
    class Ceiling(Projection):
        def describe(self):
            return "at most 1"

        def copied(self, change=None):
            return self

    model = network()
    attach(model.get_layer("first").kernel, Ceiling())
    with pytest.raises(ValueError, match=r"'first' must hold nothing but zeros on 'kernel'.* \['at most 1'\]"):
        tfc.add_lora(model, 2)


def test_adapted_merged_trained_quantized_exported():
    inputs = keras.Input((8, 8, 4))
    x = layers.Conv2D(8, 3, use_bias=False, name="conv")(inputs)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    model = keras.Model(inputs, layers.Dense(3, name="head")(layers.Flatten()(x)))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 8, 8, 4)).astype("float32"), rng.normal(size=(64, 3)).astype("float32")
    merged = tfc.merge_lora(fit(tfc.add_lora(model, 2, base="int4", train="head"), x=x, y=y))
    quantized = fit(tfc.quantize_model(merged), x=x, y=y)
    exported = tflite_export.export(quantized, "int8", calibration=x)
    found, expected = tflite_export.Runner(exported)(x), answers(quantized, x)
    assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max()


def test_adapters_can_learn_on_the_integer_grid():
    adapted = tfc.add_lora(network(), 2, base="int8")
    quantized = fit(tfc.quantize_model(stir(adapted)), eager=False)
    codes = {weight.layer: weight.codes for layer in transformed_layers(quantized) for weight in layer.integers()}
    assert set(codes) == {"first", "second", "head"}
    assert all(np.abs(code).max() == 127 for code in codes.values())
    trained = [tuple(w.shape) for w in quantized.trainable_weights]
    assert (16, 2) in trained and (16, 24) not in trained
    with pytest.raises(ValueError, match=r"`model` must not be quantized: `tfcompress.finalize` applies"):
        tfc.merge_lora(quantized)
    finished = tfc.finalize(quantized)
    np.testing.assert_allclose(answers(finished, X), answers(quantized, X), atol=1e-5)


def test_a_model_without_an_adapter_in_force_is_refused():
    with pytest.raises(ValueError, match=r"`model` must have adapters: `tfcompress.add_lora` adds them"):
        tfc.merge_lora(network())
    adapted = tfc.add_lora(network(), 2)
    tfc.lora.activate(adapted, None)
    with pytest.raises(ValueError, match=r"must have an adapter in force.*one of \['default'\]"):
        tfc.merge_lora(adapted)
