"""Adapters alone in a file."""

import json

import numpy as np
import pytest
import tensorflow as tf

import tfcompress as tfc
from tests.lora.small import X, closed_network, network, stir
from tests.zoo import keras, layers


@pytest.mark.parametrize("base", [None, "nf4"])
def test_a_plain_model_and_a_file_make_the_adapted_model(base, tmp_path):
    adapted = stir(tfc.add_lora(network(), 2, alpha=4, base=base, train=["head", "norm"], name="task"), "task")
    norm = adapted.get_layer("norm")
    norm.set_weights([w + 0.5 for w in norm.get_weights()])
    tfc.lora.save(adapted, tmp_path / "task.npz")
    loaded = tfc.lora.load(network(), tmp_path / "task.npz")
    np.testing.assert_array_equal(loaded(X), adapted(X))
    assert tfc.lora.active(loaded) == "task"
    assert [tuple(w.shape) for w in loaded.trainable_weights] == [tuple(w.shape) for w in adapted.trainable_weights]
    named = tfc.lora.load(network(), tmp_path / "task.npz", name="other", base=None)
    assert tfc.lora.adapters(named) == ["other"]
    assert {w.dtype for w in map(np.asarray, named.weights)} == {np.dtype("float32")}


def test_the_file_holds_the_learned_arrays_and_what_they_are(tmp_path):
    adapted = stir(tfc.add_lora(network(), 2, base="int4", select="first", train="head"))
    tfc.lora.save(adapted, tmp_path / "a")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    with np.load(tmp_path / "a") as file:
        about, arrays = json.loads(str(file["about"])), {k: file[k] for k in file.files if k != "about"}
    assert (about["format"], about["name"], about["base"]) == ("tfcompress adapters 1", "default", "int4")
    assert [(e["layer"], e["weight"], e["adapter"]["rank"]) for e in about["entries"]] == [
        ("first", "kernel", 2), ("head", "kernel", None), ("head", "bias", None)]  # fmt: skip
    assert {k: a.shape for k, a in arrays.items()} == {
        "0/a": (16, 2), "0/b": (2, 24), "1/whole": (24, 4), "2/whole": (4,)}  # fmt: skip
    for array, weight in zip(arrays.values(), adapted.trainable_weights, strict=True):
        np.testing.assert_array_equal(array, np.asarray(weight))


def test_files_join_an_adapted_model_or_overwrite_an_adapter_of_it(tmp_path):
    for name, seed in (("one", 1), ("two", 2)):
        tfc.lora.save(stir(tfc.add_lora(network(), 2, alpha=seed, base="int8", name=name), name, seed), tmp_path / name)
    expected = {name: np.asarray(tfc.lora.load(network(), tmp_path / name)(X)) for name in ("one", "two")}
    both = tfc.lora.load(tfc.lora.load(network(), tmp_path / "one"), tmp_path / "two")
    for name in ("one", "two"):
        tfc.lora.activate(both, name)
        np.testing.assert_array_equal(both(X), expected[name])
    fresh = tfc.add_lora(network(), 2, base="int8", name="one")
    before = np.asarray(fresh(X))
    np.testing.assert_array_equal(tfc.lora.load(fresh, tmp_path / "two", name="one")(X), expected["two"])
    np.testing.assert_array_equal(fresh(X), before)


def with_statistics(name, seed):
    """An adapter beside a normalization that is trained itself; numbers of their own in both."""
    adapted = stir(tfc.add_lora(network(), 2, train="norm", name=name), name, seed)
    norm = adapted.get_layer("norm")
    norm.set_weights([w + seed for w in norm.get_weights()])
    return adapted


@pytest.mark.parametrize("known", [["two"], ["one", "two"]])
def test_a_layer_that_was_trained_itself_is_not_changed_under_other_adapters(known, tmp_path):
    tfc.lora.save(with_statistics("one", 1), tmp_path / "one.npz")
    model = with_statistics(known[0], 2)
    for name in known[1:]:
        model = stir(tfc.add_lora(model, 2, name=name), name, 3)
    before = {}
    for name in (None, *known):
        tfc.lora.activate(model, name)
        before[name] = np.asarray(model(X))
    with pytest.raises(
        ValueError,
        match=r"`path` must not change 'norm' in a model that has adapters \(two\): it keeps statistics.*one\.npz'",
    ):
        tfc.lora.load(model, tmp_path / "one.npz")
    for name in (None, *known):
        tfc.lora.activate(model, name)
        np.testing.assert_array_equal(model(X), before[name])


def test_a_frozen_layer_is_not_trained_itself_under_other_adapters(tmp_path):
    tfc.lora.save(tfc.add_lora(network(), 2, train="norm", name="one"), tmp_path / "one.npz")
    with pytest.raises(ValueError, match=r"`path` must not change 'norm' in a model that has adapters \(two\)"):
        tfc.lora.load(tfc.add_lora(network(), 2, name="two"), tmp_path / "one.npz")


def test_a_layer_that_was_trained_itself_replaces_the_one_of_the_same_adapter(tmp_path):
    saved = with_statistics("one", 1)
    tfc.lora.save(saved, tmp_path / "one.npz")
    loaded = tfc.lora.load(with_statistics("one", 2), tmp_path / "one.npz")
    np.testing.assert_array_equal(loaded(X), saved(X))
    assert loaded.get_layer("norm").trainable


def test_adapters_that_share_a_layer_that_was_trained_itself_join_again(tmp_path):
    both = stir(tfc.add_lora(with_statistics("one", 1), 2, name="two"), "two", 2)
    for name in ("one", "two"):
        tfc.lora.save(both, tmp_path / name, name)
    loaded = tfc.lora.load(tfc.lora.load(network(), tmp_path / "one"), tmp_path / "two")
    for model in (loaded, tfc.lora.load(loaded, tmp_path / "one")):
        for name in ("one", "two"):
            tfc.lora.activate(both, name)
            tfc.lora.activate(model, name)
            np.testing.assert_array_equal(model(X), both(X))
            assert sorted(tuple(w.shape) for w in model.trainable_weights) == [
                (2, 4), (2, 24), (2, 24), (16, 2), (24, 2), (24, 2)]  # fmt: skip


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16", "float16"])
def test_own_weights_of_less_than_32_bits_survive(policy, tmp_path):
    keras.mixed_precision.set_global_policy(policy)
    try:
        adapted = stir(tfc.add_lora(closed_network(), 1, select="head", train="closed"))
        own = adapted.get_layer("closed").weights
        assert any(policy in str(w.dtype) for w in own) == (not policy.startswith("mixed"))
        for number, weight in enumerate(own):
            weight.assign(tf.cast(tf.fill(weight.shape, 1 + number / 8), weight.dtype))
        tfc.lora.save(adapted, tmp_path / "a.npz")
        with np.load(tmp_path / "a.npz") as file:
            saved = [file[key] for key in file.files if key.endswith("value")]
        assert sorted((array.dtype.name, float(array.flat[0])) for array in saved) == [
            ("float32", 1 + number / 8) for number in range(6)]  # fmt: skip
        loaded = tfc.lora.load(closed_network(), tmp_path / "a.npz")
        np.testing.assert_array_equal(tf.cast(loaded(X), "float32"), tf.cast(adapted(X), "float32"))
        assert [w.dtype for w in loaded.weights] == [w.dtype for w in adapted.weights]
    finally:
        keras.mixed_precision.set_global_policy("float32")


def test_a_layer_that_was_trained_itself_is_saved_without_adapters_that_it_got_later(tmp_path):
    one = stir(tfc.add_lora(closed_network(), 1, select="head", train="closed", name="one"), "one")
    closed = one.get_layer("closed")
    closed.set_weights([w + 0.5 for w in closed.get_weights()])
    two = stir(tfc.add_lora(one, 2, select="closed", name="two"), "two")
    tfc.lora.save(two, tmp_path / "one.npz", "one")
    np.testing.assert_array_equal(tfc.lora.load(closed_network(), tmp_path / "one.npz")(X), one(X))
    np.testing.assert_array_equal(tfc.lora.load(two, tmp_path / "one.npz")(X), one(X))


def test_an_adapter_of_a_layer_that_was_trained_itself_before_joins_it_or_a_plain_model(tmp_path):
    one = stir(tfc.add_lora(closed_network(), 1, select="head", train="closed", name="one"), "one")
    closed = one.get_layer("closed")
    closed.set_weights([w + 0.5 for w in closed.get_weights()])
    two = stir(tfc.add_lora(one, 2, select="closed", name="two"), "two")
    tfc.lora.save(two, tmp_path / "two.npz")
    plain = tfc.lora.load(closed_network(), tmp_path / "two.npz")
    for model in (one, two, closed_network(), plain):
        loaded = tfc.lora.load(model, tmp_path / "two.npz")
        np.testing.assert_array_equal(loaded(X), two(X))
        assert [tuple(w.shape) for w in loaded.trainable_weights] == [(16, 2), (2, 16)]
    tfc.lora.save(plain, tmp_path / "again.npz")
    np.testing.assert_array_equal(tfc.lora.load(closed_network(), tmp_path / "again.npz")(X), two(X))


def test_what_was_trained_itself_and_an_adapter_do_not_fit_each_other(tmp_path):
    """The same places in both files: weights of the closed layer itself, and an adapter of its matrix."""
    itself = tfc.add_lora(closed_network(), 1, select="head", train="closed")
    adapted = tfc.add_lora(closed_network(), 1)
    tfc.lora.save(itself, tmp_path / "itself.npz")
    tfc.lora.save(adapted, tmp_path / "adapted.npz")
    with pytest.raises(ValueError, match=r"(?s)of this model.*lacks \['closed/beta'.* the file lacks \['closed/kernel"):
        tfc.lora.load(adapted, tmp_path / "itself.npz")
    with pytest.raises(ValueError, match=r"(?s)of this model.*lacks \['closed/kernel'\] and the file lacks \[\]"):
        tfc.lora.load(itself, tmp_path / "adapted.npz")


def test_places_and_bases_that_there_are_not_are_refused(tmp_path):
    adapted = tfc.add_lora(network(), 2)
    with pytest.raises(FileNotFoundError, match=r"`path` must lie in a folder that exists.*nowhere"):
        tfc.lora.save(adapted, tmp_path / "nowhere" / "a.npz")
    tfc.lora.save(adapted, tmp_path / "a.npz")
    for model in (network(), adapted):
        with pytest.raises(ValueError, match=r"`base` must be one of 'saved', None.*'int3'"):
            tfc.lora.load(model, tmp_path / "a.npz", base="int3")


def test_what_does_not_fit_is_refused_with_the_difference(tmp_path):
    tfc.lora.save(tfc.add_lora(network(), 2), tmp_path / "a.npz")
    inputs = keras.Input((16,))
    x = layers.Dense(24, name="first")(inputs)
    other = keras.Model(inputs, layers.Dense(24, name="second")(x))
    with pytest.raises(ValueError, match=r"(?s)must hold an adapter of this model.*lacks \['head/kernel'\]"):
        tfc.lora.load(other, tmp_path / "a.npz")
    stranger = keras.Sequential([keras.Input((16,)), layers.Dense(24, name="other")], name="stranger")
    with pytest.raises(
        ValueError, match=r"(?s)of this model.*lacks \['first/kernel', 'head/kernel', 'second/kernel'\]"
    ):
        tfc.lora.load(stranger, tmp_path / "a.npz")
    narrow = keras.Sequential([keras.Input((16,)), *[layers.Dense(20, name=n) for n in ("first", "second", "head")]])
    with pytest.raises(ValueError, match=r"(?s)`path` must hold an adapter of this model's shapes.*first/kernel"):
        tfc.lora.load(narrow, tmp_path / "a.npz")
    with pytest.raises(ValueError, match=r"(?s)shapes.*first/kernel has .*\(16, 2\).* in place of .*\(16, 3\)"):
        tfc.lora.load(tfc.add_lora(network(), 3), tmp_path / "a.npz")
    with pytest.raises(ValueError, match=r"(?s)network' lacks \['head/kernel', 'second/kernel'\]"):
        tfc.lora.load(tfc.add_lora(network(), 2, select="first"), tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", numbers=np.zeros(3))
    (tmp_path / "c.npz").write_bytes(b"nothing of the kind")
    for name in ("b.npz", "c.npz"):
        with pytest.raises(ValueError, match=r"must be a file that `tfcompress.lora.save` has written"):
            tfc.lora.load(network(), tmp_path / name)
    with pytest.raises(FileNotFoundError):
        tfc.lora.load(network(), tmp_path / "none.npz")
    with pytest.raises(ValueError, match=r"`name` must be an adapter of 'network': \[\]. Received: name=None"):
        tfc.lora.save(network(), tmp_path / "d.npz")
