"""What a composite's call did, as values that two passes over a model can be compared by."""

from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.opaque import Einsum


class CannotOpen(Exception):
    """A composite whose call would be recorded wrongly; the message is the reason."""


def symbolic(structure: Any) -> list:
    """The symbolic tensors in a structure."""
    return [t for t in flavor.flatten(structure) if flavor.is_symbolic(t)]


class Fingerprint:
    """Anything that stands in a call, as a value: equal in two passes when it means the same.

    Tensors are numbered in the order in which they are met; a multiple of the batch is told from other numbers.
    """

    def __init__(self, numbers: dict[int, int], batch: int | None) -> None:
        self.numbers, self.batch = numbers, batch

    def __call__(self, value: Any) -> Any:
        if flavor.is_symbolic(value):
            return "tensor", self.numbers.setdefault(id(value), len(self.numbers))
        if flavor.is_variable(value) or hasattr(value, "_variable"):
            raise CannotOpen(f"uses the weight {flavor.variable_path(value)} as a constant")
        if isinstance(value, dict):
            return tuple((str(k), self(v)) for k, v in value.items())
        if isinstance(value, (list, tuple)):
            return tuple(map(self, value))
        if isinstance(value, slice):
            return "slice", self(value.start), self(value.stop), self(value.step)
        if isinstance(value, int) and not isinstance(value, bool):
            return ("batch", value // self.batch) if self.batch and value and value % self.batch == 0 else value
        if isinstance(value, (np.ndarray, np.generic, tf.Tensor)):
            array = np.asarray(value)
            alike = self.batch and array.ndim and is_batch(array.shape[0], self.batch)
            rows = array[: array.shape[0] // self.batch] if alike else array
            return "array", self(array.shape), str(array.dtype), rows.tobytes()
        return value if isinstance(value, (str, float, bool, type(None))) else type(value).__name__

    def operation(self, operation: Any) -> Any:
        """A layer is itself; a plain operation is its class and what it was made with."""
        if isinstance(operation, Einsum):  # made anew in each pass, as plain operations are
            return "einsum", operation.equation
        if not flavor.is_operation(operation):
            if flavor.holds_nothing(operation):  # one that the call made just now says by its config what it computes
                config = {k: v for k, v in operation.get_config().items() if k != "name"}
                return "layer", type(operation).__name__, repr(config)
            return "layer", id(operation)
        made_with = {k: v for k, v in vars(operation).items() if not k.startswith("_") and k not in ("name", "call")}
        return type(operation).__name__, self({k: v for k, v in made_with.items() if not callable(v)}), getattr(
            operation, "symbol", None)  # fmt: skip


def is_batch(size: Any, batch: int | None) -> bool:
    """Whether a dimension is the batch that is being traced with, or a multiple of it."""
    return batch is not None and isinstance(size, int) and size > 0 and size % batch == 0
