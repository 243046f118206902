"""Target "arm64": what LiteRT's ARM64 kernels compute, under QEMU; an emulator says nothing about their time."""

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tflite_export.bench.arm64_root import cpuinfo, is_whole
from tflite_export.bench.cache import cache_folder
from tflite_export.bench.check import checked, compared, judged, run_outputs
from tflite_export.bench.inputs import feeds
from tflite_export.bench.job import Job, Missing, Named
from tflite_export.bench.outcome import failed, outcome
from tflite_export.bench.process import Process
from tflite_export.bench.result import Result
from tflite_export.bench.settings import positive
from tflite_export.errors import ExportError
from tflite_export.files import write_whole

SUMMARY = "ARM64 kernels of LiteRT under QEMU: what they compute, never how fast"
ACCELERATORS = ("cortex-a76", "cortex-a53")
OPTIONS: Mapping[str, str] = {
    "root": "folder prepared by `python -m tflite_export.bench.arm64_root` (default: arm64 in the user's cache folder)",
    "kernels": "xnnpack (default), builtin or reference",
    "timeout": "seconds that opening a file, or its inferences, may take; 600",
}
_EMULATORS = ("qemu-aarch64-static", "qemu-aarch64")
# Emulated inferences are 50 to 150 times slower: as many as fit into these seconds, one at least.
_TIMES, _SECONDS = 8, 30.0


def root_folder(options: Mapping[str, Any]) -> Path:
    """The folder with the emulated system."""
    return Path(options["root"]).resolve() if options.get("root") else cache_folder("arm64")


def missing(options: Mapping[str, Any]) -> list[Missing]:
    """The emulator, and the system that it runs."""
    found = []
    if _emulator() is None:
        found.append(Missing("QEMU's emulator of ARM64 programs", "sudo apt-get install qemu-user-static"))
    if not is_whole(folder := root_folder(options)):
        found.append(
            Missing(f"an ARM64 Python with LiteRT in {folder}", f"python -m tflite_export.bench.arm64_root {folder}")
        )
    return found


def run(job: Job) -> list[Result]:
    """Compares each file's outputs with the reference kernels', and with those of this machine's XNNPACK.

    Raises:
        ValueError: an option has a wrong value.
    """
    timeout = positive(job.options, "timeout", 600.0)
    kernels = str(job.options.get("kernels", "xnnpack"))
    if kernels not in ("xnnpack", "builtin", "reference"):
        raise ValueError(f"`kernels` must be xnnpack, builtin or reference. Received: kernels={kernels!r}")
    processor, folder = job.accelerator or ACCELERATORS[0], root_folder(job.options)
    fields: dict[str, Any] = {
        "device": f"{processor.title()}, emulated by QEMU {_version()}",
        "runtime": "LiteRT Interpreter (aarch64)",
        "threads": job.threads,
        "warnings": ("an emulation: what the kernels compute, no times",),
    }
    command = worker_command(folder, processor)
    results = []
    for file in job.files:
        job.progress(f"{file.name}: running under QEMU")
        try:
            result = _compared(file, job, command, kernels, timeout, fields)
        except (ExportError, ValueError) as error:
            result = failed(file, "arm64", error, **fields)
        job.finished(result)
        results.append(result)
    return results


def worker_command(folder: Path, processor: str) -> list[str]:
    """The command of a worker in the emulated Python; writes the /proc/cpuinfo that it sees.

    Args:
        folder: prepared by `arm64_root`.
        processor: a key of `PROCESSORS`.
    """
    root = folder / "root"
    shown = root / "proc" / "cpuinfo"
    shown.parent.mkdir(exist_ok=True)
    text = cpuinfo(processor)
    if not shown.is_file() or shown.read_text() != text:
        write_whole(shown, text.encode())
    package = Path(__file__).resolve().parent.parent.parent
    variables = {"PYTHONHOME": str(root / "usr"), "PYTHONPATH": os.pathsep.join([str(folder / "site"), str(package)])}
    settings = [word for name, value in variables.items() for word in ("-E", f"{name}={value}")]
    python = (folder / "python").read_text(encoding="utf-8").strip()
    emulated = [str(_emulator()), "-L", str(root), "-cpu", processor, *settings, str(root / "usr" / "bin" / python)]
    return [*emulated, "-m", "tflite_export.bench.worker"]


def _compared(
    file: Named, job: Job, command: list[str], kernels: str, timeout: float, fields: Mapping[str, Any]
) -> Result:
    given = feeds(file.content, job.samples, times=_TIMES).head(_TIMES)
    with Process(timeout=timeout, command=command) as child:
        path = child.folder / "model.tflite"
        path.write_bytes(file.content)
        opened, _ = child.call(
            "open", given.arrays, engine="interpreter", path=str(path), kernels=kernels, threads=job.threads,
            times=given.times,
        )  # fmt: skip
        _, outputs = child.call("outputs", seconds=_SECONDS)
    taken = f"{opened['delegated']} of {opened['operations']} operations"
    delegate = f"XNNPACK ({taken})" if kernels == "xnnpack" else kernels
    result = outcome(file, "arm64", version=opened["version"], delegate=delegate, **fields)
    job.progress(f"{file.name}: reference kernels")
    result = judged(result, checked(file.content, given, outputs))
    with contextlib.suppress(ExportError):  # that this machine's kernels do not run it is not the emulated ones' fault
        times = min(len(values) for values in outputs.values())
        native = run_outputs(file.content, given.head(times), kernels=kernels, timeout=timeout)
        result = _beside(result, compared(file.content, native, outputs).agreement, kernels)
    return result


def _beside(result: Result, agreement: Any, kernels: str) -> Result:
    """The result with the comparison to the same kernel set of this machine."""
    if agreement is None:
        return result
    counts = {**result.counts, "equal_to_this_machine": agreement.equal}
    counts[f"largest_from_this_machine_{agreement.unit}"] = agreement.largest
    said = f"beside {kernels} kernels of this machine: {100 * agreement.equal:.2f} % of the outputs equal"
    unit = " steps" if agreement.unit == "steps" else ""
    said += f", the largest difference {agreement.largest:g}{unit}" if agreement.equal < 1 else ""
    return replace(result, counts=counts, warnings=(*result.warnings, said))


def _emulator() -> str | None:
    return next((path for name in _EMULATORS if (path := shutil.which(name))), None)


def _version() -> str:
    done = subprocess.run([str(_emulator()), "--version"], capture_output=True, check=False, text=True)
    match = re.search(r"version (\d+\.\d+)", done.stdout)
    return match[1] if match else ""
