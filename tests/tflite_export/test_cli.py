"""The command: what it prints, what it refuses, that it is quick and needs no TensorFlow."""

import json
import resource
import subprocess
import sys

import numpy as np
import pytest

from tests.tflite_export.handmade import file_of, integer_dense, op, tensor
from tflite_export import cli

# Runs a command where importing TensorFlow or Keras in any form is an error.
WITHOUT = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tensorflow", "keras", "tf_keras", "tfcompress"):
            raise ImportError(f"{name} was imported")
sys.meta_path.insert(0, Refuse())
from tflite_export.cli import main
sys.exit(main(sys.argv[1:]))
"""


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, *map(str, arguments)], capture_output=True, text=True, check=False
    )


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.tflite"
    path.write_bytes(integer_dense())
    return path


def test_inspect_needs_no_tensorflow(small):
    done = run("inspect", small)
    assert (done.returncode, done.stderr) == (0, "")
    for words in ("small.tflite", "multiply-accumulates", "FULLY_CONNECTED", "after gzip"):
        assert words in done.stdout
    assert "Tensors" not in done.stdout and "Tensors" in run("inspect", "--tensors", small).stdout


def test_json_is_json(small, capsys):
    assert cli.main(["inspect", str(small), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["macs"] == 4 and found["bytes"] == len(integer_dense()) and found["gzip_bytes"] > 100


@pytest.mark.parametrize("content, reason", [(None, "No such file"), (b"", "it is empty"), (b"x" * 99, "TFL3")])
def test_a_wrong_file_is_one_line_and_status_2(tmp_path, content, reason, capsys):
    path = tmp_path / "wrong.tflite"
    if content is not None:
        path.write_bytes(content)
    assert cli.main(["inspect", str(path)]) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.count("\n") == 1 and error.startswith("tflite-export: ")
    assert reason in error and "wrong.tflite" in error


def test_a_wrong_command_is_status_2():
    with pytest.raises(SystemExit) as stopped:
        cli.main(["unknown"])
    assert stopped.value.code == 2


def test_every_command_has_help(capsys):
    for arguments in (["--help"], *([command.name, "--help"] for command in cli.COMMANDS)):
        with pytest.raises(SystemExit) as stopped:
            cli.main(arguments)
        assert stopped.value.code == 0
    assert "inspect" in capsys.readouterr().out


def test_a_large_file_and_the_help_take_less_than_a_second(tmp_path):
    # 26 MB of random kernels in 50 layers, as many bytes as an integer ResNet50.
    rng = np.random.default_rng(0)
    tensors, operators = [tensor((1, 720), "INT8", scale=1.0)], []
    for layer in range(50):
        kernel = rng.integers(-127, 128, (720, 720)).astype("int8")
        tensors += [tensor((720, 720), "INT8", data=kernel, scale=np.ones(720)), tensor((1, 720), "INT8", scale=1.0)]
        operators.append(op("FULLY_CONNECTED", (2 * layer, 2 * layer + 1, -1), (2 * layer + 2,)))
    path = tmp_path / "large.tflite"
    path.write_bytes(file_of(tensors, operators, (0,), (100,)))
    assert path.stat().st_size > 25_900_000
    for arguments in (["inspect", str(path)], ["--help"]):
        # Processor time, since the machine may be busy with other work.
        begin = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-m", "tflite_export.cli", *arguments], capture_output=True, check=True)
        end = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert end.ru_utime + end.ru_stime - begin.ru_utime - begin.ru_stime < 1
        assert (f"{50 * 720 * 720:,}".encode() in done.stdout) == (arguments[0] == "inspect")


def test_third_party_files_are_inspected(shared, capsys):
    for file in sorted((shared / "data" / "tflite").glob("*.tflite")):
        assert cli.main(["inspect", str(file), "--tensors"]) == 0
        assert file.name in capsys.readouterr().out
