"""What `benchmark_model` prints, as figures: TFLite's classic tool, old and new, and LiteRT 2's tool of that name.

TFLite's, times in microseconds, each line behind a prefix such as "INFO: " or logcat's:

    Initialized session in 1.234ms.
    count=9 first=4098 curr=1690 min=1650 max=4098 avg=1800.5 std=700        warm-up
    count=50 first=1700 curr=1690 min=1650 max=1800 avg=1687.9 std=30        the timed runs
    p5=1655 median=1685 p95=1750                                             new builds, there or behind std=
    Inference timings in us: Init: 1234, First inference: 4098, Warmup (avg): 1800.5, Inference (avg): 1687.92
    Average inference timings in us: Warmup: 83235, Init: 38467, Inference: 79760.9                     before 2020

LiteRT's prints the lines with `count=` too, and then milliseconds such as "Inference (avg):      85.23 ms (50 runs)".

A profile is a table between "=== Run Order ===" and the next blank line, as CSV or in columns between tabs; some
versions have a column `start`, so that columns are found by their headings.

Source: `tools/benchmark` and `profiling` of TensorFlow Lite and LiteRT, `tensorflow/core/util/stats_calculator.cc`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from tflite_export.bench.result import OperationTime
from tflite_export.errors import ExportError

# logcat: date, time, process, thread, level, tag; then the tool's own level; then a source line of LiteRT's logger.
_PREFIX = re.compile(
    r"^(?:\d\d-\d\d \d\d:\d\d:\d\d\.\d+ +\d+ +\d+ [VDIWEF] [^:]*: ?)?"
    r"(?:(?:VERBOSE|INFO|WARNING|WARN|ERROR|FATAL): )?(?:\[[\w./]+:\d+\] )?"
)
_FIGURE = re.compile(r"(\w+)=(-?[\d.]+(?:e[+-]?\d+)?)")
_LITERT = {
    "Model initialization": "init",
    "Warmup (first)": "first",
    "First inference": "first",
    "Inference (avg)": "average",
    "Inference (min)": "min",
    "Inference (max)": "max",
    "Inference (median)": "median",
    "Inference (std)": "std",
    "Inference (p5)": "p5",
    "Inference (p95)": "p95",
}
_LITERT_LINE = re.compile(r"^([A-Z][\w ]*(?:\(\w+\))?): +(-?[\d.]+)(?: ms)?(?: \((\d+) runs\))?$")
_MEGABYTE = 2**20
_PEAKS = (
    re.compile(r"peak memory footprint \(MB\) via periodic monitoring: ([\d.]+)"),
    re.compile(r"^Peak memory: +([\d.]+) MB"),
    re.compile(r"memory footprint (?:delta from the start of the tool )?\(MB\): init=[\d.]+ overall=([\d.]+)", re.I),
    re.compile(r"^Overall footprint: +([\d.]+) MB"),
)
_DELEGATE = re.compile(
    r"(?:Explicitly applied|Though) (?P<name>\w+) delegate(?: is explicitly applied)?, and the model graph will be "
    r"(?P<how>completely|partially)|Though (?P<unused>\w+) delegate is explicitly applied"
)
_REPLACED = re.compile(r"Replacing (\d+) out of (\d+) node\(s\) with delegate \((\w+)\)")
_BLAME = re.compile(
    r"\b(?:ERROR|FATAL|Failed|failed|Didn't find|not supported|cannot|CANNOT|Disallowed)\b|: (?:not found|error)"
)
_VAGUE = re.compile(r"^(?:Benchmarking failed\.?|Aborted|Segmentation fault.*)$")
# Exit statuses of a shell: 128 and the signal's number.
_SIGNALS = {
    132: "SIGILL: the binary holds instructions that this processor lacks",
    134: "SIGABRT",
    135: "SIGBUS",
    136: "SIGFPE",
    137: "SIGKILL: the phone ran out of memory, or the process was ended",
    139: "SIGSEGV",
}
_NAMES = {"nnapi": "NNAPI", "gpu": "GPU", "hexagon": "Hexagon", "xnn": "XNNPACK", "npu": "NPU", "dispatch": "NPU"}


@dataclass(frozen=True)
class Measured:
    """One run of the tool. Times are milliseconds of one inference; None is what this version does not print.

    Attributes:
        runs: timed inferences.
        average: always there.
        init, first, median, min, max, std, p5, p95: as the tool prints them.
        peak_memory: bytes, above what the tool had before it opened the file.
        delegate: such as "XNNPACK (12 of 12 operations)"; "" when the tool says nothing.
        unused: a delegate that was asked for and took no operation; "" when there is none.
        ignored: flags that this version of the tool does not know.
    """

    runs: int
    average: float
    init: float | None = None
    first: float | None = None
    median: float | None = None
    min: float | None = None
    max: float | None = None
    std: float | None = None
    p5: float | None = None
    p95: float | None = None
    peak_memory: int | None = None
    delegate: str = ""
    unused: str = ""
    ignored: tuple[str, ...] = field(default=())


def measured(text: str, code: int = 0) -> Measured:
    """Reads the output of one run.

    Args:
        text: standard output and standard error, or logcat.
        code: the exit status.

    Raises:
        ExportError: the tool failed, or timed nothing; the message holds its reason.

    >>> found = measured("Initialized session in 1.5ms.\\ncount=2 first=9 curr=9 min=9 max=11 avg=10 std=1")
    >>> found.runs, found.init, found.average
    (2, 1.5, 0.01)
    """
    lines = [_PREFIX.sub("", line.rstrip()) for line in text.splitlines()]
    figures = _classic(lines) | _litert(lines)
    if code or not figures.get("runs") or "average" not in figures:
        raise ExportError(failure(text, code))
    runs = int(figures.pop("runs"))
    delegate, unused = _delegate(lines)
    ignored = [line.partition(": ")[2].split() for line in lines if line.startswith("Unconsumed cmdline flags")]
    return Measured(
        runs,
        **figures,
        peak_memory=_peak(lines),
        delegate=delegate,
        unused=unused,
        ignored=tuple(flag for flags in ignored for flag in flags),
    )


def failure(text: str, code: int) -> str:
    """Why a run failed, in the tool's own words: its last lines that blame something, and the signal that ended it."""
    kept = [line.strip() for line in text.splitlines() if line.strip()]
    blaming = [_PREFIX.sub("", line) for line in kept if _BLAME.search(line)]
    reasons = [line for line in blaming if not _VAGUE.match(line)] or blaming or kept[-2:]
    told = " | ".join(dict.fromkeys(reasons[-3:]))
    ended = _SIGNALS.get(code, f"exit status {code}" if code else "")
    if not told:
        told = "it timed no inference" if not code else "it said nothing"
    return f"benchmark_model failed: {told}" + (f" ({ended})" if ended else "")


def operations(text: str) -> tuple[OperationTime, ...]:
    """The per-operation profile of the timed runs, in the order of execution.

    The row of a delegate's node gives way to the rows of the operations inside, where the delegate tells them.

    Args:
        text: the file of `--op_profiling_output_file`, or the tool's output.

    Returns:
        Milliseconds of one inference for each operation; empty when there is no profile.
    """
    outside: list[OperationTime] = []
    inside: list[OperationTime] = []
    for delegated, row in _rows(text):
        kind = row["node type"]
        delegated = delegated or kind.startswith("Delegate/")
        called = max(1.0, _number(row.get("times called", "1")))
        average = _number(row.get("avg_ms", row.get("avg ms", "0"))) * called
        name = re.sub(r":\d+$", "", row.get("name", "").replace("\t", ",")).strip("[]")
        kind = kind.removeprefix("Delegate/")
        name = "" if name.removeprefix("Delegate/") in (kind, "", "Delegate") else name
        (inside if delegated else outside).append(OperationTime(kind, name, _where(kind), average))
    if inside:
        owner = next((one.where for one in outside if one.where != "builtin"), "XNNPACK")
        outside = [one for one in outside if one.where == "builtin"]
        inside = [OperationTime(one.kind, one.name, owner, one.count) for one in inside]
    return tuple(inside + outside)


def _classic(lines: list[str]) -> dict[str, float]:
    """Figures of the lines with `count=`: the last is that of the timed runs, the first that of the warm-up."""
    found: list[dict[str, float]] = []
    head: dict[str, float] = {}
    for line in lines:
        if line.startswith("count="):
            # "count=50 curr=79449(all same)" and "count=1 curr=79449": every other figure is that one.
            values = {name: float(value) for name, value in _FIGURE.findall(line)}
            if "avg" not in values and "curr" in values:
                values |= dict.fromkeys(("first", "min", "max", "avg", "median"), values["curr"]) | {"std": 0.0}
            found.append(values)
        elif line.startswith("p5=") and found:
            found[-1] |= {name: float(value) for name, value in _FIGURE.findall(line)}
        elif "nference timings in us:" in line:
            told = re.findall(r"(Init|First inference): ([\d.e+]+)", line)
            head = {name: float(value) for name, value in told}
        elif (session := re.match(r"Initialized session in ([\d.]+) ?ms", line)) is not None:
            head.setdefault("Init", 1e3 * float(session.group(1)))
    figures = {}
    names = {"avg": "average", "median": "median", "min": "min", "max": "max", "std": "std", "p5": "p5", "p95": "p95"}
    if found:
        last = found[-1]
        figures = {name: last[key] / 1e3 for key, name in names.items() if key in last}
        figures["runs"] = last["count"]
        if "first" in found[0]:
            figures["first"] = found[0]["first"] / 1e3
    if "Init" in head:
        figures["init"] = head["Init"] / 1e3
    if "First inference" in head:
        figures["first"] = head["First inference"] / 1e3
    return figures


def _litert(lines: list[str]) -> dict[str, float]:
    """Figures of LiteRT's closing table; it rounds to 0.01 ms, so those of `count=` lines win where both are."""
    figures: dict[str, float] = {}
    for line in lines:
        match = _LITERT_LINE.match(line.strip())
        if match is not None and match.group(1) in _LITERT:
            name, value, runs = match.groups()
            figures.setdefault(_LITERT[name], float(value))
            if name == "Inference (avg)" and runs is not None:
                figures["runs"] = float(runs)
    return figures | _classic(lines)


def _peak(lines: list[str]) -> int | None:
    for pattern in _PEAKS:
        for line in lines:
            match = pattern.search(line.strip())
            if match is not None:
                return int(float(match.group(1)) * _MEGABYTE)
    return None


def _delegate(lines: list[str]) -> tuple[str, str]:
    """What took operations, with how many where the tool tells; and what was asked for in vain."""
    taken, unused, how = "", "", ""
    replaced: dict[str, tuple[int, int]] = {}
    for line in lines:
        match = _REPLACED.search(line)
        if match is not None:
            owner = _where(match.group(3))
            replaced[owner] = (replaced.get(owner, (0, 0))[0] + int(match.group(1)), int(match.group(2)))
        match = _DELEGATE.search(line)
        if match is not None and match["name"]:
            taken, how = _where(match["name"] + "Delegate"), "all operations"
            if match["how"] == "partially":
                how = "some operations"
        elif match is not None and "will not be" in line:
            unused = match["unused"]
    parts = [f"{owner} ({count} of {total} operations)" for owner, (count, total) in replaced.items()]
    return ", ".join(parts) or (f"{taken} ({how})" if taken else ""), unused


def _rows(text: str) -> Iterator[tuple[bool, dict[str, str]]]:
    """(inside a delegate, column -> value) of each row in run order; those of the initialization are left out."""
    columns: list[str] | None = None
    initializing, delegated, expecting = False, False, False
    for line in text.splitlines():
        line = _PREFIX.sub("", line.rstrip("\r\n"))
        if "Profiling Info for Benchmark Initialization" in line:
            initializing = True
        elif "Profiling Info for Regular Benchmark Runs" in line:
            initializing, delegated = False, False
        elif line.startswith("Delegate internal"):
            delegated = True
        elif line.startswith("===="):
            columns, expecting = None, "Run Order" in line and not initializing
        elif expecting:
            columns, expecting = _cells(line), False
            columns = [column.strip("[]").lower() for column in columns]
        elif not line.strip():
            columns = None
        elif columns is not None:
            cells = _cells(line, len(columns))
            if len(cells) == len(columns):
                yield delegated, dict(zip(columns, cells, strict=True))


def _cells(line: str, expected: int = 0) -> list[str]:
    """Cells between tabs, or between commas; a kind such as "Convolution (NHWC, F32) GEMM" holds commas itself."""
    if line.startswith("\t"):
        return [cell.strip() for cell in line[1:].split("\t")]
    cells = [cell.strip() for cell in line.split(", ")]
    if expected and len(cells) > expected:
        # The first column from the left whose rest are numbers begins behind the kind.
        begin = next((i for i, cell in enumerate(cells) if re.fullmatch(r"-?[\d.]+(?:e[+-]?\d+)?", cell)), 1)
        behind = cells[begin : begin + expected - 2]
        cells = [", ".join(cells[:begin]), *behind, ", ".join(cells[begin + expected - 2 :])]
    return cells


def _where(kind: str) -> str:
    """What computed an operation of this kind, or bears this name of a delegate."""
    low = kind.lower()
    if "delegate" not in low and "dispatch" not in low:
        return "builtin"
    return next((name for part, name in _NAMES.items() if part in low), kind.removesuffix("Delegate"))


def _number(text: str) -> float:
    try:
        return float(text.rstrip("%"))
    except ValueError:
        return 0.0
