"""Files on their way to a WebAssembly runtime and back: requests, answers, and the runtime's words in the user's.

A request is JSON {runs, profile, warm, files: [{name, feeds: [[{name, type, shape, data}]]}]}, an answer
{runtime, version, place, results: [{name, init, first, turns, outputs, profile} or {name, error}]}; `data` is base64.
"""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tflite_export.bench.check import checked, judged
from tflite_export.bench.inputs import Feeds
from tflite_export.bench.job import Named
from tflite_export.bench.outcome import failed, outcome
from tflite_export.bench.result import OperationTime, Result
from tflite_export.bench.stats import noise, paired_ratio, summary
from tflite_export.bench.web_server import PAGE
from tflite_export.errors import ExportError
from tflite_export.flatbuffer import read
from tflite_export.graph import Model

LITERT, TFJS = "litert.js", "tfjs-tflite"
# [pattern of the runtime's message, what it means and the way out], which the page reads, too.
_MEANINGS = json.loads((PAGE / "meanings.json").read_text(encoding="utf-8"))


def request_of(
    files: Sequence[Named], inputs: Sequence[Feeds], runs: int, *, profile: bool = False, warm: int = 1000
) -> dict[str, Any]:
    """The request that measures files, each with its inputs, after `warm` milliseconds that are not timed.

    Raises:
        ExportError: an input is of a type that JavaScript has no array of.
    """
    listed = [
        {"name": file.name, "feeds": [_packed(given, number) for number in range(given.times)]}
        for file, given in zip(files, inputs, strict=True)
    ]
    return {"runs": runs, "profile": profile, "warm": warm, "files": listed}


def comparable(content: bytes, given: Feeds) -> Feeds:
    """The inputs whose outputs can be checked: of a file with state the first alone, which no runtime here clears."""
    model = read(content)
    graph = model.subgraphs[model.signature().subgraph]
    return given.head(1) if any(tensor.is_variable for tensor in graph.tensors) else given


def refusal(content: bytes, runtime: str) -> str:
    """Why a file is not even tried; "" when it is."""
    if runtime == TFJS and read(content).signature().subgraph:
        return "tfjs-tflite runs the first subgraph alone, and the first signature is another one's: use LiteRT.js"
    return ""


def meaning(error: str) -> str:
    """A runtime's message in the user's words, the message behind it.

    >>> meaning("ERROR: [model_load.cc:290] Variable tensors not yet supported.").partition(":")[0]
    'LiteRT.js runs no file that keeps state between inferences (recurrent operations)'
    """
    for pattern, words in _MEANINGS:
        if match := re.search(pattern, error):
            return f"{words.format(*match.groups())} ({error})"
    return error


def result_of(
    file: Named,
    given: Feeds,
    tried: Mapping[str, Any],
    timed: Mapping[str, Any] | None,
    first: Mapping[str, Any] | None,
    fields: Mapping[str, Any],
) -> Result:
    """The result of one file.

    Args:
        file: the file.
        given: its inputs, those whose outputs came back.
        tried: its answer when it ran alone; outputs are taken from here.
        timed: its answer when it ran by turns with the others; None when it did not get that far.
        first: the first file's answer of that run.
        fields: of `Result` that every file of the job has: device, runtime, version, threads, delegate.
    """
    error = tried.get("error") or (timed or {}).get("error")
    if error or timed is None:
        return failed(file, "web", meaning(str(error or "it was not timed")), **fields)
    times = [value for turn in timed["turns"] for value in turn]
    figures: dict[str, Any] = summary(times)
    rows = [OperationTime(row["kind"], row["name"], "wasm", row["ms"]) for row in timed.get("profile") or ()]
    ratio = paired_ratio(timed["turns"], first["turns"]) if first is not None and "turns" in first else None
    result = outcome(
        file, "web", runs=len(times), init=tried["init"], first=tried["first"], ratio=ratio, operations=tuple(rows),
        warnings=tuple(noise(figures.get("spread"))), **figures, **fields,
    )  # fmt: skip
    try:
        outputs = outputs_of(read(file.content), tried["outputs"])
    except ExportError as broken:
        return replace(result, status="failed", reason=str(broken))
    return judged(result, checked(file.content, given, outputs))


def outputs_of(model: Model, reads: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, np.ndarray]:
    """Outputs by the names of the first signature, [times, ...].

    Args:
        model: of the file.
        reads: the outputs of each inference as they came back.

    Raises:
        ExportError: there are too many or too few, or one's values do not fill its shape.
    """
    signature = model.signature()
    graph = model.subgraphs[signature.subgraph]
    found: dict[str, list[np.ndarray]] = {name: [] for name in signature.outputs}
    place = {graph.tensors[index].name: name for name, index in signature.outputs.items()}
    order = [next((n for n, i in signature.outputs.items() if i == index), "") for index in graph.outputs]
    for outputs in reads:
        if len(outputs) != len(graph.outputs):
            raise ExportError(f"the runtime gave {len(outputs)} outputs, the file has {len(graph.outputs)}")
        names = [output["name"] for output in outputs]
        if not set(names) <= set(found):
            # By the tensors' own names, which may be missing or repeat; then by their order.
            whole = len(set(names)) == len(names) and set(names) <= set(place)
            names = [place[name] for name in names] if whole else order
        for name, output in zip(names, outputs, strict=True):
            if name in found:
                found[name].append(_array(output))
    if any(len({array.shape for array in arrays}) > 1 for arrays in found.values()):
        found = {name: arrays[:1] for name, arrays in found.items()}
    return {name: np.stack(arrays) for name, arrays in found.items() if arrays}


def _packed(given: Feeds, number: int) -> list[dict[str, Any]]:
    packed = []
    for name, array in zip(given.arrays, given.turn(number), strict=True):
        if array.dtype.kind not in "fiub":
            raise ExportError(f"input {name!r} takes text, which these runtimes do not")
        data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
        packed.append({"name": name, "type": str(array.dtype), "shape": list(array.shape), "data": data})
    return packed


def _array(output: Mapping[str, Any]) -> np.ndarray:
    flat = np.frombuffer(base64.b64decode(output["data"]), np.dtype(output["type"]))
    shape = tuple(output["shape"])
    if flat.size != int(np.prod(shape)):
        raise ExportError(f"output {output['name']!r} of shape {list(shape)} came back with {flat.size} values")
    return flat.reshape(shape)
