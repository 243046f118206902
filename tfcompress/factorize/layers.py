"""Low-rank layers to build networks from: Dense and Conv2D that are trained as products from the start."""

from collections.abc import Sequence
from typing import Any

from tfcompress.core import flavor
from tfcompress.core.flavor import keras
from tfcompress.core.scalars import is_whole
from tfcompress.factorize.convolutions import convolutions
from tfcompress.factorize.decompose import METHODS

_LAYERS = keras.layers


@flavor.register
class FactorizedDense(keras.layers.Layer):
    """A Dense layer whose kernel is a product:  y = activation(x A B + b),  A [inputs, rank], B [rank, units].

    Input [..., inputs], output [..., units]. Two Dense layers, `reduce` and `expand`, which every technique sees.

    Args:
        units: numbers of the output, at least 1.
        rank: of the kernel, at least 1.
        activation, use_bias, kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer,
            activity_regularizer, bias_constraint: as of `keras.layers.Dense`; those of the kernel are of both factors.

    Raises:
        ValueError: `rank` is no whole number of at least 1.

    >>> layer = FactorizedDense(100, rank=4)
    >>> layer.build((None, 50))
    >>> layer.count_params()  # 50 * 4 + 4 * 100 + 100
    700
    """

    def __init__(
        self, units: int, rank: int, activation: Any = None, use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform", bias_initializer: Any = "zeros", kernel_regularizer: Any = None,
        bias_regularizer: Any = None, activity_regularizer: Any = None, bias_constraint: Any = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(**kwargs)
        _check_rank(rank)
        self.units, self.rank = units, int(rank)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.supports_masking = True
        shared = {"kernel_regularizer": kernel_regularizer, "dtype": flavor.dtype_policy(self),
                  "trainable": self.trainable}  # fmt: skip
        self.reduce = _LAYERS.Dense(
            self.rank, use_bias=False, kernel_initializer=_reseeded(kernel_initializer, 0), name="reduce", **shared
        )
        self.expand = _LAYERS.Dense(
            units, activation=activation, use_bias=use_bias, bias_initializer=bias_initializer,
            bias_regularizer=bias_regularizer, activity_regularizer=activity_regularizer,
            bias_constraint=bias_constraint, kernel_initializer=_reseeded(kernel_initializer, 1), name="expand",
            **shared,
        )  # fmt: skip

    def build(self, input_shape: Any) -> None:
        if self.built:  # type: ignore[has-type]
            return
        self.reduce.build(input_shape)
        self.expand.build((*tuple(input_shape)[:-1], self.rank))
        self.built = True

    def call(self, inputs: Any) -> Any:
        return self.expand(self.reduce(inputs))

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        return (*tuple(input_shape)[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        config = self.expand.get_config()
        own = {key: config.get(key) for key in _DENSE}
        own["kernel_initializer"] = keras.initializers.serialize(self.kernel_initializer)
        return {**super().get_config(), "units": self.units, "rank": self.rank, **own}


_DENSE = ("activation", "use_bias", "kernel_initializer", "bias_initializer", "kernel_regularizer", "bias_regularizer",
          "activity_regularizer", "bias_constraint")  # fmt: skip


@flavor.register
class FactorizedConv2D(keras.layers.Layer):
    """A Conv2D layer whose kernel is a product of those of two or three convolutions, `parts`.

    Input [batch, height, width, inputs], output as of `keras.layers.Conv2D`.

    Args:
        filters: channels of the output, at least 1.
        kernel_size: of the window, one number or two.
        rank: at least 1; of "tucker2" one number for both ranks or two; of "depthwise" how many times each channel.
        method: "tucker2", "svd", "channel", "spatial", "cp" or "depthwise", as of `tfcompress.factorize_model`.
        strides, padding, data_format, dilation_rate, activation, use_bias, kernel_initializer, bias_initializer,
            kernel_regularizer, bias_regularizer, activity_regularizer, bias_constraint: as of `keras.layers.Conv2D`;
            those of the kernel are of all parts.

    Raises:
        ValueError: `rank` is out of range; `method` is unknown.

    >>> layer = FactorizedConv2D(32, 3, rank=4, method="spatial")
    >>> layer.build((None, 8, 8, 16))
    >>> layer.count_params()  # 3 * 16 * 4 + 3 * 4 * 32 + 32
    608
    """

    def __init__(
        self, filters: int, kernel_size: int | Sequence[int], rank: int | Sequence[int], method: str = "tucker2",
        strides: int | Sequence[int] = 1, padding: str = "valid", data_format: str | None = None,
        dilation_rate: int | Sequence[int] = 1, activation: Any = None, use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform", bias_initializer: Any = "zeros", kernel_regularizer: Any = None,
        bias_regularizer: Any = None, activity_regularizer: Any = None, bias_constraint: Any = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(**kwargs)
        if method not in METHODS:
            raise ValueError(f"`method` must be one of {', '.join(METHODS)}. Received: method={method!r}")
        _check_rank(rank, pair=method == "tucker2")
        ranks = tuple(map(int, rank)) if isinstance(rank, Sequence) else (int(rank),)
        self.rank, self.method = ranks if isinstance(rank, Sequence) else ranks[0], method
        ranks = ranks * 2 if len(ranks) == 1 and method == "tucker2" else ranks
        # Keras' own layer checks the arguments and holds them; it is never built.
        plain = _LAYERS.Conv2D(
            filters, kernel_size, strides=strides, padding=padding, data_format=data_format,
            dilation_rate=dilation_rate, activation=activation, use_bias=use_bias,
            kernel_initializer=kernel_initializer, bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer, bias_regularizer=bias_regularizer,
            activity_regularizer=activity_regularizer, bias_constraint=bias_constraint,
        )  # fmt: skip
        config = plain.get_config()
        self._given = {key: config.get(key) for key in _CONV}
        self.parts = convolutions(
            {**config, "name": "conv", "trainable": self.trainable, "dtype": flavor.dtype_policy(self)}, method, ranks
        )
        for place, part in enumerate(self.parts):
            for key in ("kernel_initializer", "depthwise_initializer"):
                if hasattr(part, key):
                    setattr(part, key, _reseeded(getattr(part, key), place))

    def build(self, input_shape: Any) -> None:
        if self.built:  # type: ignore[has-type]
            return
        shape = tuple(input_shape)
        for part in self.parts:
            part.build(shape)
            shape = tuple(part.compute_output_shape(shape))
        self.built = True

    def call(self, inputs: Any) -> Any:
        for part in self.parts:
            inputs = part(inputs)
        return inputs

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        shape = tuple(input_shape)
        for part in self.parts:
            shape = tuple(part.compute_output_shape(shape))
        return shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self._given, "rank": self.rank, "method": self.method}


_CONV = ("filters", "kernel_size", "strides", "padding", "data_format", "dilation_rate", *_DENSE)


def _reseeded(initializer: Any, place: int) -> Any:
    """A copy of an initializer for one of several layers: the same seed would give all of them the same numbers."""
    found = keras.initializers.get(initializer)
    if not isinstance(found, keras.initializers.Initializer):
        return found
    config = found.get_config()
    if isinstance(config.get("seed"), int):
        config["seed"] += place
    return type(found).from_config(config)


def _check_rank(rank: Any, pair: bool = False) -> None:
    ranks = rank if pair and isinstance(rank, (list, tuple)) and len(rank) == 2 else [rank]
    if not all(map(is_whole, ranks)):
        raise ValueError(f"`rank` must be a whole number of at least 1{' or two of them' if pair else ''}. "
                         f"Received: rank={rank!r}")  # fmt: skip
