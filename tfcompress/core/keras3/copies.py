"""Keras 3: copies of layers and of what tracks them."""

from collections.abc import Callable
from typing import Any

import keras as keras3
import tensorflow as tf

from tfcompress.core.keras3.graph import keras

_Tracker = type(keras.layers.Dropout(0.5)._tracker)  # no public name
COPIED = (keras3.Operation, keras3.metrics.Metric, keras3.Variable, keras3.random.SeedGenerator, _Tracker,
          tf.Variable)  # fmt: skip


def copy_variable(variable: Any) -> Any:
    """A new tf.Variable equal to an old one; a Keras variable is an object like others, around such a one."""
    return tf.Variable(variable, trainable=variable.trainable, name=variable.name.split(":")[0], dtype=variable.dtype,
                       shape=variable.shape, aggregation=variable.aggregation,
                       synchronization=variable.synchronization)  # fmt: skip


def blank_copy(old: Any) -> tuple[Any, set[str]]:
    """A new object of the class of `old` with no attributes of its own, and those to leave as they are in it."""
    if isinstance(old, keras.layers.Layer):  # Layer.__new__ closes `build` and `quantize` over the new object
        kind: Any = type(old)
        return kind.__new__(kind), {"build", "quantize"}
    return object.__new__(type(old)), set()


def finish_copy(new: Any) -> None:
    """A tracker knows its members by their ids."""
    if isinstance(new, _Tracker):
        new.stored_ids = {name: {id(v) for v in store} for name, (_, store) in new.config.items()}


def is_tracked_container(value: Any) -> bool:
    """Whether this is a list, dict or set that reports its members to a layer: Keras' own, or TensorFlow's."""
    return isinstance(value, (list, dict, set)) and (hasattr(value, "tracker") or _is_wrapper(value))


def _is_wrapper(value: Any) -> bool:
    """Whether this is TensorFlow's container, which holds the states of recurrent layers; its class is not public."""
    return type(value).__name__ in ("ListWrapper", "_DictWrapper")


def copy_container(old: Any, again: Callable[[Any], Any], keep: Callable[[Any], Any]) -> Any:
    """A copy of a tracked list, dict or set; Keras' own is filled past its tracker, which is copied itself."""
    if _is_wrapper(old):
        return keep(tf.__internal__.tracking.wrap(again(list(old) if isinstance(old, list) else dict(old))))
    new = keep(type(old)())
    if isinstance(old, dict):
        dict.update(new, {again(k): again(v) for k, v in old.items()})
    elif isinstance(old, list):
        list.extend(new, [again(v) for v in old])
    else:
        set.update(new, [again(v) for v in old])
    new.tracker = again(old.tracker)
    return new
