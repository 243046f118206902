"""Attention stays alive in integer files of models with masks: trained in integers, calibrated, or plainly exported."""

import functools
import warnings

import numpy as np
import pytest

import tfcompress
import tflite_export
from tests.tflite_export.masked_models import MODELS, ROWS, STEPS
from tests.zoo import answers, keras
from tflite_export.draft import Draft
from tflite_export.measure import runs

STEP = 1 / 256


def trained(case):
    """A few steps of quantization-aware training; of most models without a graph, which takes longer to make."""
    model = tfcompress.quantize_model(case.model)
    model.compile(keras.optimizers.SGD(1e-4), "mse", run_eagerly=isinstance(case.x, list))
    x = list(case.x) if isinstance(case.x, list) else case.x
    labels = np.zeros((ROWS, 4), "float32")
    model.fit(x, labels, batch_size=20, epochs=2, verbose=0)
    return model


WAYS = {
    "trained": trained,
    "calibrated": lambda case: tfcompress.calibrate(tfcompress.quantize_model(case.model), case.x),
    "plain": lambda case: case.model,
}


@functools.cache
def case_of(name):
    return MODELS[name]()


@functools.cache
def scores_of(name):
    """What `softmax_of` finds in the float file."""
    case = case_of(name)
    return softmax_of(tflite_export.export(case.model).content, rows_of(case))


def rows_of(case):
    columns = case.x if isinstance(case.x, list) else [case.x]
    return [[column[i : i + 1] for column in columns] for i in range(ROWS)]


def softmax_of(content, samples):
    """(its input as it is stored, its real output), [rows, ..., keys], of the softmax over the steps, or None."""
    draft = Draft(content)
    found = [
        op for op in draft.operators if draft.kind(op) == "SOFTMAX" and draft.tensors[op.outputs[0]].shape[-1] == STEPS
    ]
    if not found:
        return None
    (op,) = found
    scores, values = (
        np.concatenate(part) for part in zip(*runs(draft, samples, [op.inputs[0], op.outputs[0]]), strict=True)
    )
    grid = draft.grid(op.outputs[0])
    if grid is not None:
        values = (values.astype("float64") - int(grid.zeroPoint[0])) * float(grid.scale[0])
    return scores, values


CONSTANTS = {"added_1e4", "added_float16_min", "added_float32_min", "chosen_1e9", "subtracted", "most_1e9"}
ALIKE = {"causal", "composite", "chosen_infinity", "padded_with_infinity", "causal_table", "attention_layer"}
SKIPPED = {"trained": CONSTANTS, "calibrated": CONSTANTS | ALIKE, "plain": set()}  # one of each kind goes every way


@pytest.mark.parametrize(("name", "way"), [(name, way) for name in MODELS for way in WAYS if name not in SKIPPED[way]])
def test_attention_lives_behind_its_mask(name, way):
    case = case_of(name)
    model = WAYS[way](case)
    exported = tflite_export.export(model, "int8", calibration=case.x)
    received = np.asarray(tflite_export.Runner(exported.content)(case.x))
    expected = answers(model, case.x)
    assert not exported.report.float_operations
    assert not [note for note in exported.report.notes if "never fires" in note]
    assert np.corrcoef(received.ravel(), expected.ravel())[0, 1] > 0.98
    if case.keep is None:
        return
    reals, found = scores_of(name), softmax_of(exported.content, rows_of(case))
    if found is None or reals is None:  # a softmax written by hand has no operation of its own
        assert name == "written_out"
        return
    keep = np.broadcast_to(case.keep, reals[0].shape)
    looks = keep.any(-1)  # a row that is masked as a whole has nothing to look at
    distinct = min(256, np.unique(reals[0][keep]).size)
    assert np.unique(found[0][keep]).size >= distinct / 2
    assert np.corrcoef(found[1][looks].ravel(), reals[1][looks].ravel())[0, 1] > 0.95
    assert np.where(keep, 0.0, found[1]).sum(-1)[looks].max() < STEP


def test_a_table_of_infinities_needs_no_calibration_where_every_range_was_learned():
    case = case_of("causal_table")
    exported = tflite_export.export(WAYS["calibrated"](case), "int8")
    _, found = softmax_of(exported.content, rows_of(case))
    assert np.where(case.keep, 0.0, found).sum(-1).max() < STEP


def test_a_mask_that_never_fires_is_warned_of_by_its_layer():
    case = case_of("attention_mask")
    with pytest.warns(UserWarning, match="mask before 'attention.*' never fires in the calibration data"):
        exported = tflite_export.export(case.model, "int8", calibration=[case.x[0], np.ones_like(case.x[1])])
    assert any("never fires" in note for note in exported.report.notes)


def test_no_mask_is_said_to_be_destroyed_where_attention_is_opened():
    tokens = keras.Input((5,), dtype="int32")
    embedded = keras.layers.Embedding(9, 4, mask_zero=True)(tokens)
    pooled = keras.layers.GlobalAveragePooling1D()(keras.layers.MultiHeadAttention(2, 4)(embedded, embedded))
    data = np.where(np.arange(5) < [[2], [5], [4]] * 8, 3, 0).astype("int32")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = tfcompress.calibrate(tfcompress.quantize_model(keras.Model(tokens, pooled)), data)
        tflite_export.export(model, "int8", calibration=data)
