"""Iterative pruning that is killed and goes on from its checkpoint ends with the masks of one that was left alone."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.prune.interrupted import keras, train
from tests.prune.small import compiled, kernels, network

ROOT = Path(__file__).resolve().parents[2]
SCORES = ["magnitude", "random"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a process that was killed has left a checkpoint for each score."""
    folder = tmp_path_factory.mktemp("killed")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, str(ROOT / "tests" / "prune" / "interrupted.py"), str(folder), *SCORES]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("score", SCORES)
def test_masks_after_a_kill_are_those_of_training_that_went_through(folder, score):
    continued = kernels(train(keras.models.load_model(folder / f"{score}.keras"), score, first=1))
    whole = kernels(train(compiled(network()), score))
    for one, other in zip(whole, continued, strict=True):
        np.testing.assert_array_equal(one == 0, other == 0)
        np.testing.assert_allclose(one, other, atol=1e-6)
        assert np.mean(one == 0) == pytest.approx(0.9, abs=0.02)
