"""The engine over tflite-micro's interpreter, in a child process: it ends its process on what it does not expect."""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from tflite_export.flatbuffer import read


class MicroEngine:
    """One file in one interpreter."""

    METHODS = frozenset({"open", "outputs"})

    def open(self, arrays: Mapping[str, np.ndarray], *, path: str, arena: int, times: int) -> Any:
        """Opens a file.

        Args:
            arrays: the inputs of `times` inferences, by name.
            path: of the file.
            arena: bytes of memory that the interpreter gets.
            times: inferences in `arrays`.
        """
        from tflite_micro import runtime

        model = read(path)
        signature, graph = model.signature(), model.subgraphs[0]
        if signature.subgraph:
            raise ValueError("tflite-micro runs the first subgraph, the file's first signature calls another one")
        self._stateful = any(tensor.is_variable for tensor in graph.tensors)
        place = {index: position for position, index in enumerate(graph.inputs)}
        self._inputs = {place[index]: arrays[name] for name, index in signature.inputs.items()}
        place = {index: position for position, index in enumerate(graph.outputs)}
        self._outputs = {name: place[index] for name, index in signature.outputs.items()}
        self._times = times
        self._interpreter = runtime.Interpreter.from_file(path, arena_size=arena)
        return {}, {}

    def outputs(self, arrays: Mapping[str, np.ndarray], *, seconds: float) -> Any:
        """Runs the inferences one after the other, for at most `seconds`, but one at least.

        Returns:
            {times: inferences run}, outputs by name, joined along a new first axis.
        """
        end = time.monotonic() + seconds
        found: list[dict[str, np.ndarray]] = []
        for number in range(self._times):
            if found and time.monotonic() > end:
                break
            if self._stateful and found:
                self._interpreter.reset()
            for position, array in self._inputs.items():
                batch = array.shape[0] // self._times if array.ndim else 0
                self._interpreter.set_input(array[number * batch : (number + 1) * batch] if batch else array, position)
            self._interpreter.invoke()
            found.append({name: np.array(self._interpreter.get_output(at)) for name, at in self._outputs.items()})
        return {"times": len(found)}, {name: np.stack([one[name] for one in found]) for name in found[0]}
