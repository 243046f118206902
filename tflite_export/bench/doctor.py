"""Which targets work on this machine, and what the others need; nothing slow is run."""

from dataclasses import asdict, dataclass
from typing import Any

from tflite_export import rendering
from tflite_export.bench.harness import TARGETS, target_module
from tflite_export.bench.job import Missing


@dataclass(frozen=True)
class Row:
    """A target.

    Attributes:
        target: its name.
        summary: what it measures on.
        missing: what this machine lacks; empty when the target works.
        accelerators: accepted names.
        options: name -> help.
    """

    target: str
    summary: str
    missing: tuple[Missing, ...]
    accelerators: tuple[str, ...]
    options: dict[str, str]

    @property
    def works(self) -> bool:
        """Nothing is missing."""
        return not self.missing


@dataclass(frozen=True)
class Checkup:
    """All targets; str() prints a table, `rows` is plain data."""

    targets: tuple[Row, ...]

    def rows(self) -> list[dict[str, Any]]:
        """Plain data that `json` can write."""
        return [{**asdict(row), "works": row.works} for row in self.targets]

    def __str__(self) -> str:
        rows = [(row.target, "works" if row.works else "missing", row.summary) for row in self.targets]
        text = rendering.render(rendering.table("Targets", ("target", "", "measures on"), rows))
        # Not wrapped: commands are there to be copied.
        needs = [f"{row.target}: {lack}" for row in self.targets for lack in row.missing]
        return "\n".join([text, *(["", "Missing", *needs] if needs else [])])


def checkup() -> Checkup:
    """Asks each target what it lacks here, with default options.

    >>> [row.target for row in checkup().targets if row.works]             # doctest: +SKIP
    ['host', 'tflm']
    """
    found = []
    for target in TARGETS:
        module = target_module(target)
        missing = tuple(module.missing({}))
        found.append(Row(target, module.SUMMARY, missing, tuple(module.ACCELERATORS), dict(module.OPTIONS)))
    return Checkup(tuple(found))
