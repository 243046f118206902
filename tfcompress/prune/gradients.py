"""Sums over batches of something computed from the gradient of each kernel."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.flavor import keras
from tfcompress.prune.batches import labelled, metrics_kept, total
from tfcompress.prune.targets import Target, inner

#: (gradient, weight) -> what is summed; all of the kernel's shape.
Summand = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


class GradientSums:
    """One sum for each kernel, filled by the optimizer's own steps or from data.

    Args:
        model: what is trained.
        targets: its kernels.
        summand: what is summed.
        watches: whether the optimizer's steps fill them; else data do.
    """

    def __init__(self, model: Any, targets: Sequence[Target], summand: Summand, watches: bool) -> None:
        self.model, self._targets, self._summand = model, list(targets), summand
        with model.distribute_strategy.scope():
            self._sums = [total(target.shape, "sum" if watches else "mean") for target in targets]
            self._count = total((), "sum" if watches else "mean")
        self._places = {id(inner(target.variable)): place for place, target in enumerate(targets)}
        self._undo: Callable[[], Any] | None = None
        self._step: Any = None

    def watch(self) -> None:
        """Fill the sums in each step of the model's optimizer, for which the step must be made anew.

        Raises:
            ValueError: the model has no optimizer.
        """
        if getattr(self.model, "optimizer", None) is None:
            raise ValueError(
                f"A score by gradients without `data` looks at the steps of the model's optimizer: compile "
                f"{self.model.name!r} first, or give the score `data=`"
            )
        self._undo = flavor.watch_gradients(self.model.optimizer, self._seen)

    def unwatch(self) -> None:
        """Let the optimizer go."""
        if self._undo is not None:
            self._undo()
            self._undo = None

    @property
    def count(self) -> int:
        """Batches in the sums; on several devices each one's part of a batch counts."""
        return int(tf.convert_to_tensor(self._count))

    def totals(self, reset: bool) -> list[np.ndarray]:
        """The sums, one array for each kernel."""
        values = [np.asarray(tf.convert_to_tensor(total)) for total in self._sums]
        if reset:
            for variable in (*self._sums, self._count):
                variable.assign(tf.zeros(variable.shape))
        return values

    def _seen(self, pairs: list) -> None:
        for gradient, variable in pairs:
            place = self._places.get(id(inner(variable)))
            if place is not None and gradient is not None:
                weight = flavor.read(variable)
                summand = self._summand(tf.convert_to_tensor(gradient), weight)
                self._sums[place].assign_add(tf.cast(summand, tf.float32))
        self._count.assign_add(1.0)

    def fill(self, data: Any, batch_size: int, limit: int, loss: Any) -> None:
        """Fill the sums from data, in inference mode.

        Args:
            data: as `labelled` takes it.
            batch_size: rows of a batch, where the data are arrays.
            limit: at most so many batches.
            loss: (labels, predictions) -> loss; None: the one that the model is compiled with.

        Raises:
            ValueError: no data, no labels, or no loss.
        """
        model = self.model
        if loss is None and getattr(model, "optimizer", None) is None:
            raise ValueError(f"A score by gradients needs a loss: compile {model.name!r}, or give the score `loss=`")

        if self._step is None:
            self._step = tf.function(functools.partial(self._gradients, loss), reduce_retracing=True, autograph=False)
        with metrics_kept(model):
            for batch in labelled(data, batch_size, limit):
                if batch[1] is None and (loss is not None or getattr(model, "loss", None) is not None):
                    raise ValueError("`data` must hold labels: (x, y), or batches of them. Received: inputs alone")
                batch = flavor.map_structure(lambda v: None if v is None else tf.convert_to_tensor(v), batch)
                model.distribute_strategy.run(self._step, batch)  # metrics add up in a strategy's steps alone

    def _gradients(self, loss: Any, x: Any, y: Any, weight: Any) -> None:
        """Add what one batch gives."""
        variables = [target.variable for target in self._targets]
        with tf.GradientTape() as tape, flavor.branches_recorded():
            predictions = self.model(x, training=False)
            if loss is None:
                value = self.model.compute_loss(x=x, y=y, y_pred=predictions, sample_weight=weight)
            else:
                value = _mean(loss, y, predictions, weight)
        self._seen(list(zip(tape.gradient(value, variables), variables, strict=True)))


def _mean(loss: Any, labels: Any, predictions: Any, weight: Any) -> tf.Tensor:
    """The mean of a loss over a batch, each row times its weight.

    Raises:
        ValueError: there are weights, but the loss is one number for all rows.
    """
    if weight is None:
        return tf.reduce_mean(loss(labels, predictions))
    if isinstance(loss, keras.losses.Loss):
        return tf.reduce_mean(loss(labels, predictions, sample_weight=weight))
    rows = tf.convert_to_tensor(loss(labels, predictions))
    if rows.shape.rank == 0:
        raise ValueError("`loss` must return a number for each row where `data` hold sample weights. Received: one")
    weight = tf.cast(weight, rows.dtype)
    return tf.reduce_mean(rows * tf.reshape(weight, [-1, *[1] * (rows.shape.rank - 1)]))
