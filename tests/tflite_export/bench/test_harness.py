import hashlib
import sys
from types import ModuleType

import numpy as np
import pytest

from tests.tflite_export.handmade import dense, file_of, integer_dense, op, tensor
from tflite_export.bench import harness
from tflite_export.bench.harness import benchmark, decisions, measure, named
from tflite_export.bench.inputs import feeds
from tflite_export.bench.job import Job, Missing, Named
from tflite_export.bench.outcome import outcome
from tflite_export.errors import ExportError


@pytest.fixture
def fake(monkeypatch):
    """A target that records its job; `lacks` and `does` change what it says and does."""
    module = ModuleType("fake_target")
    module.SUMMARY, module.ACCELERATORS, module.OPTIONS = "a fake", ("fast",), {"knob": "turned"}
    module.lacks, module.jobs = [], []
    module.missing = lambda options: module.lacks
    module.does = lambda file: outcome(file, "fake", median=2.0, ratio=1.0)

    def run(job):
        module.jobs.append(job)
        return [module.does(file) for file in job.files]

    module.run = run
    monkeypatch.setitem(sys.modules, "fake_target", module)
    monkeypatch.setattr(harness, "TARGETS", {"fake": "fake_target", **harness.TARGETS})
    return module


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"target": "phone"}, "'host', 'tflm'"),
        ({"runs": 0}, "`runs` must be an integer from 1"),
        ({"threads": True}, "`threads` must be"),
        ({"accelerator": "slow"}, r"`accelerator` of target 'fake' must be one of \['fast'\]"),
        ({"lever": 1}, r"the options \['knob'\]. Received: \['lever'\]"),
        ({"labels": [1]}, "`labels` need `samples`"),
        ({"samples": np.zeros((1, 2)), "labels": [0.5]}, "number of a class"),
        ({"samples": np.zeros((1, 7))}, "`samples` do not fit 'model': Input 'x'"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_runs(fake, arguments, words):
    with pytest.raises(ValueError, match=words):
        benchmark(dense(), **{"target": "fake", **arguments})
    assert fake.jobs == []


def test_the_target_gets_what_was_asked_for(fake):
    result = benchmark(dense(), "fake", name="mine", runs=3, threads=2, accelerator="fast", profile=True, knob=5)
    job = fake.jobs[0]
    assert (job.runs, job.threads, job.accelerator, job.profile, dict(job.options)) == (3, 2, "fast", True, {"knob": 5})
    assert (result.name, result.median, result.size) == ("mine", 2.0, len(dense()))
    assert result.sha256 == hashlib.sha256(dense()).hexdigest()


def test_several_files_come_back_in_order(fake):
    results = benchmark({"b": dense(), "a": integer_dense()}, "fake")
    assert [(result.name, result.ratio) for result in results] == [("b", 1.0), ("a", 1.0)]
    assert benchmark(dense(), "fake").ratio is None  # alone, it is compared with nothing
    with pytest.raises(ValueError, match="`name` is for one file"):
        benchmark([dense()], "fake", name="x")
    with pytest.raises(ValueError, match="at least one file"):
        benchmark([], "fake")


def test_names_come_from_paths_and_are_numbered(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "net.tflite").write_bytes(dense())
    files = named([tmp_path / "a" / "net.tflite", tmp_path / "b" / "net.tflite", dense()])
    assert [file.name for file in files] == ["net.tflite", "net.tflite (2)", "model"]


def test_a_missing_tool_is_a_row_with_its_command(fake):
    fake.lacks = [Missing("the adb client", "sudo apt-get install adb")]
    result = benchmark(dense(), "fake")
    assert result.status == "unavailable" and fake.jobs == []
    assert result.reason == "the adb client is missing: sudo apt-get install adb"


def test_a_damaged_file_is_a_row_and_the_others_run(fake):
    done = []
    files = (Named("broken", b"no file"), Named("whole", dense()))
    results = measure(Job(files, finished=done.append), "fake")
    assert [(r.name, r.status) for r in results] == [("broken", "failed"), ("whole", "ok")]
    assert "only 7 bytes" in results[0].reason
    assert results[1].ratio is None  # there is no first file to be compared with
    assert [(result.name, result.ratio) for result in done] == [("broken", None), ("whole", None)]


def test_a_target_that_fails_as_a_whole_is_rows(fake):
    def breaks(file):
        raise ExportError("the cable is out")

    fake.does = breaks
    assert [r.reason for r in benchmark([dense(), dense()], "fake")] == ["the cable is out"] * 2


def test_results_are_handed_on_once_and_at_once(fake):
    done, seen = [], []

    def run(job):
        for file in job.files:
            job.finished(fake.does(file))
            seen.append(len(done))
        return [fake.does(file) for file in job.files]

    fake.run = run
    measure(Job((Named("a", dense()), Named("b", dense())), finished=done.append), "fake")
    assert seen == [1, 2] and [result.name for result in done] == ["a", "b"]


def test_accuracy_is_the_share_of_right_decisions(fake):
    # W = [[1, 2], [0, -1], [3, 0]], b = [0.5, 0, -1]: (1, 2) -> 0, (1, 0) -> 2, (-1, -2) -> 1.
    x = np.float32([[1, 2], [1, 0], [-1, -2], [1, 2]])
    assert benchmark(dense(), "fake", samples=x, labels=[0, 2, 1, 1]).accuracy == 0.75
    missed = benchmark(dense(), "fake", samples=x, labels=[0, 2])
    assert missed.accuracy is None and "no decision for each of 2 rows" in missed.warnings[0]


def test_a_single_value_decides_at_a_half():
    given = feeds(dense(), np.zeros((4, 2), "float32"))
    outputs = {"y": np.float32([0.2, 0.7, 0.9, 0.4]).reshape(4, 1, 1)}
    assert decisions(outputs, given, np.array([0, 1, 0, 0])) == 0.75
    with pytest.raises(ValueError, match="a single integer"):
        decisions({"y": np.ones((4, 1, 1), "int8")}, given, np.array([0, 1, 0, 0]))


def test_a_long_reason_is_one_line_of_600_characters():
    from tflite_export.bench.outcome import failed

    row = failed(Named("a", b""), "host", "x\n" * 5000)
    assert len(row.reason) == 600 and "\n" not in row.reason


def test_files_without_operations_are_no_trouble():
    content = file_of([tensor((1, 2), name="x"), tensor((1, 2), name="y")], [op("mine", (0,), (1,))], (0,), (1,))
    result = benchmark(content, runs=1)
    assert result.status == "failed" and "mine" in result.reason and result.device
