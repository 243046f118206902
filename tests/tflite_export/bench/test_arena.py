import sys

import pytest
from ai_edge_litert import schema_py_generated as schema

from tests.tflite_export.handmade import dense, file_of, integer_dense, op, tensor
from tflite_export import ExportError
from tflite_export.bench import arena
from tflite_export.bench.arena import Arena, measure_arena

pytest.importorskip("tflite_micro")


def test_the_total_is_the_least_that_runs():
    # A file of few values needs more to plan them than to hold them: head and tail alone are not enough.
    measured = measure_arena(dense())
    assert measured.total > measured.head + measured.tail and measured.head > 0 and measured.tail > 0
    assert arena._ask(dense(), measured.total, 60)[0] == 0
    assert arena._ask(dense(), measured.total - 32, 60)[0] != 0
    # 4096 floats twice are more than any plan.
    tensors = [tensor((1, 4096)), tensor((1, 4096))]
    measured = measure_arena(file_of(tensors, [op("ADD", (0, 0), (1,), schema.AddOptionsT())], (0,), (1,)))
    assert measured.total == measured.head + measured.tail
    assert str(Arena(1500, 500, 1000)) == "1,500 bytes (500 of values, 1,000 of structures)"


def test_one_child_finds_what_one_for_each_size_finds(monkeypatch):
    measured, asked = measure_arena(dense()), []
    real = arena._ask

    def dies(content, size, timeout, largest=None):
        asked.append(size)
        return (-6, "") if largest else real(content, size, timeout)

    monkeypatch.setattr(arena, "_ask", dies)
    assert measure_arena(dense()) == measured and len(asked) > 3


def test_the_head_holds_what_lives_at_once():
    # A chain of additions on 4096 floats needs two arrays at a time, however long it is.
    def chain(length: int) -> bytes:
        tensors = [tensor((1, 4096)) for _ in range(length + 1)]
        operators = [op("ADD", (i, i), (i + 1,), schema.AddOptionsT()) for i in range(length)]
        return file_of(tensors, operators, (0,), (length,))

    short, long = measure_arena(chain(2)), measure_arena(chain(6))
    assert short.head == long.head == 2 * 4096 * 4
    assert long.tail > short.tail


def test_reasons_name_the_operation():
    tensors = [tensor((1, 2), name="x"), tensor((1, 2), name="angle")]
    with pytest.raises(ExportError, match="has no operation ATAN2"):
        measure_arena(file_of(tensors, [op("ATAN2", (0, 0), (1,))], (0,), (1,)))
    with pytest.raises(ExportError, match=r"has no custom operation 'mine' \(operation 0 'angle'\)"):
        measure_arena(file_of(tensors, [op("mine", (0,), (1,))], (0,), (1,)))


def test_a_crash_is_a_reason_with_its_signal(monkeypatch):
    words = "import os, sys; print('said last', file=sys.stderr, flush=True); os.abort()"
    real = arena.subprocess.run

    def crash(command, **settings):
        return real([sys.executable, "-c", words], **settings)

    monkeypatch.setattr(arena.subprocess, "run", crash)
    with pytest.raises(ExportError, match=r"takes its process down \(SIGABRT\): said last"):
        measure_arena(integer_dense())


def test_limits(monkeypatch):
    with pytest.raises(ExportError, match=r"did not finish one inference in 0\.001 s"):
        measure_arena(dense(), timeout=0.001)
    with pytest.raises(ValueError, match="`timeout` must be a positive number"):
        measure_arena(dense(), timeout=0)
    monkeypatch.setattr(arena, "is_measurable", lambda: False)
    with pytest.raises(ExportError, match=r"pip install 'tfcompress\[micro\]'"):
        measure_arena(dense())
