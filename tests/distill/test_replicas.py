"""Distillation on two devices is distillation on one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    program = ROOT / "tests" / "distill" / "replicas.py"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path_factory.mktemp("replicas"))],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.mark.parametrize("run", ["one", "two"])
def test_it_learns_and_leaves_the_teacher_alone(found, run):
    losses = found[run]["history"]["loss"]
    assert losses[1] < losses[0]
    assert found[run]["teacher"] and not found[run]["patched"]


def test_both_parts_of_the_loss_are_the_same_on_two_devices(found):
    # Each device normalizes its half of the batch, so the parts are close, and equal in size, but not the same numbers.
    for kind in ("history", "stored"):
        for name in ("student_loss", "distillation_loss"):
            one, two = (found[run][kind][name][0] for run in ("one", "two"))
            np.testing.assert_allclose(one, two, rtol=0.15, err_msg=f"{kind} {name}")


def test_the_students_weights_are_close(found):
    one, two = (np.array(found[run]["kernel"]) for run in ("one", "two"))
    assert np.abs(one - two).max() < 0.02


def test_without_normalization_two_devices_take_the_very_steps_of_one(found):
    one, two = (found[run]["exact"] for run in ("one", "two"))
    assert set(one) == {"loss", "student_loss", "distillation_loss", "weights"}
    for name in one:
        np.testing.assert_allclose(one[name], two[name], rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("name", ["peers", "head"])
def test_what_trains_together_does_so_on_two_devices_as_on_one(found, name):
    for doing in ("evaluated", "fitted"):
        one, two = (found[run]["together"][f"{name} {doing}"] for run in ("one", "two"))
        accuracy = "peer_1_accuracy" if name == "peers" else "accuracy"
        assert set(one) == set(two) >= {"loss", "student_loss", "distillation_loss", accuracy}
        for key in one:
            np.testing.assert_allclose(one[key], two[key], rtol=1e-5, atol=1e-5, err_msg=f"{doing} {key}")
    assert one["loss"][1] < one["loss"][0]
