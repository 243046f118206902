"""The engine over tflite-micro's interpreter, in a child process: it ends its process on what it does not expect."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tflite_export.flatbuffer import read
from tflite_export.micro_session import MicroSession


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
        content = Path(path).read_bytes()
        model = read(content)
        signature = model.signature()
        self._session = MicroSession(content, model, signature, arena)
        self._feeds = {index: arrays[name] for name, index in signature.inputs.items()}
        self._outputs = signature.outputs
        self._times = times
        return {}, {}

    def outputs(self, arrays: Mapping[str, np.ndarray], *, seconds: float) -> Any:
        """Runs the inferences one after the other, for at most `seconds`, but one at least.

        Returns:
            {times: inferences run}, outputs by name, joined along a new first axis.
        """
        end = time.monotonic() + seconds
        found: list[dict[int, np.ndarray]] = []
        for number in range(self._times):
            if found and time.monotonic() > end:
                break
            if found:
                self._session.reset()
            found.append(self._session.run(self._part(number), 1, list(self._outputs.values())))
        joined = {name: np.stack([one[index] for one in found]) for name, index in self._outputs.items()}
        return {"times": len(found)}, joined

    def _part(self, number: int) -> dict[int, np.ndarray]:
        """What one inference reads; an array without an axis is every one's."""
        sizes = {index: array.shape[0] // self._times if array.ndim else 0 for index, array in self._feeds.items()}
        return {
            index: array[number * sizes[index] : (number + 1) * sizes[index]] if sizes[index] else array
            for index, array in self._feeds.items()
        }
