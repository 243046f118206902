import os
import subprocess
import sys

import pytest

from tests.tflite_export.handmade import dense, file_of, op, tensor
from tflite_export.bench.inputs import feeds
from tflite_export.bench.process import Process
from tflite_export.errors import ExportError


@pytest.fixture
def child():
    with Process(timeout=60) as found:
        yield found


def opened(child, content, **more):
    path = child.folder / "model.tflite"
    path.write_bytes(content)
    given = feeds(content)
    arguments = {"engine": "interpreter", "path": str(path), "kernels": "xnnpack", "threads": 1, "times": given.times}
    return child.call("open", given.arrays, **(arguments | more))


def test_a_file_is_opened_timed_and_read(child):
    answer, _ = opened(child, dense())
    assert answer["init"] > 0 and answer["operations"] == 1
    times = child.call("time", runs=7, warm=0.001)[1]["times"]
    assert times.shape == (7,) and (times > 0).all() and (times < 1000).all()
    assert child.call("memory")[0]["peak"] >= 0
    answer, outputs = child.call("outputs", seconds=5)
    assert answer["times"] == 8 and outputs["y"].shape == (8, 1, 3)


def test_a_refusal_is_an_error_with_the_runtime_s_words_and_the_child_lives(child):
    tensors = [tensor((1, 2), name="x"), tensor((1, 2), name="y")]
    with pytest.raises(ExportError, match="mine"):
        opened(child, file_of(tensors, [op("mine", (0,), (1,))], (0,), (1,)))
    assert opened(child, dense())[0]["operations"] == 1


def test_only_methods_of_an_engine_can_be_called(child):
    opened(child, dense())
    with pytest.raises(ExportError, match="no '__init__' to be called"):
        child.call("__init__")


def test_a_runtime_that_dies_takes_its_process_alone(child):
    pytest.importorskip("tflite_micro")
    # An arena of 2000 bytes holds the interpreter of a larger file only in part, which it does not survive.
    rows = [tensor((1, 64), name=f"t{i}") for i in range(60)]
    content = file_of(rows, [op("ADD", (i, i), (i + 1,)) for i in range(59)], (0,), (59,))
    path = child.folder / "model.tflite"
    path.write_bytes(content)
    with pytest.raises(ExportError, match=r"took its process down|failed to allocate"):
        child.call("open", feeds(content).arrays, engine="tflm", path=str(path), arena=2000, times=8)


def test_a_child_ends_with_its_parent():
    script = (
        "from tflite_export.bench.process import Process; import os, sys;"
        "p = Process(timeout=9); print(p._child.pid, flush=True); os._exit(0)"
    )
    pid = int(subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout)
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        with open(f"/proc/{pid}/stat") as status:
            if status.read().split()[2] == "Z":
                return
        subprocess.run(["sleep", "0.1"], check=True)
    pytest.fail("the child outlived its parent by ten seconds")
