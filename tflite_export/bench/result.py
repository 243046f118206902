"""One measurement of one file, the same for every target."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

VERSION = 1
STATUSES = ("ok", "failed", "unavailable")


@dataclass(frozen=True)
class OperationTime:
    """One operation of a profile.

    Attributes:
        kind: as the runtime names it, such as "CONV_2D" or "Convolution (NHWC, QC8) IGEMM".
        name: of its output tensor, where the runtime tells it; else "".
        where: what computed it: "XNNPACK", "builtin", "reference", "GPU", "NPU", "CPU".
        count: of what `unit` says, in one inference.
        unit: "ms", "cycles" or "instructions".
    """

    kind: str
    name: str
    where: str
    count: float
    unit: str = "ms"


@dataclass(frozen=True)
class Agreement:
    """Outputs beside those of the reference kernels, on the same inputs.

    Attributes:
        against: the kernel set compared to, such as "reference".
        values: compared elements.
        equal: share of them that are equal, 0 to 1.
        largest: largest difference, in output steps of an integer output, in real units of a float one.
        unit: "steps" or "real".
    """

    against: str
    values: int
    equal: float
    largest: float
    unit: str


@dataclass(frozen=True)
class Result:
    """A measurement. Times are milliseconds, memory is bytes; None is what the target cannot tell.

    Attributes:
        name: of the file.
        sha256: of its bytes.
        size: of the file, bytes.
        target: such as "host".
        status: "ok"; "failed" (the file does not run there); "unavailable" (the target is not there).
        reason: why not; "" when it ran.
        device: such as the processor's or the phone's name.
        runtime: such as "LiteRT Interpreter".
        version: of the runtime.
        delegate: what did the work, such as "XNNPACK (12 of 12 operations)".
        threads: of the runtime.
        estimate: a compiler's model of the device, nothing was run on one.
        runs: timed inferences.
        init: opening the file until the first inference can start.
        first: the first inference.
        median, p90, p99, min: of one inference.
        spread: distance of the quartiles over the median.
        throughput: inferences a second, from the median.
        peak_memory: of the process, above what it had before the file was opened.
        arena: part -> bytes of a microcontroller's arena: total, head, tail.
        counts: further figures of the target: name with unit -> number, such as "cycles_npu".
        operations: the profile; empty when none was asked for.
        agreement: check of the outputs; None when they cannot be read.
        accuracy: share of right decisions, 0 to 1, when labels were given.
        ratio: median over that of the first file of the same run, paired by turns.
        warnings: what the reader of the numbers should know.
        schema: version of this record.
    """

    name: str
    sha256: str
    size: int
    target: str
    status: str = "ok"
    reason: str = ""
    device: str = ""
    runtime: str = ""
    version: str = ""
    delegate: str = ""
    threads: int | None = None
    estimate: bool = False
    runs: int = 0
    init: float | None = None
    first: float | None = None
    median: float | None = None
    p90: float | None = None
    p99: float | None = None
    min: float | None = None
    spread: float | None = None
    throughput: float | None = None
    peak_memory: int | None = None
    arena: Mapping[str, int] = field(default_factory=dict)
    counts: Mapping[str, float] = field(default_factory=dict)
    operations: tuple[OperationTime, ...] = ()
    agreement: Agreement | None = None
    accuracy: float | None = None
    ratio: float | None = None
    warnings: tuple[str, ...] = ()
    schema: int = VERSION

    def to_json(self) -> str:
        """One line of JSON; numbers that JSON does not know (infinite, not a number) are refused."""
        return json.dumps(asdict(self), allow_nan=False, ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> "Result":
        """The result that `to_json` wrote.

        Raises:
            ValueError: not JSON, not a result, or of a later version.
        """
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"not a line of JSON: {error}") from error
        if not isinstance(record, dict) or not {"name", "sha256", "size", "target"} <= record.keys():
            raise ValueError(f"not a benchmark result: {line[:80]!r}")
        if record.get("schema", 0) > VERSION:
            raise ValueError(f"a result of schema {record['schema']}; this version reads up to {VERSION}")
        known = {entry.name for entry in fields(cls)}
        values: dict[str, Any] = {name: value for name, value in record.items() if name in known}
        values["operations"] = tuple(OperationTime(**row) for row in values.get("operations", ()))
        values["warnings"] = tuple(values.get("warnings", ()))
        if values.get("agreement"):
            values["agreement"] = Agreement(**values["agreement"])
        return cls(**values)


def lines(results: Iterable[Result]) -> str:
    """JSON lines: one result a line."""
    return "".join(result.to_json() + "\n" for result in results)
