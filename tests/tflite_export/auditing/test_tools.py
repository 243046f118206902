"""Tools that know better: what they answer counts, and what they do to their process stays there."""

import functools
import importlib.util

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tests.tflite_export.auditing.test_rules import conv
from tests.tflite_export.auditing.test_verdict import mixed
from tests.tflite_export.handmade import dense, file_of, op, tensor
from tflite_export.auditing import asked, micro_interpreter, partitioner, tflm, vela
from tflite_export.auditing.asked import Answer, Said, Verdict
from tflite_export.auditing.verdict import TARGETS, audit
from tflite_export.flatbuffer import read

ABORTS, NOT_SUPPORTED = "coral_invalid_model_invoking_error", "support_whitespace_tokenizer_custom_op"


def broken_chain() -> bytes:
    """RELU, TOPK_V2's values, SQRT: XNNPACK takes the first and the last."""
    tensors = [tensor((1, 8), name="x"), tensor((1, 8), name="a"), tensor((), "INT32", np.int32(3), name="k"),
               tensor((1, 3), name="b"), tensor((1, 3), "INT32", name="places"), tensor((1, 3), name="y")]
    chain = [op("RELU", (0,), (1,)), op("TOPK_V2", (1, 2), (3, 4)), op("SQRT", (3,), (5,))]
    return file_of(tensors, chain, (0,), (5,))


def test_litert_says_what_xnnpack_takes_on_this_machine():
    found = audit(broken_chain(), "xnnpack")
    assert found.source.startswith("LiteRT ") and found.install == ""
    assert [row.verdict for row in found.rows] == ["runs", "falls back", "runs"]
    assert {row.source for row in found.rows} == {found.source}
    assert found.rows[1].reason == "XNNPACK has no TOPK_V2"
    assert any("2 of 3 operations in 2 stretches" in finding.text for finding in found.findings)


def test_a_stretch_is_what_lies_between_what_it_is_given_and_gives_back():
    """0 -> A -> 1 -> B -> 2 -> C -> 3 -> D -> 4, where one stretch holds B and C, and a constant 9 is spelled out."""
    rows = [["A", [0], [1]], ["DEQUANTIZE", [9], [8]], ["B", [1, 8], [2]], ["C", [2], [3]], ["D", [3], [4]]]
    assert partitioner._taken([*rows, ["DELEGATE", [1, 9], [3]]], 5) == {1, 2, 3}
    # Given as 8, the constant was spelled out before the stretch.
    assert partitioner._taken([*rows, ["DELEGATE", [1, 8], [3]]], 5) == {2, 3}
    # Two stretches with an operation between them.
    assert partitioner._taken([*rows, ["DELEGATE", [0], [1]], ["DELEGATE", [3], [4]]], 5) == {0, 4}


def test_a_file_that_litert_refuses_is_refused_with_its_words():
    custom = file_of([tensor((1, 2)), tensor((1, 2))], [op("mine", (0,), (1,))], (0,), (1,))
    found = audit(custom, "xnnpack")
    assert not found.runs and found.rows[0].verdict == "refused"
    assert found.findings[0].stops and "unresolved custom op: mine" in found.findings[0].text


def test_what_a_tool_says_counts_more_than_a_rule(monkeypatch):
    def told(*arguments):
        return Answer("an oracle 1.0", {(0, 0): Verdict(False, "it is too wide"), (0, 1): Verdict(True)})

    monkeypatch.setattr(partitioner, "ask", told)
    found = audit(mixed(), "xnnpack")
    assert [row.verdict for row in found.rows] == ["falls back", "runs"]
    assert found.rows[0].reason == "it is too wide" and found.rows[0].words == "it is too wide"
    assert found.source == "an oracle 1.0"


def test_an_operation_that_a_tool_refuses_is_refused_whatever_the_rules_say(monkeypatch):
    answer = Answer("an oracle", {(0, 0): Verdict(False, "it fails to prepare", refused=True)})
    monkeypatch.setattr(partitioner, "ask", lambda *arguments: answer)
    found = audit(dense(), "xnnpack")
    assert found.rows[0].verdict == "refused" and not found.runs and found.exit_status == 1


def test_without_the_tool_rules_answer_and_the_audit_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for target, package in (("tflm", "tfcompress[micro]"), ("ethos-u", "tfcompress[ethos-u]")):
        found = audit(dense(), target)
        assert found.source.startswith("rules: ") and found.rows[0].source == "rules"
        assert "pip install" in found.install and package in found.install
        assert found.install in str(found)


@pytest.mark.parametrize("status", [None, -11, -999, 1])
def test_a_child_that_ends_badly_is_an_answer(monkeypatch, status):
    monkeypatch.setattr(partitioner, "run", lambda *a, **k: Said(status, "", "one\ntwo\n"))
    found = audit(dense(), "xnnpack")
    assert not found.runs
    words = {None: "no answer within 120 s", -11: "SIGSEGV", -999: "signal 999", 1: "one | two"}[status]
    assert words in found.findings[0].text


def test_no_answer_in_time(monkeypatch):
    monkeypatch.setattr(asked, "SECONDS", 0.01)
    assert asked.run(["this"]).status is None


def test_words_of_a_traceback_leave_its_pointers_out():
    assert asked.last_words("a\n    run(x)\n    ~~~^^^\nIndexError: n\n", 2) == "run(x) | IndexError: n"
    assert asked.last_words(" \n") == "it said nothing"


def refusal(model, err):
    return micro_interpreter._refusal("tflm", model, Said(1, "", err))


def test_what_tflite_micro_names_is_refused_and_what_it_took_before_runs():
    model = read(broken_chain())
    answer = refusal(model, "some.cc was not true.\nNode TOPK_V2 (number 1) failed to prepare with status 1\n"
                            "Traceback (most recent call last):\nRuntimeError: TFLM failed to allocate tensors\n")
    assert answer.verdicts[0, 0].accelerated and answer.verdicts[0, 1].refused and (0, 2) not in answer.verdicts
    assert answer.verdicts[0, 1].reason == "some.cc was not true."
    answer = refusal(model, "Didn't find op for builtin opcode 'TOPK_V2'\nFailed to get registration\n")
    assert answer.verdicts[0, 1].refused and "no TOPK_V2" in answer.stops
    answer = refusal(model, "[RecordingMicroAllocator] Arena 1\nDivision by 0\nNode SQRT (number 2) failed to invoke")
    assert not answer.stops and not answer.verdicts and "divides by the zeros" in answer.notes[0]
    assert "SIGABRT" in micro_interpreter._refusal("tflm", model, Said(-6, "", "")).stops


def test_tflite_micro_is_asked():
    pytest.importorskip("tflite_micro")
    found = audit(conv(), "tflm")
    assert found.source.startswith("tflite-micro ") and found.fully_accelerated
    assert any("memory (arena)" in finding.text for finding in found.findings)
    found = audit(broken_chain(), "tflm")
    assert not found.runs and found.rows[1].verdict == "refused"


def test_vela_is_asked_for_the_kind_that_is_named():
    pytest.importorskip("ethosu")
    assert audit(conv(), "ethos-u").source == "Vela 5.2.0 for ethos-u55-128"
    found = audit(conv("FLOAT32", "FLOAT32"), "ethos-u", accelerator="ethos-u85-256")
    assert found.source == "Vela 5.2.0 for ethos-u85-256"
    assert found.runs and found.rows[0].verdict == "falls back"
    assert "unsupported DataType Float32" in found.rows[0].words


def test_words_of_vela_are_read_with_every_line_of_a_reason():
    text = """Info: x
Warning (supported operators) operator: ADD, ofm: 'sum:0'
Reason: Operation has tensor with unsupported DataType Float32 (x)
Feature-map dataTypes must be one of {"INT8"}

Warning (supported operators) operator: RELU, ofm: 'a;b'
Reason: it's wide
Network summary"""
    assert vela._left(text) == {
        ("ADD", "sum:0"): "Operation has tensor with unsupported DataType Float32 (x) "
                          'Feature-map dataTypes must be one of {"INT8"}',
        ("RELU", "a;b"): "it's wide Network summary",
    }


@functools.cache
def by_rules(path, target):
    return audit(path, target, tools=False)


def test_the_real_files_by_rules(shared):
    for path in sorted((shared / "data" / "tflite").glob("*.tflite")):
        for target in TARGETS:
            found = by_rules(path, target)
            assert found.rows and f"on {target}" in str(found)
            assert all(bool(row.reason) is (row.verdict != "runs") for row in found.rows)


@pytest.mark.slow
def test_the_real_files_on_every_target(shared):
    """No file takes this process down, every row that does not run says why, and rules and tools agree."""
    files = sorted((shared / "data" / "tflite").glob("*.tflite"))
    assert len(files) == 16
    disagreements = []
    for path in files:
        for target in TARGETS:
            found, ruled = audit(path, target), by_rules(path, target)
            assert found.rows and str(found) and found.to_json()
            for row, rule in zip(found.rows, ruled.rows, strict=True):
                assert bool(row.reason) is (row.verdict != "runs"), (path.name, target, row)
                if row.verdict != rule.verdict:
                    disagreements.append((path.name, target, row.index, row.kind, row.verdict, rule.verdict))
            assert found.runs is ruled.runs, (path.name, target)
            if path.stem in (ABORTS, NOT_SUPPORTED):
                assert not found.runs, target
    assert not disagreements


def test_a_file_that_aborts_tflite_micro_is_refused(shared):
    pytest.importorskip("tflite_micro")
    found = audit(shared / "data" / "tflite" / f"{ABORTS}.tflite", "tflm")
    assert not found.runs and "SIGSEGV" in found.findings[0].text
    assert found.rows[0].verdict == "refused" and "fake-op-double" in found.rows[0].reason


def test_rules_and_tools_agree_on_single_operations():
    """A sample of what was compared: types and options that one of them takes and the other does not."""
    pytest.importorskip("tflite_micro")
    options = schema.ExpandDimsOptionsT()
    tensors = [tensor((4, 8)), tensor((1,), "INT32", np.int32([0])), tensor((1, 4, 8))]
    expand = file_of(tensors, [op("EXPAND_DIMS", (0, 1), (2,), options)], (0,), (2,))
    unsigned, hybrid = conv("UINT8", "UINT8"), conv("FLOAT32", "INT8")
    for content, target in ((expand, "xnnpack"), (unsigned, "xnnpack"), (hybrid, "tflm")):
        asked_of, ruled = audit(content, target), audit(content, target, tools=False)
        assert [row.verdict for row in asked_of.rows] == [row.verdict for row in ruled.rows], target
    assert tflm.RULES.rest is None
