"""A batch's loss from its examples' losses."""

from typing import Any

import tensorflow as tf

from tfcompress.core import flavor


def reduced(values: Any, sample_weight: Any) -> tf.Tensor:
    """The mean over a batch's examples, weighted where each has a number and a weight.

    Args:
        values: [batch], or one number for the batch, which no weight of an example changes.
        sample_weight: [batch, ...], averaged over further axes; None, or one of several outputs', which are for labels.

    >>> float(reduced(tf.constant([1.0, 3.0]), tf.constant([1.0, 0.0])))
    0.5
    """
    values = tf.cast(values, tf.float32)
    if values.shape.rank == 0:
        return values
    if sample_weight is None or len(flavor.flatten(sample_weight)) != 1:
        return tf.reduce_mean(values)
    weights = tf.cast(flavor.flatten(sample_weight)[0], tf.float32)
    weights = tf.reduce_mean(tf.reshape(weights, [tf.shape(weights)[0], -1]), axis=1)
    return tf.reduce_mean(values * weights)
