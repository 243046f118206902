"""A phone over the Android Debug Bridge: the `adb` command, with every failure named and the way out of it.

Daemons before Android 7 return no exit status of a command and mix its two streams, so a marker carries the status
behind the output on every device alike.
"""

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tflite_export.bench.job import Missing
from tflite_export.errors import ExportError

INSTALL = "sudo apt-get install adb   (macOS: brew install android-platform-tools)"
_CONNECT = (
    "connect a phone by USB and switch on Settings > Developer options > USB debugging, or pair one with `adb pair "
    "HOST:PORT` and `adb connect HOST:PORT`; `adb devices` must list it"
)
# State in `adb devices` -> what its user does about it.
_WAYS_OUT = {
    "unauthorized": "unlock the phone and accept `Allow USB debugging?`; if it does not ask, `adb kill-server`, "
    "then `adb devices`",
    "authorizing": "unlock the phone, accept `Allow USB debugging?` and try again",
    "offline": "unplug the phone and plug it in again, then `adb reconnect`",
    "no permissions": "this user may not open the USB device: sudo apt-get install android-sdk-platform-tools-common "
    "(udev rules), then unplug the phone and plug it in again",
    "connecting": "wait a moment and try again",
    "recovery": "restart the phone into Android: `adb reboot`",
    "sideload": "restart the phone into Android: `adb reboot`",
    "bootloader": "restart the phone into Android: `fastboot reboot`",
}
_MARK = "tflite_export_status="
_STATUS = re.compile(rf"\n?{_MARK}(\d+)\s*\Z")
# What adb says -> what it means, whether the phone is gone with it.
_FAILURES = (
    (r"No space left on device|ENOSPC", "the phone's storage is full: free some, such as {folder}", False),
    (r"Read-only file system", "{folder} of the phone is read-only", False),
    (r"Permission denied", "the phone does not let adb write to {folder}", False),
    (r"unauthorized", f"the phone does not trust this computer: {_WAYS_OUT['unauthorized']}", True),
    (r"device offline", f"the phone is offline: {_WAYS_OUT['offline']}", True),
    (r"device '.*' not found|no devices|device still connecting", "the phone is gone: check the cable", True),
    (r"protocol fault|closed|connection reset|EOF", "the connection to the phone broke: check the cable", True),
    (r"cannot connect to daemon|failed to start daemon", "the adb server does not start: try `adb kill-server`", True),
)


class AdbError(ExportError):
    """Something went wrong between this computer and the phone.

    Attributes:
        gone: the phone cannot be reached any more.
    """

    def __init__(self, message: str, *, gone: bool = False) -> None:
        """Keeps the message, which names the failure and the way out."""
        super().__init__(message)
        self.gone = gone


@dataclass(frozen=True)
class Listed:
    """One line of `adb devices -l`.

    Attributes:
        serial: what `adb -s` takes.
        state: "device" when it can be used; else such as "unauthorized" or "offline".
        model: as adb knows it, with underscores; "" when it does not.
    """

    serial: str
    state: str
    model: str = ""

    def __str__(self) -> str:
        told = ", ".join(part for part in (self.model.replace("_", " "), self.state) if part and part != "device")
        return f"{self.serial} ({told})" if told else self.serial


@dataclass(frozen=True)
class Answer:
    """What a command on the phone left.

    Attributes:
        code: its exit status.
        text: its output and its errors, with plain line ends.
    """

    code: int
    text: str


def listed(text: str) -> list[Listed]:
    """The devices in the output of `adb devices -l`.

    >>> listed("List of devices attached\\n0A1B device usb:1-2 product:a model:Pixel_8 device:a transport_id:1\\n")
    [Listed(serial='0A1B', state='device', model='Pixel_8')]
    >>> listed("7f no permissions (user in plugdev group; are your udev rules wrong?) usb:1-1\\n")[0].state
    'no permissions'
    """
    found = []
    for line in text.splitlines():
        serial, _, rest = line.strip().partition(" ") if "\t" not in line else line.strip().partition("\t")
        if not rest.strip() or line.startswith(("List of devices", "*", "adb ", "error:")):
            continue
        rest = rest.strip()
        state = "no permissions" if rest.startswith("no permissions") else rest.split()[0]
        model = re.search(r"\bmodel:(\S+)", rest)
        found.append(Listed(serial, state, model.group(1) if model else ""))
    return found


def chosen(devices: Sequence[Listed], serial: str | None) -> Listed | Missing:
    """The device to be used, or what to do about it.

    Args:
        devices: those that adb lists.
        serial: of the one that the user asks for; None for the only one.
    """
    if serial is not None:
        devices = [device for device in devices if device.serial == serial] or list(devices)
        if not devices or devices[0].serial != serial:
            others = ", ".join(map(str, devices)) or "none"
            return Missing(f"the Android device {serial!r}", f"{_CONNECT}. Listed now: {others}")
    usable = [device for device in devices if device.state == "device"]
    if len(usable) == 1:
        return usable[0]
    if usable:
        names = ", ".join(map(str, usable))
        return Missing("the choice of one Android device", f"pass `device`, one of: {names}")
    if not devices:
        return Missing("an Android device", _CONNECT)
    refused = devices[0]
    way = _WAYS_OUT.get(refused.state, f"its state is {refused.state!r}; try `adb reconnect`")
    return Missing(f"a usable Android device ({refused.serial} is {refused.state})", way)


def adb_command(path: str | None = None) -> str | None:
    """The adb program: `path`, or the one on PATH, or that of an Android SDK; None when there is none."""
    if path is not None:
        return shutil.which(path)
    found = shutil.which("adb")
    for variable in ("ANDROID_HOME", "ANDROID_SDK_ROOT"):
        if found is None and os.environ.get(variable):
            found = shutil.which("adb", path=str(Path(os.environ[variable]) / "platform-tools"))
    return found


def find_device(options: Mapping[str, Any]) -> "Adb | Missing":
    """The phone that a job's options `adb` and `device` name, or what is missing."""
    command = adb_command(options.get("adb"))
    if command is None:
        return Missing("the adb command", INSTALL)
    try:
        devices = listed(_adb([command, "devices", "-l"], 30).stdout)
    except AdbError as error:
        return Missing("an adb server", str(error))
    choice = chosen(devices, options.get("device") or os.environ.get("ANDROID_SERIAL"))
    return choice if isinstance(choice, Missing) else Adb(command, choice)


class Adb:
    """One phone.

    >>> phone = find_device({})                                         # doctest: +SKIP
    >>> phone.shell("getprop ro.product.model", timeout=10).text        # doctest: +SKIP
    'Pixel 8'
    """

    def __init__(self, command: str, device: Listed) -> None:
        """Talks to `device` through the program `command`."""
        self.device = device
        self._command = [command, "-s", device.serial]

    def shell(self, command: str, *, timeout: float) -> Answer:
        """Runs a command line in the phone's shell.

        Args:
            command: for `sh`; the caller quotes.
            timeout: seconds.

        Raises:
            AdbError: the command did not end in time, or the phone is gone.
        """
        # The line break ends a command that ends in a comment or lacks one itself.
        done = _adb([*self._command, "shell", f"{command}\necho {_MARK}$?"], timeout)
        text = done.stdout
        status = _STATUS.search(text)
        if status is None:
            said = (text + done.stderr).strip()
            raise _named(said, "", default="the connection to the phone broke: check the cable", gone=True)
        return Answer(int(status.group(1)), (text[: status.start()] + done.stderr).strip("\n"))

    def push(self, content: bytes, to: str, *, timeout: float) -> None:
        """Writes a file on the phone.

        Raises:
            AdbError: no space, no permission, too slow, or the phone is gone.
        """
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "content"
            source.write_bytes(content)
            self._copy(["push", str(source), to], to, timeout)

    def pull(self, path: str, *, timeout: float) -> bytes:
        """Reads a file of the phone.

        Raises:
            AdbError: it is not there, too slow, or the phone is gone.
        """
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "content"
            self._copy(["pull", path, str(target)], path, timeout)
            return target.read_bytes()

    def remove(self, folder: str) -> str:
        """Deletes a folder of the phone with all that is in it.

        Returns:
            "", or what is left behind and how to delete it: a failure must not hide the results.
        """
        with contextlib.suppress(AdbError):
            if self.shell(f"rm -rf {folder}", timeout=30).code == 0:
                return ""
        return f"{folder} could not be deleted: adb -s {self.device.serial} shell rm -rf {folder}"

    def _copy(self, arguments: Sequence[str], path: str, timeout: float) -> None:
        done = _adb([*self._command, *arguments], timeout)
        if done.returncode:
            said = (done.stdout + done.stderr).strip()
            raise _named(said, path.rpartition("/")[0], default=f"adb {arguments[0]} failed: {_last(said)}", gone=False)


def _adb(command: Sequence[str], timeout: float) -> subprocess.CompletedProcess[str]:
    """One call of adb, with plain line ends. Its bytes are no text for sure: an app's log is part of them."""
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
    except subprocess.TimeoutExpired as error:
        raise AdbError(f"`adb {' '.join(command[1:4])} ...` did not end within {timeout:g} s") from error
    except OSError as error:
        raise AdbError(f"{command[0]!r} cannot be started: {error.strerror}", gone=True) from error


def _named(said: str, folder: str, *, default: str, gone: bool) -> AdbError:
    for pattern, meaning, lost in _FAILURES:
        if re.search(pattern, said, re.IGNORECASE):
            return AdbError(f"{meaning.format(folder=folder)} (adb: {_last(said)})", gone=lost)
    return AdbError(default, gone=gone)


def _last(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it said nothing"
