"""One LiteRT interpreter, fed with arrays in the file's own types."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from tflite_export.errors import ExportError
from tflite_export.graph import Model, Signature

# The three kernel sets of the interpreter. They do not agree to the last bit, so each result names its set.
KERNELS: Mapping[str, OpResolverType] = {
    "xnnpack": OpResolverType.AUTO,
    "builtin": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    "reference": OpResolverType.BUILTIN_REF,
}


class Session:
    """An interpreter over one file and one of its signatures."""

    def __init__(
        self, content: bytes, model: Model, signature: Signature, kernels: str, threads: int, *, keep: bool = False
    ) -> None:
        """Opens the file.

        Args:
            content: the file's bytes.
            model: what they hold.
            signature: what is run.
            kernels: "xnnpack", "builtin" or "reference".
            threads: for the kernels that can use several.
            keep: keep the values of intermediate tensors, so that `run` can fetch them.

        Raises:
            ExportError: the runtime does not take the file; the message holds its reason.
        """
        self.signature, self.kernels = signature, kernels
        graph = model.subgraphs[signature.subgraph]
        self.stateful = any(tensor.is_variable for tensor in graph.tensors)
        self.shapes = {index: graph.tensors[index].shape for index in signature.inputs.values()}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # that keeping all tensors costs memory: it is asked for
                self.interpreter = Interpreter(
                    model_content=content,
                    num_threads=threads,
                    experimental_op_resolver_type=KERNELS[kernels],
                    experimental_preserve_all_tensors=keep,
                )
            # A signature of another subgraph is called by name; the interpreter's own methods reach only the first.
            self.by_name: Any = None
            if signature.subgraph:
                self.by_name = self.interpreter.get_signature_runner(signature.key)
            else:
                self.interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ExportError(f"LiteRT with {kernels} kernels does not take the file: {_reason(error)}") from error

    def run(self, feeds: Mapping[int, np.ndarray], times: int, fetch: Sequence[int]) -> dict[int, np.ndarray]:
        """Runs the file over all rows, the state of recurrent operations cleared before each run.

        Args:
            feeds: input tensor -> [times * batch, ...] in the tensor's type.
            times: number of runs.
            fetch: tensors to be read after each run.

        Returns:
            tensor -> what was read, joined along the first axis (a tensor without axes becomes [times]). Inner tensors
            that the runtime keeps to itself are left out.

        Raises:
            ExportError: the runtime failed; the message holds its reason.
        """
        try:
            if self.by_name is not None:
                return self._run_by_name(feeds, times, fetch)
            self._fit(feeds, times)
            return self._run(feeds, times, fetch)
        except (ValueError, RuntimeError) as error:
            raise ExportError(f"LiteRT with {self.kernels} kernels failed: {_reason(error)}") from error

    def _fit(self, feeds: Mapping[int, np.ndarray], times: int) -> None:
        """Tells the interpreter the sizes that the file leaves open."""
        changed = False
        for index, array in feeds.items():
            shape = (array.shape[0] // times, *array.shape[1:]) if array.ndim else ()
            if shape != self.shapes[index]:
                self.interpreter.resize_tensor_input(index, shape)
                self.shapes[index], changed = shape, True
        if changed:
            self.interpreter.allocate_tensors()

    def _run(self, feeds: Mapping[int, np.ndarray], times: int, fetch: Sequence[int]) -> dict[int, np.ndarray]:
        interpreter = self.interpreter
        slices = [(index, array, array.shape[0] // times if array.ndim else 0) for index, array in feeds.items()]
        found: list[list[np.ndarray]] = [[] for _ in fetch]
        for turn in range(times):
            for index, array, batch in slices:
                interpreter.set_tensor(index, array[turn * batch : (turn + 1) * batch] if batch else array)
            if self.stateful:
                interpreter.reset_all_variables()
            interpreter.invoke()
            if not turn:
                fetch = [index for index in fetch if self._holds(index)]
                found = [[] for _ in fetch]
            for values, index in zip(found, fetch, strict=True):
                values.append(interpreter.get_tensor(index))
        return {index: _joined(values) for index, values in zip(fetch, found, strict=True)}

    def _holds(self, index: int) -> bool:
        """Whether a tensor has values: a delegate keeps some of those inside it to itself."""
        if index in self.signature.outputs.values():
            return True
        try:
            self.interpreter.get_tensor(index)
        except ValueError:
            return False
        return True

    def _run_by_name(self, feeds: Mapping[int, np.ndarray], times: int, fetch: Sequence[int]) -> dict[int, np.ndarray]:
        inner = set(fetch) - set(self.signature.outputs.values())
        if inner:
            raise ExportError(f"Only tensors of the first subgraph can be read inside. Received: {sorted(inner)}")
        found: dict[int, list[np.ndarray]] = {index: [] for index in fetch}
        for turn in range(times):
            arrays = {}
            for name, index in self.signature.inputs.items():
                array = feeds[index]
                batch = array.shape[0] // times if array.ndim else 0
                arrays[name] = array[turn * batch : (turn + 1) * batch] if batch else array
            if self.stateful:
                self.interpreter.reset_all_variables()
            outputs = self.by_name(**arrays)
            for name, index in self.signature.outputs.items():
                if index in found:
                    found[index].append(outputs[name])
        return {index: _joined(values) for index, values in found.items()}


def _joined(values: list[np.ndarray]) -> np.ndarray:
    if len(values) == 1:
        return values[0]
    return np.concatenate(values) if np.ndim(values[0]) else np.stack(values)


def _reason(error: Exception) -> str:
    """The runtime's message in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines) or type(error).__name__
