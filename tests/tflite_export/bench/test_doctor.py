from tflite_export.bench import doctor
from tflite_export.bench.doctor import Checkup, Row, checkup
from tflite_export.bench.harness import TARGETS
from tflite_export.bench.job import Missing


def test_every_target_is_asked():
    found = checkup()
    assert [row.target for row in found.targets] == list(TARGETS)
    host = found.targets[0]
    assert host.works and "xnnpack" in host.accelerators and "timeout" in host.options
    assert all(row.summary and "\n" not in row.summary for row in found.targets)


def test_commands_are_printed_whole():
    command = "sudo apt-get install " + "x" * 700
    row = Row("android", "a phone", (Missing("adb", command),), (), {})
    text = str(Checkup((row,)))
    assert f"android: adb is missing: {command}" in text.splitlines() and "missing" in text
    assert Checkup((row,)).rows()[0]["missing"] == ({"what": "adb", "command": command},)


def test_a_target_s_answer_is_its_row(monkeypatch):
    class Fake:
        SUMMARY, ACCELERATORS, OPTIONS = "a fake", (), {}
        missing = staticmethod(lambda options: [])

    monkeypatch.setattr(doctor, "TARGETS", {"fake": "nowhere"})
    monkeypatch.setattr(doctor, "target_module", lambda target: Fake)
    assert checkup() == Checkup((Row("fake", "a fake", (), (), {}),))
