"""The integers of a kernel and its bias, the BatchNormalization behind them folded in: what a file holds of a layer.

    f = gamma / sqrt(variance + epsilon)                        1 without a normalization
    scale_c = |f_c| * s_c,   codes_c <- sign(f_c) * codes_c     s_c: the step of the kernel's own grid
    bias_c = (b_c - mean_c) * f_c + beta_c,   on the grid of s_x * scale_c

The exporter and the evaluation in integers both ask here, so that the file holds to the digit what Keras computes with.
"""

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.flavor import keras
from tfcompress.core.replay import calls, readers
from tfcompress.core.transformed import Transformed, named_weights

_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
_TRANSPOSED = (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose)
_PLAIN = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D)


@dataclass(frozen=True)
class IntegerKernel:
    """A kernel and its bias.

    Attributes:
        source: "layer/weight".
        codes: float32 whole numbers, the output channels first: [channels, rows, columns, inputs] of a convolution,
            [channels, rows, columns] of a depthwise one, [channels, inputs] of a Dense layer.
        scale: float32 [channels], or [1] where one serves all.
        bias: float64 [channels], real values; None where there is none.
        bits: of the kernel's grid.
    """

    source: str
    codes: tf.Tensor
    scale: tf.Tensor
    bias: tf.Tensor | None
    bits: int = 8

    def bias_codes(self, input_scale: Any, bits: int = 8) -> tf.Tensor | None:
        """rint(bias / (s_x * scale)) [channels], the divisor rounded to float32, as the file holds it.

        Args:
            input_scale: s_x.
            bits: of the input; 8: int32, clipped to what this holds; 16: int64.
        """
        if self.bias is None:
            return None
        steps = tf.cast(tf.cast(input_scale, tf.float32) * self.scale, tf.float64)
        whole = tf.round(self.bias / steps)
        if bits == 16:
            return tf.cast(whole, tf.int64)
        return tf.cast(tf.clip_by_value(whole, -(2.0**31), 2.0**31 - 1), tf.int32)


def integer_kernel(layer: Any, norm: Any = None) -> IntegerKernel | None:
    """The integers of a layer's kernel and the real values of its bias, a normalization folded in.

    Args:
        layer: a layer of the model.
        norm: the BatchNormalization that alone reads it; None: there is none.

    Returns:
        None where the layer is no Dense or convolution whose kernel is on an integer grid of one scale for each
        output channel, or one for all.
    """
    if not isinstance(layer, Transformed) or not isinstance(layer.layer, (*_PLAIN, *_DEPTHWISE, *_TRANSPOSED)):
        return None
    kernels = [name for name, variable in named_weights(layer.layer).items() if len(variable.shape) >= 2]
    found = layer.on_grid(kernels[0]) if len(kernels) == 1 else None
    if found is None:
        return None
    codes, steps = _channels_first(layer.layer, found[0]), tf.reshape(found[1], [-1])
    channels = int(codes.shape[0])
    if steps.shape[0] not in (1, channels):
        return None
    bias = getattr(layer.layer, "bias", None)
    real = None if bias is None else tf.cast(flavor.read(bias), tf.float64)
    if norm is not None:
        factor, mean, beta = _affine(norm)
        real = ((0.0 if real is None else real) - mean) * factor + beta
        codes *= tf.reshape(tf.cast(tf.where(factor < 0, -1.0, 1.0), tf.float32), [-1] + [1] * (codes.shape.rank - 1))
        steps = tf.cast(tf.abs(factor) * tf.cast(steps, tf.float64), tf.float32)
    if steps.shape[0] == channels:
        codes, steps = _living(codes, steps)
    return IntegerKernel(f"{layer.name}/{kernels[0]}", codes, steps, real, found[2])


def _channels_first(layer: Any, kernel: tf.Tensor) -> tf.Tensor:
    rank = kernel.shape.rank
    if isinstance(layer, _DEPTHWISE):
        kernel = tf.reshape(kernel, [*kernel.shape[:-2], -1])
        return tf.transpose(kernel, [rank - 2, *range(rank - 2)])
    if isinstance(layer, _TRANSPOSED):
        return tf.transpose(kernel, [rank - 2, *range(rank - 2), rank - 1])
    return tf.transpose(kernel, [rank - 1, *range(rank - 1)])


def _affine(norm: Any) -> tuple[tf.Tensor, tf.Tensor, Any]:
    """A BatchNormalization in inference: (x - mean) * factor + beta, in float64."""
    variance, mean = (tf.cast(flavor.read(v), tf.float64) for v in (norm.moving_variance, norm.moving_mean))
    factor = 1.0 / tf.sqrt(variance + float(norm.epsilon))
    factor = factor * tf.cast(flavor.read(norm.gamma), tf.float64) if norm.scale else factor
    return factor, mean, tf.cast(flavor.read(norm.beta), tf.float64) if norm.center else 0.0


def _living(codes: tf.Tensor, steps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """A channel of zeros has no scale of its own: it gets the mean of the others', on which its bias is then held.

    A channel that the normalization multiplies by zero becomes one of zeros.
    """
    column = [-1] + [1] * (codes.shape.rank - 1)
    codes = tf.where(tf.reshape(steps > 0, column), codes, tf.zeros_like(codes))
    alive = tf.reduce_any(tf.reshape(codes, [codes.shape[0], -1]) != 0, axis=1)
    count = tf.reduce_sum(tf.cast(alive, tf.float64))
    total = tf.reduce_sum(tf.where(alive, tf.cast(steps, tf.float64), tf.zeros([], tf.float64)))
    mean = tf.cast(tf.where(count > 0, total / tf.maximum(count, 1.0), tf.ones([], tf.float64)), tf.float32)
    return codes, tf.where(alive, steps, mean)


def integer_kernels(model: Any) -> list[IntegerKernel]:
    """Every kernel of a graph on its integer grid, each with the BatchNormalization behind it, if one alone reads it.

    Args:
        model: a Functional model.
    """
    steps = calls(model)
    read_by = readers(steps)
    ends = {id(tensor) for tensor in model.outputs}
    found = []
    for step in steps:
        after = [] if id(step.outputs[0]) in ends else read_by.get(id(step.outputs[0]), [])
        alone = len(after) == 1 and isinstance(after[0].operation, keras.layers.BatchNormalization)
        kernel = integer_kernel(step.operation, after[0].operation if alone else None)
        found += [] if kernel is None else [kernel]
    return found
