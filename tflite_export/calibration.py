"""Representative data: arrays, batches or a dataset become checked rows, one array an input of the model."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LIMIT = 512


@dataclass(frozen=True)
class Input:
    """What a model expects at one input.

    Attributes:
        name: as the user knows it.
        shape: of one row, without the batch; every size is known.
        dtype: numpy's name of the type, such as "float32" or "int32".
    """

    name: str
    shape: tuple[int, ...]
    dtype: str


def rows(data: Any, inputs: Sequence[Input], *, limit: int = LIMIT, seed: int = 0) -> list[np.ndarray]:
    """Representative data as one array per input.

    Args:
        data: for a model of one input an array [N, ...]; for several a list of arrays in the order of the inputs or a
            dict by their names; or an iterable of batches of these (a generator, a `tf.data.Dataset`, a list of
            batches; rows without a batch axis count as one row), in which a tuple (x, y) or (x, y, weight) stands for
            its x, as in Keras; or a function that returns one of them.
        inputs: what the model expects.
        limit: at most so many rows are used: of arrays a seeded choice, of iterables the first ones.
        seed: of that choice.

    Returns:
        For each input an array [n, *shape] of its dtype, n <= limit the same for all.

    Raises:
        ValueError: there are no rows, a shape differs from the model's, or a value is NaN or infinite.
        TypeError: values of a kind that the input does not take, or data of an unknown form.

    >>> [a.shape for a in rows(np.zeros((7, 3)), [Input("x", (3,), "float32")], limit=5)]
    [(5, 3)]
    """
    if callable(data):
        data = data()
    whole = _matched(data, inputs, batch=False)
    if whole is not None:
        columns = [_checked(array, spec) for array, spec in zip(whole, inputs, strict=True)]
        count = _common_length(columns, inputs)
        if count > limit:
            chosen = np.sort(np.random.default_rng(seed).choice(count, limit, replace=False))
            columns = [column[chosen] for column in columns]
        return [_finite(column, spec) for column, spec in zip(columns, inputs, strict=True)]
    return _collected(data, inputs, limit)


def batches(columns: Sequence[np.ndarray], size: int) -> list[list[np.ndarray]]:
    """Rows cut into whole batches, one list of arrays [size, ...] each; too few rows are repeated to fill one.

    >>> [b[0].tolist() for b in batches([np.arange(5)], 2)]
    [[0, 1], [2, 3]]
    """
    count = len(columns[0])
    if count < size:
        columns = [np.concatenate([column] * -(-size // count))[:size] for column in columns]
        count = size
    return [[column[i : i + size] for column in columns] for i in range(0, count - size + 1, size)]


def _collected(data: Any, inputs: Sequence[Input], limit: int) -> list[np.ndarray]:
    """The first rows of an iterable of batches."""
    if isinstance(data, (str, bytes, Mapping)) or not isinstance(data, Iterable):
        raise TypeError(
            "`calibration` must be arrays, an iterable of batches, a tf.data.Dataset or a function that returns one. "
            f"Received: {type(data).__name__}"
        )
    parts: list[list[np.ndarray]] = []
    count = 0
    for batch in itertools.islice(iter(data), limit):
        arrays = _matched(batch, inputs, batch=True)
        if arrays is None:
            raise ValueError(f"`calibration`: a batch must hold {_expected(inputs)}. Received: {_described(batch)}")
        columns = [_checked(_with_batch(array, spec), spec) for array, spec in zip(arrays, inputs, strict=True)]
        count += _common_length(columns, inputs)
        parts.append([_finite(column, spec) for column, spec in zip(columns, inputs, strict=True)])
        if count >= limit:
            break
    if not count:
        raise ValueError("`calibration` is empty: at least one row is needed")
    return [np.concatenate(columns)[:limit] for columns in zip(*parts, strict=True)]


def _matched(data: Any, inputs: Sequence[Input], *, batch: bool) -> list[Any] | None:
    """The arrays of `data` in the order of the inputs; None when it is an iterable of batches."""
    if isinstance(data, Mapping):
        missing = [spec.name for spec in inputs if spec.name not in data]
        if missing:
            raise ValueError(f"`calibration` must hold {_expected(inputs)} by name. Received: {sorted(map(str, data))}")
        return [data[spec.name] for spec in inputs]
    if _is_array(data):
        return [data] if len(inputs) == 1 else None
    if not isinstance(data, (list, tuple)):
        return None
    if len(inputs) > 1 and len(data) == len(inputs) and all(map(_is_array, data)) and _fits(data, inputs):
        return list(data)
    if batch and isinstance(data, tuple) and 1 <= len(data) <= 3:
        return _matched(data[0], inputs, batch=True)
    if len(inputs) == len(data) == 1 and batch:
        return list(data)
    if batch and all(np.isscalar(v) for v in data) and len(inputs) == 1:
        return [np.asarray(data)]
    if (
        len(inputs) > 1
        and len(data) == len(inputs)
        and all(map(_is_array, data))
        and (batch or _same_rank(data, inputs))
    ):
        return list(data)  # of the right form, but of a wrong shape: the check says which
    if not batch and isinstance(data, tuple) and len(inputs) == 1 and 2 <= len(data) <= 3 and _is_array(data[0]):
        return [data[0]]
    return None


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) or (hasattr(value, "__array__") and hasattr(value, "shape"))


def _fits(arrays: Sequence[Any], inputs: Sequence[Input]) -> bool:
    return all(tuple(a.shape)[-len(s.shape) or len(a.shape) :] == s.shape for a, s in zip(arrays, inputs, strict=True))


def _same_rank(arrays: Sequence[Any], inputs: Sequence[Input]) -> bool:
    return all(len(a.shape) == len(s.shape) + 1 for a, s in zip(arrays, inputs, strict=True))


def _with_batch(array: Any, spec: Input) -> np.ndarray:
    array = np.asarray(array)
    return array[None] if array.shape == spec.shape else array


def _checked(array: Any, spec: Input) -> np.ndarray:
    """The array in the input's type, its shape verified."""
    array = np.asarray(array)
    if array.ndim != len(spec.shape) + 1 or array.shape[1:] != spec.shape:
        expected = ", ".join(["N", *map(str, spec.shape)])
        raise ValueError(
            f"`calibration` for input {spec.name!r} must have the shape ({expected}). Received: {array.shape}"
        )
    wanted, got = np.dtype(spec.dtype).kind, array.dtype.kind
    if got not in {"f": "fiu", "i": "iu", "u": "iu", "b": "b"}.get(wanted, wanted):
        raise TypeError(f"`calibration` for input {spec.name!r} must hold {spec.dtype} values. Received: {array.dtype}")
    return array


def _finite(array: np.ndarray, spec: Input) -> np.ndarray:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        row = int(np.argwhere(~np.isfinite(array))[0][0])
        raise ValueError(
            f"`calibration` for input {spec.name!r} must be finite. Received: NaN or infinity in row {row}"
        )
    return array.astype(spec.dtype)


def _common_length(columns: Sequence[np.ndarray], inputs: Sequence[Input]) -> int:
    lengths = {spec.name: len(column) for spec, column in zip(inputs, columns, strict=True)}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"`calibration` must have as many rows for each input. Received: {lengths}")
    count = len(columns[0])
    if not count:
        raise ValueError("`calibration` is empty: at least one row is needed")
    return count


def _expected(inputs: Sequence[Input]) -> str:
    return "arrays for " + ", ".join(f"{spec.name!r} {('N', *spec.shape)}" for spec in inputs)


def _described(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__} of {[_described(item) for item in value]}"
    return f"{type(value).__name__} {getattr(value, 'shape', '')}".strip()
