"""SeparableConv1D and SeparableConv2D: their 1x1 kernels, where nearly all their numbers are."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.flavor import keras
from tfcompress.core.projected import carry
from tfcompress.factorize.convolutions import padded, places
from tfcompress.factorize.target import Target, product, put, shared, summed

_LAYERS = keras.layers
_WINDOW = ("kernel_size", "strides", "padding", "dilation_rate", "data_format", "depth_multiplier")
_DEPTHWISE = ("depthwise_initializer", "depthwise_regularizer", "depthwise_constraint")
_LAST = ("filters", "use_bias", "activation", "bias_initializer", "bias_regularizer", "bias_constraint",
         "activity_regularizer", "data_format")  # fmt: skip


class SeparableTarget(Target):
    """[channels * multiplier, filters] as a separable convolution of r filters without a bias and a 1x1 one behind it.

    The window of each channel alone stays as it is, in the first part.
    """

    weight = "pointwise_kernel"

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(size) for size in self.variable.shape)[-2:]

    def arranged(self, value: Any) -> Any:
        return tf.reshape(value, self.shape)

    def positions(self, method: str) -> tuple[int, list[int]] | None:
        each = [product(places(self.layer, call.outputs[0])) for call in self.calls]
        return summed([(count, [count, count]) for count in each])

    def parts(self, method: str, ranks: Sequence[int]) -> list[Any]:
        config = self.layer.get_config()
        first = type(self.layer)(
            ranks[0], use_bias=False, pointwise_initializer=config["pointwise_initializer"],
            pointwise_regularizer=config["pointwise_regularizer"], **shared(self.layer, f"{self.layer.name}.reduce"),
            **{key: config[key] for key in (*_WINDOW, *_DEPTHWISE)},
        )  # fmt: skip
        one_by_one = _LAYERS.Conv1D if len(config["kernel_size"]) == 1 else _LAYERS.Conv2D
        last = one_by_one(
            kernel_size=1, kernel_initializer=config["pointwise_initializer"],
            kernel_regularizer=config["pointwise_regularizer"], **{key: config[key] for key in _LAST},
            **shared(self.layer, self.layer.name),
        )  # fmt: skip
        return [first, last]

    def fill(self, parts: Sequence[Any], factors: Sequence[np.ndarray]) -> None:
        first, last = parts
        first.depthwise_kernel.assign(flavor.read(self.layer.depthwise_kernel))
        carry(self.layer.depthwise_kernel, first.depthwise_kernel)
        put(first.pointwise_kernel, factors[0])
        put(last.kernel, factors[1])
        if self.layer.use_bias:
            last.bias.assign(flavor.read(self.layer.bias))

    def rows(self, values: np.ndarray) -> np.ndarray | None:
        if self.layer.data_format != "channels_last":
            return None
        layer, kernel = self.layer, tf.cast(flavor.read(self.layer.depthwise_kernel), "float32")
        values, padding = padded(layer, values.astype("float32"))
        strides, dilation = layer.strides, layer.dilation_rate
        if len(layer.kernel_size) == 1:
            values, kernel, strides, dilation = values[:, None], kernel[None], strides * 2, (1, *dilation)
        found = tf.nn.depthwise_conv2d(values, kernel, (1, *strides, 1), padding, dilations=dilation)
        return np.asarray(found).reshape(-1, found.shape[-1])
