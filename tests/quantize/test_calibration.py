"""Ranges from samples against numpy on the float activations; every form of data; every error."""

import numpy as np
import pytest
import tensorflow as tf

import tfcompress
from tests.zoo import keras, layers
from tfcompress.quantize import Scheme
from tfcompress.quantize.quantizer import quantizers

RNG = np.random.default_rng(6)
X = RNG.normal(size=(50, 6, 6, 2)).astype("float32")


def small():
    inputs = keras.Input((6, 6, 2), name="image")
    x = layers.Conv2D(4, 3, name="conv")(inputs)
    x = layers.ReLU(name="relu")(x)
    x = layers.Dense(3, name="head")(layers.Flatten(name="flat")(x))
    return keras.Model(inputs, x, name="small")


def two():
    a, b = keras.Input((3,), name="a"), keras.Input((4,), name="b")
    return keras.Model([a, b], layers.Add(name="sum")([layers.Dense(2)(a), layers.Dense(2)(b)]))


A, B = RNG.normal(size=(9, 3)).astype("float32"), 5 * RNG.normal(size=(9, 4)).astype("float32")
ONLY_ACTIVATIONS = Scheme("activations", weights=None)


def observed(model):
    return {q.name: tuple(np.asarray(q.observed)[:2]) for q in quantizers(model)}


def test_minmax_is_numpys_on_the_float_activations():
    model = small()
    found = observed(tfcompress.calibrate(tfcompress.quantize_model(model, ONLY_ACTIVATIONS), X, batch_size=16))
    assert set(found) == {"image_range", "relu", "head_range"}
    values = {"image_range": X, "head_range": model(X).numpy(),
              "relu": keras.Model(model.inputs, model.get_layer("relu").output)(X).numpy()}  # fmt: skip
    for name, value in values.items():
        np.testing.assert_allclose(found[name], (min(value.min(), 0), max(value.max(), 0)), rtol=1e-5, atol=1e-6)


def test_kernels_are_on_their_grid_while_the_samples_run():
    model = small()
    quantized = tfcompress.quantize_model(model, "w4a8")
    kernel = model.get_layer("head").get_weights()[0]
    found = observed(tfcompress.calibrate(quantized, X))
    final = observed(tfcompress.calibrate(tfcompress.quantize_model(rounded(model), ONLY_ACTIVATIONS), X))
    for name in found:
        np.testing.assert_allclose(found[name], final[name], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(model.get_layer("head").get_weights()[0], kernel)


def rounded(model):
    """A float model whose kernels lie on the 4-bit grid: round(w / s) * s, s = max|w| / 7 of a channel or a matrix."""
    for layer in (model.get_layer("conv"), model.get_layer("head")):
        kernel, bias = layer.get_weights()
        scale = np.abs(kernel).max(tuple(range(kernel.ndim - 1)) if kernel.ndim > 2 else None) / 7
        before = kernel.copy()
        layer.set_weights([np.round(kernel / scale) * scale, bias])
        layer.before = before
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    for layer in (model.get_layer("conv"), model.get_layer("head")):
        layer.set_weights([layer.before, layer.get_weights()[1]])
    return copy


def test_the_model_given_is_not_changed_and_the_new_one_rounds():
    quantized = tfcompress.quantize_model(small())
    before = [w.copy() for w in quantized.get_weights()]
    found = tfcompress.calibrate(quantized, X)
    assert all(np.array_equal(a, b) for a, b in zip(before, quantized.get_weights(), strict=True))
    low, high = next(q for q in quantizers(found) if q.name == "head_range").limits()
    codes = found(X).numpy() / ((high - low) / 255)
    np.testing.assert_allclose(codes, np.round(codes), atol=1e-3)
    assert 0 < np.abs(found(X) - quantized(X)).max() < 0.5
    assert found.notes == quantized.notes


def squared_error(values, low, high):
    scale = (high - low) / 255
    zero = np.round(-low / scale)
    return float(np.mean(((np.clip(np.round(values / scale) + zero, 0, 255) - zero) * scale - values) ** 2))


def outlying():
    """A quantized identity and 4 000 normal values with one far outlier."""
    inputs = keras.Input((2,), name="x")
    model = keras.Model(inputs, layers.Dense(2, name="head")(inputs))
    values = RNG.normal(size=(2000, 2)).astype("float32")
    values[7, 1] = 60.0
    return tfcompress.quantize_model(model, ONLY_ACTIVATIONS), values


@pytest.mark.parametrize("method", ["percentile", "entropy"])
def test_an_outlier_is_clipped(method):
    quantized, values = outlying()
    low, high = observed(tfcompress.calibrate(quantized, values, method, percentile=99.9))["x_range"]
    assert -5.0 < low < -1.5 and 1.5 < high < 20.0
    assert observed(tfcompress.calibrate(quantized, values))["x_range"][1] == 60.0


def test_percentile_is_numpys_and_mse_is_better_than_minmax():
    quantized, values = outlying()
    width = float(2 * (60.0 - values.min()) / 2048)
    low, high = observed(tfcompress.calibrate(quantized, values, "percentile", percentile=99.0))["x_range"]
    assert (low, high) == (pytest.approx(np.percentile(values, 1), abs=width),
                           pytest.approx(np.percentile(values, 99), abs=width))  # fmt: skip
    low, high = observed(tfcompress.calibrate(quantized, values, "mse"))["x_range"]
    assert squared_error(values, low, high) < squared_error(values, values.min(), 60.0)


def test_a_shared_layer_covers_all_its_calls():
    again = layers.Dense(2, use_bias=False, activation="relu", name="again")
    inputs = keras.Input((2,), name="x")
    model = keras.Model(inputs, again(again(inputs)))
    again.set_weights([10 * np.eye(2, dtype="float32")])
    found = observed(tfcompress.calibrate(tfcompress.quantize_model(model, ONLY_ACTIVATIONS), np.ones((3, 2))))
    assert sorted(high for _, high in found.values()) == [1.0, 10.0, 100.0]


def test_a_quantized_model_that_is_called_twice_covers_both_calls():
    quantized = tfcompress.quantize_model(small(), ONLY_ACTIVATIONS)
    inputs = [keras.Input((6, 6, 2), name=name) for name in ("near", "far")]
    outer = keras.Model(inputs, layers.Add()([quantized(t) for t in inputs]))
    found = observed(tfcompress.calibrate(outer, {"near": X, "far": 3 * X[::-1]}))
    (ends,) = [ends for name, ends in found.items() if name.endswith("image_range")]
    np.testing.assert_allclose(ends, (3 * X.min(), 3 * X.max()), rtol=1e-6)
    swapped = observed(tfcompress.calibrate(outer, {"far": X, "near": 3 * X[::-1]}))
    assert set(swapped) == set(found)
    for name, ends in found.items():
        np.testing.assert_allclose(swapped[name], ends, rtol=1e-5)


def test_a_learned_step_starts_from_the_measured_range():
    quantized = tfcompress.quantize_model(small(), ranges="lsq")
    found = tfcompress.calibrate(quantized, X)
    relu = next(q for q in quantizers(found) if q.name == "relu")
    assert relu.limits() == (0.0, pytest.approx(float(np.asarray(relu.observed)[1]), rel=1e-5))


FORMS = {
    "array": lambda: X,
    "list": lambda: [X],
    "dict": lambda: {"image": X},
    "labelled dataset": lambda: tf.data.Dataset.from_tensor_slices((X, np.zeros(50))).batch(20),
    "dataset": lambda: tf.data.Dataset.from_tensor_slices(X).batch(20),
    "generator function": lambda: lambda: iter([X[:30], X[30:]]),
    "batches": lambda: [X[:30], X[30:40], X[40:]],
}


def test_every_form_of_data_gives_the_same_ranges():
    quantized = tfcompress.quantize_model(small())
    expected = observed(tfcompress.calibrate(quantized, X))
    for name, make in FORMS.items():
        found = observed(tfcompress.calibrate(quantized, make()))
        for tensor, ends in expected.items():
            np.testing.assert_allclose(found[tensor], ends, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("data", [[A, B], {"a": A, "b": B}, {"b": B, "a": A}])
def test_inputs_are_told_apart_by_order_or_by_name(data):
    found = observed(tfcompress.calibrate(tfcompress.quantize_model(two()), data))
    assert found["a_range"] == (A.min(), A.max())
    assert found["b_range"] == (B.min(), B.max())


def test_a_range_that_the_runtime_prescribes_stays():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.Dense(3, activation="softmax", name="head")(inputs))
    found = tfcompress.calibrate(tfcompress.quantize_model(model), A)
    assert [q.limits() for q in quantizers(found) if q.fixed] == [(0.0, 255 / 256)]


def broken(value):
    data = X.copy()
    data[3, 2, 1, 0] = value
    return data


REFUSED = {
    "empty": (X[:0], "`data` is empty"),
    "empty generator": (lambda: iter([]), "`data` is empty"),
    "shape": (X[:, :5], r"input 'image' must have the shape \(N, 6, 6, 2\). Received: \(50, 5, 6, 2\)"),
    "nan": (broken(np.nan), "input 'image' must be finite. Received: NaN or infinity in row 3"),
    "infinity": (broken(-np.inf), "input 'image' must be finite. Received: NaN or infinity in row 3"),
    "too many inputs": ((lambda: iter([[X, X]])), r"a batch must hold arrays for 'image' .*Received: list of"),
    "wrong name": ({"picture": X}, r"\['image'\] by name. Received: \['picture'\]"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_samples_are_refused_and_nothing_is_half_done(case):
    data, words = REFUSED[case]
    quantized = tfcompress.quantize_model(small())
    with pytest.raises(ValueError, match=words):
        tfcompress.calibrate(quantized, data)
    assert not any(q.learned for q in quantizers(quantized))


def test_bad_arguments_are_refused():
    quantized = tfcompress.quantize_model(small())
    with pytest.raises(ValueError, match=r"must come from quantize_model. Received: 'small' without quantizers"):
        tfcompress.calibrate(small(), X)
    with pytest.raises(TypeError, match=r"`model` must be a keras\.Model"):
        tfcompress.calibrate("model", X)
    with pytest.raises(ValueError, match=r"`method` must be one of .*Received: method='max'"):
        tfcompress.calibrate(quantized, X, "max")
    with pytest.raises(ValueError, match="`percentile` must lie in"):
        tfcompress.calibrate(quantized, X, "percentile", percentile=10.0)
    with pytest.raises(ValueError, match="`batch_size` must be a positive whole number"):
        tfcompress.calibrate(quantized, X, batch_size=0)


def test_a_row_that_a_mask_hides_whole_is_named():
    tokens = keras.Input((4,), dtype="int32")
    embedded = keras.layers.Embedding(9, 3, mask_zero=True)(tokens)
    model = keras.Model(tokens, keras.layers.GlobalAveragePooling1D()(embedded))
    data = np.int32([[1, 2, 0, 0]] * 9)
    data[5] = 0
    with pytest.raises(ValueError, match=r"Row 5 of `data` .* at \['global.*_range'\]: .* a mask hides whole"):
        tfcompress.calibrate(tfcompress.quantize_model(model), data, batch_size=4)


def test_a_model_that_overflows_on_finite_samples_is_refused():
    model = small()
    model.get_layer("head").set_weights([np.full((64, 3), 3e38, "float32"), np.zeros(3, "float32")])
    with pytest.raises(ValueError, match=r"not finite at \['head_range'\]: the model overflows on it"):
        tfcompress.calibrate(tfcompress.quantize_model(model, ONLY_ACTIVATIONS), 100 * np.abs(X))
