"""Asks tflite-micro's interpreter: it opens the file and runs it once on zeros."""

import importlib.util
import re
from importlib.metadata import PackageNotFoundError, version

from tflite_export.auditing.asked import Answer, Said, Verdict, last_words, run
from tflite_export.auditing.rules import Rules
from tflite_export.bench.arena import INSTALL
from tflite_export.graph import Model

_TOTAL = re.compile(r"Arena allocation total (\d+) bytes")
_NODE = re.compile(r"Node (\S+) \(number (\d+)\) failed to (prepare|invoke)")
_UNKNOWN = re.compile(r"Didn't find op for builtin opcode '(\w+)'")
_BY_ZERO = "Division by 0"
_ROOM = 1 << 20
_MOST_ROOM = (1 << 31) - 16


def ask(content: bytes, model: Model, rules: Rules, kind: str) -> Answer:
    """What the interpreter makes of the file; rules speak for operators that it did not come to."""
    if importlib.util.find_spec("tflite_micro") is None:
        return Answer("", command=INSTALL)
    try:
        source = f"tflite-micro {version('tflite-micro')}'s interpreter on this machine"
    except PackageNotFoundError:
        source = "tflite-micro's interpreter on this machine"
    said = run(["tflite_export.bench.arena", str(_room(model, len(content)))], content)
    if said.status == 0:
        everything = {(g.index, op.index): Verdict(True) for g in model.subgraphs for op in g.operators}
        sizes = _TOTAL.findall(said.err)
        note = f"memory (arena) on this 64-bit machine: {int(sizes[-1]):,} bytes" if sizes else ""
        return Answer(source, everything, notes=(note,) if note else ())
    if said.status is None:
        return Answer("", command=f"{INSTALL}; it gave {said.cause()}")
    return _refusal(source, model, said)


def _room(model: Model, size: int) -> int:
    """An array that suffices for every tensor at once, twice; what is not touched of it costs nothing."""
    tensors = [tensor for graph in model.subgraphs for tensor in graph.tensors]
    values = sum(tensor.size * 8 for tensor in tensors if tensor.data is None)
    return min(2 * values + size + 2048 * len(tensors) + _ROOM, _MOST_ROOM)


def _refusal(source: str, model: Model, said: Said) -> Answer:
    """Which operators the interpreter named, and its words."""
    told = said.err.partition("Traceback (most recent call last)")[0] or said.err
    text = "\n".join(line for line in told.splitlines() if "[RecordingMicroAllocator]" not in line)
    verdicts: dict[tuple[int, int], Verdict] = {}
    if (node := _NODE.search(text)) is not None:
        kind, number = node.group(1), int(node.group(2))
        words = last_words(text[: node.start()]) if text[: node.start()].strip() else node.group(0)
        if node.group(3) == "invoke" and _BY_ZERO in words:
            return Answer(source, notes=(f"operation {number} ({kind}) divides by the zeros it was tried with",))
        for graph in model.subgraphs[:1]:
            # Operators are prepared in order: those before the one that fails were taken.
            for op in graph.operators[: number + 1]:
                failed = op.index == number and op.kind == kind
                verdicts[graph.index, op.index] = Verdict(not failed, words if failed else "", refused=failed)
        return Answer(source, verdicts, stops=f"operation {number} ({kind}) failed to {node.group(3)}: {words}")
    if (unknown := _UNKNOWN.search(text)) is not None:
        kind = unknown.group(1)
        for graph in model.subgraphs:
            for op in graph.operators:
                if op.kind == kind:
                    verdicts[graph.index, op.index] = Verdict(False, f"tflite-micro has no {kind}", refused=True)
        return Answer(source, verdicts, stops=f"tflite-micro has no {kind}")
    words = said.cause() if said.status is None or said.status < 0 else last_words(text)
    return Answer(source, verdicts, stops=f"the interpreter fails on this file: {words}")
