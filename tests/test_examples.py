"""The examples run as a user starts them, on small data."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent


def run(name, folder, *arguments):
    command = [sys.executable, str(ROOT / "examples" / name), *arguments]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.program
def test_microcontroller(tmp_path):
    said = run("microcontroller.py", tmp_path, "--epochs", "2")
    assert "float operations      0 of" in said and "INT4" in said
    assert (tmp_path / "digits.tflite").stat().st_size < 20_000


@pytest.mark.program
def test_quantize_mobilenet(tmp_path):
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for kind, low in (("bright", 128), ("dark", 0)):
        (tmp_path / "data" / kind).mkdir(parents=True)
        for i in range(20):
            pixels = rng.integers(low, low + 128, (40, 40, 3), dtype=np.uint8)
            image.fromarray(pixels).save(tmp_path / "data" / kind / f"{i}.png")
    said = run("quantize_mobilenet.py", tmp_path, "data", "--side", "32", "--epochs", "1")
    assert "classes: bright, dark" in said
    assert (tmp_path / "mobilenet.tflite").stat().st_size > 100_000


@pytest.mark.program
def test_decoder(tmp_path):
    (tmp_path / "text.txt").write_text("the quick brown fox jumps over the lazy dog. " * 40, encoding="utf-8")
    said = run("decoder.py", tmp_path, "text.txt", "--steps", "150", "--prompt", "the quick ")
    lines = said.splitlines()
    in_keras, in_file = (next(x for x in lines if x.startswith(name)).removeprefix(name) for name in ("Keras", "file"))
    written = len(": the quick ")
    assert len(in_keras) == len(in_file) == written + 64
    assert in_keras[: written + 16] == in_file[: written + 16]  # few steps of training: later a tie may decide
    assert (tmp_path / "decoder.tflite").stat().st_size < 500_000
