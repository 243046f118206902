"""True ranges by running the float file."""

import numpy as np
import pytest
import tensorflow as tf

from tflite_export import convert
from tflite_export.draft import Draft
from tflite_export.errors import ExportError
from tflite_export.measure import ends, ranges, runs, try_out


@pytest.fixture(scope="module")
def content():
    def call(x):
        y = tf.nn.relu(x) * 2.0
        return [tf.sin(y) + y]

    return convert.float_file(convert.frozen(call, [tf.TensorSpec((1, 4), name="input_0")]))


X = np.float32([[[-1, 0, 1, 2]], [[-3, 0.5, 0, 1]], [[0, 0, 0, 5]]])


def tensors(draft):
    return [o for op in draft.operators for o in op.outputs]


def test_ends_are_those_of_each_tensor_itself(content):
    draft = Draft(content)
    found = ends(draft, [[x] for x in X], [draft.inputs[0], *tensors(draft)])
    y = 2 * np.maximum(X, 0)
    truth = {"input": X, "y": y, "sin": np.sin(y), "sum": np.sin(y) + y}
    expected = [(float(v.min()), float(v.max())) for v in truth.values()]
    by_kind = {draft.kind(op): found[op.outputs[0]] for op in draft.operators}
    assert found[draft.inputs[0]] == expected[0]
    np.testing.assert_allclose(by_kind["SIN"], expected[2], rtol=1e-5)
    np.testing.assert_allclose(
        by_kind["ADD"], expected[3], rtol=1e-5
    )  # the sine, its operand, keeps a range of its own


def test_zero_lies_inside(content):
    draft = Draft(content)
    assert ranges(draft, [[np.float32([[2, 3, 4, 5]])]], [draft.inputs[0]])[draft.inputs[0]] == (0.0, 5.0)


def test_a_tensor_that_is_always_zero_has_a_usable_range(content):
    draft = Draft(content)
    assert set(ranges(draft, [[-np.ones((1, 4), "float32")]], [draft.inputs[0]]).values()) == {(-1.0, 0.0)}
    found = ranges(draft, [[-np.ones((1, 4), "float32")]], tensors(draft))
    assert set(found.values()) == {(0.0, 1.0)}


@pytest.mark.parametrize("method", ["percentile", "entropy"])
def test_outliers_are_cut(content, method):
    draft = Draft(content)
    rng = np.random.default_rng(0)
    samples = [[rng.normal(size=(1, 4)).astype("float32")] for _ in range(3000)]
    samples[7][0][0, 0] = 400.0
    low, high = ranges(draft, samples, draft.inputs, method)[draft.inputs[0]]
    assert -5 < low < -1 and 1 < high < 200
    assert ranges(draft, samples, draft.inputs, "minmax")[draft.inputs[0]][1] == 400.0


def test_mse_gives_the_smaller_error(content):
    draft = Draft(content)
    values = np.random.default_rng(0).laplace(size=(3000, 1, 4)).astype("float32")

    def error(low, high):
        scale = (high - low) / 255
        zero = np.round(-low / scale)
        return np.mean((np.clip(np.round(values / scale), -zero, 255 - zero) * scale - values) ** 2)

    true, best = (ranges(draft, [[v] for v in values], draft.inputs, m)[draft.inputs[0]] for m in ("minmax", "mse"))
    assert true == (values.min(), values.max())
    assert best[1] - best[0] < true[1] - true[0] and error(*best) <= error(*true)


def test_what_is_not_finite_is_named(content):
    draft = Draft(content)
    with pytest.raises(ExportError, match=r"NaN or infinity .* first in run 1 \(counted from 0\)"):
        ends(draft, [[np.full((1, 4), value, "float32")] for value in (1.0, np.inf, 1.0)], tensors(draft))


def test_a_file_that_the_runtime_refuses_is_an_error(content):
    draft = Draft(content)
    try_out(draft, [[X[0]]])
    draft.tensors[tensors(draft)[0]].type = 9  # INT8 without a grid
    with pytest.raises(ExportError, match="The runtime refuses the file"):
        try_out(draft, [])


def test_runs_start_from_fresh_states(content):
    draft = Draft(content)
    first, second = (y.copy() for (y,) in runs(draft, [[X[0]], [X[0]]], draft.outputs))
    np.testing.assert_array_equal(first, second)
