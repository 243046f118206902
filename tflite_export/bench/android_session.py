"""A job of `benchmark_model` on a phone: files are checked one after the other, then timed by turns."""

import contextlib
import logging
import math
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from tflite_export.bench.adb import Adb, AdbError
from tflite_export.bench.android_state import Phone, State, remarks, state_of
from tflite_export.bench.android_tool import Bench, Exchange, Tool, exchange
from tflite_export.bench.benchmark_model import Measured, measured, operations
from tflite_export.bench.check import checked, judged
from tflite_export.bench.inputs import feeds
from tflite_export.bench.job import Job, Missing, Named
from tflite_export.bench.outcome import failed, outcome, unavailable
from tflite_export.bench.raw import outputs_of
from tflite_export.bench.result import OperationTime, Result
from tflite_export.bench.settings import positive
from tflite_export.bench.stats import paired_ratio
from tflite_export.errors import ExportError

# Several files are timed by turns; one needs no more than one.
_TURNS = 5
_PROFILED = 10
_log = logging.getLogger(__name__)


@dataclass
class _Timed:
    """What is known of one file so far.

    Attributes:
        result: "failed" or "unavailable", once it is.
        turns: what each timed call of the tool told.
    """

    file: Named
    number: int
    exchange: Exchange | None = None
    result: Result | None = None
    peak_memory: int | None = None
    operations: tuple[OperationTime, ...] = ()
    outputs: bytes = b""
    turns: list[Measured] = field(default_factory=list)


class ToolSession:
    """One job of `benchmark_model`: a folder on the phone is made, used and deleted."""

    def __init__(self, job: Job, phone: Adb, about: Phone, before: State, tool: Tool) -> None:
        """Nothing is done on the phone before `run`."""
        self._job, self._phone, self._about, self._tool = job, phone, about, tool
        self._before = self._after = before
        self._accelerator = job.accelerator or "xnnpack"
        self._timeout = positive(job.options, "timeout", 300.0)
        folder = f"/data/local/tmp/tflite_export_{uuid.uuid4().hex[:12]}"
        self._bench = Bench(phone, tool, folder, self._timeout)
        self._files = [_Timed(file, number) for number, file in enumerate(job.files)]

    def run(self) -> list[Result]:
        """Measures the files of the job; one result a file, in order."""
        try:
            accelerate = self._tool.accelerate(self._accelerator)
        except ValueError as error:
            return [failed(timed.file, "android", error, **self._common()) for timed in self._files]
        try:
            try:
                self._measure([*accelerate, f"--num_threads={self._job.threads}"])
            finally:
                left = self._bench.remove()
                if left:
                    _log.warning(left)
        except KeyboardInterrupt:
            for timed in self._running():
                if timed.turns:
                    self._job.finished(self._finish(timed))
            raise
        return [self._finish(timed) for timed in self._files]

    def _measure(self, flags: list[str]) -> None:
        try:
            self._bench.prepare()
        except AdbError as error:
            for timed in self._files:
                self._fail(timed, error)
        for timed in self._running():
            self._job.progress(f"{timed.file.name}: checked on {self._about.name}")
            with self._blaming(timed):
                self._look(timed, flags)
        turns = _TURNS if len(self._running()) > 1 else 1
        runs = math.ceil(self._job.runs / turns)
        for turn in range(turns):
            for timed in self._running():
                self._job.progress(f"{timed.file.name}: turn {turn + 1} of {turns}")
                with self._blaming(timed):
                    timed.turns.append(self._call(timed, [*flags, f"--num_runs={runs}", "--min_secs=0"])[0])
                    if turn == turns - 1:
                        self._job.finished(self._finish(timed))

    def _running(self) -> list[_Timed]:
        return [timed for timed in self._files if timed.result is None]

    @contextlib.contextmanager
    def _blaming(self, timed: _Timed) -> Iterator[None]:
        """Makes a failure the file's result; a phone that is gone is that of every file."""
        try:
            yield
        except ExportError as error:
            self._fail(timed, error)
            if isinstance(error, AdbError) and error.gone:
                for other in self._running():
                    self._fail(other, error)

    def _fail(self, timed: _Timed, error: ExportError) -> None:
        if isinstance(error, AdbError) and error.gone:
            timed.result = unavailable(timed.file, "android", [Missing("the phone", str(error))], **self._common())
        else:
            timed.result = failed(timed.file, "android", error, **self._common())
        self._job.finished(timed.result)

    def _look(self, timed: _Timed, flags: list[str]) -> None:
        """One call before the timed ones, for all that would disturb them: outputs, memory and the profile."""
        given = feeds(timed.file.content, self._job.samples, times=1)
        timed.exchange = exchange(timed.file.content, given, self._tool, timed.number)
        self._bench.push(timed.file.content, f"model{timed.number}.tflite")
        for name, content in timed.exchange.files.items():
            self._bench.push(content, name)
        flags = [*flags, f"--num_runs={_PROFILED if self._job.profile else 1}", "--min_secs=0", "--warmup_min_secs=0"]
        flags += ["--report_peak_memory_footprint=true"] if self._tool.knows("report_peak_memory_footprint") else []
        flags += [f"--output_filepath=outputs{timed.number}"] if timed.exchange.outputs else []
        in_file = self._tool.knows("op_profiling_output_mode")
        if self._job.profile and self._tool.is_litert:
            flags.append("--use_profiler=true")
        elif self._job.profile:
            flags.append("--enable_op_profiling=true")
            flags += ["--op_profiling_output_mode=csv", "--op_profiling_output_file=profile"] if in_file else []
        told, text = self._call(timed, flags)
        timed.peak_memory = told.peak_memory
        if timed.exchange.outputs:
            timed.outputs = self._bench.pull(f"outputs{timed.number}")
        if self._job.profile:
            in_file = in_file and not self._tool.is_litert
            timed.operations = operations(self._bench.pull("profile").decode("utf-8", "replace") if in_file else text)

    def _call(self, timed: _Timed, flags: list[str]) -> tuple[Measured, str]:
        exchanged = timed.exchange.flags if timed.exchange is not None else ()
        code, text = self._bench.call([f"--graph=model{timed.number}.tflite", *flags, *exchanged])
        return measured(text, code), text

    def _common(self) -> dict[str, Any]:
        return {
            "device": self._about.name,
            "runtime": f"{'LiteRT' if self._tool.is_litert else 'TFLite'} benchmark_model",
            "threads": self._job.threads,
        }

    def _finish(self, timed: _Timed) -> Result:
        """The file's result; its outputs are compared here."""
        if timed.result is not None:
            return timed.result
        first = next((other.turns for other in self._files if other.number == 0), [])
        with contextlib.suppress(AdbError):
            self._after = state_of(self._phone)
        merged = _merged(timed.turns)
        typical = merged.median if merged.median is not None else merged.average
        counts = {"average_ms": merged.average, "std_ms": merged.std, "p5_ms": merged.p5, "p95_ms": merged.p95}
        ratio = paired_ratio([[_typical(t)] for t in timed.turns], [[_typical(t)] for t in first])
        result = outcome(
            timed.file,
            "android",
            delegate=merged.delegate or self._accelerator,
            runs=merged.runs,
            init=merged.init,
            first=merged.first,
            median=typical,
            min=merged.min,
            throughput=1e3 / typical if typical else None,
            peak_memory=timed.peak_memory,
            counts={name: value for name, value in counts.items() if value is not None},
            operations=timed.operations,
            ratio=ratio if len(self._files) > 1 else None,
            warnings=tuple(self._warnings(timed, merged)),
            **self._common(),
        )
        timed.result = self._with_outputs(timed, result)
        return timed.result

    def _warnings(self, timed: _Timed, merged: Measured) -> list[str]:
        notes = remarks(self._before, self._after)
        if merged.median is None:
            notes.append("this benchmark_model prints no median: it is the average that stands there")
        if merged.runs < self._job.runs:
            notes.append(f"only {merged.runs} of {self._job.runs} inferences were timed")
        if merged.unused:
            notes.append(f"{merged.unused} took no operation: these are times of the CPU")
        if merged.ignored:
            notes.append(f"this benchmark_model does not know {' '.join(merged.ignored)}")
        if timed.exchange is not None and timed.exchange.reason:
            notes.append(timed.exchange.reason)
        if self._job.profile and not timed.operations:
            notes.append("this benchmark_model printed no profile")
        return notes

    def _with_outputs(self, timed: _Timed, result: Result) -> Result:
        given = timed.exchange
        if given is None or given.feeds is None or not given.outputs:
            return result
        outputs = outputs_of(timed.file.content, given.read_outputs(timed.outputs))
        if outputs is None:
            note = f"the outputs were not checked: {len(timed.outputs)} bytes do not fit their shapes"
            return replace(result, warnings=(*result.warnings, note))
        return judged(result, checked(timed.file.content, given.feeds, outputs))


def _typical(turn: Measured) -> float:
    return turn.median if turn.median is not None else turn.average


def _merged(turns: list[Measured]) -> Measured:
    """One record of several calls of the tool: all runs, the median call's figures, the least minimum."""

    def middle(name: str) -> float | None:
        values = sorted(value for turn in turns if (value := getattr(turn, name)) is not None)
        half = len(values) // 2
        return None if not values else values[half] if len(values) % 2 else (values[half - 1] + values[half]) / 2

    runs = sum(turn.runs for turn in turns)
    average = sum(turn.average * turn.runs for turn in turns) / runs
    least = min((turn.min for turn in turns if turn.min is not None), default=None)
    figures: dict[str, Any] = {name: middle(name) for name in ("init", "median", "std", "p5", "p95")}
    return replace(turns[0], runs=runs, average=average, min=least, **figures)
