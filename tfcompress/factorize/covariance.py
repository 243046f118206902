"""What layers read on data: the second moments by which a decomposition is weighted."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.flavor import keras
from tfcompress.factorize.target import Target

_EXAMPLES = 32  # that are run at once, at most
_ROWS = 4096  # positions of these, at most
_NUMBERS = 1 << 23  # of windows that are laid out at once, where one example has no more
_WIDEST = 4096  # numbers of a position from which on only their own squares are summed
_RIDGE = 1e-2  # of the mean square: what the data do not show is kept at this weight


def second_moments(flat: Any, targets: Sequence[Target], data: Iterable[list[np.ndarray]]) -> dict[int, np.ndarray]:
    """For each layer R with R R' = mean of x x' + ridge over the rows x that its kernel meets.

    Args:
        flat: the flat graph that holds the layers.
        targets: its layers.
        data: batches of the model's inputs, as of `Samples`.

    Returns:
        By the layer's id: a lower triangular [n, n], or the diagonal [n] of wide layers and tables. Layers whose rows
        are not known are left out.

    Raises:
        ValueError: a layer reads NaN or infinity.
    """
    calls = [(target, call.inputs[0]) for target in targets for call in target.calls]
    taps = keras.Model(flavor.graph_inputs(flat), [tensor for _, tensor in calls])
    sums: dict[int, np.ndarray] = {}
    counts: dict[int, int] = {}
    rng = np.random.default_rng(0)
    for arrays in _few(data):
        given = flavor.pack_like(flavor.graph_inputs(flat), [tf.convert_to_tensor(a) for a in arrays])
        outputs = list(flavor.flatten(taps(given, training=False)))
        for target, _ in calls:
            for rows in _rows(target, np.asarray(outputs.pop(0)), rng):
                key = id(target.layer)
                found = _sum(rows, target)
                found += sums.get(key, 0.0)
                sums[key] = found
                counts[key] = counts.get(key, 0) + len(rows)
    roots = {}
    for target in targets:
        if (key := id(target.layer)) in sums:
            moment = sums.pop(key)
            moment /= counts[key]
            if not np.isfinite(moment).all():
                raise ValueError(
                    "`data` must give finite numbers at every layer that may change. Received: NaN or infinity at the "
                    f"input of {target.layer.name!r}"
                )
            roots[key] = _root(moment)
    return roots


def _few(data: Iterable[list[np.ndarray]]) -> Iterator[list[np.ndarray]]:
    """Batches of no more than `_EXAMPLES`: what all layers read of one is held at once."""
    for arrays in data:
        for start in range(0, len(arrays[0]), _EXAMPLES):
            yield [array[start : start + _EXAMPLES] for array in arrays]


def _rows(target: Target, values: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """A choice of the rows of a batch, some examples at a time: windows take many times the memory of what they see."""
    laid_out = values.size * math.prod(target.shape[:-2])
    parts = np.array_split(values, min(len(values), -(-laid_out // _NUMBERS)))
    for part in parts:
        rows = target.rows(part)
        if rows is None:
            return
        most = -(-_ROWS // len(parts))
        if rows.ndim == 2 and len(rows) > most:
            rows = rows[np.sort(rng.choice(len(rows), most, replace=False))]
        yield rows


def _sum(rows: np.ndarray, target: Target) -> np.ndarray:
    if rows.ndim == 1:
        return np.bincount(rows, minlength=target.shape[0]).astype("float64")
    rows = rows.astype("float64")
    return np.sum(rows**2, 0) if rows.shape[1] > _WIDEST else rows.T @ rows


def _root(moment: np.ndarray) -> np.ndarray:
    """Of a moment that is not needed any more."""
    if moment.ndim == 1:
        return np.sqrt(moment + max(_RIDGE * float(np.mean(moment)), 1e-12))
    moment.flat[:: len(moment) + 1] += max(_RIDGE * float(np.trace(moment)) / len(moment), 1e-12)
    return np.linalg.cholesky(moment)
