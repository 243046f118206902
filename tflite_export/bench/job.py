"""What a target is asked to do, and what a target is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from tflite_export.bench.result import Result


@dataclass(frozen=True)
class Named:
    """A file under the name that tables call it by."""

    name: str
    content: bytes


@dataclass(frozen=True)
class Missing:
    """Something that a target needs and this machine lacks.

    Attributes:
        what: such as "the adb client".
        command: the exact command that installs it, or what to do when no command does.
    """

    what: str
    command: str

    def __str__(self) -> str:
        return f"{self.what} is missing: {self.command}"


@dataclass(frozen=True)
class Job:
    """Files to be measured side by side, by turns.

    Attributes:
        files: at least one.
        runs: timed inferences of each file.
        threads: of the runtime, where it has them.
        accelerator: as the target calls it; None for its default.
        profile: time each operation, too.
        samples: rows of real inputs as `Runner` takes them; None for generated ones.
        options: further settings, checked against the target's `OPTIONS`.
        progress: called with one line of text at each step of long work.
        finished: called with each result as soon as it is there, so that an interrupted run keeps what it has.
    """

    files: tuple[Named, ...]
    runs: int = 50
    threads: int = 1
    accelerator: str | None = None
    profile: bool = False
    samples: Any = None
    options: Mapping[str, Any] = field(default_factory=dict)
    progress: Callable[[str], None] = lambda line: None
    finished: Callable[[Result], None] = lambda result: None


class Target(Protocol):
    """A module of `tflite_export.bench` that measures on one kind of device or runtime."""

    SUMMARY: str
    """One line for `--help` and `doctor`."""
    ACCELERATORS: tuple[str, ...]
    """Accepted values of `Job.accelerator`; empty when there is no choice."""
    OPTIONS: Mapping[str, str]
    """Name -> help of each entry that `Job.options` may hold."""

    @staticmethod
    def missing(options: Mapping[str, Any]) -> list[Missing]:
        """What this machine lacks to run a job with these options; empty when it can."""

    @staticmethod
    def run(job: Job) -> list[Result]:
        """One result a file, in order. What goes wrong with one file is a result with `status` "failed"."""
