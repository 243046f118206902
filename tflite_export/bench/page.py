"""Results as one HTML page that needs nothing else: no script, no font, no network."""

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from tflite_export.bench.page_view import view
from tflite_export.bench.result import STATUSES, Agreement, OperationTime, Result
from tflite_export.files import write_whole

_TEMPLATES = Path(__file__).with_name("templates")
_Path = str | os.PathLike[str]


def report(results: Result | _Path | Iterable[Result | _Path], out: _Path, *, title: str = "Benchmark report") -> Path:
    """Writes results as a page: accuracy over size, latency with spread, memory, operations, agreement, all figures.

    The page is one file. It follows the reader's dark or light setting, fits a phone, and runs no script; texts of the
    results are shown as they are, whatever they hold.

    Args:
        results: results, paths of files with JSON lines (`tflite_export.bench.result.lines`), or a mixture.
        out: the target, usually ending in `.html`; its folder must exist. An existing file is replaced.
        title: of the page.

    Returns:
        The path that was written.

    Raises:
        ValueError: no results; a line that is none, the message names file and line; or a field that holds another
            type.
        OSError: a path cannot be read.
        ImportError: Jinja is not installed.
        ExportError: the target cannot be written.

    >>> report(results, "devices.html")                                         # doctest: +SKIP
    PosixPath('devices.html')
    """
    found = _collected(results)
    if not found:
        raise ValueError("`results` must hold at least one result")
    for result in found:
        _check(result)
    return write_whole(out, _page(found, str(title)).encode("utf-8", "replace"))


def _page(results: list[Result], title: str) -> str:
    try:
        import jinja2
    except ModuleNotFoundError as error:
        raise ImportError("a page of results needs Jinja: pip install 'tfcompress[report]'") from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.jinja").render(view=view(results, title))


def _collected(results: Any) -> list[Result]:
    if isinstance(results, (Result, str, os.PathLike)):
        results = [results]
    found: list[Result] = []
    for entry in results:
        if isinstance(entry, Result):
            found.append(entry)
        elif isinstance(entry, (str, os.PathLike)):
            found += _lines_of(Path(entry))
        else:
            raise ValueError(f"`results` must hold results or paths of JSON lines. Received: {type(entry).__name__}")
    return found


def _lines_of(path: Path) -> list[Result]:
    found = []
    for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
        if line.strip():
            try:
                found.append(Result.from_json(line))
            except (ValueError, TypeError) as error:
                raise ValueError(f"{path}, line {number}: {error}") from error
    return found


_TEXTS = ("name", "sha256", "target", "status", "reason", "device", "runtime", "version", "delegate")
_WHOLE = ("size", "threads", "runs", "peak_memory")
_REAL = ("init", "first", "median", "p90", "p99", "min", "spread", "throughput", "accuracy", "ratio")


def _check(result: Result) -> None:
    """Fields of a line of JSON may hold anything; charts need numbers.

    Raises:
        ValueError: a field holds another type than `Result` says, or a number that is not finite or below 0.
    """
    for name in _TEXTS:
        _expect(name, getattr(result, name), isinstance(getattr(result, name), str))
    _expect("status", result.status, result.status in STATUSES)
    for name in (*_WHOLE, *_REAL):
        value = getattr(result, name)
        _expect(name, value, value is None or _is_number(value))
    _expect("size", result.size, result.size is not None)
    for name in ("arena", "counts"):
        table = getattr(result, name)
        fits = isinstance(table, Mapping) and all(isinstance(k, str) and _is_number(v) for k, v in table.items())
        _expect(name, table, fits)
    for operation in result.operations:
        texts = (operation.kind, operation.name, operation.where, operation.unit)
        fits = isinstance(operation, OperationTime) and all(isinstance(text, str) for text in texts)
        _expect("operations", operation, fits and _is_number(operation.count))
    agreement = result.agreement
    if agreement is not None:
        numbers = (agreement.values, agreement.equal, agreement.largest) if isinstance(agreement, Agreement) else ("",)
        _expect("agreement", agreement, all(map(_is_number, numbers)) and isinstance(agreement.unit, str))
    _expect("warnings", result.warnings, all(isinstance(text, str) for text in result.warnings))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _expect(name: str, value: Any, fits: bool) -> None:
    if not fits:
        kinds = {entry.name: entry.type for entry in fields(Result)}
        expected = f"{kinds[name]}, numbers finite and from 0"
        raise ValueError(f"`{name}` of a result must be {expected}. Received: {repr(value)[:120]}")
