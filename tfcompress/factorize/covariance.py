"""What layers read on data: the second moments by which a decomposition is weighted."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.flavor import keras
from tfcompress.factorize.target import Target

_ROWS = 4096  # positions of one batch, at most
_NUMBERS = 1 << 20  # of a layer's input whose windows are laid out at once
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
    for arrays in data:
        given = flavor.pack_like(flavor.graph_inputs(flat), [tf.convert_to_tensor(a) for a in arrays])
        outputs = flavor.flatten(taps(given, training=False))
        for (target, _), values in zip(calls, outputs, strict=True):
            for rows in _rows(target, np.asarray(values), rng):
                key = id(target.layer)
                sums[key] = sums.get(key, 0.0) + _sum(rows, target)
                counts[key] = counts.get(key, 0) + len(rows)
    for target in targets:
        if not np.isfinite(sums.get(id(target.layer), 0.0)).all():
            raise ValueError(
                "`data` must give finite numbers at every layer that may change. Received: NaN or infinity at the "
                f"input of {target.layer.name!r}"
            )
    return {key: _root(total / counts[key]) for key, total in sums.items()}


def _rows(target: Target, values: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """A choice of the rows of a batch, some samples at a time: windows take many times the memory of what they see."""
    parts = np.array_split(values, min(len(values), -(-values.size // _NUMBERS)))
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
    if moment.ndim == 1:
        return np.sqrt(moment + max(_RIDGE * float(np.mean(moment)), 1e-12))
    ridge = max(_RIDGE * float(np.trace(moment)) / len(moment), 1e-12)
    return np.linalg.cholesky(moment + ridge * np.eye(len(moment)))
