"""An audit as tables."""

from typing import TYPE_CHECKING, Any

from tflite_export.auditing.rules import REFUSED, RUNS, VERDICTS
from tflite_export.rendering import amount, render, table

if TYPE_CHECKING:
    from tflite_export.auditing.verdict import Audit, Row


def listing(audit: "Audit") -> str:
    """Text of the tables: the verdict, totals, what is true of the file, and every operation."""
    parts = [_head(audit), _totals(audit), _findings(audit), _operations(audit)]
    return render(*(line for part in parts if part is not None for line in (part, "")))


def _head(audit: "Audit") -> str:
    if not audit.runs:
        verdict = "does not run"
    elif audit.fully_accelerated:
        verdict = "runs, every operation of it"
    else:
        verdict = f"runs, {audit.operations[RUNS]} of {len(audit.rows)} operations on {audit.title}"
    lines = [f"{audit.name} on {audit.target}: {verdict}", f"says {audit.source}"]
    if audit.install:
        lines.append(f"a tool would know better: {audit.install}")
    return "\n".join(lines)


def _totals(audit: "Audit") -> Any:
    rows = [
        (verdict, audit.operations[verdict], amount(audit.macs[verdict]))
        for verdict in VERDICTS
        if audit.operations[verdict]
    ]
    return table("Totals", ("verdict", "operations", "MACs"), rows, right=("operations", "MACs")) if rows else None


def _findings(audit: "Audit") -> Any:
    rows = [("does not run" if f.stops else "", f.text, f.way_out) for f in audit.findings]
    return table("The file", ("", "what", "way out"), rows) if rows else None


def _operations(audit: "Audit") -> Any:
    one = len({row.subgraph for row in audit.rows}) <= 1
    rows = [
        (
            row.index if one else f"{row.subgraph}.{row.index}",
            row.kind,
            _short(row),
            row.verdict.upper() if row.verdict == REFUSED else row.verdict,
            amount(row.macs),
            row.reason,
            row.way_out,
        )
        for row in audit.rows
    ]
    columns = ("", "operation", "layer", "verdict", "MACs", "why not better", "way out")
    return table("Operations", columns, rows, right=("MACs",)) if rows else None


def _short(row: "Row", width: int = 40) -> str:
    """The first of the names that the converter joined with ";", its end where it is long."""
    first = row.name.split(";")[0]
    return first if len(first) <= width else "..." + first[3 - width :]
