"""Tables of 256 integers: every value of a function is right to half a step, on every kernel set."""

import numpy as np
import pytest
import tensorflow as tf

from tests.tflite_export.forms import chain, of_function
from tflite_export import export
from tflite_export.draft import Draft
from tflite_export.runner import Runner

X = np.linspace(0.25, 4, 256, dtype="float32").reshape(16, 16)


@pytest.mark.parametrize(
    "call, expected",
    [
        (lambda x: 1 / x, lambda x: 1 / x),
        (lambda x: 3 / x, lambda x: 3 / x),
        (tf.sin, np.sin),
        (lambda x: tf.sqrt(x) * 1.0, np.sqrt),
        (lambda x: x**2.5, lambda x: x**2.5),
        (tf.math.ceil, np.ceil),
    ],
    ids=["reciprocal", "quotient", "sine", "root", "power", "ceiling"],
)
def test_a_function_of_one_tensor_is_exactly_rounded(call, expected):
    model, _ = chain(X, of_function(call, "function")())
    file = export(model, "int8", calibration=X)
    assert file.report.float_operations == ()
    draft = Draft(file.content)
    assert "GATHER" in [draft.kind(op) for op in draft.operators]
    first = next(op for op in draft.operators if draft.kind(op) == "QUANTIZE")
    grid = draft.grid(first.outputs[0])
    rounded = (np.round(X / grid.scale[0]) * grid.scale[0]).astype("float64")  # zero is a multiple of the step
    last = next(op for op in draft.operators if draft.kind(op) == "DEQUANTIZE")
    step = float(draft.grid(last.inputs[0]).scale[0])
    for kernels in ("xnnpack", "builtin", "reference"):
        error = np.abs(Runner(file, kernels)(rounded.astype("float32")) - expected(rounded))
        assert error.max() <= 0.51 * step
