"""Asks Vela, Arm's compiler for Ethos-U: it compiles the file and says which operators stay on the Cortex-M."""

import importlib.util
import re
import tempfile
from collections import Counter
from importlib.metadata import version
from pathlib import Path

from tflite_export.auditing.asked import Answer, Verdict, last_words, run
from tflite_export.auditing.rules import Rules
from tflite_export.graph import Model

INSTALL = "pip install 'tfcompress[ethos-u]'"
_WARNING = re.compile(r"^Warning \(supported operators\) operator: (\S+), ofm: '(.*)'\n((?:(?!Warning).+\n?)*)", re.M)
_FUSED = ("RELU", "RELU6", "RELU_N1_TO_1", "TANH")


def ask(content: bytes, model: Model, rules: Rules, kind: str) -> Answer:
    """Vela's placement for one kind of Ethos-U.

    Vela names an operator by its kind and output; a fused activation comes as an operator of its own.
    """
    if importlib.util.find_spec("ethosu") is None:
        return Answer("", command=INSTALL)
    source = f"Vela {version('ethos-u-vela')} for {kind}"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(content)
        said = run(["ethosu.vela", path.name, "--accelerator-config", kind, "--output-dir", "."], folder=folder)
    if said.status is None:
        return Answer("", command=f"{INSTALL}; it gave {said.cause()}")
    if said.status != 0:
        return Answer(source, stops=f"Vela does not compile the file: {said.cause()}")
    left = _left(said.out + "\n" + said.err)
    verdicts = {}
    graphs = model.subgraphs
    names = Counter(graph.tensors[op.outputs[0]].name for graph in graphs for op in graph.operators if op.outputs)
    for graph in graphs:
        for op in graph.operators:
            name = graph.tensors[op.outputs[0]].name if op.outputs else ""
            if op.is_custom or op.kind not in rules.operations:
                continue  # Vela passes on in silence what it has no entry for
            if names[name] > 1 and any(called == name for _, called in left):
                continue  # several operators of that name: which one Vela means cannot be told
            reason = next((left[part, name] for part in (op.kind, *_FUSED) if (part, name) in left), "")
            verdicts[graph.index, op.index] = Verdict(not reason, reason)
    return Answer(source, verdicts)


def _left(text: str) -> dict[tuple[str, str], str]:
    """(kind, output) -> why it stays on the processor."""
    found = {}
    for kind, name, words in _WARNING.findall(text):
        lines = [line.strip().removeprefix("Reason: ") for line in words.splitlines() if line.strip()]
        found[kind, name] = " ".join(lines) or last_words(words)
    return found
