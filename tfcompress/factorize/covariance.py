"""What layers read on data: the second moments by which a decomposition is weighted."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.flavor import keras
from tfcompress.factorize.decompose import thin_svd
from tfcompress.factorize.sketch import Sketch
from tfcompress.factorize.target import Target
from tfcompress.factorize.weighting import Root

_EXAMPLES = 32  # that are run at once, at most
_HELD = 1 << 26  # numbers of these that layers read, where one example has no more
_ROWS = 4096  # positions of these, at most
_NUMBERS = 1 << 23  # of windows that are laid out at once, where one example has no more
_WIDEST = 4096  # numbers of a position from which on rows are kept, not summed
_SAMPLED = 2048  # rows that are kept, at most
_RIDGE = 1e-2  # of the mean square: what the data do not show is kept at this weight


def second_moments(flat: Any, targets: Sequence[Target], data: Iterable[list[np.ndarray]]) -> dict[int, Root]:
    """For each layer R with R R' = mean of x x' + ridge over the rows x that its kernel meets.

    Args:
        flat: the flat graph that holds the layers.
        targets: its layers.
        data: batches of the model's inputs, as of `Samples`.

    Returns:
        By the layer's id: lower triangular [n, n], the diagonal [n] of tables, or a sketch of wide layers. Layers whose
        rows are not known are left out.

    Raises:
        ValueError: a layer reads NaN or infinity.
    """
    calls = [(target, call.inputs[0]) for target in targets for call in target.calls]
    taps = keras.Model(flavor.graph_inputs(flat), [tensor for _, tensor in calls])
    seen: dict[int, _Moment | _Sample] = {}
    rng = np.random.default_rng(0)
    for arrays in _few(data, _examples([tensor for _, tensor in calls])):
        given = flavor.pack_like(flavor.graph_inputs(flat), [tf.convert_to_tensor(a) for a in arrays])
        outputs = list(flavor.flatten(taps(given, training=False)))
        for target, _ in calls:
            for rows in _rows(target, np.asarray(outputs.pop(0)), rng):
                if (key := id(target.layer)) not in seen:
                    wide = rows.ndim == 2 and rows.shape[1] > _WIDEST
                    seen[key] = _Sample(rng) if wide else _Moment(target.shape[0])
                seen[key].add(rows)
    return {key: seen.pop(key).root() for key in [id(target.layer) for target in targets] if key in seen}


def _examples(tensors: Sequence[Any]) -> int:
    """Of how many examples these tensors are held at once; sizes that are not known count as one."""
    numbers = sum(math.prod(size or 1 for size in tuple(tensor.shape)[1:]) for tensor in tensors)
    return max(1, min(_EXAMPLES, _HELD // numbers))


def _few(data: Iterable[list[np.ndarray]], most: int) -> Iterator[list[np.ndarray]]:
    """Batches of no more than so many examples."""
    for arrays in data:
        for start in range(0, len(arrays[0]), most):
            yield [array[start : start + most] for array in arrays]


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
        if not np.isfinite(rows).all():
            raise ValueError(
                "`data` must give finite numbers at every layer that may change. Received: NaN or infinity at the "
                f"input of {target.layer.name!r}"
            )
        yield rows


class _Moment:
    """Sums x x' over rows x; of whole numbers that stand for rows of the unit matrix its diagonal."""

    def __init__(self, words: int) -> None:
        self._words, self._sum, self._count = words, np.zeros(()), 0

    def add(self, rows: np.ndarray) -> None:
        if rows.ndim == 1:
            found = np.bincount(rows, minlength=self._words).astype("float64")
        else:
            rows = rows.astype("float64")
            found = rows.T @ rows
        found += self._sum
        self._sum = found
        self._count += len(rows)

    def root(self) -> np.ndarray:
        """To be asked for once: the sum is given up for it."""
        moment = self._sum
        moment /= self._count
        if moment.ndim == 1:
            return np.sqrt(moment + _floor(float(np.mean(moment))))
        moment.flat[:: len(moment) + 1] += _floor(float(np.trace(moment)) / len(moment))
        return np.linalg.cholesky(moment)


class _Sample:
    """An even choice of all rows x: no more numbers than the widest matrix has."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng, self._rows, self._lots = rng, np.zeros((0, 0), "float32"), np.zeros(0)

    def add(self, rows: np.ndarray) -> None:
        lots = np.concatenate([self._lots, self._rng.random(len(rows))])
        kept = np.argsort(lots)[: min(_SAMPLED, _WIDEST**2 // rows.shape[1])]
        self._rows = np.concatenate([self._rows.reshape(-1, rows.shape[1]), rows])[kept]
        self._lots = lots[kept]

    def root(self) -> Sketch:
        _, values, right = thin_svd(self._rows.astype("float64") / math.sqrt(len(self._rows)))
        known = values > 1e-5 * values[0]  # squares of smaller ones are noise
        floor = _floor(float(np.sum(values**2)) / right.shape[1])
        return Sketch(np.ascontiguousarray(right[known].T), values[known] ** 2, floor)


def _floor(mean: float) -> float:
    return max(_RIDGE * mean, 1e-12)
