"""What can be asked of an export, and what cannot."""

import pytest

from tflite_export.spec import ExportSpec


def test_defaults_are_a_float_file_of_one_row():
    spec = ExportSpec()
    assert (spec.precision, spec.batch_size, spec.is_integer) == ("float32", 1, False)


@pytest.mark.parametrize(
    "precision, integer", [("float16", False), ("dynamic", False), ("int8", True), ("int16x8", True)]
)
def test_is_integer_says_whether_activations_are(precision, integer):
    assert ExportSpec(precision).is_integer is integer


@pytest.mark.parametrize(
    "wrong, named",
    [
        ({"precision": "int4"}, "int4"),
        ({"precision": "float32", "inputs": "int8"}, "inputs='int8'"),
        ({"precision": "int8", "inputs": "int16"}, "inputs='int16'"),
        ({"precision": "int16x8", "outputs": "uint8"}, "outputs='uint8'"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": True}, "batch_size=True"),
        ({"range_method": "best"}, "range_method='best'"),
        ({"int4": "yes"}, "int4='yes'"),
        ({"signature": ""}, "signature=''"),
    ],
)
def test_a_wrong_value_is_named(wrong, named):
    with pytest.raises(ValueError, match=named):
        ExportSpec(**wrong)


@pytest.mark.parametrize("precision, kind", [("int8", "int8"), ("int8", "uint8"), ("int16x8", "int16")])
def test_integers_at_the_boundary_follow_the_precision(precision, kind):
    assert ExportSpec(precision, inputs=kind, outputs=kind).inputs == kind
