"""Adapters on every kind of layer: what they compute, what is trained, what is left alone and why."""

import numpy as np
import pytest
import tensorflow as tf

import tfcompress as tfc
from tests.core.composites import make
from tests.lora.small import X, closed_network, fit, language_model, network, stir, values
from tests.zoo import keras, layers
from tfcompress.core.transformed import named_weights
from tfcompress.lora.names import members

# layer, shape of its input, einsum from A and B (last and first axis: rank) to the weight's shape
LAYERS = {
    "dense": (lambda: layers.Dense(12), (16,), "ir,ro->io"),
    "conv1d": (lambda: layers.Conv1D(12, 3, dilation_rate=2), (9, 5), "kir,ro->kio"),
    "conv2d": (lambda: layers.Conv2D(12, 3, strides=2, padding="same"), (8, 8, 4), "klir,ro->klio"),
    "transposed": (lambda: layers.Conv2DTranspose(12, 3, strides=2), (4, 4, 8), "klir,ro->kloi"),
    "depthwise": (lambda: layers.DepthwiseConv2D(3), (6, 6, 12), "klr,rcm->klcm"),
    "einsum": (lambda: layers.EinsumDense("abc,cde->abde", (None, 3, 4)), (5, 12), "cr,rde->cde"),
    "experts": (lambda: layers.EinsumDense("agi,gio->ago", (3, 12)), (3, 12), "gir,gro->gio"),
}


def matrices(equation, shape, rank):
    """Shapes of A and B in the einsum."""
    operands, result = equation.split("->")
    sizes = {"r": rank, **dict(zip(result, shape, strict=True))}
    return [tuple(sizes[letter] for letter in letters) for letters in operands.split(",")]


@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_computes_with_the_updated_weight(kind):
    make, shape, equation = LAYERS[kind]
    layer, inputs = make(), keras.Input(shape)
    model = keras.Model(inputs, layer(inputs))
    x = np.random.default_rng(0).normal(size=(4, *shape)).astype("float32")
    adapted = tfc.add_lora(model, 2, alpha=3.0)
    np.testing.assert_array_equal(adapted(x), model(x))  # B is zero at first
    stir(adapted)
    ((_, weight, adapter),) = members(adapted, "default")
    kernel = named_weights(layer)[weight]
    numbers = [
        np.asarray(part).reshape(size)
        for part, size in zip(adapter.get_weights(), matrices(equation, tuple(kernel.shape), 2), strict=True)
    ]
    kernel.assign(np.asarray(kernel) + 1.5 * np.einsum(equation, *numbers))  # alpha / rank = 1.5
    np.testing.assert_allclose(adapted(x), model(x), atol=2e-5)


def test_a_table_begins_with_zeros_for_its_entries():
    inputs = keras.Input((3,), dtype="int32")
    table = layers.Embedding(20, 8, mask_zero=True)
    model = keras.Model(inputs, layers.GlobalAveragePooling1D()(table(inputs)))
    adapted = tfc.add_lora(model, 2)
    x = np.array([[1, 2, 3], [4, 5, 0]], "int32")
    np.testing.assert_array_equal(adapted(x), model(x))
    fit(adapted, x=x, y=np.ones((2, 8), "float32"))
    ((_, _, adapter),) = members(adapted, "default")
    a, b = adapter.get_weights()
    assert np.abs(a[1:6]).min() > 0 and not a[6:].any()  # words that were never read keep their embedding
    table.set_weights([table.get_weights()[0] + a @ b])
    np.testing.assert_allclose(adapted(x), model(x), atol=1e-5)


@pytest.mark.parametrize("base", [None, "int4"])
def test_training_changes_adapters_and_nothing_else(base):
    model = network()
    fit(model)
    user = values(model.weights)
    adapted = tfc.add_lora(model, 2, base=base)
    trained, frozen = values(adapted.trainable_weights), values(adapted.non_trainable_weights)
    assert [v.shape for v in trained] == [(16, 2), (2, 24), (24, 2), (2, 24), (24, 2), (2, 4)]
    fit(adapted, eager=False)
    assert all(np.array_equal(a, b) for a, b in zip(frozen, values(adapted.non_trainable_weights), strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(trained, values(adapted.trainable_weights), strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(user, values(model.weights), strict=True))


def test_selected_layers_learn_and_the_others_have_a_reason():
    adapted = tfc.add_lora(network(), 4, select=["first", "head"])
    rows = {row.name: row.done for row in tfc.summary(adapted).rows}
    assert rows == {
        "first": "kernel adapter 'default' (rank 4)",
        "norm": "no adapter: not selected",
        "second": "no adapter: not selected",
        "head": "no adapter: rank 4 does not pay for kernel (24 x 4)",  # 4 * (24 + 4) >= 24 * 4
    }
    assert len(adapted.trainable_weights) == 2
    rows = {row.name: row.done for row in tfc.summary(tfc.add_lora(network(), 2, alpha=8, base="nf4")).rows}
    assert rows["first"] == "kernel nf4 base then adapter 'default' (rank 2, alpha 8)"
    assert rows["norm"] == "no adapter: has no matrix"


def test_layers_that_are_to_be_trained_whole_are_and_the_base_keeps_them():
    model = network()
    adapted = tfc.add_lora(model, 2, select="first", train=["head", "norm"])
    shapes = [tuple(w.shape) for w in adapted.trainable_weights]
    assert sorted(shapes) == sorted([(16, 2), (2, 24), (24,), (24,), (24, 4), (4,)])  # A, B; gamma, beta; head
    fit(adapted)
    head = adapted.get_layer("head")
    np.testing.assert_array_equal(head.layer.get_weights()[0], model.get_layer("head").get_weights()[0])
    assert not np.array_equal(head.kernel, model.get_layer("head").get_weights()[0])
    mean = adapted.get_layer("norm").get_weights()[2]
    assert mean.any(), "a normalization that is trained keeps its statistics"
    assert "trained itself" in adapted.notes["norm"]


@pytest.mark.parametrize("base", [None, "int4"])
def test_statistics_are_no_weights_of_an_adapter(base):
    one = tfc.add_lora(closed_network(), 2, base=base, name="one")
    assert {weight for wrapper, weight, _ in members(one, "one") if wrapper.name == "closed"} == {"kernel"}
    for model in (one, tfc.add_lora(closed_network(), 2, base=base, select="head", name="one")):
        with pytest.raises(ValueError, match=r"`train` must not select 'closed' in a model that has adapters \(one\)"):
            tfc.add_lora(model, 2, train="closed", name="two")


def test_a_layer_whose_matrix_is_packed_is_trained_whole():
    one = tfc.add_lora(network(), 2, base="int4", name="one")
    two = tfc.add_lora(one, 2, select="first", train="head", name="two")
    assert sorted(tuple(w.shape) for w in two.trainable_weights) == [(2, 24), (4,), (16, 2), (24, 4)]
    np.testing.assert_allclose(two(X), one(X), atol=1e-5)  # both compute what the base does


def test_layers_called_twice_have_one_adapter():
    inputs, shared = keras.Input((8,)), layers.Dense(8, name="shared")
    model = keras.Model(inputs, shared(shared(inputs)))
    adapted = stir(tfc.add_lora(model, 2))
    assert len(adapted.trainable_weights) == 2
    a, b = adapted.trainable_weights
    kernel, bias = shared.get_weights()
    kernel = kernel + np.asarray(a) @ np.asarray(b)
    x = X[:, :8]
    np.testing.assert_allclose(adapted(x), (x @ kernel + bias) @ kernel + bias, atol=1e-4)


INSIDE = ["nested", "structures", "cross_attention", "gru", "time", "dictionary", "adds_loss", "tied"]


@pytest.mark.parametrize("name", INSIDE)
def test_composites_are_adapted_inside(name):
    model, x = make(name)
    adapted = tfc.add_lora(model, 1, base="nf4")
    plain = tfc.merge_lora(stir(adapted))
    for a, b in zip(tf.nest.flatten(plain(x)), tf.nest.flatten(adapted(x)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_the_projections_of_attention_are_adapted():
    inputs = keras.Input((5, 12))
    attention = layers.MultiHeadAttention(3, 8, name="attention")
    model = keras.Model(inputs, attention(inputs, inputs))
    adapted = tfc.add_lora(model, 2, select="attention/*", base="int4")
    before, after = tfc.summary(model), tfc.summary(adapted)
    assert (after.macs, after.parameters, after.bytes_before) == (before.macs, before.parameters, before.bytes_before)
    rows = {row.name.split(".")[-1]: row.done for row in tfc.summary(adapted).rows if "adapter '" in row.done}
    assert set(rows) == {"query", "key", "value", "attention_output"}
    assert sorted(tuple(w.shape) for w in adapted.trainable_weights) == [
        (2, 12), (2, 24), (2, 24), (2, 24), (12, 2), (12, 2), (12, 2), (24, 2)]  # fmt: skip


def test_what_a_closed_composite_holds_is_adapted_too():
    class Twice(layers.Layer):
        """Adds a loss in its call, so that it stays closed."""

        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.inner = layers.Dense(16, name="inner")

        def call(self, x):
            y = self.inner(x)
            self.add_loss(tf.reduce_mean(tf.convert_to_tensor(y)) if not hasattr(keras, "ops") else keras.ops.mean(y))
            return y

        def compute_output_shape(self, shape):
            return shape

    inputs = keras.Input((16,))
    model = keras.Model(inputs, Twice(name="twice")(inputs))
    adapted = tfc.add_lora(model, 2, base="int4")
    assert len(adapted.trainable_weights) == 2
    assert adapted.notes["twice"] == "base in float32: a closed composite"
    np.testing.assert_allclose(tfc.merge_lora(stir(adapted))(X), adapted(X), atol=1e-5)


@pytest.mark.parametrize("base", [None, "int4"])
def test_what_is_tied_stays_tied(base):
    model, x = language_model()
    adapted = tfc.add_lora(model, 2, base=base)
    assert [tuple(w.shape) for w in adapted.trainable_weights] == [(32, 2), (2, 32)] * 2
    assert "no adapter: embeddings is tied to 'out'" in adapted.notes["table"]
    assert ("base in float32: embeddings is tied to 'table'" in adapted.notes["out"]) == (base is not None)
    np.testing.assert_allclose(adapted(x), model(x), atol=0.1 * np.abs(model(x)).max() if base else 0)
    merged = tfc.merge_lora(stir(adapted))
    np.testing.assert_allclose(merged(x), adapted(x), atol=1e-5)
    assert merged.count_params() == 50 * 32 + 32 * 32 + 32 + 32 * 32
    merged.get_layer("middle").set_weights([np.eye(32), np.zeros(32)])
    before, table = np.asarray(merged(x)), merged.get_layer("table")
    table.set_weights([2 * table.get_weights()[0]])
    np.testing.assert_allclose(merged(x), 4 * before, rtol=1e-4, atol=1e-6)  # x W M W^T: both ends see the table
    for train in ("table", "out"):
        with pytest.raises(ValueError, match=rf"`train` must not select '{train}'.*embeddings is tied to"):
            tfc.add_lora(model, 2, train=train)


def test_numbers_of_numpy_are_numbers(tmp_path):
    adapted = tfc.add_lora(network(), np.int64(2), np.float32(0.5))
    ((_, _, adapter), *_) = members(adapted, "default")
    assert (type(adapter.rank), type(adapter.alpha)) == (int, float) and (adapter.rank, adapter.alpha) == (2, 0.5)
    adapted.save(tmp_path / "a.keras")  # JSON knows no numbers of NumPy
    for wrong in ({"rank": True}, {"rank": np.bool_(True)}, {"rank": np.float32(2)}, {"rank": 2, "alpha": True}):
        with pytest.raises(ValueError, match=r"must be a .*number"):
            tfc.add_lora(network(), **wrong)


def test_what_is_wrong_is_said_with_what_was_given():
    model = network()
    cases = [
        ({"rank": 0}, r"`rank` must be a whole number >= 1. Received: rank=0"),
        ({"rank": 2.0}, r"`rank` must be a whole number"),
        ({"rank": 2, "alpha": -1}, r"`alpha` must be a finite number > 0.* Received: alpha=-1"),
        ({"rank": 2, "alpha": float("inf")}, r"`alpha` must be a finite number > 0.* Received: alpha=inf"),
        ({"rank": 2, "base": "int3"}, r"`base` must be None, 'int8', 'int4', 'nf4'. Received: base='int3'"),
        ({"rank": 2, "name": "a/b"}, r"`name` must consist of letters.* Received: name='a/b'"),
        ({"rank": 2, "select": "frist"}, r"`select` entry 'frist' selects no layer.* first"),
        ({"rank": 2, "train": "hed"}, r"`train` entry 'hed' selects no layer.* head"),
        ({"rank": 20}, r"must leave a matrix for an adapter.*first: no adapter: rank 20 does not pay for kernel"),
        ({"rank": 2, "select": "norm", "train": "head"}, r"`select` and `rank` must leave a matrix.*select='norm'"),
        ({"rank": 2, "select": "norm"}, r"must leave a matrix.*norm: no adapter: has no matrix"),
    ]
    for arguments, message in cases:
        with pytest.raises(ValueError, match=f"(?s){message}"):
            tfc.add_lora(model, **arguments)
    with pytest.raises(TypeError, match=r"must be a keras.Model"):
        tfc.add_lora("model", 2)
    with pytest.raises(ValueError, match=r"must not be quantized yet: add adapters, train, `tfcompress.merge_lora`"):
        tfc.add_lora(tfc.quantize_model(model), 2)
    model.get_layer("head").set_weights([np.full((24, 4), np.nan), np.zeros(4)])
    with pytest.raises(ValueError, match=r"not finite"):
        tfc.add_lora(model, 2)
