"""The one wrapper: any layer computes with transformed weights, and nothing else changes."""

import numpy as np
import pytest
import tensorflow as tf

from tests.zoo import keras, layers
from tfcompress.core import flavor
from tfcompress.core.copy import copy_layer
from tfcompress.core.summary import summary
from tfcompress.core.trace import trace
from tfcompress.core.transformed import (
    Transform,
    Transformed,
    bake,
    finalize,
    integer_weights,
    named_weights,
    transformed_layers,
)


@keras.utils.register_keras_serializable("test_transformed")
class Scale(Transform):
    """w * factor."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, value):
        return value * self.factor

    def describe(self):
        return f"times {self.factor:g}"

    def get_config(self):
        return {"factor": self.factor}


@keras.utils.register_keras_serializable("test_transformed")
class Shift(Transform):
    """w + a trained number; whole numbers have integers."""

    def build(self, wrapper, name, variable):
        self.amount = wrapper.add_weight(name=f"{name}_shift", shape=(), initializer="ones")

    def __call__(self, value):
        return value + tf.convert_to_tensor(self.amount)

    def integers(self, value):
        return tf.round(self(value) * 2), tf.constant(0.5), 8


def dense(units=2, given=3):
    layer = layers.Dense(units, name="dense")
    layer.build((None, given))
    layer.kernel.assign(np.arange(given * units, dtype="float32").reshape(given, units))
    layer.bias.assign([10.0] * units)
    return layer


X = np.array([[1.0, 0.0, 2.0]], "float32")  # x @ [[0, 1], [2, 3], [4, 5]] = [8, 11]


def test_transforms_are_applied_in_order_and_the_weight_stays():
    layer = dense()
    wrapper = Transformed(layer, {"kernel": [Scale(2.0), Shift()]})
    np.testing.assert_array_equal(wrapper(X), [[29.0, 35.0]])  # 2 * [8, 11] + (1 + 0 + 2) * 1 + 10
    np.testing.assert_array_equal(wrapper.value("kernel"), [[1, 3], [5, 7], [9, 11]])
    np.testing.assert_array_equal(layer.get_weights()[0], [[0, 1], [2, 3], [4, 5]])
    other = Transformed(dense(), {"kernel": [Shift(), Scale(2.0)]})
    np.testing.assert_array_equal(other(X), [[32.0, 38.0]])  # 2 * ([8, 11] + 3) + 10


def test_every_weight_can_be_transformed_and_none_need_be():
    np.testing.assert_array_equal(Transformed(dense(), {"bias": [Scale(0.5)]})(X), [[13.0, 16.0]])
    np.testing.assert_array_equal(Transformed(dense(), {})(X), [[18.0, 21.0]])


def test_gradients_reach_the_weight_and_the_transforms_variable():
    wrapper = Transformed(dense(), {"kernel": [Shift(), Scale(3.0)]})
    assert len(wrapper.trainable_weights) == 3
    variables = [getattr(w, "value", w) if hasattr(w, "path") else w for w in wrapper.trainable_weights]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(wrapper(X))
    by_shape = {tuple(v.shape): g.numpy() for v, g in zip(variables, tape.gradient(loss, variables), strict=True)}
    np.testing.assert_array_equal(by_shape[3, 2], 3 * X.T @ np.ones((1, 2)))
    assert by_shape[()] == 18.0  # 3 * (1 + 0 + 2) for each of two units


LAYERS = {
    "conv": (lambda: layers.Conv2D(3, 2, activation="relu"), (4, 4, 2), "kernel"),
    "lstm": (lambda: layers.LSTM(3), (4, 2), "recurrent_kernel"),
    "bidirectional": (lambda: layers.Bidirectional(layers.GRU(3)), (4, 2), "kernel_1"),
    "distributed": (lambda: layers.TimeDistributed(layers.Dense(3)), (4, 2), "kernel"),
    "normalization": (layers.BatchNormalization, (4,), "gamma"),
    "embedding": (lambda: layers.Embedding(5, 3), (4,), "embeddings"),
}


@pytest.mark.parametrize("case", LAYERS)
def test_it_computes_what_the_layer_computes_with_the_other_weight(case):
    make, shape, name = LAYERS[case]
    x = np.random.default_rng(0).uniform(0, 4, (3, *shape)).astype("int32" if case == "embedding" else "float32")
    layer, reference = make(), make()
    layer(x), reference(x)
    values = layer.get_weights()
    reference.set_weights([v * 2 if k == name else v for k, v in zip(named_weights(layer), values, strict=True)])
    wrapper = Transformed(layer, {name: [Scale(2.0)]})
    np.testing.assert_allclose(wrapper(x), reference(x), atol=1e-6)
    np.testing.assert_allclose(wrapper.baked()(x), reference(x), atol=1e-6)
    assert np.abs(np.asarray(layer(x)) - reference(x)).max() > 1e-3


def test_moving_statistics_of_the_wrapped_layer_move():
    layer = layers.BatchNormalization(momentum=0.5)
    layer.build((None, 1))
    wrapper = Transformed(layer, {"gamma": [Scale(2.0)]})
    out = wrapper(np.array([[0.0], [2.0]], "float32"), training=True)
    np.testing.assert_allclose(out, [[-2.0], [2.0]], atol=2e-3)  # (x - 1) / 1 * gamma 2
    assert float(np.asarray(layer.moving_mean)[0]) == 0.5  # .5 * 0 + .5 * 1


def test_a_regularizer_of_the_wrapped_layer_is_a_loss_of_the_wrapper():
    layer = layers.Dense(1, use_bias=False, kernel_regularizer=keras.regularizers.L2(0.5))
    layer.build((None, 2))
    layer.kernel.assign([[1.0], [3.0]])
    wrapper = Transformed(layer, {"kernel": [Scale(1.0)]})
    wrapper(np.zeros((1, 2), "float32"))
    assert [float(loss) for loss in wrapper.losses] == [5.0]  # .5 * (1 + 9)


def test_a_mask_is_handed_on():
    layer = layers.Embedding(5, 2, mask_zero=True)
    layer.build((None, 3))
    wrapper = Transformed(layer, {"embeddings": [Scale(2.0)]})
    np.testing.assert_array_equal(wrapper.compute_mask(np.array([[1, 0, 2]])), [[True, False, True]])


def test_the_length_of_a_sequence_is_known_behind_a_wrapped_einsum_dense():
    i = keras.Input((5, 4))
    inner = layers.EinsumDense("abc,cd->abd", (None, 3), name="inner")
    inner(i)
    outputs = Transformed(inner, {"kernel": [Scale(2.0)]})(i)
    assert tuple(outputs.shape) == tuple(bake(keras.Model(i, outputs)).output_shape) == (None, 5, 3)


def test_weights_of_one_name_are_numbered_in_order():
    layer = layers.Bidirectional(layers.LSTM(2))
    layer.build((None, 3, 4))
    names = ["kernel", "recurrent_kernel", "bias"]
    assert list(named_weights(layer)) == [*names, *(f"{n}_1" for n in names)]


def test_a_composite_reads_the_transformed_weight_of_its_child():
    wrapper = Transformed(dense(), {"kernel": [Scale(2.0)]})
    np.testing.assert_array_equal(wrapper.kernel, [[0, 2], [4, 6], [8, 10]])
    assert wrapper.units == 2
    np.testing.assert_array_equal(wrapper.bias, [10.0, 10.0])
    with pytest.raises(AttributeError):
        _ = wrapper.missing


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="`layer` must be built before its weights can be transformed"):
        Transformed(layers.Dense(2), {})
    with pytest.raises(ValueError, match=r"must name weights of 'dense': \['kernel', 'bias'\].*\['gamma'\]"):
        Transformed(dense(), {"gamma": []})
    with pytest.raises(TypeError, match="Transform must define __call__"):
        Transform()(tf.zeros(1))


def test_integers_are_those_of_the_last_transform_on_what_the_others_made():
    wrapper = Transformed(dense(), {"kernel": [Scale(2.0), Shift()], "bias": [Scale(2.0)]})
    (found,) = wrapper.integers()
    np.testing.assert_array_equal(found.codes, [[2, 6], [10, 14], [18, 22]])  # (2 w + 1) / .5
    assert (found.layer, found.weight, found.bits, float(found.scale)) == ("dense", "kernel", 8, 0.5)
    assert found.codes.dtype == np.int32


def wrapped_model():
    wrapper = Transformed(dense(), {"kernel": [Scale(2.0)], "bias": [Shift()]})
    inputs = keras.Input((3,))
    return keras.Model(inputs, layers.ReLU()(wrapper(inputs)))


def test_it_goes_through_its_config_and_through_a_file(tmp_path):
    model = wrapped_model()
    (amount,) = [w for w in model.layers[1].weights if tuple(w.shape) == ()]
    amount.assign(4.0)
    np.testing.assert_array_equal(model(X), [[30.0, 36.0]])  # 2 * [8, 11] + 10 + 4
    again = Transformed.from_config(model.layers[1].get_config())
    assert again.describe() == model.layers[1].describe() == "kernel times 2; bias Shift"
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(X), [[30.0, 36.0]])


def test_wrappers_and_their_integers_are_found_at_any_depth():
    inner = wrapped_model()
    inputs = keras.Input((3,))
    outer = keras.Model(inputs, inner(inputs))
    assert [w.name for w in transformed_layers(outer)] == ["dense"]
    assert [w.weight for w in integer_weights(outer)] == ["bias"]


class Frozen(layers.Dropout):
    """A layer that has another form once training is over."""

    def for_inference(self):
        return layers.Activation("linear", name=self.name)


def test_baking_makes_plain_layers_and_shares_nothing():
    model = wrapped_model()
    baked = bake(model)
    assert type(baked.layers[1]) is layers.Dense and baked.layers[1].name == "dense"
    np.testing.assert_array_equal(baked(X), model(X))
    np.testing.assert_array_equal(baked.layers[1].get_weights()[0], [[0, 2], [4, 6], [8, 10]])
    baked.layers[1].kernel.assign(np.zeros((3, 2)))
    np.testing.assert_array_equal(model(X), [[27.0, 33.0]])  # 2 * [8, 11] + 11


def test_a_wrapper_called_twice_is_baked_once():
    wrapper = Transformed(dense(3, 3), {"kernel": [Scale(0.5)]})
    inputs = keras.Input((3,))
    model = keras.Model(inputs, wrapper(wrapper(inputs)))
    baked = bake(model)
    assert len(baked.weights) == 2
    np.testing.assert_array_equal(baked(X), model(X))


def test_layers_take_the_form_for_inference_only_on_request():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, Frozen(0.5, name="drop")(inputs))
    assert isinstance(bake(model, inference=True).get_layer("drop"), layers.Activation)
    assert isinstance(finalize(model).get_layer("drop"), Frozen)


def test_only_models_are_baked():
    with pytest.raises(TypeError, match=r"`model` must be a keras\.Model"):
        finalize(dense())


@keras.utils.register_keras_serializable("test_transformed")
class Halves(Transform):
    """Whole numbers that stand for halves: held as int8 codes of two axes, the first of length 1."""

    def __init__(self, shape=None):
        self.held_shape = None if shape is None else tuple(shape)

    def build(self, wrapper, name, variable):
        if self.held_shape is None or tf.as_dtype(variable.dtype).is_floating:
            self.held_shape = tuple(variable.shape)
            codes = np.round(np.asarray(variable) * 2).reshape(1, -1)
            owner = next(part for part in (wrapper.layer, *flavor.sublayers(wrapper.layer, recursive=True))
                         if any(own is variable for own in flavor.own_variables(part).values()))  # fmt: skip
            path = next(path for path, own in flavor.own_variables(owner).items() if own is variable)
            flavor.swap_variable(owner, path, codes.shape, "int8").assign(codes)

    def __call__(self, value):
        return tf.reshape(tf.cast(value, tf.float32) / 2, self.held_shape)

    def held_bytes(self, variable):
        return int(np.prod(variable.shape))

    def get_config(self):
        return {"shape": self.held_shape}


def test_a_copy_of_a_wrapper_has_transforms_of_its_own():
    wrapper = Transformed(dense(), {"kernel": [Shift()]})
    other = copy_layer(wrapper)
    wrapper.transforms["kernel"][0].amount.assign(100.0)
    np.testing.assert_array_equal(other.value("kernel"), [[1, 2], [3, 4], [5, 6]])  # the shift is still 1
    amount = other.transforms["kernel"][0].amount
    assert any(weight is amount for weight in other.trainable_weights)


def test_transforms_can_be_put_and_taken_away():
    wrapper = Transformed(dense(), {"kernel": [Shift()]})
    (shift,) = wrapper.transforms["kernel"]
    shift.amount.assign(4.0)
    wrapper.put({"kernel": [Scale(2.0), shift], "bias": [Scale(0.5)]})
    np.testing.assert_array_equal(wrapper.value("kernel"), [[4, 6], [8, 10], [12, 14]])  # 2 w + 4, not built again
    np.testing.assert_array_equal(wrapper.value("bias"), [5, 5])
    wrapper.put({"kernel": [], "bias": []})
    np.testing.assert_array_equal(wrapper(X), [[18.0, 21.0]])


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_a_variable_may_hold_codes_of_its_weight(policy, tmp_path):
    layer = layers.Dense(2, name="dense", dtype=policy, kernel_regularizer="l2")
    inputs = keras.Input((3,))
    layer(inputs)
    layer.set_weights([np.array([[0, 1.5], [-2, 3], [4, 0.5]], "float32"), np.array([10.0, 10.0], "float32")])
    layer.trainable = False
    wrapper = Transformed(layer, {"kernel": [Halves(), Scale(2.0)]})
    model = keras.Model(inputs, wrapper(inputs))
    kernel = next(w for w in layer.weights if tuple(w.shape) == (1, 6))
    assert tf.as_dtype(kernel.dtype) == tf.int8 and len(layer.weights) == 2
    np.testing.assert_array_equal(np.asarray(kernel), [[0, 3, -4, 6, 8, 1]])
    expected = [[26.0, 15.0]]  # [1, 0, 2] @ 2 w + 10 = [2 * 8 + 10, 2 * 2.5 + 10]
    np.testing.assert_array_equal(model(X), expected)
    assert tf.as_dtype(model(X).dtype).name == wrapper.compute_dtype
    np.testing.assert_array_equal(wrapper.kernel, [[0, 3], [-4, 6], [8, 1]])
    plain = wrapper.baked()
    np.testing.assert_array_equal(plain.get_weights()[0], [[0, 3], [-4, 6], [8, 1]])
    np.testing.assert_array_equal(bake(model)(X), expected)
    np.testing.assert_array_equal(trace(model)(X), expected)
    row = summary(model).rows[0]
    assert (row.parameters, row.macs, row.before.bytes, row.after.bytes) == (8, 6, 32, 6 + 8)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(X), expected)
    assert sorted(tf.as_dtype(w.dtype).name for w in loaded.weights) == ["float32", "int8"]


def test_codes_stand_inside_recurrent_layers():
    layer = layers.Bidirectional(layers.LSTM(2, return_sequences=True), name="both")
    inputs = keras.Input((4, 3))
    layer(inputs)
    rng = np.random.default_rng(0)
    layer.set_weights([np.round(rng.normal(size=w.shape) * 2) / 2 for w in layer.get_weights()])
    x = rng.normal(size=(2, 4, 3)).astype("float32")
    expected = np.asarray(layer(x))
    layer.trainable = False
    kernels = [name for name, w in named_weights(layer).items() if len(w.shape) == 2]
    wrapper = Transformed(layer, {name: [Halves()] for name in kernels})
    assert len(kernels) == 4
    np.testing.assert_allclose(wrapper(x), expected, atol=1e-6)
    np.testing.assert_allclose(wrapper.baked()(x), expected, atol=1e-6)


DISTRIBUTED = {
    "a layer": lambda: layers.TimeDistributed(layers.Dense(3)),
    "two deep": lambda: layers.TimeDistributed(layers.TimeDistributed(layers.Dense(3))),
    "a model": lambda: layers.TimeDistributed(
        keras.Sequential([keras.Input((5, 4)), layers.TimeDistributed(layers.Dense(3)), layers.Dense(2)])
    ),
}


@pytest.mark.parametrize("case", DISTRIBUTED)
def test_a_loaded_wrapper_of_a_wrapper_can_be_saved_again(case, tmp_path):
    shape = (2, 4) if case == "a layer" else (2, 5, 4)
    inputs = keras.Input(shape)
    layer = DISTRIBUTED[case]()
    layer(inputs)
    model = keras.Model(inputs, Transformed(layer, {"kernel": [Scale(2.0)]})(inputs))
    x = np.random.default_rng(0).normal(size=(3, *shape)).astype("float32")
    expected = model.predict(x, verbose=0)
    for i in range(3):
        model.save(tmp_path / f"{i}.keras")
        model = keras.models.load_model(tmp_path / f"{i}.keras")
        np.testing.assert_allclose(model.predict(x, verbose=0), expected, rtol=1e-5)
    assert keras.models.clone_model(model)(x).shape == expected.shape
