"""Data with labels as users have them, batch by batch."""

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
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
        ValueError: there is no batch.

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
    if isinstance(data, np.ndarray | tuple):
        leaves = flavor.flatten(data)
        rows = min(len(leaf) for leaf in leaves)
        for start in range(0, rows, batch_size):
            yield flavor.map_structure(lambda leaf, s=start: leaf[s : s + batch_size], data)
    elif hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, dict):
        yield from (data[place] for place in range(len(data)))
    elif hasattr(data, "__iter__") and not isinstance(data, dict | str | bytes):
        yield from data
    else:
        raise TypeError(
            f"`data` must be arrays (x, y), a tf.data.Dataset or batches (x, y). Received: {type(data).__name__}"
        )


@contextlib.contextmanager
def metrics_kept(model: Any) -> Iterator[None]:
    """While this holds, what is computed does not count in the model's metrics."""
    before = [(variable, tf.identity(flavor.read(variable))) for m in model.metrics for variable in m.variables]
    try:
        yield
    finally:
        for variable, value in before:
            variable.assign(value)
