"""`audit`: what of a file runs on a target, what falls back, what is refused, and why."""

import importlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tflite_export.auditing.asked import Answer, Verdict
from tflite_export.auditing.checks import Obstacle
from tflite_export.auditing.rules import FALLS_BACK, REFUSED, RUNS, VERDICTS, Finding, Rules
from tflite_export.auditing.use import Use
from tflite_export.flatbuffer import File, content_of, name_of, read
from tflite_export.graph import Model
from tflite_export.macs import macs

# Name -> (module of the rules, module of the tool that knows better, if there is one).
TARGETS: Mapping[str, tuple[str, str]] = {
    "xnnpack": ("xnnpack", "partitioner"),
    "gpu": ("gpu", ""),
    "nnapi": ("nnapi", ""),
    "tflm": ("tflm", "micro_interpreter"),
    "ethos-u": ("ethos_u", "vela"),
    "coreml": ("coreml", ""),
    "web": ("web", ""),
    "edgetpu": ("edgetpu", ""),
}


@dataclass(frozen=True)
class Row:
    """One operation.

    Attributes:
        subgraph: number of the subgraph.
        index: its place in the subgraph.
        kind: such as "CONV_2D", or the name of a custom operation.
        name: of its first output: the converter puts the layers' names there.
        verdict: "runs", "falls back" (something slower runs it) or "refused".
        reason: why not better; "" when it runs.
        way_out: what helps; "" when nothing is known to.
        macs: multiply-accumulates of one run.
        source: "rules", or the tool that answered.
        words: of the tool, where it gave any.
    """

    subgraph: int
    index: int
    kind: str
    name: str
    verdict: str
    reason: str
    way_out: str
    macs: int
    source: str
    words: str = ""


@dataclass(frozen=True)
class Audit:
    """What of a file runs on a target; the rows are plain data, str() prints them as tables.

    Attributes:
        name: of the file, its path or "bytes".
        target: as `audit` was asked.
        title: of the accelerator, such as "XNNPACK".
        source: what answered: a tool with its version, or the rules with where they come from.
        install: how to install the tool that would know better; "" when it answered or there is none.
        rows: operations of all subgraphs.
        findings: what is true of the whole file.
    """

    name: str
    target: str
    title: str
    source: str
    install: str
    rows: tuple[Row, ...]
    findings: tuple[Finding, ...]

    @property
    def runs(self) -> bool:
        """Whether the file runs there at all, if need be with operations that fall back."""
        return not any(row.verdict == REFUSED for row in self.rows) and not any(f.stops for f in self.findings)

    @property
    def fully_accelerated(self) -> bool:
        """Whether the accelerator runs every operation."""
        return self.runs and all(row.verdict == RUNS for row in self.rows) and not any(f.slows for f in self.findings)

    @property
    def exit_status(self) -> int:
        """0 when the file runs there, also with operations that fall back; 1 when it does not."""
        return 0 if self.runs else 1

    @property
    def operations(self) -> dict[str, int]:
        """Verdict -> number of operations."""
        return {verdict: sum(row.verdict == verdict for row in self.rows) for verdict in VERDICTS}

    @property
    def macs(self) -> dict[str, int]:
        """Verdict -> multiply-accumulates of one run of each operation."""
        return {verdict: sum(row.macs for row in self.rows if row.verdict == verdict) for verdict in VERDICTS}

    def to_json(self) -> str:
        """Everything as JSON."""
        return json.dumps(
            {
                "name": self.name,
                "target": self.target,
                "runs": self.runs,
                "fully_accelerated": self.fully_accelerated,
                "source": self.source,
                "install": self.install,
                "operations": self.operations,
                "macs": self.macs,
                "findings": [asdict(finding) for finding in self.findings],
                "rows": [asdict(row) for row in self.rows],
            },
            ensure_ascii=False,
        )

    def __str__(self) -> str:
        from tflite_export.auditing.listing import listing

        return listing(self)


def audit(file: File, target: str, *, accelerator: str | None = None, tools: bool = True) -> Audit:
    """Says for every operation of a file whether a target runs it, and if not why, before a device is at hand.

    Rules taken from the runtime's sources answer; where a tool of the runtime can be asked on this machine its answer
    counts: LiteRT's partitioner for "xnnpack", tflite-micro's interpreter for "tflm", Vela for "ethos-u". Tools run in
    processes of their own.

    Args:
        file: bytes, a path, or an object with `.content` such as `Exported`.
        target: "xnnpack", "gpu", "nnapi", "tflm", "ethos-u", "coreml", "web" or "edgetpu".
        accelerator: for "ethos-u" the kind, such as "ethos-u65-256"; "ethos-u55-128" when left out.
        tools: ask the tool, too; without, the rules answer alone.

    Returns:
        Rows with verdicts and totals; prints as tables.

    Raises:
        ValueError: not a whole TFLite file, or no such target or accelerator; the message lists those there are.
        OSError: the path cannot be read.

    >>> found = audit("model.tflite", "tflm")                # doctest: +SKIP
    >>> found.runs, found.operations                         # doctest: +SKIP
    (True, {'runs': 9, 'falls back': 0, 'refused': 0})
    """
    if target not in TARGETS:
        raise ValueError(f"`target` must be one of {list(TARGETS)}. Received: target={target!r}")
    content = content_of(file)
    home, tool = TARGETS[target]
    kind, rules = _rules(importlib.import_module(f"tflite_export.auditing.{home}"), accelerator)
    model = read(content, name=name_of(file))
    answer = Answer("")
    if tools and tool:
        answer = importlib.import_module(f"tflite_export.auditing.{tool}").ask(content, model, rules, kind)
    rows = _rows(model, rules, answer)
    findings = tuple(finding for look in rules.looks if (finding := look(model)) is not None)
    if answer.stops:
        findings = (Finding(answer.stops, stops=True), *findings)
    notes = tuple(Finding(note) for note in answer.notes)
    source = answer.source or f"rules: {rules.source}"
    return Audit(name_of(file), target, rules.title, source, answer.command, rows, (*findings, *notes))


def _rules(home: Any, accelerator: str | None) -> tuple[str, Rules]:
    """(kind of the device, its rules)."""
    kinds: dict[str, Rules] = getattr(home, "ACCELERATORS", {})
    if accelerator is None:
        return next(iter(kinds.items()), ("", home.RULES))
    if accelerator not in kinds:
        wanted = f"one of {list(kinds)}" if kinds else "left out for this target"
        raise ValueError(f"`accelerator` must be {wanted}. Received: accelerator={accelerator!r}")
    return accelerator, kinds[accelerator]


def _rows(model: Model, rules: Rules, answer: Answer) -> tuple[Row, ...]:
    rows = []
    for graph in model.subgraphs:
        broken = started = False
        for op in graph.operators:
            use = Use(graph, op)
            told = answer.verdicts.get((graph.index, op.index))
            verdict, found = _judge(use, rules, told)
            if rules.chained and verdict == RUNS and broken:
                verdict, found = FALLS_BACK, _BEHIND
            started |= verdict == RUNS
            broken |= started and verdict != RUNS
            output = use.output()
            rows.append(
                Row(
                    subgraph=graph.index,
                    index=op.index,
                    kind=op.kind,
                    name=output.name if output is not None else "",
                    verdict=verdict,
                    reason=found.reason if found else "",
                    way_out=found.way_out if found else "",
                    macs=macs(graph, op),
                    source="rules" if told is None else answer.source,
                    words=told.reason if told is not None else "",
                )
            )
    return tuple(rows)


_BEHIND = Obstacle(
    "it lies behind an operation that stays on the host's processor", "move what falls back to the end of the model"
)


def _judge(use: Use, rules: Rules, told: Verdict | None) -> tuple[str, Obstacle | None]:
    """(verdict, why not better). The tool decides; the rules know the reason in the user's words."""
    verdict, found = rules.judge(use)
    if told is None:
        return verdict, found
    if told.accelerated:
        return RUNS, None
    if verdict == RUNS:
        verdict, found = rules.degrade(use, Obstacle(told.reason or f"{rules.title} leaves it out; no rule says why"))
    return (REFUSED if told.refused else verdict), found
