"""How much memory a file needs on a microcontroller, asked of the tflite-micro interpreter in a process of its own.

The child gets the file on standard input and answers with exit status 0; what the interpreter says is on its standard
error, the only place where it tells sizes and reasons:

    [RecordingMicroAllocator] Arena allocation total 15392 bytes
    Node CONV_2D (number 3) failed to prepare with status 1

Asked for the least size, it tries one after the other and writes there what it has found:

    least arena 15392 bytes
"""

import importlib.util
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tflite_export.errors import ExportError
from tflite_export.flatbuffer import File, content_of, name_of, read
from tflite_export.graph import Model

INSTALL = "pip install 'tfcompress[micro]'"
_SIZES = re.compile(r"Arena allocation (total|head|tail) (\d+) bytes")
_FOUND = re.compile(r"^least arena (\d+) bytes$", re.MULTILINE)
_NODE = re.compile(r"Node (\S+) \(number (\d+)\) failed to (prepare|invoke)")
_UNKNOWN = re.compile(r"Didn't find op for builtin opcode '(\w+)'")
_TIMEOUT = 300.0
# The interpreter keeps some hundred bytes for each tensor and operator beside their values.
_PER_ITEM, _LEAST = 1024, 1 << 20
_TRIALS = 64


@dataclass(frozen=True)
class Arena:
    """Memory that the interpreter takes from its one array, in bytes.

    Attributes:
        total: the array's least size: head + tail, or more where planning the memory takes more than using it does.
        head: values that operations hand to each other, planned to overlap in time.
        tail: what stays for the whole life of the interpreter: structures of tensors and operators, recurrent state.
    """

    total: int
    head: int
    tail: int

    def __str__(self) -> str:
        return f"{self.total:,} bytes ({self.head:,} of values, {self.tail:,} of structures)"


def is_measurable() -> bool:
    """Whether the tflite-micro interpreter is installed."""
    return importlib.util.find_spec("tflite_micro") is not None


def measure_arena(file: File, *, timeout: float = _TIMEOUT) -> Arena:
    """The arena that tflite-micro's interpreter needs for a file, with its reference kernels on this 64-bit machine.

    Pointers of a 32-bit microcontroller are half as long, so its tail is smaller; optimized kernels may ask for scratch
    memory on top (see `tflite_export.microcontroller`).

    Args:
        file: bytes, a path, or an object with `.content`.
        timeout: seconds, from 0 exclusive; one inference on zeros is part of it.

    Raises:
        ValueError: not a whole TFLite file, or `timeout` is not positive.
        ExportError: tflite-micro is not installed; or it refuses the file, fails in the first inference, or takes its
            process down: the message names the operation, its output and the interpreter's reason.

    Source: tflite-micro, recording_micro_allocator.cc.

    >>> print(measure_arena("model.tflite"))                 # doctest: +SKIP
    15,392 bytes (8,224 of values, 7,168 of structures)
    """
    if not timeout > 0:
        raise ValueError(f"`timeout` must be a positive number of seconds. Received: timeout={timeout!r}")
    content = content_of(file)
    model = read(content, name=name_of(file))
    if not is_measurable():
        raise ExportError(f"Measuring an arena needs the tflite-micro interpreter: {INSTALL}")
    roomy = _roomy(model, len(content))
    code, said = _ask(content, roomy, timeout)
    if code:
        raise ExportError(_refusal(model, code, said))
    sizes = {part: int(size) for part, size in _SIZES.findall(said)}
    if sizes.keys() != {"total", "head", "tail"}:
        raise ExportError(f"tflite-micro printed no arena sizes. It said: {_last_words(said)}")
    return Arena(_least(content, sizes["total"], roomy, timeout), sizes["head"], sizes["tail"])


def _least(content: bytes, recorded: int, roomy: int, timeout: float) -> int:
    """The smallest arena with which the file runs, to 16 bytes: found by one child or, where it dies of an arena that
    is too small, by one for each size."""
    code, said = _ask(content, recorded, _TRIALS * timeout, roomy)
    found = _FOUND.search(said)
    if code == 0 and found:
        return int(found.group(1))
    return _search(lambda size: _ask(content, size, timeout)[0] == 0, recorded, roomy)


def _search(runs_with: Callable[[int], bool], recorded: int, roomy: int) -> int:
    """The smallest size of those from `recorded` to `roomy`, to 16 bytes.

    While it plans where values lie the interpreter takes memory that is free again afterwards and is not in its record:
    a file of small values can need more for the plan than for the values.
    """
    if runs_with(recorded):
        return recorded
    fails, runs = recorded, min(recorded + 1024, roomy)
    while runs < roomy and not runs_with(runs):
        fails, runs = runs, min(2 * runs, roomy)
    while runs - fails > 16:
        middle = (fails + runs) // 2
        if runs_with(middle):
            runs = middle
        else:
            fails = middle
    return -(-runs // 16) * 16


def _roomy(model: Model, size: int) -> int:
    """An arena that surely suffices: every tensor at once, twice. Untouched pages of it cost nothing."""
    items = sum(len(graph.tensors) + len(graph.operators) for graph in model.subgraphs)
    values = sum(tensor.size * 8 for graph in model.subgraphs for tensor in graph.tensors if tensor.data is None)
    return min(2 * values + size + items * _PER_ITEM + _LEAST, (1 << 31) - 16)


def _ask(content: bytes, arena_size: int, timeout: float, largest: int | None = None) -> tuple[int, str]:
    """(exit status, standard error) of the child; with `largest` it looks for the least size up to that."""
    sizes = [arena_size] if largest is None else [arena_size, largest]
    paths = [str(Path(__file__).resolve().parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tflite_export.bench.arena", *map(str, sizes)],
            input=content,
            capture_output=True,
            check=False,
            timeout=timeout,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
    except subprocess.TimeoutExpired:
        raise ExportError(f"tflite-micro did not finish one inference in {timeout:g} s.") from None
    return done.returncode, done.stderr.decode("utf-8", "replace")


def _refusal(model: Model, code: int, said: str) -> str:
    """Why the interpreter did not run the file, with the operation in the user's names where it tells one."""
    cause = f" ({signal.Signals(-code).name})" if code < 0 else ""
    head = f"tflite-micro takes its process down{cause}" if code < 0 else "tflite-micro does not run this file"
    if unknown := _UNKNOWN.search(said):
        kind = unknown.group(1)
        return f"{head}: it has no operation {kind}{_users(model, kind)}."
    if node := _NODE.search(said):
        kind, number, step = node.group(1), int(node.group(2)), node.group(3)
        where = f"operation {number}, {kind}{_output(model, kind, number)}, failed to {step}"
        return f"{head}: {where}: {_reason(said[: node.start()])}"
    custom = [op for graph in model.subgraphs for op in graph.operators if op.is_custom]
    if custom and "op code CUSTOM" in said:
        return f"{head}: it has no custom operation {custom[0].kind!r}{_users(model, custom[0].kind)}."
    return f"{head}: {_last_words(said)}"


def _users(model: Model, kind: str) -> str:
    """ (operation 3, 'dense/MatMul', ...)"""
    named = [
        f"operation {op.index}{_output(model, kind, op.index, graph.index)}"
        for graph in model.subgraphs
        for op in graph.operators
        if op.kind == kind
    ]
    more = f" and {len(named) - 3} more" if len(named) > 3 else ""
    return f" ({', '.join(named[:3])}{more})" if named else ""


def _output(model: Model, kind: str, number: int, subgraph: int | None = None) -> str:
    """The name of an operation's output; nothing when the interpreter's number fits no operation of that kind."""
    graphs = model.subgraphs if subgraph is None else (model.subgraphs[subgraph],)
    for graph in graphs:
        if number < len(graph.operators) and graph.operators[number].kind == kind and graph.operators[number].outputs:
            return f" {graph.tensors[graph.operators[number].outputs[0]].name!r}"
    return ""


def _reason(said: str) -> str:
    return _last_words(said, lines=2)


def _last_words(said: str, lines: int = 4) -> str:
    """What was said last, without the Python traceback and the list of allocations."""
    said = said.partition("Traceback (most recent call last)")[0] or said
    kept = [line.strip() for line in said.splitlines() if line.strip() and "[RecordingMicroAllocator]" not in line]
    return " | ".join(kept[-lines:]) or "it said nothing"


def main() -> None:
    """The child's side: opens the file, tells its memory, runs it once on zeros; of two sizes, looks for the least."""
    content, sizes = sys.stdin.buffer.read(), [int(size) for size in sys.argv[1:]]
    inputs = len(read(content).subgraphs[0].inputs)
    if len(sizes) == 1:
        _run(content, inputs, sizes[0])
    else:
        least = _search(lambda size: _runs(content, inputs, size), *sizes)
        sys.stderr.write(f"\nleast arena {least} bytes\n")


def _runs(content: bytes, inputs: int, size: int) -> bool:
    try:
        _run(content, inputs, size)
    except RuntimeError:
        return False
    return True


def _run(content: bytes, inputs: int, size: int) -> None:
    import numpy as np
    from tflite_micro import runtime

    interpreter = runtime.Interpreter.from_bytes(content, arena_size=size)
    interpreter.print_allocations()
    for index in range(inputs):
        details = interpreter.get_input_details(index)
        interpreter.set_input(np.zeros(details["shape"], details["dtype"]), index)
    interpreter.invoke()


if __name__ == "__main__":
    main()
