"""A Linux board over the system's OpenSSH client: every failure named, and a worker of ours on the board."""

import contextlib
import functools
import io
import json
import re
import shlex
import shutil
import signal
import subprocess
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from tflite_export.bench.job import Missing
from tflite_export.bench.process import Process
from tflite_export.bench.ssh_there import BEGIN, MARK
from tflite_export.errors import ExportError

PACKAGES = "ai-edge-litert>=2.3,<3"
VENV = ".cache/tflite_export/venv"
OLDEST = (3, 10)
_PACKAGE = Path(__file__).resolve().parent.parent
_CONNECT = 15
_LOST = 255  # ssh's own exit status
# What ssh says -> what is wrong, what to do. {device} and {ssh} are filled in.
_FAILURES = (
    (r"Could not resolve hostname", "the host's name is not known", "check `device`, or give its address"),
    (r"Connection refused", "no ssh server answers there", "on the board: sudo systemctl enable --now ssh; or `port`"),
    (r"timed out|No route to host|Network is unreachable", "the host cannot be reached", "check power and network"),
    (r"REMOTE HOST IDENTIFICATION HAS CHANGED", "the host has another key than before",
     "if the board was set up anew: ssh-keygen -R HOST, then connect once by hand"),
    (r"Host key verification failed|authenticity of host", "the host's key is not known yet",
     "connect once by hand and accept it: {ssh}"),
    (r"UNPROTECTED PRIVATE KEY|bad permissions", "the file of `identity` can be read by others", "chmod 600 FILE"),
    (r"Identity file .* not accessible|no such identity", "the file of `identity` is not there", "check its path"),
    (r"Too many authentication failures", "too many keys were tried", "pass `identity`, the one key that fits"),
    (r"Permission denied", "it does not let this user in without a password",
     "copy your key there: ssh-copy-id {device}; or pass `identity`"),
    (r"Bad configuration option|Can't open user config file", "the file of `config` is not usable", "check it"),
    (r"Connection closed|closed by remote|Connection reset|Broken pipe|disconnect|not responding",
     "the connection broke", "check power and network of the board"),
)  # fmt: skip


class BoardError(ExportError):
    """The board cannot be used at all.

    Attributes:
        lacks: what is missing, and the way out.
    """

    def __init__(self, lacks: Missing) -> None:
        """Tells what is missing."""
        super().__init__(str(lacks))
        self.lacks = lacks


class Board:
    """How a board is reached.

    >>> board = Board({"device": "pi@raspberrypi.local"})        # doctest: +SKIP
    >>> board.facts(timeout=30)["model"]                         # doctest: +SKIP
    'Raspberry Pi 5 Model B Rev 1.0'
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        """Checks the options `device`, `port`, `identity`, `config` and `python`; connects to nothing.

        Raises:
            ValueError: an option has a wrong value.
            BoardError: there is no ssh, or no `device`.
        """
        if shutil.which("ssh") is None:
            raise BoardError(Missing("the ssh command", "sudo apt-get install openssh-client"))
        if not options.get("device"):
            raise BoardError(Missing("the name of a board", "pass `device`, such as user@raspberrypi.local"))
        self.device = str(options["device"])
        # What begins with a dash would be an option of ssh, some of which run programs.
        if not re.fullmatch(r"[\w\[][\w.@:\[\]%/+-]*", self.device):
            raise ValueError(f"`device` must be a host such as user@board.local. Received: device={self.device!r}")
        port = options.get("port")
        if port is not None and (not str(port).isdecimal() or not 1 <= int(port) <= 65535):
            raise ValueError(f"`port` must be an integer from 1 to 65535. Received: port={port!r}")
        words = ["-T", *(["-p", str(port)] if port is not None else [])]
        for name, flags in (("config", ["-F"]), ("identity", ["-o", "IdentitiesOnly=yes", "-i"])):
            if options.get(name):
                path = Path(str(options[name])).expanduser()
                if not path.is_file():
                    raise ValueError(f"`{name}` must be the path of a file. Received: {name}={str(options[name])!r}")
                words += [*flags, str(path)]
        self._by_hand = shlex.join(["ssh", *words[1:], self.device])
        settings = {"BatchMode": "yes", "ConnectTimeout": _CONNECT, "ServerAliveInterval": 15, "ServerAliveCountMax": 4}
        pairs = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
        self._ssh = ["ssh", *words, *pairs, "--", self.device]
        self._python = str(options.get("python") or "")

    def command(self, script: str) -> list[str]:
        """The local command that runs a script in the board's `sh`."""
        return [*self._ssh, f"exec sh -c {shlex.quote(script)}"]

    def python(self, task: str) -> tuple[list[str], bytes]:
        """The local command that has the board's Python do a task of `ssh_there.py`, and what it reads first."""
        source = (_PACKAGE / "bench" / "ssh_there.py").read_bytes()
        loader = (
            f"import os,sys\nn,s={len(source)},b''\nwhile n>len(s):\n b=os.read(0,n-len(s)) or sys.exit(1)\n s+=b\n"
            "exec(compile(s,'ssh_there.py','exec'))"
        )
        choose = f'p="$HOME/{VENV}/bin/python"; [ -x "$p" ] || p=python3'
        if self._python:
            home, rest = ('"$HOME"/', self._python[2:]) if self._python.startswith("~/") else ("", self._python)
            choose = f"p={home}{shlex.quote(rest)}"
        return self.command(f'{choose}; exec "$p" -c {shlex.quote(loader)} {task}'), source

    def facts(self, *, timeout: float) -> dict[str, Any]:
        """What the board is and has; see `ssh_there.facts`.

        Raises:
            BoardError: it cannot be reached, or has no Python.
        """
        command, source = self.python("facts")
        code, out, err = self._call(command, source, timeout)
        for line in out.splitlines():
            if line.startswith(MARK):
                return json.loads(line.removeprefix(MARK))
        raise self.lost(err) if code == _LOST else BoardError(self._no_python(code, err))

    def set_up(self, packages: str, *, timeout: float) -> None:
        """Makes a virtual environment with LiteRT on the board, in its user's `~/.cache/tflite_export/venv`.

        Args:
            packages: arguments of `pip install`.
            timeout: seconds.

        Raises:
            BoardError: it has no venv or pip, or they fail.
        """
        wanted = shlex.join(shlex.split(packages))
        base = shlex.quote(self._python) if self._python else "python3"
        script = (
            f'set -e; v="$HOME/{VENV}"; [ -x "$v/bin/python" ] && "$v/bin/python" -m pip --version >/dev/null 2>&1 || '
            f'{{ rm -rf "$v"; {base} -m venv "$v"; }}; '
            f'"$v/bin/python" -m pip install --disable-pip-version-check -q {wanted}'
        )
        code, out, err = self._call(self.command(script), b"", timeout)
        if code == _LOST:
            raise self.lost(err)
        if code:
            said = _last(err or out)
            way = f"{self._by_hand} sudo apt-get install -y python3-venv" if "ensurepip" in out + err else (
                "see its message; `packages` may name other versions, or wheels that are there already"
            )  # fmt: skip
            raise BoardError(Missing(f"a virtual environment on {self.device} (pip: {said})", way))

    def lost(self, said: str) -> BoardError:
        """What a failure of ssh itself means."""
        for pattern, meaning, way in _FAILURES:
            if re.search(pattern, said, re.IGNORECASE):
                way = way.format(device=self.device, ssh=self._by_hand)
                return BoardError(Missing(f"a connection to {self.device} ({meaning})", way))
        return BoardError(Missing(f"a connection to {self.device} (ssh: {_last(said)})", f"try {self._by_hand}"))

    def lacking(self, facts: Mapping[str, Any], *, setup: bool) -> Missing | None:
        """What the board's Python lacks to measure; None when nothing does, or `setup` will bring it."""
        version = tuple(int(part) for part in re.findall(r"\d+", str(facts.get("python", "0")))[:2])
        if version < OLDEST:
            oldest = ".".join(map(str, OLDEST))
            way = f"install a newer Python there and pass its path as `python`; found {facts.get('python')}"
            return Missing(f"Python {oldest} or later on {self.device}", way)
        if facts.get("litert") or setup:
            return None
        by_hand = f"{self._by_hand} {facts.get('executable') or 'python3'} -m pip install ai-edge-litert"
        return Missing(f"ai-edge-litert on {self.device}", f"pass `setup=True` (a virtual environment), or {by_hand}")

    def _no_python(self, code: int, said: str) -> Missing:
        if code in (126, 127):
            what = self._python or "python3"
            way = f"{self._by_hand} sudo apt-get install -y python3; or pass `python`, the path of one"
            return Missing(f"Python on {self.device} ({what!r} does not start)", way)
        return Missing(f"an answer of {self.device} (exit status {code}: {_last(said)})", f"try {self._by_hand}")

    def _call(self, command: Sequence[str], sent: bytes, timeout: float) -> tuple[int, str, str]:
        try:
            done = subprocess.run(command, input=sent, capture_output=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired as error:
            lacks = Missing(f"an answer of {self.device} within {timeout:g} s", f"try {self._by_hand}, or a `timeout`")
            raise BoardError(lacks) from error
        return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")


class RemoteProcess(Process):
    """A worker on a board; a file is there as `model.tflite`. Nothing of it is left when it ends."""

    def __init__(self, board: Board, content: bytes, *, timeout: float) -> None:
        """Starts the worker.

        Args:
            board: where.
            content: of the file.
            timeout: seconds that each call may take.
        """
        self._board = board
        command, source = board.python("work")
        super().__init__(timeout=timeout, command=command)
        self._stdout = cast(BinaryIO, _Behind(self._stdout))
        files = [("package.zip", package()), ("model.tflite", content)]
        listed = json.dumps([[name, len(data)] for name, data in files]).encode()
        # When ssh has failed already, its exit status and its words say why, at the first call.
        with contextlib.suppress(OSError):
            for part in (source, len(listed).to_bytes(8, "little"), listed, *(data for _, data in files)):
                self._stdin.write(part)
            self._stdin.flush()

    def call(
        self, name: str, arrays: Mapping[str, np.ndarray] | None = None, **arguments: Any
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """As `Process.call`.

        Raises:
            ExportError: the engine failed, died, or took too long.
            BoardError: the connection broke.
        """
        try:
            return super().call(name, arrays, **arguments)
        except ExportError as error:
            code = self._child.poll()
            if code == _LOST:
                raise self._board.lost(self.log()) from error
            if code is not None and code > 128 and code - 128 in signal.valid_signals():
                ended = signal.Signals(code - 128).name
                raise ExportError(str(error).replace(f"exit status {code}", ended)) from error
            raise


class _Behind:
    """What a stream holds behind the line `BEGIN`."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._begun = stream, False

    def read(self, size: int) -> bytes:
        while not self._begun:
            line = self._stream.readline()
            self._begun = line in (BEGIN, b"")
        return self._stream.read(size)

    def close(self) -> None:
        self._stream.close()


@functools.cache
def package() -> bytes:
    """What the worker imports, as a zip archive that Python can import from."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted([*_PACKAGE.glob("*.py"), *_PACKAGE.glob("bench/*.py")]):
            archive.write(path, path.relative_to(_PACKAGE.parent))
    return packed.getvalue()


def _last(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"
