"""Multiply-accumulates of one call, for one sample."""

import math
from typing import Any

from tfcompress.core import flavor
from tfcompress.core.einsum import Equation
from tfcompress.core.flavor import keras
from tfcompress.core.inside import inner_calls
from tfcompress.core.opaque import Opaque
from tfcompress.core.replay import Call
from tfcompress.core.transformed import Transformed, weight_shapes

_LAYERS = keras.layers
_TRANSPOSED = (_LAYERS.Conv1DTranspose, _LAYERS.Conv2DTranspose, _LAYERS.Conv3DTranspose)
_CONVOLUTIONS = (_LAYERS.Conv1D, _LAYERS.Conv2D, _LAYERS.Conv3D, _LAYERS.DepthwiseConv1D, _LAYERS.DepthwiseConv2D,
                 _LAYERS.SeparableConv1D, _LAYERS.SeparableConv2D)  # fmt: skip
_RECURRENT = (_LAYERS.RNN, _LAYERS.Bidirectional)


def _positions(layer: Any, shape: tuple[int | None, ...]) -> int | None:
    """How often the kernel is applied, from a tensor's shape without batch; None where a dimension is not known."""
    spatial = shape[1:] if getattr(layer, "data_format", "channels_last") == "channels_first" else shape[:-1]
    return None if None in spatial else math.prod(d for d in spatial if d is not None)


def _einsum_macs(layer: Any, given: tuple[int | None, ...], shape: tuple[int, ...]) -> int | None:
    """Each number of the input meets the kernel once for every index of the kernel that the input does not have."""
    equation = Equation.of(layer.equation)
    channels = math.prod(size for size, c in zip(shape, equation.kernel, strict=True) if c not in equation.given)
    return None if None in given else math.prod(d for d in given if d is not None) * channels


def macs_of(call: Call) -> int | None:
    """The multiply-accumulates of a layer's kernels in one call, for one sample.

    Dense, convolutions: numbers in the kernel times output positions; transposed: times input positions; recurrent:
    times steps; a closed composite: the sum of the layers inside. 0 for layers without kernels and for table look-ups;
    None where a shape or a formula is not known.

    >>> from tfcompress.core.replay import calls
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, strides=2)])  # 3 x 3 positions
    >>> macs_of(calls(model)[0]) == 3 * 3 * 3 * 4 * 3 * 3
    True
    """
    layer = call.operation.layer if isinstance(call.operation, Transformed) else call.operation
    if not isinstance(layer, _LAYERS.Layer):
        return 0
    if isinstance(layer, Opaque):
        counts = [macs_of(inner) for inner in inner_calls(layer, call)]
        return None if None in counts else sum(count for count in counts if count is not None)
    variables = weight_shapes(call.operation)
    # A GRU's bias has two axes.
    shapes = [shape for v, shape in variables if flavor.variable_name(v) != "bias" and len(shape) >= 2]
    size = sum(map(math.prod, shapes))
    if not size or isinstance(layer, _LAYERS.Embedding | _LAYERS.BatchNormalization | _LAYERS.PReLU):
        return 0
    given, made = tuple(call.inputs[0].shape)[1:], tuple(call.outputs[0].shape)[1:]
    if isinstance(layer, _RECURRENT):
        return None if given[0] is None else size * given[0]
    if isinstance(layer, _LAYERS.EinsumDense):
        return _einsum_macs(layer, given, shapes[0])
    if isinstance(layer, _TRANSPOSED):
        positions = _positions(layer, given)
    elif isinstance(layer, (*_CONVOLUTIONS, _LAYERS.Dense)):
        positions = _positions(layer, made)
    else:
        return None
    return None if positions is None else size * positions
