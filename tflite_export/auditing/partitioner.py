"""Asks LiteRT itself which operators XNNPACK takes, on this machine.

The child opens the file twice, with XNNPACK and without, and answers with one line of JSON:

    {"version": "2.3.0", "error": "", "plain_error": "", "operators": [[kind, inputs, outputs], ...]}

`operators` lists those of the file first and then one named DELEGATE for each stretch that XNNPACK took.
"""

import json
import os
import platform
import re
import sys
from typing import Any

from tflite_export.auditing.asked import Answer, Verdict, run
from tflite_export.auditing.rules import Rules
from tflite_export.graph import Model

_NODE = re.compile(r"[Nn]ode (?:number |#)(\d+)")


def ask(content: bytes, model: Model, rules: Rules, kind: str) -> Answer:
    """LiteRT's own partition of the first subgraph; rules speak for the others."""
    said = run(["tflite_export.auditing.partitioner"], content)
    if said.status != 0:
        source = f"LiteRT's partitioner on this machine ({platform.machine()})"
        return Answer(source, stops=f"LiteRT does not open the file: {said.cause()}")
    told = json.loads(said.out)
    source = f"LiteRT {told['version']}'s partitioner on this machine ({platform.machine()})"
    graph = model.subgraphs[0]
    if told["error"]:
        return _failed(source, told, len(graph.operators))
    if len(told["operators"]) < len(graph.operators):
        return Answer(source, command="pip install -U ai-edge-litert")
    taken = _taken(told["operators"], len(graph.operators))
    verdicts = {(graph.index, op.index): Verdict(op.index in taken) for op in graph.operators}
    stretches = len(told["operators"]) - len(graph.operators)
    note = f"XNNPACK takes {len(taken)} of {len(graph.operators)} operations in {_counted(stretches, 'stretch')}"
    if len(model.subgraphs) > 1:
        note += "; subgraphs behind the first one are judged by rules"
    return Answer(source, verdicts, notes=(note,))


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}es"


def _failed(source: str, told: dict[str, Any], count: int) -> Answer:
    """The file is refused: by XNNPACK, which programs then have to switch off, or by LiteRT altogether."""
    error = " ".join(told["error"].split())
    if not told["plain_error"]:
        text = f"XNNPACK fails on this file and the default interpreter with it: {error}"
    else:
        text = f"LiteRT does not run the file: {error}"
    nodes = [int(number) for number in _NODE.findall(told["error"]) if int(number) < count]
    verdicts = {(0, number): Verdict(False, error, refused=True) for number in nodes[:1]}
    return Answer(source, verdicts, stops=text)


def _taken(operators: list[list[Any]], count: int) -> set[int]:
    """Operators inside the stretches: those met on the way from what a stretch gives back to what it is given."""
    maker = {tensor: index for index, (_, _, outputs) in enumerate(operators[:count]) for tensor in outputs}
    taken: set[int] = set()
    for _, given, back in operators[count:]:
        border, waiting = set(given), list(back)
        while waiting:
            index = maker.get(waiting.pop())
            if index is None or index in taken:
                continue
            taken.add(index)
            waiting += [tensor for tensor in operators[index][1] if tensor not in border]
    return taken | _unpacked(operators[:count], operators[count:], taken)


def _unpacked(operators: list[list[Any]], stretches: list[list[Any]], taken: set[int]) -> set[int]:
    """Operators that only spell out a constant for a stretch, which takes the constant itself."""
    feeds = {tensor for index in taken for tensor in operators[index][1]}
    given = {tensor for _, inputs, _ in stretches for tensor in inputs}
    return {
        index
        for index, (kind, inputs, outputs) in enumerate(operators)
        if kind in ("DEQUANTIZE", "DENSIFY") and set(inputs) <= given and feeds & set(outputs)
    }


def main() -> None:
    """The child's side."""
    # The runtime may write to standard output, which carries the answer: its writes go to standard error instead.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    from importlib.metadata import version

    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    content = sys.stdin.buffer.read()

    def opened(resolver: Any) -> tuple[str, list[list[Any]]]:
        interpreter = Interpreter(model_content=content, num_threads=1, experimental_op_resolver_type=resolver)
        error = ""
        try:
            interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as failure:
            error = str(failure) or type(failure).__name__
        details = interpreter._get_ops_details()
        rows = [[row["op_name"], [int(i) for i in row["inputs"]], [int(i) for i in row["outputs"]]] for row in details]
        return error, rows

    error = ""
    operators: list[list[Any]] = []
    try:
        error, operators = opened(OpResolverType.AUTO)
    except (RuntimeError, ValueError) as failure:
        error = str(failure) or type(failure).__name__
    plain_error = ""
    if error:
        try:
            plain_error, _ = opened(OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
        except (RuntimeError, ValueError) as failure:
            plain_error = str(failure) or type(failure).__name__
    answer = {"version": version("ai-edge-litert"), "error": error, "plain_error": plain_error, "operators": operators}
    out.write(json.dumps(answer))
    out.close()


if __name__ == "__main__":
    main()
