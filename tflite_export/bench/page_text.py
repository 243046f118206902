"""Numbers of the page of results as text."""

_KIB, _MIB = 1 << 10, 1 << 20
_PERCENT = "\N{NO-BREAK SPACE}%"


def size_text(size: float) -> str:
    """Bytes for people.

    >>> size_text(512), size_text(15392), size_text(4 << 20)
    ('512 B', '15.0 KiB', '4.00 MiB')
    """
    if size < _KIB:
        return f"{size:.0f} B"
    number, unit = (size / _KIB, "KiB") if size < _MIB else (size / _MIB, "MiB")
    return f"{number:.{2 if number < 10 else 1 if number < 100 else 0}f} {unit}"


def share_text(share: float) -> str:
    """A share that is not whole is never rounded to a whole one.

    >>> share_text(1), share_text(0.99999), share_text(0.9123)
    ('100\\xa0%', '99.999\\xa0%', '91.23\\xa0%')
    """
    if share in (0, 1) or f"{100 * share:.2f}" in ("100.00", "0.00"):
        return f"{100 * share:.6g}{_PERCENT}"
    return percent_text(share, 2)


def percent_text(share: float, digits: int = 1) -> str:
    """A share as percent, which stays on one line."""
    return f"{100 * share:.{digits}f}{_PERCENT}"


def number_text(value: float) -> str:
    """
    >>> number_text(27497.0), number_text(0.25)
    ('27,497', '0.25')
    """
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.4g}"


def several(count: int, noun: str) -> str:
    """
    >>> several(1, "file"), several(2, "file")
    ('1 file', '2 files')
    """
    return f"{count} {noun}" + ("" if count == 1 else "s")


def ratio_text(ratio: float | None) -> str:
    """A factor, such as of a median over that of the first file; empty for None."""
    return "" if ratio is None else f"\u00d7{ratio:.2f}"
