"""Target "android": files measured on a phone over adb, by `benchmark_model` or by this project's demo app."""

from collections.abc import Mapping
from typing import Any

from tflite_export.bench import android_app
from tflite_export.bench.adb import Adb, AdbError, find_device
from tflite_export.bench.android_session import ToolSession
from tflite_export.bench.android_state import phone_of, state_of
from tflite_export.bench.android_tool import ACCELERATORS as ACCELERATORS
from tflite_export.bench.android_tool import GET_BINARY, tool_of
from tflite_export.bench.job import Job, Missing
from tflite_export.bench.outcome import unavailable
from tflite_export.bench.result import Result
from tflite_export.bench.settings import positive

SUMMARY = "an Android phone over adb: benchmark_model (CPU, XNNPACK, GPU, NNAPI, Hexagon, NPU) or the demo app"
OPTIONS: Mapping[str, str] = {
    "device": "serial of the phone, as `adb devices` lists it",
    "runner": "benchmark_model (the default) or app",
    "binary": "path of benchmark_model built for the phone",
    "libraries": "paths of libraries that it loads, such as a delegate's; they are copied beside it",
    "flags": "further flags of benchmark_model, such as --gpu_precision_loss_allowed=false",
    "taskset": "hexadecimal mask of the processors that may be used, such as f0 for the upper four of eight",
    "package": "package of the demo app, dev.tfcompress.demo when left out",
    "timeout": "seconds that each call on the phone may take, 300 when left out",
    "adb": "path of the adb command",
}
_RUNNERS = ("benchmark_model", "app")


def missing(options: Mapping[str, Any]) -> list[Missing]:
    """What a job with these options lacks: adb, a phone, the binary or the app.

    Raises:
        ValueError: an option has a wrong value.
    """
    runner = options.get("runner") or _RUNNERS[0]
    if runner not in _RUNNERS:
        raise ValueError(f"`runner` must be one of {list(_RUNNERS)}. Received: runner={runner!r}")
    positive(options, "timeout", 300.0)
    found: list[Missing] = []
    phone = find_device(options)
    if isinstance(phone, Missing):
        found.append(phone)
    if runner == "app":
        lacking = None if isinstance(phone, Missing) else android_app.not_installed(phone, options)
        return found + ([lacking] if lacking is not None else [])
    tool = tool_of(options)
    if isinstance(tool, Missing):
        found.append(tool)
    elif isinstance(phone, Adb) and tool.abi():
        try:
            abis = phone_of(phone).abis
        except AdbError as error:
            return [*found, Missing("an answer of the phone", str(error))]
        if abis and tool.abi() not in abis:
            found.append(Missing(f"benchmark_model for {abis[0]} (`binary` is for {tool.abi()})", GET_BINARY))
    return found


def run(job: Job) -> list[Result]:
    """Measures the files, by turns."""
    phone = find_device(job.options)
    if isinstance(phone, Missing):
        return [unavailable(file, "android", [phone]) for file in job.files]
    try:
        about, before = phone_of(phone), state_of(phone)
    except AdbError as error:
        return [unavailable(file, "android", [Missing("an answer of the phone", str(error))]) for file in job.files]
    job.progress(f"{about.name}: {before}")
    if job.options.get("runner") == "app":
        return android_app.run(job, phone, about, before)
    tool = tool_of(job.options)
    if isinstance(tool, Missing):
        return [unavailable(file, "android", [tool]) for file in job.files]
    return ToolSession(job, phone, about, before, tool).run()
