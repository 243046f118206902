"""What an engine measures of itself, inside its own process."""

import contextlib
import gc
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

_STATUS = Path("/proc/self/status")


def timed(call: Callable[[], object], runs: int, prepare: Callable[[int], None] = lambda number: None) -> np.ndarray:
    """Milliseconds of each of `runs` calls; `prepare(number)` comes before each and is not timed.

    The garbage collector stands still meanwhile.
    """
    times = np.empty(runs, np.int64)
    collected = gc.isenabled()
    gc.disable()
    try:
        for number in range(runs):
            prepare(number)
            begin = time.perf_counter_ns()
            call()
            times[number] = time.perf_counter_ns() - begin
    finally:
        if collected:
            gc.enable()
    return times / 1e6


def overhead(runs: int = 1_000) -> float:
    """Milliseconds that timing adds to each call: the median of a call that does nothing."""
    return float(np.median(timed(_nothing, runs)))


def _nothing() -> None:
    pass


class Memory:
    """Resident bytes above those at the time of making; Linux only, else nothing is known."""

    def __init__(self) -> None:
        # Lets the kernel forget the peak of what was imported before.
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        self._before = _resident("VmRSS")

    def peak(self) -> int | None:
        """The most that there was since; None where the system does not tell."""
        peak = _resident("VmHWM")
        return None if peak is None or self._before is None else max(0, peak - self._before)


class TimedEngine:
    """What engines in a child process share: subclasses feed the inputs of a turn, and infer."""

    _memory: Memory

    def _feed(self, number: int) -> None:
        raise TypeError(f"{type(self).__name__} must define _feed")

    def _invoke(self) -> Any:
        raise TypeError(f"{type(self).__name__} must define _invoke")

    def time(self, arrays: Mapping[str, np.ndarray], *, runs: int, warm: float = 0.0) -> Any:
        """Times inferences, each of the next inputs; feeding them is not timed.

        Args:
            arrays: none.
            runs: inferences.
            warm: seconds of inferences before, one at least, which do not count; 0 for none.

        Returns:
            {}, {"times": milliseconds}.
        """
        begin, spent = time.monotonic(), -1.0
        while spent < warm and warm:
            timed(self._invoke, 1, self._feed)
            spent = time.monotonic() - begin
        return {}, {"times": timed(self._invoke, runs, self._feed)}

    def memory(self, arrays: Mapping[str, np.ndarray]) -> Any:
        """{"peak": bytes, or None}."""
        return {"peak": self._memory.peak()}, {}


def _resident(entry: str) -> int | None:
    if sys.platform != "linux":
        return None
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith(entry + ":"):
                return int(line.split()[1]) * 1024
    return None
