"""A phone for tests: a daemon of the classic adb protocol that the real `adb` client connects to.

It speaks CNXN, AUTH, OPEN, OKAY, WRTE and CLSE over TCP with the services shell (with and without the protocol that
returns exit statuses) and sync (SEND, RECV, STAT, QUIT). Its storage is a folder; commands run in this machine's `sh`
with the phone's paths pointing there and a folder of programs in front of PATH, where getprop, dumpsys, am, pm and
others are scripts that a test writes.
"""

import contextlib
import os
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

_HEAD = struct.Struct("<6I")
_MOUNTS = ("/data/local/tmp", "/sdcard")
_PROPERTIES = {
    "ro.product.manufacturer": "Example",
    "ro.product.model": "Phone 5",
    "ro.build.version.release": "14",
    "ro.build.version.sdk": "34",
    "ro.soc.manufacturer": "Acme",
    "ro.soc.model": "X1",
    "ro.product.cpu.abilist": "arm64-v8a,armeabi-v7a",
}
BATTERY = """Current Battery Service state:
  AC powered: false
  USB powered: true
  status: 2
  level: 83
  scale: 100
  temperature: 287
"""


def _word(name: str) -> int:
    return int.from_bytes(name.encode(), "little")


@contextlib.contextmanager
def adb_server(home: Path) -> Iterator[None]:
    """A server of the real adb on a port of its own, with keys of its own; ended at the end."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    kept = {name: os.environ.get(name) for name in ("ANDROID_ADB_SERVER_PORT", "ANDROID_SERIAL", "HOME")}
    os.environ.pop("ANDROID_SERIAL", None)
    os.environ.update(ANDROID_ADB_SERVER_PORT=str(port), HOME=str(home))
    try:
        yield
    finally:
        subprocess.run(["adb", "kill-server"], capture_output=True, timeout=30, check=False)
        for name, value in kept.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


class FakePhone:
    """One phone; use it with `with`.

    What a test sets: `trusted` False never accepts the computer's key; `silent` True never answers at all; `free` is
    the room that is left, in bytes; a shell command that holds `breaks_at` cuts the connection; `modern` offers the
    shell protocol with exit statuses.
    """

    def __init__(self, folder: Path, *, trusted: bool = True, silent: bool = False, modern: bool = False) -> None:
        self.root, self.programs = folder / "storage", folder / "programs"
        self.trusted, self.silent, self.modern = trusted, silent, modern
        self.free: int | None = None
        self.breaks_at = ""
        self.commands: list[str] = []
        for mount in _MOUNTS:
            (self.root / mount[1:]).mkdir(parents=True)
        self.programs.mkdir()
        cases = "".join(f"{name}) echo '{value}' ;;\n" for name, value in _PROPERTIES.items())
        self.program("getprop", f'case "$1" in\n{cases}esac')
        self.program("settings", "echo 0")
        self.dumpsys()
        self._processes: set[subprocess.Popen] = set()
        self._sockets: list[socket.socket] = []

    def dumpsys(self, battery: str = BATTERY, thermal: int = 0) -> None:
        """What the phone tells of its battery and heat."""
        self.program("dumpsys", f"case $1 in battery) echo '{battery}';; *) echo 'Thermal Status: {thermal}';; esac")

    def program(self, name: str, text: str) -> Path:
        """A script that the phone's shell finds."""
        path = self.programs / name
        path.write_text(text if text.startswith("#!") else f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    def path(self, path: str) -> Path:
        """Where a path of the phone is on this machine."""
        return self.root / path.lstrip("/")

    def left(self) -> list[str]:
        """Files on the phone."""
        return sorted(str(p.relative_to(self.root)) for p in self.root.rglob("*") if p.is_file())

    @property
    def serial(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> "FakePhone":
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def connect(self) -> str:
        """Makes adb know the phone; what adb says."""
        done = subprocess.run(["adb", "connect", self.serial], capture_output=True, text=True, timeout=60, check=False)
        return done.stdout + done.stderr

    def __exit__(self, *error: object) -> None:
        subprocess.run(["adb", "disconnect", self.serial], capture_output=True, timeout=30, check=False)
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for process in list(self._processes):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._sockets.append(client)
                threading.Thread(target=_Transport(self, client).serve, daemon=True).start()

    def translated(self, command: str) -> str:
        for mount in _MOUNTS:
            command = command.replace(mount, str(self.path(mount)))
        return command

    def start(self, command: str, separate: bool) -> subprocess.Popen:
        self.commands.append(command)
        process = subprocess.Popen(
            ["sh", "-c", self.translated(command)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if separate else subprocess.STDOUT,
            env={**os.environ, "PATH": f"{self.programs}:{os.environ['PATH']}", "PHONE": str(self.root)},
            start_new_session=True,
        )
        self._processes.add(process)
        return process


class _Transport:
    """One connection of an adb server."""

    def __init__(self, phone: FakePhone, client: socket.socket) -> None:
        self._phone, self._client, self._lock = phone, client, threading.Lock()
        self._streams: dict[int, _Stream] = {}
        self._signatures = 0

    def serve(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                command, first, second, size, _, _ = _HEAD.unpack(self._receive(_HEAD.size))
                data = self._receive(size)
                if not self._phone.silent:
                    self._handle(command, first, second, data)
        self._client.close()

    def _handle(self, command: int, first: int, second: int, data: bytes) -> None:
        if command in (_word("CNXN"), _word("AUTH")):
            self._greet(first if command == _word("AUTH") else 0)
        elif command == _word("OPEN"):
            stream = _Stream(self, self._phone, len(self._streams) + 1, first)
            self._streams[stream.own] = stream
            service = data.rstrip(b"\0").decode()
            self.send("OKAY", stream.own, first)
            threading.Thread(target=stream.run, args=(service,), daemon=True).start()
        elif command == _word("WRTE"):
            self.send("OKAY", second, first)
            self._streams[second].arrived(data)
        elif command == _word("OKAY"):
            self._streams[second].ready.set()
        elif command == _word("CLSE") and second in self._streams:
            self._streams[second].arrived(None)

    def _greet(self, kind: int) -> None:
        """A phone that does not trust the computer asks for signatures, then for its key, then its user; who waits."""
        if not self._phone.trusted:
            if kind != 3:
                self.send("AUTH", 1, 0, bytes(range(20)))
            return
        features = "cmd,shell_v2" if self._phone.modern else "cmd"
        banner = f"device::ro.product.name=a;ro.product.model=Phone 5;ro.product.device=b;features={features}"
        self.send("CNXN", 0x01000000, 4096, banner.encode())

    def send(self, command: str, first: int, second: int, data: bytes = b"") -> None:
        word = _word(command)
        with self._lock:
            self._client.sendall(
                _HEAD.pack(word, first, second, len(data), sum(data) & 0xFFFFFFFF, word ^ 0xFFFFFFFF) + data
            )

    def cut(self) -> None:
        self._client.shutdown(socket.SHUT_RDWR)

    def _receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self._client.recv(size - len(data))
            if not part:
                raise EOFError
            data += part
        return data


class _Stream:
    """One service that the client opened."""

    def __init__(self, transport: _Transport, phone: FakePhone, own: int, other: int) -> None:
        self._transport, self._phone, self.own, self.other = transport, phone, own, other
        self.ready, self._more = threading.Event(), threading.Condition()
        self._data, self._ended = b"", False

    def arrived(self, data: bytes | None) -> None:
        with self._more:
            self._data += data or b""
            self._ended |= data is None
            self._more.notify()

    def run(self, service: str) -> None:
        with contextlib.suppress(OSError, EOFError):
            name, _, rest = service.partition(":")
            if name.startswith(("shell", "exec")):
                self._shell(rest, framed="v2" in name)
            elif name == "sync":
                self._sync()
            self._transport.send("CLSE", self.own, self.other)

    def _write(self, data: bytes) -> None:
        for begin in range(0, len(data), 4096):
            self.ready.clear()
            self._transport.send("WRTE", self.own, self.other, data[begin : begin + 4096])
            if not self.ready.wait(10):
                raise EOFError

    def _read(self, size: int) -> bytes:
        with self._more:
            self._more.wait_for(lambda: len(self._data) >= size or self._ended)
            if len(self._data) < size:
                raise EOFError
            data, self._data = self._data[:size], self._data[size:]
            return data

    def _shell(self, command: str, framed: bool) -> None:
        if self._phone.breaks_at and self._phone.breaks_at in command:
            self._transport.cut()
            raise EOFError
        process = self._phone.start(command, separate=framed)
        out, err = process.communicate()
        if not framed:
            self._write(out.replace(b"\n", b"\r\n"))  # as phones before Android 7 do
            return
        for kind, data in ((1, out), (2, err), (3, bytes([process.returncode & 0xFF]))):
            if data:
                self._write(struct.pack("<BI", kind, len(data)) + data)

    def _sync(self) -> None:
        while True:
            kind, size = self._read(4), int.from_bytes(self._read(4), "little")
            if kind == b"QUIT":
                return
            name = self._read(size).decode()
            if kind == b"STAT":
                self._stat(self._phone.path(name))
            elif kind == b"SEND":
                self._receive_file(name.rpartition(",")[0])
            elif kind == b"RECV":
                self._send_file(self._phone.path(name))

    def _stat(self, path: Path) -> None:
        found = path.stat() if path.exists() else None
        mode, size = (found.st_mode, found.st_size) if found else (0, 0)
        self._write(b"STAT" + struct.pack("<III", mode, size, 0))

    def _receive_file(self, name: str) -> None:
        content, path = b"", self._phone.path(name)
        while (kind := self._read(4)) == b"DATA":
            content += self._read(int.from_bytes(self._read(4), "little"))
        self._read(4)  # the time of the file, behind DONE
        if self._phone.free is not None and len(content) > self._phone.free:
            self._fail(b"write failed: No space left on device")
        elif not path.parent.is_dir() or kind != b"DONE":
            self._fail(b"couldn't create file: No such file or directory")
        else:
            path.write_bytes(content)
            self._write(b"OKAY" + bytes(4))

    def _send_file(self, path: Path) -> None:
        if not path.is_file():
            self._fail(b"open failed: No such file or directory")
            return
        content = path.read_bytes()
        parts = [content[begin : begin + 65536] for begin in range(0, len(content), 65536)]
        framed = [b"DATA" + struct.pack("<I", len(part)) + part for part in parts]
        self._write(b"".join([*framed, b"DONE" + bytes(4)]))

    def _fail(self, reason: bytes) -> None:
        self._write(b"FAIL" + struct.pack("<I", len(reason)) + reason)
