"""One tflite-micro interpreter, fed with arrays in the file's own types; only in a process of its own."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tflite_export.bench.arena import INSTALL
from tflite_export.errors import ExportError
from tflite_export.graph import Model, Signature

_SPARE = 1 << 20


class MicroSession:
    """As `session.Session`, with the kernels of LiteRT for Microcontrollers; tensors inside cannot be read."""

    def __init__(self, content: bytes, model: Model, signature: Signature, arena: int | None = None) -> None:
        """Opens the file.

        Args:
            content: the file's bytes.
            model: what they hold.
            signature: what is run.
            arena: bytes of memory that the interpreter gets; None: so many that no two tensors need to share any.

        Raises:
            ExportError: tflite-micro is not installed, or does not take the file.
        """
        try:
            from tflite_micro import runtime
        except ImportError as error:
            raise ExportError(f"The kernels 'tflm' need tflite-micro: {INSTALL}") from error
        if signature.subgraph:
            raise ExportError("tflite-micro runs the first subgraph, this signature calls another one")
        graph = model.subgraphs[0]
        self._inputs = {index: place for place, index in enumerate(graph.inputs)}
        self._outputs = {index: place for place, index in enumerate(graph.outputs)}
        self._stateful = any(tensor.is_variable for tensor in graph.tensors)
        if arena is None:
            values = sum(8 * int(np.prod([max(n, 1) for n in tensor.shape])) for tensor in graph.tensors)
            arena = _SPARE + 2 * len(content) + values
        try:
            self._interpreter: Any = runtime.Interpreter.from_bytes(content, arena_size=arena)
        except RuntimeError as error:
            raise ExportError(f"tflite-micro does not take the file: {error}") from error

    def run(self, feeds: Mapping[int, np.ndarray], times: int, fetch: Sequence[int]) -> dict[int, np.ndarray]:
        """As `Session.run`; of `fetch` only outputs are returned."""
        wanted = [index for index in fetch if index in self._outputs]
        found: dict[int, list[np.ndarray]] = {index: [] for index in wanted}
        try:
            for turn in range(times):
                if turn:
                    self.reset()
                for index, array in feeds.items():
                    batch = array.shape[0] // times if array.ndim else 0
                    part = array[turn * batch : (turn + 1) * batch] if batch else array
                    self._interpreter.set_input(part, self._inputs[index])
                self._interpreter.invoke()
                for index in wanted:
                    found[index].append(np.array(self._interpreter.get_output(self._outputs[index])))
        except RuntimeError as error:
            raise ExportError(f"tflite-micro failed: {error}") from error
        return {index: np.concatenate(v) if v[0].ndim else np.stack(v) for index, v in found.items()}

    def reset(self) -> None:
        """Sets recurrent state back to its beginning."""
        if self._stateful:
            self._interpreter.reset()
