"""Penalties on weights while a model trains: attached, seen in the loss, detached."""

import functools
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.flavor import keras
from tfcompress.core.remake import remake
from tfcompress.core.scalars import is_finite


class Regularizer(keras.callbacks.Callback):
    """A penalty on weights of selected layers. As a callback of `fit` it holds for that fit; `attach` and `detach` are
    for loops of one's own, in which the penalties are among `model.losses`.

    The layers' configuration stays as it is, and so does the model's file. Of a model that trains others it is on these
    alone.

    Args:
        strength: factor of the penalty in the loss, > 0.
        select: which layers: a layer class, a name pattern, a layer, a predicate, or a list of these.

    Raises:
        ValueError: `strength` is not above 0.
    """

    def __init__(self, strength: float, select: Any = None) -> None:
        super().__init__()
        if not is_finite(strength) or not strength > 0:
            raise ValueError(f"`strength` must be a finite number above 0. Received: strength={strength!r}")
        self.strength, self.select = float(strength), select
        self._attached: list[tuple[Any, list[Callable[[], None]]]] = []  # (model, what takes its penalties away)

    @abstractmethod
    def found(self, model: Any) -> list[tuple[Any, Any]]:
        """(layer, variable) of what is penalized.

        Raises:
            ValueError: there is nothing.
        """

    @abstractmethod
    def penalty(self, layer: Any, variable: Any) -> Callable[[tf.Tensor], tf.Tensor]:
        """From the variable's value to a float32 scalar, without the strength."""

    def attach(self, model: Any) -> None:
        """Add the penalty to the losses of one more model; nothing where it is attached already.

        Raises:
            ValueError: the selection matches nothing.
            TypeError: it is no model, or one of the other flavor of Keras.
        """
        flavor.check_flavor(model)
        if any(model is known for known, _ in self._attached):
            return
        added = []
        for layer, variable in self.found(model):
            scaled = functools.partial(self._scaled, self.penalty(layer, variable))
            added.append(flavor.add_penalty(layer, variable, scaled))
        self._attached.append((model, added))

    def detach(self) -> None:
        """Take the penalty out of the losses of all models that it is attached to."""
        for _, added in self._attached:
            for undo in added:
                undo()
        self._attached = []

    def _scaled(self, term: Callable[[tf.Tensor], tf.Tensor], value: Any) -> tf.Tensor:
        tensor = flavor.read(value) if flavor.is_variable(value) else tf.convert_to_tensor(value)
        return self.strength * term(tf.cast(tensor, tf.float32))

    def on_train_begin(self, logs: Any = None) -> None:
        self.attach(self.model)
        remake(self.model)

    def on_train_end(self, logs: Any = None) -> None:
        self.detach()
        remake(self.model)
