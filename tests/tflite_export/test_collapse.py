"""What an integer file lost is told by the layer's name, and nothing is told where nothing is lost.

Each trap is laid in the real pipeline: a step that is left out, or a range that is assigned wrong.
"""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

import tfcompress as tfc
from tests.core import composites
from tests.zoo import ZOO, answers, enliven, images
from tfcompress.core import flavor
from tflite_export import ExportError, collapse, compare, convert, export, integer_forms, integers
from tflite_export.draft import Draft
from tflite_export.pairs import reference

keras, layers = tf.keras, tf.keras.layers


def path_of(weight):
    return getattr(weight, "path", weight.name)


@pytest.fixture(scope="module")
def text():
    """A classifier of padded sequences; query and key are loud enough that attention chooses."""
    model, x = ZOO["masked_text"]()
    for weight in model.weights:
        if "query/kernel" in path_of(weight) or "key/kernel" in path_of(weight):
            weight.assign(np.asarray(weight) * 12)
    return model, x


@pytest.fixture(scope="module")
def residual():
    inputs = keras.Input((12, 12, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="stem")(inputs)
    y = layers.Conv2D(8, 3, padding="same", name="branch")(x)
    x = layers.Add(name="join")([x, y])
    model = keras.Model(inputs, layers.Dense(4, name="scores")(layers.GlobalAveragePooling2D()(x)))
    enliven(model)
    return model, images(np.random.default_rng(1), 12, 12, 3)


def quantizer_behind(model, name):
    """The layer that holds the range of a layer's output."""
    return next(one for one in model.layers if hasattr(one, "set_range") and one.name.startswith(name))


def file_of(call, shape, samples, ranges):
    """(the float file of a function of one input, its integer file on written ranges: place of a result -> range)."""
    draft = Draft(convert.float_file(convert.frozen(call, [tf.TensorSpec(shape, name="input_0")])))
    original = reference(draft)
    true = integers.ranges(draft, samples, [*draft.inputs, *(o for op in draft.operators for o in op.outputs)])
    for index, pair in true.items():
        draft.set_range(index, *pair)
    for place, pair in ranges.items():
        draft.set_range(draft.operators[place].outputs[0], *pair)
    return original, Draft(convert.quantized(draft.content(), "int8"))


RAMP = [[np.linspace(-1, 1, 512, dtype="float32")[None] * sign] for sign in (1, -1)]


def relu_then_double(x):
    x = tf.nn.relu(x)
    return [(x + x) * tf.constant(np.linspace(0.9, 1.0, 512), tf.float32)]


@pytest.mark.parametrize(
    "width, told",
    # 256 values from 0 to 2. On [0, 16] a step is 16 / 255 and they take 33 integers, on [0, 64] 9 of them.
    [(1, []), (8, []), (32, ["flat"])],
)
def test_a_range_that_is_many_times_too_wide_is_told(width, told):
    original, file = file_of(relu_then_double, (1, 512), RAMP, {1: (0.0, 2.0 * width)})
    found = collapse.collapses(original, file, RAMP)
    assert [one.kind for one in found][:1] == told
    if told:
        assert found[0].operation == "ADD" and "range [0, 64]" in found[0].detail and "too wide" in found[0].advice


@pytest.mark.parametrize("top, told", [(2.0, []), (1.8, []), (1.0, ["saturated"])])
def test_a_range_that_is_too_narrow_is_told(top, told):
    # Values are 0 in half of the places and spread evenly to 2 in the others; with an end at 1 those from 1.1 on count,
    # 45 % of the half.
    original, file = file_of(relu_then_double, (1, 512), RAMP, {1: (0.0, top)})
    found = collapse.collapses(original, file, RAMP)
    assert [one.kind for one in found][:1] == told
    if told:
        assert "22 % of its values at the ends of its range [0, 1]" in found[0].detail


def test_a_tensor_that_is_almost_constant_in_float_is_no_collapse():
    def call(x):
        return [(x * 1e-9 + 1.0) * 2.0]

    samples = [[np.random.default_rng(0).normal(size=(1, 256)).astype("float32")] for _ in range(3)]
    original, file = file_of(call, (1, 256), samples, {})
    assert collapse.collapses(original, file, samples) == []


def test_probabilities_that_all_lie_below_a_step_are_told():
    # Over 1024 places each probability is near 1 / 1024, and 1 / 256 is the step: all round to 0.
    table = np.random.default_rng(0).normal(size=(1024, 4)).astype("float32")

    def call(x):
        return [tf.matmul(tf.nn.softmax(x), table)]

    samples = [[0.1 * np.random.default_rng(i).normal(size=(1, 1024)).astype("float32")] for i in range(3)]
    original, file = file_of(call, (1, 1024), samples, {})
    found = collapse.collapses(original, file, samples)
    assert found[0].kind == "vanished" and "int16x8" in found[0].advice


@pytest.mark.parametrize(
    ("name", "precision"), [("masked_text", "int8"), ("attention", "int8"), ("attention", "int16x8")]
)
def test_nothing_is_told_of_sound_files(name, precision):
    model, x = ZOO[name]()
    assert export(model, precision, calibration=x, allow_float=True).report.collapsed == ()
    quantized = tfc.calibrate(tfc.quantize_model(model, precision), x)
    exported = export(quantized, precision, calibration=x, allow_float=True)
    assert exported.report.collapsed == () and compare(quantized, exported, x).lost == ()


@pytest.mark.parametrize("name", ["encoder", "cross_attention"])
def test_nothing_is_told_of_sound_composites(name):
    model, x = composites.make(name)
    assert export(tfc.calibrate(tfc.quantize_model(model), x), "int8", calibration=x).report.collapsed == ()


def test_a_mask_constant_kept_as_range_is_told_though_outputs_agree(text, monkeypatch):
    model, x = text
    monkeypatch.setattr(integers, "finite", lambda *given: ({}, []))
    with pytest.raises(ExportError, match=r"SOFTMAX in 'multi_head_att[^']*' correlates -?0\.\d\d with the float"):
        export(model, "int8", calibration=x)
    exported = export(model, "int8", calibration=x, allow_collapse=True)
    assert any(text.startswith("SOFTMAX in 'multi_head_attention") for text in exported.report.collapsed)
    assert "collapsed" in str(exported.report)
    found = compare(model, exported, x)
    assert any("multi_head_attention" in name for name in found.collapsed)
    assert "Lost: SOFTMAX in 'multi_head_attention" in str(found)
    # attention is gone, and yet the output looks well
    y, expected = found.outputs[0], answers(model, x)
    assert y.model.snr > 10 and np.ptp(expected) > 0.1


def padded_pool():
    """A maximum over windows, of a tensor that is padded by hand with minus infinity as published models do."""
    inputs = keras.Input((9, 9, 3), name="image")
    x = layers.Conv2D(8, 3, name="stem")(inputs)
    pad = [[0, 0], [1, 1], [1, 1], [0, 0]]
    if flavor.NAME == "keras 3":
        x = keras.ops.pad(x, pad, constant_values=-np.inf)
    else:
        x = tf.pad(x, pad, constant_values=-np.inf)
    x = layers.MaxPooling2D(3, strides=2, name="pool")(x)
    model = keras.Model(inputs, layers.Dense(4)(layers.Flatten()(x)))
    enliven(model)
    return model, images(np.random.default_rng(1), 9, 9, 3)


def test_padding_of_minus_infinity_kept_as_range_is_told(monkeypatch):
    model, x = padded_pool()
    assert export(model, "int8", calibration=x).report.collapsed == ()
    measured = integers.ranges

    def joined(draft, samples, tensors, *how):
        # As the converter does it by itself: what is padded and the padding, here -1e4, share one range.
        found = measured(draft, samples, tensors, *how)
        padded = {op.inputs[0] for op in draft.operators if draft.kind(op) == "PADV2"} & set(found)
        return {**found, **{t: (-1e4, found[t][1]) for t in padded}}

    monkeypatch.setattr(integers, "ranges", joined)
    with pytest.raises(ExportError, match=r"CONV_2D in 'stem' holds \d different values.*MAX_POOL_2D in 'pool' holds"):
        export(model, "int8", calibration=x)
    exported = export(model, "int8", calibration=x, allow_collapse=True)
    assert {"stem", "pool"} <= set(compare(model, exported, x).collapsed)


@pytest.fixture(scope="module")
def uneven():
    """A layer normalization of rows whose sizes differ a hundredfold, and one loud channel."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 12, 32)) * np.exp(1.2 * rng.normal(size=(32, 12, 1)))
    x[..., 3] *= 12
    inputs = keras.Input((12, 32))
    y = layers.LayerNormalization(name="norm")(layers.Dense(32, name="embed")(inputs))
    model = keras.Model(inputs, layers.Dense(8, name="head")(y))
    enliven(model)
    return model, x.astype("float32")


@pytest.mark.parametrize("trained", [False, True])
def test_a_normalization_that_is_not_respelt_is_told(uneven, trained, monkeypatch):
    model, x = uneven
    model = tfc.calibrate(tfc.quantize_model(model), x) if trained else model
    assert export(model, "int8", calibration=x).report.collapsed == ()
    for form in ("free_means", "center", "sum_squares"):
        monkeypatch.setattr(integer_forms, form, lambda draft: None)
    with pytest.raises(ExportError, match="RSQRT in 'norm'"):
        export(model, "int8", calibration=x)


def test_a_normalization_on_ranges_too_wide_is_told(uneven, monkeypatch):
    model, x = uneven
    measured = integers.ranges

    def squeezed(draft, samples, tensors, *how):
        found = measured(draft, samples, tensors, *how)
        return {t: (100 * a, 100 * b) if draft.name(t).startswith("norm.") else (a, b) for t, (a, b) in found.items()}

    monkeypatch.setattr(integers, "ranges", squeezed)
    with pytest.raises(ExportError, match=r"in 'norm' holds \d different values"):
        export(model, "int8", calibration=x)


@pytest.mark.parametrize("factor, words", [(57, "too wide"), (1 / 8, "too narrow")])
def test_a_wrong_learned_range_of_a_residual_branch_is_told(residual, factor, words):
    model, x = residual
    quantized = tfc.calibrate(tfc.quantize_model(model), x)
    assert export(quantized, "int8", calibration=x).report.collapsed == ()
    wrong = quantizer_behind(quantized, "branch")
    low, high = wrong.limits()
    wrong.set_range(factor * low, factor * high)
    with pytest.warns(UserWarning, match=rf"in 'branch' h.*{words}"):  # what training learned is its user's decision
        assert "'branch'" in export(quantized, "int8", calibration=x).report.collapsed[0]
    exported = export(quantized, "int8", calibration=x, allow_collapse=True)
    assert "branch" in compare(quantized, exported, x).collapsed


def test_a_learned_range_that_only_the_maxima_behind_it_leave_is_warned_of():
    """Of normal numbers 5 % lie far beyond 1.6 deviations, of the maxima of sixteen a third: the pool has no range."""
    inputs = keras.Input((16, 16, 1))
    x = layers.Conv2D(1, 1, kernel_initializer="ones", name="same")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(layers.MaxPooling2D(4, name="pool")(x))))
    data = np.random.default_rng(0).normal(size=(16, 16, 16, 1)).astype("float32")
    quantized = tfc.calibrate(tfc.quantize_model(model), data)
    quantizer_behind(quantized, "same").set_range(-1.6, 1.6)
    with pytest.warns(UserWarning, match="MAX_POOL_2D in 'pool' has"):
        export(quantized, "int8", calibration=data)


def test_a_wrong_measured_range_of_a_residual_branch_is_told(residual, monkeypatch):
    # What the converter's own calibration does: an operand of an addition gets the range of the result joined to it.
    model, x = residual
    measured = integers.ranges

    def joined(draft, samples, tensors, *how):
        found = measured(draft, samples, tensors, *how)
        return {t: (57 * a, 57 * b) if "branch" in draft.name(t) else (a, b) for t, (a, b) in found.items()}

    monkeypatch.setattr(integers, "ranges", joined)
    with pytest.raises(ExportError, match="in 'branch' holds"):
        export(model, "int8", calibration=x)


def test_what_generated_samples_show_is_a_note():
    model, x = ZOO["attention"]()
    quantized = tfc.calibrate(tfc.quantize_model(model), x)
    wrong = next(one for one in quantized.layers if hasattr(one, "set_range") and "gelu" in one.name)
    low, high = wrong.limits()
    wrong.set_range(57 * low, 57 * high)
    report = export(quantized, "int8").report
    assert report.collapsed == ()
    assert any(note.startswith("on generated samples, ") and "different values" in note for note in report.notes)


def test_the_cost_is_bounded(residual, monkeypatch):
    model, x = residual
    counted = []
    run = collapse.runs

    def counting(draft, samples, tensors):
        counted.append(len(samples))
        return run(draft, samples, tensors)

    monkeypatch.setattr(collapse, "runs", counting)
    export(model, "int8", calibration=np.concatenate([x] * 8), batch_size=4)
    assert counted == [4, 4]  # 16 rows in batches of 4, on the float file and on the integer one


def test_lost_attention_is_no_matter_of_training():
    flat = collapse.Collapse("dense", "ADD", "flat", "", "")
    inner, last = (collapse.Collapse("heads", "SOFTMAX", "softmax", "", "", end) for end in (False, True))
    assert collapse.by_training([flat], {("dense", "ADD")}) and collapse.by_training([flat, last], {("dense", "ADD")})
    assert not collapse.by_training([flat, inner], {("dense", "ADD")})
    assert not collapse.by_training([flat], {("dense", "RSQRT")})


def test_the_first_findings_are_shown():
    one = collapse.Collapse("dense", "ADD", "flat", "holds 2 different values", "calibrate")
    text = collapse.shown("int8", [one] * 7)
    assert text.count("ADD in 'dense' holds 2 different values: calibrate") == 5 and "and 2 more" in text


def test_a_mean_that_varies_less_than_its_numbers_are_rounded_is_right():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(64, 4, 512)).astype("float32")
    rows -= rows.mean(-1, keepdims=True) - rng.normal(0, 1e-4, (64, 4, 1)).astype("float32")
    inputs = keras.Input((4, 512))
    model = keras.Model(inputs, layers.Dense(2)(layers.LayerNormalization(epsilon=1e-6)(inputs)))
    assert not export(model, "int8", calibration=rows).report.collapsed


def test_a_mean_of_squares_is_not_blamed_for_what_clipped_rows_do_to_it(monkeypatch):
    """Rows clipped at 1.5 deviations are 96 % right; their mean square is 0.22 too small and varies by 0.08.

    The squares have no name in the integer file, as in a normalization that computes in 16 bits.
    """

    def power(x):
        rows = x * tf.constant(1.0) + 0.5
        return tf.reduce_mean(rows * rows, -1, keepdims=True) * 2.0

    samples = [[np.random.default_rng(seed).normal(size=(64, 512)).astype("float32")] for seed in range(2)]
    draft, integer = file_of(power, (64, 512), samples, {0: (-1.0, 2.0)})
    rows, mean = (next(p for p in collapse.matched(draft, integer) if p.operation == kind) for kind in ("ADD", "MEAN"))
    pairs = [rows, replace(mean, sources=(rows.reference,))]
    monkeypatch.setattr(collapse, "matched", lambda *files, tidy: pairs)
    assert collapse.collapses(draft, integer, samples) == []
