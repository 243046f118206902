"""A row of a benchmark in a process of its own: a crash is a row, too."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from flavors import environment


def row(script: str, name: str, flavor: str, timeout: float, *arguments: str) -> dict[str, Any]:
    """What `script NAME ARGUMENTS` printed last, as JSON, with all its seconds; or the reason why there is nothing."""
    command = [sys.executable, str(Path(__file__).with_name(script)), name, *arguments]
    empty = {"name": name, "stages": {}, "seconds": {}}
    start = time.perf_counter()
    try:
        own = environment(flavor, TF_NUM_INTRAOP_THREADS="1")  # one core each: rows run side by side
        child = subprocess.run(command, env=own, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return {**empty, "reason": f"not done after {timeout:.0f} s", "total": timeout}
    total = round(time.perf_counter() - start, 1)
    lines = child.stdout.strip().splitlines()
    if child.returncode == 0 and lines:
        return {**json.loads(lines[-1]), "total": total}
    died = signal.Signals(-child.returncode).name if child.returncode < 0 else f"status {child.returncode}"
    said = (child.stderr.strip().splitlines() or [""])[-1][:200]
    return {**empty, "reason": f"process died: {died}: {said}", "total": total}
