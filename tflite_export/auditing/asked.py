"""A tool is asked about a file in a process of its own, since a file may take the process down."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SECONDS = 120.0


@dataclass(frozen=True)
class Verdict:
    """What a tool says about one operator: whether the accelerator takes it, and why not in the tool's words."""

    accelerated: bool
    reason: str = ""
    refused: bool = False


@dataclass(frozen=True)
class Answer:
    """What a tool says about a file.

    Attributes:
        source: the tool and its version.
        verdicts: (subgraph, operator) -> what it says; rules speak for operators that are not in it.
        stops: why the file does not run there at all; "" when it does.
        notes: further facts, such as the memory that was measured.
        command: how to install the tool, when it is missing or could not answer; then the rules speak alone.
    """

    source: str
    verdicts: Mapping[tuple[int, int], Verdict] = field(default_factory=dict)
    stops: str = ""
    notes: tuple[str, ...] = ()
    command: str = ""


@dataclass(frozen=True)
class Said:
    """How a child process ended: exit status (negative: a signal; None: it took too long) and what it wrote."""

    status: int | None
    out: str
    err: str

    def cause(self) -> str:
        """Why there is no answer, for a message."""
        if self.status is None:
            return f"no answer within {SECONDS:.0f} s"
        if self.status < 0:
            return f"its process was taken down ({_signal(-self.status)})"
        return last_words(self.err)


def run(arguments: Sequence[str], content: bytes = b"", folder: str | None = None) -> Said:
    """Runs `python -m ...` with the package on its path and `content` on standard input."""
    paths = [str(Path(__file__).resolve().parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            input=content,
            capture_output=True,
            check=False,
            timeout=SECONDS,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
    except subprocess.TimeoutExpired:
        return Said(None, "", "")
    return Said(done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace"))


def last_words(text: str, lines: int = 2) -> str:
    """The last lines that say something.

    >>> last_words("one\\n\\ntwo\\nthree\\n")
    'two | three'
    """
    kept = [line.strip() for line in text.splitlines() if line.strip(" ^~")]  # lines of a traceback that only point
    return " | ".join(kept[-lines:]) or "it said nothing"


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
