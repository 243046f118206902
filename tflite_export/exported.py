"""What an export returns: the file's bytes, and the report of how each number in it came to be."""

import os
from dataclasses import dataclass
from pathlib import Path

from tflite_export.files import gzipped, write_whole


@dataclass(frozen=True)
class ReportRow:
    """One decision of the export.

    Attributes:
        name: the tensor, kernel or operation, in the names of the user's layers.
        kind: what was decided, such as "range" or "kernel".
        detail: how, such as "learned", "measured", "fixed", "8 bits planted".
    """

    name: str
    kind: str
    detail: str


@dataclass(frozen=True)
class Report:
    """How a file was made.

    Attributes:
        precision: as it was asked for, such as "int8".
        inputs: one text an input: name, type, shape.
        outputs: one text an output: name, type, shape.
        rows: the source of every range and kernel.
        float_operations: operations of an integer file that still compute in float; empty when there is none.
        collapsed: tensors of an integer file that do not hold what they hold in float, and what to do; empty when there
            is none.
        notes: what the user should know.
        seconds: wall-clock time of the conversion.
    """

    precision: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    rows: tuple[ReportRow, ...]
    float_operations: tuple[str, ...]
    collapsed: tuple[str, ...]
    notes: tuple[str, ...]
    seconds: float

    def __str__(self) -> str:
        from tflite_export.rendering import render, table

        head = [("inputs", text) for text in self.inputs] + [("outputs", text) for text in self.outputs]
        head += [("float operation", text) for text in self.float_operations]
        head += [("collapsed", text) for text in self.collapsed] + [("note", text) for text in self.notes]
        parts = [table(f"Export to {self.precision} in {self.seconds:.1f} s", ("", "value"), head)]
        if self.rows:
            rows = [(row.kind, row.name, row.detail) for row in self.rows]
            parts.append(table("Where the numbers come from", ("kind", "name", "source"), rows))
        return render(*parts)


@dataclass(frozen=True)
class Exported:
    """A `.tflite` file in memory.

    Attributes:
        content: the whole file.
        report: how it was made.
    """

    content: bytes
    report: Report

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the file whole or not at all.

        Args:
            path: the target, usually ending in `.tflite`; its folder must exist. With `.gz` at its end it is packed,
                for downloads.

        Returns:
            The path that was written.

        Raises:
            ExportError: the target cannot be written; nothing is left behind.
        """
        packed = os.fspath(path).endswith(".gz")
        return write_whole(path, gzipped(self.content) if packed else self.content)

    def __len__(self) -> int:
        return len(self.content)

    def __repr__(self) -> str:
        return f"Exported({self.report.precision}, {len(self.content):,} bytes)"
