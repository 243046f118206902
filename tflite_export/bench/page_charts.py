"""Charts of the page of results: lengths and places in percent, texts ready to be shown."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tflite_export.bench.page_text import number_text, percent_text, ratio_text, several, share_text, size_text
from tflite_export.bench.result import OperationTime, Result
from tflite_export.bench.stats import spoken

COLORS = 8
_OPERATIONS = 14
_KIB, _MIB = 1 << 10, 1 << 20


@dataclass(frozen=True)
class Bar:
    """One bar of a chart, lengths in percent of the chart's width.

    Attributes:
        label: what is measured; `detail` stands behind it in grey.
        value: as text.
        parts: (length, colour number or class, what the part is), from the left.
        line: (from, to) of the whisker; None without one.
        tick: place of a further mark; None without one.
        estimate: drawn hatched.
    """

    label: str
    value: str
    parts: tuple[tuple[float, str, str], ...]
    detail: str = ""
    line: tuple[float, float] | None = None
    tick: float | None = None
    estimate: bool = False


@dataclass(frozen=True)
class Chart:
    """Bars on one scale.

    Attributes:
        title: of the chart.
        detail: what all bars share, such as device and runtime.
        bars: from the top.
        legend: (colour, meaning); empty when the labels say it.
        estimate: whether no device ran.
    """

    title: str
    detail: str
    bars: tuple[Bar, ...]
    legend: tuple[tuple[str, str], ...] = ()
    estimate: bool = False


@dataclass(frozen=True)
class Point:
    """A file in the chart of accuracy over size: place in percent from the left and from the top.

    `aside` counts the earlier points that it would cover: it is drawn beside them.
    """

    number: int
    x: float
    y: float
    aside: int
    color: str
    name: str
    size: str
    accuracy: str


@dataclass(frozen=True)
class Scatter:
    """Accuracy over size; ticks are (place in percent, text)."""

    points: tuple[Point, ...]
    across: tuple[tuple[float, str], ...]
    up: tuple[tuple[float, str], ...]
    logarithmic: bool


def scatter(ran: Sequence[Result], colors: Mapping[str, str]) -> Scatter | None:
    """One point for each file and accuracy: targets that agree share theirs."""
    judged: dict[tuple[str, int, float], list[str]] = {}
    for result in ran:
        if result.accuracy is not None:
            judged.setdefault((result.name, result.size, round(result.accuracy, 4)), []).append(result.target)
    if not judged:
        return None
    sizes, shares = [key[1] for key in judged], [key[2] for key in judged]
    logarithmic = max(sizes) > 8 * min(sizes) > 0
    low, high = (min(sizes) / 1.5, max(sizes) * 1.5) if logarithmic else (0.0, max(sizes) * 1.1 or 1.0)
    margin = max((max(shares) - min(shares)) * 0.15, 0.005)
    bottom, top = max(0.0, min(shares) - margin), min(1.0, max(shares) + margin)

    def across(size: float) -> float:
        if logarithmic:
            return 100 * math.log(size / low) / math.log(high / low)
        return 100 * (size - low) / (high - low)

    def up(share: float) -> float:
        return 100 * (top - share) / (top - bottom)

    several_of = Counter(name for name, _, _ in judged)
    points: list[Point] = []
    for number, ((name, size, share), where) in enumerate(judged.items(), 1):
        label = f"{name} ({', '.join(where)})" if several_of[name] > 1 else name
        x, y = across(size), up(share)
        aside = sum(abs(x - other.x) < 2 and abs(y - other.y) < 6 for other in points)
        points.append(Point(number, x, y, aside, colors[name], label, size_text(size), share_text(share)))
    ticks = [size for size in _size_ticks(low, high, logarithmic) if low <= size <= high]
    step = _step((top - bottom) / 6)
    shown = [step * n for n in range(math.ceil(bottom / step), math.floor(top / step) + 1)]
    return Scatter(
        tuple(points),
        tuple((across(size), size_text(size)) for size in ticks),
        tuple((up(share), f"{100 * share:g} %") for share in (round(value, 6) for value in shown)),
        logarithmic,
    )


def _size_ticks(low: float, high: float, logarithmic: bool) -> list[float]:
    unit = _KIB if high < 4 * _MIB else _MIB
    if not logarithmic:
        step = _step((high - low) / unit / 4) * unit
        return [step * n for n in range(1, int(high / step) + 1)]
    decades = range(math.floor(math.log10(low / unit)), math.ceil(math.log10(high / unit)) + 1)
    ticks = [unit * factor * 10.0**decade for decade in decades for factor in (1, 2, 5)]
    inside = [tick for tick in ticks if low <= tick <= high]
    return inside if len(inside) <= 6 else [tick for tick in inside if str(tick / unit).lstrip("0.").startswith("1")]


def _step(least: float) -> float:
    """The next of 1, 2, 5 times a power of ten.

    >>> [_step(value) for value in (0.3, 1.0, 12)]
    [0.5, 1.0, 20.0]
    """
    power = 10.0 ** math.floor(math.log10(least)) if least > 0 else 1.0
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def latency(ran: Sequence[Result], colors: Mapping[str, str]) -> Iterable[Chart]:
    """One chart for each target and device, since a reader compares bars of a chart."""
    groups: dict[tuple[str, str, str, bool], list[Result]] = {}
    for result in ran:
        if result.median is not None:
            what = f"{result.runtime} {result.version}".strip()
            groups.setdefault((result.target, result.device, what, result.estimate), []).append(result)
    for (target, device, what, estimate), members in groups.items():
        longest = max(_furthest(result) for result in members) or 1.0
        # What all have in common stands once, above the bars.
        shared = [one for one in (_delegate_text, _threads) if len(members) > 1 and len({one(r) for r in members}) == 1]
        differing = [one for one in (_delegate_text, _threads) if one not in shared]
        bars = tuple(_latency_bar(r, 100 / longest, colors[r.name], [one(r) for one in differing]) for r in members)
        detail = [device, what, *(one(members[0]) for one in shared)]
        yield Chart(target, " · ".join(filter(None, detail)), bars, (), estimate)


def delegate(result: Result) -> str:
    """What did the work, without how many operations it took."""
    return result.delegate.partition(" (")[0]


def _delegate_text(result: Result) -> str:
    return result.delegate


def _threads(result: Result) -> str:
    return several(result.threads, "thread") if result.threads else ""


def _furthest(result: Result) -> float:
    return max(value for value in (result.median, result.p90, result.p99, result.min) if value is not None)


def _latency_bar(result: Result, scale: float, color: str, details: Sequence[str]) -> Bar:
    median = result.median or 0.0
    spread = f"spread {percent_text(result.spread, 0)}" if result.spread is not None else ""
    return Bar(
        label=result.name,
        detail=", ".join(filter(None, (ratio_text(result.ratio), spread, *details))),
        value=spoken(median),
        parts=((scale * median, color, "median"),),
        line=(scale * (result.min if result.min is not None else median), scale * (result.p90 or median))
        if result.min is not None or result.p90 is not None
        else None,
        tick=scale * result.p99 if result.p99 is not None else None,
        estimate=result.estimate,
    )


def memory(ran: Sequence[Result], names: Sequence[str], colors: Mapping[str, str]) -> Iterable[Chart]:
    """Sizes of the files, peaks of processes a target, arenas a target."""
    sizes = {name: next((r.size for r in ran if r.name == name), None) for name in names}
    known = [(name, size) for name, size in sizes.items() if size is not None]
    if known:
        most = max(size for _, size in known) or 1
        bars = [Bar(name, size_text(size), ((100 * size / most, colors[name], "file"),)) for name, size in known]
        yield Chart("File size", "what the app or the flash carries", tuple(bars))
    for target in dict.fromkeys(result.target for result in ran):
        peaks = [result for result in ran if result.target == target and result.peak_memory is not None]
        if peaks:
            most = max(r.peak_memory or 0 for r in peaks) or 1
            bars = [
                Bar(r.name, size_text(peak), ((100 * peak / most, colors[r.name], "peak"),))
                for r in peaks
                for peak in [r.peak_memory or 0]
            ]
            yield Chart(f"Peak memory on {target}", "of the process, above what it had before", tuple(bars))
        arenas = [result for result in ran if result.target == target and "total" in result.arena]
        if arenas:
            most = max(r.arena["total"] for r in arenas) or 1
            yield Chart(
                f"Arena on {target}",
                "one array for everything that the interpreter keeps",
                tuple(_arena_bar(result, 100 / most) for result in arenas),
                (("c0", "values (head)"), ("c1", "structures (tail)"), ("grey", "other")),
            )


def _arena_bar(result: Result, scale: float) -> Bar:
    head, tail, total = (result.arena.get(part, 0) for part in ("head", "tail", "total"))
    parts = [(scale * head, "c0", f"values {size_text(head)}"), (scale * tail, "c1", f"structures {size_text(tail)}")]
    rest = total - head - tail
    parts.append((scale * max(rest, 0), "grey", f"other {size_text(max(rest, 0))}"))
    return Bar(result.name, size_text(total), tuple(part for part in parts if part[0] > 0))


def profile(result: Result) -> Chart:
    """The longest operations, in the order of size; the others as one bar."""
    ordered = sorted(result.operations, key=lambda op: op.count, reverse=True)
    total = sum(op.count for op in ordered) or 1.0
    shown, rest = ordered[:_OPERATIONS], ordered[_OPERATIONS:]
    places = list(dict.fromkeys(op.where or "unknown" for op in ordered))
    colors = {place: f"c{number}" if number < COLORS else "grey" for number, place in enumerate(places)}
    longest = max([*(op.count for op in shown), sum(op.count for op in rest)]) or 1.0
    bars = [
        Bar(op.kind, _counted(op), ((100 * op.count / longest, colors[op.where or "unknown"], op.where),),
            ", ".join(filter(None, (op.name, percent_text(op.count / total)))))
        for op in shown
    ]  # fmt: skip
    if rest:
        amount = OperationTime("", "", "", sum(op.count for op in rest), rest[0].unit)
        share = percent_text(amount.count / total)
        part = (100 * amount.count / longest, "grey", "others")
        bars.append(Bar(f"{len(rest)} more", _counted(amount), (part,), share))
    kinds = Counter(op.where or "unknown" for op in ordered)
    legend = tuple((colors[place], f"{place}: {several(kinds[place], 'operation')}") for place in places)
    return Chart(f"{result.name} on {result.target}", result.delegate, tuple(bars), legend, result.estimate)


def _counted(op: OperationTime) -> str:
    return spoken(op.count) if op.unit == "ms" else f"{number_text(op.count)} {op.unit}"
