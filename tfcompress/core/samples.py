"""Sample data as a user has them, checked against a model: batches of its inputs, as often as they are wanted."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core import flavor


class Samples:
    """Batches of a model's inputs, from any form of data that Keras takes.

    Args:
        data: an array, a list, tuple or dict of arrays, a `tf.data.Dataset` (labels and weights are dropped), a
            `keras.utils` sequence, an iterable of batches or a function without arguments that returns one.
        model: a Functional model; its inputs decide shapes, dtypes and order.
        argument: the name of the parameter that the data were passed to, for errors.
        batch_size: rows of a batch, where the data are arrays.
        limit: use at most so many rows.

    Iterating gives lists of arrays [rows, ...] in the order of `model.inputs`, each time anew.

    Raises:
        ValueError: no rows; a shape or a set of inputs that is not the model's; values that are not finite.
        TypeError: data of a type that holds no samples, or real numbers where the model takes indices.
    """

    def __init__(
        self, data: Any, model: Any, argument: str = "data", batch_size: int = 32, limit: int | None = None
    ) -> None:
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"`batch_size` must be a positive whole number. Received: batch_size={batch_size!r}")
        self._inputs = list(model.inputs)
        self._structure = flavor.graph_inputs(model)
        self._argument, self._batch_size, self._limit = argument, batch_size, limit
        self._start = self._starter(data)

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        rows = 0
        for batch in self._start():
            arrays = self._checked(self._ordered(batch))
            if self._limit is not None:
                arrays = [array[: self._limit - rows] for array in arrays]
            if len(arrays[0]):
                rows += len(arrays[0])
                yield arrays
            if self._limit is not None and rows >= self._limit:
                break
        if not rows:
            raise ValueError(f"`{self._argument}` must hold at least one sample. Received none")

    def _starter(self, data: Any) -> Callable[[], Iterable[Any]]:
        """What begins a pass over the data."""
        if isinstance(data, tf.data.Dataset):
            labelled = isinstance(data.element_spec, tuple) and len(data.element_spec) in (2, 3)
            return lambda: ((batch[0] if labelled else batch) for batch in data)
        if isinstance(data, str | bytes):
            raise TypeError(f"`{self._argument}` must be samples. Received: {type(data).__name__}")
        if callable(data) and not hasattr(data, "shape"):
            return lambda: map(self._without_labels, data())
        if hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, list | tuple | dict):
            if not hasattr(data, "shape"):  # a keras.utils sequence: batches with labels
                return lambda: (self._without_labels(data[i]) for i in range(len(data)))
        if self._is_arrays(data):
            return lambda: self._slices(data)
        if isinstance(data, Iterable) and not isinstance(data, str | bytes | dict):
            held = [self._without_labels(batch) for batch in data]
            return lambda: held
        raise TypeError(
            f"`{self._argument}` must be arrays, a tf.data.Dataset, or batches. Received: {type(data).__name__}"
        )

    def _without_labels(self, batch: Any) -> Any:
        """(x, y) and (x, y, weight) are their x; a tuple of as many parts as the model has inputs is these."""
        labelled = isinstance(batch, tuple) and len(batch) in (2, 3) and len(batch) != len(self._inputs)
        return batch[0] if labelled else batch

    def _is_arrays(self, data: Any) -> bool:
        if isinstance(data, dict):
            return True
        if isinstance(data, list | tuple):
            return len(data) == len(self._inputs) and all(hasattr(a, "shape") for a in data)
        return hasattr(data, "shape")

    def _slices(self, data: Any) -> Iterator[Any]:
        arrays = [np.asarray(array) for array in self._ordered(data)]
        counts = {array.shape[0] if array.ndim else 0 for array in arrays}
        if len(counts) > 1:
            raise ValueError(
                f"`{self._argument}` must hold equally many rows for each input. Received: {sorted(counts)}"
            )
        for start in range(0, counts.pop(), self._batch_size):
            by_tensor = {id(t): a[start : start + self._batch_size] for t, a in zip(self._inputs, arrays, strict=True)}
            yield flavor.map_structure(lambda t, by_tensor=by_tensor: by_tensor[id(t)], self._structure)

    def _ordered(self, batch: Any) -> list[Any]:
        """The arrays of a batch in the order of the model's inputs."""
        names = [flavor.input_name(t) for t in self._inputs]
        if isinstance(batch, dict):
            keyed = {id(t): key for key, t in self._structure.items()} if isinstance(self._structure, dict) else {}
            keys = [keyed.get(id(t), name) for t, name in zip(self._inputs, names, strict=True)]
            if missing := [key for key in keys if key not in batch]:
                raise ValueError(
                    f"`{self._argument}` must hold the inputs {keys}. Received: {list(batch)}, without {missing}"
                )
            return [batch[key] for key in keys]
        given = list(batch) if isinstance(batch, list | tuple) else [batch]
        if len(given) != len(self._inputs):
            raise ValueError(f"`{self._argument}` must hold {len(names)} inputs {names}. Received: {len(given)}")
        order = {id(t): array for t, array in zip(flavor.flatten(self._structure), given, strict=True)}
        return [order[id(t)] for t in self._inputs]

    def _checked(self, arrays: list[Any]) -> list[np.ndarray]:
        return [self._check(np.asarray(a), t) for a, t in zip(arrays, self._inputs, strict=True)]

    def _check(self, array: np.ndarray, tensor: Any) -> np.ndarray:
        name, dtype = flavor.input_name(tensor), getattr(tensor.dtype, "name", tensor.dtype)
        expected = (None, *tensor.shape[1:])
        fits = array.ndim == len(expected) and all(e in (None, a) for e, a in zip(expected, array.shape, strict=True))
        if not fits:
            raise ValueError(
                f"`{self._argument}` for input {name!r} must be of shape {expected}. Received: {array.shape}"
            )
        if array.dtype.kind not in "fiub":
            raise TypeError(f"`{self._argument}` for input {name!r} must be numbers. Received: dtype {array.dtype}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"`{self._argument}` for input {name!r} must be finite. Received: NaN or infinity in it")
        if array.dtype.kind == "f" and "float" not in str(dtype) and (array != np.round(array)).any():
            raise TypeError(
                f"`{self._argument}` for input {name!r} must be whole numbers ({dtype}). Received: {array.dtype}"
            )
        return array.astype(dtype, copy=False)
