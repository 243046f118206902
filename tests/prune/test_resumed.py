"""Iterative pruning that is killed and goes on from its checkpoint ends with the masks of one that was left alone."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(folder, score, mode):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, str(ROOT / "tests" / "prune" / "interrupted.py"), str(folder), score, mode]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("score", ["magnitude", "random"])
def test_masks_after_a_kill_are_those_of_training_that_went_through(tmp_path, score):
    assert run(tmp_path, score, "whole").returncode == 0
    assert run(tmp_path, score, "killed").returncode == -signal.SIGKILL
    assert not (tmp_path / "killed.npz").exists()
    done = run(tmp_path, score, "continued")
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(tmp_path / "whole.npz") as whole, np.load(tmp_path / "continued.npz") as continued:
        for name in whole.files:
            np.testing.assert_array_equal(whole[name] == 0, continued[name] == 0)
            np.testing.assert_allclose(whole[name], continued[name], atol=1e-6)
            assert np.mean(whole[name] == 0) == pytest.approx(0.9, abs=0.02)
