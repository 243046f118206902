"""Adapters by name: which a model has, which is in force, and the switch between them."""

import re
from collections.abc import Iterator
from typing import Any

from tfcompress.core import flavor
from tfcompress.core.transformed import Transformed, transformed_layers
from tfcompress.lora.adapter import Adapter
from tfcompress.lora.delta import Delta, delta_of

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_COMPILED = ("train_function", "test_function", "predict_function")


def deltas(model: Any) -> Iterator[tuple[Transformed, str, Delta]]:
    """(layer, name of the weight, its adapters) of each weight of a model that has some."""
    for wrapper in {id(layer): layer for layer in transformed_layers(model)}.values():
        for weight in wrapper.transforms:
            delta = delta_of(wrapper, weight)
            if delta is not None:
                yield wrapper, weight, delta


def adapters(model: Any) -> list[str]:
    """The names of a model's adapters, in the order in which they were added.

    Args:
        model: any model; one without adapters has none.

    Raises:
        TypeError: not a model of this Keras flavor.
        ValueError: the model is not built.

    >>> from tfcompress.core.flavor import keras
    >>> adapters(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]))
    []
    """
    flavor.check_model(model)
    return list(dict.fromkeys(name for _, _, delta in deltas(model) for name in delta.adapters))


def active(model: Any) -> str | None:
    """The name of the adapter in force; None where the frozen base computes alone.

    Args:
        model: any model.

    >>> from tfcompress.core.flavor import keras
    >>> active(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])) is None
    True
    """
    return next((delta.active for _, _, delta in deltas(model) if delta.active is not None), None)


def members(model: Any, name: str) -> Iterator[tuple[Transformed, str, Adapter]]:
    """(layer, name of the weight, adapter) of each part of one adapter."""
    for wrapper, weight, delta in deltas(model):
        if name in delta.adapters:
            yield wrapper, weight, delta.adapters[name]


def activate(model: Any, name: str | None) -> None:
    """Let another adapter be in force, in this model itself; it alone is trained from now on.

    What `predict`, `evaluate` and a call of the model compute changes at once. Before `fit`, compile again: the
    optimizer belongs to the adapter that it has trained. So compile again a model around it, such as a `Distiller`,
    which goes on with what it has traced.

    Args:
        model: a model with adapters; it is changed.
        name: of the adapter; None lets the frozen base compute alone.

    Raises:
        TypeError: not a model of this Keras flavor.
        ValueError: it has no adapter of this name.

    >>> import numpy as np
    >>> from tfcompress.core.flavor import keras
    >>> from tfcompress.lora import add_lora
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8)])
    >>> both = add_lora(add_lora(model, 2, name="one"), 3, name="two")
    >>> adapters(both), active(both)
    (['one', 'two'], 'two')
    >>> activate(both, "one")
    >>> [tuple(w.shape) for w in both.trainable_weights]
    [(8, 2), (2, 8)]
    """
    known = adapters(model)
    if name is not None and name not in known:
        raise ValueError(f"`name` must be an adapter of {model.name!r}: {known}, or None. Received: name={name!r}")
    if not known:
        raise ValueError(f"`model` must have adapters: `tfcompress.add_lora` adds them. Received: {model.name!r}")
    for _, _, delta in deltas(model):
        delta.activate(name)
    for attribute in _COMPILED:  # they compute with the adapter that was in force when they were traced
        if getattr(model, attribute, None) is not None:
            setattr(model, attribute, None)


def check_name(name: Any) -> None:
    """Refuse what cannot name an adapter in a file.

    Raises:
        ValueError: it is no such name.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"`name` must consist of letters, digits, - and _. Received: name={name!r}")
