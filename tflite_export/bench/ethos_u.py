"""Target "ethos-u": what the Vela compiler estimates for Arm's Ethos-U; nothing is run on a device."""

import importlib.util
from collections.abc import Mapping
from typing import Any

from tflite_export.bench.job import Job, Missing, Named
from tflite_export.bench.outcome import failed, outcome, unavailable
from tflite_export.bench.result import OperationTime, Result
from tflite_export.bench.vela import CONFIG, SYSTEMS, Compiled, OnCpu, compiled
from tflite_export.errors import ExportError

SUMMARY = "Arm Ethos-U NPUs: cycles and memory as the Vela compiler estimates them, operations left on the CPU"
ACCELERATORS = ("u55-128", *(name for name in SYSTEMS if name != "u55-128"))
OPTIONS: Mapping[str, str] = {
    "system": "Vela's system configuration, such as Ethos_U55_Deep_Embedded (default: the family's larger one)",
    "memory": "Vela's memory mode, such as Sram_Only (default: the family's usual one)",
    "config": f"Vela's configuration file (default: its own {CONFIG})",
}
# At most so many reasons, and operations named with each; `vela.compiled` has them all.
_REASONS, _NAMED = 12, 4
# Our count -> Vela's columns, which are added, and a factor. Vela counts memory in KiB.
_COUNTS: Mapping[str, tuple[tuple[str, ...], int]] = {
    "cycles": (("cycles_total",), 1),
    "cycles_npu": (("cycles_npu",), 1),
    "macs": (("nn_macs",), 1),
    "sram_bytes": (("sram_memory_used",), 1024),
    "off_chip_bytes": (("dram_memory_used", "off_chip_flash_memory_used"), 1024),
}


def missing(options: Mapping[str, Any]) -> list[Missing]:
    """Vela, when it is not installed."""
    if importlib.util.find_spec("ethosu") is None:
        return [Missing("the Vela compiler", "pip install 'tfcompress[ethos-u]'")]
    return []


def run(job: Job) -> list[Result]:
    """One estimate a file.

    The estimated time is that of the whole file only when the NPU takes all of it; otherwise the figures of the NPU's
    share are in `counts`, and no time is given.
    """
    accelerator = job.accelerator or ACCELERATORS[0]
    lacks = missing(job.options)
    results = []
    for file in job.files:
        job.progress(f"{file.name}: compiling for Ethos-{accelerator.upper()}")
        result = unavailable(file, "ethos-u", lacks) if lacks else _estimated(file, accelerator, job)
        job.finished(result)
        results.append(result)
    return results


def _estimated(file: Named, accelerator: str, job: Job) -> Result:
    device = f"Ethos-{accelerator.upper()} (estimated)"
    try:
        found = compiled(file.content, accelerator, layers=job.profile, **job.options)
    except (ExportError, ValueError) as error:
        return failed(file, "ethos-u", error, device=device, runtime="Vela", estimate=True)
    counts = {
        name: factor * sum(found.summary.get(column, 0.0) for column in columns)
        for name, (columns, factor) in _COUNTS.items()
    }
    counts |= {"operations": found.operations, "operations_on_cpu": len(found.on_cpu)}
    whole = not found.on_cpu and found.summary.get("cycles_total", 0) > 0
    milliseconds = 1e3 * found.summary["inference_time"] if whole else None
    taken = found.operations - len(found.on_cpu)
    npu = (layer for layer in found.layers if layer.where == "NPU")  # of the CPU's there are no cycles
    rows = [OperationTime(layer.kind, layer.name, layer.where, layer.cycles, "cycles") for layer in npu]
    return outcome(
        file,
        "ethos-u",
        device=device,
        runtime="Vela",
        version=found.version,
        delegate=f"Ethos-U ({taken} of {found.operations} operations)",
        estimate=True,
        median=milliseconds,
        throughput=1e3 / milliseconds if milliseconds else None,
        counts=counts,
        operations=tuple(rows),
        warnings=(_basis(found), *_left(found), *found.warnings),
    )


def _basis(found: Compiled) -> str:
    clock = found.summary.get("core_clock", 0) / 1e6
    return f"an estimate of Vela, no run: {found.system}, {found.memory}, {clock:.0f} MHz"


def _left(found: Compiled) -> list[str]:
    """What stays on the CPU, by reason: the first ones by name."""
    if not found.on_cpu:
        return []
    said = [f"{len(found.on_cpu)} of {found.operations} operations stay on the CPU, and their time is not estimated"]
    groups: dict[str, list[OnCpu]] = {}
    for one in found.on_cpu:
        groups.setdefault(one.reason, []).append(one)
    for reason, ones in list(groups.items())[:_REASONS]:
        named = ", ".join(f"{one.kind} {one.name!r}" for one in ones[:_NAMED])
        more = f" and {len(ones) - _NAMED} more" if len(ones) > _NAMED else ""
        said.append(f"on the CPU: {named}{more}: {reason}")
    if len(groups) > _REASONS:
        said.append(f"on the CPU for {len(groups) - _REASONS} further reasons")
    return said
