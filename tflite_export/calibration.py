"""Calibration data as the file takes them: rows for each input, in whole batches."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfcompress.core.samples import Input, Samples

LIMIT = 512


def rows(data: Any, inputs: Sequence[Input], *, limit: int = LIMIT, seed: int = 0) -> list[np.ndarray]:
    """Representative data as one array per input.

    Args:
        data: any form of samples that `tfcompress.core.samples.Samples` takes.
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
    return Samples(data, inputs, "calibration", limit=limit, seed=seed).columns()


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
