"""The demo: what data it takes, what it refuses, what it writes."""

import io
import json

import numpy as np
import pytest
from rich.console import Console

from tfcompress.cli import main
from tfcompress.demo import data as images
from tfcompress.demo.plot import _under, plot
from tfcompress.demo.results import Result, table, write

RNG = np.random.default_rng(5)


def arrays(**changed):
    good = {
        "x_train": RNG.integers(0, 256, (90, 10, 9), dtype=np.uint8),
        "y_train": np.repeat([3, 5, 8], 30),
        "x_test": RNG.integers(0, 256, (12, 10, 9), dtype=np.uint8),
        "y_test": np.repeat([8, 3, 5], 4),
    }
    return {name: value for name, value in {**good, **changed}.items() if value is not None}


def saved(path, **changed):
    np.savez(path, **arrays(**changed))
    return path


def test_bytes_become_fractions_and_labels_become_class_numbers(tmp_path):
    white = np.full((90, 10, 9), 255, np.uint8)
    data = images.load(saved(tmp_path / "mine.npz", x_train=white))
    assert data.name == "mine"
    assert data.x_train.shape == (90, 10, 9, 1) and data.x_train.dtype == np.float32
    assert data.x_train.min() == data.x_train.max() == 1.0
    assert data.labels.tolist() == [3, 5, 8] and data.classes == 3
    assert data.y_train[[0, 30, 60]].tolist() == [0, 1, 2]
    assert data.y_test[[0, 4, 8]].tolist() == [2, 0, 1]


def test_float_images_stay_as_they_are_and_colour_keeps_its_channels(tmp_path):
    colour = RNG.normal(size=(90, 10, 9, 3))
    test = RNG.normal(size=(12, 10, 9, 3))
    data = images.load(saved(tmp_path / "colour.npz", x_train=colour, x_test=test))
    np.testing.assert_array_equal(data.x_train, colour.astype("float32"))


def test_labels_may_stand_in_a_column(tmp_path):
    data = images.load(saved(tmp_path / "column.npz", y_train=np.repeat([3, 5, 8], 30)[:, None]))
    assert data.y_train.shape == (90,)


def test_digits_come_without_a_file():
    data = images.load()
    # scikit-learn's digits: 1797 images of 8 x 8 in ten classes.
    assert len(data.x_train) + len(data.x_test) == 1797
    assert data.x_test.shape[1:] == (8, 8, 1) and data.classes == 10
    assert data.x_train.max() == 1.0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"y_test": None, "x_test": None}, "holds no x_test, y_test"),
        ({"x_train": np.zeros((90, 10), np.uint8)}, r"`x_train` must be images .* Received: \(90, 10\)"),
        ({"x_train": np.zeros((0, 10, 9), np.uint8), "y_train": np.zeros(0, int)}, "`x_train` is empty"),
        ({"x_train": np.zeros((90, 4, 9), np.uint8)}, r"8 x 8 or more. Received: \(4, 9\)"),
        ({"x_test": np.full((12, 10, 9), np.nan)}, "`x_test` holds NaN or infinite values in 1080 places"),
        ({"y_train": np.zeros(7, int)}, "one length. Received: 90 and 7"),
        ({"y_train": np.full(90, 0.5)}, "`y_train` must be whole numbers .* Received: float64"),
        ({"y_train": np.zeros((90, 3), int)}, r"`y_train` must be whole numbers .* shape \(90, 3\)"),
        ({"y_train": np.full(90, 3)}, r"at least two classes. Received: only \[3\]"),
        ({"y_test": np.full(12, 4)}, r"labels that `y_train` does not. Received: \[4\]"),
        ({"x_test": np.zeros((12, 9, 9), np.uint8)}, r"one shape. Received: \(10, 9, 1\) and \(9, 9, 1\)"),
        ({"x_train": np.full((90, 10, 9), "a")}, "`x_train` must hold numbers"),
        ({"x_train": np.array([None] * 90)}, "must be an .npz file"),
        ({"y_train": np.array(3)}, r"`y_train` must be whole numbers .* shape \(\)"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_by_name(changed, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        images.load(saved(tmp_path / "bad.npz", **changed))


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 cut"])
def test_a_file_that_is_no_npz_is_refused(content, tmp_path):
    (tmp_path / "bad.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.npz must be an \.npz file with x_train"):
        images.load(tmp_path / "bad.npz")


def test_the_command_reports_a_wrong_argument_in_one_line(tmp_path, capsys):
    assert main(["demo", "--data", str(tmp_path / "none.npz"), "--out", str(tmp_path / "out")]) == 1
    assert "There is none at" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_refused_before_training(tmp_path, capsys):
    (tmp_path / "taken").write_text("a file")
    assert main(["demo", "--out", str(tmp_path / "taken")]) == 1
    assert "`--out` must be a folder that can be written to" in capsys.readouterr().err


def test_a_results_file_is_written_whole_or_not_at_all(tmp_path):
    write(tmp_path / "results.json", "first")
    with pytest.raises(UnicodeEncodeError):
        write(tmp_path / "results.json", "half \ud800")
    assert (tmp_path / "results.json").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_the_table_compares_with_its_first_row():
    rows = [Result("float32", "a", 0.9, 0.9, 1.0, 1000, 2.0), Result("INT8", "b", 0.9, 0.89, 0.99, 250, 0.5)]
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table(rows, 100))
    # 250 / 1000 bytes and 0.5 / 2 ms are both a quarter.
    assert console.export_text().count("0.25x") == 2


def test_the_plot_is_a_picture_of_that_size(tmp_path):
    rows = [Result(name, "f", 0.9, 0.9, 1.0, 1000, 1.0) for name in ("float32", "float16", "INT8", "trained")]
    plot(rows, tmp_path / "plot.png", "equal")
    content = (tmp_path / "plot.png").read_bytes()
    # A PNG's header holds width and height at bytes 16-23: 8 x 4.2 inches at 150 dots.
    assert content.startswith(b"\x89PNG") and int.from_bytes(content[16:20], "big") == 1200
    assert int.from_bytes(content[20:24], "big") == 630


def test_a_point_knows_how_many_lie_under_it():
    places = [(1000, 0.90), (520, 0.90), (300, 0.90), (310, 0.9001), (300, 0.85)]
    rows = [Result("name", "f", share, share, 1.0, size, 1.0) for size, share in places]
    # A marker covers 3 % of the width (30 bytes of 1000) and 5 % of the height (0.0025 of 0.05).
    assert [_under(rows, i) for i in range(5)] == [0, 0, 0, 1, 0]


@pytest.mark.program
def test_the_demo_writes_four_files_that_decide_as_keras_does(tmp_path):
    out = tmp_path / "out"
    assert main(["demo", "--out", str(out), "--epochs", "2"]) == 0
    written = {path.name for path in out.iterdir()}
    files = {"float32.tflite", "float16.tflite", "ptq.tflite", "qat.tflite"}
    assert written == files | {"results.json", "accuracy_over_size.png"}
    run = json.loads((out / "results.json").read_text())
    rows = {row["file"]: row for row in run["results"]}
    assert set(rows) == files and run["images"] == 450
    for name, row in rows.items():
        assert row["bytes"] == (out / name).stat().st_size
        assert row["agreement"] > 0.97 and row["milliseconds"] > 0
    assert rows["float32.tflite"]["keras_accuracy"] > 0.8
    # Half a number, a quarter of a number, and what a file holds beside its weights.
    assert rows["float16.tflite"]["bytes"] < 0.6 * rows["float32.tflite"]["bytes"]
    assert rows["qat.tflite"]["bytes"] < 0.4 * rows["float32.tflite"]["bytes"]
    assert (out / "accuracy_over_size.png").read_bytes().startswith(b"\x89PNG")
