"""Target "cortex-m": tflite-micro on an emulated Cortex-M, instructions counted one by one.

The emulator's clock advances by a fixed time an instruction, so its timer counts instructions: the same number at each
run. Instructions are not cycles: what a memory or a branch costs, a real processor alone knows.
"""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tflite_export.bench.check import checked, judged
from tflite_export.bench.inputs import Feeds, feeds
from tflite_export.bench.job import Job, Missing, Named
from tflite_export.bench.outcome import failed, outcome
from tflite_export.bench.result import OperationTime, Result
from tflite_export.bench.settings import positive
from tflite_export.bench.tflm_library import CXX, Toolchain, compile_flags, compile_one, library, missing_sources
from tflite_export.errors import ExportError
from tflite_export.flatbuffer import read
from tflite_export.microcontroller import firmware

BOARD = Path(__file__).resolve().parent / "board"
SUMMARY = "Cortex-M under QEMU: instructions and arena of tflite-micro, built from a checkout of yours"


@dataclass(frozen=True)
class Processor:
    """A processor and the emulated board that has it."""

    flags: tuple[str, ...]
    machine: str
    script: str
    arena: int


_HARD = "-mfloat-abi=hard"
PROCESSORS: Mapping[str, Processor] = {
    "cortex-m4": Processor(("-mcpu=cortex-m4", _HARD, "-mfpu=fpv4-sp-d16"), "mps2-an386", "mps2.ld", 8 << 20),
    "cortex-m3": Processor(("-mcpu=cortex-m3", "-mfloat-abi=soft"), "mps2-an385", "mps2.ld", 8 << 20),
    "cortex-m7": Processor(("-mcpu=cortex-m7", _HARD, "-mfpu=fpv5-d16"), "mps2-an500", "an500.ld", 8 << 20),
    "cortex-m55": Processor(("-mcpu=cortex-m55", _HARD), "mps3-an547", "an547.ld", 32 << 20),
}
ACCELERATORS = tuple(PROCESSORS)
OPTIONS: Mapping[str, str] = {
    "tflm": "a checkout of tflite-micro with what its own Makefile downloads",
    "kernels": "cmsis-nn (default) or reference",
    "timeout": "seconds that the emulation may take; 600",
}
_PREFIX = "arm-none-eabi-"
_FEEDS = 3
# Virtual nanoseconds an instruction are 2 to this power: 8, a fifth of a tick of the boards' 25 MHz timer.
_SHIFT = 3


def missing(options: Mapping[str, Any]) -> list[Missing]:
    """The compiler, the emulator, and the checkout."""
    found = []
    if shutil.which(_PREFIX + "g++") is None:
        packages = "gcc-arm-none-eabi libnewlib-arm-none-eabi libstdc++-arm-none-eabi-newlib"
        found.append(Missing("the compiler arm-none-eabi-g++", f"sudo apt-get install {packages}"))
    if shutil.which("qemu-system-arm") is None:
        found.append(Missing("QEMU's emulator of ARM boards", "sudo apt-get install qemu-system-arm"))
    if not options.get("tflm"):
        command = "git clone https://github.com/tensorflow/tflite-micro, then tflm=its folder"
        return [*found, Missing("a checkout of tflite-micro", command)]
    optimized = options.get("kernels", "cmsis-nn") == "cmsis-nn"
    return found + missing_sources(Path(options["tflm"]).resolve(), optimized=optimized)


def run(job: Job) -> list[Result]:
    """Builds a firmware for each file and runs it; the library is compiled once and kept in the user's cache.

    Raises:
        ValueError: an option has a wrong value.
    """
    timeout = positive(job.options, "timeout", 600.0)
    kernels = job.options.get("kernels", "cmsis-nn")
    if kernels not in ("cmsis-nn", "reference"):
        raise ValueError(f"`kernels` must be cmsis-nn or reference. Received: kernels={kernels!r}")
    name = job.accelerator or ACCELERATORS[0]
    fields: dict[str, Any] = {
        "device": f"{name.title()}, emulated by QEMU ({PROCESSORS[name].machine})",
        "runtime": "tflite-micro",
        "delegate": "CMSIS-NN kernels" if kernels == "cmsis-nn" else "reference kernels",
        "warnings": ("an emulation: instructions are counted, which are not cycles",),
    }
    results = []
    for file in job.files:
        job.progress(f"{file.name}: building for {name}")
        try:
            result = _run(file, job, name, timeout, fields)
        except (ExportError, ValueError) as error:
            result = failed(file, "cortex-m", error, **fields)
        job.finished(result)
        results.append(result)
    return results


def _run(file: Named, job: Job, name: str, timeout: float, fields: Mapping[str, Any]) -> Result:
    given = feeds(file.content, job.samples, times=_FEEDS).head(_FEEDS)
    with tempfile.TemporaryDirectory() as folder:
        image = _build(file, job, PROCESSORS[name], given, Path(folder))
        job.progress(f"{file.name}: running under QEMU")
        said = _emulated(image, PROCESSORS[name].machine, timeout)
    counts, arena, rows = figures(said)
    operations = tuple(
        OperationTime(kind, "", str(fields["delegate"]), number, "instructions") for kind, number in rows
    )
    result = outcome(
        file, "cortex-m", arena={"total": arena}, counts=counts, operations=operations if job.profile else (), **fields
    )
    outputs = outputs_of(file.content, said)
    return judged(result, checked(file.content, given, outputs))


def _build(file: Named, job: Job, processor: Processor, given: Feeds, folder: Path) -> Path:
    """The firmware's image."""
    checkout = Path(job.options["tflm"]).resolve()
    toolchain = Toolchain(_PREFIX, processor.flags, job.options.get("kernels", "cmsis-nn") == "cmsis-nn")
    written = firmware(file.content, folder, name="model", tflm=checkout)
    (folder / "inputs.h").write_text(_inputs_header(given))
    (folder / "inputs.c").write_text(_inputs_source(given))
    objects = library(checkout, toolchain, written.resolver, job.progress)
    graphs = read(file.content).subgraphs
    variables = sum(operator.kind == "VAR_HANDLE" for graph in graphs for operator in graph.operators)
    flags = [*compile_flags(checkout, toolchain), f"-I{folder}", f"-DBOARD_ARENA_BYTES={processor.arena}"]
    flags += [f"-DBOARD_VARIABLES={variables}"]
    own = []
    for source in (folder / "model.c", folder / "inputs.c", BOARD / "start.c", BOARD / "main.cc"):
        own.append(folder / f"{source.stem}.o")
        # The file's bytes and its inputs go where there is room for them.
        is_data = source.parent == folder
        compile_one(source, own[-1], toolchain, [*flags, "-fno-data-sections"] if is_data else flags)
        if is_data:
            _into_large(own[-1])
    image = folder / "firmware.elf"
    archive = folder / "library.a"
    _tool([f"{_PREFIX}ar", "rcs", str(archive), *map(str, objects)])
    link = [f"{_PREFIX}g++", *processor.flags, *CXX, "-specs=rdimon.specs", "-nostartfiles", "-Wl,--gc-sections"]
    link += ["-Wl,--no-warn-rwx-segments", f"-L{BOARD}", "-T", str(BOARD / processor.script)]
    _tool([*link, *map(str, own), str(archive), "-lm", "-o", str(image)])
    return image


def _into_large(target: Path) -> None:
    """Constants of an object file into the section that lies in the board's large memory."""
    _tool([f"{_PREFIX}objcopy", "--rename-section", ".rodata=.large,alloc,load,readonly,data,contents", str(target)])


def _tool(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, check=False, text=True, errors="replace")
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        telling = [line for line in lines if "undefined reference" in line or "overflowed" in line] or lines[-1:]
        cause = telling[0].strip() if telling else "it said nothing"
        raise ExportError(f"{Path(command[0]).name} failed: {cause}")


def _inputs_header(given: Feeds) -> str:
    return (
        "#pragma once\n#include <stddef.h>\n"
        f"#define BOARD_FEEDS {given.times}\n#define BOARD_INPUTS {len(given.arrays)}\n"
        '#ifdef __cplusplus\nextern "C" {\n#endif\n'
        "extern const unsigned char* const board_inputs[];\nextern const size_t board_sizes[];\n"
        "#ifdef __cplusplus\n}\n#endif\n"
    )


def _inputs_source(given: Feeds) -> str:
    """The raw bytes of each input of each inference; both machines are little-endian."""
    arrays, names, sizes = [], [], []
    for number in range(given.times):
        for index, array in enumerate(given.turn(number)):
            data = np.ascontiguousarray(array).tobytes()
            names.append(f"input_{number}_{index}")
            values = ",".join(map(str, data)) or "0"
            arrays.append(f"static const unsigned char {names[-1]}[] = {{{values}}};\n")
            sizes += [str(len(data))] if number == 0 else []
    return (
        '#include "inputs.h"\n'
        + "".join(arrays)
        + f"const unsigned char* const board_inputs[] = {{{', '.join(names) or '0'}}};\n"
        + f"const size_t board_sizes[] = {{{', '.join(sizes) or '0'}}};\n"
    )


def _emulated(image: Path, machine: str, timeout: float) -> str:
    """What the firmware printed.

    Raises:
        ExportError: it failed, or was not done in time; the message holds its last words.
    """
    command = ["qemu-system-arm", "-M", machine, "-nographic", "-monitor", "none", "-serial", "null"]
    command += ["-semihosting-config", "enable=on,target=native", "-icount", f"shift={_SHIFT}", "-kernel", str(image)]
    try:
        done = subprocess.run(
            command, capture_output=True, check=False, timeout=timeout, text=True, errors="replace",
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise ExportError(f"the emulation was not done after {timeout:g} s") from error
    if done.returncode or not done.stdout.rstrip().endswith("done"):
        known = ("calibration ", "arena ", "output ", "event ", "inference ")
        lines = [line.strip() for line in (done.stdout + "\n" + done.stderr).splitlines()]
        said = [line for line in lines if line and not line.startswith(known)]
        raise ExportError(f"the firmware failed: {' | '.join(said[-3:]) or f'exit status {done.returncode}'}")
    return done.stdout


def figures(said: str) -> tuple[dict[str, float], int, list[tuple[str, float]]]:
    """Counts, arena and operations out of what the firmware printed.

        instructions = ticks * (instructions of the known loop / its ticks)

    Raises:
        ExportError: a line is missing.

    >>> text = "calibration 2000000 400000\\narena 96\\nevent ADD 20\\ninference 50\\ndone"
    >>> figures(text)
    ({'instructions': 250.0}, 96, [('ADD', 100.0)])
    """
    loop = re.search(r"^calibration (\d+) (\d+)$", said, re.MULTILINE)
    arena = re.search(r"^arena (\d+)$", said, re.MULTILINE)
    inference = re.search(r"^inference (\d+)$", said, re.MULTILINE)
    if loop is None or arena is None or inference is None or not int(loop[2]):
        raise ExportError(f"the firmware's words are not understood: {said[:200]!r}")
    each = int(loop[1]) / int(loop[2])
    rows = [(kind, round(int(n) * each, 1)) for kind, n in re.findall(r"^event (\S+) (\d+)$", said, re.MULTILINE)]
    return {"instructions": round(int(inference[1]) * each, 1)}, int(arena[1]), rows


def outputs_of(content: bytes, said: str) -> dict[str, np.ndarray]:
    """name -> [times, ...] raw outputs of the first signature out of what the firmware printed.

    Raises:
        ExportError: an output's bytes do not fill its shape.
    """
    model = read(content)
    signature = model.signature()
    graph = model.subgraphs[0]
    names = {index: name for name, index in signature.outputs.items()} if signature.subgraph == 0 else {}
    found: dict[str, list[np.ndarray]] = {}
    for _, index, text in re.findall(r"^output (\d+) (\d+) ([0-9a-f]*)$", said, re.MULTILINE):
        tensor = graph.tensors[graph.outputs[int(index)]]
        data = bytes.fromhex(text)
        if tensor.dtype is None or len(data) != tensor.size * tensor.dtype.itemsize:
            raise ExportError(f"output {tensor.name!r} came back with {len(data)} bytes")
        array = np.frombuffer(data, tensor.dtype).reshape(tensor.shape)
        found.setdefault(names.get(tensor.index, tensor.name), []).append(array)
    return {name: np.stack(arrays) for name, arrays in found.items()}
