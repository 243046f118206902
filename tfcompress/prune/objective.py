"""What a model is trained to make small, for scores that ask how much the loss would change."""

import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.flavor import keras
from tfcompress.core.samples import Samples, inputs_of
from tfcompress.prune.batches import labelled

#: (labels, outputs) -> mean loss of the batch.
Objective = Callable[[Any, Any], tf.Tensor]


def pairs(data: Any, model: Any, batch_size: int = 32) -> Iterator[tuple[list[np.ndarray], Any]]:
    """Batches of inputs and labels.

    Args:
        data: (x, y) as arrays or structures of arrays with as many rows, or an iterable of batches (x, y).
        model: a Functional model; its inputs say how x must look.
        batch_size: rows of a batch, where the data are arrays.

    Yields:
        (arrays in the order of the model's inputs, labels in their structure).

    Raises:
        ValueError: there are no labels, or samples that the model does not take.
    """
    inputs = inputs_of(model)
    for x, y, _ in labelled(data, batch_size, sys.maxsize):
        if y is None:
            raise ValueError("`data` must hold labels: (x, y), or batches of them. Received: inputs alone")
        yield next(iter(Samples([x], inputs, batch_size=sys.maxsize))), y


def objective(model: Any) -> Objective:
    """The loss that the model was compiled with, or one that its outputs and labels call for.

    A model that was not compiled has the crossentropy of whole-number labels, or of labels shaped like outputs that are
    shares of one; the squared error otherwise. Outputs that are no shares of one are taken as logits.

    Args:
        model: the user's model.

    Returns:
        A function of a batch's labels and outputs, each in the structure that the model has.
    """
    compiled = getattr(model, "loss", None)
    names = list(getattr(model, "output_names", ()))

    def loss(labels: Any, outputs: Any) -> tf.Tensor:
        predictions, truths = flavor.flatten(outputs), flavor.flatten(labels)
        single = [_named(compiled, names, n) for n in range(len(predictions))]
        return tf.add_n([_mean(which, y, p) for which, y, p in zip(single, truths, predictions, strict=True)])

    return loss


def _named(compiled: Any, names: list[str], n: int) -> Any:
    """The loss of one of several outputs."""
    if isinstance(compiled, dict):
        return compiled.get(names[n]) if n < len(names) and names[n] in compiled else list(compiled.values() or [None])[
            min(n, max(len(compiled) - 1, 0))]  # fmt: skip
    return compiled[n] if isinstance(compiled, (list, tuple)) else compiled


def _mean(which: Any, labels: Any, predictions: Any) -> tf.Tensor:
    labels = tf.convert_to_tensor(labels)
    predictions = tf.cast(predictions, tf.float32)
    function = keras.losses.get(which) if which else _derived(labels, predictions)
    if labels.shape.rank == predictions.shape.rank - 1 and predictions.shape[-1] == 1:
        labels = labels[..., None]
    return tf.reduce_mean(tf.cast(function(labels, predictions), tf.float32))


def _derived(labels: tf.Tensor, predictions: tf.Tensor) -> Any:
    shares = bool(tf.reduce_all(predictions >= 0)) and bool(
        tf.reduce_all(tf.abs(tf.reduce_sum(predictions, -1) - 1.0) < 1e-3))  # fmt: skip
    whole = labels.dtype.is_integer and tuple(labels.shape) != tuple(predictions.shape)
    if whole and predictions.shape[-1] > 1:
        return keras.losses.SparseCategoricalCrossentropy(from_logits=not shares)
    if shares and predictions.shape[-1] > 1 and tuple(labels.shape) == tuple(predictions.shape):
        return keras.losses.CategoricalCrossentropy()
    return keras.losses.MeanSquaredError()
