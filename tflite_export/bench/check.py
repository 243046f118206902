"""Are a runtime's outputs those of the file? Compared with the reference kernels, which are slow but simple."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from tflite_export.bench.inputs import Feeds
from tflite_export.bench.process import Process
from tflite_export.bench.result import Agreement, Result
from tflite_export.errors import ExportError
from tflite_export.flatbuffer import read
from tflite_export.port import Port, ports

# Inferences that are compared, and how long the reference kernels may take for them.
TIMES, SECONDS = 20, 10.0
# Kernel sets differ by rounding, fp16 and dynamic ranges by a few percent. A difference that is larger than a third of
# the outputs themselves (signal to noise below 10 dB) is none of these.
_LEAST_DECIBELS = 10.0
_FEW_STEPS = 3


@dataclass(frozen=True)
class Check:
    """Outputs beside those of the reference kernels.

    Attributes:
        agreement: in figures; None when the two could not be compared.
        wrong: why the outputs are not the file's at all; "" when they are.
        warnings: what was not compared, and why.
    """

    agreement: Agreement | None = None
    wrong: str = ""
    warnings: tuple[str, ...] = ()


def checked(content: bytes, feeds: Feeds, outputs: Mapping[str, np.ndarray], *, timeout: float = 60.0) -> Check:
    """Compares outputs with those of LiteRT's reference kernels.

    Args:
        content: of the file.
        feeds: what both sides were fed with.
        outputs: name -> [times, ...] raw values as the runtime gave them, of the first `times` inferences of `feeds`:
            integers where the file's output is of an integer type.
        timeout: seconds for the reference kernels.

    Returns:
        The comparison; without one when the reference kernels do not run the file, which is a warning.
    """
    times = min((len(values) for values in outputs.values()), default=0)
    if not times:
        return Check(warnings=("the outputs were not checked: there are none",))
    try:
        expected = run_outputs(content, feeds.head(times), kernels="reference", timeout=timeout)
    except ExportError as error:
        return Check(warnings=(f"the outputs were not checked: the reference kernels do not run the file: {error}",))
    return compared(content, expected, outputs)


def run_outputs(
    content: bytes, feeds: Feeds, *, kernels: str, timeout: float, threads: int = 1, seconds: float = SECONDS
) -> dict[str, np.ndarray]:
    """Outputs of LiteRT's interpreter, in a process of its own.

    Args:
        content: of the file.
        feeds: its inputs; all of their inferences are run as far as `seconds` allow, but one at least.
        kernels: "xnnpack", "builtin" or "reference".
        timeout: seconds after which the process is ended.
        threads: for the kernels that can use several.
        seconds: after which no further inference is begun.

    Returns:
        name -> [times, ...] raw values.

    Raises:
        ExportError: the runtime does not run the file; the message holds its reason.
    """
    with Process(timeout=timeout) as child:
        path = child.folder / "model.tflite"
        path.write_bytes(content)
        child.call(
            "open", feeds.arrays, engine="interpreter", path=str(path), kernels=kernels, threads=threads,
            times=feeds.times,
        )  # fmt: skip
        return child.call("outputs", seconds=seconds)[1]


def compared(content: bytes, expected: Mapping[str, np.ndarray], got: Mapping[str, np.ndarray]) -> Check:
    """Compares raw outputs of the file's first signature, [times, ...] by name; the shorter of the two counts."""
    model = read(content)
    found, wrong, warnings = [], [], []
    for port in ports(model, model.signature(), "outputs"):
        if port.name not in got or port.name not in expected:
            wrong.append(f"output {port.name!r} is missing")
            continue
        agreement, reason = _one(port, expected[port.name], got[port.name])
        if reason and agreement is not None and _silent(port, expected[port.name]):
            # Kernels that lack a scheme (blockwise scales) compute zeros without an error: they prove nothing.
            warnings.append(f"output {port.name!r} was not checked: the reference kernels give nothing but zeros")
            continue
        found += [] if agreement is None else [agreement]
        wrong += [reason] if reason else []
    return Check(_together(found), "; ".join(wrong), tuple(warnings))


def judged(result: Result, check: Check, *, known: str = "") -> Result:
    """The result with its check: "failed" when the outputs are wrong, whatever the times say.

    Args:
        result: with status "ok".
        check: of its outputs.
        known: a reason for small differences, added to the warnings when there are some.
    """
    warnings = (*result.warnings, *check.warnings)
    if known and check.agreement is not None and check.agreement.equal < 1:
        warnings += (known,)
    result = replace(result, agreement=check.agreement, warnings=warnings)
    if check.wrong:
        return replace(result, status="failed", reason=f"its outputs are not the file's: {check.wrong}")
    return result


def _one(port: Port, expected: np.ndarray, got: np.ndarray) -> tuple[Agreement | None, str]:
    times = min(len(expected), len(got)) if expected.ndim and got.ndim else 0
    left, right = expected[:times], got[:times]
    if left.shape != right.shape:
        return None, f"output {port.name!r} has shape {list(right.shape[1:])} instead of {list(left.shape[1:])}"
    if left.dtype.kind not in "biuf":
        equal = float(np.mean(left == right)) if left.size else 1.0
        return Agreement("reference", int(left.size), equal, 0.0, "real"), ""
    broken = int(np.sum(np.isfinite(left) & ~np.isfinite(right)))
    if broken:
        return None, f"output {port.name!r}: {broken} of {right.size} values are not finite"
    finite = np.isfinite(left) & np.isfinite(right)
    a, b = left[finite].astype(np.float64), right[finite].astype(np.float64)
    stepped = port.grid is not None
    largest = float(np.abs(a - b).max(initial=0.0))
    equal = float(np.mean(a == b)) if a.size else 1.0
    agreement = Agreement("reference", int(left.size), equal, largest, "steps" if stepped else "real")
    if port.grid is None and left.dtype.kind in "iub":
        return (
            agreement,
            f"output {port.name!r}: {100 * (1 - equal):.0f} % of its integers differ" if equal < 0.5 else "",
        )
    if largest <= (_FEW_STEPS if stepped else 1e-6):
        return agreement, ""
    noise, signal = float(np.sum((a - b) ** 2)), float(np.sum((a - _zero(port)) ** 2))
    decibels = 10 * np.log10(signal / noise) if signal > 0 else float("-inf")
    if decibels < _LEAST_DECIBELS:
        return agreement, f"output {port.name!r} differs by up to {largest:.3g} ({decibels:.0f} dB signal to noise)"
    return agreement, ""


def _zero(port: Port) -> float:
    """The raw value that stands for 0."""
    return float(port.grid.zero_point[0]) if port.grid is not None else 0.0


def _silent(port: Port, values: np.ndarray) -> bool:
    return values.dtype.kind in "biuf" and bool(np.all(values == _zero(port)))


def _together(found: list[Agreement]) -> Agreement | None:
    """One agreement for all outputs; steps and real units do not mix, so the worst in its own unit is told."""
    if not found:
        return None
    values = sum(one.values for one in found)
    equal = sum(one.equal * one.values for one in found) / values if values else 1.0
    worst = max(found, key=lambda one: (one.equal < 1, one.largest))
    return Agreement("reference", values, equal, worst.largest, worst.unit)
