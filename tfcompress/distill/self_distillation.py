"""A model that is its own teacher: heads at inner layers learn from its answers while it trains, and are dropped."""

import copy
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.flavor import keras
from tfcompress.core.scalars import is_finite, is_whole
from tfcompress.distill.feature_losses import averaged
from tfcompress.distill.objects import Logits, Outputs
from tfcompress.distill.output_kind import output_kind
from tfcompress.distill.reduction import reduced
from tfcompress.distill.taps import Seen, Tap, computed, tried
from tfcompress.distill.tracked import Tracked


class SelfDistiller(Tracked):
    """Trains a model together with heads at inner layers, which learn from labels and from the model's own answers.

        loss = task(p) + sum_k ( (1 - alpha) task(p_k) + alpha D(p, p_k) )

    It is compiled, fitted and evaluated as any Keras model; answers and metrics are the model's. `student` is the
    product and what `save` writes: the model, without the heads. What the heads teach stays in its layers.

    Args:
        model: a built Keras model with one output [batch, classes]. It is trained in place.
        exits: the inner layers that get a head, as names, paths, indices or layers. Further axes between batch and
            channels are averaged away in front of the head.
        loss: D, a loss between answers.
        alpha: how much of a head's loss is the model's answers, from 0 to 1.
        hidden: width of the head's hidden layer; 0 for none.
        name: of the model.

    Raises:
        TypeError: not a model, or not a loss between answers.
        ValueError: no exits, a layer that is not there, a setting out of range, or outputs of another shape.

    Source: Zhang et al. 2019 (Be your own teacher), arXiv:1905.08094, equations 2 and 3.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, name="inner"), keras.layers.Dense(3)])
    >>> distiller = SelfDistiller(model, ["inner"])
    >>> distiller.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    >>> history = distiller.fit(tf.ones([8, 4]), tf.zeros([8]), verbose=0)
    >>> len(distiller.heads), len(distiller.student.layers)
    (1, 2)
    """

    def __init__(
        self, model: Any, exits: Sequence[Any], loss: Outputs | None = None, alpha: float = 0.3, hidden: int = 64,
        name: str = "self_distiller",
    ) -> None:  # fmt: skip
        flavor.check_model(model)
        loss = Logits(temperature=3.0) if loss is None else loss
        if not isinstance(loss, Outputs) or loss.teacher is not None or loss.student is not None:
            raise TypeError(f"`loss` must be a loss between answers, such as `Logits`. Received: loss={loss!r}")
        if isinstance(exits, str) or not list(exits):
            raise ValueError(f"`exits` must be a list of at least one layer. Received: exits={exits!r}")
        if not is_finite(alpha) or not 0 <= alpha <= 1:
            raise ValueError(f"`alpha` must be a number from 0 to 1. Received: alpha={alpha!r}")
        if not is_whole(hidden, 0):
            raise ValueError(f"`hidden` must be a whole number from 0 on. Received: hidden={hidden!r}")
        super().__init__(name=name)
        taps = [Tap(model, layer, "exits") for layer in exits]
        kind = output_kind(model)
        loss = copy.copy(loss)
        loss.settle(kind, kind)
        object.__setattr__(self, "_taps", taps)
        object.__setattr__(self, "_seen", Seen())
        object.__setattr__(self, "_between", loss)
        self.student, self.alpha = model, float(alpha)
        self.heads = _heads(model, taps, kind, hidden)
        loss.check(*[(None, self.heads[0].output_shape[-1])] * 2)
        self.track(getattr(model, "output_names", None))

    @property
    def products(self) -> list[Any]:
        """The model: callbacks and penalties of `tfcompress` leave the heads alone."""
        return [self.student]

    def call(self, inputs: Any, training: Any = None) -> Any:
        """The model's answers."""
        return computed(self.student, self._taps, self._seen, inputs, training=training)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """The loss of the model and of its heads for a batch, and the model's own further losses."""
        weight = None if sample_weight is None else flavor.flatten(sample_weight)[0]
        inner = dict(self._seen.values)
        task = tf.cast(flavor.compiled_loss(self, y, y_pred, sample_weight), tf.float32)
        labeled = total = tf.constant(0.0)
        for tap, head in zip(self._taps, self.heads, strict=True):
            answers = head(averaged(inner[tap.key], flavor.mask_of(inner[tap.key])))
            like = flavor.pack_like(y_pred, [answers])
            labeled += tf.cast(flavor.compiled_loss(self, y, like, sample_weight), tf.float32)
            values = self._between.loss(tf.stop_gradient(flavor.flatten(y_pred)[0]), answers, flavor.flatten(y)[0])
            total += reduced(values, weight)
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        return self.told(task, total, task + (1 - self.alpha) * labeled + self.alpha * total / replicas, y_pred)

    def save(self, filepath: Any, overwrite: bool = True, **options: Any) -> None:
        """Saves the model without its heads."""
        self.student.save(filepath, overwrite=overwrite, **options)


def _heads(model: Any, taps: list[Tap], kind: str, hidden: int) -> list[Any]:
    """A head for each exit, whose answers are of the model's kind."""
    answers, inner = tried(model, taps)
    outputs = flavor.flatten(answers)
    if len(outputs) != 1 or outputs[0].shape.rank != 2:
        shapes = [tuple(tensor.shape) for tensor in outputs]
        raise ValueError(f"`model` must have one output of shape [batch, classes]. Received: {shapes}, batch first")
    heads = []
    for tap in taps:
        last = keras.layers.Dense(outputs[0].shape[-1], None if kind == "logits" else kind, dtype="float32")
        layers = [keras.layers.Dense(hidden, "relu", dtype="float32")] if hidden else []
        heads.append(keras.Sequential([keras.Input((inner[tap.key].shape[-1],)), *layers, last]))
    return heads
