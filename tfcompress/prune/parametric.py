"""A call of a layer with weights, as its rule sees it: labels of its inputs, weights and outputs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core.replay import Call
from tfcompress.core.transformed import named_weights
from tfcompress.prune.labels import Axes, Labels, Vector
from tfcompress.prune.operations import blank

#: The positions of an axis that stay.
Keep = Callable[[Vector], np.ndarray]
MAKES, READS, FOLLOWS = "makes", "reads", "follows"


@dataclass
class Weights:
    """What is known of a layer's weights.

    Attributes:
        axes: for each weight (by its name in `named_weights`) the labels of its axes; None for one without labels.
        roles: for each weight what the layer does with the channels of each axis: "makes", "reads", "follows" or "".
        made: the labels of new channels by what they are of, the same in each call of a shared layer.
        rebuild: a new layer with the channels that stay; None while nothing is known of the layer.
    """

    axes: dict[str, list[Vector | None]] = field(default_factory=dict)
    roles: dict[str, tuple[str, ...]] = field(default_factory=dict)
    made: dict[str, Vector] = field(default_factory=dict)
    rebuild: Callable[[Keep], Any] | None = None


class Parametric:
    """One call of a layer with weights: reads the labels of its inputs, gives those of its weights and outputs.

    Attributes:
        outputs: labels of the call's outputs.
        reads: (input, axis) that the layer sums over.
    """

    def __init__(self, layer: Any, call: Call, given: Sequence[Axes], labels: Labels, weights: Weights) -> None:
        self.given: Sequence[Axes] = given
        self.layer, self.call, self.labels, self.weights = layer, call, labels, weights
        self.outputs = [blank(t) for t in call.outputs]
        self.reads: list[tuple[int, int]] = []
        self._prefix = ""

    def new(self, key: str, count: int) -> Vector:
        """The labels of channels that the layer makes."""
        if self._prefix + key not in self.weights.made:
            self.weights.made[self._prefix + key] = self.labels.fresh(count)
            if count == 1:
                self.labels.fix(self.weights.made[self._prefix + key], "it is the only channel")
        return self.weights.made[self._prefix + key]

    def bind(self, name: str, *axes: tuple[Vector | None, str]) -> None:
        """The labels and roles of the axes of a weight; ties them to those of an earlier call."""
        if name not in self.weights.axes:
            self.weights.axes[name] = [vector for vector, _ in axes]
            self.weights.roles[name] = tuple(role for _, role in axes)
            return
        for n, (vector, _) in enumerate(axes):
            known = self.weights.axes[name][n]
            if known is not None and vector is not None:
                self.labels.tie(known, vector)
            elif known is not None or vector is not None:
                self.labels.fix([known, vector], f"{self.layer.name} is called with tensors of several kinds")

    def only(self, *axes: int) -> None:
        """Fix the labels of the first input on all other axes."""
        rank = len(self.given[0])
        kept = {axis % rank for axis in axes}
        rest = [v for axis, v in enumerate(self.given[0]) if axis not in kept]
        self.labels.fix(rest, f"{self.layer.name} computes along this axis")

    def mixing(self, vector: Vector, *names: str) -> None:
        """Fix new channels when an activation mixes them."""
        for name in names:
            if not elementwise(getattr(self.layer, name, None)):
                self.labels.fix(vector, f"the activation of {self.layer.name} mixes channels")

    def known(self, *names: str) -> bool:
        """Whether these are all weights that the layer has."""
        return set(named_weights(self.layer)) <= set(names)

    def zeros(self, count: Any) -> Vector:
        return np.zeros(int(count), np.int64)


def elementwise(activation: Any) -> bool:
    """Whether a function computes each number from one number, seen on numbers.

    >>> from tfcompress.core.flavor import keras
    >>> elementwise(keras.activations.relu), elementwise(keras.activations.softmax), elementwise(None)
    (True, False, True)
    """
    if activation is None:
        return True
    x = np.random.default_rng(2).normal(size=(3, 4, 6)).astype("float32")
    try:
        whole, part = (np.asarray(activation(tf.constant(given))) for given in (x, x[:, 1:3, [0, 3, 4]]))
    except Exception:  # a function that wants other shapes
        return False
    return whole.shape == x.shape and np.allclose(whole[:, 1:3, [0, 3, 4]], part, rtol=1e-4, atol=1e-6)
