"""Results for people and for spreadsheets."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

from tflite_export import rendering
from tflite_export.bench.result import Result
from tflite_export.bench.stats import spoken

# Heading -> cell. Columns that are empty in every row are left out.
_Columns = dict[str, Callable[[Result], str]]
_WHO: _Columns = {"file": lambda r: r.name, "target": lambda r: r.target}
_TIMES: _Columns = {
    "init": lambda r: spoken(r.init),
    "first": lambda r: spoken(r.first),
    "median": lambda r: spoken(r.median),
    "p90": lambda r: spoken(r.p90),
    "p99": lambda r: spoken(r.p99),
    "min": lambda r: spoken(r.min),
    "spread": lambda r: "" if r.spread is None else f"{100 * r.spread:.0f} %",
    "ratio": lambda r: "" if r.ratio is None else f"{r.ratio:.3f}",
    "accuracy": lambda r: "" if r.accuracy is None else f"{100 * r.accuracy:.2f} %",
}
_SURROUNDINGS: _Columns = {
    "bytes": lambda r: f"{r.size:,}",
    "ran on": lambda r: r.delegate,
    "threads": lambda r: str(r.threads) if r.threads is not None else "",
    "memory": lambda r: _bytes(r.peak_memory),
    "arena": lambda r: _bytes(r.arena.get("total")),
    "equal": lambda r: "" if r.agreement is None else f"{100 * r.agreement.equal:.4g} %",
    "differs by": lambda r: _difference(r),
}
_LEFT = ("file", "target", "ran on", "status")
_OPERATIONS = 20


@dataclass(frozen=True)
class Table:
    """Results side by side; str() prints them, `csv` is for spreadsheets."""

    results: tuple[Result, ...]

    def __str__(self) -> str:
        ran = tuple(result for result in self.results if result.status == "ok")
        status: _Columns = {"status": lambda r: r.status} if len(ran) < len(self.results) else {}
        parts: list[Any] = [_side_by_side(self._title(), _WHO | _TIMES | status, self.results)]
        if ran:
            parts += [_side_by_side("What ran", _WHO | _SURROUNDINGS, ran)]
        counted = tuple(result for result in ran if result.counts)
        if counted:
            names = dict.fromkeys(name for result in counted for name in result.counts)
            columns = {name: partial(_count, name) for name in names}
            parts += [_side_by_side("Counts", _WHO | columns, counted)]
        parts += [part for result in self.results if (part := _operations(result)) is not None]
        text = rendering.render(*(line for part in parts for line in (part, "")))
        # Not wrapped: reasons hold commands that are there to be copied.
        return "\n".join([text, *self._notes()])

    def csv(self) -> str:
        """Comma-separated values: a heading and one line a result; what holds several values is JSON."""
        return csv_text(self.results)

    def _title(self) -> str:
        ran = sorted({f"{r.runtime} {r.version} on {r.device}" for r in self.results if r.runtime and r.version})
        return "\n".join(ran) or "Results"

    def _notes(self) -> list[str]:
        """Reasons of what did not run; warnings, each once with the files that it is about; an empty line before."""
        lines = [
            f"{result.name} on {result.target}: {result.status}: {result.reason}"
            for result in self.results
            if result.status != "ok"
        ]
        if any(result.estimate for result in self.results):
            names = ", ".join(result.target for result in self.results if result.estimate)
            lines.append(f"estimates of a compiler, nothing was run: {names}")
        about: dict[str, list[str]] = {}
        for result in self.results:
            for warning in result.warnings:
                about.setdefault(warning, []).append(result.name)
        for warning, files in about.items():
            where = ", ".join(files[:4]) + (f" and {len(files) - 4} more" if len(files) > 4 else "")
            lines.append(f"{where}: {warning}")
        # Names come from files and file systems: what would move the cursor is not printed.
        return ["", *("".join(c if c.isprintable() else "?" for c in line) for line in lines)] if lines else []


def table(results: Result | Iterable[Result]) -> Table:
    """Results as a table: columns that nobody has are left out, reasons and warnings stand below.

    >>> print(table([Result("a.tflite", "0" * 64, 10, "host", median=2.0)]))
    Results
    file      target   median
    a.tflite  host    2.00 ms
    <BLANKLINE>
    What ran
    file      target  bytes
    a.tflite  host       10
    """
    return Table((results,) if isinstance(results, Result) else tuple(results))


def csv_text(results: Iterable[Result]) -> str:
    """Comma-separated values of all fields, one line a result."""
    out = io.StringIO()
    names = [entry.name for entry in fields(Result)]
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    for result in results:
        record = json.loads(result.to_json())
        writer.writerow([_cell(record[name]) for name in names])
    return out.getvalue()


def _cell(value: Any) -> Any:
    if value is None or value == {} or value == []:
        return ""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else value


def _bytes(count: int | None) -> str:
    if count is None:
        return ""
    return f"{count:,} B" if count < 100_000 else f"{count / 1e6:.1f} MB"


def _difference(result: Result) -> str:
    agreement = result.agreement
    if agreement is None:
        return ""
    return f"{agreement.largest:.3g}" + (" steps" if agreement.unit == "steps" else "")


def _side_by_side(title: str, columns: _Columns, results: Sequence[Result]) -> Any:
    cells = {head: [cell(result) for result in results] for head, cell in columns.items()}
    kept = [head for head, column in cells.items() if any(column)]
    rows = list(zip(*(cells[head] for head in kept), strict=True))
    return rendering.table(title, kept, rows, right=[head for head in kept if head not in _LEFT])


def _count(name: str, result: Result) -> str:
    return f"{result.counts[name]:,.6g}" if name in result.counts else ""


def _operations(result: Result) -> Any:
    """The slowest operations of a profile."""
    if not result.operations:
        return None
    whole = sum(row.count for row in result.operations) or 1.0
    slowest: Sequence[Any] = sorted(result.operations, key=lambda row: -row.count)
    rows = [
        (
            row.kind,
            row.where,
            f"{row.count:,.4g} {row.unit}",
            f"{100 * row.count / whole:.1f} %",
            row.name.split(";")[0],
        )
        for row in slowest[:_OPERATIONS]
    ]
    left = len(slowest) - len(rows)
    title = f"{result.name}: operations by time" + (f", {left} shorter ones left out" if left > 0 else "")
    return rendering.table(title, ("operation", "where", "each", "share", "name"), rows, right=("each", "share"))
