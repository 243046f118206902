"""Training on several devices, in half precision, several steps at once, compiled by XLA."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.quantize.replicas import BATCH, STEPS, X

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the program printed."""
    program = ROOT / "tests" / "quantize" / "replicas.py"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path_factory.mktemp("replicas"))],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


TRAINED = ["two replicas", "learned steps", "compiled"]


@pytest.mark.parametrize("run", TRAINED)
def test_it_trains(found, run):
    assert "refused" not in found[run]
    assert np.isfinite(found[run]["loss"]) and found[run]["moved"] > 1e-4


@pytest.mark.parametrize("run", TRAINED[:2])
def test_ranges_and_steps_agree_across_replicas(found, run):
    ranges = found[run]["ranges"]
    assert len(ranges) == 4 and all(len(values) == 2 for values in ranges.values())
    for first, second in ranges.values():
        assert first == second
        assert first[2] == 1.0 and first[1] - first[0] > 0.01
    for first, second in found[run]["steps"].values():
        assert first == second
    assert len(found["learned steps"]["steps"]) == 4


def averages(parts, momentum=0.99):
    """The moving averages of each batch's ends, the mean over what each replica sees of it."""
    ends = None
    for batch in np.split(X, STEPS):
        new = np.mean([[part.min(), part.max()] for part in np.split(batch, parts)], 0)
        ends = new if ends is None else momentum * ends + (1 - momentum) * new
    return ends


def test_the_range_of_the_input_is_the_mean_over_the_replicas(found):
    assert BATCH % 2 == 0
    np.testing.assert_allclose(found["two replicas"]["ranges"]["image_range"][0][:2], averages(2), rtol=1e-3)
    np.testing.assert_allclose(found["compiled"]["ranges"]["image_range"][0][:2], averages(1), rtol=1e-3)
    assert np.abs(averages(1) - averages(2)).max() > 0.1  # the two can be told apart


def test_a_model_trained_on_several_devices_goes_through_a_file(found):
    assert found["loaded"] == 0.0


def test_what_the_framework_cannot_do_with_a_float_model_is_all_that_is_refused(found):
    """XLA over several CPU devices, and in Keras 3 a loop of steps over several devices, fail in TensorFlow itself."""
    assert ("refused" in found["everything"]) == ("refused" in found["everything, float"])
    if "refused" in found["everything"]:  # by us, before TensorFlow fails obscurely
        assert "`jit_compile` must be False under a strategy" in found["everything"]["refused"]
