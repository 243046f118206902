"""The command: what it prints, what it refuses, that it is quick and needs no TensorFlow."""

import json
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.tflite_export.handmade import dense, file_of, integer_dense, op, tensor
from tflite_export import cli
from tflite_export.bench.result import Result

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


def test_a_command_says_what_it_takes(capsys):
    for target, words in (("host", "--accelerator"), ("tflm", "--timeout")):
        with pytest.raises(SystemExit):
            cli.main(["benchmark", "--target", target, "--help"])
        out = capsys.readouterr().out
        assert f"target {target}" in out and words in out
    with pytest.raises(SystemExit) as stopped:
        cli.main(["benchmark", "x", "--target", "tflm", "--accelerator", "fast"])
    assert stopped.value.code == 2


def test_audit_answers_with_its_exit_status(small, tmp_path, capsys):
    assert cli.main(["audit", str(small), "--target", "xnnpack", "--no-tools", "--strict"]) == 0
    assert "FULLY_CONNECTED" in capsys.readouterr().out
    (tmp_path / "integer.tflite").write_bytes(integer_dense())
    falls_back = ["audit", str(tmp_path / "integer.tflite"), "--target", "coreml"]
    assert (cli.main(falls_back), cli.main([*falls_back, "--strict"])) == (0, 1)
    capsys.readouterr()
    foreign = tmp_path / "foreign.tflite"
    foreign.write_bytes(file_of([tensor((1, 2)), tensor((1, 2))], [op("mine", (0,), (1,))], (0,), (1,)))
    assert cli.main(["audit", str(foreign), "--target", "xnnpack", "--no-tools", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["runs"] is False


def test_two_files_are_compared_on_the_same_inputs(tmp_path, capsys):
    # y = x W^T + b against y = x W^T + b + [0, 0, 1]
    first, second, data = tmp_path / "a.tflite", tmp_path / "b.tflite", tmp_path / "x.npz"
    first.write_bytes(dense())
    second.write_bytes(dense().replace(np.float32([0.5, 0, -1]).tobytes(), np.float32([0.5, 0, 0]).tobytes()))
    np.savez(data, x=np.float32([[1, 2], [3, 4]]))
    assert cli.main(["compare", str(first), str(second), "--data", str(data), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == 2 and found["generated"] is False
    agreement = found["outputs"][0]["agreement"]
    assert agreement["equal"] == pytest.approx(4 / 6) and agreement["largest"] == 1
    assert cli.main(["compare", str(first), str(first)]) == 0
    assert "made up inputs" in (out := capsys.readouterr().out) and "100 %" in out
    two = tmp_path / "two.tflite"
    two.write_bytes(file_of([tensor((1, 2), name="x"), tensor((1, 2), name="y")], [op("ABS", (0,), (1,))], (0,), (1,)))
    assert cli.main(["compare", str(first), str(two)]) == 2
    assert "shapes" in capsys.readouterr().err


def test_benchmark_writes_lines_as_they_come_and_a_table(small, tmp_path, capsys):
    broken, lines, table = tmp_path / "broken.tflite", tmp_path / "out.jsonl", tmp_path / "out.csv"
    broken.write_bytes(b"TFL3" * 9)
    arguments = ["benchmark", str(small), "--runs", "3", "--json", str(lines), "--csv", str(table), "--timeout", "60"]
    assert cli.main(arguments) == 0
    assert "XNNPACK (1 of 1 operations)" in capsys.readouterr().out
    assert cli.main([*arguments[:2], str(broken), *arguments[2:]]) == 1
    assert "broken.tflite on host: failed" in capsys.readouterr().out
    records = [json.loads(line) for line in lines.read_text().splitlines()]
    assert sorted(record["name"] for record in records) == ["broken.tflite", "small.tflite", "small.tflite"]
    assert table.read_text().splitlines()[0].startswith("name,sha256")
    assert cli.main(["benchmark", str(small), "--timeout", "soon"]) == 2
    assert "`timeout` must be a positive number" in capsys.readouterr().err


def test_benchmark_takes_samples_and_labels(tmp_path, capsys):
    # W = [[1, 2], [0, -1], [3, 0]], b = [0.5, 0, -1]: (1, 2) -> 0, (1, 0) -> 2, (-1, -2) -> 1.
    file, data, lines = tmp_path / "a.tflite", tmp_path / "rows.npz", tmp_path / "out.jsonl"
    file.write_bytes(dense())
    np.savez(data, images=np.float32([[1, 2], [1, 0], [-1, -2], [1, 2]]), classes=[0, 2, 1, 1])
    arguments = ["benchmark", str(file), "--runs", "2", "--data", str(data), "--json", str(lines)]
    assert cli.main([*arguments, "--labels", "classes"]) == 0
    assert json.loads(lines.read_text())["accuracy"] == 0.75
    assert cli.main([*arguments, "--labels", "names"]) == 2
    assert "holds ['images', 'classes']" in capsys.readouterr().err
    assert cli.main(["benchmark", str(file), "--labels", "classes"]) == 2
    data.write_bytes(b"no archive")
    assert cli.main(arguments) == 2
    assert "no .npy or .npz" in capsys.readouterr().err


def test_an_interruption_leaves_finished_lines(small, tmp_path):
    # The second file is so large that the interruption comes while it is timed.
    big, lines = tmp_path / "big.tflite", tmp_path / "out.jsonl"
    weights = np.ones((3000, 3000), "float32")
    rows = [tensor((1, 3000), name="x"), tensor((3000, 3000), data=weights), tensor((1, 3000), name="y")]
    big.write_bytes(file_of(rows, [op("FULLY_CONNECTED", (0, 1, -1), (2,))], (0,), (2,)))
    command = [sys.executable, "-m", "tflite_export.cli", "benchmark", small, big, "--runs", "200000"]
    child = subprocess.Popen(
        [*map(str, command), "--json", str(lines)], stderr=subprocess.PIPE, stdout=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )  # fmt: skip
    time.sleep(6)
    child.send_signal(signal.SIGINT)
    out, error = child.communicate(timeout=60)
    assert child.returncode == 130 and error == b"tflite-export: interrupted\n"
    assert [json.loads(line)["name"] for line in lines.read_text().splitlines()] == ["small.tflite"]
    assert b"interrupted after 20000 of 200000 inferences" in out


def test_results_become_a_page(small, tmp_path, capsys):
    pytest.importorskip("tflite_export.bench.page")
    lines, page = tmp_path / "out.jsonl", tmp_path / "report.html"
    lines.write_text(Result("net.tflite", "0" * 64, 10, "host", median=1.5).to_json() + "\n\n")
    assert cli.main(["report", str(lines), "-o", str(page)]) == 0
    assert "net.tflite" in page.read_text() and str(page) in capsys.readouterr().out
    lines.write_text('{"name": 1}\n')
    assert cli.main(["report", str(lines), "-o", str(page)]) == 2
    assert "line 1: not a benchmark result" in capsys.readouterr().err


def test_metadata_is_read_and_written(small, tmp_path, capsys):
    copy, labels = tmp_path / "copy.tflite", tmp_path / "labels.txt"
    labels.write_text("cat\ndog\n")
    arguments = ["metadata", str(small), "--author", "me", "--labels", str(labels), "--mean", "0", "--std", "255"]
    assert cli.main(arguments) == 2
    assert "-o FILE" in capsys.readouterr().err
    assert cli.main([*arguments, "--rename", "y=scores", "-o", str(copy), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["author"] == "me" and found["outputs"][0]["labels"] == ["cat", "dog"]
    assert found["inputs"][0]["std"] == [255] and list(found["files"].values()) == [8]
    assert cli.main(["inspect", str(copy), "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["signatures"][0]["outputs"]) == ["scores"]
    assert cli.main(["metadata", str(small), "--rename", "y", "-o", str(copy)]) == 2


def test_doctor_and_audit_need_no_tensorflow_and_less_than_a_second(small):
    for arguments in (["doctor"], ["doctor", "--json"], ["audit", "--target", "gpu", small]):
        begin = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = run(*arguments)
        end = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == 0, done.stderr
        assert end.ru_utime + end.ru_stime - begin.ru_utime - begin.ru_stime < 1
    rows = json.loads(run("doctor", "--json").stdout)
    assert [row["target"] for row in rows][:2] == ["host", "tflm"] and rows[0]["works"] is True
    assert all(row["works"] or all(lack["command"] for lack in row["missing"]) for row in rows)


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


def test_the_page_is_served_until_it_is_interrupted(monkeypatch, capsys):
    asked = {}

    def demo(modules, *, port, started):
        asked.update(modules=modules, port=port)
        started("http://127.0.0.1:8080/")

    monkeypatch.setattr("tflite_export.bench.web.demo", demo)
    monkeypatch.setattr("webbrowser.open", lambda address: asked.update(opened=address))
    assert cli.main(["page", "--port", "8080"]) == 0
    assert asked == {"modules": None, "port": 8080, "opened": "http://127.0.0.1:8080/"}
    assert capsys.readouterr().out == "http://127.0.0.1:8080/\n"
