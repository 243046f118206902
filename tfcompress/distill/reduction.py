"""A batch's loss from the losses of its examples or positions."""

from typing import Any

import tensorflow as tf


def reduced(values: Any, sample_weight: Any = None, mask: Any = None) -> tf.Tensor:
    """The weighted mean as Keras takes it of a task's loss:  sum_i w_i m_i values_i / sum_i m_i.

    Args:
        values: [batch, ...], a number for each position, or [batch] for each example; or one number for the batch,
            which no weight of an example changes.
        sample_weight: [batch] or [batch, ...] w; 1 when left out. Weights of positions that `values` does not tell
            apart are averaged.
        mask: [batch, ...] m, what Keras passes along behind a tensor whose sequences were padded; all positions count
            when left out. An example that `values` has one number for counts when any of its positions does.

    Returns:
        A float32 scalar.

    >>> float(reduced(tf.constant([1.0, 3.0]), tf.constant([1.0, 0.0])))
    0.5
    >>> float(reduced(tf.constant([[1.0, 3.0]]), None, tf.constant([[True, False]])))
    1.0
    """
    values = tf.cast(values, tf.float32)
    if values.shape.rank == 0:
        return values
    valid = tf.ones_like(values)
    if mask is not None:
        counted = tf.cast(mask, tf.float32)
        fits = _fitted(counted, values)
        valid *= _by_row(tf.reduce_max(_rows(counted), axis=1), values) if fits is None else fits
    weights = 1.0
    if sample_weight is not None:
        given = tf.cast(sample_weight, tf.float32)
        fits = _fitted(given, values)
        weights = _by_row(_averaged(given, mask), values) if fits is None else fits
    return tf.math.divide_no_nan(tf.reduce_sum(values * weights * valid), tf.reduce_sum(valid))


def _rows(values: tf.Tensor) -> tf.Tensor:
    return tf.reshape(values, [tf.shape(values)[0], -1])


def _by_row(rows: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """[batch] with an axis for each of `values`."""
    return tf.reshape(rows, [-1] + [1] * (values.shape.rank - 1))


def _fitted(given: tf.Tensor, values: tf.Tensor) -> tf.Tensor | None:
    """`given` with an axis for each of `values`, or None where its positions are others."""
    while given.shape.rank > values.shape.rank and given.shape[-1] == 1:
        given = given[..., 0]
    if given.shape.rank > values.shape.rank:
        return None
    for _ in range(values.shape.rank - given.shape.rank):
        given = given[..., None]
    pairs = zip(given.shape[1:], values.shape[1:], strict=True)
    return given if all(one in (1, None) or other in (one, None) for one, other in pairs) else None


def _averaged(weights: tf.Tensor, mask: Any) -> tf.Tensor:
    """[batch], the mean of each example's weights over the positions that count."""
    counted = tf.ones_like(weights) if mask is None else _fitted(tf.cast(mask, tf.float32), weights)
    counted = tf.ones_like(weights) if counted is None else counted * tf.ones_like(weights)
    rows = _rows(counted)
    return tf.math.divide_no_nan(tf.reduce_sum(_rows(weights) * rows, axis=1), tf.reduce_sum(rows, axis=1))
