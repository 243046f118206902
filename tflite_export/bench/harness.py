"""Files measured on a target: arguments are checked, the target's module is called, one result a file comes back."""

import importlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, overload

import numpy as np

from tflite_export.bench.check import run_outputs
from tflite_export.bench.inputs import Feeds, feeds
from tflite_export.bench.job import Job, Named, Target
from tflite_export.bench.outcome import failed, unavailable
from tflite_export.bench.result import Result
from tflite_export.errors import ExportError
from tflite_export.flatbuffer import File, content_of, name_of, read

TARGETS: Mapping[str, str] = {
    "host": "tflite_export.bench.host",
    "tflm": "tflite_export.bench.micro",
    "android": "tflite_export.bench.android",
    "ssh": "tflite_export.bench.ssh",
    "ethos-u": "tflite_export.bench.ethos_u",
    "web": "tflite_export.bench.web",
    "arm64": "tflite_export.bench.arm64",
    "cortex-m": "tflite_export.bench.cortex_m",
}
# Targets whose kernels compute what the reference kernels do.
_REFERENCE = frozenset({"tflm", "cortex-m", "ethos-u"})
_ACCURACY_TIMEOUT = 600.0
_log = logging.getLogger(__name__)


def target_module(target: str) -> Target:
    """The module that measures on a target.

    Raises:
        ValueError: there is no such target.
    """
    if target not in TARGETS:
        raise ValueError(f"`target` must be one of {list(TARGETS)}. Received: target={target!r}")
    module: Any = importlib.import_module(TARGETS[target])
    return module


@overload
def benchmark(
    content: File,
    target: str = "host",
    *,
    name: str = "",
    runs: int = 50,
    threads: int = 1,
    accelerator: str | None = None,
    profile: bool = False,
    samples: Any = None,
    labels: Any = None,
    **options: Any,
) -> Result: ...


@overload
def benchmark(
    content: Mapping[str, File] | list[File] | tuple[File, ...],
    target: str = "host",
    *,
    name: str = "",
    runs: int = 50,
    threads: int = 1,
    accelerator: str | None = None,
    profile: bool = False,
    samples: Any = None,
    labels: Any = None,
    **options: Any,
) -> list[Result]: ...


def benchmark(
    content: Any,
    target: str = "host",
    *,
    name: str = "",
    runs: int = 50,
    threads: int = 1,
    accelerator: str | None = None,
    profile: bool = False,
    samples: Any = None,
    labels: Any = None,
    **options: Any,
) -> Any:
    """Measures a file on a real runtime: time, memory, what did the work, and whether the outputs are right.

    Several files are timed by turns, so that a busy moment meets them all, and each result's `ratio` is its time over
    that of the first file, turn by turn.

    Args:
        content: a file (bytes, a path or an object with `.content`); or several: name -> file, or a list.
        target: "host" (this machine), "tflm" (tflite-micro's interpreter), "android", "ssh", "ethos-u", "web", "arm64"
            or "cortex-m". `tflite-export doctor` says which of them work here.
        name: how tables call the one file.
        runs: timed inferences of each file.
        threads: of the runtime.
        accelerator: as the target calls it; its default when left out.
        profile: time each operation, too.
        samples: rows of real inputs as `Runner` takes them; made up values when left out.
        labels: the right class of each row of `samples`, for `accuracy`.
        options: further settings of the target, such as `timeout`; `tflite-export benchmark --target T --help`.

    Returns:
        A result; a list of them, in order, when several files were given. A file that does not run is a result with
        `status` "failed" and its reason, a target that is not there one with "unavailable" and what to install.

    Raises:
        ValueError: an argument is not one of those above, the target has no such option, or the samples do not fit.
        OSError: a path cannot be read.

    >>> result = benchmark("model.tflite", runs=100)                          # doctest: +SKIP
    >>> result.median, result.delegate                                        # doctest: +SKIP
    (1.73, 'XNNPACK (31 of 31 operations)')
    """
    several = isinstance(content, (Mapping, list, tuple))
    if several and name:
        raise ValueError(f"`name` is for one file; give several as name -> file. Received: name={name!r}")
    files = named(content if several else {name: content} if name else [content])
    job = Job(files, runs, threads, accelerator, profile, samples, options, progress=_log.info)
    results = measure(job, target, labels)
    return results if several else results[0]


def named(content: Mapping[str, File] | Sequence[File]) -> tuple[Named, ...]:
    """Files with names: those given, else the end of the path, numbered where it repeats.

    Raises:
        ValueError: no files.
        OSError: a path cannot be read.
    """
    if not content:
        raise ValueError("`content` must hold at least one file. Received: none")
    if isinstance(content, Mapping):
        return tuple(Named(str(name), content_of(file)) for name, file in content.items())
    found: dict[str, Named] = {}
    for file in content:
        path = name_of(file)
        name = os.path.basename(path) if path != "bytes" else "model"
        number, unique = 2, name
        while unique in found:
            number, unique = number + 1, f"{name} ({number})"
        found[unique] = Named(unique, content_of(file))
    return tuple(found.values())


def measure(job: Job, target: str, labels: Any = None) -> list[Result]:
    """Does a job on a target; `job.finished` gets each result as soon as it is whole.

    Raises:
        ValueError: see `benchmark`.
    """
    module = target_module(target)
    _check(job, target, module)
    done = _Finished(job, target, _labels(job, labels))
    missing = module.missing(job.options)
    if missing:
        return [done(unavailable(file, target, missing)) for file in job.files]
    readable = []
    for file in job.files:
        try:
            read(file.content)
        except ValueError as error:
            done(failed(file, target, error))
        else:
            readable.append(file)
            if job.samples is not None:
                _fits(file, job.samples)
    done.paired = len(job.files) > 1 and job.files[0] in readable
    if readable:
        try:
            for result in module.run(replace(job, files=tuple(readable), finished=done.take)):
                done(result)
        except (ExportError, OSError) as error:
            for file in readable:
                done(failed(file, target, error))
    return [done.results[file.name] for file in job.files]


class _Finished:
    """Gets results as they come, adds accuracy, and hands each on once."""

    def __init__(self, job: Job, target: str, labels: np.ndarray | None) -> None:
        self.results: dict[str, Result] = {}
        self.paired = False  # there is a first file that others are compared with
        self._job, self._target, self._labels = job, target, labels

    def take(self, result: Result) -> None:
        """As a call, for a target that hands a result on."""
        self(result)

    def __call__(self, result: Result) -> Result:
        if result.name not in self.results:
            result = result if self.paired else replace(result, ratio=None)
            if self._labels is not None and result.status == "ok":
                result = self._with_accuracy(result, self._labels)
            self.results[result.name] = result
            self._job.finished(result)
        return self.results[result.name]

    def _with_accuracy(self, result: Result, labels: np.ndarray) -> Result:
        file = next(file for file in self._job.files if file.name == result.name)
        kernels = "reference" if self._target in _REFERENCE else "xnnpack"
        if self._job.accelerator in ("builtin", "reference"):
            kernels = self._job.accelerator
        self._job.progress(f"{file.name}: accuracy on {len(labels)} rows")
        try:
            given = feeds(file.content, self._job.samples)
            outputs = run_outputs(
                file.content, given, kernels=kernels, timeout=_ACCURACY_TIMEOUT, seconds=_ACCURACY_TIMEOUT
            )
            return replace(result, accuracy=decisions(outputs, given, labels))
        except (ExportError, ValueError) as error:
            return replace(result, warnings=(*result.warnings, f"no accuracy: {error}"))


def decisions(outputs: Mapping[str, np.ndarray], given: Feeds, labels: np.ndarray) -> float:
    """Share of rows whose decision is the label.

    The decision is the largest of several values of a row; of a single value, whether a float one exceeds 0.5.

    Args:
        outputs: name -> [times, batch, ...] raw values.
        given: what they come from.
        labels: int [rows].

    Raises:
        ValueError: the outputs are not one row of values a label.
    """
    if len(outputs) != 1:
        raise ValueError(f"the file has {len(outputs)} outputs, a decision needs one")
    values = next(iter(outputs.values()))
    if values.ndim < 2 or len(values) != given.times or values.shape[0] * values.shape[1] != len(labels):
        raise ValueError(f"outputs of shape {list(values.shape)} are no decision for each of {len(labels)} rows")
    rows = values.reshape(len(labels), -1)
    if rows.shape[1] > 1:
        return float(np.mean(rows.argmax(axis=1) == labels))
    if rows.dtype.kind != "f":
        raise ValueError("a single integer is no decision")
    return float(np.mean((rows[:, 0] > 0.5) == (labels != 0)))


def _check(job: Job, target: str, module: Target) -> None:
    for what, value in (("runs", job.runs), ("threads", job.threads)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"`{what}` must be an integer from 1. Received: {what}={value!r}")
    if job.accelerator is not None and job.accelerator not in module.ACCELERATORS:
        known = list(module.ACCELERATORS) or "left out: the target has no choice"
        raise ValueError(
            f"`accelerator` of target {target!r} must be one of {known}. Received: accelerator={job.accelerator!r}"
        )
    unknown = sorted(set(job.options) - set(module.OPTIONS))
    if unknown:
        raise ValueError(f"Target {target!r} has the options {sorted(module.OPTIONS)}. Received: {unknown}")
    repeated = len({file.name for file in job.files}) < len(job.files)
    if not job.files or repeated:
        raise ValueError(f"Files must have names of their own. Received: {[file.name for file in job.files]}")


def _labels(job: Job, labels: Any) -> np.ndarray | None:
    if labels is None:
        return None
    if job.samples is None:
        raise ValueError("`labels` need `samples`. Received: samples=None")
    found = np.asarray(labels).reshape(-1)
    if found.dtype.kind not in "iub" or not found.size:
        raise ValueError(f"`labels` must be the number of a class for each row. Received: {np.asarray(labels).dtype}")
    return found.astype(np.int64)


def _fits(file: Named, samples: Any) -> None:
    try:
        feeds(file.content, samples)
    except ValueError as error:
        raise ValueError(f"`samples` do not fit {file.name!r}: {error}") from error
