"""The client of the Android Debug Bridge, over the real `adb` command and a phone that is a program."""

import os
import shutil
import time

import pytest

from tests.tflite_export.bench.fake_adbd import FakePhone
from tflite_export.bench.adb import Adb, AdbError, Listed, chosen, find_device, listed
from tflite_export.bench.job import Missing

needs_adb = pytest.mark.skipif(shutil.which("adb") is None, reason="needs adb: sudo apt-get install adb")


@pytest.fixture
def adb(phone):
    found = find_device({"device": phone.serial})
    assert isinstance(found, Adb)
    return found


def missing(**options):
    found = find_device(options)
    assert isinstance(found, Missing)
    return str(found)


LISTING = """* daemon not running; starting now at tcp:5037
* daemon started successfully
List of devices attached
0A1B2C3D               device usb:1-2 product:sunfish model:Pixel_4a device:sunfish transport_id:1
emulator-5554          offline transport_id:2
7f09                   no permissions (user in plugdev group; are your udev rules wrong?); see [http://x] usb:1-1
R58M\tunauthorized

"""


def test_every_line_of_the_list_is_a_device_with_its_state():
    assert [(one.serial, one.state, one.model) for one in listed(LISTING)] == [
        ("0A1B2C3D", "device", "Pixel_4a"),
        ("emulator-5554", "offline", ""),
        ("7f09", "no permissions", ""),
        ("R58M", "unauthorized", ""),
    ]


def test_the_only_usable_device_is_chosen_and_others_do_not_count():
    assert chosen(listed(LISTING), None) == Listed("0A1B2C3D", "device", "Pixel_4a")


@pytest.mark.parametrize(
    ("devices", "serial", "told"),
    [
        ([], None, "USB debugging"),
        ([Listed("a", "device"), Listed("b", "device", "Pixel_8")], None, "one of: a, b (Pixel 8)"),
        ([Listed("a", "unauthorized")], None, "accept `Allow USB debugging?`"),
        ([Listed("a", "offline")], None, "adb reconnect"),
        ([Listed("a", "no permissions")], None, "udev"),
        ([Listed("a", "bootloader")], None, "fastboot reboot"),
        ([Listed("a", "strange")], None, "'strange'"),
        ([Listed("a", "device")], "b", "Listed now: a"),
        ([Listed("a", "device"), Listed("b", "offline")], "b", "b is offline"),
    ],
)
def test_what_is_missing_says_what_to_do(devices, serial, told):
    found = chosen(devices, serial)
    assert isinstance(found, Missing)
    assert told in str(found)


def test_without_adb_the_command_that_installs_it_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("ANDROID_HOME", "ANDROID_SDK_ROOT"):
        monkeypatch.delenv(name, raising=False)
    assert missing() == "the adb command is missing: sudo apt-get install adb   " + (
        "(macOS: brew install android-platform-tools)"
    )


def test_an_sdk_without_path_is_found(monkeypatch, tmp_path):
    tools = tmp_path / "platform-tools"
    tools.mkdir()
    (tools / "adb").write_text("#!/bin/sh\necho 'List of devices attached'; echo 'x1 device model:M'\n")
    (tools / "adb").chmod(0o755)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("ANDROID_HOME", str(tmp_path))
    found = find_device({})
    assert isinstance(found, Adb) and found.device == Listed("x1", "device", "M")


@needs_adb
def test_no_device(server):
    assert "an Android device is missing: connect a phone" in missing()


@needs_adb
def test_a_phone_that_does_not_trust_this_computer(server, tmp_path):
    with FakePhone(tmp_path, trusted=False) as phone:
        assert "failed to authenticate" in phone.connect()
        assert "accept `Allow USB debugging?`" in missing(device=phone.serial)


@needs_adb
def test_two_phones_are_listed_and_one_is_taken_by_its_serial(phone, tmp_path, monkeypatch):
    with FakePhone(tmp_path / "second") as second:
        second.connect()
        told = missing()
        assert phone.serial in told and second.serial in told and "pass `device`" in told
        taken = find_device({"device": second.serial})
        assert isinstance(taken, Adb) and taken.device.serial == second.serial
        monkeypatch.setenv("ANDROID_SERIAL", phone.serial)
        taken = find_device({})
        assert isinstance(taken, Adb) and taken.device.serial == phone.serial


@needs_adb
@pytest.mark.parametrize("modern", [False, True])
def test_a_shell_returns_status_and_text_of_both_protocols(server, tmp_path, modern):
    with FakePhone(tmp_path, modern=modern) as phone:
        phone.connect()
        adb = find_device({"device": phone.serial})
        assert isinstance(adb, Adb)
        done = adb.shell("echo out; echo err >&2; printf 'no end'; (exit 7)", timeout=20)
        assert done.code == 7
        assert sorted(done.text.replace("no end", "no end\n").split()) == ["end", "err", "no", "out"]
        assert "\r" not in done.text
        assert adb.shell("true", timeout=20).code == 0


@needs_adb
def test_files_go_there_and_come_back(adb, phone):
    content = os.urandom(200_000)
    adb.push(content, "/data/local/tmp/a file", timeout=20)
    assert phone.path("/data/local/tmp/a file").read_bytes() == content
    assert adb.pull("/data/local/tmp/a file", timeout=20) == content
    with pytest.raises(AdbError, match="does not exist"):
        adb.pull("/data/local/tmp/none", timeout=20)


@needs_adb
def test_full_storage_is_named_with_the_folder(adb, phone):
    phone.free = 10
    with pytest.raises(AdbError, match="storage is full: free some, such as /data/local/tmp") as caught:
        adb.push(bytes(11), "/data/local/tmp/x", timeout=20)
    assert not caught.value.gone


@needs_adb
def test_a_command_that_hangs_is_given_up(adb):
    begin = time.monotonic()
    with pytest.raises(AdbError, match="did not end within 1 s"):
        adb.shell("sleep 30", timeout=1)
    assert time.monotonic() - begin < 10


@needs_adb
def test_a_phone_that_goes_away_is_named(adb, phone):
    phone.breaks_at = "unplug"
    with pytest.raises(AdbError, match="cable") as caught:
        adb.shell("echo unplug", timeout=20)
    assert caught.value.gone


@needs_adb
def test_what_cannot_be_deleted_is_told_with_the_command(adb, phone):
    assert adb.remove("/data/local/tmp/none") == ""
    phone.breaks_at = "rm -rf"
    told = adb.remove("/data/local/tmp/x")
    assert told == f"/data/local/tmp/x could not be deleted: adb -s {phone.serial} shell rm -rf /data/local/tmp/x"
