"""Target "ssh": a Linux board over OpenSSH, through LiteRT for Python on the board."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tflite_export.bench.check import SECONDS, TIMES, checked, judged
from tflite_export.bench.inputs import Feeds, feeds
from tflite_export.bench.job import Job, Missing, Named
from tflite_export.bench.outcome import failed, outcome, unavailable
from tflite_export.bench.result import OperationTime, Result
from tflite_export.bench.settings import positive
from tflite_export.bench.ssh_board import PACKAGES, Board, BoardError, RemoteProcess
from tflite_export.bench.stats import noise, paired_ratio, summary
from tflite_export.errors import ExportError

SUMMARY = "a Linux board over OpenSSH: LiteRT's interpreter (XNNPACK, builtin or reference kernels) or CompiledModel"
ACCELERATORS = ("xnnpack", "builtin", "reference", "compiled-cpu")
OPTIONS: Mapping[str, str] = {
    "device": "the board, as ssh knows it: user@host, or a Host of the ssh configuration",
    "port": "of the ssh server",
    "identity": "path of the private key",
    "config": "path of an ssh configuration, instead of the user's own",
    "python": "path of the Python on the board; when left out, that of `setup`, else python3",
    "setup": "true makes a virtual environment with ai-edge-litert on the board, in ~/.cache/tflite_export/venv",
    "packages": f"what `setup` installs, arguments of pip; {PACKAGES!r} when left out",
    "timeout": "seconds that one step (opening a file, a round of inferences) may take, 300 when left out",
}
_ROUNDS = 10
_WARM_SECONDS, _AGAIN_SECONDS = 0.25, 0.005
_PROFILE_RUNS = 20
_SETUP_SECONDS = 1800.0
# Bits of the Raspberry Pi's `vcgencmd get_throttled`, since it was started.
_THROTTLED = {16: "too little voltage", 17: "a capped clock", 18: "throttling", 19: "the limit of temperature"}


def missing(options: Mapping[str, Any]) -> list[Missing]:
    """What a job with these options lacks: ssh, the board, its Python, LiteRT on it.

    Raises:
        ValueError: an option has a wrong value.
    """
    timeout, setup = positive(options, "timeout", 300.0), _setup(options)
    try:
        board = Board(options)
        lacking = board.lacking(board.facts(timeout=min(timeout, 60.0)), setup=setup)
    except BoardError as error:
        return [error.lacks]
    return [] if lacking is None else [lacking]


def run(job: Job) -> list[Result]:
    """Measures the files by turns, each in a process of its own on the board."""
    timeout = positive(job.options, "timeout", 300.0)
    try:
        board = Board(job.options)
        facts = board.facts(timeout=60.0)
        if _setup(job.options) and not facts.get("litert"):
            job.progress(f"{board.device}: a virtual environment with LiteRT is made")
            board.set_up(str(job.options.get("packages") or PACKAGES), timeout=max(timeout, _SETUP_SECONDS))
            facts = board.facts(timeout=60.0)
        lacking = board.lacking(facts, setup=False)
        if lacking is not None:
            raise BoardError(lacking)
    except BoardError as error:
        return [unavailable(file, "ssh", [error.lacks]) for file in job.files]
    return _Session(job, board, facts, timeout).run()


@dataclass
class _Run:
    """What is known of one file while it is measured."""

    file: Named
    child: RemoteProcess | None = None
    feeds: Feeds | None = None
    opened: Mapping[str, Any] = field(default_factory=dict)
    first: float | None = None
    turns: list[list[float]] = field(default_factory=list)
    peak: int | None = None
    outputs: Mapping[str, np.ndarray] = field(default_factory=dict)
    error: ExportError | ValueError | None = None


class _Session:
    """One job on one board."""

    def __init__(self, job: Job, board: Board, facts: Mapping[str, Any], timeout: float) -> None:
        self._job, self._board, self._before, self._after, self._timeout = job, board, facts, facts, timeout
        self._accelerator = job.accelerator or ACCELERATORS[0]
        self._runs = [_Run(file) for file in job.files]

    def run(self) -> list[Result]:
        interrupted: KeyboardInterrupt | None = None
        with contextlib.ExitStack() as stack:
            try:
                self._measure(stack)
            except KeyboardInterrupt as error:
                interrupted = error
        results = []
        for one in self._runs:
            if interrupted is not None and not one.turns and one.error is None:
                continue
            result = self._result(one)
            if result.status == "ok" and interrupted is None:
                result = self._more(one, result)
            self._job.finished(result)
            results.append(result)
        if interrupted is not None:
            raise interrupted
        return results

    def _measure(self, stack: contextlib.ExitStack) -> None:
        for one in self._runs:
            self._job.progress(f"{one.file.name}: opened on {self._board.device}")
            with self._blaming(one):
                self._open(one, stack)
        rounds = min(_ROUNDS, self._job.runs)
        for number in range(rounds):
            count = self._job.runs // rounds + (number < self._job.runs % rounds)
            self._job.progress(f"round {number + 1} of {rounds}")
            for one in self._runs:
                with self._blaming(one) as child:
                    if child is not None:
                        times = child.call("time", runs=count, warm=_AGAIN_SECONDS)[1]["times"]
                        one.turns.append(times.tolist())
        for one in self._runs:
            with self._blaming(one) as child:
                if child is not None:
                    one.peak = child.call("memory")[0]["peak"]
                    one.outputs = child.call("outputs", seconds=SECONDS)[1]
        with contextlib.suppress(BoardError):
            self._after = self._board.facts(timeout=60.0)

    @contextlib.contextmanager
    def _blaming(self, one: _Run) -> Iterator[RemoteProcess | None]:
        """The file's worker, or None when the file has failed before; makes a failure that of the file."""
        try:
            yield one.child if one.error is None else None
        except (ExportError, ValueError) as error:
            one.error = one.error or error

    def _open(self, one: _Run, stack: contextlib.ExitStack) -> None:
        one.feeds = feeds(one.file.content, self._job.samples).head(TIMES)
        child = RemoteProcess(self._board, one.file.content, timeout=self._timeout)
        one.child = child
        stack.enter_context(child)
        compiled = self._accelerator.startswith("compiled-")
        one.opened = child.call(
            "open",
            one.feeds.arrays,
            engine="compiled" if compiled else "interpreter",
            path="model.tflite",
            kernels=self._accelerator.removeprefix("compiled-"),
            threads=self._job.threads,
            times=one.feeds.times,
        )[0]
        one.first = float(child.call("time", runs=1)[1]["times"][0])
        child.call("time", runs=0, warm=_WARM_SECONDS)

    def _result(self, one: _Run) -> Result:
        cores, machine = self._before.get("cores"), self._before.get("machine")
        common: dict[str, Any] = {
            "device": f"{self._before.get('model') or self._board.device} ({cores} cores, {machine})",
            "runtime": "LiteRT CompiledModel" if self._accelerator.startswith("compiled-") else "LiteRT Interpreter",
            "version": str(self._before.get("litert", "")),
            "threads": self._job.threads,
        }
        if isinstance(one.error, BoardError):
            return unavailable(one.file, "ssh", [one.error.lacks], **common)
        if one.error is not None:
            hint = ""
            if self._accelerator.startswith("compiled-") and "SIGILL" in str(one.error):
                hint = "; CompiledModel needs ARMv8.1, use accelerator='xnnpack' on older processors"
            return failed(one.file, "ssh", f"{one.error}{hint}", **common)
        times = [value for turn in one.turns for value in turn]
        figures: dict[str, Any] = summary(times)
        count = one.opened["operations"]
        delegate = {
            "xnnpack": f"XNNPACK ({one.opened.get('delegated')} of {count} operations)",
            "compiled-cpu": f"XNNPACK ({'all' if one.opened.get('accelerated') else 'some of'} {count} operations)",
        }
        return outcome(
            one.file,
            "ssh",
            **common,
            **figures,
            delegate=delegate.get(self._accelerator, f"none ({self._accelerator} kernels)"),
            runs=len(times),
            init=one.opened["init"],
            first=one.first,
            peak_memory=one.peak,
            counts={"overhead (us)": round(1e3 * one.opened["overhead"], 3)},
            ratio=paired_ratio(one.turns, self._runs[0].turns) if len(self._runs) > 1 else None,
            warnings=(*remarks(self._before, self._after), *noise(figures.get("spread"), _load(self._after))),
        )

    def _more(self, one: _Run, result: Result) -> Result:
        """The result with the check of its outputs and, when asked for, the profile."""
        if one.feeds is not None and one.outputs:
            self._job.progress(f"{one.file.name}: reference kernels")
            result = judged(result, checked(one.file.content, one.feeds, one.outputs, timeout=self._timeout))
        if not self._job.profile:
            return result
        kernels = {"xnnpack": "xnnpack", "compiled-cpu": "xnnpack", "builtin": "builtin"}.get(self._accelerator)
        rows: list[Any] = []
        reason = f"no profile: LiteRT has none for {self._accelerator!r}"
        if kernels is not None and one.feeds is not None:
            self._job.progress(f"{one.file.name}: profile")
            given = {"path": "model.tflite", "kernels": kernels, "threads": self._job.threads, "times": one.feeds.times}
            try:
                with RemoteProcess(self._board, one.file.content, timeout=self._timeout) as child:
                    child.call("open", one.feeds.arrays, engine="profile", **given)
                    rows, reason = child.call("profile", runs=_PROFILE_RUNS)[0]["rows"], ""
            except ExportError as error:
                reason = f"no profile: {error}"
        operations = tuple(OperationTime(kind, name, where, count) for kind, name, where, count in rows)
        return replace(result, operations=operations, warnings=(*result.warnings, *([reason] if reason else [])))


def remarks(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What a reader of the times must know about the board: its clock, its heat, its power."""
    notes = []
    governors = [one for one in before.get("governors", ()) if one]
    if governors and governors != ["performance"]:
        notes.append(
            f"the clock changes while it measures (governor {', '.join(governors)}): "
            "sudo cpupower frequency-set -g performance"
        )
    celsius, later = before.get("celsius"), after.get("celsius")
    if celsius is not None and later is not None:
        notes.append(f"board: {celsius:.0f} C, after: {later:.0f} C")
    text = str(after.get("throttled") or "0x0")
    bits = int(text, 16) if text.startswith("0x") else 0
    had = [what for bit, what in _THROTTLED.items() if bits >> bit & 1]
    if had:
        notes.append(f"since it was started the board has had {', '.join(had)}: see to its power supply and cooling")
    return notes


def _load(facts: Mapping[str, Any]) -> dict[str, float] | None:
    if facts.get("load") is None or not facts.get("cores"):
        return None
    return {"load": float(facts["load"]), "cores": float(facts["cores"])}


def _setup(options: Mapping[str, Any]) -> bool:
    value = options.get("setup") or False
    known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if not isinstance(value, bool) and str(value).lower() not in known:
        raise ValueError(f"`setup` must be true or false. Received: setup={value!r}")
    return value if isinstance(value, bool) else known[str(value).lower()]
