"""What an audit says as a whole: verdicts, totals, tables, JSON, and what is refused."""

import json

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

import tflite_export
from tests.tflite_export.handmade import dense, file_of, integer_dense, op, tensor
from tflite_export.auditing.verdict import TARGETS, audit


def mixed() -> bytes:
    """x -> RELU -> TOPK_V2 -> values, indices: the second operation is missing on most targets."""
    tensors = [tensor((1, 8), name="x"), tensor((1, 8), name="layer/relu"), tensor((), "INT32", np.int32(3), name="k"),
               tensor((1, 3), name="layer/top"), tensor((1, 3), "INT32", name="places")]
    return file_of(tensors, [op("RELU", (0,), (1,)), op("TOPK_V2", (1, 2), (3, 4))], (0,), (3, 4))


def test_the_package_offers_audit():
    assert tflite_export.audit is audit


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_answers_by_rules_and_names_its_source(target):
    found = audit(dense(), target, tools=False)
    assert found.target == target and len(found.rows) == 1
    assert found.source.startswith("rules: ") and found.rows[0].source == "rules"
    assert found.rows[0].kind == "FULLY_CONNECTED" and found.rows[0].name == "y"
    assert sum(found.operations.values()) == 1
    assert sum(found.macs.values()) == 6  # 3 outputs of 2 products each


@pytest.mark.parametrize(
    ("target", "verdict", "runs"),
    [("xnnpack", "falls back", True), ("gpu", "falls back", True), ("coreml", "falls back", True),
     ("web", "falls back", True), ("tflm", "refused", False), ("ethos-u", "refused", False), ("nnapi", "runs", True)],
)
def test_an_operation_that_is_missing_falls_back_or_is_refused(target, verdict, runs):
    found = audit(mixed(), target, tools=False)
    assert [row.verdict for row in found.rows][1] == verdict
    assert found.runs is runs and found.exit_status == (0 if runs else 1)
    assert found.fully_accelerated is (verdict == "runs")
    if verdict != "runs":
        assert "TOPK_V2" in found.rows[1].reason


def test_float_on_a_microcontroller_runs_and_on_its_accelerator_falls_back():
    assert audit(dense(), "tflm", tools=False).fully_accelerated
    found = audit(dense(), "ethos-u", tools=False)
    assert found.runs and not found.fully_accelerated
    assert "FLOAT32" in found.rows[0].reason and "int8" in found.rows[0].way_out


def test_integers_run_on_ethos_u_and_edge_tpu_and_not_on_core_ml():
    assert audit(integer_dense(), "ethos-u", tools=False).rows[0].verdict == "runs"
    assert audit(integer_dense(), "edgetpu", tools=False).rows[0].verdict == "runs"
    found = audit(integer_dense(), "coreml", tools=False)
    assert found.rows[0].verdict == "falls back" and "float" in found.rows[0].way_out


def test_the_text_names_verdict_layer_reason_and_source():
    text = str(audit(mixed(), "tflm", tools=False))
    assert "bytes on tflm: does not run" in text and "says rules: tflite-micro" in text
    assert "layer/top" in text and "REFUSED" in text and "tflite-micro has no TOPK_V2" in text
    assert "every operation of it" in str(audit(dense(), "tflm", tools=False))
    assert "1 of 2 operations on XNNPACK" in str(audit(mixed(), "xnnpack", tools=False))


def test_json_holds_rows_totals_and_findings():
    told = json.loads(audit(mixed(), "tflm", tools=False).to_json())
    assert told["runs"] is False and told["fully_accelerated"] is False
    assert told["operations"] == {"runs": 1, "falls back": 0, "refused": 1}
    assert [row["verdict"] for row in told["rows"]] == ["runs", "refused"]
    assert any("floating point" in finding["text"] for finding in told["findings"])


def test_behind_an_operation_left_out_nothing_runs_on_an_edge_tpu():
    grid = {"scale": 0.1, "zero": 0}
    tensors = [tensor((1, 8), "INT8", name=str(i), **grid) for i in range(4)]
    chain = [op("RELU", (0,), (1,)), op("HARD_SWISH", (1,), (2,)), op("RELU", (2,), (3,))]
    found = audit(file_of(tensors, chain, (0,), (3,)), "edgetpu", tools=False)
    assert [row.verdict for row in found.rows] == ["runs", "falls back", "falls back"]
    assert "behind" in found.rows[2].reason
    # One that is left out at the very beginning, such as QUANTIZE of a float input, holds nothing up.
    found = audit(file_of(tensors[:3], chain[1:2] + [op("RELU", (2,), (0,))], (1,), (0,)), "edgetpu", tools=False)
    assert [row.verdict for row in found.rows] == ["falls back", "runs"]


def test_ethos_u85_has_more_operations_than_u55():
    tensors = [tensor((1, 4), "INT8", scale=0.1, zero=0), tensor((1, 4), "INT8", scale=0.1, zero=0),
               tensor((1, 4), "BOOL")]
    content = file_of(tensors, [op("LESS", (0, 1), (2,), schema.LessOptionsT())], (0, 1), (2,))
    assert audit(content, "ethos-u", tools=False).rows[0].verdict == "falls back"
    assert audit(content, "ethos-u", accelerator="ethos-u85-256", tools=False).rows[0].verdict == "runs"


def test_wrong_arguments_list_what_there_is(tmp_path):
    with pytest.raises(ValueError, match=r"xnnpack.*edgetpu.*Received: target='npu'"):
        audit(dense(), "npu")
    with pytest.raises(ValueError, match=r"ethos-u55-128.*Received: accelerator='u55'"):
        audit(dense(), "ethos-u", accelerator="u55")
    with pytest.raises(ValueError, match="left out for this target"):
        audit(dense(), "gpu", accelerator="mali")
    with pytest.raises(ValueError, match="TFL3"):
        audit(b"PK" + bytes(100), "gpu")
    with pytest.raises(OSError):
        audit(tmp_path / "none.tflite", "gpu")
