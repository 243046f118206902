"""A layer as a product of matrices: its inputs as rows, its kernel as [inputs, outputs]."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core.einsum import Equation
from tfcompress.core.flavor import keras
from tfcompress.prune.targets import DEPTHWISE, TRANSPOSED, Target

_LAYERS = keras.layers


@dataclass(frozen=True)
class MatrixView:
    """How a layer's outputs are rows(x) @ matrix(kernel).

    Attributes:
        inputs: columns of `rows`, rows of `matrix`.
        channels: input channels that follow one another in `inputs`.
        rows: from the layer's input to [any, inputs].
        matrix: from an array of the kernel's shape to [inputs, outputs].
        kernel: back again.
    """

    inputs: int
    channels: int
    rows: Callable[[tf.Tensor], tf.Tensor]
    matrix: Callable[[np.ndarray], np.ndarray]
    kernel: Callable[[np.ndarray], np.ndarray]


def view_of(target: Target) -> MatrixView:
    """The view of a kernel's layer.

    Raises:
        ValueError: the layer is no Dense, EinsumDense or ungrouped convolution of one or two dimensions.
    """
    layer, shape = target.layer, target.shape
    if isinstance(layer, _LAYERS.EinsumDense):
        return _einsum(target)
    plain = isinstance(layer, _LAYERS.Conv1D | _LAYERS.Conv2D) and not isinstance(layer, TRANSPOSED + DEPTHWISE)
    if plain and getattr(layer, "groups", 1) == 1:
        inputs = int(np.prod(shape[:-1]))
        return MatrixView(inputs, shape[-2], lambda x: _windows(x, layer, inputs),
                          lambda a: a.reshape(inputs, shape[-1]), lambda a: a.reshape(shape))  # fmt: skip
    if isinstance(layer, _LAYERS.Dense):
        return MatrixView(shape[0], shape[0], lambda x: tf.reshape(x, [-1, shape[0]]), lambda a: a, lambda a: a)
    raise ValueError(
        f"A score that compensates needs layers that are a product of matrices: Dense, EinsumDense, Conv1D and Conv2D "
        f"without groups. Leave others out by `select`. Received: {target.name!r} of {type(layer).__name__}"
    )


def _windows(x: tf.Tensor, layer: Any, inputs: int) -> tf.Tensor:
    """Every window that a convolution looks at, as a row."""
    if layer.data_format == "channels_first":
        x = tf.transpose(x, [0, *range(2, x.shape.rank), 1])
    size, strides, rates = list(layer.kernel_size), list(layer.strides), list(layer.dilation_rate)
    padding = layer.padding
    if padding == "causal":
        x, padding = tf.pad(x, [[0, 0], [(size[0] - 1) * rates[0], 0], [0, 0]]), "valid"
    if len(size) == 1:
        x, size, strides, rates = x[:, None], [1, *size], [1, *strides], [1, *rates]
    found = tf.image.extract_patches(x, [1, *size, 1], [1, *strides, 1], [1, *rates, 1], padding.upper())
    return tf.reshape(found, [-1, inputs])


def _einsum(target: Target) -> MatrixView:
    """An EinsumDense whose kernel shares no index with both input and output."""
    layer, shape = target.layer, target.shape
    equation = Equation.of(layer.equation)
    given, kernel, summed = equation.given, equation.kernel, equation.read
    if equation.shared or not summed:
        raise ValueError(
            f"A score that compensates needs an EinsumDense without a kernel for each group. Received: {target.name!r} "
            f"with {layer.equation!r}"
        )
    order = [kernel.index(c) for c in (*summed, *(c for c in kernel if c not in summed))]
    moved = [shape[axis] for axis in order]
    inputs = int(np.prod(moved[: len(summed)]))
    back = np.argsort(order)

    def rows(x: tf.Tensor) -> tf.Tensor:
        spare = x.shape.rank - len(given.replace("...", ""))
        letters = list(given.replace("...", "." * spare))
        kept = [axis for axis, c in enumerate(letters) if c not in summed]
        return tf.reshape(tf.transpose(x, [*kept, *(letters.index(c) for c in summed)]), [-1, inputs])

    return MatrixView(inputs, shape[kernel.index(summed[-1])], rows, lambda a: a.transpose(order).reshape(inputs, -1),
                      lambda a: a.reshape(moved).transpose(back))  # fmt: skip
