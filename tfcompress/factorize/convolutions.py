"""Conv1D and Conv2D: the convolutions that stand for one, with its strides, dilation and padding where they belong."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core.flavor import keras
from tfcompress.factorize.target import Target, product, shared, summed, without

_LAYERS = keras.layers
_CONV = {1: _LAYERS.Conv1D, 2: _LAYERS.Conv2D}
_DEPTHWISE = {1: _LAYERS.DepthwiseConv1D, 2: _LAYERS.DepthwiseConv2D}
_LAST = ("filters", "use_bias", "activation", "bias_initializer", "bias_regularizer", "bias_constraint",
         "activity_regularizer")  # fmt: skip
_COMMON = ("name", "trainable", "dtype", "data_format")
_EACH_ALONE = ("cp", "depthwise")


def convolutions(config: dict[str, Any], method: str, ranks: Sequence[int]) -> list[Any]:
    """The layers that stand for a convolution.

    Args:
        config: of the layer, as its `get_config` returns it; the last part has its name, bias and activation, the
            others are named by what they do ("conv.reduce").
        method: as of `decompose`; "spatial" takes two axes.
        ranks: as of `decompose`.

    Returns:
        Unbuilt layers, called one after the other. All but the last are linear and have no bias, so that padding by
        zeros between them is padding by zeros before them.
    """
    return _Parts(config).of(method, ranks)


class _Parts:
    """Makes the parts of one convolution."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config
        self._size = tuple(config["kernel_size"])
        self._axes = len(self._size)
        self._window = {key: config[key] for key in ("kernel_size", "strides", "padding", "dilation_rate")}

    def of(self, method: str, ranks: Sequence[int]) -> list[Any]:
        rank, last = ranks[0], ranks[-1]
        if method == "svd":
            return [self._conv("core", rank, **self._window), self._conv(None)]
        if method == "channel":
            return [self._conv("reduce", rank), self._conv(None, **self._window)]
        if method == "tucker2":
            return [self._conv("reduce", rank), self._conv("core", last, **self._window), self._conv(None)]
        if method == "spatial":
            return [self._conv("vertical", rank, **self._along(0)), self._conv(None, **self._along(1))]
        alone = self._each_alone(1 if method == "cp" else rank)
        return [*([self._conv("reduce", rank)] if method == "cp" else []), *alone, self._conv(None)]

    def _along(self, axis: int) -> dict[str, Any]:
        """The window's part along one axis."""
        only = {key: tuple(value if n == axis else 1 for n, value in enumerate(self._window[key]))
                for key in ("kernel_size", "strides", "dilation_rate")}  # fmt: skip
        return {**only, "padding": self._window["padding"]}

    def _named(self, role: str | None) -> dict[str, Any]:
        name = self._config["name"] if role is None else f"{self._config['name']}.{role}"
        return {**{key: self._config[key] for key in _COMMON if key in self._config}, "name": name}

    def _conv(self, role: str | None, filters: int | None = None, **window: Any) -> Any:
        """A part; the last one without a role, with all that comes after the kernel."""
        own = {key: self._config[key] for key in _LAST if key in self._config} if role is None else {}
        learned = {key: self._config.get(key) for key in ("kernel_initializer", "kernel_regularizer")}
        given = {"kernel_size": 1, **window, **{key: value for key, value in learned.items() if value is not None}}
        if role is not None:
            own = {"filters": filters, "use_bias": False}
        return _CONV[self._axes](**given, **own, **self._named(role))

    def _each_alone(self, multiplier: int) -> list[Any]:
        """The window for each channel alone; a causal one has its zeros put before it, since Keras knows none."""
        window, before = dict(self._window), []
        if window["padding"] == "causal":
            ahead = window["dilation_rate"][0] * (self._size[0] - 1)
            before = [_LAYERS.ZeroPadding1D((ahead, 0), **without(self._named("padding"), "trainable", "data_format"))]
            window["padding"] = "valid"
        learned = {"depthwise_initializer": self._config.get("kernel_initializer"),
                   "depthwise_regularizer": self._config.get("kernel_regularizer")}  # fmt: skip
        learned = {key: value for key, value in learned.items() if value is not None}
        return [*before, _DEPTHWISE[self._axes](depth_multiplier=multiplier, use_bias=False, **window, **learned,
                                                **self._named("depthwise"))]  # fmt: skip


def places(layer: Any, tensor: Any) -> tuple[int | None, ...]:
    """Sizes of the axes of a tensor along which a convolution's window moves."""
    return tuple(tensor.shape)[1:-1] if layer.data_format == "channels_last" else tuple(tensor.shape)[2:]


def padded(layer: Any, values: np.ndarray) -> tuple[np.ndarray, str]:
    """A convolution's input, a causal padding's zeros before it, and the padding that is left, as TensorFlow has it."""
    if layer.padding != "causal":
        return values, layer.padding.upper()
    ahead = layer.dilation_rate[0] * (layer.kernel_size[0] - 1)
    return np.pad(values, ((0, 0), (ahead, 0), (0, 0))), "VALID"


class ConvTarget(Target):
    """A convolution without groups."""

    @property
    def methods(self) -> tuple[str, ...]:
        # The zeros of a causal padding go before the window by a layer that knows channels last alone.
        unpadded = self.layer.padding == "causal" and not self._last
        return tuple(method for method in super().methods if not (unpadded and method in _EACH_ALONE))

    def problem(self) -> str | None:
        groups = getattr(self.layer, "groups", 1)
        return f"it has {groups} groups" if groups > 1 else None

    @property
    def _last(self) -> bool:
        return self.layer.data_format == "channels_last"

    def positions(self, method: str) -> tuple[int, list[int]] | None:
        counts = []
        for call in self.calls:
            given, made = places(self.layer, call.inputs[0]), places(self.layer, call.outputs[0])
            before, after = product(given), product(made)
            halfway = product((made[0], *given[1:]))
            each = {"channel": [before, after], "tucker2": [before, after, after], "cp": [before, after, after],
                    "spatial": [halfway, after]}  # fmt: skip
            counts.append((after, each.get(method, [after, after])))
        return summed(counts)

    def parts(self, method: str, ranks: Sequence[int]) -> list[Any]:
        config = {**self.layer.get_config(), **shared(self.layer, self.layer.name)}
        return convolutions(config, method, ranks)

    def rows(self, values: np.ndarray) -> np.ndarray | None:
        if not self._last:
            return None
        layer = self.layer
        size, strides, dilation = layer.kernel_size, layer.strides, layer.dilation_rate
        values, padding = padded(layer, values)
        if len(size) == 1:
            values = values[:, :, None]
            size, strides, dilation = (*size, 1), (*strides, 1), (*dilation, 1)
        found = tf.image.extract_patches(
            tf.constant(values, "float32"), (1, *size, 1), (1, *strides, 1), (1, *dilation, 1), padding
        )
        return np.asarray(found).reshape(-1, found.shape[-1])
