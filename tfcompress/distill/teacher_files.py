"""Teachers in files: a SavedModel, a `.tflite` file."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.distill.teacher import Judged, Teacher, stopped


class Saved(Judged):
    """A SavedModel's signature `serving_default`; several inputs are matched by their names."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        loaded = tf.saved_model.load(os.fspath(path))
        if "serving_default" not in loaded.signatures:
            raise ValueError(
                f"`teacher` must have the signature 'serving_default'. Received: {path}, with {list(loaded.signatures)}"
            )
        self._loaded = loaded  # its variables live as long as this object
        self._signature = loaded.signatures["serving_default"]
        self._wanted = self._signature.structured_input_signature[1]
        self._order: list[str] = []

    def ask_by(self, names: Sequence[str]) -> None:
        self._order = list(names)

    def __call__(self, x: Any) -> tuple[Any, dict[str, Any]]:
        feeds = self._feeds(x)
        outputs = self._signature(**{name: tf.cast(value, self._wanted[name].dtype) for name, value in feeds.items()})
        return stopped(next(iter(outputs.values())) if len(outputs) == 1 else outputs), {}

    def _feeds(self, x: Any) -> dict[str, Any]:
        """Inputs by the signature's names, which come in no order of the user's."""
        flat = flavor.flatten(x)
        if len(self._wanted) == len(flat) == 1:
            return dict.fromkeys(self._wanted, flat[0])
        given = x if isinstance(x, Mapping) else dict(zip(self._order, flat, strict=False))
        if set(given) != set(self._wanted) or len(flat) != len(self._wanted):
            received = sorted(given) if given else f"a list of {len(flat)} inputs without names"
            raise ValueError(
                f"`x` must be a dict with the inputs {sorted(self._wanted)} of the SavedModel, or a list for a student "
                f"whose inputs have these names. Received: {received}"
            )
        return {name: given[name] for name in self._wanted}


class File(Teacher):
    """A `.tflite` file, run row by row on this machine's runtime: slow, so store its answers (`cache_teacher`).

    What its answers are is told by the operator that makes them: SOFTMAX, LOGISTIC, or any other for logits.
    """

    compiles = False

    def __init__(self, file: Any) -> None:
        # Only this kind of teacher needs files and their runtime.
        from tflite_export.flatbuffer import content_of, read
        from tflite_export.runner import Runner

        self._runner = Runner(file)
        if len(self._runner.outputs) != 1:
            raise ValueError(f"`teacher` must be a file with one output. Received: {list(self._runner.outputs)}")
        (port,) = self._runner.outputs.values()
        self._shape = tuple(port.tensor.shape[1:])
        model = read(content_of(file))
        self.kind = _made_by(model.subgraphs[model.signature().subgraph], port.tensor.index)

    def __call__(self, x: Any) -> tuple[Any, dict[str, Any]]:
        names = list(x) if isinstance(x, Mapping) else None

        def run(*arrays: np.ndarray) -> np.ndarray:
            given = dict(zip(names, arrays, strict=True)) if names else list(arrays) if len(arrays) > 1 else arrays[0]
            return np.asarray(self._runner(given), np.float32)

        answers = tf.numpy_function(run, list(x.values()) if names else flavor.flatten(x), tf.float32)
        answers.set_shape([None, *self._shape])
        return stopped(answers), {}


def _made_by(graph: Any, tensor: int) -> str:
    """The kind of a file's tensor, by its operator behind those that hand values on."""
    operator = graph.maker.get(tensor)
    while operator is not None and operator.kind in ("DEQUANTIZE", "QUANTIZE", "RESHAPE", "CAST"):
        operator = graph.maker.get(operator.inputs[0])
    kinds = {"SOFTMAX": "softmax", "LOGISTIC": "sigmoid"}
    return "logits" if operator is None else kinds.get(operator.kind, "logits")
