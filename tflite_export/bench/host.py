"""Target "host": this machine, through LiteRT's interpreter or its CompiledModel."""

import contextlib
import importlib.util
import os
import platform
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from tflite_export.bench import litert
from tflite_export.bench.check import SECONDS, TIMES, checked, judged
from tflite_export.bench.inputs import Feeds, feeds
from tflite_export.bench.job import Job, Missing, Named
from tflite_export.bench.outcome import failed, outcome, unavailable
from tflite_export.bench.process import Process
from tflite_export.bench.result import OperationTime, Result
from tflite_export.bench.settings import positive
from tflite_export.bench.stats import noise, paired_ratio, summary
from tflite_export.errors import ExportError

NAME = "host"
SUMMARY = "this machine: LiteRT's interpreter (XNNPACK, builtin or reference kernels) or its CompiledModel"
ACCELERATORS = ("xnnpack", "builtin", "reference", "compiled-cpu", "compiled-gpu", "compiled-npu")
OPTIONS = {"timeout": "seconds that one step (opening a file, a round of inferences) may take; 120"}

# Rounds of inferences by turns: enough for a median of their ratios, few enough that one round warms the caches.
_ROUNDS = 10
_WARM_SECONDS = 0.25
# Before each round: the other files have had the caches meanwhile.
_AGAIN_SECONDS = 0.005
_PROFILE_RUNS = 20
_PLUGIN = Missing("an NPU that LiteRT has a plug-in for", "for Intel: pip install openvino==2026.3.1")
_DRIVER = Missing(
    "a GPU with a Vulkan driver", "sudo apt-get install mesa-vulkan-drivers libvulkan1, or the GPU vendor's"
)


@dataclass
class _Run:
    """What is known of one file while it is measured."""

    file: Named
    feeds: Feeds | None = None
    child: Process | None = None
    opened: Mapping[str, Any] = field(default_factory=dict)
    first: float | None = None
    turns: list[list[float]] = field(default_factory=list)
    peak: int | None = None
    outputs: Mapping[str, Any] | None = None
    error: str = ""
    lacks: Missing | None = None

    @property
    def alive(self) -> bool:
        return self.child is not None and not self.error


def missing(options: Mapping[str, Any]) -> list[Missing]:
    """What this machine lacks."""
    if importlib.util.find_spec("ai_edge_litert") is None:
        return [Missing("LiteRT", "pip install 'ai-edge-litert>=2.3,<3'")]
    return []


def run(job: Job) -> list[Result]:
    """Measures files by turns, each in a process of its own.

    Raises:
        ValueError: an option has a wrong value.
    """
    timeout = positive(job.options, "timeout", 120.0)
    runs = [_Run(file) for file in job.files]
    interrupted: KeyboardInterrupt | None = None
    with contextlib.ExitStack() as stack:
        try:
            for one in runs:
                job.progress(f"{one.file.name}: opening")
                _attempt(one, partial(_open, job=job, stack=stack, timeout=timeout))
            _rounds(runs, job)
            for one in runs:
                job.progress(f"{one.file.name}: outputs")
                _attempt(one, _finish)
        except KeyboardInterrupt as error:
            interrupted = error
    results = []
    for one in runs:
        result = _result(one, runs[0], job)
        if interrupted is None and result.status == "ok":
            job.progress(f"{one.file.name}: reference kernels")
            result = _checked(one, result, timeout)
            if job.profile:
                job.progress(f"{one.file.name}: profile")
                result = _profiled(one, result, job, timeout)
        elif interrupted is not None and not one.turns and result.status == "ok":
            continue
        job.finished(result)
        results.append(result)
    if interrupted is not None:
        raise interrupted
    return results


def device() -> str:
    """Name of the processor and the number of its cores."""
    name = ""
    with contextlib.suppress(OSError):
        found = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        name = found.group(1).strip() if found else ""
    return f"{name or platform.processor() or platform.machine()} ({os.cpu_count()} cores)"


def _attempt(one: _Run, step: Callable[[_Run], None]) -> None:
    """One step with one file; what goes wrong is its own."""
    if one.error or one.lacks:
        return
    try:
        step(one)
    except (ExportError, ValueError) as error:
        one.error = str(error)
        if one.child is not None:
            one.lacks = _lacking(one.child.log()) if not one.opened else None


def _open(one: _Run, job: Job, stack: contextlib.ExitStack, timeout: float) -> None:
    accelerator = job.accelerator or ACCELERATORS[0]
    one.feeds = feeds(one.file.content, job.samples).head(TIMES)
    one.child = stack.enter_context(Process(timeout=timeout))
    path = one.child.folder / "model.tflite"
    path.write_bytes(one.file.content)
    engine, kernels = (
        ("compiled", accelerator[9:]) if accelerator.startswith("compiled-") else ("interpreter", accelerator)
    )
    opened, _ = one.child.call(
        "open",
        one.feeds.arrays,
        engine=engine,
        path=str(path),
        kernels=kernels,
        threads=job.threads,
        times=one.feeds.times,
    )
    one.lacks = _lacking(one.child.log()) if kernels in ("gpu", "npu") else None
    if one.lacks is None:
        one.opened = opened
        one.first = float(one.child.call("time", runs=1)[1]["times"][0])
        one.child.call("time", runs=0, warm=_WARM_SECONDS)


def _lacking(log: str) -> Missing | None:
    """A device that was asked for and is not there: LiteRT says so in its log alone, and may go on without it."""
    if "No adapters found" in log:
        return _DRIVER
    return _PLUGIN if "No compiler plugin found" in log else None


def _rounds(runs: list[_Run], job: Job) -> None:
    """Times all files by turns."""
    rounds = min(_ROUNDS, job.runs)
    for number in range(rounds):
        count = job.runs // rounds + (number < job.runs % rounds)
        job.progress(f"timing, round {number + 1} of {rounds}")
        for one in runs:
            _attempt(one, partial(_turn, count=count))


def _turn(one: _Run, count: int) -> None:
    if one.child is not None:
        one.turns.append(one.child.call("time", runs=count, warm=_AGAIN_SECONDS)[1]["times"].tolist())


def _finish(one: _Run) -> None:
    if one.child is not None:
        one.peak = one.child.call("memory")[0]["peak"]
        one.outputs = one.child.call("outputs", seconds=SECONDS)[1]


def _result(one: _Run, first: _Run, job: Job) -> Result:
    accelerator = job.accelerator or ACCELERATORS[0]
    compiled = accelerator.startswith("compiled-")
    fields: dict[str, Any] = {
        "device": device(),
        "runtime": "LiteRT CompiledModel" if compiled else "LiteRT Interpreter",
        "threads": job.threads,
        "version": one.opened.get("version", ""),
    }
    if one.lacks is not None:
        return unavailable(one.file, NAME, [one.lacks], **fields)
    if one.error:
        return failed(one.file, NAME, one.error, **fields)
    times = [value for turn in one.turns for value in turn]
    if not times:
        return outcome(one.file, NAME, **fields)
    log = one.child.saved_log if one.child is not None else ""
    figures: dict[str, Any] = summary(times)
    warnings = noise(figures.get("spread"), _load())
    if len(times) < job.runs:
        warnings.append(f"interrupted after {len(times)} of {job.runs} inferences")
    if "adapterType=CPU" in log:
        warnings.append("a GPU in software: its times say nothing about a GPU")
    return outcome(
        one.file,
        NAME,
        **fields,
        **figures,
        delegate=_delegate(accelerator, one.opened, log),
        runs=len(times),
        init=one.opened["init"],
        first=one.first,
        peak_memory=one.peak,
        counts={"overhead (us)": round(1e3 * one.opened["overhead"], 3)},
        ratio=paired_ratio(one.turns, first.turns),
        warnings=tuple(warnings),
    )


def _load() -> dict[str, float] | None:
    if not hasattr(os, "getloadavg"):
        return None
    return {"load": os.getloadavg()[0], "cores": float(os.cpu_count() or 1)}


def _delegate(accelerator: str, opened: Mapping[str, Any], log: str) -> str:
    count = opened["operations"]
    if accelerator == "xnnpack":
        return f"XNNPACK ({opened['delegated']} of {count} operations)"
    if not accelerator.startswith("compiled-"):
        return f"none ({accelerator} kernels)"
    whole = f"all {count} operations" if opened["accelerated"] else f"some of {count} operations"
    if accelerator == "compiled-cpu":
        return f"XNNPACK ({whole})"
    if accelerator == "compiled-gpu":
        found = re.search(r"Selected adapter: (.+?), arch=", log)
        return f"WebGPU on {found.group(1) if found else 'an unnamed adapter'} ({whole})"
    found = re.search(r"selected (\d+) ops, from a total of (\d+)", log)
    return f"NPU ({f'{found.group(1)} of {found.group(2)} operations' if found else whole})"


def _checked(one: _Run, result: Result, timeout: float) -> Result:
    if one.feeds is None or one.outputs is None:
        return result
    return judged(result, checked(one.file.content, one.feeds, one.outputs, timeout=timeout))


def _profiled(one: _Run, result: Result, job: Job, timeout: float) -> Result:
    """The result with times of its operations, or with a warning that says why not."""
    accelerator = job.accelerator or ACCELERATORS[0]
    kernels = {"xnnpack": "xnnpack", "compiled-cpu": "xnnpack", "builtin": "builtin"}.get(accelerator)
    reason = litert.refusal() if kernels else f"no profile: LiteRT has none for {accelerator!r}"
    rows: list[Any] = []
    if not reason and one.feeds is not None:
        try:
            with Process(timeout=timeout) as child:
                path = child.folder / "model.tflite"
                path.write_bytes(one.file.content)
                child.call(
                    "open", one.feeds.arrays, engine="profile", path=str(path), kernels=kernels, threads=job.threads,
                    times=one.feeds.times,
                )  # fmt: skip
                rows = child.call("profile", runs=_PROFILE_RUNS)[0]["rows"]
        except ExportError as error:
            reason = f"no profile: {error}"
    warnings = (*result.warnings, *([reason] if reason else []))
    operations = tuple(OperationTime(kind, name, where, count) for kind, name, where, count in rows)
    return replace(result, operations=operations, warnings=warnings)
