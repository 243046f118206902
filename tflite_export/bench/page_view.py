"""What the page of results shows, as plain values: the template lays it out and calculates nothing."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tflite_export.bench.page_charts import COLORS, Chart, Scatter, delegate, latency, memory, profile, scatter
from tflite_export.bench.page_text import number_text, percent_text, ratio_text, several, share_text, size_text
from tflite_export.bench.result import Agreement, Result
from tflite_export.bench.stats import spoken

# Kernels that round elsewhere differ by some steps of an integer output; garbage differs by many.
_ROUNDING_STEPS = 3


@dataclass(frozen=True)
class Cell:
    """What a file did on a target: the figure, what stands below it, and "good", "bad" or ""."""

    text: str
    detail: str = ""
    state: str = ""


@dataclass(frozen=True)
class View:
    """The whole page.

    Attributes:
        title: of the page.
        summary: one sentence.
        tiles: (heading, figure, what it is of).
        targets: columns of `matrix`.
        matrix: (colour, file, size, one cell a target), one a file.
        scatter: None when no accuracy is known.
        latency, memory, operations: charts.
        agreement: (file, target, share text, share in percent, difference, state).
        counts: (file, target, name, value).
        problems: (file, target, what, "bad" or "note").
        rows: the table of all figures, texts in the order of `columns`.
    """

    title: str
    summary: str
    tiles: tuple[tuple[str, str, str], ...]
    targets: tuple[str, ...]
    matrix: tuple[tuple[str, str, str, tuple[Cell, ...]], ...]
    scatter: Scatter | None
    latency: tuple[Chart, ...]
    memory: tuple[Chart, ...]
    operations: tuple[Chart, ...]
    agreement: tuple[tuple[str, str, str, float, str, str], ...]
    counts: tuple[tuple[str, str, str, str], ...]
    problems: tuple[tuple[str, str, str, str], ...]
    columns: tuple[str, ...] = field(default=())
    rows: tuple[tuple[str, ...], ...] = field(default=())


def view(results: Sequence[Result], title: str) -> View:
    """Everything that the page shows of results, in their order."""
    results = _told_apart(results)
    names = list(dict.fromkeys(result.name for result in results))
    colors = {name: f"c{number % COLORS}" for number, name in enumerate(names)}
    targets = tuple(dict.fromkeys(result.target for result in results))
    ran = [result for result in results if result.status == "ok"]
    return View(
        title=title,
        summary=_summary(results, len(names), len(targets)),
        tiles=tuple(_tiles(ran, names)),
        targets=targets,
        matrix=tuple(_matrix(results, names, targets, colors)),
        scatter=scatter(ran, colors),
        latency=tuple(latency(ran, colors)),
        memory=tuple(memory(ran, names, colors)),
        operations=tuple(profile(result) for result in ran if result.operations),
        agreement=tuple(
            (r.name, r.target, share_text(r.agreement.equal), 100 * r.agreement.equal, *_difference(r.agreement))
            for r in ran
            if r.agreement is not None
        ),
        counts=tuple((r.name, r.target, key, number_text(value)) for r in ran for key, value in r.counts.items()),
        problems=tuple(_problems(results)),
        **_table(results),
    )


def _told_apart(results: Sequence[Result]) -> list[Result]:
    """Results whose `target` also names what differs, where one target measured a file twice or on two devices."""
    told = []
    for result in results:
        peers = [peer for peer in results if peer.target == result.target]
        repeated = len({peer.name for peer in peers}) < len(peers)
        added = []
        if len({peer.device for peer in peers if peer.device}) > 1:  # what did not run may not know its device
            added.append(result.device)
        if repeated:
            for one in (lambda r: r.runtime, delegate, lambda r: several(r.threads or 1, "thread")):
                if len({one(peer) for peer in peers}) > 1:
                    added.append(one(result))
        told.append(replace(result, target=" · ".join([result.target, *filter(None, added)])))
    return told


def _summary(results: Sequence[Result], files: int, targets: int) -> str:
    failed = sum(result.status != "ok" for result in results)
    parts = [several(files, "file"), several(targets, "target"), several(len(results), "measurement")]
    return f"{parts[0]} on {parts[1]}: {parts[2]}, " + (f"{failed} without a figure" if failed else "all of them ran")


def _tiles(ran: Sequence[Result], names: Sequence[str]) -> Iterable[tuple[str, str, str]]:
    """What one would ask first: the smallest, the most accurate, the fastest of each target."""
    if len(names) < 2 or not ran:
        return
    small = min(ran, key=lambda r: r.size)
    yield "Smallest file", size_text(small.size), small.name
    judged = [result for result in ran if result.accuracy is not None]
    if judged:
        best = max(judged, key=lambda r: r.accuracy or 0.0)
        yield "Most accurate", share_text(best.accuracy or 0.0), best.name
    for target in dict.fromkeys(result.target for result in ran):
        timed = [result for result in ran if result.target == target and result.median is not None]
        if len({result.name for result in timed}) > 1:
            fast = min(timed, key=lambda r: r.median or 0.0)
            yield f"Fastest on {target}", spoken(fast.median), fast.name


def _matrix(
    results: Sequence[Result], names: Sequence[str], targets: Sequence[str], colors: Mapping[str, str]
) -> Iterable[tuple[str, str, str, tuple[Cell, ...]]]:
    for name in names:
        own = [result for result in results if result.name == name]
        cells = []
        for target in targets:
            here = [result for result in own if result.target == target]
            cells.append(_cell(here[-1]) if here else Cell("\N{EN DASH}"))
        yield colors[name], name, size_text(own[0].size), tuple(cells)


def _cell(result: Result) -> Cell:
    if result.status != "ok":
        return Cell(result.status, "", "bad" if result.status == "failed" else "")
    state = _difference(result.agreement)[1] if result.agreement is not None else ""
    arena = f"{size_text(result.arena['total'])} arena" if "total" in result.arena else ""
    if result.median is not None:
        detail = ", ".join(filter(None, ("estimate" if result.estimate else "", ratio_text(result.ratio), arena)))
        return Cell(spoken(result.median), detail, state)
    if arena:
        return Cell(size_text(result.arena["total"]), "arena", state)
    for key, value in result.counts.items():
        return Cell(number_text(value), key, state)
    return Cell("ran", "", state)


def _difference(agreement: Agreement) -> tuple[str, str]:
    """(largest difference in words, "good" or "bad")."""
    if agreement.equal == 1:
        return "bit-equal", "good"
    if agreement.unit == "steps":
        steps = f"{agreement.largest:g} step" + ("" if agreement.largest == 1 else "s")
        return f"differs by up to {steps}", "good" if agreement.largest <= _ROUNDING_STEPS else "bad"
    return f"differs by up to {agreement.largest:.3g}", "good" if agreement.largest <= 1e-3 else "bad"


def _problems(results: Sequence[Result]) -> Iterable[tuple[str, str, str, str]]:
    for result in results:
        if result.status != "ok":
            yield result.name, result.target, result.reason or result.status, "bad"
    about: dict[tuple[str, str], list[str]] = {}
    for result in results:
        for warning in result.warnings:
            about.setdefault((result.target, warning), []).append(result.name)
    for (target, warning), names in about.items():
        yield ", ".join(dict.fromkeys(names)), target, warning, "note"


def _table(results: Sequence[Result]) -> dict[str, tuple]:
    """Every figure as text; columns that nobody has are left out."""
    columns = {
        "file": [r.name for r in results],
        "target": [r.target for r in results],
        "status": [r.status for r in results],
        "device": [r.device for r in results],
        "runtime": [f"{r.runtime} {r.version}".strip() for r in results],
        "delegate": [r.delegate for r in results],
        "threads": ["" if r.threads is None else str(r.threads) for r in results],
        "runs": [str(r.runs or "") for r in results],
        **{
            key: [spoken(getattr(r, key)) if getattr(r, key) is not None else "" for r in results]
            for key in ("init", "first", "median", "p90", "p99", "min")
        },
        "spread": ["" if r.spread is None else percent_text(r.spread) for r in results],
        "inferences/s": ["" if r.throughput is None else number_text(r.throughput) for r in results],
        "ratio": ["" if r.ratio is None else f"{r.ratio:.3f}" for r in results],
        "accuracy": ["" if r.accuracy is None else share_text(r.accuracy) for r in results],
        "bytes": [f"{r.size:,}" for r in results],
        "peak memory": ["" if r.peak_memory is None else f"{r.peak_memory:,}" for r in results],
        "SHA-256": [r.sha256[:12] for r in results],
    }
    kept = {key: texts for key, texts in columns.items() if any(texts)}
    return {"columns": tuple(kept), "rows": tuple(zip(*kept.values(), strict=True))}
