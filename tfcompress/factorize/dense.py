"""Dense, EinsumDense and Embedding: kernels that are matrices, and two layers in the place of one."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.einsum import Equation
from tfcompress.core.flavor import keras
from tfcompress.factorize.target import Target, product, put, shared, summed, without

_LAYERS = keras.layers
# What the layer that carries the name on does not take over: adapters and integers of Keras' own.
_OWN = ("lora_rank", "lora_alpha", "quantization_config", "kernel_constraint", "name", "trainable", "dtype")


class DenseTarget(Target):
    """[inputs, units] as a Dense of r units without a bias and the layer itself behind it."""

    def positions(self, method: str) -> tuple[int, list[int]] | None:
        each = [product(tuple(call.outputs[0].shape)[1:-1]) for call in self.calls]
        return summed([(count, [count, count]) for count in each])

    def parts(self, method: str, ranks: Sequence[int]) -> list[Any]:
        config = self.layer.get_config()
        first = _LAYERS.Dense(
            ranks[0], use_bias=False, kernel_initializer=config["kernel_initializer"],
            kernel_regularizer=config["kernel_regularizer"], **shared(self.layer, f"{self.layer.name}.reduce"),
        )  # fmt: skip
        return [first, _LAYERS.Dense.from_config({**without(config, *_OWN), **shared(self.layer, self.layer.name)})]

    def rows(self, values: np.ndarray) -> np.ndarray:
        return values.reshape(-1, values.shape[-1])


class EinsumTarget(Target):
    """A kernel [read ..., new ...], its axes in any order, as two EinsumDense."""

    def __init__(self, layer: Any, calls: Sequence[Any]) -> None:
        super().__init__(layer, calls)
        self.equation = Equation.of(layer.equation)
        sizes = dict(zip(self.equation.kernel, map(int, layer.kernel.shape), strict=True))
        self._read = tuple(sizes[c] for c in self.equation.read)
        self._new = tuple(sizes[c] for c in self.equation.new)
        order = [self.equation.kernel.index(c) for c in self.equation.read + self.equation.new
                 if c in self.equation.kernel]  # fmt: skip
        self._order = order

    def problem(self) -> str | None:
        if not self.equation.is_matrix:
            return f"its equation {self.layer.equation!r} is no product with one matrix"
        return None

    @property
    def shape(self) -> tuple[int, ...]:
        return math.prod(self._read), math.prod(self._new)

    @property
    def kernel(self) -> np.ndarray:
        return np.transpose(np.asarray(flavor.read(self.variable), np.float64), self._order).reshape(self.shape)

    def arranged(self, value: Any) -> Any:
        return tf.reshape(tf.transpose(value, self._order), self.shape)

    def assign(self, kernel: np.ndarray) -> None:
        put(self.variable, np.transpose(kernel.reshape(*self._read, *self._new), np.argsort(self._order)))

    def positions(self, method: str) -> tuple[int, list[int]] | None:
        each = [product(self._left(call)[1:]) for call in self.calls]
        return summed([(count, [count, count]) for count in each])

    def parts(self, method: str, ranks: Sequence[int]) -> list[Any]:
        config = self.layer.get_config()
        into, out = self.equation.split()
        lefts = [self._left(call) for call in self.calls]
        # Keras adds the batch and what an ellipsis stands for, which may be of another rank in each call.
        left = self.equation.left
        named = len(left.replace("...", "")) if "..." in left else len(left) - 1
        ends = [sizes[len(sizes) - named :] for sizes in lefts]
        free = [sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*ends, strict=True)]
        first = _LAYERS.EinsumDense(
            into, (*free, ranks[0]), kernel_initializer=config["kernel_initializer"],
            kernel_regularizer=config["kernel_regularizer"], **shared(self.layer, f"{self.layer.name}.reduce"),
        )  # fmt: skip
        first.build(self._input([*lefts[0][: len(lefts[0]) - named], *free]))
        own = {**without(config, *_OWN), **shared(self.layer, self.layer.name), "equation": out}
        return [first, _LAYERS.EinsumDense.from_config(own)]

    def _axes(self, rank: int) -> list[int]:
        """The axes of an input of this rank that are summed over."""
        letters = self.equation.given.replace("...", "")
        return [rank - len(letters) + letters.index(c) for c in self.equation.read]

    def _left(self, call: Any) -> tuple[int | None, ...]:
        """Sizes of the input's axes that the kernel leaves as they are, the batch first."""
        shape = tuple(call.inputs[0].shape)
        return tuple(size for axis, size in enumerate(shape) if axis not in self._axes(len(shape)))

    def _input(self, free: Sequence[int | None]) -> tuple[int | None, ...]:
        """The input's shape, as the kernel knows it: the symbolic one of an attention may be that of its queries."""
        rank = len(free) + len(self._read)
        read = dict(zip(self._axes(rank), self._read, strict=True))
        rest = iter(free)
        return tuple(read[axis] if axis in read else next(rest) for axis in range(rank))

    def rows(self, values: np.ndarray) -> np.ndarray:
        axes = self._axes(values.ndim)
        last = np.moveaxis(values, axes, range(values.ndim - len(axes), values.ndim))
        return last.reshape(-1, math.prod(self._read))


class EmbeddingTarget(Target):
    """A table [words, width] as a table of r columns and a Dense without a bias."""

    weight = "embeddings"

    def positions(self, method: str) -> tuple[int, list[int]] | None:
        each = [product(tuple(call.inputs[0].shape)[1:]) for call in self.calls]
        return summed([(0 if count is not None else None, [0 if count is not None else None, count]) for count in each])

    def parts(self, method: str, ranks: Sequence[int]) -> list[Any]:
        config = self.layer.get_config()
        left = without(config, *_OWN, "embeddings_constraint", "activity_regularizer")
        table = _LAYERS.Embedding.from_config(
            {**left, "output_dim": ranks[0], **shared(self.layer, f"{self.layer.name}.table")})  # fmt: skip
        dense = _LAYERS.Dense(
            self.layer.output_dim, use_bias=False, kernel_regularizer=config.get("embeddings_regularizer"),
            activity_regularizer=config.get("activity_regularizer"), **shared(self.layer, self.layer.name),
        )  # fmt: skip
        return [table, dense]

    def rows(self, values: np.ndarray) -> np.ndarray:
        return values.reshape(-1).astype("int64")
