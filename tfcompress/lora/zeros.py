"""The places where pruning holds zeros on a weight that has adapters, as state that is saved with the model."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.flavor import keras
from tfcompress.core.projected import Mask, projections
from tfcompress.core.transformed import Transformed


@flavor.register
class Zeros(keras.layers.Layer):
    """One bit for each number of a weight, set where it lives: eight to a byte, the first in the highest bit.

    A mask belongs to a variable and stays out of files; adapters compute with theirs, so that it travels with them.

    Args:
        shape: of the weight.
        history: of the mask, as in `Mask`.

    >>> zeros = Zeros((2, 3))
    >>> zeros.build()
    >>> zeros.set_weights([np.array([0b10010000], "uint8")])
    >>> zeros.applied(tf.constant([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])).numpy().tolist()
    [[1.0, 0.0, 0.0], [4.0, 0.0, 0.0]]
    """

    def __init__(self, shape: Sequence[int], history: Sequence[Sequence[float]] = (), **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", "trainable": False, **kwargs})
        self.shape = tuple(shape)
        self.history = [(int(step), float(share)) for step, share in history]

    def build(self, *_: Any) -> None:
        if self.built:  # type: ignore[has-type]
            return
        size = -(-math.prod(self.shape) // 8)
        self.bits = self.add_weight(name="bits", shape=(size,), dtype="uint8", initializer="zeros", trainable=False)
        self.built = True

    def applied(self, value: tf.Tensor) -> tf.Tensor:
        """The value with zeros at the places that do not live."""
        octets = tf.convert_to_tensor(flavor.read(self.bits))[:, None]
        bits = tf.bitwise.bitwise_and(tf.bitwise.right_shift(octets, tf.constant([[*range(7, -1, -1)]], tf.uint8)), 1)
        kept = tf.reshape(tf.reshape(bits, [-1])[: math.prod(self.shape)], self.shape) > 0
        return tf.where(kept, value, tf.zeros((), value.dtype))

    def mask(self) -> Mask:
        """The same zeros for a variable to hold."""
        bits = np.unpackbits(np.asarray(flavor.read(self.bits)), count=math.prod(self.shape))
        return Mask(bits.reshape(self.shape).astype(bool), self.history)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.own_config()}

    def own_config(self) -> dict[str, Any]:
        """What the constructor takes of ours: what transforms keep."""
        return {"shape": list(self.shape), "history": [list(decision) for decision in self.history]}


def zeros_of(wrapper: Transformed, weight: str, variable: Any, given: Zeros | None) -> Zeros | None:
    """The zeros that the transforms of a weight hold together; the wrapper saves and loads them.

    Args:
        wrapper: the layer of the transforms.
        weight: its name in `named_weights`.
        variable: what holds the weight.
        given: those of the transform, from its config or from another wrapper; None: those of the variable's masks.

    Returns:
        None when nothing is held.

    Raises:
        ValueError: something else than zeros is held on the variable.
    """
    place = f"zeros_{weight}"
    known = getattr(wrapper, place, None)
    if isinstance(known, Zeros):
        return known
    masks = [step for step in projections(variable) if isinstance(step, Mask)]
    others = [step.describe() for step in projections(variable) if not isinstance(step, Mask)]
    if others:
        raise ValueError(
            f"{wrapper.name!r} must hold nothing but zeros on {weight!r} for an adapter. Received: {others}"
        )
    if given is None and masks:
        given = Zeros(tuple(variable.shape), masks[0].history)
        given.build()
        kept = np.logical_and.reduce([mask.kept for mask in masks])
        given.set_weights([np.packbits(kept.ravel())])
    if given is not None:
        given.build()
        setattr(wrapper, place, given)
    return given
