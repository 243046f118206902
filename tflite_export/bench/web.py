"""Target "web": the WebAssembly runtimes LiteRT.js and tfjs-tflite, under Node and in a headless browser."""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tflite_export.bench.cache import cache_folder
from tflite_export.bench.host import device
from tflite_export.bench.inputs import Feeds, feeds
from tflite_export.bench.job import Job, Missing, Named
from tflite_export.bench.outcome import failed, unavailable
from tflite_export.bench.result import Result
from tflite_export.bench.settings import positive
from tflite_export.bench.wasm import LITERT, TFJS, comparable, refusal, request_of, result_of
from tflite_export.bench.web_server import PAGE, WebServer, missing_packages
from tflite_export.errors import ExportError

SUMMARY = "WebAssembly in Node or a browser: LiteRT.js and tfjs-tflite"
ACCELERATORS = (LITERT, TFJS, "chromium")
OPTIONS: Mapping[str, str] = {
    "modules": "folder that holds node_modules (default: web in the user's cache folder)",
    "runtime": f"what runs in chromium: {LITERT} (default) or {TFJS}",
    "browser": "path of a Chromium or Chrome (default: the first one on the PATH)",
    "timeout": "seconds that one pass over the files may take; 300",
}
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_NODE = Missing("Node.js", "sudo apt-get install nodejs npm (version 18 or later)")
_CHROMIUM = Missing("Chromium", "sudo apt-get install chromium")
# Outputs of as many inferences come back to be checked.
_TIMES = 8
# Milliseconds that a file runs before it is timed: see `browser/measure.mjs`.
_WARM = 1000
_Ask = Callable[[dict[str, Any], Sequence[bytes]], dict[str, Any]]


def modules_folder(options: Mapping[str, Any]) -> Path:
    """The folder that holds node_modules."""
    return Path(options["modules"]).resolve() if options.get("modules") else cache_folder("web")


def missing(options: Mapping[str, Any]) -> list[Missing]:
    """The two packages, or both Node and Chromium; which of the latter a job needs depends on its accelerator."""
    found = missing_packages(modules_folder(options))
    if shutil.which("node") is None and _browser(options) is None:
        found.append(_NODE)
    return found


def run(job: Job) -> list[Result]:
    """Measures files by turns, in one process.

    Of several files each is first tried alone: what one does to the runtime must not be blamed on the next.

    Raises:
        ValueError: an option has a wrong value.
    """
    accelerator = job.accelerator or ACCELERATORS[0]
    timeout = positive(job.options, "timeout", 300.0)
    kind = job.options.get("runtime", LITERT) if accelerator == "chromium" else accelerator
    if kind not in (LITERT, TFJS):
        raise ValueError(f"`runtime` must be {LITERT!r} or {TFJS!r}. Received: runtime={kind!r}")
    lacks = _absent(accelerator, job.options)
    if lacks is not None:
        return [_finished(job, unavailable(file, "web", [lacks])) for file in job.files]
    ask = _in_browser(job, kind, timeout) if accelerator == "chromium" else _in_node(job, kind, timeout)
    return _measured(job, kind, ask)


def demo(
    modules: str | os.PathLike[str] | None = None, *, port: int = 0, started: Callable[[str], object] = webbrowser.open
) -> None:
    """Serves the page on which a `.tflite` file can be dropped, on this machine alone, until it is interrupted.

    Args:
        modules: the folder that holds node_modules; "web" in the user's cache folder when left out.
        port: to listen on; any free one for 0.
        started: called with the page's address once it is served; opens the user's browser when left out.

    Raises:
        ExportError: the two runtimes are not installed; the message holds the command.
        OSError: the port is taken.

    >>> demo(port=8080, started=print)                                           # doctest: +SKIP
    http://127.0.0.1:8080/
    """
    folder = modules_folder({"modules": modules})
    if lacks := missing_packages(folder):
        raise ExportError(str(lacks[0]))
    with WebServer(folder, port=port) as server, contextlib.suppress(KeyboardInterrupt):
        started(server.address)
        server.wait()


def _absent(accelerator: str, options: Mapping[str, Any]) -> Missing | None:
    if accelerator == "chromium":
        return _CHROMIUM if _browser(options) is None else None
    return _NODE if shutil.which("node") is None else None


def _browser(options: Mapping[str, Any]) -> str | None:
    wanted = (str(options["browser"]),) if options.get("browser") else _BROWSERS
    return next((path for name in wanted if (path := shutil.which(name))), None)


def _measured(job: Job, kind: str, ask: _Ask) -> list[Result]:
    results: dict[str, Result] = {}
    fields: dict[str, Any] = {"device": device(), "runtime": _spoken(kind), "threads": 1}
    tried: dict[str, tuple[Named, Feeds, dict[str, Any]]] = {}
    alone = len(job.files) == 1
    for file in job.files:
        try:
            if reason := refusal(file.content, kind):
                raise ExportError(reason)
            given = comparable(file.content, feeds(file.content, job.samples, times=_TIMES).head(_TIMES))
            whole = request_of([file], [given], job.runs, profile=job.profile, warm=_WARM)
            request = whole if alone else {**whole, "runs": 1, "profile": False, "warm": 0}
            answer = ask(request, [file.content])
        except (ExportError, ValueError) as error:
            results[file.name] = _finished(job, failed(file, "web", error, **fields))
            continue
        fields |= {
            "device": f"{device()}, {answer['place']}",
            "version": answer["version"],
            "delegate": "XNNPACK in WebAssembly (SIMD)",
        }
        tried[file.name] = file, given, answer["results"][0]
    timed = _by_turns(job, tried, ask) if not alone else {name: one[2] for name, one in tried.items()}
    first = timed.get(job.files[0].name) if not alone else None
    for name, (file, given, answer) in tried.items():
        job.progress(f"{name}: reference kernels")
        result = result_of(file, given, answer, timed.get(name), first, fields)
        results[name] = _finished(job, _remarked(result, job, kind))
    return [results[file.name] for file in job.files]


def _by_turns(job: Job, tried: Mapping[str, tuple[Named, Feeds, dict]], ask: _Ask) -> dict[str, dict[str, Any]]:
    """name -> answer of the files that ran alone, timed together."""
    good = [(file, given.head(1)) for file, given, answer in tried.values() if "error" not in answer]
    if not good:
        return {}
    files, inputs = zip(*good, strict=True)
    request = request_of(files, inputs, job.runs, profile=job.profile, warm=_WARM)
    try:
        answer = ask(request, [file.content for file, _ in good])
    except ExportError as error:
        return {file.name: {"name": file.name, "error": str(error)} for file, _ in good}
    return {result["name"]: result for result in answer["results"]}


def _remarked(result: Result, job: Job, kind: str) -> Result:
    remarks = []
    if job.threads > 1:
        remarks.append("both runtimes were loaded with one thread")
    if job.profile and kind == LITERT:
        remarks.append("LiteRT.js gives no times of single operations; tfjs-tflite does")
    return replace(result, warnings=(*result.warnings, *remarks)) if remarks else result


def _spoken(kind: str) -> str:
    return "LiteRT.js" if kind == LITERT else "tfjs-tflite"


def _finished(job: Job, result: Result) -> Result:
    job.finished(result)
    return result


def _in_node(job: Job, kind: str, timeout: float) -> _Ask:
    modules = modules_folder(job.options) / "node_modules"

    def ask(request: dict[str, Any], contents: Sequence[bytes]) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            for index, (file, content) in enumerate(zip(request["files"], contents, strict=True)):
                path = Path(folder, f"{index}.tflite")
                path.write_bytes(content)
                file["path"] = str(path)
            return _node([str(PAGE / "node.mjs"), kind, str(modules)], request, timeout, job.progress)

    return ask


def _node(
    arguments: Sequence[str], request: dict[str, Any], timeout: float, progress: Callable[[str], None]
) -> dict[str, Any]:
    child = subprocess.Popen(
        ["node", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        encoding="utf-8", errors="replace", start_new_session=True,
    )  # fmt: skip
    said: list[str] = []

    def listen() -> None:
        for line in child.stderr or ():
            if line.startswith("progress: "):
                progress(line.removeprefix("progress: ").strip())
            elif line.strip():
                said.append(line.strip())

    # A thread of its own for standard error: `communicate` would hold progress back until the end.
    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    killer = threading.Timer(timeout, child.kill)
    killer.start()
    begin = time.monotonic()
    try:
        if child.stdin is not None and child.stdout is not None:
            try:
                child.stdin.write(json.dumps(request))
                child.stdin.close()
            except BrokenPipeError:
                said.append("it did not take the request")
            text = child.stdout.read()
        code = child.wait()
    finally:
        killer.cancel()
        child.kill()
    listener.join(1.0)
    if code and time.monotonic() - begin >= timeout:
        raise ExportError(f"it was not done after {timeout:g} s")
    if code or not text:
        cause = next((line for line in said if "Error" in line), " | ".join(said[-3:]))
        raise ExportError(f"Node ended with status {code}: {cause or 'it said nothing'}")
    answer: dict[str, Any] = json.loads(text)
    return answer


def _in_browser(job: Job, kind: str, timeout: float) -> _Ask:
    browser = str(_browser(job.options))

    def ask(request: dict[str, Any], contents: Sequence[bytes]) -> dict[str, Any]:
        with WebServer(modules_folder(job.options)) as server, tempfile.TemporaryDirectory(
            ignore_cleanup_errors=True
        ) as folder:
            asked = server.post({**request, "runtime": kind}, contents, job.progress)
            with Path(folder, "log").open("wb") as log:
                child = subprocess.Popen(
                    [browser, *_flags(folder), asked.address], stdout=log, stderr=log, start_new_session=True
                )
            try:
                answer, end = None, time.monotonic() + timeout
                while answer is None and child.poll() is None and time.monotonic() < end:
                    answer = asked.answer(0.5)
                answer = answer or asked.answer(0.0)
            finally:
                child.kill()
                child.wait()
            if answer is None:
                said = Path(folder, "log").read_text("utf-8", "replace").strip().splitlines()
                cause = said[-1] if said else "it said nothing"
                raise ExportError(f"{Path(browser).name} gave no answer within {timeout:g} s; its last words: {cause}")
            if "error" in answer:
                raise ExportError(str(answer["error"]))
            return answer

    return ask


def _flags(folder: str) -> list[str]:
    flags = [
        "--headless=new",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-extensions",
        "--no-first-run",
        "--no-default-browser-check",
        "--password-store=basic",
        f"--user-data-dir={folder}/profile",
    ]
    # Chromium's sandbox refuses to start for root, as in most containers; what is opened is this machine's own page.
    return [*flags, "--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else flags
