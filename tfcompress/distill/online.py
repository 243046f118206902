"""Deep mutual learning: models that are trained together and teach each other."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.flavor import keras
from tfcompress.distill.objects import Logits, Outputs, number
from tfcompress.distill.output_kind import output_kind
from tfcompress.distill.reduction import reduced
from tfcompress.distill.taps import tried
from tfcompress.distill.tracked import Tracked


class MutualLearning(Tracked):
    """Trains peers on labels and on what the others answer meanwhile; none of them needs to be trained before.

        loss = sum_k ( task_k + w / (K - 1) sum_{l != k} D(p_l, p_k) )

    It is compiled, fitted and evaluated as any Keras model of one output, with labels by themselves or under its name.
    The loss and the metrics given to `compile` are those of each peer; metrics are named by the peer
    ("peer_0_accuracy"). `peers` are the products.

    Args:
        peers: at least two built Keras models with one output each, of one shape. They are trained in place; peers of
            different widths work as well as equal ones with different first weights.
        loss: D, a loss between answers.
        weight: w from 0 on.
        name: of the model.

    Raises:
        TypeError: not models, or not a loss between answers.
        ValueError: fewer than two peers, one peer twice, or outputs of different shapes.

    Source: Zhang et al. 2017, arXiv:1706.00384, equations 5 and 8.

    >>> peers = [keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]) for _ in range(2)]
    >>> learning = MutualLearning(peers)
    >>> learning.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    >>> history = learning.fit(tf.ones([8, 4]), tf.zeros([8]), verbose=0)
    >>> "distillation_loss" in history.history
    True
    """

    def __init__(
        self, peers: Sequence[Any], loss: Outputs | None = None, weight: float = 1.0, name: str = "mutual_learning"
    ) -> None:
        peers = list(peers)
        for peer in peers:
            flavor.check_model(peer, "peers")
        if len({id(peer) for peer in peers}) < max(2, len(peers)):
            raise ValueError(f"`peers` must be at least two models, each once. Received: {len(peers)} models")
        weight = number("weight", weight, zero=True)
        loss = Logits(temperature=1.0) if loss is None else loss
        if not isinstance(loss, Outputs) or loss.teacher is not None or loss.student is not None:
            raise TypeError(f"`loss` must be a loss between answers, such as `Logits`. Received: loss={loss!r}")
        super().__init__(name=name)
        self.peers, self.weight = peers, weight
        object.__setattr__(self, "_pairs", _pairs(peers, loss))
        self.track([f"peer_{number}" for number in range(len(peers))])

    @property
    def products(self) -> list[Any]:
        """The peers."""
        return list(self.peers)

    def compile(
        self, optimizer: Any = "rmsprop", loss: Any = None, metrics: Any = None, weighted_metrics: Any = None,
        **options: Any,
    ) -> None:  # fmt: skip
        """As any model of one output; the loss and the metrics are those of each peer.

        Args:
            optimizer: of all peers: optimizers treat each weight on its own.
            loss: of each peer's task.
            metrics: a metric or a list of them.
            weighted_metrics: likewise, weighted by `sample_weight`.
            options: as Keras takes them.
        """
        count = len(self.peers)
        super().compile(
            optimizer, [_only("loss", loss)] * count, metrics=_for_peers("metrics", metrics, count),
            weighted_metrics=_for_peers("weighted_metrics", weighted_metrics, count), **options,
        )  # fmt: skip

    def call(self, inputs: Any, training: Any = None) -> list[Any]:
        """The answers of each peer, a tensor each."""
        return [flavor.flatten(peer(inputs, training=training))[0] for peer in self.peers]

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """The sum of the peers' losses for a batch, and the peers' own further losses."""
        ys, weights = self._for_each(y, sample_weight)
        weight = None if weights is None else weights[0]
        task = tf.cast(flavor.compiled_loss(self, ys, y_pred, weights), tf.float32)
        total = tf.constant(0.0)
        for (teaching, learning), loss in self._pairs.items():
            told = tf.stop_gradient(y_pred[teaching])
            values = loss.loss(told, y_pred[learning], ys[0])
            total += reduced(values, weight, flavor.mask_of(y_pred[learning]))
        total = self.weight * total / (len(self.peers) - 1)
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        return self.told(task, total, task + total / replicas, y_pred)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """As Keras does it, with the labels of all peers."""
        ys, weights = self._for_each(y, sample_weight)
        return super().compute_metrics(x, ys, y_pred, weights)

    def save(self, filepath: Any, overwrite: bool = True, **options: Any) -> None:
        """Saves each peer in a file of its own: "model.keras" is "model_peer_0.keras" and so on."""
        path = Path(filepath)
        for place, peer in enumerate(self.peers):
            peer.save(path.with_name(f"{path.stem}_peer_{place}{path.suffix}"), overwrite=overwrite, **options)

    def _for_each(self, y: Any, sample_weight: Any) -> tuple[list[Any], list[Any] | None]:
        """Labels and weights of all peers; not by the steps, before which Keras looks at the loss under a strategy."""
        if y is None:
            raise ValueError("`y` must be given: peers learn from labels beside each other. Received: y=None")
        ys = [_only("y", y)] * len(self.peers)
        return ys, None if sample_weight is None else [_only("sample_weight", sample_weight)] * len(ys)


def _only(argument: str, given: Any) -> Any:
    """What is given for the only output that a peer has, by itself, in a list or under a name."""
    found = list(given.values()) if isinstance(given, dict) else given if isinstance(given, (list, tuple)) else [given]
    if len(found) != 1:
        raise ValueError(f"`{argument}` must be one, for peers have one output each. Received: {len(found)} of them")
    return found[0]


def _for_peers(argument: str, metrics: Any, count: int) -> list[list[Any]] | None:
    given = _only(argument, metrics) if isinstance(metrics, dict) else metrics
    wanted = [] if given is None else list(given) if isinstance(given, (list, tuple)) else [given]
    return [[_again(metric) for metric in wanted] for _ in range(count)] if wanted else None


def _again(metric: Any) -> Any:
    """A metric of its own for each peer."""
    return type(metric).from_config(metric.get_config()) if isinstance(metric, keras.metrics.Metric) else metric


def _pairs(peers: list[Any], loss: Outputs) -> dict[tuple[int, int], Outputs]:
    """The loss for each (teaching, learning) peer, settled for what their outputs are."""
    shapes = [_shape(peer) for peer in peers]
    if any(shape != shapes[0] for shape in shapes):
        raise ValueError(f"`peers` must have outputs of one shape. Received: {shapes}")
    kinds = [output_kind(peer) for peer in peers]
    pairs = {}
    for teaching, learning in ((i, j) for i in range(len(peers)) for j in range(len(peers)) if i != j):
        pairs[teaching, learning] = copy.copy(loss)
        pairs[teaching, learning].settle(kinds[teaching], kinds[learning])
        pairs[teaching, learning].check((None, *shapes[teaching]), (None, *shapes[learning]))
    return pairs


def _shape(peer: Any) -> tuple:
    outputs = flavor.flatten(tried(peer, [])[0])
    if len(outputs) != 1:
        raise ValueError(f"`peers` must have one output each. Received: {peer.name!r} with {len(outputs)}")
    return tuple(outputs[0].shape[1:])
