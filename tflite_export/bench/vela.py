"""The Vela compiler, asked: what it puts on an Ethos-U, what stays on the CPU and why, and what it estimates.

Vela tells operations apart by the name of a tensor, which may repeat or be empty in a file. It is therefore given a
copy whose tensors are called after their place (subgraph 0, tensor 12: "t0.12"), and answers are translated back.
"""

import contextlib
import csv
import importlib.metadata
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tflite_export.errors import ExportError
from tflite_export.flatbuffer import load, read, store
from tflite_export.graph import Model, Operator

# Accelerator -> Vela's system configuration and memory mode, the larger of what its own file offers for the family.
SYSTEMS: Mapping[str, tuple[str, str]] = {
    **{f"u55-{macs}": ("Ethos_U55_High_End_Embedded", "Shared_Sram") for macs in (32, 64, 128, 256)},
    **{f"u65-{macs}": ("Ethos_U65_High_End", "Dedicated_Sram") for macs in (256, 512)},
    **{f"u85-{macs}": ("Ethos_U85_SYS_DRAM_Mid", "Dedicated_Sram_384KB") for macs in (128, 256, 512, 1024, 2048)},
}
CONFIG = "Arm/vela.ini"
_PLACE = re.compile(r"t(\d+)\.(\d+)(?:_act)?")
_WARNING = re.compile(r"^Warning \(([^)]*)\) operator: (\w+), ofm: '(.*)'$")
_ON_CPU = re.compile(r"^\s*CPU: \S+ = (.*) \(outputs \[")
# Names of tensors in a reason; the operation is named beside it, and reasons that differ in nothing else are one.
_IN_BRACKETS = re.compile(r" \(t\d+\.\d+(?:_act)?\)")
_OTHER_WARNING = re.compile(r"^Warning: (.*)$")


@dataclass(frozen=True)
class OnCpu:
    """An operation that the NPU does not take.

    Attributes:
        subgraph: its number.
        operation: its place in the subgraph; -1 where Vela names none of the file's.
        kind: such as "SOFTMAX".
        name: of its output tensor.
        reason: Vela's.
    """

    subgraph: int
    operation: int
    kind: str
    name: str
    reason: str


@dataclass(frozen=True)
class Layer:
    """One operation in Vela's estimate: cycles of the accelerator in one inference."""

    kind: str
    name: str
    where: str
    cycles: float


@dataclass(frozen=True)
class Compiled:
    """What Vela makes of a file.

    Attributes:
        operations: of the file, in all subgraphs.
        on_cpu: those of them that the NPU does not take.
        summary: Vela's own figures by its own names; those that are no number are left out.
        layers: the estimate by operation, when it was asked for.
        system: Vela's system configuration.
        memory: its memory mode.
        version: of Vela.
        warnings: what else it said.
    """

    operations: int
    on_cpu: tuple[OnCpu, ...]
    summary: Mapping[str, float]
    layers: tuple[Layer, ...]
    system: str
    memory: str
    version: str
    warnings: tuple[str, ...]


def compiled(
    content: bytes,
    accelerator: str = "u55-128",
    *,
    system: str = "",
    memory: str = "",
    config: str = CONFIG,
    layers: bool = False,
    timeout: float = 600.0,
) -> Compiled:
    """Compiles a file in a child process; 0.5 s for a small one.

    Args:
        content: of the file.
        accelerator: a key of `SYSTEMS`.
        system: system configuration; by default that of `SYSTEMS`.
        memory: memory mode; by default that of `SYSTEMS`.
        config: Vela's configuration file that holds both.
        layers: estimate each operation, too; compiles a second time.
        timeout: seconds.

    Raises:
        ValueError: not a TFLite file, or no such accelerator.
        ExportError: Vela does not take the file, failed, or took too long; the message holds its reason.

    >>> compiled(open("model.tflite", "rb").read()).on_cpu             # doctest: +SKIP
    ()
    """
    if accelerator not in SYSTEMS:
        raise ValueError(f"`accelerator` must be one of {list(SYSTEMS)}. Received: {accelerator!r}")
    model = read(content)
    system, memory = system or SYSTEMS[accelerator][0], memory or SYSTEMS[accelerator][1]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.tflite")
        path.write_bytes(_placed(content))
        command = [sys.executable, "-m", "ethosu.vela", path.name, "--output-dir", "out"]
        command += ["--accelerator-config", f"ethos-{accelerator}", "--system-config", system]
        command += ["--memory-mode", memory, "--config", config]
        text = _called([*command, "--show-cpu-operations"], folder, timeout)
        # The summary is not written in the run that writes the layers.
        summary = _summary(_one(folder, "*_summary_*.csv"))
        rows: tuple[Layer, ...] = ()
        if layers:
            _called([*command, "--verbose-performance"], folder, timeout)
            rows = _layers(model, _one(folder, "*_per-layer.csv"))
    return Compiled(
        operations=sum(len(graph.operators) for graph in model.subgraphs),
        on_cpu=left_on_cpu(model, text),
        summary=summary,
        layers=rows,
        system=system,
        memory=memory,
        version=importlib.metadata.version("ethos-u-vela"),
        warnings=tuple(dict.fromkeys(m[1] for line in text.splitlines() if (m := _OTHER_WARNING.match(line.strip())))),
    )


def left_on_cpu(model: Model, text: str) -> tuple[OnCpu, ...]:
    """The operations that Vela's output (of a copy with placed names) lists for the CPU, each with its reason."""
    reasons: dict[str, tuple[str, str]] = {}
    lines = text.splitlines()
    for at, line in enumerate(lines):
        if match := _WARNING.match(line):
            said = " ".join(line.strip() for line in _until_empty(lines[at + 1 :])).removeprefix("Reason:").strip()
            # One operation may be warned of twice; the first one is the cause.
            reasons.setdefault(_key(match[3]), (match[2], _spoken(model, _IN_BRACKETS.sub("", said))))
    listed = [_key(match[1]) for line in lines if (match := _ON_CPU.match(line))]
    makers = _makers(model)
    found: dict[tuple[int, int, str], OnCpu] = {}
    # The list leaves out subgraphs that are not the first signature's; the warnings tell of them, too.
    for key in (*listed, *(key for key in reasons if key in makers)):
        one = _on_cpu(model, makers.get(key), reasons, key)
        found.setdefault((one.subgraph, one.operation, "" if key in makers else one.name), one)
    return tuple(found.values())


def _key(name: str) -> str:
    """A placed tensor name without what Vela appends: one operation and the activation fused to it are one."""
    place = _PLACE.fullmatch(name)
    return f"t{place[1]}.{place[2]}" if place else name


def _makers(model: Model) -> dict[str, tuple[int, Operator]]:
    """Placed tensor name -> subgraph and operation that computes it."""
    return {
        f"t{graph.index}.{output}": (graph.index, operator)
        for graph in model.subgraphs
        for operator in graph.operators
        for output in operator.outputs
    }


def _on_cpu(
    model: Model, maker: tuple[int, Operator] | None, reasons: Mapping[str, tuple[str, str]], key: str
) -> OnCpu:
    kind, reason = reasons.get(key, ("", ""))
    if maker is None:
        return OnCpu(0, -1, kind or "an operation that Vela made", _spoken(model, key), reason or _NO_REASON)
    number, operator = maker
    if not reason:  # of several outputs, Vela names one in the warning and maybe another one in the list
        keys = (f"t{number}.{output}" for output in operator.outputs)
        reason = next((reasons[one][1] for one in keys if one in reasons), _NO_REASON)
    return OnCpu(number, operator.index, operator.kind, _spoken(model, key), reason)


_NO_REASON = "Vela gives no reason"


def _until_empty(lines: list[str]) -> list[str]:
    end = next((at for at, line in enumerate(lines) if not line.strip()), len(lines))
    return lines[:end]


def _spoken(model: Model, text: str) -> str:
    """Vela's words with the file's own names of tensors."""

    def name(match: re.Match[str]) -> str:
        graph, tensor = int(match[1]), int(match[2])
        if graph >= len(model.subgraphs) or tensor >= len(model.subgraphs[graph].tensors):
            return match[0]
        return model.subgraphs[graph].tensors[tensor].name or f"tensor {tensor}"

    return _PLACE.sub(name, text)


def _placed(content: bytes) -> bytes:
    """The file with its tensors called after their place; as it is when it cannot be written anew."""
    with contextlib.suppress(Exception):  # a file that reads well may still hold what the writer refuses
        model = load(content)
        for number, graph in enumerate(model.subgraphs):
            for index, tensor in enumerate(graph.tensors):
                tensor.name = f"t{number}.{index}".encode()
        return store(model)
    return content


def _called(command: list[str], folder: str, timeout: float) -> str:
    """Vela's output."""
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, check=False, timeout=timeout, start_new_session=True, text=True,
            errors="replace", env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise ExportError(f"Vela was not done after {timeout:g} s") from error
    if done.returncode < 0:
        cause = signal.Signals(-done.returncode).name if -done.returncode in set(signal.Signals) else done.returncode
        raise ExportError(f"Vela crashed on the file ({cause})")
    if done.returncode:
        last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "it said nothing")
        raise ExportError(f"Vela does not take the file: {_plain(last)}")
    return done.stdout + "\n" + done.stderr


def _plain(line: str) -> str:
    """The last line of a traceback without the class's module and quotes."""
    match = re.match(r"^(?:[\w.]+\.)?(\w+): (.*)$", line.strip())
    if not match:
        return line.strip()
    words = match[2].strip("'\"").removeprefix("Error: ")
    return words if "vela" in line.lower() else f"{match[1]}: {words}"


def _one(folder: str, pattern: str) -> str:
    found = sorted(Path(folder, "out").glob(pattern))
    if not found:
        raise ExportError(f"Vela wrote no {pattern.strip('*_')}")
    return found[0].read_text(encoding="utf-8")


def _summary(text: str) -> dict[str, float]:
    """The numbers of the last row of Vela's summary; without those that are no finite number."""
    row = list(csv.DictReader(text.splitlines()))[-1]
    found = {}
    for name, cell in row.items():
        with contextlib.suppress(TypeError, ValueError):
            if math.isfinite(value := float(cell)):
                found[name] = value
    return found


def _layers(model: Model, text: str) -> tuple[Layer, ...]:
    """Vela's own operations summed up by the file's operation that they came from, in order."""
    makers = _makers(model)
    cycles: dict[tuple[str, str, str], float] = {}
    for row in csv.DictReader(text.splitlines()):
        kind, name = row["Original Operator"], ""  # of what Vela took apart, such as the gates of an LSTM
        if (place := _key(row["Name"])) in makers:
            kind, name = makers[place][1].kind, _spoken(model, place)
        key = (kind, name, row["Target"])
        cycles[key] = cycles.get(key, 0.0) + float(row["Op Cycles"])
    return tuple(Layer(kind, name, where, count) for (kind, name, where), count in cycles.items())
