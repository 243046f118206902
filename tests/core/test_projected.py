"""Projections belong to variables and go along with them: copies, traced graphs, quantized and finalized models."""

import numpy as np
import pytest
import tensorflow as tf

import tfcompress
from tests.zoo import ZOO, answers
from tfcompress.core import flavor
from tfcompress.core.copy import copy_layer
from tfcompress.core.projected import (
    Mask,
    Projection,
    attach,
    carry,
    carry_all,
    described,
    detach,
    mask_of,
    plain_constraint,
    project,
    projections,
)
from tfcompress.core.trace import trace

keras = tf.keras
KEPT = np.array([[True, False, True], [False, True, True]])


def dense(**arguments):
    layer = keras.layers.Dense(3, name="body", **arguments)
    layer.build((None, 2))
    layer.set_weights([np.arange(1.0, 7.0).reshape(2, 3), np.zeros(3)])
    return layer


def value(variable):
    return np.asarray(flavor.read(variable))


class Ceiling(Projection):
    """At most 4."""

    def __call__(self, value):
        return tf.minimum(value, 4.0)

    def copied(self, change=None):
        return Ceiling()


def test_a_projection_is_applied_by_the_optimizer():
    layer = dense()
    attach(layer.kernel, Mask(KEPT))
    keras.optimizers.SGD(1.0).apply_gradients([(tf.ones((2, 3)), layer.kernel)])
    np.testing.assert_array_equal(value(layer.kernel), [[0, 0, 2], [0, 4, 5]])  # w - 1 where kept


def test_zeros_are_positive_zeros_that_compress():
    layer = dense()
    layer.kernel.assign(-value(layer.kernel))
    attach(layer.kernel, Mask(KEPT))
    project(layer.kernel)
    assert not np.signbit(value(layer.kernel)[~KEPT]).any()


def test_the_users_constraint_stays_and_comes_first():
    layer = dense(kernel_constraint=keras.constraints.MaxNorm(2.0, axis=0))
    own = flavor.constraint_of(layer.kernel)
    mask = Mask(KEPT)
    attach(layer.kernel, mask)
    assert plain_constraint(layer.kernel) is own
    keras.optimizers.SGD(0.0).apply_gradients([(tf.ones((2, 3)), layer.kernel)])
    # Columns (1, 4), (2, 5), (3, 6) are brought to norm 2, then masked.
    expected = np.where(KEPT, 2 * np.array([[1, 2, 3], [4, 5, 6]]) / np.sqrt([17, 29, 45]), 0)
    np.testing.assert_allclose(value(layer.kernel), expected, rtol=1e-5)
    detach(layer.kernel, mask)
    assert flavor.constraint_of(layer.kernel) is own
    assert layer.get_config()["kernel_constraint"]["class_name"] == "MaxNorm"


def test_projections_apply_in_the_order_in_which_they_came_and_go_one_by_one():
    layer = dense()
    mask, ceiling = Mask(KEPT), Ceiling()
    attach(layer.kernel, mask)
    attach(layer.kernel, ceiling)
    project(layer.kernel)
    np.testing.assert_array_equal(value(layer.kernel), [[1, 0, 3], [0, 4, 4]])
    assert projections(layer.kernel) == (mask, ceiling)
    detach(layer.kernel, mask)
    assert projections(layer.kernel) == (ceiling,) and mask_of(layer.kernel) is None
    detach(layer.kernel, ceiling)
    assert flavor.constraint_of(layer.kernel) is None


def test_a_decision_shows_in_share_history_and_words():
    mask = Mask(np.ones((2, 3)))
    mask.decide(KEPT, step=7)
    mask.decide(~KEPT)
    assert mask.sparsity == pytest.approx(4 / 6) and mask.history == [(7, pytest.approx(2 / 6))]
    mask.decide(KEPT, step=9)
    assert mask.describe() == "33.3% zeros held (step 7: 33.3%, 9: 33.3%)"
    assert described(dense()) == []


def test_a_copy_has_a_mask_of_its_own():
    layer = dense()
    attach(layer.kernel, Mask(KEPT, [(3, 0.33)]))
    copy = copy_layer(layer)
    np.testing.assert_array_equal(mask_of(copy.kernel).kept, KEPT)
    assert mask_of(copy.kernel).history == [(3, 0.33)]
    mask_of(layer.kernel).decide(np.ones_like(KEPT))
    np.testing.assert_array_equal(mask_of(copy.kernel).kept, KEPT)


def test_a_slice_carries_a_slice_of_the_mask():
    old, new = dense(), keras.layers.Dense(2)
    new.build((None, 2))
    attach(old.kernel, Mask(KEPT))
    carry(old.kernel, new.kernel, lambda array: array[:, [0, 2]])
    np.testing.assert_array_equal(mask_of(new.kernel).kept, KEPT[:, [0, 2]])
    twin = dense()
    carry_all(old, twin)
    np.testing.assert_array_equal(mask_of(twin.kernel).kept, KEPT)


def sparse(name):
    """A model of the zoo with a mask of half the weights on each kernel, and how many kernels that are."""
    model, x = ZOO[name]()
    kernels = [v for v in model.trainable_variables if len(v.shape) >= 2 and "bias" not in flavor.variable_name(v)]
    for place, kernel in enumerate(kernels):
        attach(kernel, Mask(np.random.default_rng(place).random(tuple(kernel.shape)) < 0.5))
        project(kernel)
    return model, x, len(kernels)


def held(model):
    return [v for v in model.trainable_variables if mask_of(v) is not None]


@pytest.mark.parametrize("name", ["separable", "attention", "nested", "lstm", "subclassed_transformer"])
def test_zeros_go_along_into_traced_quantized_and_finalized_models(name):
    model, _, count = sparse(name)
    quantized = tfcompress.quantize_model(model)
    for made in (trace(model), quantized, tfcompress.finalize(quantized)):
        assert len(held(made)) == count
        for variable in held(made):
            assert np.all(value(variable)[~mask_of(variable).kept] == 0)
            assert np.any(value(variable)[mask_of(variable).kept] != 0)


def test_zeros_are_held_while_a_quantized_model_trains():
    model, x, _ = sparse("separable")
    quantized = tfcompress.quantize_model(model)
    quantized.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
    before = [value(variable) for variable in held(quantized)]
    quantized.train_on_batch(x, answers(quantized, x) + 1.0)
    for old, variable in zip(before, held(quantized), strict=True):
        assert np.all(value(variable)[~mask_of(variable).kept] == 0)
        assert np.any(value(variable) != old)


def test_a_file_knows_nothing_of_projections(tmp_path):
    model, _, _ = sparse("residual")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert not held(loaded)
    for old, new in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_weights_that_a_composite_owned_itself_can_be_saved_once_traced(tmp_path):
    model, x = ZOO["composite_encoder"]()
    owners = [p for p in flavor.sublayers(model, recursive=True) if flavor.own_variables(p)]
    token = next(v for p in owners if type(p).__name__ == "ClassToken" for v in flavor.own_variables(p).values())
    attach(token, Mask(np.ones(tuple(token.shape), bool)))
    flat = trace(model)
    assert len(held(flat)) == 1
    flat.save(tmp_path / "flat.keras")
    np.testing.assert_allclose(keras.models.load_model(tmp_path / "flat.keras")(x), model(x), atol=1e-6)
