"""The Android app from its sources: the APK, its tests on the JVM, a run of the benchmark harness without a phone."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import tflite_export
from tests.android_demo import sample
from tests.tflite_export.bench.fake_adbd import FakePhone, adb_server

ROOT = Path(__file__).resolve().parent.parent.parent
DEMO = ROOT / "android_demo"
OUT = DEMO / "build" / "offline"
TOOLS = ("java", "javac", "mvn", "aapt2", "zipalign", "apksigner", "zip", "unzip")
CLASSES = ("MainActivity", "CompareActivity", "BenchmarkActivity")
INSTALL = "sudo apt-get install maven default-jdk-headless aapt zipalign apksigner zip unzip"
pytestmark = pytest.mark.program


@pytest.fixture(scope="session")
def built():
    """What build.sh prints when it has built and tested the app; skipped where it cannot be built."""
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        pytest.skip(f"needs {', '.join(missing)}: {INSTALL}")
    done = subprocess.run([DEMO / "build.sh"], capture_output=True, text=True, timeout=900, check=False)
    said = done.stdout + done.stderr
    if done.returncode and re.search(r"Could not transfer artifact|Unknown host|Network is unreachable", said):
        pytest.skip("needs Maven Central, which cannot be reached")
    assert done.returncode == 0, said[-6000:]
    return said


def test_one_command_builds_a_signed_apk(built):
    assert "Verified using v2 scheme (APK Signature Scheme v2): true" in built
    for line in ("package: name='dev.tfcompress.demo' versionCode='1'", "sdkVersion:'26'", "targetSdkVersion:'36'",
                 "application-label:'tfcompress demo'",
                 "launchable-activity: name='dev.tfcompress.demo.screen.MainActivity'",
                 "native-code: 'arm64-v8a' 'x86_64'"):  # fmt: skip
        assert line in built
    assert "uses-permission" not in built
    assert re.findall(r"activity: \.(?:screen\.)?(\w+)", built) == list(CLASSES)
    [size] = map(int, re.findall(r"demo\.apk: (\d+) bytes", built))
    assert size == (DEMO / "build" / "demo.apk").stat().st_size <= 8 << 20


def test_the_apk_holds_the_classes_and_the_libraries(built):
    with zipfile.ZipFile(DEMO / "build" / "demo.apk") as apk:
        names = apk.namelist()
        dex = apk.read("classes.dex")
    for processor in ("arm64-v8a", "x86_64"):
        for library in ("libtensorflowlite_jni.so", "libtensorflowlite_gpu_jni.so"):
            assert f"lib/{processor}/{library}" in names
    for name in ("BenchmarkActivity", "screen/MainActivity", "screen/CompareActivity"):
        assert f"Ldev/tfcompress/demo/{name};".encode() in dex
    assert not [name for name in names if name.startswith("assets/")]


def test_the_app_s_own_tests_ran(built):
    text = "".join(path.read_text() for path in (OUT / "maven" / "surefire-reports").glob("*.txt"))
    counts = re.findall(r"Tests run: (\d+), Failures: 0, Errors: 0, Skipped: 0", text)
    assert len(counts) == text.count("Tests run:") >= 6 and sum(map(int, counts)) >= 45
    for screen in ("main", "night", "landscape", "compare", "benchmark", "broken", "missing", "unknown", "empty"):
        assert (OUT / "screens" / f"{screen}.png").stat().st_size > 5000


def test_the_files_of_the_app_s_tests_are_python_s():
    from tests.android_demo import vectors

    resources = DEMO / "app" / "src" / "test" / "resources"
    stored, now = json.loads((resources / "vectors.json").read_text()), vectors.vectors()
    assert stored.keys() == now.keys()
    for part, rows in now.items():
        for row, kept in zip(rows, stored[part], strict=True):
            for key, value in row.items():
                if isinstance(value, list) and np.array(value).dtype.kind == "f":
                    np.testing.assert_allclose(kept[key], value, atol=2e-4, err_msg=f"{part}.{key}")
                else:
                    assert kept[key] == pytest.approx(value) if isinstance(value, float) else kept[key] == value
    assert tflite_export.load_bundle(resources / "bundle.zip").manifest.labels == tuple(sample.LABELS)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory, shared):
    with np.load(shared / "data" / "fashion_mnist.npz") as data:
        images, labels = data["x_train"][:3000, ..., None] / 255.0, data["y_train"][:3000]
    images = images.astype("float32")
    return sample.bundle(images, labels, images[:5], tmp_path_factory.mktemp("bundle") / "bundle")


@pytest.fixture(scope="session")
def java(built):
    """The app's code without its screens, in a process of its own."""
    done = subprocess.run(
        ["mvn", "-q", "-B", "-f", DEMO / "offline" / "pom.xml", "dependency:build-classpath",
         "-Dmdep.outputFile=/dev/stdout"], capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    [paths] = [line for line in done.stdout.splitlines() if ".jar" in line]
    classes = [OUT / "maven" / "test-classes", OUT / "maven" / "classes"]
    return ["java", "-cp", ":".join([*map(str, classes), paths.strip("\x1b[0m")]), "dev.tfcompress.demo.HeadlessKt"]


def test_models_of_a_bundle_give_the_expected_outputs_in_kotlin(java, bundle):
    done = subprocess.run([*java, "bundle", bundle.path], capture_output=True, text=True, timeout=120, check=True)
    told = json.loads(done.stdout)
    assert (told["schema"], told["run"], told["finished"], told["error"]) == (1, "Fashion", True, "")
    assert [entry["name"] for entry in told["entries"]] == [model.name for model in bundle.manifest.models]
    float32, int8, whole = (entry["agreement"] for entry in told["entries"])
    assert float32["unit"] == "real" and float32["largest"] <= 1e-4
    assert int8["unit"] == "real" and int8["largest"] <= bundle.manifest.models[1].outputs[0].step * 1.001
    assert whole["unit"] == "steps" and whole["largest"] <= 1
    for entry in told["entries"]:
        assert entry["agreement"]["values"] == 50 and entry["status"] == "ok" and entry["median_ms"] > 0
        expected = bundle.expected(entry["name"])["garment"][0]
        assert entry["answers"][0]["label"] == sample.LABELS[int(np.argmax(expected))]


@pytest.mark.skipif(shutil.which("adb") is None, reason="needs adb: sudo apt-get install adb")
def test_the_harness_measures_the_files_of_a_bundle_with_the_app(java, bundle, tmp_path):
    command = " ".join(f"'{part}'" for part in java)
    with adb_server(tmp_path), FakePhone(tmp_path / "phone") as phone:
        phone.program("pm", 'test "$2" = dev.tfcompress.demo && echo package:/data/app/base.apk')
        phone.program("pidof", f"kill -0 $(cat {phone.programs}/pid) 2>/dev/null && cat {phone.programs}/pid")
        start = f'{command} harness "$7" >/dev/null 2>&1 </dev/null & echo $! > {phone.programs}/pid'
        phone.program(
            "am", f'if [ "$1" = start ]; then {start}; else kill $(cat {phone.programs}/pid) 2>/dev/null; fi; true'
        )
        phone.connect()
        files = [bundle.path / model.file for model in bundle.manifest.models]
        done = subprocess.run(
            [sys.executable, "-m", "tflite_export.cli", "benchmark", *files, "--target", "android", "--runner", "app",
             "--device", phone.serial, "--runs", "12", "--json", tmp_path / "results.jsonl"],
            capture_output=True, text=True, timeout=300, check=False, cwd=ROOT, env=dict(os.environ),
        )  # fmt: skip
        left = phone.left()
    assert done.returncode == 0, done.stdout + done.stderr
    results = [tflite_export.Result.from_json(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [result.name for result in results] == [path.name for path in files] and left == []
    for result, model in zip(results, bundle.manifest.models, strict=True):
        assert (result.status, result.reason, result.sha256) == ("ok", "", model.sha256)
        assert (result.runtime, result.version) == ("TensorFlow Lite in the demo app", "2.19.0")
        assert (result.delegate, result.runs, result.target) == ("XNNPACK", 12, "android")
        assert result.min <= result.median <= result.p90 <= result.p99 and result.init > 0 and result.first > 0
        assert result.agreement.against == "reference" and result.agreement.values == 10
    assert results[0].ratio is None and results[1].ratio > 0 and results[0].agreement.largest < 1e-4
