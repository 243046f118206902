"""Which layers hold which variables: a variable of several is tied."""

from collections.abc import Iterable
from typing import Any


def holders_of(layers: Iterable[Any]) -> dict[int, list[Any]]:
    """By the id of each variable the layers that hold it, in their order.

    >>> from tfcompress.core.flavor import keras
    >>> one, two = keras.layers.Dense(2), keras.layers.Dense(2)
    >>> _ = two(one(keras.Input((2,))))
    >>> [len(found) for found in holders_of([one, two]).values()]
    [1, 1, 1, 1]
    """
    found: dict[int, list[Any]] = {}
    for layer in layers:
        for key in dict.fromkeys(map(id, getattr(layer, "weights", ()))):
            found.setdefault(key, []).append(layer)
    return found
