"""Rows as text: every object that prints as a table renders through here."""

import io
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

WIDTH = 140
_LONGEST = 400


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], right: Sequence[str] = ()) -> Group:
    """A rich table of plain values.

    Args:
        title: printed above, left-aligned.
        columns: the headings.
        rows: one sequence of len(columns) values per row; str() of each is printed, cut after 400 characters.
        right: headings of the columns that are aligned to the right (numbers).

    Returns:
        The title and the table, to be given to `render`.
    """
    result = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        result.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        # Names of tensors hold brackets, which rich would read as markup: cells are printed as they are.
        result.add_row(*(Text(_cut(str(cell))) for cell in row))
    return Group(Text(title), result)


def render(*parts: Any, width: int = WIDTH) -> str:
    """Text of rich renderables (or strings) one below the other, without colours.

    >>> print(render(table("Sizes", ("name", "bytes"), [("a", 10), ("b", 2)], right=("bytes",)), width=40))
    Sizes
    name  bytes
    a        10
    b         2
    """
    console = Console(file=io.StringIO(), width=width, color_system=None, markup=False, highlight=False)
    console.print(Group(*parts))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.splitlines()).rstrip("\n")


def _cut(cell: str) -> str:
    """A cell of a readable length: a damaged file can hold a name of a megabyte."""
    return cell if len(cell) <= _LONGEST else cell[: _LONGEST - 3] + "..."


def amount(number: float) -> str:
    """A count for people: thousands separated, or `-` when there is none.

    >>> amount(1234567), amount(0)
    ('1,234,567', '-')
    """
    return f"{number:,}" if number else "-"
