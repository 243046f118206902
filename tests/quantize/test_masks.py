"""What a mask hides has no part in a range: in training and in calibration."""

import functools
import warnings

import numpy as np
import pytest
import tensorflow as tf

import tfcompress
from tests.tflite_export.masked_models import KEEP, MODELS, SIZE, STEPS, by_hand, features, head
from tests.zoo import answers, keras, layers
from tfcompress.core.replay import calls
from tfcompress.core.trace import trace
from tfcompress.quantize.expand import expand
from tfcompress.quantize.masks import Masks
from tfcompress.quantize.quantizer import Quantizer, quantizers
from tfcompress.quantize.ranges import MaskedScores

rng = np.random.default_rng(0)


@functools.cache
def opened(name):
    """A model, and the same taken apart."""
    case = MODELS[name]()
    return case, expand(trace(case.model))


def masked_quantizers(model):
    return [q for q in quantizers(model) if isinstance(q.ranges, MaskedScores)]


def test_before_a_softmax_the_range_ends_where_all_positions_together_have_less_than_a_step():
    scores = rng.normal(0, 3, (5, 2, 7)).astype("float32")
    keep = rng.random((5, 2, 7)) > 0.4
    keep[0, 0] = False  # a row that is masked as a whole says nothing
    low, high = MaskedScores().ends(tf.constant(np.where(keep, scores, -np.inf)), False)
    sums = np.where(keep, np.exp(scores.astype("float64")), 0).sum(-1)
    assert float(high) == scores[keep].max()
    # N exp(low) = exp-sum / 256: as one 8-bit step of the row with the smallest sum
    assert float(low) == pytest.approx(np.log(sums[sums > 0].min() / 256 / 7), abs=1e-4)


def test_the_axis_is_that_of_the_softmax():
    scores = rng.normal(0, 3, (4, 6, 3)).astype("float32")
    low, _ = MaskedScores(axis=1).ends(tf.constant(scores), False)
    assert float(low) == pytest.approx(np.log(np.exp(scores.astype("float64")).sum(1).min() / 256 / 6), abs=1e-4)
    low, _ = MaskedScores(axis=(1, 2)).ends(tf.constant(scores), False)
    assert float(low) == pytest.approx(np.log(np.exp(scores.astype("float64")).sum((1, 2)).min() / 256 / 18), abs=1e-4)


def test_before_a_maximum_the_range_is_that_of_real_values():
    values = np.array([[1.0, -2.5, -np.inf, 3.0, -1e9]], "float32")
    assert [float(end) for end in MaskedScores(axis=None).ends(tf.constant(values), False)] == [-2.5, 3.0]


def step(quantizer, low, high=2.0):
    """A training step on two scores, one of which is masked; the range ends at `low`."""
    top = low + np.log(256 * 2)
    return quantizer(tf.constant([[min(top, high), -1e9]], tf.float32), training=True)


def test_the_lower_end_drops_at_once_and_rises_slowly():
    quantizer = Quantizer(MaskedScores(momentum=0.9))
    for low, expected in ((-5.0, -5.0), (-8.0, -8.0), (-6.0, -7.8)):  # -7.8 = 0.9 * -8 + 0.1 * -6
        step(quantizer, low)
        assert float(quantizer.observed[0]) == pytest.approx(expected, abs=1e-4)
    quantizer.freeze()
    step(quantizer, -20.0)
    assert float(quantizer.observed[0]) == pytest.approx(-7.8, abs=1e-4)


@pytest.mark.parametrize("hidden", [-1e9, -np.inf, np.finfo("float32").min])
def test_masked_scores_are_finite_and_have_no_gradient(hidden):
    quantizer = Quantizer(MaskedScores())
    scores = tf.Variable([[1.0, 2.0, hidden]])
    with tf.GradientTape() as tape:
        result = quantizer(scores, training=True)
    assert np.isfinite(result.numpy()).all()
    assert tape.gradient(result, scores).numpy().tolist() == [[1.0, 1.0, 0.0]]


def test_a_batch_that_is_masked_as_a_whole_leaves_the_range():
    quantizer = Quantizer(MaskedScores())
    step(quantizer, -5.0)
    before = quantizer.observed.numpy()
    quantizer(tf.constant([[-1e9, -1e9]]), training=True)
    np.testing.assert_array_equal(quantizer.observed.numpy(), before)


def test_saved_ranges_come_back():
    for ranges in (MaskedScores(axis=(1, 2), size=100.0), MaskedScores(axis=None)):
        assert Quantizer.from_config(Quantizer(ranges).get_config()).ranges == ranges


@pytest.mark.parametrize("name", MODELS)
def test_taken_apart_a_model_computes_the_same(name):
    case, flat = opened(name)
    np.testing.assert_allclose(answers(flat, case.x), answers(case.model, case.x), atol=2e-5)


def test_heads_that_share_keys_are_taken_apart_too():
    if not hasattr(layers, "GroupQueryAttention"):
        pytest.skip("this flavor has no such layer")
    x, m = keras.Input((STEPS, SIZE)), keras.Input((1, STEPS), dtype="bool")
    attention = layers.GroupQueryAttention(4, 4, 2, name="attention")
    model = keras.Model([x, m], attention(x, x, attention_mask=m))
    flat = expand(trace(model))
    given = [features(), KEEP[:, None]]
    np.testing.assert_allclose(answers(flat, given), answers(model, given), atol=2e-5)
    assert len(masked_quantizers(tfcompress.quantize_model(model))) == 1


@pytest.mark.parametrize("name", MODELS)
def test_training_sees_attention_as_float_does(name):
    case, flat = opened(name)
    model = tfcompress.quantize_model(case.model)
    columns = [tf.constant(c) for c in (case.x if isinstance(case.x, list) else [case.x])]
    # The hand-written softmax has two masked tensors: what its maximum reads, and the differences from that.
    assert len(masked_quantizers(model)) == (2 if name == "written_out" else 1)
    model(columns if len(columns) > 1 else columns[0], training=True)
    for quantizer in masked_quantizers(model):
        low, high = quantizer.limits()
        assert -60 < low < 0 <= high < 60
    if case.keep is None or name == "written_out":
        return
    trained, real = probabilities(model, columns, True), probabilities(flat, columns, False)
    keep = np.broadcast_to(case.keep, real.shape)
    looks = keep.any(-1)
    assert np.where(keep, 0.0, trained).sum(-1)[looks].max() < 1 / 256
    assert np.corrcoef(trained[looks].ravel(), real[looks].ravel())[0, 1] > 0.95


def probabilities(model, columns, training):
    """The output of the softmax over the steps, rounded to its grid where there is one; None without such."""
    softmaxes = [c for c in calls(model) if _is_softmax_of_scores(c)]
    if not softmaxes:
        return None
    structure = model.input if isinstance(model.input, (list, tuple)) else [model.input]
    (inputs,) = [columns if len(columns) > 1 else columns[0]]
    tapped = keras.Model(list(structure) if len(columns) > 1 else structure[0], softmaxes[-1].outputs[0])
    return np.asarray(tapped(inputs, training=training))


def _is_softmax_of_scores(call):
    """Whether a call is a softmax, not that of the model's end, over the steps."""
    named = type(call.operation).__name__ == "Softmax" or call.name.split(".")[-1].startswith("softmax")
    return named and len(call.outputs[0].shape) > 2


def constants(model):
    """How many tensors carry a mask, and how many end one."""
    found = Masks(expand(trace(model)))
    return len(found.carried), len(found.ends)


def test_large_numbers_that_mask_nothing_are_none():
    inputs = keras.Input((STEPS, SIZE))
    reshape = keras.ops.reshape if hasattr(keras, "ops") else tf.reshape
    wide = keras.Model(inputs, head(reshape(inputs * 20000.0, (-1, STEPS * SIZE))))
    assert constants(wide) == (0, 0)
    far = keras.Model(inputs, layers.Dense(3)(inputs + 1e6))  # reaches no softmax and no maximum
    assert constants(far) == (0, 0)
    assert all(not isinstance(q.ranges, MaskedScores) for q in quantizers(tfcompress.quantize_model(far)))


def test_a_mask_that_never_fires_in_calibration_is_warned_of_by_name():
    case = MODELS["attention_mask"]()
    quantized = tfcompress.quantize_model(case.model)
    with pytest.warns(UserWarning, match=r"the mask at 'attention\..*' never fires in `data`"):
        tfcompress.calibrate(quantized, [case.x[0], np.ones_like(case.x[1])])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        tfcompress.calibrate(quantized, case.x)


@pytest.mark.parametrize("method", ["minmax", "percentile", "mse", "entropy"])
def test_calibrated_ends_are_those_of_the_float_scores(method):
    case = MODELS["added_1e9"]()
    ready = tfcompress.calibrate(tfcompress.quantize_model(case.model), case.x, method)
    ((low, high),) = [q.limits() for q in masked_quantizers(ready)]
    x, keep = case.x[0].astype("float64"), KEEP[:, None]
    q, k = (x @ case.model.get_layer(n).get_weights()[0] + case.model.get_layer(n).get_weights()[1] for n in "qk")
    scores = np.where(keep, q @ k.transpose(0, 2, 1) * SIZE**-0.5, -np.inf)
    expected = np.log(np.exp(scores).sum(-1).min() / 256 / STEPS), scores.max()
    # weights on their grid, and ends moved to the grid's exact zero: a few hundredths
    np.testing.assert_allclose((low, high), expected, atol=0.15)


def test_a_quantized_model_with_a_mask_is_saved_and_loaded(tmp_path):
    for name in ("softmax_layer", "attention_mask"):
        case = MODELS[name]()
        model = tfcompress.calibrate(tfcompress.quantize_model(case.model), case.x)
        model.save(tmp_path / f"{name}.keras")
        again = keras.models.load_model(tmp_path / f"{name}.keras")
        np.testing.assert_array_equal(answers(again, case.x), answers(model, case.x))
        assert [q.ranges for q in masked_quantizers(again)] == [q.ranges for q in masked_quantizers(model)]


def test_momentum_is_the_users():
    model = by_hand(lambda s, m: s + (1.0 - m) * -1e9).model
    mine = tfcompress.quantize.MovingAverage(momentum=0.5)
    (quantizer,) = masked_quantizers(tfcompress.quantize_model(model, ranges=mine))
    assert quantizer.ranges.momentum == 0.5
    for ranges in ("percentile", "lsq"):
        assert len(masked_quantizers(tfcompress.quantize_model(model, ranges=ranges))) == 1
