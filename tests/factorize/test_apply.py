"""A whole model: what pays becomes several layers, what does not says why, and the rest of its life goes on."""

import numpy as np
import pytest
import tensorflow as tf

import tfcompress as tfc
import tflite_export
from tests.factorize.exact import error
from tests.zoo import answers
from tfcompress.core import flavor
from tfcompress.core.macs import macs_of
from tfcompress.core.replay import calls
from tfcompress.factorize import spectrum

keras = tf.keras
layers = keras.layers


def planted(shape, rank, seed=0):
    """A kernel [..., inputs, outputs] of low rank as a matrix from window and inputs to outputs."""
    rng = np.random.default_rng(seed)
    rows = int(np.prod(shape[:-1]))
    return (rng.normal(size=(rows, rank)) @ rng.normal(size=(rank, shape[-1]))).reshape(shape) / np.sqrt(rows * rank)


def network(ranks=(3, 4, 5)):
    """Convolution, strided convolution, dense; their kernels of these ranks."""
    inputs = keras.Input((12, 12, 3))
    x = layers.Conv2D(24, 3, padding="same", activation="relu", name="first")(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(32, 3, strides=2, use_bias=False, name="second")(x)))
    x = layers.Dense(40, activation="relu", name="third")(layers.Flatten()(x))
    model = keras.Model(inputs, layers.Dense(5, activation="softmax", name="head")(x))
    for name, rank in zip(("first", "second", "third"), ranks, strict=True):
        layer = model.get_layer(name)
        layer.kernel.assign(planted(tuple(layer.kernel.shape), rank))
    return model


X = np.random.default_rng(1).normal(size=(48, 12, 12, 3)).astype("float32")
Y = np.random.default_rng(2).integers(0, 5, 48)


def macs(model):
    return sum(macs_of(call) or 0 for call in calls(model))


def done(model):
    return {row.name: row.done for row in tfc.summary(model).rows}


def test_a_model_of_low_rank_is_the_same_and_smaller():
    model = network()
    before = [w.copy() for w in model.get_weights()]
    small = tfc.factorize_model(model, {"error": 1e-3}, method="svd")
    assert error(model, small, X) < 1e-4
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert [layer.name for layer in small.layers if "." in layer.name] == ["first.core", "second.core", "third.reduce"]
    ranks = {name: small.get_layer(name).output.shape[-1] for name in ("first.core", "second.core", "third.reduce")}
    assert ranks == {"first.core": 3, "second.core": 4, "third.reduce": 5}
    assert small.count_params() < 0.25 * model.count_params() and macs(small) < 0.4 * macs(model)


def test_every_layer_says_what_was_done_or_why_not():
    said = done(tfc.factorize_model(network(), 4, method="svd"))
    # 9 * 24 * 32 = 6,912 numbers become 9 * 24 * 4 + 4 * 32 = 992, at 5 x 5 places.
    assert said["second"].startswith("svd, rank 4, kernel error 0.0%, parameters 6,912 → 992, MACs 172,800 → 24,800")
    assert said["second.core"] == "part of second"
    # 40 * 5 = 200 numbers would become 40 * 4 + 4 * 5 = 180, so it pays; at rank 5 it would take 225.
    assert said["head"].startswith("svd, rank 4")
    assert done(tfc.factorize_model(network(), 5, method="svd"))["head"] == (
        "full rank kept: does not pay: svd, rank 5 would take 225 parameters of 200")  # fmt: skip


def test_a_model_that_nothing_pays_in_comes_back_as_it_is():
    model = network()
    same = tfc.factorize_model(model, 1.0)
    assert error(model, same, X) < 1e-6 and same.count_params() == model.count_params()
    assert all(done(same)[name].startswith("full rank kept: does not pay") for name in ("first", "third", "head"))


@pytest.mark.parametrize("method", ["svd", "tucker2", "cp", "spatial", "channel", "depthwise", "auto"])
def test_every_method_makes_a_model_that_trains(method):
    model = network((2, 2, 2))
    small = tfc.factorize_model(model, 2, method=method)
    assert small.count_params() < model.count_params() and small.output_shape == model.output_shape
    small.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=method != "auto")
    before = [np.array(w) for w in small.trainable_weights]
    small.fit(X, Y, verbose=0)
    moved = [np.any(np.array(w) != old) for w, old in zip(small.trainable_weights, before, strict=True)]
    assert all(moved)


def test_rules_give_the_ranks_of_their_formulas():
    model = network()
    rng = np.random.default_rng(0)
    w = model.get_layer("third").get_weights()[0]
    w = w + 0.002 * rng.normal(size=w.shape)
    model.get_layer("third").kernel.assign(w)
    values = np.linalg.svd(w, compute_uv=False)
    kept = np.cumsum(values**2) / np.sum(values**2)
    for rule, rank in (
        ({"energy": 0.9}, int(np.argmax(kept >= 0.9)) + 1),
        ({"error": 0.5}, int(np.argmax(1 - kept <= 0.25)) + 1),
        (0.25, 10), (7, 7), ("vbmf", 5),
    ):  # fmt: skip
        small = tfc.factorize_model(model, rule, select="third")
        assert small.get_layer("third.reduce").units == rank, rule


def test_ranks_by_name_leave_the_others():
    small = tfc.factorize_model(network(), {"first": 2, "th*": "vbmf"})
    said = done(small)
    assert said["first"].startswith("tucker2, ranks 2 and 2") and said["third"].startswith("svd, rank 5")
    assert said["second"] == said["head"] == "full rank kept: `rank` does not name it"
    assert done(tfc.factorize_model(network(), 2, select="first"))["second"] == "full rank kept: not selected"


@pytest.mark.parametrize(("budget", "with_data"), [
    ({"macs": 0.5}, False), ({"bytes": 0.4}, False), ({"params": 12000}, False), ({"macs": 0.6, "params": 0.5}, False),
    ({"macs": 0.5}, True),
])  # fmt: skip
def test_a_budget_is_held(budget, with_data):
    model = network((3, 30, 30))
    small = tfc.factorize_model(model, budget, data=X if with_data else None)
    found = {"macs": macs(small), "params": small.count_params(), "bytes": 4 * small.count_params()}
    whole = {"macs": macs(model), "params": model.count_params(), "bytes": 4 * model.count_params()}
    for kind, value in budget.items():
        limit = value * whole[kind] if value <= 1 else value
        assert 0.5 * limit < found[kind] <= limit


def test_a_budget_takes_from_what_has_low_rank():
    model = network((24, 32, 3))
    small = tfc.factorize_model(model, {"params": 0.5})
    said = done(small)
    assert said["second"] == said["first"] == "full rank kept: does not pay: the budget is held without it"
    assert said["third"].startswith("svd, rank") and error(model, small, X) < 1e-4


def test_a_budget_that_cannot_be_held_says_how_far_it_goes():
    with pytest.raises(ValueError, match=r"`rank`: at most .'macs': .* cannot be held: at the lowest ranks"):
        tfc.factorize_model(network(), {"macs": 0.001})


def test_several_windows_a_channel_must_be_asked_for():
    """Runtimes have fast kernels for one; with more, INT8 files are slower than the original."""
    rng = np.random.default_rng(0)
    inputs = keras.Input((8, 8, 16))
    model = keras.Model(inputs, layers.Conv2D(32, 5, name="conv")(inputs))
    for multiplier in (1, 2):
        windows, mixed = rng.normal(size=(5, 5, 16, multiplier)), rng.normal(size=(16, multiplier, 32))
        model.get_layer("conv").kernel.assign(np.einsum("hwim,imo->hwio", windows, mixed))
        asked = done(tfc.factorize_model(model, {"error": 0.01}, method="depthwise"))["conv"]
        assert asked.startswith(f"depthwise, rank {multiplier}, kernel error 0.0%")
        assert done(tfc.factorize_model(model, {"macs": 0.2}))["conv"].startswith("depthwise, rank 1, ")
        for_error = done(tfc.factorize_model(model, {"error": 0.01}))["conv"]
        assert for_error.startswith("depthwise, rank 1, ") == (multiplier == 1) and "depthwise, rank 2" not in for_error


def test_what_cannot_be_held_is_refused_before_anything_is_fitted(monkeypatch):
    monkeypatch.setattr(spectrum, "decompose", lambda *_: pytest.fail("fitted"))
    with pytest.raises(ValueError, match="cannot be held: at the lowest ranks"):
        tfc.factorize_model(network(), {"macs": 0.001}, data=X)


def test_data_weigh_what_the_layers_read():
    inputs = keras.Input((20,))
    model = keras.Model(inputs, layers.Dense(20, name="body")(inputs))
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(400, 20)) @ np.diag(np.r_[np.full(4, 5.0), np.full(16, 0.05)])).astype("float32")
    losses = []
    for data in (None, x):
        small = tfc.factorize_model(model, 4, data=data)
        losses.append(float(np.mean((answers(small, x) - answers(model, x)) ** 2)))
    assert losses[1] < 0.05 * losses[0]
    assert "output error" in done(tfc.factorize_model(model, 4, data=x))["body"]


def test_shared_layers_stay_shared_and_count_each_call():
    a, b = keras.Input((8, 16)), keras.Input((4, 16))
    dense = layers.Dense(16, name="both")
    model = keras.Model([a, b], layers.Concatenate(axis=1)([dense(a), dense(b)]))
    small = tfc.factorize_model(model, 2)
    assert len(small.weights) == 3
    assert "MACs 3,072 → 768" in done(small)["both"]  # 12 rows of 16 * 16 and of 2 * 2 * 16


def test_composites_subclasses_and_attention_are_opened():
    class Block(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.attention, self.up = layers.MultiHeadAttention(4, 8), layers.Dense(64, activation="gelu")
            self.down, self.norm = layers.Dense(32), layers.LayerNormalization()

        def call(self, x):
            y = self.norm(x)
            x = x + self.attention(y, y)
            return x + self.down(self.up(x))

    inputs = keras.Input((10, 32))
    model = keras.Model(inputs, Block(name="block")(inputs))
    small = tfc.factorize_model(model, 4)
    said = [text for text in done(small).values() if text.startswith("svd, rank 4")]
    assert len(said) == 6
    assert small.count_params() < 0.5 * model.count_params()


def test_masks_go_through_a_factorized_table():
    inputs = keras.Input((6,), dtype="int32")
    x = layers.LSTM(5)(layers.Embedding(50, 16, mask_zero=True, name="table")(inputs))
    model = keras.Model(inputs, layers.Dense(3)(x))
    table = model.get_layer("table")
    table.embeddings.assign(planted((50, 16), 3))
    small = tfc.factorize_model(model, 3, select="table")
    ids = np.array([[4, 7, 0, 0, 0, 0], [1, 2, 3, 4, 5, 6]])
    assert error(model, small, ids) < 1e-4
    assert done(small)["table"].startswith("svd, rank 3")
    assert any("LSTM has no low-rank form here" in said for said in done(tfc.factorize_model(model, 3)).values())


def test_frozen_layers_regularizers_and_names_of_outputs_stay():
    inputs = keras.Input((32,))
    body = layers.Dense(32, name="body", trainable=False)(inputs)
    head = layers.Dense(32, name="head", kernel_regularizer="l2", bias_constraint="non_neg",
                        kernel_constraint="unit_norm")(body)  # fmt: skip
    small = tfc.factorize_model(keras.Model(inputs, head), 4)
    assert not small.get_layer("body").trainable and not small.get_layer("body.reduce").trainable
    assert small.get_layer("head").trainable and small.get_layer("head").bias_constraint is not None
    assert len(small.losses) == 2
    assert done(small)["head"].endswith("; the constraint of its kernel is dropped")
    small.compile("sgd", "mse", run_eagerly=True)
    small.fit(X.reshape(48, -1)[:, :32], X.reshape(48, -1)[:, :32], verbose=0)


def test_twice_gives_new_names():
    once = tfc.factorize_model(network((3, 30, 30)), 24, method="svd", select=["second", "third"])
    twice = tfc.factorize_model(once, 4, method="svd")
    names = [layer.name for layer in twice.layers]
    assert len(set(names)) == len(names) and {"second.core.core", "third.reduce.reduce"} <= set(names)


def test_saved_and_loaded_it_is_the_same(tmp_path):
    small = tfc.factorize_model(network(), 4)
    small.save(tmp_path / "small.keras")
    loaded = keras.models.load_model(tmp_path / "small.keras")
    assert error(small, loaded, X) < 1e-6 and done(loaded) == done(small)


def test_factorized_then_pruned_then_quantized_then_a_file_of_integers():
    small = tfc.factorize_model(network(), 4, method="svd")
    small.compile("adam", "sparse_categorical_crossentropy")
    pruning = tfc.prune.Pruning(tfc.prune.ConstantSparsity(0.5, begin_step=0, frequency=1), select="third*")
    small.fit(X, Y, epochs=2, verbose=0, callbacks=[pruning])
    assert np.mean(small.get_layer("third.reduce").get_weights()[0] == 0) == pytest.approx(0.5, abs=0.02)
    quantized = tfc.quantize_model(small)
    names = [layer.name for layer in quantized.layers]
    assert {"first.core_range", "second.core_range", "third.reduce_range"} <= set(names)  # a range in the middle
    quantized.compile("adam", "sparse_categorical_crossentropy")
    quantized.fit(X, Y, verbose=0)
    final = tfc.finalize(quantized)
    assert np.mean(final.get_layer("third.reduce").get_weights()[0] == 0) >= 0.48
    file = tflite_export.export(quantized, "int8", calibration=X)
    description = tflite_export.describe(file)
    assert not description.float_operations()
    assert description.macs() == macs(small)
    agreement = np.mean(np.argmax(tflite_export.Runner(file)(X), -1) == np.argmax(answers(final, X), -1))
    assert agreement >= 0.9


def test_what_is_held_or_quantized_is_refused_or_left():
    model = network()
    pruning = tfc.prune.Pruning(tfc.prune.OneShot(0.5), select="third")
    pruning.attach(model)
    said = done(tfc.factorize_model(model, 4))
    assert "factorize before pruning" in said["third"] and said["second"].startswith("tucker2")
    with pytest.raises(ValueError, match="factorize before quantize"):
        tfc.factorize_model(tfc.quantize_model(network()), 4)


def test_layers_without_a_low_rank_form_say_so():
    inputs = keras.Input((8, 8, 4))
    x = layers.DepthwiseConv2D(3, name="alone")(inputs)
    x = layers.Conv2D(8, 3, groups=2, name="groups")(x)
    x = layers.Conv2DTranspose(8, 3, name="up")(x)

    class Own(layers.Dense):
        pass

    model = keras.Model(inputs, Own(8, name="own")(x))
    said = done(tfc.factorize_model(model, 2))
    assert said["groups"] == "full rank kept: it has 2 groups"
    assert said["alone"].endswith("DepthwiseConv2D has no low-rank form here")
    assert said["up"].endswith("Conv2DTranspose has no low-rank form here")
    assert said["own"].endswith("Own has no low-rank form here")


@pytest.mark.parametrize(("rank", "kind", "message"), [
    (0, ValueError, "`rank` must be a whole number of at least 1 or a ratio"),
    (1.5, ValueError, "ratio in"), (True, TypeError, "`rank` must be a number"), ("much", TypeError, "'vbmf'"),
    ({}, ValueError, "a budget"), ({"macs": 0.5, "first": 3}, ValueError, "not both"),
    ({"energy": 1.5}, ValueError, r"`rank\['energy'\]` must be in \(0, 1\)"),
    ({"macs": 0}, ValueError, r"`rank\['macs'\]` must be a fraction"),
    ({"params": float("inf")}, ValueError, r"`rank\['params'\]` must be a fraction .* Received: inf"),
    ({"bytes": np.float32("nan")}, ValueError, r"`rank\['bytes'\]` must be a fraction"),
    ({3: 4}, TypeError, "names of layers as keys"), ({"nothing": 4}, ValueError, "selects no layer"),
])  # fmt: skip
def test_wrong_ranks_are_refused(rank, kind, message):
    with pytest.raises(kind, match=message):
        tfc.factorize_model(network(), rank)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="`method` must be 'auto' or one of svd, tucker2"):
        tfc.factorize_model(network(), 4, method="magic")
    with pytest.raises(TypeError, match=r"`model` must be a keras.Model"):
        tfc.factorize_model(3, 4)
    with pytest.raises(ValueError, match="selects no layer"):
        tfc.factorize_model(network(), 4, select="nothing")
    with pytest.raises(ValueError, match="`data` for input"):
        tfc.factorize_model(network(), 4, data=np.zeros((4, 3, 3, 3)))


@pytest.mark.parametrize("rank", [4, {"error": 0.3}, {"params": 0.6}])
def test_activations_that_overflow_are_refused_by_name(rank):
    inputs = keras.Input((24,))
    x = layers.Dense(24, name="loud", kernel_initializer=keras.initializers.Constant(1e30))(inputs)
    model = keras.Model(inputs, layers.Dense(24, name="deaf")(layers.ReLU()(x)))
    x = np.full((8, 24), 1e20, "float32")
    with pytest.raises(ValueError, match=r"`data` must give finite numbers .* infinity at the input of 'deaf'"):
        tfc.factorize_model(model, rank, data=x)
    assert done(tfc.factorize_model(model, 4, data=x, select="loud"))["loud"].startswith("svd, rank 4")


@flavor.register
class Tied(layers.Layer):
    """Scores of words by the table that they were looked up in."""

    def __init__(self, table, **kwargs):
        super().__init__(**kwargs)
        self.table = table

    def call(self, x):
        return tf.matmul(x, tf.convert_to_tensor(self.table.embeddings), transpose_b=True)


def test_a_table_that_two_layers_read_stays_whole():
    table = layers.Embedding(60, 16, name="words")
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Dense(16, name="body")(table(inputs))
    model = keras.Model(inputs, Tied(table, name="scores")(x))
    small = tfc.factorize_model(model, 2)
    assert small.count_params() == model.count_params() - 16 * 16 + 2 * 2 * 16
    assert done(small)["words"] == "full rank kept: its embeddings is also that of 'scores'"


def test_a_budget_of_a_model_in_which_nothing_may_change_says_why():
    adapted = tfc.add_lora(keras.Sequential([keras.Input((32,)), layers.Dense(32, name="body")]), 2)
    with pytest.raises(ValueError, match=r"no layer of .* may change. body: .*`tfcompress.finalize` or `merge_lora`"):
        tfc.factorize_model(adapted, {"params": 0.5})


def test_bytes_are_those_of_the_type_that_holds_them():
    inputs = x = keras.Input((64,))
    for _ in range(3):
        x = layers.Dense(64, activation="relu", dtype="float16")(x)
    model = keras.Model(inputs, x)
    small = tfc.factorize_model(model, {"bytes": 0.5})
    sizes = [sum(np.asarray(w).nbytes for w in one.get_weights()) for one in (model, small)]
    assert 0.4 * sizes[0] < sizes[1] <= 0.5 * sizes[0]


def test_a_budget_of_what_is_not_known_is_refused():
    inputs = keras.Input((None, 64))
    x = layers.GlobalAveragePooling1D()(layers.Dense(64, name="along")(inputs))
    model = keras.Model(inputs, layers.Dense(64)(x))
    with pytest.raises(ValueError, match="the model's macs are not known, those of along, as with inputs of any size"):
        tfc.factorize_model(model, {"macs": 0.5})
    assert tfc.factorize_model(model, {"params": 0.5}).count_params() <= 0.5 * model.count_params()


def test_data_may_be_a_generator_and_of_any_length():
    rng = np.random.default_rng(0)
    inputs = keras.Input((None, 24))
    model = keras.Model(inputs, layers.Dense(24)(layers.Dense(24)(inputs)))
    batches = [rng.normal(size=(4, length, 24)).astype("float32") for length in (3, 7, 5)]
    small = tfc.factorize_model(model, {"params": 0.6}, data=(batch for batch in batches))
    assert small.count_params() <= 0.6 * model.count_params()


def test_outputs_of_any_length_are_one_channel():
    rng = np.random.default_rng(0)
    inputs = keras.Input((None, 24))
    x = layers.Dense(1)(layers.Dense(24, activation="relu")(inputs))
    model = keras.Model(inputs, layers.Reshape((-1,))(x))
    assert model.output_shape == (None, None)
    batches = [rng.normal(size=(4, length, 24)).astype("float32") for length in (3, 7, 5)]
    small = tfc.factorize_model(model, {"params": 0.6}, data=batches)
    assert small.count_params() <= 0.6 * model.count_params()


@pytest.mark.parametrize(("rank", "expected"), [({"error": 1e-3}, 4), ({"params": 0.05}, 4)])
def test_very_low_ranks_are_found(rank, expected):
    rng = np.random.default_rng(0)
    model = keras.Sequential([keras.Input((256,)), layers.Dense(256, use_bias=False, name="body")])
    model.set_weights([(rng.normal(size=(256, 4)) @ rng.normal(size=(4, 256))).astype("float32")])
    assert tfc.factorize_model(model, rank).layers[-2].units == expected


def test_errors_find_the_ranks_of_both_sides():
    rng = np.random.default_rng(0)
    kernel = np.einsum("ia,hwab,bo->hwio", rng.normal(size=(24, 3)), rng.normal(size=(3, 3, 3, 5)),
                       rng.normal(size=(5, 32)))  # fmt: skip
    model = keras.Sequential([keras.Input((8, 8, 24)), layers.Conv2D(32, 3, use_bias=False, name="body")])
    model.set_weights([kernel.astype("float32")])
    small = tfc.factorize_model(model, {"error": 1e-3}, method="tucker2")
    assert done(small)["body"].startswith("tucker2, ranks 3 and 5")


def test_numbers_of_numpy_are_numbers():
    model = network()
    plain, numpy = (tfc.factorize_model(model, rank) for rank in (3, np.int64(3)))
    assert [w.shape for w in plain.get_weights()] == [w.shape for w in numpy.get_weights()]
    assert tfc.factorize_model(model, np.float32(0.25)).count_params() < model.count_params()


def test_a_method_that_does_not_fit_the_window_says_so():
    model = keras.Sequential([keras.Input((9, 4)), layers.Conv1D(32, 3, name="body")])
    said = done(tfc.factorize_model(model, 2, method="spatial"))["body"]
    assert said == "full rank kept: the method is not for its window, strides and padding"


def test_a_tables_regularizer_of_activity_sees_its_output():
    model = keras.Sequential([keras.Input((5,), dtype="int32"),
                              layers.Embedding(80, 32, activity_regularizer=keras.regularizers.L1(1.0), name="words")])
    small = tfc.factorize_model(model, 4)
    x = np.arange(10).reshape(2, 5)
    shares = [np.abs(np.asarray(one(x))).sum() / float(sum(one.losses)) for one in (model, small)]
    assert shares[0] == pytest.approx(shares[1], rel=1e-4)
