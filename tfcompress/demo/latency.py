"""Median latency of files on this machine, in a process of its own: `python -m tfcompress.demo.latency FILE...`."""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np


def measure(files: Sequence[Path], *, runs: int = 200, timeout: float = 120.0) -> list[float]:
    """Median milliseconds of one inference, files by turns so that a busy moment meets them all.

    Args:
        files: `.tflite` files with a batch of one.
        runs: inferences of each file.
        timeout: seconds after which the process is ended.

    Returns:
        One median for each file, in milliseconds, on one thread of the optimized kernels.

    Raises:
        RuntimeError: the process died or took too long; holds the last line it wrote.
    """
    command = [sys.executable, "-m", "tfcompress.demo.latency", str(runs), *map(str, files)]
    try:
        child = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{runs} inferences of {len(files)} files took more than {timeout:.0f} seconds") from error
    if child.returncode:
        last = (child.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"the runtime ended with status {child.returncode}: {last}")
    return [float(value) for value in json.loads(child.stdout)]


def _medians(runs: int, paths: Sequence[str]) -> list[float]:
    from ai_edge_litert.interpreter import Interpreter

    interpreters = [Interpreter(model_path=path, num_threads=1) for path in paths]
    random = np.random.default_rng(0)
    for interpreter in interpreters:
        interpreter.allocate_tensors()
        for details in interpreter.get_input_details():
            kind = np.dtype(details["dtype"])
            values = random.integers(0, 128, details["shape"]) if kind.kind in "ui" else random.random(details["shape"])
            interpreter.set_tensor(details["index"], values.astype(kind))
        interpreter.invoke()
    times = np.empty((runs, len(interpreters)))
    for row in times:
        for i, interpreter in enumerate(interpreters):
            start = time.perf_counter()
            interpreter.invoke()
            row[i] = time.perf_counter() - start
    return [float(value) for value in np.median(times, axis=0) * 1e3]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_medians(int(sys.argv[1]), sys.argv[2:])))
