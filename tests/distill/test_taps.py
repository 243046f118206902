"""Tensors inside models: named, seen while the model computes, and gone without a trace."""

import numpy as np
import pytest
import tensorflow as tf

from tests.distill.models import X, compiled, dense, keras, layers, own
from tfcompress.core import flavor
from tfcompress.distill import Distiller, Features
from tfcompress.distill.taps import Scores, Seen, Tap, computed, tried, watched


def seen_by(model, wanted, x=X[:2]):
    tap, seen = Tap(model, wanted, "teacher"), Seen()
    outputs = computed(model, [tap], seen, x, training=False)
    return outputs, seen.values[tap.key]


def nested():
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(4, name="same")], name="inner")
    other = keras.Sequential([keras.Input((4,)), layers.Dense(2, name="same")], name="other")
    inputs = keras.Input((6,))
    return keras.Model(inputs, other(inner(inputs)), name="outer")


@pytest.mark.parametrize("wanted", ["hidden", 0, -2])
def test_a_layer_is_found_by_name_and_index(wanted):
    model = dense()
    kernel, bias = model.get_layer("hidden").get_weights()
    _, found = seen_by(model, wanted)
    np.testing.assert_allclose(found, np.maximum(X[:2] @ kernel + bias, 0), rtol=1e-5, atol=1e-6)


def test_layers_of_one_name_are_found_by_path_and_told_apart():
    model = nested()
    with pytest.raises(ValueError, match=r"'same', which is several; name it with its path"):
        Tap(model, "same", "teacher")
    taps, seen = [Tap(model, path, "teacher") for path in ("inner/same", "other/same")], Seen()
    computed(model, taps, seen, X[:2])
    assert [seen.values[tap.key].shape[-1] for tap in taps] == [4, 2]
    layer = model.get_layer("other").layers[-1]
    assert Tap(model, layer, "teacher").key == taps[1].key


def test_layers_of_a_subclassed_model_are_seen():
    model = own(5)
    assert seen_by(model, "first")[1].shape == (2, 5)
    assert tried(model, [])[0].shape == (1, 3)


def test_what_is_not_there_is_named():
    with pytest.raises(ValueError, match=r"`student` must name one layer.*'nowhere', which is none of: .*hidden"):
        Tap(dense(), "nowhere", "student")
    with pytest.raises(ValueError, match=r"index of one of 2 layers. Received: 5"):
        Tap(dense(), 5, "student")
    with pytest.raises(ValueError, match="must be a layer of"):
        Tap(dense(), dense().layers[1], "student")
    with pytest.raises(TypeError, match=r"its name, path or index. Received: 1.5"):
        Tap(dense(), 1.5, "student")


def test_a_layer_that_the_call_does_not_use_is_named():
    model = dense()
    model.extra = layers.Dense(1, name="extra")
    tap = Tap(model, "extra", "student")
    with pytest.raises(ValueError, match="does not use the layer 'extra'"):
        computed(model, [tap], Seen(), X[:2])


def attending():
    inputs = keras.Input((5, 4))
    x = layers.MultiHeadAttention(2, 3, name="attention")(inputs, inputs)
    return keras.Model(inputs, layers.Dense(2, name="out")(x))


@pytest.mark.parametrize("wanted", ["attention:scores", Scores("attention"), Scores(0)])
def test_attention_scores_sum_to_one(wanted):
    model = attending()
    x = np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32")
    outputs, scores = seen_by(model, wanted, x)
    assert scores.shape == (2, 2, 5, 5)
    np.testing.assert_allclose(np.sum(scores, -1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(outputs, model(x), rtol=1e-6)


def test_a_softmax_is_its_own_scores_and_a_dense_layer_has_none():
    softmax = keras.Sequential([keras.Input((6,)), layers.Softmax(name="softmax")])
    np.testing.assert_allclose(seen_by(softmax, Scores("softmax"))[1], tf.nn.softmax(X[:2]), rtol=1e-6)
    with pytest.raises(ValueError, match=r"attention layer, or the softmax of one. Received: 'hidden:scores', a Dense"):
        Tap(dense(), Scores("hidden"), "teacher")


def test_an_operation_between_layers_is_named():
    inputs = keras.Input((6,))
    hidden = layers.Dense(6, name="hidden")(inputs)
    added = inputs + hidden
    model = keras.Model(inputs, layers.Dense(2)(added))
    (name,) = [op.name for op, *_ in flavor.graph_nodes(model) if flavor.is_operation(op)]
    expected = X[:2] + model.get_layer("hidden")(X[:2])
    np.testing.assert_allclose(seen_by(model, name)[1], expected, rtol=1e-5)
    outer = keras.Sequential([keras.Input((6,)), keras.Model(inputs, model.output, name="inner")])
    np.testing.assert_allclose(seen_by(outer, f"inner/{name}")[1], expected, rtol=1e-5)
    student = dense(5)
    distiller = compiled(Distiller(model, student, Features(name, "hidden"), None, 0.0))
    distiller.fit(X, np.zeros(24), verbose=0)
    assert distiller.projections[0].kernel.shape == (5, 6)


def test_a_layer_of_several_outputs_is_named_with_a_number():
    inputs = keras.Input((5, 4))
    sequence, last, _ = layers.LSTM(3, return_sequences=True, return_state=True, name="lstm")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(last) + layers.Dense(2)(layers.GlobalAveragePooling1D()(sequence)))
    x = np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32")
    expected = model.get_layer("lstm")(x)
    for number in (0, 2):
        np.testing.assert_allclose(seen_by(model, f"lstm:{number}", x)[1], expected[number], rtol=1e-5, atol=1e-6)
    taps, seen = [Tap(model, f"lstm:{number}", "teacher") for number in (0, 1)], Seen()
    computed(model, taps, seen, x)
    assert [seen.values[tap.key].shape for tap in taps] == [(2, 5, 3), (2, 3)]
    for wrong in ("lstm", "lstm:3"):
        with pytest.raises(ValueError, match=r"'lstm' returns 3 tensors: name one .* from 'lstm:0' to 'lstm:2'"):
            seen_by(model, wrong, x)


def test_computations_that_overlap_leave_nothing_behind():
    """Replicas of a strategy begin and end in any order."""
    model = dense()
    layer = model.get_layer("hidden")
    tap, one, other = Tap(model, "hidden", "student"), Seen(), Seen()
    first, second = watched([tap], one), watched([tap], other)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert "call" in vars(layer)
    second.__exit__(None, None, None)
    assert not {"call", "compute_mask"} & set(vars(layer))


def test_an_error_inside_leaves_nothing_behind():
    model = dense()
    with pytest.raises(Exception, match=r"."):
        computed(model, [Tap(model, "hidden", "student")], Seen(), X[:2, :3])
    assert "call" not in vars(model.get_layer("hidden"))
