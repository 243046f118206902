"""Weights in four and eight bits: the nearest codes, the bytes, and what computes with them."""

import gc
import weakref

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

import tfcompress as tfc
from tests.lora.small import fit
from tests.zoo import keras, layers
from tfcompress.core.transformed import transformed_layers
from tfcompress.lora.base import NF4, pack, unpack

INTEGERS = {"int8": 127, "int4": 7}


def table(kind):
    if kind == "nf4":
        return np.array(NF4)
    return np.arange(-INTEGERS[kind], INTEGERS[kind] + 1) / INTEGERS[kind]


def test_normal_float_is_made_of_quantiles():
    # Dettmers et al. 2023: eight quantiles on the positive side, seven on the negative, and zero
    offset = 0.9677083
    positive = scipy.stats.norm.ppf(np.linspace(offset, 0.5, 9)[:-1])
    negative = -scipy.stats.norm.ppf(np.linspace(offset, 0.5, 8)[:-1])
    values = np.sort([*positive, 0.0, *negative])
    np.testing.assert_allclose(NF4, values / values.max(), atol=1e-6)


def nearest(block, kind, scale):
    grid = table(kind) * scale
    return grid[np.abs(block[:, None] - grid).argmin(1)]


@pytest.mark.parametrize("kind", ["int8", "int4", "nf4"])
@pytest.mark.parametrize("shape", [(3,), (5, 13), (3, 3, 7, 11), (300, 64)])
def test_each_number_becomes_the_nearest_on_the_best_scale_of_its_block(kind, shape):
    w = np.random.default_rng(1).normal(size=shape).astype("float32")
    codes, steps, tops = pack(w, kind)
    found = unpack(codes, steps, tops, kind, shape).numpy().ravel()
    flat = w.ravel().astype("float64")
    for start in range(0, flat.size, 64):
        block = flat[start : start + 64]
        top = np.abs(flat[start // 16384 * 16384 : start // 16384 * 16384 + 16384]).max()
        scale = top * 2 ** ((steps[start // 64] - 255.0) / 24)
        np.testing.assert_allclose(found[start : start + 64], nearest(block, kind, scale), atol=2e-6)
        error = np.square(found[start : start + 64] - block).sum()
        scales = top * 2 ** (-np.arange(0, 255) / 24)
        scales = scales[(scales > 0.8 * np.abs(block).max()) & (scales < 1.05 * np.abs(block).max())]
        assert error <= 1.01 * min(np.square(nearest(block, kind, scale) - block).sum() for scale in scales) + 1e-12
    assert codes.nbytes == (flat.size if kind == "int8" else -(-flat.size // 2))
    assert (steps.nbytes, tops.nbytes) == (-(-flat.size // 64), 4 * -(-flat.size // 16384))


@pytest.mark.parametrize("kind", ["int8", "int4", "nf4"])
def test_an_outlier_spoils_its_own_block_alone(kind):
    w = np.random.default_rng(4).normal(size=(256, 64))
    w[17, 5] = 200.0
    found = unpack(*pack(w, kind), kind, w.shape).numpy()
    others = [i for i in range(256) if i != 17]
    ours = np.square(found - w)[others].sum()
    whole = np.square([nearest(block, kind, np.abs(block).max()) - block for block in w])[others].sum()
    assert ours < whole  # scales of 32 bits, each its block's largest number


@pytest.mark.parametrize("kind", ["int8", "int4", "nf4"])
def test_zeros_stay_zeros(kind):
    w = np.zeros((4, 64), "float32")
    w[1, ::3], w[2, 5] = 1.0, 1e-6  # a block of zeros, one of both, one with a scale far below the largest
    codes, steps, tops = pack(w, kind)
    found = unpack(codes, steps, tops, kind, w.shape).numpy()
    assert not found[w == 0].any() and np.isfinite(found).all()
    np.testing.assert_array_equal(found[1], w[1])
    assert steps[[0, 1, 3]].tolist() == [0, 255, 0]
    assert abs(found[2, 5]) < 2**-10  # less than the least scale, 2 ** (-254 / 24)


def wide():
    rng = np.random.default_rng(3)
    model = keras.Sequential([keras.Input((256,)), *[layers.Dense(256, activation="relu") for _ in range(6)]])
    model.set_weights([rng.normal(0, 0.1, w.shape) for w in model.get_weights()])
    return model, rng.normal(size=(8, 256)).astype("float32")


def size(variables):
    return sum(np.asarray(v).nbytes for v in variables)


@pytest.mark.parametrize(("kind", "share"), [("int4", 0.16), ("nf4", 0.16), ("int8", 0.27)])
def test_the_base_takes_few_bytes_in_the_model_and_in_its_file(kind, share, tmp_path):
    model, x = wide()
    whole = size(model.weights)
    adapted = tfc.add_lora(model, 2, base=kind)
    assert size(adapted.non_trainable_weights) <= share * whole
    assert tfc.summary(adapted).bytes_after == size(adapted.non_trainable_weights)
    assert tfc.summary(adapted).bytes_before == whole
    adapted.save(tmp_path / "model.keras")
    adapters = size(adapted.trainable_weights)
    structure = 80_000  # JSON and what HDF5 writes around each array
    assert (tmp_path / "model.keras").stat().st_size - adapters - structure <= share * whole
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), adapted(x))
    assert size(loaded.weights) == size(adapted.weights)


def test_nothing_keeps_the_float_kernel():
    model, _ = wide()
    flat = tfc.trace(model)
    layer = flat.layers[-1]
    kernel = next(v for v in layer.weights if len(v.shape) == 2)
    dead = weakref.ref(getattr(kernel, "_value", kernel))
    from tfcompress.core.transformed import Transformed
    from tfcompress.lora.base import Packed

    wrapper = Transformed(layer, {"kernel": [Packed("int4")]})
    del kernel
    gc.collect()
    assert dead() is None
    assert sorted(tf.as_dtype(w.dtype).name for w in wrapper.layer.weights) == ["float32", "uint8"]


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_in_mixed_precision_the_base_is_packed_and_adapters_are_float32(policy):
    inputs = keras.Input((16,))
    x = layers.Dense(32, activation="relu", dtype=policy, name="body")(inputs)
    model = keras.Model(inputs, layers.Dense(4, dtype="float32", name="head")(x))
    adapted = tfc.add_lora(model, 2, base="nf4", train="head")
    x = np.random.default_rng(0).normal(size=(64, 16)).astype("float32")
    adapted.compile("adam", "mse")
    adapted.fit(x, np.zeros((64, 4), "float32"), epochs=2, verbose=0)
    assert {tf.as_dtype(w.dtype).name for w in adapted.trainable_weights} == {"float32"}
    body = next(layer for layer in transformed_layers(adapted) if layer.name == "body")
    assert body.compute_dtype == policy.removeprefix("mixed_")
    merged = tfc.merge_lora(adapted)
    np.testing.assert_allclose(adapted(x), merged(x), atol=2e-2)  # activations near 4 have steps of 2**-6 in bfloat16


def test_layers_that_cannot_be_made_anew_keep_a_float_base_and_it_is_said():
    class Own(layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(name="kernel", shape=(shape[-1], 16))
            self.built = True

        def call(self, x):
            return tf.matmul(x, tf.convert_to_tensor(self.kernel))

        def compute_output_shape(self, shape):
            return (*shape[:-1], 16)

    inputs = keras.Input((16,))
    model = keras.Model(inputs, layers.Dense(16, name="d")(Own(name="own")(inputs)))
    adapted = tfc.add_lora(model, 2, base="int4")
    assert "base in float32: Own is no layer of Keras" in adapted.notes["own"]
    assert [w.shape[-1] for w in adapted.trainable_weights] == [2, 16, 2, 16]


@pytest.mark.parametrize("base", ["int8", "int4", "nf4"])
def test_a_model_at_every_step_of_a_sequence_may_have_a_packed_base(base):
    """tf_keras runs the model inside for the masks that it hands on: on the codes it cannot."""
    keras.utils.set_random_seed(0)
    inner = keras.Sequential([keras.Input((8,)), layers.Dense(16), layers.Dense(8)])
    model = keras.Sequential([keras.Input((3, 8)), layers.TimeDistributed(inner, name="td"), layers.Dense(4)])
    x, y = np.ones((4, 3, 8), "float32"), np.zeros((4, 3, 4), "float32")
    adapted = tfc.add_lora(model, 1, base=base)
    fit(adapted, x=x, y=y, eager=False)
    np.testing.assert_allclose(tfc.merge_lora(adapted)(x), adapted(x), atol=1e-5)
