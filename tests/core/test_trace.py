"""A traced model computes, trains and saves as the original does, which stays as it was."""

import re
import time

import numpy as np
import pytest
import tensorflow as tf

from tests.core.composites import (
    CLOSED,
    KERAS3,
    OPEN,
    Block,
    Frozen,
    Patches,
    chain,
    composite,
    floats,
    make,
    mean,
    ops,
    serializable,
)
from tests.zoo import ZOO, keras, layers, targets
from tfcompress.core import flavor
from tfcompress.core.errors import CompressionError
from tfcompress.core.trace import opaque, trace


def assert_equal(a, b):
    tf.nest.assert_same_structure(a, b)
    for p, q in zip(tf.nest.flatten(a), tf.nest.flatten(b), strict=True):
        np.testing.assert_allclose(p, q, rtol=0, atol=1e-6)


def leaves(model):
    """Whether nothing but leaves, recurrent wholes and closed composites is left."""
    return not any(flavor.sublayers(layer) for layer in model.layers if not flavor.is_whole(layer))


@pytest.mark.parametrize("name", [*OPEN, "residual", "unet", "operations"])
def test_a_traced_model_computes_the_same_from_leaves_also_when_loaded(name, tmp_path):
    model, x = make(name) if name in OPEN else ZOO[name]()
    expected = model(x, training=False)
    flat = trace(model)
    assert_equal(flat(x, training=False), expected)
    assert opaque(flat) == {} and leaves(flat)
    assert len(flat.trainable_weights) == len(model.trainable_weights)
    flat.save(tmp_path / "flat.keras")
    again = keras.models.load_model(tmp_path / "flat.keras", safe_mode=False)
    assert_equal(again(x, training=False), expected)
    assert [layer.name for layer in again.layers] == [layer.name for layer in flat.layers]


@pytest.mark.parametrize("name", ["encoder", "nesting", "causal", "dictionary"])
def test_a_traced_model_takes_batches_of_any_size(name):
    model, x = make(name)
    flat = trace(model)
    for size in (1, 3):
        fewer = tf.nest.map_structure(lambda a, n=size: a[:n], x)
        assert_equal(flat(fewer, training=False), model(fewer, training=False))


@pytest.mark.parametrize("name", ["encoder", "random_depth", "nested"])
def test_training_a_traced_model_moves_its_weights_and_not_the_originals(name):
    model, x = make(name)
    before = model.get_weights()
    flat = trace(model)
    initial = [np.array(w) for w in flat.get_weights()]
    flat.compile("sgd", "mse", run_eagerly=name == "encoder")
    flat.fit(x, targets(flat, x), batch_size=4, verbose=0)
    trained = {id(w) for w in flat.trainable_weights}
    still = [flavor.variable_path(w) for w, a, b in zip(flat.weights, initial, flat.get_weights(), strict=True)
             if id(w) in trained and np.array_equal(a, b)]  # fmt: skip
    # softmax cancels what all keys have in common, batch normalization what all pixels have: no gradient there
    assert all("key/bias" in path or ("conv2d" in path and path.endswith("bias")) for path in still)
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["encoder", "structures", "classifier", "random_depth", "nested"])
def test_the_original_is_left_as_it_was(name):
    model, _ = make(name)
    state = lambda: [(part.name, len(part._inbound_nodes), sorted(vars(part)))  # noqa: E731
                     for part in flavor.sublayers(model, recursive=True)]  # fmt: skip
    before, call = state(), layers.Layer.__call__
    flat = trace(model)
    assert state() == before and layers.Layer.__call__ is call
    assert not {id(v) for v in model.variables} & {id(v) for v in flat.variables}


@pytest.mark.parametrize("name", CLOSED)
def test_what_cannot_be_opened_is_one_opaque_layer_with_its_reason_also_when_loaded(name, tmp_path):
    model, x = make(name)
    flat = trace(model)
    assert list(opaque(flat)) == ["it"]
    assert re.search(CLOSED[name][1], opaque(flat)["it"])
    assert_equal(flat(x, training=False), model(x, training=False))
    assert len(flat.trainable_weights) == len(model.trainable_weights)
    flat.save(tmp_path / "flat.keras")
    again = keras.models.load_model(tmp_path / "flat.keras", safe_mode=False)
    assert_equal(again(x, training=False), model(x, training=False))
    assert opaque(again) == opaque(flat)


def test_an_opaque_composite_keeps_its_training_mode():
    model, x = make("branching")
    assert_equal(trace(model)(x, training=True), model(x, training=True))


def test_an_opaque_composite_adds_its_losses():
    model, x = make("adds_loss")
    flat = trace(model)
    model(x), flat(x)
    np.testing.assert_allclose(sum(map(float, flat.losses)), sum(map(float, model.losses)), rtol=1e-6)


def test_a_layer_that_a_composite_calls_in_one_mode_stays_in_it():
    model, x = chain(floats(4), Frozen(), layers.Dense(2))
    flat = trace(model)
    assert_equal(flat(x, training=True), model(x, training=True))
    norm = "frozen.batch_normalization"
    assert [name.startswith(norm) for name in opaque(flat)] == [True] * KERAS3


def test_outer_names_stay_and_inner_ones_are_paths():
    x = keras.Input((5, 8))
    model = keras.Model(x, layers.Dense(2, name="head")(Block(name="block")(Patches(name="patches")(x))))
    flat = trace(model)
    names = [layer.name for layer in flat.layers]
    assert flat.get_layer("head").units == 2 and len(set(names)) == len(names)
    assert {"patches.token", "patches.position"} <= set(names)
    assert flat.name == model.name
    assert any(name.startswith("block.multi_head_attention") and name.endswith(".query") for name in names)


def test_a_weight_of_a_composite_keeps_its_regularizer():
    model, _ = chain(floats(5, 8), Patches())
    token = np.asarray(model.get_layer(index=1).token)
    np.testing.assert_allclose(sum(map(float, trace(model).losses)), 0.01 * np.sum(token**2), rtol=1e-5)  # l2: 0.01


def test_a_batch_size_is_that_of_the_inputs():
    for name in ("encoder", "nested"):
        assert trace(make(name)[0], batch_size=1).inputs[0].shape[0] == 1


def test_whole_numbers_stay_whole_where_a_subclassed_model_only_looks_them_up():
    inputs = trace(make("dictionary")[0]).input
    assert [tf.as_dtype(inputs[name].dtype).name for name in ("i", "z")] == ["int32", "float32"]


def test_layer_call_is_restored_when_tracing_fails():
    class Fails(layers.Layer):
        armed = False

        def call(self, x):
            if self.armed:
                raise RuntimeError("no")
            return x

    model, _ = chain(floats(4), Fails(name="fails"), layers.Dense(2))
    call, model.get_layer("fails").armed = layers.Layer.__call__, True
    with pytest.raises(RuntimeError, match="no"):
        trace(model)
    assert layers.Layer.__call__ is call


def test_a_subclassed_model_that_was_never_called_is_refused():
    class Plain(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match="call it once on data"):
        trace(Plain())


def test_a_subclassed_model_with_several_tensor_arguments_is_refused():
    class Two(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(2)

        def call(self, x, y):
            return self.dense(x) + self.dense(y)

    model = Two()
    model(floats(4), floats(4))
    with pytest.raises(ValueError, match="several tensor arguments"):
        trace(model)


def test_tracing_a_mobile_net_is_quick():
    model = keras.applications.MobileNetV2(weights=None, input_shape=(96, 96, 3), classes=10)
    start = time.process_time()
    flat = trace(model)
    assert time.process_time() - start < 10
    x = floats(96, 96, 3)[:1]
    assert_equal(flat(x, training=False), model(x, training=False))


@serializable
class Forgetful(layers.Layer):
    """A leaf whose config is not what its constructor takes."""

    def __init__(self, factor=3.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, x):
        return x * self.factor

    def get_config(self):
        return {**super().get_config(), "factor": self.factor, "remembered": 1}


def test_a_leaf_that_cannot_be_loaded_again_is_saved_as_what_it_computes(tmp_path):
    model, x = chain(floats(4), layers.Dense(3), Forgetful(name="scale"), layers.Dense(2))
    flat = trace(model)
    assert not any(isinstance(layer, Forgetful) for layer in flat.layers)
    flat.save(tmp_path / "flat.keras")
    again = keras.models.load_model(tmp_path / "flat.keras")
    assert_equal(again(x, training=False), model(x, training=False))


def call_making(self, x):
    return layers.Add(name="sum")([self.dense(x), layers.ReLU(name="positive")(x)])


Making = composite("Making", lambda self: {"dense": layers.Dense(4)}, call_making)


def test_layers_made_while_a_composite_is_called_do_not_close_it():
    model, x = chain(floats(4), Making(), layers.Dense(2))
    flat = trace(model)
    assert opaque(flat) == {} and leaves(flat)
    assert_equal(flat(x, training=False), model(x, training=False))


def call_long(self, x):
    y = self.spread(x)
    return y * ops.reshape(ops.cast(ops.arange(y.shape[1]), "float32"), (1, -1, 1, 1))


@pytest.mark.skipif(not KERAS3, reason="TensorFlow infers the shape")
def test_the_length_of_a_sequence_is_known_behind_an_einsum_dense():
    spread = lambda self: {"spread": layers.EinsumDense("abc,cde->abde", (None, 2, 3))}  # noqa: E731
    model, x = chain(floats(5, 4), composite("Long", spread, call_long)())
    flat = trace(model)
    assert opaque(flat) == {}
    assert_equal(flat(x, training=False), model(x, training=False))


def call_on_value(self, x):
    y = self.dense(x)
    if tf.reduce_sum(y) > 0:
        y = -y
    return y


OnValue = composite("OnValue", lambda self: {"dense": layers.Dense(4)}, call_on_value)


@pytest.mark.skipif(KERAS3, reason="Keras 3 refuses such a model itself")
def test_a_composite_that_branches_on_a_value_stays_closed():
    model, x = chain(floats(4), OnValue(name="it"), layers.Dense(2))
    flat = trace(model)
    assert re.search("branches on the value of a tensor", opaque(flat)["it"])
    for rows in (x, -x):
        assert_equal(flat(rows, training=False), model(rows, training=False))


@pytest.mark.skipif(not KERAS3, reason="tf_keras runs such a model")
def test_a_subclassed_model_with_a_branch_on_a_value_is_refused_by_the_layers_name():
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.block, self.head = OnValue(name="block"), layers.Dense(2)

        def call(self, x):
            return self.head(self.block(x))

    model = Model()
    model(floats(4))
    with pytest.raises(ValueError, match=r"'block'.*branches on the value of a tensor"):
        trace(model)


def test_a_class_that_keras_does_not_know_is_named_in_one_line(tmp_path):
    class Stranger(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense = layers.Dense(3)

        def call(self, x):
            self.add_loss(mean(x))
            return self.dense(x)

    flat = trace(chain(floats(4), Stranger(name="odd"), layers.Dense(2))[0])
    flat.save(tmp_path / "flat.keras")
    with pytest.raises(
        CompressionError, match=r"class 'Stranger' of layer 'odd'.*register_keras_serializable"
    ) as error:
        keras.models.load_model(tmp_path / "flat.keras")
    assert len(str(error.value)) < 400
