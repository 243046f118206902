"""Sample data as users have them, checked against a model's inputs: batches of arrays, as often as they are wanted."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfcompress.core import flavor

# The kinds of numbers that an input's type takes: whole numbers of a float type are ids, other real ones are none.
_TAKES = {"f": "fiub", "i": "fiub", "u": "fiub", "b": "b"}


@dataclass(frozen=True)
class Input:
    """What a model expects at one input.

    Attributes:
        name: as the user knows it.
        shape: of one row, without the batch; None where any size goes.
        dtype: numpy's name of the type, such as "float32" or "int32".
        key: under which a model whose inputs are a dict holds it; data may use either.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    key: str | None = None


def inputs_of(model: Any) -> list[Input]:
    """The inputs of a Functional model, in the order of `model.inputs`."""
    structure = flavor.graph_inputs(model)
    keys = {id(t): key for key, t in structure.items()} if isinstance(structure, dict) else {}
    return [
        Input(
            flavor.input_name(t), tuple(t.shape[1:]), getattr(t.dtype, "name", t.dtype).removesuffix("_ref"),
            keys.get(id(t)),
        )
        for t in model.inputs
    ]  # fmt: skip


class Samples:
    """Batches of a model's inputs, from any form of data that Keras takes.

    Args:
        data: for a model of one input an array [N, ...]; for several a list of arrays in the order of the inputs or a
            dict by their names; or an iterable of batches of these (a generator, a `tf.data.Dataset`, a
            `keras.utils` sequence, a list of batches; rows without a batch axis count as one row), in which a tuple
            (x, y) or (x, y, weight) stands for its x, as in Keras; or a function that returns one of them.
        inputs: what the model expects, in the order in which arrays are wanted.
        argument: the name of the parameter that the data were passed to, for errors.
        batch_size: rows of a batch, where the data are arrays.
        limit: use at most so many rows.
        seed: of arrays with more rows, take a choice by this seed; None: the first ones.

    Iterating gives lists of arrays [rows, ...] in the inputs' types and order, each time anew.

    Raises:
        ValueError: no rows; a shape or a set of inputs that is not the model's; values that are not finite.
        TypeError: data of a type that holds no samples, or values that the input does not take.

    >>> [batch[0].shape for batch in Samples(np.zeros((5, 3)), [Input("x", (3,), "float32")], batch_size=2)]
    [(2, 3), (2, 3), (1, 3)]
    """

    def __init__(
        self, data: Any, inputs: Sequence[Input], argument: str = "data", *, batch_size: int = 32,
        limit: int | None = None, seed: int | None = None,
    ) -> None:  # fmt: skip
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"`batch_size` must be a positive whole number. Received: batch_size={batch_size!r}")
        self._inputs, self._argument = list(inputs), argument
        self._batch_size, self._limit, self._seed = batch_size, limit, seed
        self._start = self._starter(data)

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        rows = 0
        for arrays in self._start():
            columns = [self._checked(a, spec) for a, spec in zip(arrays, self._inputs, strict=True)]
            count = self._common_length(columns)
            if self._limit is not None:
                columns = [column[: self._limit - rows] for column in columns]
            if count:
                yield [self._finite(c, spec, rows) for c, spec in zip(columns, self._inputs, strict=True)]
            rows += count
            if self._limit is not None and rows >= self._limit:
                return
        if not rows:
            raise ValueError(f"`{self._argument}` is empty: at least one sample is needed")

    def columns(self) -> list[np.ndarray]:
        """All rows at once: for each input an array [N, ...].

        Raises:
            ValueError: they are of several shapes.
        """
        columns = []
        for parts in zip(*self, strict=True):
            shapes = sorted({part.shape[1:] for part in parts})
            if len(shapes) > 1:
                received = ", ".join(map(str, shapes))
                raise ValueError(f"`{self._argument}` must be rows of one shape. Received: {received}")
            columns.append(np.concatenate(parts))
        return columns

    def _starter(self, data: Any) -> Callable[[], Iterable[list[Any]]]:
        """What begins a pass over the data."""
        if callable(data) and not _is_array(data) and not _is_sequence(data):
            if isinstance(again := data(), Iterator):
                return _Restarted(again, data, self._batches)
            return self._starter(again)
        whole = self._matched(data, batch=False)
        if whole is not None:
            return lambda: self._slices(whole)
        if isinstance(data, str | bytes | Mapping) or not (isinstance(data, Iterable) or _is_sequence(data)):
            raise TypeError(
                f"`{self._argument}` must be arrays, batches (an iterable, a tf.data.Dataset) or a function that "
                f"returns one. Received: {type(data).__name__}"
            )
        if isinstance(data, Iterator):  # it runs once only
            data = list(itertools.islice(data, self._limit))
        return lambda: self._batches(data)

    def _batches(self, data: Any) -> Iterator[list[Any]]:
        for batch in (data[i] for i in range(len(data))) if _is_sequence(data) else data:
            arrays = self._matched(batch, batch=True)
            if arrays is None:
                raise ValueError(
                    f"`{self._argument}`: a batch must hold {self._expected()}. Received: {_described(batch)}"
                )
            yield [_with_batch(array, spec) for array, spec in zip(arrays, self._inputs, strict=True)]

    def _slices(self, whole: list[Any]) -> Iterator[list[Any]]:
        columns = [self._checked(a, spec) for a, spec in zip(whole, self._inputs, strict=True)]
        count = self._common_length(columns)
        if self._limit is not None and count > self._limit and self._seed is not None:
            chosen = np.sort(np.random.default_rng(self._seed).choice(count, self._limit, replace=False))
            columns = [column[chosen] for column in columns]
        for start in range(0, len(columns[0]), self._batch_size):
            yield [column[start : start + self._batch_size] for column in columns]

    def _matched(self, data: Any, *, batch: bool) -> list[Any] | None:
        """The arrays of `data` in the order of the inputs; None when it is an iterable of batches."""
        inputs = self._inputs
        if isinstance(data, Mapping):
            return self._by_name(data)
        if _is_array(data):
            if not batch and len(inputs) > 1:
                raise ValueError(f"`{self._argument}` must hold {self._expected()}. Received: one array {data.shape}")
            return [data] if len(inputs) == 1 else None
        if not isinstance(data, list | tuple):
            return None
        as_many = len(data) == len(inputs)
        if as_many and len(inputs) > 1 and all(map(_is_array, data)) and (batch or _same_rank(data, inputs)):
            return list(data)
        if batch and isinstance(data, tuple) and 1 <= len(data) <= 3:
            return self._matched(data[0], batch=True)
        if batch and as_many and len(inputs) == 1:
            return list(data)
        if batch and len(inputs) == 1 and all(np.isscalar(v) for v in data):
            return [np.asarray(data)]
        if not batch and isinstance(data, tuple) and len(inputs) == 1 and len(data) in (2, 3) and _is_array(data[0]):
            return [data[0]]
        return None

    def _by_name(self, data: Mapping[str, Any]) -> list[Any]:
        if all(spec.key in data for spec in self._inputs):
            return [data[spec.key or ""] for spec in self._inputs]
        names = [spec.name for spec in self._inputs]
        if missing := [name for name in names if name not in data]:
            wanted = [spec.key or spec.name for spec in self._inputs]
            raise ValueError(
                f"`{self._argument}` must hold the inputs {wanted} by name. Received: {list(map(str, data))}, "
                f"without {missing}"
            )
        return [data[name] for name in names]

    def _checked(self, array: Any, spec: Input) -> np.ndarray:
        """The array, its shape and type verified."""
        array = np.asarray(array)
        fits = array.ndim == len(spec.shape) + 1 and all(
            want in (None, got) for want, got in zip(spec.shape, array.shape[1:], strict=True)
        )
        if not fits:
            expected = ", ".join(["N", *("any" if size is None else str(size) for size in spec.shape)])
            raise ValueError(
                f"`{self._argument}` for input {spec.name!r} must have the shape ({expected}). Received: {array.shape}"
            )
        wanted = np.dtype(spec.dtype if spec.dtype != "bfloat16" else "float32").kind
        whole = wanted == "f" or array.dtype.kind != "f" or bool(np.all(array == np.round(array)))
        if array.dtype.kind not in _TAKES.get(wanted, wanted) or not whole:
            raise TypeError(
                f"`{self._argument}` for input {spec.name!r} must hold {spec.dtype} values. Received: {array.dtype}"
                f"{'' if whole else ' that are no whole numbers'}"
            )
        return array

    def _finite(self, array: np.ndarray, spec: Input, before: int) -> np.ndarray:
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            row = before + int(np.argwhere(~np.isfinite(array))[0][0])
            raise ValueError(
                f"`{self._argument}` for input {spec.name!r} must be finite. Received: NaN or infinity in row {row}"
            )
        return array.astype(spec.dtype, copy=False)

    def _common_length(self, columns: Sequence[np.ndarray]) -> int:
        lengths = {spec.name: len(column) for spec, column in zip(self._inputs, columns, strict=True)}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"`{self._argument}` must have as many rows for each input. Received: {lengths}")
        return len(columns[0])

    def _expected(self) -> str:
        return "arrays for " + ", ".join(f"{spec.name!r} {('N', *spec.shape)}" for spec in self._inputs)


class _Restarted:
    """A generator function: its first generator is used, not dropped; later passes make new ones."""

    def __init__(self, first: Iterator[Any], function: Callable[[], Any], batches: Callable[[Any], Any]) -> None:
        self._first: Iterator[Any] | None = first
        self._function, self._batches = function, batches

    def __call__(self) -> Any:
        source, self._first = self._first, None
        return self._batches(self._function() if source is None else source)


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) or (hasattr(value, "__array__") and hasattr(value, "shape"))


def _is_sequence(value: Any) -> bool:
    """A keras.utils sequence: batches by number."""
    numbered = hasattr(value, "__getitem__") and hasattr(value, "__len__")
    return numbered and not _is_array(value) and not isinstance(value, list | tuple | Mapping | str | bytes)


def _same_rank(arrays: Sequence[Any], inputs: Sequence[Input]) -> bool:
    return all(len(a.shape) == len(s.shape) + 1 for a, s in zip(arrays, inputs, strict=True))


def _with_batch(array: Any, spec: Input) -> np.ndarray:
    array = np.asarray(array)
    return array[None] if array.ndim == len(spec.shape) else array


def _described(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"{type(value).__name__} of {[_described(item) for item in value]}"
    return f"{type(value).__name__} {getattr(value, 'shape', '')}".strip()
