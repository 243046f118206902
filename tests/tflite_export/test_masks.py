"""Mask constants become as large as they need to be."""

import numpy as np
import pytest
import tensorflow as tf

from tflite_export import convert
from tflite_export.draft import Draft
from tflite_export.integer_forms import respell
from tflite_export.masks import finite
from tflite_export.measure import ends, runs

rng = np.random.default_rng(0)
SCORES = [rng.normal(0, 3, (1, 6, 8)).astype("float32") for _ in range(6)]
KEEP = [(np.arange(8)[None] < n).astype("float32") for n in (8, 3, 5, 8, 4, 6)]


def drafted(call, *specs):
    draft = Draft(convert.float_file(convert.frozen(call, specs)))
    respell(draft, None)
    return draft


def softmax(scores, keep):
    e = np.where(keep[:, None] > 0, np.exp(scores - scores.max(-1, keepdims=True)), 0)
    return e / e.sum(-1, keepdims=True)


def added(s, m):
    return [tf.nn.softmax(s + (1.0 - m)[:, None] * -1e9)]


def selected(s, m):
    return [tf.nn.softmax(tf.where(tf.broadcast_to(m[:, None] > 0.5, (1, 6, 8)), s, -1e9))]


@pytest.fixture
def specs():
    return tf.TensorSpec((1, 6, 8), name="input_0"), tf.TensorSpec((1, 8), name="input_1")


@pytest.mark.parametrize("call", [added, selected])
def test_masked_positions_together_stay_below_an_8_bit_step(call, specs):
    draft = drafted(call, *specs)
    samples = [list(pair) for pair in zip(SCORES, KEEP, strict=True)]
    _, notes = finite(draft, samples)
    assert notes == []
    for (y,), scores, keep in zip(runs(draft, samples, draft.outputs), SCORES, KEEP, strict=True):
        np.testing.assert_allclose(y, softmax(scores, keep), atol=1 / 256)
        assert (y * (keep[:, None] == 0)).sum(-1).max() < 1 / 256


@pytest.mark.parametrize("call", [added, selected])
def test_the_range_is_that_of_real_scores(call, specs):
    draft = drafted(call, *specs)
    samples = [list(pair) for pair in zip(SCORES, KEEP, strict=True)]
    lows, _ = finite(draft, samples)
    ((tensor, low),) = lows.items()
    # the least log of a row's sum of exp over its unmasked scores, less ln(256 * 8)
    sums = [np.where(k[:, None] > 0, np.exp(s), 0).sum(-1).min() for s, k in zip(SCORES, KEEP, strict=True)]
    assert low == pytest.approx(np.log(min(sums)) - np.log(256 * 8), rel=1e-5)
    assert ends(draft, samples, [tensor])[tensor][0] > -200


def test_padding_with_minus_infinity_before_a_maximum():
    def call(x):
        padded = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=-np.inf)
        return [tf.nn.max_pool2d(padded, 3, 2, "VALID")]

    draft = drafted(call, tf.TensorSpec((1, 7, 7, 2), name="input_0"))
    samples = [[rng.normal(size=(1, 7, 7, 2)).astype("float32")] for _ in range(4)]
    expected = [call(sample[0])[0].numpy() for sample in samples]
    finite(draft, samples)
    found = [y for (y,) in runs(draft, samples, draft.outputs)]
    np.testing.assert_array_equal(found, expected)
    made = [o for op in draft.operators for o in op.outputs if draft.is_float(o)]
    assert min(low for low, _ in ends(draft, samples, made).values()) > -10


def test_a_constant_that_arrives_weakened_is_doubled_until_it_holds(specs):
    draft = drafted(added, *specs)
    faint = [np.where(k > 0, 1.0, 0.75).astype("float32") for k in KEEP]  # 1 - 0.75: a quarter of the constant arrives
    samples = [list(pair) for pair in zip(SCORES, faint, strict=True)]
    finite(draft, samples)
    for (y,), keep in zip(runs(draft, samples, draft.outputs), KEEP, strict=True):
        assert (y * (keep[:, None] == 0)).sum(-1).max() < 1 / 256


def test_a_mask_that_never_fires_is_told(specs):
    draft = drafted(added, *specs)
    with pytest.warns(UserWarning, match="mask before 'add' never fires"):
        _, notes = finite(draft, [[s, np.ones((1, 8), "float32")] for s in SCORES])
    assert len(notes) == 1 and "'add' never fires" in notes[0]


@pytest.mark.parametrize("constant", [-1e4, -1e9, -65504.0, np.finfo("float32").min])
def test_scores_that_are_added_to_the_constant_are_masked_all_the_same(constant, specs):
    # -1e4 + 3 is smaller than the constant in magnitude
    draft = drafted(lambda s, m: [tf.nn.softmax(s + (1.0 - m)[:, None] * constant)], *specs)
    samples = [list(pair) for pair in zip(SCORES, KEEP, strict=True)]
    _, notes = finite(draft, samples)
    assert notes == []
    for (y,), scores, keep in zip(runs(draft, samples, draft.outputs), SCORES, KEEP, strict=True):
        np.testing.assert_allclose(y, softmax(scores, keep), atol=1 / 256)


def test_a_mask_of_a_moderate_size_stays_and_the_range_ends_above_it(specs):
    draft = drafted(lambda s, m: [tf.nn.softmax(s + (1.0 - m)[:, None] * -100.0)], *specs)
    samples = [list(pair) for pair in zip(SCORES, KEEP, strict=True)]
    before = [y for (y,) in runs(draft, samples, draft.outputs)]
    lows, notes = finite(draft, samples)
    sums = [np.where(k[:, None] > 0, np.exp(s), 0).sum(-1).min() for s, k in zip(SCORES, KEEP, strict=True)]
    assert list(lows.values()) == [pytest.approx(np.log(min(sums)) - np.log(256 * 8), rel=1e-5)]
    assert notes == []
    np.testing.assert_array_equal([y for (y,) in runs(draft, samples, draft.outputs)], before)


def test_without_samples_a_constant_is_twice_as_wide_as_the_learned_range(specs):
    def call(s, m):
        hidden = s + (1.0 - m)[:, None] * -np.inf
        return [tf.nn.softmax(tf.quantization.fake_quant_with_min_max_args(hidden, -10.0, 5.0))]

    draft = drafted(call, *specs)
    assert finite(draft, []) == ({}, [])
    found = [
        draft.value(i).min() for op in draft.operators for i in op.inputs if draft.is_constant(i) and draft.is_float(i)
    ]
    assert min(found) == pytest.approx(-30.0, abs=0.2)  # -2 * (5 + 10), and the grid's rounding


def test_without_masks_nothing_changes():
    draft = drafted(lambda x: [tf.nn.softmax(x * 100.0)], tf.TensorSpec((1, 8), name="input_0"))
    before = draft.content()
    assert finite(draft, [[np.ones((1, 8), "float32")]]) == ({}, []) and draft.content() == before
