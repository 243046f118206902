"""Weights as matrices: which axes of each kind of weight are its rows and which its columns."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.einsum import Equation
from tfcompress.core.flavor import keras
from tfcompress.core.trainable import set_trainable
from tfcompress.core.transformed import Transformed, named_weights

_LAYERS = keras.layers
_TRANSPOSED = (_LAYERS.Conv1DTranspose, _LAYERS.Conv2DTranspose, _LAYERS.Conv3DTranspose)
_DEPTHWISE = (_LAYERS.DepthwiseConv1D, _LAYERS.DepthwiseConv2D)
#: Their weights multiply number by number.
ELEMENTWISE = (_LAYERS.PReLU, _LAYERS.BatchNormalization, _LAYERS.LayerNormalization, _LAYERS.GroupNormalization)


@dataclass(frozen=True)
class Folding:
    """How a weight is a matrix of m rows and n columns, or g of them.

    Invariants: `batch`, `rows` and `columns` together hold each axis of the weight once; m, n and g are the products of
    their sizes.

    Attributes:
        rows: axes over which the layer sums (a table's: its entries).
        columns: axes that the layer's output has.
        batch: axes that count matrices, in the input and in the output.
        table: rows are looked up one by one.
    """

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    batch: tuple[int, ...] = ()
    table: bool = False

    def __post_init__(self) -> None:
        for name in ("rows", "columns", "batch"):  # JSON makes lists of tuples
            object.__setattr__(self, name, tuple(getattr(self, name)))

    def sizes(self, shape: Sequence[int]) -> tuple[int, int, int]:
        """(g, m, n) of a weight of this shape."""
        g, m, n = (math.prod(shape[axis] for axis in axes) for axes in (self.batch, self.rows, self.columns))
        return g, m, n

    def unfold(self, matrix: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
        """The weight of this shape that a matrix [m, n] or [g, m, n] is.

        >>> Folding(rows=(1,), columns=(0,)).unfold(tf.constant([[1, 2, 3], [4, 5, 6]]), (3, 2)).numpy().tolist()
        [[1, 4], [2, 5], [3, 6]]
        """
        order = (*self.batch, *self.rows, *self.columns)
        value = tf.reshape(matrix, [shape[axis] for axis in order])
        back = [order.index(axis) for axis in range(len(order))]
        return value if back == sorted(back) else tf.transpose(value, back)

    def get_config(self) -> dict[str, Any]:
        return asdict(self)


def _last(rank: int) -> Folding:
    return Folding(tuple(range(rank - 1)), (rank - 1,))


def _einsum(layer: Any, rank: int) -> Folding | None:
    """Letters of the kernel: summed over where the output lacks them, columns where the input does, else a batch."""
    equation = Equation.of(layer.equation)
    rows, columns, both = (
        tuple(axis for axis, letter in enumerate(equation.kernel) if letter in letters)
        for letters in (equation.read, equation.new, equation.shared)
    )
    return Folding(rows, columns, both) if rows and columns else None


def _depthwise(rank: int) -> Folding:
    """[k..., channels, multiplier]: a filter is a column."""
    return Folding(tuple(range(rank - 2)), (rank - 2, rank - 1))


def _transposed(rank: int) -> Folding:
    """[k..., outputs, inputs]."""
    return Folding((*range(rank - 2), rank - 1), (rank - 2,))


# The first entry that is a class of the layer decides; in tf_keras transposed and depthwise ones are convolutions too.
_KINDS: tuple[tuple[Any, Callable[[Any, int], Folding | None]], ...] = (
    (_TRANSPOSED, lambda layer, rank: _transposed(rank)),
    (_DEPTHWISE, lambda layer, rank: _depthwise(rank)),
    (_LAYERS.EinsumDense, _einsum),
    (_LAYERS.Embedding, lambda layer, rank: Folding((0,), (1,), table=True)),
)


def _fold(owner: Any, name: str, rank: int) -> Folding | None:
    if name == "depthwise_kernel":
        return _depthwise(rank)
    for classes, fold in _KINDS:
        if isinstance(owner, classes):
            return fold(owner, rank)
    return _last(rank)


def _owners(layer: Any) -> dict[int, Any]:
    """The innermost layer that holds each variable, by the variable's id."""
    return {id(v): part for part in (layer, *flavor.sublayers(layer, recursive=True)) for v in part.weights}


def foldings(layer: Any) -> dict[str, Folding]:
    """The matrices of a layer: its learned weights of two and more axes that are factors of a product or tables.

    Args:
        layer: a built layer, transformed or not; of a composite or recurrent one, the layers inside are looked at one
            by one.

    Returns:
        How each is folded, by its name in `named_weights`; empty when the layer has none.

    >>> layer = keras.layers.Conv2D(4, 3)
    >>> layer.build((None, 8, 8, 2))
    >>> foldings(layer)["kernel"].sizes((3, 3, 2, 4))
    (1, 18, 4)
    """
    inner = layer.layer if isinstance(layer, Transformed) else layer
    learned = {id(v) for v in learned_weights(inner) if tf.as_dtype(v.dtype).is_floating}
    owners, found = _owners(inner), {}
    for name, variable in named_weights(inner).items():
        owner, own, rank = owners[id(variable)], flavor.variable_name(variable), len(variable.shape)
        is_held = isinstance(layer, Transformed) and layer.held(name) is not None
        is_factor = not isinstance(owner, ELEMENTWISE) and own != "bias"
        if rank >= 2 and is_factor and (is_held or id(variable) in learned):
            folding = _fold(owner, own, rank)
            if folding is not None:
                found[name] = folding
    return found


def learned_weights(layer: Any) -> list[Any]:
    """The weights that training would change if the layer were not frozen."""
    parts = (layer, *flavor.sublayers(layer, recursive=True))
    frozen = [part for part in parts if not part.trainable]
    if not frozen:
        return list(layer.trainable_weights)
    before = [(part, part.trainable) for part in parts]
    set_trainable(layer, True)
    try:
        return list(layer.trainable_weights)
    finally:
        for part, trainable in before:  # outer layers come first: they set those inside
            part.trainable = trainable
