"""Zeros on several devices, in half precision, compiled by XLA: in each copy of a kernel, also after the callback."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUNS = ["two, wanda", "half, compiled, wanda", "half, two, taylor", "two, from data, refitted"]


@pytest.fixture(scope="module")
def found():
    """What the program printed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "prune" / "replicas.py")],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS)
def test_each_copy_of_each_kernel_has_the_zeros(found, run):
    copies = 2 if "two" in run else 1
    for when in ("during", "after"):
        assert found[run][when] == [[0.75] * copies] * 3
