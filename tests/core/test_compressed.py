"""Notes ride on a Functional model and change nothing about it."""

import numpy as np

from tests.zoo import ZOO, keras, layers
from tfcompress.core.compressed import Compressed, noted


def model_of(name="plain"):
    inputs = keras.Input((3,), name="image")
    return keras.Model(inputs, layers.Dense(2, name="head")(inputs), name=name)


def test_notes_are_added_and_the_graph_is_the_same():
    model = model_of()
    found = noted(model, {"head": "not selected"})
    assert isinstance(found, Compressed) and found.name == "plain"
    assert found.notes == {"head": "not selected"}
    assert found.layers == model.layers  # shared, not copied
    x = np.ones((2, 3), "float32")
    np.testing.assert_array_equal(found(x), model(x))


def test_later_notes_join_earlier_ones_and_win():
    first = noted(model_of(), {"a": "one", "b": "two"})
    second = noted(first, {"b": "three", "c": "four"})
    assert second.notes == {"a": "one", "b": "three", "c": "four"}
    assert first.notes == {"a": "one", "b": "two"}


def test_a_class_without_notes_shares_none():
    assert Compressed.notes == {}
    noted(model_of(), {"a": "one"})
    assert Compressed.notes == {}


def test_notes_and_weights_go_through_a_file(tmp_path):
    found = noted(model_of(), {"head": "not selected"})
    found.compile("sgd", "mse")
    found.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded) is Compressed and loaded.notes == {"head": "not selected"}
    for a, b in zip(found.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_notes_are_in_the_config():
    found = noted(model_of(), {"head": "not selected"})
    assert found.get_config()["notes"] == {"head": "not selected"}
    again = Compressed.from_config(found.get_config())
    assert again.notes == found.notes and [layer.name for layer in again.layers] == ["image", "head"]


def test_structures_of_inputs_and_outputs_stay():
    for entry in ("shared", "two_headed"):
        model, x = ZOO[entry]()
        found = noted(model, {})
        expected, out = model.predict(x, verbose=0), found.predict(x, verbose=0)
        if isinstance(expected, dict):
            assert set(out) == set(expected)
            expected, out = [expected[k] for k in expected], [out[k] for k in expected]
        np.testing.assert_array_equal(np.concatenate(out, -1), np.concatenate(expected, -1))


def test_it_trains():
    found = noted(model_of(), {})
    before = found.get_weights()
    found.compile("sgd", "mse", run_eagerly=True)
    found.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
    assert all(np.abs(a - b).max() > 0 for a, b in zip(before, found.get_weights(), strict=True))
