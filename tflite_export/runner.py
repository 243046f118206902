"""Call a `.tflite` file like the Keras model that it came from: real values in, real values out."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tflite_export.flatbuffer import File, content_of, name_of, read
from tflite_export.port import Port, arranged, filled, ports, runs

_KERNELS = ("xnnpack", "builtin", "reference", "tflm")


class Runner:
    """A `.tflite` file as a function.

        outputs = dequantize(file(quantize(inputs)))

    Integer inputs are quantized and integer outputs dequantized on the file's own grids; any number of rows is run, in
    portions of the file's batch; the state of recurrent operations is cleared before each.

    >>> runner = Runner("model.tflite")              # doctest: +SKIP
    >>> probabilities = runner(images)               # doctest: +SKIP
    """

    def __init__(
        self,
        file: File,
        kernels: str = "xnnpack",
        *,
        threads: int = 1,
        process: bool = False,
        signature: str | None = None,
    ) -> None:
        """Opens a file.

        Args:
            file: bytes, a path, or an object with `.content` such as `Exported`.
            kernels: "xnnpack" (what a phone uses), "builtin" (optimized, without XNNPACK), "reference", or "tflm" (what
                microcontrollers compute; always in a child process). They do not agree to the last bit.
            threads: for the kernels that can use several.
            process: run in a child process, which a file that makes the runtime abort takes down alone. Each call
                starts one, 0.2 s.
            signature: name of the signature to call; the file's first when left out.

        Raises:
            ValueError: not a whole TFLite file, or an argument is not one of those above.
            ExportError: the runtime does not take the file.
        """
        if kernels not in _KERNELS:
            raise ValueError(f"`kernels` must be one of {list(_KERNELS)}. Received: kernels={kernels!r}")
        if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
            raise ValueError(f"`threads` must be an integer from 1. Received: threads={threads!r}")
        self._content = content_of(file)
        self._model = read(self._content, name=name_of(file))
        self._signature = self._model.signature(signature)
        self._kernels, self._threads, self._process = kernels, threads, process or kernels == "tflm"
        self._inputs = ports(self._model, self._signature, "inputs")
        self._outputs = ports(self._model, self._signature, "outputs")
        self._sessions: dict[bool, Any] = {}
        if not self._process:
            self._session(keep=False)

    @property
    def inputs(self) -> Mapping[str, Port]:
        """name -> input, in the order in which a list is taken."""
        return {port.name: port for port in self._inputs}

    @property
    def outputs(self) -> Mapping[str, Port]:
        """name -> output."""
        return {port.name: port for port in self._outputs}

    def __call__(self, x: Any) -> Any:
        """Runs the file on real values.

        Args:
            x: [rows, ...] of the only input; or a list in the order of `inputs`; or a dict by name.

        Returns:
            [rows, ...] real values of the only output, or a dict by name when there are several.

        Raises:
            ValueError: shape, type or number of rows do not fit.
            ExportError: the runtime failed; with `process`, also when it took its process down.
        """
        return self._answer({port.name: port.real(raw) for port, raw in self._run(x, raw=False)})

    def integers(self, x: Any) -> Any:
        """As a call, with outputs as the file's raw integers.

        An input that already has the file's integer type goes in as it is; every other is quantized.
        """
        return self._answer({port.name: raw for port, raw in self._run(x, raw=True)})

    def tensors(self, x: Any, indices: Sequence[int] | None = None) -> dict[int, np.ndarray]:
        """Raw values of tensors inside the first subgraph.

        Args:
            x: as for a call.
            indices: tensor numbers; every tensor that an operation computes when left out. The kernels "tflm" show the
                outputs alone.

        Returns:
            tensor number -> values of all runs, joined along the first axis.
        """
        if indices is None:
            graph = self._model.subgraphs[self._signature.subgraph]
            indices = [index for op in graph.operators for index in op.outputs]
        return self._execute(x, list(indices), raw=False, keep=True)

    def _answer(self, values: dict[str, np.ndarray]) -> Any:
        return next(iter(values.values())) if len(values) == 1 else values

    def _run(self, x: Any, *, raw: bool) -> list[tuple[Port, np.ndarray]]:
        got = self._execute(x, [port.tensor.index for port in self._outputs], raw=raw, keep=False)
        return [(port, got[port.tensor.index]) for port in self._outputs]

    def _execute(self, x: Any, fetch: list[int], *, raw: bool, keep: bool) -> dict[int, np.ndarray]:
        values = arranged(self._inputs, x)
        arrays = [port.feed(value, raw=raw) for port, value in zip(self._inputs, values, strict=True)]
        times = runs(self._inputs, arrays)
        pairs = list(zip(self._inputs, arrays, strict=True))
        feeds = {port.tensor.index: filled(port, array, times) for port, array in pairs}
        got = self._fetched(feeds, times, fetch, keep)
        whole, rows = max(
            ((times * port.batch, array.shape[0]) for port, array in pairs if array.ndim), default=(times, times)
        )
        return {index: value[:rows] if value.shape[:1] == (whole,) else value for index, value in got.items()}

    def _fetched(self, feeds: dict[int, np.ndarray], times: int, fetch: list[int], keep: bool) -> dict[int, np.ndarray]:
        if not self._process:
            return self._session(keep=keep).run(feeds, times, fetch)
        from tflite_export.child import run_in_child

        request = {
            "signature": self._signature.key or None,
            "kernels": self._kernels,
            "threads": self._threads,
            "keep": keep,
        }
        return run_in_child(self._content, request, feeds, times, fetch)

    def _session(self, *, keep: bool) -> Any:
        """The interpreter; a second one when tensors inside are asked for, since keeping them costs memory."""
        if keep not in self._sessions:
            from tflite_export.session import Session

            self._sessions[keep] = Session(
                self._content, self._model, self._signature, self._kernels, self._threads, keep=keep
            )
        return self._sessions[keep]

    def __repr__(self) -> str:
        inputs, outputs = (", ".join(port.text for port in side) for side in (self._inputs, self._outputs))
        return f"Runner({inputs} -> {outputs}; {self._kernels} kernels)"
