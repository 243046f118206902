"""The board's side of target "ssh": sent there as text and run by its Python, so nothing but the standard library here.

    facts    prints one line of JSON: what the machine is, how it feels, and what its Python has
    work     unpacks what comes first on standard input into a folder of its own, starts the worker in it, hands it the
             rest of standard input and output, and deletes the folder when the worker or the connection ends

What comes first is, in one frame: 8 bytes, the length of a JSON list of [name, bytes]; the list; the files' contents.
"""

import glob
import json
import os
import platform
import select
import shutil
import subprocess
import sys
import tempfile

MARK = "tflite_export_facts="
BEGIN = b"tflite_export_begin\n"


def facts() -> dict:
    """All that is known of this machine; an entry that cannot be found out is left out."""
    found: dict = {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()}
    found["executable"] = sys.executable
    if hasattr(os, "getloadavg"):
        found["load"] = os.getloadavg()[0]
    found["model"] = _text("/proc/device-tree/model") or _text("/sys/class/dmi/id/product_name") or _cpu()
    found["governors"] = sorted({_text(p) for p in glob.glob("/sys/devices/system/cpu/cpu*/cpufreq/scaling_governor")})
    heat = [_text(path) for path in glob.glob("/sys/class/thermal/thermal_zone*/temp")]
    degrees = [int(text) / 1000.0 for text in heat if text.lstrip("-").isdigit()]
    if degrees:
        found["celsius"] = max(degrees)
    if shutil.which("vcgencmd"):
        said = subprocess.run(["vcgencmd", "get_throttled"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        found["throttled"] = said.stdout.decode("ascii", "replace").strip().rpartition("=")[2]
    try:
        from importlib.metadata import version

        found["litert"] = version("ai-edge-litert")
    except Exception:  # not there, or a Python before 3.8: the caller tells the two apart by `python`
        pass
    return found


def _text(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read().strip("\0\n ")
    except OSError:
        return ""


def _cpu() -> str:
    for line in _text("/proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model", "Hardware"):
            return value.strip()
    return platform.processor() or platform.machine()


def _exactly(size: int) -> bytes:
    """The next bytes of standard input, without a buffer that would swallow what is the worker's."""
    parts = []
    while size:
        part = os.read(0, min(size, 1 << 20))
        if not part:
            sys.exit("the connection ended early")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def work() -> int:
    """Runs the worker; returns its exit status as a shell would tell it."""
    folder = tempfile.mkdtemp(prefix="tflite_export_")
    try:
        for name, size in json.loads(_exactly(int.from_bytes(_exactly(8), "little")).decode()):
            with open(os.path.join(folder, name), "wb") as file:
                file.write(_exactly(size))
        environment = dict(os.environ, PYTHONPATH=os.path.join(folder, "package.zip"))
        command = [sys.executable, "-m", "tflite_export.bench.worker"]
        os.write(1, BEGIN)  # what stands before it was printed by the user's login files
        worker = subprocess.Popen(command, cwd=folder, env=environment)
        # When the other side is gone, a runtime that hangs would stay for ever: standard output tells.
        watch = select.poll()
        watch.register(1, 0)
        while worker.poll() is None:
            if watch.poll(200) and worker.poll() is None:
                worker.kill()
                worker.wait()
        return worker.returncode if worker.returncode >= 0 else 128 - worker.returncode
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    if sys.argv[1] == "facts":
        sys.stdout.write(MARK + json.dumps(facts()) + "\n")
    else:
        sys.exit(work())
