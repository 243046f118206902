"""Layers with a kernel, as the runtime's CONV_2D, DEPTHWISE_CONV_2D, TRANSPOSE_CONV and FULLY_CONNECTED."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfcompress.core.arithmetic import convolutions, matrices
from tfcompress.core.arithmetic.codes import Codes, Lattice
from tfcompress.core.flavor import keras
from tfcompress.core.folding import IntegerKernel, integer_kernel
from tfcompress.quantize.faithful.pending import Pending
from tfcompress.quantize.kinds import activation_name

_LAYERS = keras.layers
_FLAT = (_LAYERS.Conv1D, _LAYERS.DepthwiseConv1D)
Real = Callable[[], tf.Tensor]


def product(layer: Any, x: Codes, kernels: str, real: Real, norm: Any = None) -> Pending | None:
    """A layer with a kernel on its integer grid, waiting for its lattice.

    Args:
        layer: a layer of the graph.
        x: what it reads.
        kernels: the kernel set.
        real: what it computes in real numbers.
        norm: the BatchNormalization that is folded into it.

    Returns:
        None where the runtime runs it as more than one operation, or its integers are not known.
    """
    kernel = integer_kernel(layer, norm)
    own = None if kernel is None else layer.layer
    relu = None if own is None else activation_name(own)
    if kernel is None or relu not in ("linear", "relu", "relu6") or (norm is not None and relu != "linear"):
        return None
    if getattr(own, "data_format", "channels_last") != "channels_last":
        return None
    run = _operation(own, kernel)
    if run is None or (isinstance(own, _LAYERS.Conv2DTranspose) and None in x.values.shape[1:3]):
        return None

    def finish(lattice: Lattice, low: Any, high: Any) -> Codes:
        bias = kernel.bias_codes(x.lattice.scale, x.lattice.bits)
        return run(x, bias, lattice, {"kernels": kernels, "low": low, "high": high})

    def folded(norm: Any, real: Real) -> Pending | None:
        return product(layer, x, kernels, real, norm)

    fused, foldable = None if relu == "linear" else relu, None if norm is not None else folded
    alone = kernel.bias is None and isinstance(own, (_LAYERS.Conv1DTranspose, _LAYERS.Conv2DTranspose))
    return Pending(finish, real, fused, foldable, x.lattice.bits, alone)


_Run = Callable[[Codes, Any, Lattice, dict[str, Any]], Codes]


def _operation(layer: Any, kernel: IntegerKernel) -> _Run | None:
    """What runs the runtime's operation; None where it is not one."""
    if isinstance(layer, _LAYERS.Dense):
        return lambda x, bias, out, how: matrices.fully_connected(
            x, kernel.codes, kernel.scale, bias, out, packed=_is_packed(kernel) and kernel.scale.shape[0] == 1, **how
        )
    if isinstance(layer, (_LAYERS.Conv1DTranspose, _LAYERS.Conv2DTranspose)):
        return _spread(layer, kernel)
    if layer.padding not in ("same", "valid"):
        return None
    depthwise = isinstance(layer, (_LAYERS.DepthwiseConv1D, _LAYERS.DepthwiseConv2D))
    if depthwise and max(layer.strides) > 1 and max(layer.dilation_rate) > 1:
        return None
    return lambda x, bias, out, how: _convolved(layer, kernel, depthwise, x, bias, out, how)


def _spread(layer: Any, kernel: IntegerKernel) -> _Run | None:
    """TRANSPOSE_CONV of two dimensions whose output has the size that the padding gives it."""
    strides, dilations = _pair(layer.strides), _pair(layer.dilation_rate)
    if not isinstance(layer, _LAYERS.Conv2DTranspose) or max(dilations) > 1 or layer.output_padding is not None:
        return None
    windows = kernel.codes.shape[1:3]

    def run(x: Codes, bias: Any, out: Lattice, how: dict[str, Any]) -> Codes:
        beyond = [0, 0] if layer.padding == "same" else [max(w - s, 0) for w, s in zip(windows, strides, strict=True)]
        size = [n * s + b for n, s, b in zip(x.values.shape[1:3], strides, beyond, strict=True)]
        return convolutions.transpose_conv(
            x, kernel.codes, kernel.scale, bias, out, size=size, strides=strides, padding=layer.padding.upper(), **how
        )

    return run


def _convolved(
    layer: Any, kernel: IntegerKernel, depthwise: bool, x: Codes, bias: Any, out: Lattice, how: dict[str, Any]
) -> Codes:
    """A convolution of two dimensions; one of one dimension has a single row."""
    flat = isinstance(layer, _FLAT)
    codes, values = kernel.codes, x.values
    strides, dilations = _pair(layer.strides), _pair(layer.dilation_rate)
    if flat:
        codes, values = codes[:, None], values[:, None]
    if depthwise:
        codes = tf.transpose(codes, [1, 2, 0])[None]
    run = convolutions.depthwise_conv_2d if depthwise else convolutions.conv_2d
    found = run(
        Codes(values, x.lattice), codes, kernel.scale, bias, out, strides=strides, dilations=dilations,
        padding=layer.padding.upper(), packed=_is_packed(kernel), **how,
    )  # fmt: skip
    return Codes(found.values[:, 0], out) if flat else found


def _is_packed(kernel: IntegerKernel) -> bool:
    """Whether the file stores it two codes to a byte, which XNNPACK rounds in another way."""
    return kernel.bits <= 4


def _pair(numbers: Any) -> tuple[int, int]:
    numbers = tuple(numbers) if isinstance(numbers, (list, tuple)) else (numbers,)
    return (1, *numbers) if len(numbers) == 1 else numbers  # type: ignore[return-value]
