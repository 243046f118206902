"""What a model is trained to make small, for scores that ask how much the loss would change."""

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.flavor import keras
from tfcompress.core.samples import Samples, inputs_of
from tfcompress.prune.batches import labelled, metrics_kept

#: (labels, outputs, sample weights or None) -> mean loss of the batch.
Objective = Callable[..., tf.Tensor]


def examples(data: Any, model: Any, batch_size: int = 32) -> Iterator[tuple[list[np.ndarray], Any, Any]]:
    """Batches of inputs, labels and sample weights.

    Args:
        data: (x, y) or (x, y, weight) as arrays or structures of arrays with as many rows, or an iterable of batches of
            these.
        model: a Functional model; its inputs say how x must look.
        batch_size: rows of a batch, where the data are arrays.

    Yields:
        (arrays in the order of the model's inputs, labels in their structure, weights or None).

    Raises:
        ValueError: there are no labels, or samples that the model does not take.
    """
    inputs = inputs_of(model)
    for x, y, weight in labelled(data, batch_size, sys.maxsize):
        if y is None:
            raise ValueError("`data` must hold labels: (x, y), or batches of them. Received: inputs alone")
        yield next(iter(Samples([x], inputs, batch_size=sys.maxsize))), y, weight


def objective(model: Any) -> Objective:
    """The loss that the model was compiled with, or one that its outputs and labels call for.

    A model that was not compiled has the crossentropy of whole-number labels, or of labels shaped like outputs that are
    shares of one; the squared error otherwise. Outputs that are no shares of one are taken as logits.

    Args:
        model: the user's model.

    Returns:
        A function of a batch's labels, outputs and sample weights, each as `fit` would have them.
    """
    names = list(getattr(model, "output_names", None) or ())

    def compiled(labels: Any, outputs: Any, weights: Any = None) -> tf.Tensor:
        with metrics_kept(model):
            return tf.reduce_mean(flavor.compiled_loss(model, _tensors(labels), _float(outputs), _tensors(weights)))

    def derived(labels: Any, outputs: Any, weights: Any = None) -> tf.Tensor:
        predictions = flavor.flatten(_float(outputs))
        truths = _ordered(_tensors(labels), outputs, names)
        several = isinstance(weights, Mapping | list | tuple)
        own = _ordered(_tensors(weights), outputs, names) if several else [weights] * len(predictions)
        return tf.add_n([_derived(y, p)(y, p, w) for y, p, w in zip(truths, predictions, own, strict=True)])

    return compiled if getattr(model, "loss", None) else derived


def _tensors(values: Any) -> Any:
    return flavor.map_structure(lambda value: None if value is None else tf.convert_to_tensor(value), values)


def _float(outputs: Any) -> Any:
    return flavor.map_structure(lambda value: tf.cast(value, tf.float32), outputs)


def _ordered(values: Any, outputs: Any, names: list[str]) -> list[Any]:
    """What there is for each output, in the outputs' order."""
    by_name = isinstance(values, Mapping) and not isinstance(outputs, Mapping) and set(values) == set(names)
    return [values[name] for name in names] if by_name else flavor.flatten(values)


def _derived(labels: tf.Tensor, predictions: tf.Tensor) -> Any:
    shares = bool(tf.reduce_all(predictions >= 0)) and bool(
        tf.reduce_all(tf.abs(tf.reduce_sum(predictions, -1) - 1.0) < 1e-3))  # fmt: skip
    whole = labels.dtype.is_integer and tuple(labels.shape) != tuple(predictions.shape)
    if whole and predictions.shape[-1] > 1:
        return keras.losses.SparseCategoricalCrossentropy(from_logits=not shares)
    if shares and predictions.shape[-1] > 1 and tuple(labels.shape) == tuple(predictions.shape):
        return keras.losses.CategoricalCrossentropy()
    return keras.losses.MeanSquaredError()
