"""Every form of transformers and their kin computes in integers alone, close to Keras, alike on all kernel sets."""

import functools

import numpy as np
import pytest
import tensorflow as tf

import tfcompress as tfc
from tests.tflite_export import forms
from tests.tflite_export.forms import FORMS, block, of_function, plain
from tests.zoo import answers
from tflite_export import ExportError, export
from tflite_export.draft import Draft
from tflite_export.runner import Runner

KERNELS = ("xnnpack", "builtin", "reference")
EVALUATED = slice(40, None)
# In 16 bits what has kernels of its own there.
SIXTEEN = {
    "layer_norm": 40, "l2_normalize": 45, "l2_normalize_axis": 40, "log_softmax": 45, "experts": 35,
    "own_masked_mean": 45, "repeated": 40, "grouped_query": 40,
}  # fmt: skip


make = functools.cache(forms.make)  # nothing here changes a model


def part(x, rows):
    return [one[rows] for one in x] if isinstance(x, list) else x[rows]


def correlation(one, other):
    return np.corrcoef(one.ravel(), other.ravel())[0, 1]


def rms(difference):
    return float(np.sqrt(np.mean(np.square(difference, dtype=np.float64))))


def step(content):
    """The step of the only output's grid."""
    draft = Draft(content)
    (last,) = draft.outputs
    return float(draft.grid(draft.makers()[last].inputs[0]).scale[0])


@pytest.mark.parametrize("path", ["plain", "quantized"])
@pytest.mark.parametrize("name", FORMS)
def test_a_form_is_integer_and_follows_keras(name, path):
    model, x = make(name)
    source = model if path == "plain" else tfc.calibrate(tfc.quantize_model(model), x)
    file = export(source, "int8", calibration=x)
    assert file.report.float_operations == ()
    x = part(x, EVALUATED)
    expected, size = answers(model, x), step(file.content)
    got = {kernels: Runner(file, kernels)(x) for kernels in KERNELS}
    for values in got.values():
        assert correlation(expected, values) >= 0.995
        assert rms(expected - values) <= 2.5 * size
        assert rms(values - got["reference"]) <= 1.5 * size


@pytest.mark.parametrize("name", SIXTEEN)
def test_16_bits_are_closer(name):
    model, x = make(name)
    file = export(model, "int16x8", calibration=x)
    assert file.report.float_operations == ()
    x = part(x, EVALUATED)
    expected = answers(model, x)
    for kernels in ("builtin", "reference"):
        noise = rms(Runner(file, kernels)(x) - expected)
        assert 20 * np.log10(rms(expected) / noise) >= SIXTEEN[name]


def test_an_error_function_outside_of_a_gelu_is_refused_with_the_way_out():
    model, x = block(plain(6, 16), of_function(lambda x: tf.math.erf(x) * 2.0, "bare_erf")())
    with pytest.raises(ExportError, match=r"Erf in 'bare_erf' \(.*keras.activations.gelu.*approximate=True"):
        export(model, "int8", calibration=x)


def test_what_is_left_in_float_is_named_with_the_way_out():
    model, x = block(plain(6, 16), of_function(lambda x: tf.math.atan2(x, x + 2.0), "turn")())
    with pytest.raises(ExportError, match=r"ATAN2 in 'turn' \(.*behind the file\).*allow_float=True"):
        export(model, "int8", calibration=x)
