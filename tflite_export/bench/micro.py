"""Target "tflm": does a file run on a microcontroller, how much memory does it take, and are its integers the same?

The interpreter is tflite-micro's own, built for this machine: its answers hold for a device, its times do not and are
not taken. Pointers are 64 bits wide here, so the arena is a safe upper bound: a 32-bit device needs some percent less.
"""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from tflite_export.bench.arena import INSTALL, Arena, is_measurable, measure_arena
from tflite_export.bench.check import SECONDS, TIMES, checked, judged
from tflite_export.bench.inputs import Feeds, feeds
from tflite_export.bench.job import Job, Missing, Named
from tflite_export.bench.outcome import failed, outcome
from tflite_export.bench.process import Process
from tflite_export.bench.result import Result
from tflite_export.bench.settings import positive
from tflite_export.errors import ExportError
from tflite_export.flatbuffer import read
from tflite_export.graph import Subgraph

NAME = "tflm"
SUMMARY = "tflite-micro's interpreter on this machine: arena bytes and outputs, no times"
ACCELERATORS: tuple[str, ...] = ()
OPTIONS = {"timeout": "seconds that one step (measuring the arena, the outputs) may take; 120"}

# Above the measured arena, so that a start address that is aligned otherwise does not matter.
_SLACK = 1024
_DOUBLE_ROUNDING = (
    "tflite-micro rounds twice in integer FULLY_CONNECTED, LiteRT's reference kernels once: some outputs differ by one "
    "step there and behind it, on every device"
)
_HOST_KERNELS = (
    "the arena is that of 64-bit pointers and reference kernels: an upper bound for a 32-bit device without CMSIS-NN"
)


def missing(options: Mapping[str, Any]) -> list[Missing]:
    """What this machine lacks."""
    return [] if is_measurable() else [Missing("the tflite-micro interpreter", INSTALL)]


def run(job: Job) -> list[Result]:
    """One result a file; each step runs in a process of its own.

    Raises:
        ValueError: an option has a wrong value.
    """
    timeout = positive(job.options, "timeout", 120.0)
    results = []
    for file in job.files:
        result = _measured(file, job, timeout)
        job.finished(result)
        results.append(result)
    return results


def _measured(file: Named, job: Job, timeout: float) -> Result:
    graph = read(file.content).subgraphs[0]
    kinds = [operator.kind for operator in graph.operators]
    fields: dict[str, Any] = {
        "device": "a model of a microcontroller on this machine",
        "runtime": "tflite-micro interpreter",
        "version": version("tflite-micro"),
        "delegate": "none (reference kernels)",
        "counts": {"operations": len(kinds), "kinds of operations": len(set(kinds))},
    }
    try:
        job.progress(f"{file.name}: arena")
        arena = measure_arena(file.content, timeout=timeout)
        job.progress(f"{file.name}: outputs")
        given = feeds(file.content, job.samples).head(TIMES)
        outputs = _outputs(file, given, arena, timeout)
    except (ExportError, ValueError) as error:
        return failed(file, NAME, error, **fields)
    warnings = [_HOST_KERNELS]
    if job.profile:
        warnings.append("no profile: the interpreter has none; target cortex-m counts the instructions of operations")
    result = outcome(
        file,
        NAME,
        **fields,
        arena={"total": arena.total, "head": arena.head, "tail": arena.tail},
        runs=min((len(values) for values in outputs.values()), default=0),
        warnings=tuple(warnings),
    )
    check = checked(file.content, given, outputs, timeout=timeout)
    return judged(result, check, known=_DOUBLE_ROUNDING if _rounds_twice(graph) else "")


def _outputs(file: Named, given: Feeds, arena: Arena, timeout: float) -> dict[str, Any]:
    with Process(timeout=timeout) as child:
        path = child.folder / "model.tflite"
        path.write_bytes(file.content)
        child.call("open", given.arrays, engine="tflm", path=str(path), arena=arena.total + _SLACK, times=given.times)
        return child.call("outputs", seconds=SECONDS)[1]


def _rounds_twice(graph: Subgraph) -> bool:
    return any(
        operator.kind == "FULLY_CONNECTED" and operator.outputs and graph.tensors[operator.outputs[0]].type == "INT8"
        for operator in graph.operators
    )
