"""The engine over LiteRT's interpreter, in a child process: opens a file, runs it, times it."""

import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from tflite_export.bench.timing import Memory, TimedEngine, overhead
from tflite_export.flatbuffer import read


class InterpreterEngine(TimedEngine):
    """One file in one interpreter; what is called is the file's first signature."""

    METHODS = frozenset({"open", "outputs", "time", "memory"})

    def open(self, arrays: Mapping[str, np.ndarray], *, path: str, kernels: str, threads: int, times: int) -> Any:
        """Opens the file until its first inference can start.

        Args:
            arrays: the inputs of `times` inferences, by name.
            path: of the file.
            kernels: "xnnpack", "builtin" or "reference".
            threads: for the kernels that can use several.
            times: inferences in `arrays`.

        Returns:
            {init: milliseconds, version, delegated, operations: counts, overhead: milliseconds of timing}.
        """
        from ai_edge_litert.interpreter import Interpreter

        from tflite_export.session import KERNELS

        model = read(path)
        self._signature = model.signature()
        graph = model.subgraphs[self._signature.subgraph]
        self._stateful = any(tensor.is_variable for tensor in graph.tensors)
        self._turns = [
            {index: _part(arrays[name], turn, times) for name, index in self._signature.inputs.items()}
            for turn in range(times)
        ]
        spent = overhead()
        self._memory = Memory()
        begin = time.perf_counter_ns()
        self._interpreter = Interpreter(
            model_path=path, num_threads=threads, experimental_op_resolver_type=KERNELS[kernels]
        )
        self._by_name: Any = None
        if self._signature.subgraph:  # the interpreter's own methods reach only the first subgraph
            self._by_name = self._interpreter.get_signature_runner(self._signature.key)
        else:
            for index, array in self._turns[0].items():
                if array.shape != graph.tensors[index].shape:
                    self._interpreter.resize_tensor_input(index, array.shape)
            self._interpreter.allocate_tensors()
        init = (time.perf_counter_ns() - begin) / 1e6
        delegated = delegated_operations(self._interpreter._get_ops_details())
        return {
            "init": init,
            "version": version("ai-edge-litert"),
            "delegated": delegated,
            "operations": len(graph.operators),
            "overhead": spent,
        }, {}

    def outputs(self, arrays: Mapping[str, np.ndarray], *, seconds: float) -> Any:
        """Runs the inferences one after the other, for at most `seconds`, but one at least.

        Returns:
            {times: inferences run}, outputs by name, joined along a new first axis.
        """
        end = time.monotonic() + seconds
        found: list[dict[str, np.ndarray]] = []
        for number in range(len(self._turns)):
            if found and time.monotonic() > end:
                break
            self._feed(number)
            answer = self._invoke()
            found.append(
                answer
                if self._by_name is not None
                else {name: self._interpreter.get_tensor(i) for name, i in self._signature.outputs.items()}
            )
        if any(one[name].shape != found[0][name].shape for one in found for name in one):
            found = found[:1]  # some shapes depend on the values, which a joined array cannot hold
        return {"times": len(found)}, {name: np.stack([one[name] for one in found]) for name in found[0]}

    def _feed(self, number: int) -> None:
        turn = self._turns[number % len(self._turns)]
        if self._by_name is None:
            for index, array in turn.items():
                self._interpreter.set_tensor(index, array)
        else:
            self._named = {name: turn[index] for name, index in self._signature.inputs.items()}
        if self._stateful:
            self._interpreter.reset_all_variables()

    def _invoke(self) -> Any:
        return self._interpreter.invoke() if self._by_name is None else self._by_name(**self._named)


def delegated_operations(details: Sequence[Mapping[str, Any]]) -> int:
    """Operations that delegates took over.

    The interpreter lists the file's operations and, after them, one DELEGATE for several of them: those between its
    inputs and its outputs.
    """
    makers = {int(o): op for op in details if op["op_name"] != "DELEGATE" for o in op["outputs"]}
    taken: set[int] = set()
    for delegate in (op for op in details if op["op_name"] == "DELEGATE"):
        edge, waiting = {int(i) for i in delegate["inputs"]}, [int(o) for o in delegate["outputs"]]
        while waiting:
            op = makers.get(waiting.pop())
            if op is not None and op["index"] not in taken:
                taken.add(op["index"])
                waiting += [int(i) for i in op["inputs"] if int(i) not in edge]
    return len(taken)


def _part(array: np.ndarray, turn: int, times: int) -> np.ndarray:
    batch = array.shape[0] // times if array.ndim else 0
    return array[turn * batch : (turn + 1) * batch] if batch else array
