import numpy as np
import pytest

from tests.tflite_export.handmade import dense, file_of, integer_dense, op, tensor
from tflite_export.bench import micro
from tflite_export.bench.harness import benchmark

pytest.importorskip("tflite_micro")


def test_arena_and_outputs_of_an_integer_file():
    r = benchmark(integer_dense(), "tflm", profile=True)
    assert (r.status, r.runtime, r.median, r.counts["operations"]) == ("ok", "tflite-micro interpreter", None, 1)
    assert r.arena["total"] >= r.arena["head"] + r.arena["tail"] > 0
    assert r.agreement.equal == 1 and r.agreement.unit == "steps" and r.runs == 8
    assert any("cortex-m counts" in warning for warning in r.warnings)


def test_double_rounding_is_told_where_it_shows():
    # 2048 outputs of random weights: some products lie so near to a half that rounding twice moves them.
    rng = np.random.default_rng(0)
    weights = rng.integers(-127, 128, (2048, 64)).astype("int8")
    tensors = [
        tensor((1, 64), "INT8", scale=0.05, zero=3, name="x"),
        tensor((2048, 64), "INT8", data=weights, scale=0.0113, zero=0),
        tensor((2048,), "INT32", data=np.zeros(2048, "int32"), scale=0.05 * 0.0113, zero=0),
        tensor((1, 2048), "INT8", scale=0.417, zero=-3, name="y"),
    ]
    content = file_of(tensors, [op("FULLY_CONNECTED", (0, 1, 2), (3,))], (0,), (3,))
    r = benchmark(content, "tflm")
    assert r.status == "ok" and 0.8 < r.agreement.equal < 1 and r.agreement.largest == 1
    assert any("rounds twice" in warning for warning in r.warnings)


def test_an_operation_that_is_not_there_is_a_row():
    content = file_of([tensor((1, 2)), tensor((1, 2))], [op("ATAN2", (0, 0), (1,))], (0,), (1,))
    r = benchmark(content, "tflm")
    assert r.status == "failed" and "ATAN2" in r.reason and r.arena == {}


def test_a_missing_interpreter_is_a_row_with_the_command(monkeypatch):
    monkeypatch.setattr(micro, "is_measurable", lambda: False)
    r = benchmark(dense(), "tflm")
    assert r.status == "unavailable" and "pip install" in r.reason
