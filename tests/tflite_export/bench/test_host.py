from ctypes.util import find_library
from pathlib import Path

import numpy as np
import pytest

from tests.tflite_export.handmade import dense, file_of, integer_dense, op, tensor
from tflite_export.bench import host, litert
from tflite_export.bench.harness import benchmark, measure
from tflite_export.bench.interpreter import delegated_operations
from tflite_export.bench.job import Job, Named
from tflite_export.bench.litert import _Seen, inferences, rows
from tflite_export.flatbuffer import read


def large(width: int, seed: int = 0) -> bytes:
    """y = W x of `width` squared weights."""
    weights = np.random.default_rng(seed).normal(size=(width, width)).astype("float32")
    tensors = [tensor((1, width), name="x"), tensor((width, width), data=weights), tensor((1, width), name="y")]
    return file_of(tensors, [op("FULLY_CONNECTED", (0, 1, -1), (2,))], (0,), (2,))


@pytest.mark.parametrize(
    "accelerator, delegate",
    [
        (None, "XNNPACK (1 of 1 operations)"),
        ("builtin", "none (builtin kernels)"),
        ("reference", "none (reference kernels)"),
        ("compiled-cpu", "XNNPACK (all 1 operations)"),
    ],
)
def test_a_result_is_whole(accelerator, delegate):
    r = benchmark(large(256), accelerator=accelerator, runs=15, name="net")
    assert (r.status, r.reason, r.name, r.runs, r.threads, r.delegate) == ("ok", "", "net", 15, 1, delegate)
    assert 0 < r.min <= r.median <= r.p90 <= r.p99 and r.init > 0 and r.first > 0
    assert r.throughput == pytest.approx(1000 / r.median) and r.version and r.device
    assert r.agreement.against == "reference" and r.agreement.values == 8 * 256 and r.agreement.largest < 1e-3
    assert 100_000 < r.peak_memory < 200e6
    assert 0 < r.counts["overhead (us)"] < 100
    assert type(r).from_json(r.to_json()) == r


def test_files_are_timed_by_turns_and_compared_with_the_first():
    # 64 times the multiplications and more: 100 leaves room for what a call costs anyway.
    small, again, big = benchmark({"a": large(96), "b": large(96), "c": large(1536)}, runs=30)
    assert small.ratio == 1 and 0.4 < again.ratio < 2.5 and big.ratio > 5


def test_a_file_that_fails_is_a_row_beside_those_that_run():
    custom = file_of([tensor((1, 2)), tensor((1, 2))], [op("mine", (0,), (1,))], (0,), (1,))
    bad, good = benchmark({"bad": custom, "good": dense()}, runs=3)
    assert bad.status == "failed" and "custom op: mine" in bad.reason and bad.ratio is None
    assert good.status == "ok" and good.ratio is None


def test_samples_feed_the_inferences():
    x = np.float32([[1, 2], [1, 0], [-1, -2]])
    r = benchmark(dense(), runs=3, samples=x, labels=[0, 2, 1])
    assert r.accuracy == 1 and r.agreement.values == 9


def test_a_wrong_timeout_is_refused_and_a_short_one_is_a_row():
    with pytest.raises(ValueError, match="`timeout` must be a positive number"):
        benchmark(dense(), timeout="soon")
    r = benchmark(dense(), timeout=0.01)
    assert (r.status, r.reason) == ("failed", "it did not answer within 0.01 s")


def test_an_interruption_leaves_what_was_timed(monkeypatch):
    calls, done = [], []
    real = host._turn

    def turn(one, count):
        calls.append(one)
        if len(calls) > 5:
            raise KeyboardInterrupt
        real(one, count)

    monkeypatch.setattr(host, "_turn", turn)
    files = (Named("a", dense()), Named("b", integer_dense()))
    with pytest.raises(KeyboardInterrupt):
        measure(Job(files, runs=40, finished=done.append), "host")
    assert [(r.name, r.status, r.runs) for r in done] == [("a", "ok", 12), ("b", "ok", 8)]
    assert "interrupted after 12 of 40 inferences" in done[0].warnings


def test_a_profile_names_kernels_and_operations():
    r = benchmark(large(512), runs=5, profile=True)
    slowest = max(r.operations, key=lambda row: row.count)
    assert {row.where for row in r.operations} == {"XNNPACK"} and "Fully Connected" in slowest.kind
    assert 0 < slowest.count < 50 * r.median
    r = benchmark(integer_dense(), runs=5, profile=True, accelerator="builtin")
    assert [(row.kind, row.name, row.where) for row in r.operations] == [("FULLY_CONNECTED", "y", "builtin")]


def test_a_profile_of_another_release_is_refused(monkeypatch):
    monkeypatch.setattr(litert, "version", lambda name: "9.9.9")
    r = benchmark(dense(), runs=2, profile=True)
    assert r.status == "ok" and r.operations == ()
    assert any("installed is 9.9.9" in w and "pip install ai-edge-litert==2.3.0" in w for w in r.warnings)
    r = benchmark(dense(), runs=2, profile=True, accelerator="reference")
    assert any("none for 'reference'" in w for w in r.warnings)


@pytest.mark.parametrize("accelerator, what", [("compiled-npu", "openvino"), ("compiled-gpu", "Vulkan")])
def test_a_device_that_is_not_there_is_unavailable(accelerator, what, monkeypatch):
    monkeypatch.setenv("VK_ICD_FILENAMES", "/dev/null")
    r = benchmark(dense(), runs=2, accelerator=accelerator)
    if r.status == "ok":
        pytest.skip("this machine has one")
    assert r.status == "unavailable" and what in r.reason


def test_a_gpu_in_software_is_called_so(monkeypatch):
    driver = Path("/usr/lib/chromium/vk_swiftshader_icd.json")
    if not driver.exists() or find_library("vulkan") is None:
        pytest.skip("needs Chromium's SwiftShader and the package libvulkan1")
    monkeypatch.setenv("VK_ICD_FILENAMES", str(driver))
    r = benchmark(large(256), runs=2, accelerator="compiled-gpu")
    assert r.status == "ok" and "SwiftShader" in r.delegate and any("in software" in w for w in r.warnings)
    assert r.agreement.largest < 0.1


def test_operations_of_delegates_are_those_between_their_ends():
    # 0 -> A -> 1 -> B -> 2 -> C -> 3; B also reads the constant 9. The delegate stands for A and B.
    def listed(index, name, inputs, outputs):
        return {"index": index, "op_name": name, "inputs": inputs, "outputs": outputs}

    plain = [listed(0, "A", [0], [1]), listed(1, "B", [1, 9], [2]), listed(2, "C", [2], [3])]
    assert delegated_operations(plain) == 0
    assert delegated_operations([*plain, listed(3, "DELEGATE", [0, 9], [2])]) == 2
    assert delegated_operations([*plain, listed(3, "DELEGATE", [0, 9], [2]), listed(4, "DELEGATE", [2], [3])]) == 3


def test_events_become_one_row_an_operation():
    def run(*parts):
        return [_Seen("Run", 1, 0, 99), _Seen("Invoke", 1, 0, 90), *parts]

    first = run(
        _Seen("Conv GEMM", 8, 0, 10), _Seen("TfLiteXNNPackDelegate", 2, 1, 12), _Seen("FULLY_CONNECTED", 2, 0, 2)
    )
    second = run(
        _Seen("Conv GEMM", 8, 0, 30), _Seen("TfLiteXNNPackDelegate", 2, 1, 31), _Seen("FULLY_CONNECTED", 2, 0, 4)
    )
    other = run(_Seen("Conv GEMM", 8, 0, 500))
    found = rows(inferences([*first, *second, *other]), read(dense()).subgraphs[0])
    assert found == [["Conv GEMM", "", "XNNPACK", 0.02], ["FULLY_CONNECTED", "y", "builtin", 0.003]]
    assert rows(inferences([]), read(dense()).subgraphs[0]) == []
