"""What a target runs, as data; and the verdict that follows for one operator."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from tflite_export.auditing.checks import Check, Obstacle, unpacks_constant
from tflite_export.auditing.use import Use
from tflite_export.graph import Model

RUNS, FALLS_BACK, REFUSED = "runs", "falls back", "refused"
VERDICTS = (RUNS, FALLS_BACK, REFUSED)


@dataclass(frozen=True)
class Finding:
    """Something about the whole file.

    Attributes:
        text: what it is.
        way_out: what helps; "" when nothing is known to, or it is only worth knowing.
        stops: whether the file does not run there because of it.
        slows: whether the file is not fully accelerated because of it.
    """

    text: str
    way_out: str = ""
    stops: bool = False
    slows: bool = False


Look = Callable[[Model], Finding | None]


@dataclass(frozen=True)
class Rules:
    """What one target runs.

    Attributes:
        target: its name, as `audit` takes it.
        title: of the accelerator, as tables call it.
        source: where the rules come from.
        operations: kind -> conditions under which it runs; kinds that are not in it do not.
        every: conditions for every operator.
        custom: names of custom operations that run.
        rest: of what computes the operators that the accelerator does not take; None when nothing does.
        unpacks: float16 and sparse constants are spelled out once, when the file is opened.
        looks: at the whole file.
        chained: the accelerator takes one stretch of the graph: behind the first operator left out nothing runs on it.
    """

    target: str
    title: str
    source: str
    operations: Mapping[str, tuple[Check, ...]]
    every: tuple[Check, ...] = ()
    custom: frozenset[str] = frozenset()
    rest: "Rules | None" = None
    unpacks: bool = False
    looks: tuple[Look, ...] = ()
    chained: bool = False

    def obstacle(self, use: Use) -> Obstacle | None:
        """What keeps an operator from the accelerator; None when nothing does."""
        if use.op.is_custom:
            if use.op.kind in self.custom:
                return None
            return Obstacle(f"{self.title} knows no custom operation {use.op.kind!r}", _custom_way(use.op.kind))
        if self.unpacks and unpacks_constant(use):
            return None
        checks = self.operations.get(use.op.kind)
        if checks is None:
            return Obstacle(f"{self.title} has no {use.op.kind}")
        return next((found for check in (*self.every, *checks) if (found := check(use)) is not None), None)

    def judge(self, use: Use) -> tuple[str, Obstacle | None]:
        """(verdict, what stands in the way of a better one)."""
        return self.degrade(use, self.obstacle(use))

    def degrade(self, use: Use, found: Obstacle | None) -> tuple[str, Obstacle | None]:
        """The verdict when `found` keeps an operator from the accelerator: something else may run it."""
        if found is None:
            return RUNS, None
        if self.rest is None:
            return REFUSED, found
        deeper = self.rest.obstacle(use)
        return (FALLS_BACK, found) if deeper is None else (REFUSED, deeper)


def _custom_way(kind: str) -> str:
    if kind.startswith("Flex"):
        return "write the layer with operations that TFLite has, or link the Flex delegate"
    return "register the operation in your program, or replace the layer"


def table(*rows: tuple[str, tuple[Check, ...]]) -> dict[str, tuple[Check, ...]]:
    """kind -> checks, out of rows that name several kinds separated by spaces."""
    return {kind: checks for kinds, checks in rows for kind in kinds.split()}


def uses(model: Model) -> Iterable[Use]:
    """Every operator of a file."""
    return (Use(graph, op) for graph in model.subgraphs for op in graph.operators)
