"""One adapter of one weight: an update of low rank, or a copy of the weight that is trained whole."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.flavor import keras
from tfcompress.lora.folding import Folding


@flavor.register
class Adapter(keras.layers.Layer):
    """What stands for a frozen weight W in its layer's computation, learned:

        W + alpha / rank * A B,   A [m, rank], B [rank, n]        (with a rank; W folded to [m, n])
        V                                                         (without: V starts as W)

    One of A and B starts at zero, so that W is what it was: B, but for a table A, so that entries which are never
    looked up keep their values. A product of many matrices (a batch of kernels) has as many A and B: [g, m, rank].

    Args:
        shape: of the weight.
        rank: of the update; None trains a whole copy.
        alpha: the update's scale is alpha / rank.
        folding: how the weight is a matrix; needed with a rank.

    Source: Hu et al. 2021, arXiv:2106.09685, section 4.1.

    >>> adapter = Adapter((3, 2), rank=1, alpha=2.0, folding=Folding((0,), (1,)))
    >>> adapter.build()
    >>> adapter.set_weights([np.array([[1.0], [0.0], [2.0]]), np.array([[1.0, 3.0]])])
    >>> adapter.applied(tf.ones((3, 2))).numpy().tolist()  # 1 + 2 * [1, 0, 2]^T [1, 3]
    [[3.0, 7.0], [1.0, 1.0], [5.0, 13.0]]
    """

    def __init__(self, shape: Sequence[int], rank: int | None, alpha: float | None = None,
                 folding: Folding | dict[str, Any] | None = None, **kwargs: Any) -> None:  # fmt: skip
        super().__init__(**{"dtype": "float32", **kwargs})
        self.shape, self.rank, self.alpha = tuple(shape), rank, alpha
        self.folding = Folding(**folding) if isinstance(folding, dict) else folding

    def build(self, *_: Any) -> None:
        if self.built:  # type: ignore[has-type]
            return
        if self.rank is None or self.folding is None:
            self.whole = self.add_weight(name="whole", shape=self.shape, initializer="zeros")
        else:
            g, m, n = self.folding.sizes(self.shape)
            many = (g,) if self.folding.batch else ()
            limit = math.sqrt(6.0 / m)  # "he_uniform" of a matrix that sums m numbers
            starts = keras.initializers.RandomUniform(-limit, limit), keras.initializers.Zeros()
            if self.folding.table:
                starts = keras.initializers.Zeros(), keras.initializers.RandomNormal(stddev=1.0)
            self.a = self.add_weight(name="a", shape=(*many, m, self.rank), initializer=starts[0])
            self.b = self.add_weight(name="b", shape=(*many, self.rank, n), initializer=starts[1])
        self.built = True

    def begin(self, value: tf.Tensor) -> None:
        """Start from the weight's value: a whole copy is one of it."""
        if self.rank is None:
            self.whole.assign(tf.cast(value, self.whole.dtype))

    def applied(self, value: tf.Tensor) -> tf.Tensor:
        """What the layer computes with in place of the frozen `value`; of its shape and type."""
        if self.rank is None or self.folding is None or self.alpha is None:
            return tf.cast(flavor.read(self.whole), value.dtype)
        update = tf.matmul(flavor.read(self.a), flavor.read(self.b)) * (self.alpha / self.rank)
        return value + tf.cast(self.folding.unfold(update, self.shape), value.dtype)

    def parts(self) -> dict[str, np.ndarray]:
        """The learned arrays by name: "a" and "b", or "whole"."""
        return {name: np.asarray(flavor.read(variable)) for name, variable in self._variables().items()}

    def set_parts(self, parts: Mapping[str, np.ndarray], alpha: float | None) -> None:
        """Take over what `parts` of an adapter of the same shape gave, and its alpha."""
        self.alpha = alpha
        for name, variable in self._variables().items():
            variable.assign(parts[name])

    def _variables(self) -> dict[str, Any]:
        return {"whole": self.whole} if self.rank is None else {"a": self.a, "b": self.b}

    def describe(self) -> str:
        """ "rank 4" or "trained whole"."""
        if self.rank is None:
            return "trained whole"
        return f"rank {self.rank}" if self.alpha == self.rank else f"rank {self.rank}, alpha {self.alpha:g}"

    def get_config(self) -> dict[str, Any]:
        folding = None if self.folding is None else self.folding.get_config()
        own = {"shape": list(self.shape), "rank": self.rank, "alpha": self.alpha, "folding": folding}
        return {**super().get_config(), **own}
