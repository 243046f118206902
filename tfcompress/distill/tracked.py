"""What models that train by a distillation loss have in common: the parts of their loss as metrics."""

from typing import Any

import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.flavor import keras
from tfcompress.core.trainers import Trainer


class Tracked(Trainer, keras.Model):
    """A model whose `compute_loss` ends in `told`, and whose metrics are its loss and the two parts of it."""

    def track(self, output_names: Any) -> None:
        """Makes the metrics, and takes over the names of outputs, by which Keras calls further ones."""
        self.student_loss_tracker = keras.metrics.Mean(name="student_loss")
        self.distillation_loss_tracker = keras.metrics.Mean(name="distillation_loss")
        self.total_loss_tracker = keras.metrics.Mean(name="loss")  # stands for what Keras calls by this name
        if output_names:
            self.output_names = list(output_names)
        self.built = True  # its models are: weights can be loaded before the first batch

    def told(self, task: tf.Tensor, distillation: tf.Tensor, whole: tf.Tensor, y_pred: Any) -> tf.Tensor:
        """The loss of a batch with the layers' own further losses, after the metrics were told of it.

        Args:
            task: the task's loss, divided by the number of replicas as Keras does.
            distillation: the mean over this replica's rows.
            whole: both weighed, divided by the number of replicas.
            y_pred: answers, whose rows weigh the batch in the metrics.
        """
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        # Keras adds these to the loss that it was compiled with; here they are added once, unweighted.
        if self.losses:
            whole += tf.add_n([tf.cast(loss, tf.float32) for loss in self.losses]) / replicas
        rows = tf.shape(flavor.flatten(y_pred)[0])[0]
        self.student_loss_tracker.update_state(task * replicas, rows)
        self.distillation_loss_tracker.update_state(distillation, rows)
        self.total_loss_tracker.update_state(whole * replicas, rows)
        return whole
