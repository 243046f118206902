"""The two flavors behind one set of names."""

import importlib
import types

import numpy as np
import pytest
import tensorflow as tf

from tfcompress.core import flavor

keras = tf.keras
layers = keras.layers


def public(module: str) -> set[str]:
    here = importlib.import_module(module)
    return {
        n for n, v in vars(here).items()
        if not n.startswith("_") and not isinstance(v, types.ModuleType)
        and f"{getattr(v, '__module__', module)}.".startswith(f"{module}.")
    }  # fmt: skip


def test_both_siblings_have_the_same_functions():
    here = {"keras 3": "keras3", "tf_keras": "legacy"}
    functions = public(f"tfcompress.core.{here[flavor.NAME]}")
    folder = importlib.resources.files("tfcompress.core") / here[flavor.OTHER]
    lines = [line for file in folder.iterdir() if file.name.endswith(".py") for line in file.read_text().splitlines()]
    other = {line[4:].split("(")[0] for line in lines if line.startswith("def ") and line[4] != "_"}
    module = importlib.import_module(f"tfcompress.core.{here[flavor.NAME]}")
    mine = {name for name in functions if callable(getattr(module, name))}
    assert (mine ^ other) <= {"map_shapes"}  # a helper for tf.TensorShape


def test_a_replaced_kernel_is_what_the_layer_computes_with_and_is_restored():
    dense = layers.Dense(2)
    x = tf.constant([[1.0, 2.0]])
    dense(x)
    kernel = dense.get_weights()[0]
    doubled = tf.constant([[1.0, 0.0], [0.0, 3.0]])
    out = flavor.replaced(dense, [(dense.kernel, doubled)], lambda: dense(x))
    np.testing.assert_array_equal(out, [[1.0, 6.0]])  # x @ diag(1, 3) + 0
    np.testing.assert_array_equal(dense.get_weights()[0], kernel)


def test_a_replaced_kernel_reaches_the_cell_of_a_recurrent_layer():
    rnn = layers.SimpleRNN(1, activation=None)
    x = tf.constant([[[1.0], [2.0]]])
    rnn(x)
    pairs = [(rnn.cell.kernel, tf.constant([[2.0]])), (rnn.cell.recurrent_kernel, tf.constant([[10.0]]))]
    out = flavor.replaced(rnn, pairs, lambda: rnn(x))
    np.testing.assert_array_equal(out, [[24.0]])  # 10 * (2 * 1) + 2 * 2


def test_the_gradient_reaches_a_replaced_variable_through_its_stand_in():
    dense = layers.Dense(1, use_bias=False)
    x = tf.constant([[3.0]])
    dense(x)
    with tf.GradientTape() as tape:
        out = flavor.replaced(dense, [(dense.kernel, 2 * tf.convert_to_tensor(dense.kernel))], lambda: dense(x))
    (gradient,) = tape.gradient(out, _raw(dense))
    np.testing.assert_array_equal(gradient, [[6.0]])  # d(3 * 2w) / dw


def _raw(layer):
    return [getattr(w, "value", w) if flavor.NAME == "keras 3" else w for w in layer.trainable_weights]


def test_statistics_and_losses_inside_a_replaced_call_are_kept():
    norm = layers.BatchNormalization(momentum=0.5, gamma_regularizer=None)
    x = tf.constant([[2.0], [4.0]])
    norm(x)
    flavor.replaced(norm, [(norm.gamma, tf.ones(1))], lambda: norm(x, training=True))
    np.testing.assert_allclose(norm.moving_mean, [1.5])  # 0.5 * 0 + 0.5 * 3


def test_variables_in_lists_and_dicts_are_the_layers_own_by_path():
    class Owner(layers.Layer):
        def build(self, _):
            self.inner = layers.Dense(2)
            self.inner.build((None, 2))
            self.tables = [self.add_weight(name="a", shape=(2,)), {"k": self.add_weight(name="b", shape=(2,))}]
            self.token = self.add_weight(name="token", shape=(2,), trainable=False)

    owner = Owner()
    owner.build((None, 2))
    assert set(flavor.own_variables(owner)) == {"tables.0", "tables.1.k", "token"}
    assert [flavor.variable_name(v) for v in flavor.own_variables(owner).values()] == ["a", "b", "token"]


def test_what_is_no_model_is_refused_by_its_argument():
    with pytest.raises(TypeError, match=r"`teacher` must be a keras\.Model\. Received: teacher=3"):
        flavor.check_model(3, "teacher")


def test_a_model_of_the_other_flavor_is_refused_with_the_environment_variable():
    other = importlib.import_module("tf_keras" if flavor.NAME == "keras 3" else "keras")
    model = other.Sequential([other.layers.Dense(1)])
    with pytest.raises(TypeError, match="TF_USE_LEGACY_KERAS"):
        flavor.check_model(model)


def test_an_unbuilt_model_is_refused_with_the_way_to_build_it():
    with pytest.raises(ValueError, match="call it once on data"):
        flavor.check_model(keras.Sequential([layers.Dense(1)]))
