"""tf_keras: copies of layers and of what tracks them."""

import weakref
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfcompress.core.legacy.graph import keras
from tfcompress.core.legacy.variables import variable_path

_Generator = type(keras.layers.Dropout(0.5)._random_generator)  # no public name
COPIED = (keras.layers.Layer, keras.metrics.Metric, tf.random.Generator, _Generator, tf.Variable)


def copy_variable(variable: Any) -> Any:
    """A new variable equal to an old one; None for an autocast variable, an object that holds the real one."""
    if "_variable" in vars(variable):
        return None
    return tf.Variable(variable, trainable=variable.trainable, name=variable_path(variable), dtype=variable.dtype,
                       shape=variable.shape, constraint=variable.constraint,
                       aggregation=variable.aggregation, synchronization=variable.synchronization)  # fmt: skip


def blank_copy(old: Any) -> tuple[Any, set[str]]:
    """A new object of the class of `old` with no attributes of its own, and those to leave as they are in it."""
    return object.__new__(type(old)), set()


def finish_copy(new: Any) -> None:
    """A model's checkpoint holds the model."""
    if "_checkpoint" in vars(new):
        vars(new)["_checkpoint"] = tf.train.Checkpoint(root=weakref.ref(new))


def is_tracked_container(value: Any) -> bool:
    """Whether this is a list or dict that reports its members to a layer."""
    return type(value).__name__ in ("ListWrapper", "_DictWrapper", "_TupleWrapper")


def copy_container(old: Any, again: Callable[[Any], Any], keep: Callable[[Any], Any]) -> Any:
    """A copy of TensorFlow's tracked list, dict or tuple."""
    plain = list(old) if isinstance(old, list) else tuple(old) if isinstance(old, tuple) else dict(old)
    return keep(tf.__internal__.tracking.wrap(again(plain)))
