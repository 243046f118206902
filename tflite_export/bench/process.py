"""A child process that holds a runtime: what the runtime does to its process, it does to that one alone.

Requests go to the child's standard input and answers come from its standard output, each as

    8 bytes    length of the archive, little-endian
    .npz       "request" or "answer": JSON; and arrays by name
"""

import contextlib
import io
import json
import os
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from tflite_export.child import cause
from tflite_export.errors import ExportError

_LENGTH = struct.Struct("<Q")


def write_frame(stream: BinaryIO, message: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Sends one message with its arrays."""
    packed = io.BytesIO()
    held: dict[str, Any] = {f"array_{name}": array for name, array in arrays.items()}
    np.savez(packed, message=np.array(json.dumps(message)), **held)
    stream.write(_LENGTH.pack(packed.getbuffer().nbytes))
    stream.write(packed.getbuffer())
    stream.flush()


def read_frame(stream: BinaryIO) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
    """Receives one message with its arrays; None at the end of the stream."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    body = stream.read(length)
    if len(body) < length:
        return None
    with np.load(io.BytesIO(body), allow_pickle=False) as archive:
        message = json.loads(str(archive["message"]))
        arrays = {n.removeprefix("array_"): archive[n] for n in archive.files if n.startswith("array_")}
    return message, arrays


class Process:
    """A child with one engine of `tflite_export.bench.worker` in it.

    >>> with Process(timeout=60) as child:                                            # doctest: +SKIP
    ...     child.call("open", engine="interpreter", path="model.tflite")
    """

    def __init__(
        self,
        *,
        timeout: float,
        environment: Mapping[str, str] | None = None,
        command: Sequence[str] = (sys.executable, "-m", "tflite_export.bench.worker"),
    ) -> None:
        """Starts the child.

        Args:
            timeout: seconds that each call may take; the child is ended after them.
            environment: variables in addition to the caller's.
            command: that starts a worker, which may be on another machine.
        """
        self._timeout = timeout
        self.saved_log = ""  # what `log` said at the end, for later
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.folder = Path(self._folder.name)
        here = str(Path(__file__).resolve().parent.parent.parent)
        paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
        with (self.folder / "log").open("wb") as log:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **(environment or {}), "PYTHONPATH": os.pathsep.join(paths)},
                start_new_session=True,  # an interruption at the keyboard is the caller's to handle
            )
        self._stdin, self._stdout = cast(BinaryIO, self._child.stdin), cast(BinaryIO, self._child.stdout)

    def call(
        self, name: str, arrays: Mapping[str, np.ndarray] | None = None, **arguments: Any
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Calls a method of the engine.

        Args:
            name: of the method; "open" comes first.
            arrays: that it takes.
            arguments: further ones, which JSON can hold.

        Returns:
            What the method returned: plain values, and arrays.

        Raises:
            ExportError: the engine failed, died, or took too long; the message holds its last words.
        """
        found: list[Any] = []
        talk = threading.Thread(target=self._talk, args=(name, arrays or {}, arguments, found), daemon=True)
        talk.start()
        talk.join(self._timeout)
        if talk.is_alive():
            self.close()
            raise ExportError(f"it did not answer within {self._timeout:g} s")
        if not found or found[0] is None:
            code = self._child.wait()
            raise ExportError(f"the runtime took its process down ({cause(code)}): {_last_words(self.log())}")
        answer, results = found[0]
        if "error" in answer:
            known = answer["error"]
            added = [line for line in _lines(self.log()) if line.startswith("ERROR") and line[7:] not in known]
            raise ExportError(" | ".join([known, *added[-2:]]))
        return answer, results

    def _talk(self, name: str, arrays: Mapping[str, np.ndarray], arguments: dict, found: list[Any]) -> None:
        # A child that died breaks the pipe, or leaves half an answer: its exit status says more than either.
        with contextlib.suppress(OSError, ValueError):
            write_frame(self._stdin, {"do": name, "with": arguments}, arrays)
            found.append(read_frame(self._stdout))

    def log(self) -> str:
        """What the child has written to its standard error, the last 100 000 bytes of it."""
        with (self.folder / "log").open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 100_000))
            return log.read().decode("utf-8", "replace")

    def close(self) -> None:
        """Ends the child."""
        self._child.kill()
        self._child.wait()
        for stream in (self._stdin, self._stdout):
            with contextlib.suppress(OSError, ValueError):
                stream.close()

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
        self.saved_log = self.log()
        self._folder.cleanup()


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("INFO")]


def _last_words(text: str) -> str:
    return " | ".join(_lines(text)[-4:]) or "it said nothing"
