"""Target "android" with the demo app: the contract of manifest and results, over adb to a phone that is a program."""

import json
import shutil
import sys
import time
from pathlib import Path

import pytest

from tflite_export.bench.android_app import read_entry
from tflite_export.bench.harness import benchmark
from tflite_export.bench.job import Named
from tflite_export.bench.outcome import outcome

pytestmark = pytest.mark.skipif(shutil.which("adb") is None, reason="needs adb: sudo apt-get install adb")
APP = Path(__file__).with_name("fake_app.py")


@pytest.fixture
def phone(phone):
    """With the app on it."""
    phone.pid = phone.programs / "app.pid"
    phone.program("pm", 'test "$2" = dev.tfcompress.demo && echo package:/data/app/base.apk')
    phone.program("pidof", f"kill -0 $(cat {phone.pid}) 2>/dev/null && cat {phone.pid}")
    phone.program("logcat", "echo '11-21 08:00:00.000 1 1 E AndroidRuntime: java.lang.Error: out of luck'")
    behave(phone, "")
    return phone


def behave(phone, behaviour):
    """Makes the app behave: dies, hangs, wrong, damaged, own (agreement of its own), old (schema)."""
    start = f'{sys.executable} {APP} "$7" "{behaviour}" >/dev/null 2>&1 </dev/null & echo $! > {phone.pid}'
    stop = f"kill -9 $(cat {phone.pid}) 2>/dev/null"
    phone.program("am", f'if [ "$1" = start ]; then {start}; else {stop}; fi; true')


@pytest.fixture
def options(phone):
    return {"device": phone.serial, "runner": "app", "timeout": 60}


@pytest.fixture
def files(shared):
    folder = shared / "data" / "tflite"
    return {
        "float": str(folder / "aeq_conv_fc_mnist.tflite"),
        "custom": str(folder / "support_whitespace_tokenizer_custom_op.tflite"),
        "int8": str(folder / "tflm_micro_speech_quantized.tflite"),
    }


def test_the_app_measures_files_and_its_results_are_those_of_every_target(phone, options, files):
    float32, custom, int8 = benchmark(files, "android", runs=7, threads=2, profile=True, **options)
    for result in (float32, int8):
        assert (result.status, result.reason) == ("ok", "")
        assert result.device == "Example Phone 5, Android 14 (API 34), Acme X1"
        assert (result.runtime, result.version) == ("TensorFlow Lite in the demo app", "2.16.1")
        assert (result.delegate, result.threads, result.runs) == ("XNNPACK (4 of 4 operations)", 2, 7)
        times = (result.init, result.first, result.median, result.p90, result.p99, result.min)
        assert times == (3.5, 2.25, 0.5, 0.75, 1.0, 0.25)
        assert (result.spread, result.throughput, result.peak_memory) == (0.125, 2000.0, 4096)
        assert [(one.kind, one.name, one.where, one.count) for one in result.operations] == [
            ("CONV_2D", "conv", "XNNPACK", 0.25)
        ]
        assert result.warnings == (
            "phone: battery 83 %, 28.7 C, charging from USB, thermal status none", "the screen was off",
        )  # fmt: skip
        assert result.agreement.against == "reference"
    assert float32.agreement.largest < 1e-4 and int8.agreement.largest <= 1
    assert (float32.ratio, int8.ratio) == (None, 1.5)
    assert custom.status == "failed" and "tftext:WhitespaceTokenizer" in custom.reason
    start = next(command for command in phone.commands if command.startswith("am start"))
    assert start.split()[:5] == ["am", "start", "-S", "-n", "dev.tfcompress.demo/dev.tfcompress.demo.BenchmarkActivity"]
    assert start.split()[5:7] == ["--es", "manifest"] and start.split()[7].endswith("/manifest.json")
    assert phone.left() == []
    assert any(command.startswith("am force-stop dev.tfcompress.demo") for command in phone.commands)


def test_the_manifest_is_as_the_contract_says(phone, options, files):
    kept = phone.programs / "manifest"
    phone.program("am", f'test "$1" = start && cp "$7" {kept}; true')
    phone.program("pidof", "true")
    result = benchmark(files["int8"], "android", runs=7, accelerator="gpu", **options)
    assert result.status == "failed" and "the app died: java.lang.Error: out of luck" in result.reason
    manifest = json.loads(kept.read_text())
    [model] = manifest.pop("models")
    assert manifest.pop("run").startswith("bench_")
    assert manifest == {
        "schema": 1, "accelerator": "gpu", "runs": 7, "turns": 1, "threads": 1, "profile": False,
    }  # fmt: skip
    assert (model["name"], model["file"]) == ("tflm_micro_speech_quantized.tflite", "model0.tflite")
    assert model["sha256"] == result.sha256 and model["signature"] == ""
    assert [one["file"] for one in model["inputs"]] == ["in0_0"]


@pytest.mark.parametrize(
    ("behaviour", "told"),
    [
        ("wrong", "its outputs are not the file's"),
        ("damaged", "median_ms must be a number from 0, it is 'soon'"),
        ("old", "the app writes schema 9, not 1"),
        ("hangs", "did not finish this file within 3 s"),
    ],
)
def test_what_an_app_does_wrong_is_named(phone, options, files, behaviour, told):
    behave(phone, behaviour)
    begin = time.monotonic()
    result = benchmark(files["float"], "android", **{**options, "timeout": 3 if behaviour == "hangs" else 60})
    assert result.status == "failed" and told in result.reason
    assert phone.left() == [] and time.monotonic() - begin < 30


def test_an_app_that_dies_keeps_what_it_has_measured(phone, options, files):
    behave(phone, "dies")
    float32, _, int8 = benchmark(files, "android", **options)
    assert (float32.status, float32.median) == ("ok", 0.5)
    assert int8.status == "failed" and "the app died: java.lang.Error: out of luck" in int8.reason


def test_without_the_app_the_way_to_it_is_told(phone, options, files):
    result = benchmark(files["int8"], "android", package="org.example.other", **options)
    assert result.status == "unavailable"
    assert "the demo app org.example.other on the phone is missing: build it in android_demo/" in result.reason
    with pytest.raises(ValueError, match="`package` must be the name of an Android package"):
        benchmark(files["int8"], "android", package="x; rm -rf /", **options)


def test_an_activity_that_is_not_there_is_named(phone, options, files):
    phone.program("am", "test $1 = start && echo 'Error: Activity class {x} does not exist.'; true")
    result = benchmark(files["int8"], "android", **options)
    assert (result.status, result.reason) == (
        "failed", "the app does not start: Error: Activity class {x} does not exist.",
    )  # fmt: skip


def test_an_accelerator_that_the_app_does_not_have(options, files):
    result = benchmark(files["int8"], "android", accelerator="hexagon", **options)
    assert result.status == "failed" and "xnnpack, cpu, gpu, nnapi" in result.reason


def test_an_agreement_of_the_app_itself_is_kept():
    file = Named("a", b"content")
    entry = {
        "name": "a", "sha256": outcome(file, "android").sha256, "status": "ok", "median_ms": 2,
        "agreement": {"against": "expected", "values": 10, "equal": 0.5, "largest": 1.0, "unit": "steps"},
    }  # fmt: skip
    found = read_entry(file, entry, {}, [])
    assert (found.status, found.agreement.against, found.throughput) == ("ok", "expected", 500.0)
    assert read_entry(file, {**entry, "sha256": "0"}, {}, []).reason == "the app measured another file of this name"
    assert read_entry(file, {**entry, "agreement": [1]}, {}, []).status == "failed"
    assert read_entry(file, {**entry, "median_ms": None}, {}, []).reason == "the app timed nothing"
