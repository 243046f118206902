"""Target "android" with benchmark_model: over the real adb client to a phone that is a program."""

import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.tflite_export.bench.fake_adbd import BATTERY
from tflite_export.bench.android_state import State, read_state, remarks
from tflite_export.bench.harness import benchmark, measure, target_module
from tflite_export.bench.job import Job, Missing, Named

pytestmark = pytest.mark.skipif(shutil.which("adb") is None, reason="needs adb: sudo apt-get install adb")
TOOL = Path(__file__).with_name("fake_benchmark_model.py").read_text()


@pytest.fixture
def options(phone, tmp_path):
    binary = tmp_path / "benchmark_model"
    binary.write_text(f"#!{sys.executable}\n{TOOL}")
    return {"device": phone.serial, "binary": str(binary), "timeout": 60}


@pytest.fixture
def quick(options, tmp_path):
    """Options with a tool in shell, for what needs no runtime."""
    binary = tmp_path / "quick"
    binary.write_text(
        "#!/bin/sh\n# use_xnnpack\n"
        'case "$*" in\n*fake=hang*) sleep 600 ;;\n*fake=crash*) kill -ABRT $$ ;;\n'
        '*fake=refuse*) echo "ERROR: Failed to apply GPU delegate."; echo "ERROR: Benchmarking failed."; exit 1 ;;\n'
        '*use_gpu*) echo "INFO: Though GPU delegate is explicitly applied, the model graph will not be executed." ;;\n'
        "esac\necho 'INFO: count=2 first=9 curr=9 min=8 max=10 avg=9 std=1'\n"
    )
    return {**options, "binary": str(binary)}


@pytest.fixture
def files(shared):
    folder = shared / "data" / "tflite"
    return {
        "float": str(folder / "aeq_conv_fc_mnist.tflite"),
        "int8": str(folder / "tflm_micro_speech_quantized.tflite"),
    }


def test_two_files_are_timed_by_turns_and_nothing_is_left_on_the_phone(phone, options, files, monkeypatch):
    monkeypatch.setattr("tflite_export.bench.android_session._TURNS", 2)
    float32, int8 = benchmark(files, "android", runs=10, threads=2, taskset="0x3", profile=True, **options)
    for result in (float32, int8):
        assert (result.status, result.reason) == ("ok", "")
        assert result.device == "Example Phone 5, Android 14 (API 34), Acme X1"
        assert (result.runtime, result.delegate, result.threads) == (
            "TFLite benchmark_model", "XNNPACK (all operations)", 2,
        )  # fmt: skip
        assert result.runs == 10 and result.init == 2.5 and result.first == 1.234
        assert 0 < result.min <= result.median <= result.counts["p95_ms"]
        assert result.throughput == pytest.approx(1e3 / result.median)
        assert result.peak_memory == 2 * 2**20
        assert [(one.kind, one.name, one.count) for one in result.operations] == [
            ("CONV_2D", "conv", 0.25), ("SOFTMAX", "out", 0.1),
        ]  # fmt: skip
        assert result.warnings == ("phone: battery 83 %, 28.7 C, charging from USB, thermal status none",)
    assert float32.agreement.values == 10 and float32.agreement.largest < 1e-4
    assert int8.agreement.unit == "steps" and int8.agreement.largest <= 1
    assert (float32.ratio, int8.ratio is not None) == (1.0, True)
    calls = [command for command in phone.commands if "--graph=" in command]
    assert ["model0" if "model0" in call else "model1" for call in calls] == ["model0", "model1"] * 3
    assert all("taskset 3 ./benchmark_model" in call and "--num_threads=2" in call for call in calls)
    assert "profiling" not in calls[-1] and "output_filepath" not in calls[-1]
    assert phone.left() == []


def test_samples_are_what_the_phone_is_fed_with(phone, quick, options, files):
    rows = np.linspace(0, 1, 2 * 28 * 28, dtype=np.float32).reshape(2, 28, 28, 1)
    tool = Path(quick["binary"])
    tool.write_text(tool.read_text() + f"# input_layer_value_files\ncp in0_0 {tool}.fed\n")
    result = benchmark(files["float"], "android", runs=1, samples=rows, **quick)
    assert result.status == "ok" and result.ratio is None
    assert np.array_equal(np.fromfile(f"{tool}.fed", np.float32), rows[0].ravel())
    call = next(command for command in phone.commands if "--graph" in command)
    assert "--input_layer=in0_0 --input_layer_shape=1,28,28,1 --input_layer_value_files=in0_0:in0_0" in call


@pytest.mark.parametrize(("fake", "told"), [("wrong", "dB signal to noise"), ("broken", "not finite")])
def test_a_runtime_that_returns_garbage_fast_is_caught(options, files, fake, told):
    result = benchmark(files["float"], "android", runs=1, flags=f"--fake={fake}", **options)
    assert result.status == "failed" and "its outputs are not the file's" in result.reason and told in result.reason
    assert result.median is not None


@pytest.mark.parametrize(("fake", "told"), [("refuse", "Failed to apply GPU delegate."), ("crash", "SIGABRT")])
def test_a_tool_that_fails_is_a_row_with_its_reason(phone, quick, files, fake, told):
    result = benchmark(files["float"], "android", accelerator="gpu", runs=1, flags=[f"--fake={fake}"], **quick)
    assert result.status == "failed" and told in result.reason
    assert phone.left() == []


def test_a_file_that_does_not_run_leaves_the_others_alone(shared, phone, options, files, monkeypatch):
    monkeypatch.setattr("tflite_export.bench.android_session._TURNS", 1)
    bad = {"bad": str(shared / "data" / "tflite" / "support_whitespace_tokenizer_custom_op.tflite"), **files}
    bad.pop("int8")
    custom, good = benchmark(bad, "android", runs=5, **options)
    assert custom.status == "failed" and "tftext:WhitespaceTokenizer" in custom.reason
    assert good.status == "ok" and good.ratio is None
    assert phone.left() == []


def test_a_tool_that_hangs_is_stopped_there_too(phone, quick, files):
    result = benchmark(files["float"], "android", flags="--fake=hang", **{**quick, "timeout": 2})
    assert (result.status, result.reason) == ("failed", "benchmark_model did not end within 2 s and was stopped")
    assert phone.left() == []
    assert any("kill -9" in command for command in phone.commands)
    deadline = time.monotonic() + 5
    while any(process.poll() is None for process in phone._processes) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert all(process.poll() is not None for process in phone._processes)


def test_what_is_timed_is_kept_when_the_user_interrupts(phone, quick, files):
    def progress(line):
        if "turn 2" in line:
            raise KeyboardInterrupt

    done = []
    named = tuple(Named(name, Path(path).read_bytes()) for name, path in files.items())
    with pytest.raises(KeyboardInterrupt):
        measure(Job(named, runs=50, options=quick, progress=progress, finished=done.append), "android")
    assert [(result.name, result.status, result.runs) for result in done] == [("float", "ok", 2), ("int8", "ok", 2)]
    assert "only 2 of 50 inferences were timed" in done[0].warnings
    assert phone.left() == []


def test_full_storage_is_told_and_a_smaller_file_still_runs(phone, quick, files):
    phone.free = os.path.getsize(files["int8"])
    large, small = benchmark(files, "android", runs=1, **quick)
    assert large.status == "failed" and "the phone's storage is full" in large.reason
    assert small.status == "ok"


def test_a_phone_that_goes_away_is_unavailable(phone, quick, files):
    phone.breaks_at = "model1.tflite"
    first, second = benchmark(files, "android", runs=1, **quick)
    for result in (first, second):
        assert result.status == "unavailable" and "check the cable" in result.reason


def test_heat_and_battery_are_told(phone, quick, files):
    phone.dumpsys(BATTERY.replace("USB powered: true", "USB powered: false").replace("83", "12"), thermal=2)
    notes = benchmark(files["int8"], "android", runs=1, **quick).warnings
    assert "phone: battery 12 %, 28.7 C, on battery, thermal status moderate" in notes
    assert any("throttles itself (thermal status moderate)" in note for note in notes)
    assert any("the battery is low (12 %)" in note for note in notes)


def test_state_is_read_from_what_phones_print():
    text = "  AC powered: true\n  level: 50\n  scale: 200\n  temperature: 405\nThermal Status: 0\nlow_power=1\n"
    assert read_state(text) == State(level=25, celsius=40.5, power="the mains", thermal=0, saver=True)
    assert str(read_state("Can't find service: thermalservice")) == "unknown"
    notes = remarks(State(celsius=30.0), State(celsius=41.0))
    assert any("warm (41.0 C)" in note for note in notes) and "after" in notes[0]


def test_an_accelerator_that_took_nothing_is_told(quick, files):
    result = benchmark(files["int8"], "android", accelerator="gpu", runs=1, **quick)
    assert "GPU took no operation: these are times of the CPU" in result.warnings


def litert(tmp_path):
    """LiteRT's tool in shell: it takes no inputs and gives no outputs."""
    binary = tmp_path / "litert_tool"
    binary.write_text(
        "#!/bin/sh\n# dispatch_library_path use_npu use_profiler\n"
        'echo "INFO: [benchmark_litert_model.h:75] Model initialization: 4.50 ms" >&2\n'
        'echo "INFO: Warmup (first):       3.00 ms" >&2\n'
        'echo "INFO: Inference (avg):      2.00 ms (5 runs)" >&2\n'
        'echo "INFO: Inference (min):      1.50 ms" >&2\n'
    )
    return str(binary)


def test_the_tool_of_litert_by_its_flags(tmp_path, phone, options, files):
    options = {**options, "binary": litert(tmp_path)}
    result = benchmark(files["int8"], "android", runs=5, profile=True, **options)
    assert (result.status, result.runtime, result.init, result.first) == ("ok", "LiteRT benchmark_model", 4.5, 3.0)
    assert (result.median, result.min, result.agreement) == (2.0, 1.5, None)
    notes = " ".join(result.warnings)
    assert "no median: it is the average" in notes and "outputs were not checked" in notes and "no profile" in notes
    call = next(command for command in phone.commands if "--graph" in command)
    assert "--use_cpu=true" in call and "--use_profiler=true" in call and "xnnpack" not in call
    result = benchmark(files["int8"], "android", accelerator="nnapi", **options)
    assert result.status == "failed" and "'nnapi'; that of TFLite can" in result.reason


def test_a_binary_for_another_processor_is_told_before_anything_runs(tmp_path, options, files):
    binary = tmp_path / "x86"
    binary.write_bytes(b"\x7fELF" + bytes(14) + b"\x3e\x00" + bytes(44))
    result = benchmark(files["int8"], "android", **{**options, "binary": str(binary)})
    assert result.status == "unavailable"
    assert "benchmark_model for arm64-v8a (`binary` is for x86_64) is missing" in result.reason


def test_libraries_go_beside_the_tool(tmp_path, phone, options, files):
    library = tmp_path / "libdelegate.so"
    library.write_bytes(b"library")
    binary = tmp_path / "tool"
    binary.write_text(
        '#!/bin/sh\n# use_xnnpack\ntest "$(cat libdelegate.so)" = library || exit 3\n'
        "test $LD_LIBRARY_PATH = . || exit 4\necho count=2 first=9 curr=9 min=8 max=10 avg=9 std=1\n"
    )
    result = benchmark(
        files["int8"], "android", runs=2, **{**options, "binary": str(binary), "libraries": str(library)}
    )
    assert (result.status, result.reason) == ("ok", "")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"taskset": "cpu0"}, "`taskset` must be a hexadecimal mask"),
        ({"flags": "use_gpu"}, "must each start with '--'"),
        ({"runner": "other"}, "`runner` must be one of"),
        ({"timeout": "soon"}, "`timeout` must be a positive number"),
    ],
)
def test_wrong_options_are_refused(options, files, wrong, told):
    with pytest.raises(ValueError, match=told):
        benchmark(files["int8"], "android", **{**options, **wrong})


def test_without_a_binary_the_way_to_one_is_told(phone):
    found = target_module("android").missing({"device": phone.serial})
    assert [type(one) for one in found] == [Missing] and "bazel build" in str(found[0])
