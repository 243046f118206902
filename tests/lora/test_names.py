"""Several adapters of one base, by name."""

import numpy as np
import pytest

import tfcompress as tfc
from tests.lora.small import X, Y, fit, network, stir, values
from tests.zoo import keras


def both():
    """Two adapters, of rank 2 on everything and of rank 3 on the first layer, each with a head of its own."""
    one = stir(tfc.add_lora(network(), 2, name="one", train="head", base="int8"), "one")
    return one, tfc.add_lora(one, 3, select="first", name="two", train="head")


def test_another_adapter_begins_at_the_base_and_leaves_the_first_as_it_was():
    one, two = both()
    assert (tfc.lora.adapters(two), tfc.lora.active(two)) == (["one", "two"], "two")
    np.testing.assert_allclose(two(X), tfc.add_lora(network(), 3, base="int8", train="head")(X), atol=1e-6)
    before = one.predict(X, verbose=0)
    fit(two, y=-Y, eager=False)
    tfc.lora.activate(two, "one")
    np.testing.assert_array_equal(two.predict(X, verbose=0), before)
    np.testing.assert_array_equal(one.predict(X, verbose=0), before)
    tfc.lora.activate(two, None)
    assert not two.trainable_weights
    np.testing.assert_allclose(
        two.predict(X, verbose=0), tfc.add_lora(network(), 3, base="int8", train="head")(X), atol=1e-5
    )


def test_only_the_adapter_in_force_is_trained():
    _, two = both()
    shapes = [tuple(w.shape) for w in two.trainable_weights]
    assert sorted(shapes) == [(3, 24), (4,), (16, 3), (24, 4)]
    frozen = values(two.non_trainable_weights)
    fit(two)
    assert all(np.array_equal(a, b) for a, b in zip(frozen, values(two.non_trainable_weights), strict=True))
    tfc.lora.activate(two, "one")
    assert sorted(tuple(w.shape) for w in two.trainable_weights) == sorted(
        [(16, 2), (2, 24), (24, 2), (2, 24), (24, 4), (4,)]
    )


def test_switching_reaches_compiled_functions():
    _, two = both()
    stir(stir(two, "two"), "one", seed=9)
    fit(two, epochs=1, eager=False)
    evaluated = {}
    for name in ("one", "two", "one"):
        tfc.lora.activate(two, name)
        expected = float(np.mean((np.asarray(two(X)) - Y) ** 2))
        evaluated[name] = two.evaluate(X, Y, verbose=0)
        assert evaluated[name] == pytest.approx(expected, rel=1e-4)
    assert evaluated["one"] != pytest.approx(evaluated["two"], rel=1e-2)


def test_adapters_and_the_one_in_force_are_in_the_models_file(tmp_path):
    _, two = both()
    stir(stir(two, "two"), "one", seed=9)
    tfc.lora.activate(two, "one")
    two.save(tmp_path / "both.keras")
    loaded = keras.models.load_model(tmp_path / "both.keras")
    assert (tfc.lora.adapters(loaded), tfc.lora.active(loaded)) == (["one", "two"], "one")
    np.testing.assert_array_equal(loaded(X), two(X))
    for model in (loaded, two):
        tfc.lora.activate(model, "two")
    np.testing.assert_array_equal(loaded(X), two(X))
    assert [tuple(w.shape) for w in loaded.trainable_weights] == [tuple(w.shape) for w in two.trainable_weights]
    third = tfc.add_lora(loaded, 1, name="three")
    assert tfc.lora.adapters(third) == ["one", "two", "three"]
    fit(third)


def test_names_and_bases_that_do_not_fit_are_refused():
    one, two = both()
    with pytest.raises(ValueError, match=r"`name` must be new: 'network' has adapters \['one'\]. Received: name='one'"):
        tfc.add_lora(one, 2, name="one")
    with pytest.raises(ValueError, match=r"`base` must be left out.*\(int8\). Received: base='int4'"):
        tfc.add_lora(one, 2, name="two", base="int4")
    with pytest.raises(ValueError, match=r"an adapter of 'network': \['one', 'two'\], or None. Received: name='x'"):
        tfc.lora.activate(two, "x")
    with pytest.raises(ValueError, match=r"`model` must have adapters"):
        tfc.lora.activate(network(), None)
    with pytest.raises(ValueError, match=r"`train` must not select 'norm' in a model that has adapters"):
        tfc.add_lora(one, 2, name="two", train="norm")


@pytest.mark.parametrize("base", [None, "int4"])
def test_a_removed_adapter_takes_its_numbers_with_it(base, tmp_path):
    one = stir(tfc.add_lora(network(), 2, name="one", train="head", base=base), "one")
    two = stir(tfc.add_lora(one, 3, select="first", name="two", train="head"), "two", seed=9)
    before = two.predict(X, verbose=0)
    for gone, left, shapes in (("one", "two", [(3, 24), (4,), (16, 3), (24, 4)]),
                               ("two", "one", [(2, 24), (2, 24), (4,), (16, 2), (24, 2), (24, 4)])):  # fmt: skip
        alone = tfc.lora.remove(two, gone)
        assert tfc.lora.adapters(alone) == [left]
        assert tfc.lora.active(alone) == (None if gone == "two" else "two")
        tfc.lora.activate(alone, left)
        expected = before if left == "two" else one.predict(X, verbose=0)
        np.testing.assert_array_equal(alone.predict(X, verbose=0), expected)
        assert sorted(tuple(w.shape) for w in alone.trainable_weights) == sorted(shapes)
        alone.save(tmp_path / "alone.keras")
        loaded = keras.models.load_model(tmp_path / "alone.keras")
        np.testing.assert_array_equal(loaded.predict(X, verbose=0), expected)
        assert len(loaded.weights) < len(two.weights)
    np.testing.assert_array_equal(two.predict(X, verbose=0), before)
    with pytest.raises(ValueError, match="must be one of several adapters"):
        tfc.lora.remove(tfc.lora.remove(two, "one"), "two")
    with pytest.raises(ValueError, match="Received: name='three'"):
        tfc.lora.remove(two, "three")
