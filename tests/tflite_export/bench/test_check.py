import numpy as np
import pytest

from tests.tflite_export.handmade import dense, file_of, integer_dense, op, tensor
from tflite_export.bench.check import checked, compared, judged, run_outputs
from tflite_export.bench.inputs import feeds
from tflite_export.bench.job import Named
from tflite_export.bench.outcome import outcome
from tflite_export.errors import ExportError

RIGHT = np.float32([[[1, 2, 3]], [[4, 5, 6]]])


def test_reference_kernels_compute_what_the_arithmetic_says():
    # W = [[1, 2], [0, -1], [3, 0]], b = [0.5, 0, -1]
    x = np.float32([[1, 2], [3, 4]])
    found = run_outputs(dense(), feeds(dense(), x), kernels="reference", timeout=60)
    assert found["y"].tolist() == [[[5.5, -2, 2]], [[11.5, -4, 8]]]
    same = checked(dense(), feeds(dense(), x), found)
    assert (same.agreement.equal, same.agreement.values, same.wrong, same.warnings) == (1, 6, "", ())


def test_rounding_is_no_error_and_is_counted():
    found = compared(dense(), {"y": RIGHT}, {"y": RIGHT + np.float32([[[0, 0, 3e-7]], [[0, 0, 0]]])})
    assert found.wrong == "" and found.agreement.equal == pytest.approx(5 / 6)
    steps = np.int8([[[10, -20]]])
    found = compared(integer_dense(), {"y": steps}, {"y": steps + np.int8([[[0, 1]]])})
    assert found.wrong == "" and found.agreement.unit == "steps" and found.agreement.largest == 1


@pytest.mark.parametrize(
    "got, words",
    [
        (np.zeros_like(RIGHT), "0 dB"),
        (RIGHT[..., ::-1].copy() * 3, "differs by up to"),
        (RIGHT * np.float32("nan"), "not finite"),
        (np.swapaxes(RIGHT, 1, 2), "shape"),
    ],
)
def test_garbage_is_caught_however_fast_it_came(got, words):
    check = compared(dense(), {"y": RIGHT}, {"y": got})
    assert words in check.wrong
    result = judged(outcome(Named("a", dense()), "host", median=0.001), check)
    assert result.status == "failed" and words in result.reason and result.agreement == check.agreement


def test_an_output_that_did_not_come_is_wrong():
    assert "missing" in compared(dense(), {"y": RIGHT}, {}).wrong


def test_reference_kernels_that_give_zeros_prove_nothing():
    check = compared(dense(), {"y": np.zeros_like(RIGHT)}, {"y": RIGHT})
    assert check.wrong == "" and check.agreement is None and "nothing but zeros" in check.warnings[0]


def test_a_file_that_reference_kernels_refuse_is_a_warning():
    tensors = [tensor((1, 2), name="x"), tensor((1, 2), name="y")]
    content = file_of(tensors, [op("mine", (0,), (1,))], (0,), (1,))
    check = checked(content, feeds(content), {"y": np.zeros((8, 1, 2), "float32")})
    assert check.wrong == "" and "do not run the file" in check.warnings[0] and "mine" in check.warnings[0]
    assert "there are none" in checked(dense(), feeds(dense()), {}).warnings[0]


def test_a_known_difference_is_explained_only_where_there_is_one():
    result = outcome(Named("a", integer_dense()), "tflm")
    steps = np.int8([[[10, -20]]])
    for other, warnings in ((steps, ()), (steps + np.int8(1), ("rounds twice",))):
        check = compared(integer_dense(), {"y": steps}, {"y": other})
        assert judged(result, check, known="rounds twice").warnings == warnings


def test_a_step_that_takes_too_long_is_ended():
    with pytest.raises(ExportError, match=r"did not answer within 0\.01 s"):
        run_outputs(dense(), feeds(dense()), kernels="reference", timeout=0.01)
