"""Times of single operations, through the C interface of LiteRT's library: the Python one has no profiler.

Numbers and structures below are those of the library in one release of the wheel; another release may have moved them,
and a wrong structure crashes. Other releases are refused.

Source: LiteRT, litert/c/{litert_environment_options,litert_any,litert_layout,litert_profiler_event}.h, release 2.3.0.
"""

import ctypes as c
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from tflite_export.flatbuffer import read
from tflite_export.graph import Subgraph

KNOWN = ("2.3.0",)
LIBRARY = "libLiteRt.so"
_RUNTIME_FOLDER, _STRING, _CPU, _WRITE = 22, 8, 1, 1  # option tag, kind of value, accelerator, lock
_SINGLE, _DELEGATED = 2, 8  # events: an operation of the interpreter; one inside a delegate
_WARM_UP = 3
_MOST_EVENTS = 200_000


class _Value(c.Union):
    _fields_ = [("integer", c.c_int64), ("real", c.c_double), ("text", c.c_char_p), ("pointer", c.c_void_p)]


class _Any(c.Structure):
    _fields_ = [("kind", c.c_int), ("value", _Value)]


class _EnvironmentOption(c.Structure):
    _fields_ = [("tag", c.c_int), ("value", _Any)]


class _Layout(c.Structure):
    _fields_ = [("rank_and_flags", c.c_uint32), ("dimensions", c.c_int32 * 8), ("strides", c.c_uint32 * 8)]


class _TensorType(c.Structure):
    _fields_ = [("element", c.c_int), ("layout", _Layout)]


class _Memory(c.Structure):
    _fields_ = [("total", c.c_size_t), ("used", c.c_size_t), ("peak", c.c_size_t)]


class _Event(c.Structure):
    _fields_ = [
        ("tag", c.c_char_p),
        ("kind", c.c_int),
        ("start", c.c_uint64),
        ("microseconds", c.c_uint64),
        ("before", _Memory),
        ("after", _Memory),
        ("number", c.c_uint64),
        ("graph", c.c_uint64),
        ("source", c.c_int),
    ]


_Free = c.CFUNCTYPE(None, c.c_void_p)
_keep = _Free(lambda pointer: None)  # what options point at is held by Python


def refusal() -> str:
    """Why there is no profile on this machine; empty when there is one."""
    found = version("ai-edge-litert")
    if found not in KNOWN:
        return (
            f"no profile: its structures are known for ai-edge-litert {', '.join(KNOWN)} only, installed is {found}: "
            f"pip install ai-edge-litert=={KNOWN[-1]}"
        )
    return "" if _library().is_file() else f"no profile: the wheel of this system has no {LIBRARY}"


def _library() -> Path:
    found = find_spec("ai_edge_litert")
    return Path(found.origin if found is not None and found.origin else ".").parent / LIBRARY


@dataclass(frozen=True)
class _Seen:
    """One event of an inference: what ran, where, for how long."""

    tag: str
    kind: int
    number: int
    microseconds: int


class ProfileEngine:
    """One file as a compiled model with the profiler on, in a child process, which a wrong pointer ends alone."""

    METHODS = frozenset({"open", "profile"})

    def open(self, arrays: Mapping[str, np.ndarray], *, path: str, kernels: str, threads: int, times: int) -> Any:
        """Opens a file.

        Args:
            arrays: inputs by name.
            path: of the file.
            kernels: "xnnpack" or "builtin".
            threads: of the kernels.
            times: inferences that `arrays` are enough for; the first one is used.

        Raises:
            RuntimeError: a call of the library failed; the message names it.
        """
        model = read(path)
        self._signature = model.signature()
        if self._signature is not model.signatures[0] or self._signature.subgraph:
            raise RuntimeError("only the first subgraph is profiled")
        self._graph: Subgraph = model.subgraphs[0]
        self._library, self._held = c.CDLL(str(_library())), list[Any]()
        option = (_EnvironmentOption * 1)()
        option[0].tag, option[0].value.kind = _RUNTIME_FOLDER, _STRING
        option[0].value.value.text = str(_library().parent).encode()
        self._environment = self._made("LiteRtCreateEnvironment", 1, option)
        held = self._made("LiteRtCreateModelFromFile", self._environment, path.encode())
        options = self._made("LiteRtCreateOptions")
        self._call("LiteRtSetOptionsHardwareAccelerators", options, _CPU)
        mode = 'kernel_mode = "builtin"\n' if kernels == "builtin" else ""
        for name, text in (
            ("runtime_options_string", "enable_profiling = true\n"),
            ("xnnpack", f"num_threads = {threads}\n{mode}"),
        ):
            payload = c.create_string_buffer(text.encode())
            self._held.append(payload)
            part = self._made("LiteRtCreateOpaqueOptions", name.encode(), c.cast(payload, c.c_void_p), _keep)
            self._call("LiteRtAddOpaqueOptions", options, part)
        self._compiled = self._made("LiteRtCreateCompiledModel", self._environment, held, options)
        self._called = self._made("LiteRtGetModelSignature", held, c.c_size_t(0))
        self._inputs, self._outputs = self._buffers("Input"), self._buffers("Output")
        for position, array in enumerate(arrays[name] for name in self._names()):
            self._write(position, array[: array.shape[0] // times] if array.ndim else array)
        self._profiler = self._made("LiteRtCompiledModelGetProfiler", self._compiled)
        return {}, {}

    def profile(self, arrays: Mapping[str, np.ndarray], *, runs: int) -> Any:
        """Runs the file with the profiler on.

        Args:
            arrays: none.
            runs: inferences that are averaged.

        Returns:
            {rows: [[kind, name, "XNNPACK" or "builtin", mean milliseconds], ...], in order of execution}.
        """
        for _ in range(_WARM_UP):
            self._run()
        self._call("LiteRtResetProfiler", self._profiler)
        self._call("LiteRtStartProfiler", self._profiler)
        for _ in range(runs):
            self._run()
        self._call("LiteRtStopProfiler", self._profiler)
        count = c.c_int()
        self._call("LiteRtGetNumProfilerEvents", self._profiler, c.byref(count))
        if not 0 < count.value <= _MOST_EVENTS:
            raise RuntimeError(f"the profiler has {count.value} events")
        events = (_Event * count.value)()
        self._call("LiteRtGetProfilerEvents", self._profiler, count.value, events)
        seen = [
            _Seen((e.tag or b"").decode("utf-8", "replace"), e.kind, int(e.number), int(e.microseconds)) for e in events
        ]
        return {"rows": rows(inferences(seen), self._graph)}, {}

    def _names(self) -> list[str]:
        """Names of the inputs in the library's order."""
        found = []
        for position in range(len(self._inputs)):
            text = c.c_char_p()
            self._call("LiteRtGetSignatureInputName", self._called, c.c_size_t(position), c.byref(text))
            found.append((text.value or b"").decode("utf-8", "replace"))
        own = list(self._signature.inputs)
        return found if set(found) == set(own) else own

    def _buffers(self, side: str) -> Any:
        count = c.c_size_t()
        self._call(f"LiteRtGetNumSignature{side}s", self._called, c.byref(count))
        found = (c.c_void_p * count.value)()
        for position in range(count.value):
            index, kind = c.c_size_t(position), _TensorType()
            tensor = self._made(f"LiteRtGetSignature{side}TensorByIndex", self._called, index)
            self._call("LiteRtGetRankedTensorType", tensor, c.byref(kind))
            for axis, size in enumerate(kind.layout.dimensions):
                kind.layout.dimensions[axis] = max(1, size)  # sizes that the file leaves open
            needs = self._made(f"LiteRtGetCompiledModel{side}BufferRequirements", self._compiled, c.c_size_t(0), index)
            found[position] = self._made(
                "LiteRtCreateManagedTensorBufferFromRequirements", self._environment, c.byref(kind), needs
            ).value
        return found

    def _write(self, position: int, array: np.ndarray) -> None:
        buffer, place, size = c.c_void_p(self._inputs[position]), c.c_void_p(), c.c_size_t()
        values = np.ascontiguousarray(array)
        self._call("LiteRtGetTensorBufferSize", buffer, c.byref(size))
        if values.nbytes > size.value:
            raise RuntimeError(f"an input of {values.nbytes} bytes does not fit the buffer of {size.value}")
        self._call("LiteRtLockTensorBuffer", buffer, c.byref(place), _WRITE)
        c.memmove(place, values.ctypes.data, values.nbytes)
        self._call("LiteRtUnlockTensorBuffer", buffer)

    def _run(self) -> None:
        sizes = [c.c_size_t(len(side)) for side in (self._inputs, self._outputs)]
        self._call(
            "LiteRtRunCompiledModel", self._compiled, c.c_size_t(0), sizes[0], self._inputs, sizes[1], self._outputs
        )

    def _made(self, name: str, *arguments: Any) -> c.c_void_p:
        """Calls a function whose last argument is where it puts a pointer."""
        result = c.c_void_p()
        self._call(name, *arguments, c.byref(result))
        return result

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status:
            raise RuntimeError(f"{name} failed with status {status}")


def inferences(events: Sequence[_Seen]) -> list[list[_Seen]]:
    """Events of operations, one list an inference; those of inferences that differ from the first are left out.

    An inference begins with an event "Invoke" of another kind.
    """
    found: list[list[_Seen]] = []
    for event in events:
        if event.tag == "Invoke" and event.kind not in (_SINGLE, _DELEGATED):
            found.append([])
        elif event.kind in (_SINGLE, _DELEGATED) and found:
            found[-1].append(event)
    filled = [one for one in found if one]
    return [one for one in filled if [e.tag for e in one] == [e.tag for e in filled[0]]]


def rows(runs: Sequence[Sequence[_Seen]], graph: Subgraph) -> list[list[Any]]:
    """[kind, name of the output where it is known, where, mean milliseconds] of each operation, in order.

    A delegate as a whole is an operation of the interpreter as well: it is left out, what is inside counts.
    """
    found = []
    for place, event in enumerate(runs[0] if runs else ()):
        if event.kind == _SINGLE and "delegate" in event.tag.lower():
            continue
        name = ""
        if event.kind == _SINGLE and event.number < len(graph.operators):
            operator = graph.operators[event.number]
            if operator.outputs and operator.kind == event.tag:
                name = graph.tensors[operator.outputs[0]].name
        where = "XNNPACK" if event.kind == _DELEGATED else "builtin"
        mean = float(np.mean([run[place].microseconds for run in runs])) / 1e3
        found.append([event.tag, name, where, mean])
    return found
