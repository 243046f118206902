"""A file in memory and its report; written whole or not at all."""

import gzip
import os
import stat

import pytest

from tflite_export import Exported, ExportError
from tflite_export.exported import Report, ReportRow

REPORT = Report(
    precision="int8",
    inputs=("image float32 [1, 28, 28, 1]",),
    outputs=("dense int8 [1, 10]",),
    rows=(ReportRow("conv2d", "range", "learned"), ReportRow("dense/kernel[0]", "kernel", "4 bits planted")),
    collapsed=(),
    float_operations=("ROUND in layer rounding",),
    notes=("softmax has a fixed range",),
    seconds=1.25,
)


def test_saves_the_bytes_and_returns_the_path(tmp_path):
    exported = Exported(b"TFL3 content", REPORT)
    path = exported.save(tmp_path / "model.tflite")
    assert path == tmp_path / "model.tflite" and path.read_bytes() == b"TFL3 content"
    assert len(exported) == 12 and repr(exported) == "Exported(int8, 12 bytes)"
    Exported(b"second", REPORT).save(str(path))
    assert path.read_bytes() == b"second"
    assert [p.name for p in tmp_path.iterdir()] == ["model.tflite"]
    packed = exported.save(tmp_path / "model.tflite.gz")
    assert packed.read_bytes() != exported.content == gzip.decompress(packed.read_bytes())
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


def test_a_failure_on_the_way_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "model.tflite"
    path.write_bytes(b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ExportError, match=r"Cannot write '.*model\.tflite': No space left on device. Nothing was writ"):
        Exported(b"new", REPORT).save(path)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("model.tflite", b"old")]


def test_read_only_targets_are_refused(tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(b"old")
    path.chmod(0o444)
    with pytest.raises(ExportError, match="read-only"):
        Exported(b"new", REPORT).save(path)
    assert path.read_bytes() == b"old"
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o555)
    with pytest.raises(ExportError, match="Cannot write"):
        Exported(b"new", REPORT).save(folder / "model.tflite")
    assert list(folder.iterdir()) == []
    folder.chmod(0o755)


def test_missing_folders_and_folders_are_named(tmp_path):
    with pytest.raises(ExportError, match=r"Cannot write '.*absent/model\.tflite': No such file or directory"):
        Exported(b"new", REPORT).save(tmp_path / "absent" / "model.tflite")
    with pytest.raises(ExportError, match="is a folder"):
        Exported(b"new", REPORT).save(tmp_path)
    with pytest.raises(ExportError, match="no ordinary file"):
        Exported(b"new", REPORT).save(os.devnull)


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real.tflite").write_bytes(b"old")
    (tmp_path / "link.tflite").symlink_to(tmp_path / "real.tflite")
    Exported(b"new", REPORT).save(tmp_path / "link.tflite")
    assert (tmp_path / "link.tflite").is_symlink() and (tmp_path / "real.tflite").read_bytes() == b"new"


def test_report_prints_as_a_table():
    text = str(REPORT)
    assert text.splitlines()[0] == "Export to int8 in 1.2 s"
    for words in ("image float32 [1, 28, 28, 1]", "ROUND in layer rounding", "dense/kernel[0]", "4 bits planted"):
        assert words in text


def test_report_is_frozen():
    with pytest.raises(AttributeError):
        REPORT.precision = "float32"
