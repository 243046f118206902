"""Data with labels as users have them, batch by batch."""

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.flavor import keras


def labelled(data: Any, batch_size: int, limit: int) -> Iterator[tuple[Any, Any, Any]]:
    """Batches (x, y, sample weight) of what `fit` takes: arrays (x, y), a `tf.data.Dataset`, a sequence of batches.

    Args:
        data: (x, y) or (x, y, weight) of arrays or structures of arrays, or an iterable of batches of these.
        batch_size: rows of a batch, where the data are arrays.
        limit: at most so many batches.

    Raises:
        TypeError: data that are none of these.
        ValueError: there is no batch, or arrays have not as many rows.

    >>> import numpy as np
    >>> [x.shape for x, y, _ in labelled((np.zeros((5, 3)), np.zeros(5)), batch_size=2, limit=2)]
    [(2, 3), (2, 3)]
    """
    found = False
    for batch in itertools.islice(_batches(data, batch_size), limit):
        found = True
        yield keras.utils.unpack_x_y_sample_weight(batch)
    if not found:
        raise ValueError("`data` is empty: at least one batch is needed")


def _batches(data: Any, batch_size: int) -> Iterator[Any]:
    if isinstance(data, tuple) or (hasattr(data, "__array__") and hasattr(data, "shape")):
        rows = [len(leaf) for leaf in flavor.flatten(data) if leaf is not None]
        if len(set(rows)) > 1:
            raise ValueError(f"`data` must have as many rows in each array. Received: {rows}")
        for start in range(0, rows[0] if rows else 0, batch_size):
            yield flavor.map_structure(lambda v, s=start: None if v is None else v[s : s + batch_size], data)
    elif hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, dict):
        yield from (data[place] for place in range(len(data)))
    elif hasattr(data, "__iter__") and not isinstance(data, dict | str | bytes):
        yield from data
    else:
        raise TypeError(
            f"`data` must be arrays (x, y), a tf.data.Dataset or batches (x, y). Received: {type(data).__name__}"
        )


def repeatable(data: Any, limit: int) -> Any:
    """The same data, or a list of their batches where they are an iterator, which runs once only.

    Args:
        data: as `labelled` takes it.
        limit: at most so many batches are wanted.
    """
    return list(itertools.islice(data, limit)) if isinstance(data, Iterator) else data


def total(shape: Sequence[int], devices: str | None) -> tf.Variable:
    """A variable for sums over batches, zero at first.

    Args:
        shape: of what is summed.
        devices: what is read after each device of a strategy has added its own in a step: the "sum", when each has its
            part of a batch, or the "mean", when each has all of it. None: it is added to outside of steps.
    """
    if devices is None:
        return tf.Variable(tf.zeros(shape), trainable=False)
    aggregation = {"sum": tf.VariableAggregation.SUM, "mean": tf.VariableAggregation.MEAN}[devices]
    return tf.Variable(tf.zeros(shape), trainable=False, synchronization=tf.VariableSynchronization.ON_READ,
                       aggregation=aggregation)  # fmt: skip


@contextlib.contextmanager
def metrics_kept(model: Any) -> Iterator[None]:
    """While this holds, what is computed does not count in the model's metrics."""
    before = [(variable, tf.identity(flavor.read(variable))) for m in model.metrics for variable in m.variables]
    try:
        yield
    finally:
        for variable, value in before:
            variable.assign(value)
