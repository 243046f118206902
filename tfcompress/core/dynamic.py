"""A graph that was traced with a number as its batch, again with a batch of any size.

Keras 3 gives a composite's call no batch to compute with (`ops.shape(x)[0]` is None), so the call sees a prime number
that divides nothing else in the model. Wherever a multiple of it stands afterwards, the batch stood.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.fingerprint import is_batch
from tfcompress.core.flavor import keras
from tfcompress.core.opaque import Expand
from tfcompress.core.replay import Call, run

_PRIMES = (997, 1009, 1013, 1019, 1021, 1031, 1033, 1039, 1049, 1051, 1061, 1063, 1069, 1087, 1091, 1093)
_COPIES_ROWS = ("BroadcastTo", "Tile", "Repeat")


def free_primes(sizes: Iterable[int | None], count: int) -> list[int]:
    """Primes that divide none of the sizes.

    >>> free_primes([997, 3, None], 2)
    [1009, 1013]
    """
    known = {size for size in sizes if size}
    free = [prime for prime in _PRIMES if all(size % prime for size in known)]
    if len(free) < count:
        raise ValueError(f"no number stands for the batch alone among dimensions {sorted(known)[-10:]}")
    return free[:count]


class Loosened:
    """Calls made again with a batch of any size.

    Attributes:
        failed: what could not be made so: (operation, reason). Its outputs are stand-ins, the graph is of no use then.
    """

    def __init__(self, batch: int, reference: Any) -> None:
        self.batch, self.reference = batch, reference
        self.failed: list[tuple[Any, str]] = []
        self._constants = 0

    def run(self, steps: list[Call], values: dict[int, Any]) -> dict[int, Any]:
        """Make the calls; `values` as in `replay.run`."""
        return run(steps, values, self._call)

    def _call(self, call: Call, args: tuple, kwargs: dict[str, Any]) -> Any:
        expected = [tuple(None if is_batch(d, self.batch) else d for d in t.shape) for t in call.outputs]
        try:
            outputs = self._again(call, args, kwargs, expected)
            shapes = [tuple(t.shape) for t in flavor.flatten(outputs)]
            if len(shapes) == len(expected) and all(map(_agree, shapes, expected)):
                return outputs
            reason = f"{call.name} has shape {shapes} where {expected} was expected"
        except Exception as error:  # an operation that does not take -1 or None where a batch stood
            reason = f"{call.name}: {type(error).__name__}: {' '.join(str(error).split())[:150]}"
        self.failed.append((call.operation, f"depends on the batch size in a way that no graph holds: {reason}"))
        return [flavor.KerasTensor(shape, dtype=t.dtype) for shape, t in zip(expected, call.outputs, strict=True)]

    def _again(self, call: Call, args: tuple, kwargs: dict[str, Any], expected: list[tuple]) -> Any:
        operation = call.operation
        if isinstance(operation, keras.layers.Layer):
            return operation(*self._loosen(args), **self._loosen(kwargs))
        found: list[int] = []
        made_with = lambda value: self._loosen(value, found)  # noqa: E731
        kind = type(operation).__name__
        if kind == "Reshape":
            return self._reshape(operation, args, kwargs, expected[0])
        new = flavor.loosened_operation(operation, made_with)
        args, kwargs = self._loosen(args, found), self._loosen(kwargs, found)
        if found and kind in _COPIES_ROWS:
            return self._expand(args[0] if args else next(iter(kwargs.values())), expected[0], call.name)
        return (new if found else operation)(*args, **kwargs)

    def _reshape(self, operation: Any, args: tuple, kwargs: dict[str, Any], expected: tuple) -> Any:
        """To the shape it had, -1 for the batch; other sizes that were -1 are known from the trace."""
        if expected.count(None) != 1:
            return operation(*args, **kwargs)
        shape = [-1 if d is None else d for d in expected]
        new = flavor.loosened_operation(operation, lambda v: shape if isinstance(v, (list, tuple, int)) else v)
        return new(*args[:1], **{k: v for k, v in kwargs.items() if flavor.is_symbolic(v)})

    def _expand(self, x: Any, expected: tuple, name: str) -> Any:
        """The first row as often as there are rows in a batch."""
        rows = len(x.shape) < len(expected) or x.shape[0] == 1
        own = tuple(x.shape)[-len(expected) :]
        if not rows or not all(
            a in (1, b) or i == 0 for i, (a, b) in enumerate(zip(own[::-1], expected[::-1], strict=False))
        ):
            raise ValueError("it repeats more than one row")
        target = tuple(-1 if d is None else d for d in expected)
        return Expand(target, dtype=tf.as_dtype(x.dtype).name, name=name)(self.reference, x)

    def _loosen(self, value: Any, found: list[int] | None = None) -> Any:
        """The value without the batch: -1 in shapes, None in slices, a broadcast row for rows that are all alike."""
        found = [] if found is None else found
        again: Callable[[Any], Any] = lambda v: self._loosen(v, found)  # noqa: E731
        if isinstance(value, bool) or flavor.is_symbolic(value):
            return value
        if isinstance(value, int) and is_batch(value, self.batch):
            found.append(value)
            return -1
        if isinstance(value, dict):
            return {k: again(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(map(again, value))
        if isinstance(value, slice):
            if not is_batch(value.stop, self.batch):
                return value
            found.append(value.stop)
            return slice(value.start, None, value.step)
        if isinstance(value, (np.ndarray, tf.Tensor)) and value.ndim and is_batch(int(value.shape[0]), self.batch):
            return self._rows(np.asarray(value), found)
        return value

    def _rows(self, rows: np.ndarray, found: list[int]) -> Any:
        found.append(rows.shape[0])
        if rows.shape[0] != self.batch or not (rows == rows[:1]).all():
            raise ValueError("its call computes a constant with different values for each row of the batch")
        self._constants += 1
        layer = Expand((-1, *rows.shape[1:]), dtype=rows.dtype.name, name=f"batch_of_constant_{self._constants}")
        return layer(self.reference, tf.constant(rows[:1]))


def _agree(shape: tuple, expected: tuple) -> bool:
    return len(shape) == len(expected) and all(
        a is None or b is None or a == b for a, b in zip(shape, expected, strict=True)
    )
