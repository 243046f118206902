"""The whole suite under both Keras flavors, side by side: `python -m tests [pytest arguments]`."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FLAVORS = {"Keras 3": "0", "tf_keras": "1"}
# What touches no Keras is tested once: the Android app, NumPy's part of low rank, exact arithmetic, the exporter behind
# the frozen function, the rooms that import neither TensorFlow nor Keras (an import contract sees to it), and the
# stories of what becomes of finished files. Each flavor takes some of it.
ONCE = {
    "Keras 3": (
        "tests/core/arithmetic",
        "tests/tflite_export/auditing",
        "tests/tflite_export/bench",
        "tests/tflite_export/test_boundary.py",
        "tests/tflite_export/test_bundle.py",
        "tests/tflite_export/test_cli.py",
        "tests/tflite_export/test_convert.py",
        "tests/tflite_export/test_description.py",
        "tests/tflite_export/test_draft.py",
        "tests/tflite_export/test_flatbuffer.py",
        "tests/tflite_export/test_handwritten.py",
        "tests/tflite_export/test_integer_forms.py",
        "tests/tflite_export/test_kernels.py",
        "tests/tflite_export/test_learned.py",
        "tests/tflite_export/test_leftovers.py",
        "tests/tflite_export/test_masks.py",
        "tests/tflite_export/test_measure.py",
        "tests/tflite_export/test_metadata.py",
        "tests/tflite_export/test_microcontroller.py",
        "tests/tflite_export/test_normalizations.py",
        "tests/tflite_export/test_runner.py",
        "tests/tflite_export/test_wide.py",
        "tests/test_stories.py::test_story[bundle]",
        "tests/test_stories.py::test_story[devices]",
    ),
    "tf_keras": (
        "tests/android_demo",
        "tests/distill/test_data_builder.py",
        "tests/factorize/test_decompose.py",
        "tests/factorize/test_spectrum.py",
        "tests/factorize/test_vbmf.py",
    ),
}


def left_out(flavor: str) -> list[str]:
    """What the run of the other flavor takes."""
    paths = [path for name, own in ONCE.items() if name != flavor for path in own]
    return [f"--deselect={path}" if "::" in path else f"--ignore={path}" for path in paths]


def start(flavor: str, log: Path, arguments: list[str]) -> "subprocess.Popen[bytes]":
    # One core each: two TensorFlows that both want every core take longer than one after the other.
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": FLAVORS[flavor], "TF_NUM_INTRAOP_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", *left_out(flavor), *arguments]
    with log.open("wb") as out:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=environment, cwd=ROOT
        )


def counts(text: str) -> dict[str, int]:
    """The numbers of pytest's closing line: {"passed": 12, "skipped": 1}."""
    closing = [
        line
        for line in text.splitlines()
        if re.search(r"^(=+ )?\d+ (passed|failed|skipped|errors?|deselected)\b.* in [\d.]+s", line)
    ]
    found = re.findall(r"(\d+) (passed|failed|skipped|errors?)", closing[-1]) if closing else []
    total: dict[str, int] = {}
    for number, name in found:
        name = "failed" if name.startswith("error") else name
        total[name] = total.get(name, 0) + int(number)
    return total


def main(arguments: list[str]) -> int:
    total = {"passed": 0, "failed": 0, "skipped": 0}
    status = 0
    with tempfile.TemporaryDirectory() as folder:
        logs = {flavor: Path(folder) / f"{i}.log" for i, flavor in enumerate(FLAVORS)}
        runs = {flavor: start(flavor, log, arguments) for flavor, log in logs.items()}
        for flavor, run in runs.items():
            code = run.wait()
            text = logs[flavor].read_text(errors="replace")
            found = counts(text)
            if code and not found.get("failed"):
                found["failed"] = 1  # a crash, an interruption, or no test at all
            for name in total:
                total[name] += found.get(name, 0)
            print(f"##### {flavor}: exit status {code}\n{text}", flush=True)
            status = status or code
    print("total: " + ", ".join(f"{number} {name}" for name, number in total.items()), flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
