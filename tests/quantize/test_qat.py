"""Quantization-aware training of whole models: what is changed, what is not, and that nothing is lost on the way."""

import importlib
import os

import numpy as np
import pytest

import tfcompress
from tests.core.composites import make
from tests.zoo import ZOO, enliven, keras, layers, targets
from tfcompress.core.flavor import NAME
from tfcompress.core.grid import Grid
from tfcompress.core.transformed import Transformed, integer_weights, transformed_layers
from tfcompress.quantize import ActivationGrid, LearnedStep, MovingAverage, Percentile, Scheme
from tfcompress.quantize.quantizer import Quantizer, quantizers

RNG = np.random.default_rng(4)
QUICK = ["residual", "text", "attention", "separable", "shared", "subclassed"]


def small(name="small"):
    """Conv - BatchNormalization - ReLU - Dense with lively weights, and a batch."""
    inputs = keras.Input((6, 6, 2), name="image")
    x = layers.Conv2D(4, 3, use_bias=False, name="conv")(inputs)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(x))
    x = layers.Dense(3, name="head")(layers.Flatten(name="flat")(x))
    model = keras.Model(inputs, x, name=name)
    enliven(model)
    return model, RNG.normal(size=(8, 6, 6, 2)).astype("float32")


def learn(model, x, steps=1, eager=True):
    """The same steps for every call: no shuffling. Eager ones need no tracing, which is most of the time here."""
    if getattr(model, "optimizer", None) is None:
        model.compile(keras.optimizers.Adam(0.05), "mse", run_eagerly=eager)
    y = np.random.default_rng(8).normal(size=(8, *model.output_shape[1:])).astype("float32")
    model.fit(x, y, batch_size=8, epochs=steps, shuffle=False, verbose=0)
    return model


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("entry", QUICK)
def test_every_kernel_trains_on_its_grid_and_the_model_given_stays_as_it_was(entry):
    model, x = ZOO[entry]()
    before, names, out = model.get_weights(), [w.name for w in model.layers], model(x)
    quantized = tfcompress.quantize_model(model)
    first = {id(w): np.array(w) for w in quantized.trainable_weights}
    assert len(first) >= len(model.trainable_weights)
    quantized.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
    quantized.train_on_batch(x, RNG.normal(size=out.shape))
    after = quantized.trainable_weights
    still = [getattr(w, "path", w.name) for w in after if np.array_equal(first[id(w)], np.array(w))]
    # An attention's key bias shifts all scores of a query alike, which softmax does not see.
    assert [path for path in still if not ("key" in path and "bias" in path)] == []
    for layer in transformed_layers(quantized):
        for weight in layer.integers():
            value = np.asarray(layer.value(weight.weight))
            scale = np.broadcast_to(weight.scale, value.shape)
            for one in np.unique(scale):
                assert np.unique(value[scale == one]).size <= 255  # 2**8 - 1, zero among them
    assert same(before, model.get_weights())
    assert names == [w.name for w in model.layers]
    np.testing.assert_array_equal(out, model(x))


def test_before_training_it_computes_the_model_with_rounded_kernels():
    model, x = small()
    quantized = tfcompress.quantize_model(model)
    rounded = keras.models.clone_model(model)
    rounded.set_weights(model.get_weights())
    for name in ("conv", "head"):
        kernel = model.get_layer(name).get_weights()[0]
        scale = np.abs(kernel).max(tuple(range(kernel.ndim - 1))) / 127
        bias = model.get_layer(name).get_weights()[1:]
        rounded.get_layer(name).set_weights([np.round(kernel / scale) * scale, *bias])
    np.testing.assert_allclose(quantized(x), rounded(x), atol=1e-5)


def test_after_a_batch_the_activations_lie_on_their_grids():
    model, x = small()
    quantized = tfcompress.quantize_model(model, ranges=MovingAverage(0.0, None))
    quantized(x, training=True)
    found = {q.name: q for q in quantizers(quantized)}
    assert list(found) == ["image_range", "relu", "head_range"]
    np.testing.assert_allclose(np.asarray(found["image_range"].observed), [x.min(), x.max(), 1.0], rtol=1e-6)
    low, high = found["head_range"].limits()
    codes = np.asarray(quantized(x)) / ((high - low) / 255)
    np.testing.assert_allclose(codes, np.round(codes), atol=1e-3)


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        (layers.Dense, {"head"}),
        ("conv", {"conv"}),
        ("h*", {"head"}),
        (lambda layer: hasattr(layer, "kernel") and len(layer.kernel.shape) == 4, {"conv"}),
        (["conv", layers.Dense], {"conv", "head"}),
        (None, {"conv", "head"}),
    ],
)
def test_what_is_selected_is_quantized(select, expected):
    quantized = tfcompress.quantize_model(small()[0], select=select)
    assert {w.layer for w in integer_weights(quantized)} == expected
    left = {"conv", "head"} - expected
    assert {name for name in left if quantized.notes[name].startswith("not selected")} == left


def test_a_layer_of_the_model_itself_can_be_selected():
    model, _ = small()
    quantized = tfcompress.quantize_model(model, select=model.get_layer("head"))
    assert [w.layer for w in integer_weights(quantized)] == ["head"]


@pytest.mark.parametrize("select", ["haed", layers.LSTM, lambda layer: False, ["conv", "missing"]])
def test_a_selection_that_matches_nothing_is_refused(select):
    with pytest.raises(ValueError, match=r"`select`.* selects no layer"):
        tfcompress.quantize_model(small()[0], select=select)
    with pytest.raises(ValueError, match=r"`override`.* selects no layer"):
        tfcompress.quantize_model(small()[0], Scheme.named("int8").override(select, activations=None))


@pytest.mark.parametrize(
    ("scheme", "bits", "scales", "activation_bits"),
    [
        ("int8", 8, {"conv": (1, 1, 1, 4), "head": (1, 3)}, 8),
        ("int8_per_tensor", 8, {"conv": (1, 1, 1, 1), "head": (1, 1)}, 8),
        ("int16x8", 8, {"conv": (1, 1, 1, 4), "head": (1, 3)}, 16),
        ("w4a8", 4, {"conv": (1, 1, 1, 4), "head": (1, 1)}, 8),
    ],
)
def test_the_named_schemes(scheme, bits, scales, activation_bits):
    quantized = tfcompress.quantize_model(small()[0], scheme)
    found = integer_weights(quantized)
    assert {w.bits for w in found} == {bits}
    assert {w.layer: w.scale.shape for w in found} == scales
    assert max(np.abs(w.codes).max() for w in found) == 2 ** (bits - 1) - 1
    assert {q.bits for q in quantizers(quantized)} == {activation_bits}
    assert any(layer.name == "norm" for layer in quantized.layers) == (scheme != "int8_per_tensor")


def test_an_override_changes_one_layer_only():
    scheme = Scheme.named("int8").override("head", weights=Grid(bits=4)).override("conv", weights=None)
    found = integer_weights(tfcompress.quantize_model(small()[0], scheme))
    assert [(w.layer, w.bits, np.abs(w.codes).max()) for w in found] == [("head", 4, 7)]


def test_an_override_leaves_one_activation_to_the_exporter():
    quantized = tfcompress.quantize_model(small()[0], Scheme.named("int8").override("relu", activations=None))
    assert [q.name for q in quantizers(quantized)] == ["image_range", "head_range"]
    assert quantized.notes["relu"] == "its range is measured when the file is made"
    wide = Scheme.named("int8").override("head", activations=ActivationGrid(16))
    assert [q.bits for q in quantizers(tfcompress.quantize_model(small()[0], wide))] == [8, 8, 16]


@pytest.mark.parametrize("ranges", ["ema", "percentile", "lsq"])
def test_how_ranges_are_found_reaches_every_quantizer(ranges):
    kinds = {"ema": MovingAverage, "percentile": Percentile, "lsq": LearnedStep}
    found = quantizers(tfcompress.quantize_model(small()[0], ranges=ranges))
    assert {type(q.ranges) for q in found} == {kinds[ranges]}
    own = kinds[ranges]()
    assert all(q.ranges == own for q in quantizers(tfcompress.quantize_model(small()[0], ranges=own)))


def test_learned_steps_of_weights_and_activations_train():
    model, x = small()
    quantized = tfcompress.quantize_model(model, Scheme("own", weights=Grid(bits=4, step="learned")), ranges="lsq")
    quantized(x, training=True)
    before = {id(w): np.array(w) for w in quantized.trainable_weights}
    learn(quantized, x)
    steps = [w for w in quantized.trainable_weights if w.name.split(":")[0].split("/")[-1].endswith("step")]
    assert len(steps) == 2 + 3  # of two kernels; of the input, the ReLU and the output
    assert all(not np.array_equal(before[id(w)], np.array(w)) for w in steps)


def test_names_stay_and_a_relu_is_computed_by_its_quantizer():
    quantized = tfcompress.quantize_model(small()[0])
    names = [layer.name for layer in quantized.layers]
    assert names == ["image", "image_range", "conv", "norm", "relu", "flat", "head", "head_range"]
    kinds = {layer.name: type(layer) for layer in quantized.layers}
    assert kinds["conv"] is kinds["head"] is Transformed and kinds["relu"] is Quantizer
    assert kinds["norm"] is layers.BatchNormalization


def test_a_shared_relu_is_computed_in_every_call_also_where_no_range_stands():
    inputs = keras.Input((4,), name="image")
    again = layers.Dense(4, activation="relu", name="again")
    joined = layers.Concatenate(name="joined")([again(again(inputs)), inputs])  # the second call shares its range
    model = keras.Model(inputs, layers.Dense(2, name="head")(joined))
    x = RNG.normal(size=(8, 4)).astype("float32")
    quantized = tfcompress.quantize_model(model, Scheme("activations", weights=None))
    np.testing.assert_allclose(quantized(x), model(x), atol=1e-6)  # nothing was seen yet, so nothing rounds


@keras.utils.register_keras_serializable("test_qat")
class Offset(layers.Layer):
    """dense(x) + offset: a composite that owns a weight itself."""

    def build(self, input_shape):
        self.dense = layers.Dense(4, name="dense")
        self.dense.build(input_shape)
        self.offset = self.add_weight(name="offset", shape=(1, 4), initializer="random_normal")
        self.built = True

    def call(self, x):
        return self.dense(x) + self.offset


def test_a_bare_weight_has_the_range_it_stands_at_and_no_grid_of_a_kernel():
    inputs = keras.Input((3,), name="image")
    layer = Offset(name="own")
    model = keras.Model(inputs, layer(inputs))
    quantized = tfcompress.quantize_model(model)
    assert [w.weight for w in integer_weights(quantized)] == ["kernel"]
    for value in ([[-1.0, 0.0, 0.5, 3.0]], [[0.25, 0.5, 1.0, 2.0]]):  # it follows at once, and zero belongs to it
        (bare,) = [w for w in quantized.weights if tuple(w.shape) == (1, 4)]
        bare.assign(value)
        quantized(np.ones((2, 3), "float32"), training=True)
        ends = [[min(min(value[0]), 0.0), max(value[0]), 1.0]]
        assert [np.asarray(q.observed).tolist() for q in quantizers(quantized) if "offset" in q.name] == ends


def test_a_range_whose_name_is_taken_gets_a_number():
    inputs = keras.Input((4,), name="image")
    model = keras.Model(inputs, layers.Dense(2, name="image_range")(inputs))
    names = [layer.name for layer in tfcompress.quantize_model(model).layers]
    assert names == ["image", "image_range_1", "image_range", "image_range_range"]


def test_quantizing_twice_is_refused():
    quantized = tfcompress.quantize_model(small()[0])
    for model in (quantized, tfcompress.finalize(quantized)):
        with pytest.raises(ValueError, match=r"`model` must not be quantized yet. Received: 'small', which holds"):
            tfcompress.quantize_model(model)


def other_keras():
    return importlib.import_module({"keras 3": "tf_keras", "tf_keras": "keras"}[NAME])


def test_a_model_of_the_other_flavor_is_refused_with_the_way_out():
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    other = other_keras()
    model = other.Sequential([other.layers.Dense(2)])
    with pytest.raises(TypeError, match="TF_USE_LEGACY_KERAS"):
        tfcompress.quantize_model(model)


def test_what_cannot_be_quantized_is_refused():
    with pytest.raises(ValueError, match=r"`model` must be built.*call it once on data"):
        tfcompress.quantize_model(keras.Sequential([layers.Dense(2)]))
    with pytest.raises(TypeError, match=r"must be a keras\.Model"):
        tfcompress.quantize_model("model.keras")
    with pytest.raises(ValueError, match=r"`scheme` must be one of.*'w4a8'.*Received: scheme='int4'"):
        tfcompress.quantize_model(small()[0], "int4")
    with pytest.raises(ValueError, match="`ranges` must be one of"):
        tfcompress.quantize_model(small()[0], ranges="max")
    tokens = keras.Input((3,), dtype="int32")
    with pytest.raises(ValueError, match="must hold something to quantize"):
        tfcompress.quantize_model(keras.Model(tokens, layers.Flatten()(tokens)))


@pytest.mark.parametrize("scheme", ["int8", "w4a8", "int8_per_tensor"])
def test_finalized_it_computes_the_same_to_the_bit_with_plain_layers(scheme):
    model, x = small()
    quantized = learn(tfcompress.quantize_model(model, scheme), x, 2)
    final = tfcompress.finalize(quantized)
    np.testing.assert_array_equal(final(x), quantized(x))
    assert transformed_layers(final) == []
    assert type(final.get_layer("conv")) is layers.Conv2D and type(final.get_layer("head")) is layers.Dense
    for weight in integer_weights(quantized):
        kernel = final.get_layer(weight.layer).get_weights()[0]
        np.testing.assert_array_equal(kernel, weight.codes.astype("float32") * weight.scale)
    learn(final, x)  # it is a model as any other, and shares nothing with the one it came from
    assert not np.array_equal(final(x), quantized(x))


def through_a_file(model, folder):
    model.save(folder / "model.keras")
    return keras.models.load_model(folder / "model.keras")


@pytest.mark.parametrize("ranges", ["ema", "lsq"])
def test_training_goes_on_from_a_file_where_it_stopped(ranges, tmp_path):
    model, x = small()
    scheme = Scheme("own", weights=Grid(bits=4, step="learned" if ranges == "lsq" else "max"))
    keras.utils.set_random_seed(1)
    eager = ranges == "lsq"
    whole = learn(tfcompress.quantize_model(model, scheme, ranges=ranges), x, 4, eager)
    half = learn(tfcompress.quantize_model(model, scheme, ranges=ranges), x, 2, eager)
    loaded = through_a_file(half, tmp_path)
    assert same(half.get_weights(), loaded.get_weights())
    np.testing.assert_array_equal(half(x), loaded(x))
    learn(loaded, x, 2)
    for a, b in zip(whole.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert int(loaded.optimizer.iterations) == 4


def test_a_finalized_model_goes_through_a_file(tmp_path):
    model, x = small()
    final = tfcompress.finalize(learn(tfcompress.quantize_model(model), x))
    loaded = through_a_file(final, tmp_path)
    assert same(final.get_weights(), loaded.get_weights())
    np.testing.assert_array_equal(final(x), loaded(x))


def test_notes_survive_finalizing_and_saving(tmp_path):
    quantized = tfcompress.quantize_model(small()[0], select="conv")
    assert quantized.notes["head"] == "not selected"
    assert quantized.notes["norm"].startswith("not selected")
    final = tfcompress.finalize(quantized)
    assert final.notes == quantized.notes
    assert through_a_file(final, tmp_path).notes == quantized.notes


@pytest.mark.parametrize("name", ["branching", "tied"])
def test_a_quantized_model_with_a_closed_composite_is_loaded_and_trains_on(name, tmp_path):
    model, x = make(name)  # its layers make their weights when they are first called
    quantized = tfcompress.quantize_model(model)
    quantized.compile("sgd", "mse", run_eagerly=True)
    quantized.train_on_batch(x, targets(model, x))
    quantized.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(x), quantized(x))
    assert [w.weight for w in integer_weights(again)] == [w.weight for w in integer_weights(quantized)]
    for one in (quantized, again):
        one.train_on_batch(x, targets(model, x))
    for mine, theirs in zip(quantized.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-6)
