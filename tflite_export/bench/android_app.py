"""The demo app of this project as the runner on a phone: what it is given and what it gives back.

A folder of the run's own is made in the app's external files, `FILES/RUN`, where FILES is
/sdcard/Android/data/PACKAGE/files. Into it go the models, their inputs, and last `manifest.json`:

    schema       1
    run          name of the run; the folder bears it, and results.json repeats it
    runs         timed inferences of each model, spread over the turns
    turns        in each, every model is timed once, in the order of the list; 1 when there is one model
    threads      of the CPU kernels
    accelerator  "xnnpack", "cpu" (TFLite's own kernels), "gpu" or "nnapi"
    profile      whether operations are to be timed, where the runtime can
    models       list of
        name, sha256
        file       name in the folder
        signature  to be called; "" when the file has none: its first subgraph then
        inputs     list of {name, file}: raw little-endian values of one inference, in the types of the file

The app is started by

    am start -S -n PACKAGE/dev.tfcompress.demo.BenchmarkActivity --es manifest FILES/RUN/manifest.json

and writes `results.json` into the folder, first before the first model and again after each, always whole (a file
beside it that is renamed). It never asks and needs no touch:

    schema       1
    run          as in the manifest
    finished     false until the last model is done
    error        why nothing can be done at all, such as a manifest that it does not understand; else ""
    app, runtime, version    the app's version; such as "TensorFlow Lite" and "2.16.1"
    entries      list of
        name, sha256   as in the manifest
        status         "ok" or "failed", with `reason`
        delegate       what did the work, such as "GPU (12 of 12 operations)"
        runs           timed inferences
        init_ms, first_ms, median_ms, p90_ms, p99_ms, min_ms    numbers, or null
        spread         distance of the quartiles over the median
        ratio          median over the turns of this model's median over the first model's; null for the first
        peak_memory    bytes above those before the model was opened, or null
        outputs        list of {name, file}: raw values of the inference of `inputs`; compared here
        agreement      {against, values, equal, largest, unit} when the app compared them itself, or null
        operations     list of {kind, name, where, ms}
        warnings       list of texts
"""

import json
import logging
import math
import re
import shlex
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from tflite_export.bench.adb import Adb, AdbError
from tflite_export.bench.android_state import Phone, State, remarks, state_of
from tflite_export.bench.check import checked, judged
from tflite_export.bench.inputs import Feeds, feeds
from tflite_export.bench.job import Job, Missing, Named
from tflite_export.bench.outcome import failed, outcome, unavailable
from tflite_export.bench.raw import outputs_of
from tflite_export.bench.result import Agreement, OperationTime, Result
from tflite_export.bench.settings import positive
from tflite_export.flatbuffer import read

SCHEMA = 1
PACKAGE = "dev.tfcompress.demo"
ACTIVITY = "dev.tfcompress.demo.BenchmarkActivity"
ACCELERATORS = ("xnnpack", "cpu", "gpu", "nnapi")
_TURNS = 5
_TIMES = ("init", "first", "median", "p90", "p99", "min")
_log = logging.getLogger(__name__)


def not_installed(phone: Adb, options: Mapping[str, Any]) -> Missing | None:
    """What to do when the app is not on the phone; None when it is.

    Raises:
        ValueError: `package` is no name of a package.
    """
    package = _package(options)
    try:
        found = phone.shell(f"pm path {package}", timeout=30).text
    except AdbError as error:
        return Missing("an answer of the phone", str(error))
    if "package:" in found:
        return None
    return Missing(f"the demo app {package} on the phone", "build it in android_demo/ and `adb install -r` its .apk")


def run(job: Job, phone: Adb, about: Phone, before: State) -> list[Result]:
    """Has the app measure the files.

    Args:
        job: its files, all in one run.
        phone: with the app on it.
        about: the phone.
        before: how it felt before.

    Returns:
        One result a file, in order.
    """
    accelerator = job.accelerator or ACCELERATORS[0]
    common = {"device": about.name, "threads": job.threads, "runtime": "demo app"}
    if accelerator not in ACCELERATORS:
        reason = f"the demo app cannot be told to use {accelerator!r}, but {', '.join(ACCELERATORS)}"
        return [failed(file, "android", reason, **common) for file in job.files]
    package, name = _package(job.options), f"bench_{uuid.uuid4().hex[:12]}"
    folder = f"/sdcard/Android/data/{package}/files/{name}"
    timeout = positive(job.options, "timeout", 300.0)
    given = {file.name: feeds(file.content, job.samples, times=1).head(1) for file in job.files}
    done: dict[str, Result] = {}
    told: dict[str, Any] = {}
    try:
        _send(job, phone, folder, given, {"run": name, "accelerator": accelerator}, timeout)
        for told in _watch(job, phone, package, folder, timeout):
            runtime = f"{told.get('runtime') or 'TFLite'} in the demo app"
            common |= {"runtime": runtime, "version": str(told.get("version", ""))}
            for file in job.files:
                if file.name in told["entries"] and file.name not in done:
                    entry, notes = told["entries"][file.name], remarks(before, state_of(phone))
                    result = read_entry(file, entry, common, notes)
                    if result.status == "ok":
                        raw = _outputs(phone, folder, entry, timeout)
                        result = _compared(file, given[file.name], raw, result) if raw else result
                    done[file.name] = result
                    job.finished(result)
    except AdbError as error:
        gone = [Missing("the phone", str(error))] if error.gone else []
        for file in job.files:
            if file.name not in done:
                row = unavailable(file, "android", gone, **common) if gone else failed(file, "android", error, **common)
                done[file.name] = row
    finally:
        _clean(phone, package, folder)
    reason = told.get("error") or "the app told nothing of this file"
    return [done.get(file.name) or failed(file, "android", reason, **common) for file in job.files]


def read_entry(file: Named, entry: Mapping[str, Any], common: Mapping[str, Any], notes: list[str]) -> Result:
    """The result that an entry of `results.json` tells; "failed" when it says so, or is not as the contract has it."""
    try:
        expected = outcome(file, "android")
        if entry.get("sha256") != expected.sha256:
            return failed(file, "android", "the app measured another file of this name", **common)
        if entry.get("status") != "ok":
            return failed(file, "android", entry.get("reason") or "the app gave no reason", **common)
        times: dict[str, Any] = {name: _number(entry, f"{name}_ms") for name in _TIMES}
        if times["median"] is None:
            return failed(file, "android", "the app timed nothing", **common)
        agreement = entry.get("agreement")
        rows = entry.get("operations") or ()
        peak = _number(entry, "peak_memory")
        return replace(
            expected,
            **common,
            **times,
            runs=int(_number(entry, "runs") or 0),
            delegate=str(entry.get("delegate", "")),
            spread=_number(entry, "spread"),
            ratio=_number(entry, "ratio"),
            throughput=1e3 / times["median"] if times["median"] else None,
            peak_memory=None if peak is None else int(peak),
            agreement=None if agreement is None else Agreement(**agreement),
            operations=tuple(
                OperationTime(str(row["kind"]), str(row["name"]), str(row["where"]), _number(row, "ms") or 0.0)
                for row in rows
            ),
            warnings=(*notes, *map(str, entry.get("warnings") or ())),
        )
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        return failed(file, "android", f"the app's results are not as agreed: {error!r}", **common)


def _package(options: Mapping[str, Any]) -> str:
    package = str(options.get("package") or PACKAGE)
    if not re.fullmatch(r"[A-Za-z]\w*(\.\w+)+", package):
        raise ValueError(f"`package` must be the name of an Android package. Received: package={package!r}")
    return package


def _send(
    job: Job, phone: Adb, folder: str, given: Mapping[str, Feeds], settings: Mapping[str, Any], timeout: float
) -> None:
    made = phone.shell(f"mkdir -p {folder}", timeout=30)
    if made.code:
        raise AdbError(f"{folder} cannot be made on the phone: {made.text.strip()}")
    models = []
    for number, file in enumerate(job.files):
        job.progress(f"{file.name}: copied to the phone")
        phone.push(file.content, f"{folder}/model{number}.tflite", timeout=timeout)
        inputs = []
        for position, (name, array) in enumerate(given[file.name].arrays.items()):
            if array.dtype.kind in "biuf":
                inputs.append({"name": name, "file": f"in{number}_{position}"})
                phone.push(array.tobytes(), f"{folder}/in{number}_{position}", timeout=timeout)
        models.append(
            {
                "name": file.name,
                "sha256": outcome(file, "android").sha256,
                "file": f"model{number}.tflite",
                "signature": read(file.content).signature().key or "",
                "inputs": inputs,
            }
        )
    turns = _TURNS if len(models) > 1 else 1
    manifest = {"schema": SCHEMA, **settings, "runs": job.runs, "turns": turns, "threads": job.threads}
    manifest |= {"profile": job.profile, "models": models}
    phone.push(json.dumps(manifest).encode(), f"{folder}/manifest.json", timeout=timeout)


def _watch(job: Job, phone: Adb, package: str, folder: str, timeout: float) -> Iterator[dict[str, Any]]:
    """Starts the app and waits until it has finished, died, or told nothing new for `timeout` seconds.

    Yields:
        results.json each time that it tells of a further model, with `entries` by name; at last with what went wrong
        in `error`.
    """
    target = shlex.quote(f"{package}/{ACTIVITY}")
    started = phone.shell(f"am start -S -n {target} --es manifest {folder}/manifest.json", timeout=60)
    if started.code or "Error" in started.text:
        raise AdbError(
            f"the app does not start: {started.text.strip().splitlines()[-1] if started.text else 'silence'}"
        )
    told: dict[str, Any] = {"entries": {}, "error": "", "finished": False}
    last, absent, pause = time.monotonic(), 0, 0.25
    while not told["finished"] and not told["error"]:
        time.sleep(pause)
        pause = min(2.0, pause * 1.3)
        seen = phone.shell(f"cat {folder}/results.json 2>/dev/null; echo; echo alive=$(pidof {package})", timeout=60)
        text, _, alive = seen.text.rpartition("alive=")
        known = len(told["entries"])
        told = _read(text, folder.rpartition("/")[2]) or told
        if len(told["entries"]) > known:
            last = time.monotonic()
            job.progress(f"{len(told['entries'])} of {len(job.files)} files measured by the app")
            yield told
        absent = 0 if alive.strip() else absent + 1
        if told["finished"] or told["error"]:
            break
        if absent > 1:
            told["error"] = f"the app died: {_last_words(phone, package)}"
        elif time.monotonic() - last > timeout:
            told["error"] = f"the app did not finish this file within {timeout:g} s and was stopped"
    yield told


def _read(text: str, run: str) -> dict[str, Any] | None:
    """results.json with its entries by name; None while there is none of this run."""
    try:
        told = json.loads(text)
    except json.JSONDecodeError:
        return None
    if not isinstance(told, dict) or told.get("run") != run:
        return None
    if told.get("schema") != SCHEMA:
        return {"entries": {}, "finished": True, "error": f"the app writes schema {told.get('schema')}, not {SCHEMA}"}
    rows = told.get("entries")
    entries = {str(row.get("name")): row for row in rows if isinstance(row, dict)} if isinstance(rows, list) else {}
    return {**told, "entries": entries, "finished": told.get("finished") is True, "error": str(told.get("error") or "")}


def _outputs(phone: Adb, folder: str, entry: Mapping[str, Any], timeout: float) -> dict[str, bytes]:
    """Output's name -> bytes, as the app wrote them."""
    rows = entry.get("outputs") or ()
    return {
        str(row.get("name")): phone.pull(f"{folder}/{row['file']}", timeout=timeout)
        for row in rows
        if isinstance(row, dict) and re.fullmatch(r"[\w.]+", str(row.get("file")))
    }


def _compared(file: Named, given: Feeds, raw: Mapping[str, bytes], result: Result) -> Result:
    arrays = outputs_of(file.content, raw)
    if arrays is None:
        reason = "the outputs that the app wrote do not fit the file's shapes"
        return replace(result, status="failed", reason=reason)
    return judged(result, checked(file.content, given, arrays))


def _clean(phone: Adb, package: str, folder: str) -> None:
    try:
        phone.shell(f"am force-stop {package}", timeout=30)
    except AdbError as error:
        _log.warning("the app could not be stopped: %s", error)
    left = phone.remove(folder)
    if left:
        _log.warning(left)


def _last_words(phone: Adb, package: str) -> str:
    text = phone.shell("logcat -d -b crash -t 40", timeout=30).text
    said = [line.partition(": ")[2].strip() for line in text.splitlines() if ": " in line]
    words = [line for line in said if line and not line.startswith(("at ", "Process:", "PID:"))]
    return " | ".join(words[-3:]) or "it said nothing"


def _number(entry: Mapping[str, Any], name: str) -> float | None:
    value = entry.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        raise ValueError(f"{name} must be a number from 0, it is {value!r}")
    return float(value)
