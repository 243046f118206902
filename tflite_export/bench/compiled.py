"""The engine over LiteRT's CompiledModel, in a child process: the newer interface, which also reaches GPUs and NPUs."""

import contextlib
import importlib
import time
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np

from tflite_export.bench.timing import Memory, TimedEngine, overhead
from tflite_export.flatbuffer import read
from tflite_export.graph import Tensor

# Types that the buffers' Python interface does not name travel as bytes.
_NAMED = frozenset({"float32", "float16", "int32", "int8", "uint8", "bool"})


class CompiledEngine(TimedEngine):
    """One file as a compiled model; what is called is the file's first signature."""

    METHODS = frozenset({"open", "outputs", "time", "memory"})

    def open(self, arrays: Mapping[str, np.ndarray], *, path: str, kernels: str, threads: int, times: int) -> Any:
        """Opens the file until its first inference can start.

        Args:
            arrays: the inputs of `times` inferences, by name.
            path: of the file.
            kernels: "cpu", "gpu" or "npu"; what the latter two leave is for the processor.
            threads: of the processor.
            times: inferences in `arrays`.

        Returns:
            {init: milliseconds, version, accelerated: whether one device computes everything, operations: count,
            overhead: milliseconds of timing}.
        """
        if kernels == "npu":
            # The plug-in finds its library only when this package has loaded it.
            with contextlib.suppress(ImportError):
                importlib.import_module("openvino")
        from ai_edge_litert.compiled_model import CompiledModel, CpuOptions, HardwareAccelerator, Options

        model = read(path)
        signature = model.signature()
        graph = model.subgraphs[signature.subgraph]
        self._times = times
        self._asynchronous = kernels != "cpu"
        hardware = HardwareAccelerator.CPU
        if kernels != "cpu":
            hardware |= HardwareAccelerator.GPU if kernels == "gpu" else HardwareAccelerator.NPU
        spent = overhead()
        self._memory = Memory()
        begin = time.perf_counter_ns()
        self._model = CompiledModel.from_file(path, options=Options(hardware, CpuOptions(num_threads=threads)))
        called = self._model.get_signature_by_index(0)
        self._inputs = self._model.create_input_buffers(0)
        self._outputs = self._model.create_output_buffers(0)
        init = (time.perf_counter_ns() - begin) / 1e6
        own = [_order(called[side], getattr(signature, side)) for side in ("inputs", "outputs")]
        for position, name in enumerate(own[0]):
            if arrays[name].shape[1:] != graph.tensors[signature.inputs[name]].shape[1:]:
                self._model.resize_input_tensor(position, (arrays[name].shape[0] // times, *arrays[name].shape[1:]))
        self._arrays = [arrays[name] for name in own[0]]
        self._ports: dict[str, Tensor] = {name: graph.tensors[signature.outputs[name]] for name in own[1]}
        return {
            "init": init,
            "version": version("ai-edge-litert"),
            "accelerated": self._model.is_fully_accelerated(),
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
        for number in range(self._times):
            if found and time.monotonic() > end:
                break
            self._feed(number)
            self._model.run_by_index(0, self._inputs, self._outputs)
            found.append(
                {name: self._read(position, port) for position, (name, port) in enumerate(self._ports.items())}
            )
        return {"times": len(found)}, {name: np.stack([one[name] for one in found]) for name in found[0]}

    def _feed(self, number: int) -> None:
        turn = number % self._times
        for buffer, array in zip(self._inputs, self._arrays, strict=True):
            batch = array.shape[0] // self._times if array.ndim else 0
            values = np.ascontiguousarray(array[turn * batch : (turn + 1) * batch] if batch else array)
            buffer.write(values if values.dtype.name in _NAMED else values.reshape(-1).view(np.uint8))

    def _invoke(self) -> None:
        """A GPU or an NPU may hand back before it is done: reading the outputs is part of the time there."""
        self._model.run_by_index(0, self._inputs, self._outputs)
        if self._asynchronous:
            for position, port in enumerate(self._ports.values()):
                self._read(position, port)

    def _read(self, position: int, tensor: Tensor) -> np.ndarray:
        dtype = tensor.dtype
        if dtype is None:
            raise ValueError(f"an output of type {tensor.type} cannot be read")
        shape = tuple(self._outputs[position].get_tensor_details().get("shape", tensor.shape))
        count = int(np.prod(shape, dtype=np.int64))
        if dtype.name in _NAMED:
            return self._outputs[position].read(count, dtype).reshape(shape)
        return self._outputs[position].read(count * dtype.itemsize, np.uint8).view(dtype).reshape(shape)


def _order(called: list[str], named: Mapping[str, int]) -> list[str]:
    """Names of the signature in the runtime's order; where it has names of its own, in the file's."""
    return list(called) if set(called) == set(named) else list(named)
