"""How the range of an activation is found while training: moving averages, percentiles, a learned step."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core import flavor

MASK = 1e4  # a constant of this magnitude is a mask's
_PRIME = 2_147_483_647


class _Saved:
    """Saving and loading of data classes."""

    def get_config(self) -> dict[str, Any]:
        return asdict(self)  # type: ignore[call-overload]

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        return cls(**config)


def check_momentum(momentum: float) -> None:
    """Refuse a momentum outside [0, 1)."""
    if not 0 <= momentum < 1:
        raise ValueError(f"`momentum` must lie in [0, 1). Received: momentum={momentum!r}")


@flavor.register
@dataclass(frozen=True)
class MovingAverage(_Saved):
    """Exponential moving average of each batch's smallest and largest value.

        low <- momentum * low + (1 - momentum) * min(x),   high likewise; the first batch is taken as it is

    Attributes:
        momentum: in [0, 1).
        rows: at most so many samples of a batch are looked at, the first ones; each costs a pass over memory.
            None: all.

    Source: Jacob et al. 2018, arXiv:1712.05877, section 3.1.
    """

    momentum: float = 0.99
    rows: int | None = 16

    def __post_init__(self) -> None:
        check_momentum(self.momentum)
        if self.rows is not None and (not isinstance(self.rows, int) or self.rows < 1):
            raise ValueError(f"`rows` must be a positive whole number or None. Received: rows={self.rows!r}")

    def ends(self, values: tf.Tensor, nonnegative: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """Smallest and largest of a batch; where nothing is negative the smallest is not looked for."""
        if len(values.shape):
            values = values[: self.rows]
        low = tf.zeros((), values.dtype) if nonnegative else tf.reduce_min(values)
        return low, tf.reduce_max(values)


@flavor.register
@dataclass(frozen=True)
class Percentile(_Saved):
    """Moving average of each batch's (100 - percentile)-th and percentile-th percentile: outliers are clipped.

    Attributes:
        percentile: in (50, 100]; 100 is the largest value.
        momentum: in [0, 1).
        sample: at most this many values of a batch are sorted, spread over it.

    Source: Wu et al. 2020, arXiv:2004.09602, section 5.1.
    """

    percentile: float = 99.9
    momentum: float = 0.99
    sample: int = 16384

    def __post_init__(self) -> None:
        check_momentum(self.momentum)
        if not 50 < self.percentile <= 100:
            raise ValueError(f"`percentile` must lie in (50, 100]. Received: percentile={self.percentile!r}")
        if self.sample < 2:
            raise ValueError(f"`sample` must be at least 2. Received: sample={self.sample!r}")

    def ends(self, values: tf.Tensor, nonnegative: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """The two percentiles of a batch, the nearest value that occurs."""
        flat = tf.reshape(values, [-1])
        count = tf.minimum(tf.size(flat), self.sample)
        # Multiples of a prime visit all positions and channels evenly, which an even stride would not.
        places = tf.range(count, dtype=tf.int64) * _PRIME % tf.size(flat, out_type=tf.int64)
        ordered = tf.sort(tf.gather(flat, places))
        last = tf.cast(tf.size(ordered) - 1, tf.float32)
        upper = tf.gather(ordered, tf.cast(tf.round(last * self.percentile / 100.0), tf.int32))
        lower = tf.gather(ordered, tf.cast(tf.round(last * (1.0 - self.percentile / 100.0)), tf.int32))
        return (tf.zeros_like(lower) if nonnegative else lower), upper


@flavor.register
@dataclass(frozen=True)
class LearnedStep(_Saved):
    """The step of the grid is a trained variable (LSQ); the first batch decides where it starts.

        s0 = min(2 mean|x| / sqrt(Q), max|x| / Q),   Q: the grid's last code

    The first term is the paper's; at 8 bits it is several times wider than any value, which the second prevents.

    Source: Esser et al. 2020, arXiv:1902.08153, section 2.1.
    """

    rows: int | None = 16

    def statistics(self, values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Smallest value, largest value and mean magnitude of a batch's first rows."""
        values = values[: self.rows] if len(values.shape) else values
        return tf.minimum(tf.reduce_min(values), 0.0), tf.reduce_max(values), tf.reduce_mean(tf.abs(values))


@flavor.register
@dataclass(frozen=True)
class MaskedScores(_Saved):
    """Range of the values that no mask hides: what is masked, by a large negative constant, has no part in it.

    Before a softmax over N positions it ends where N values together have less than one 8-bit step of probability,

        low = min over rows of (log of the sum of exp(real scores)) - ln(256 N)

    so that masked positions, and real ones as small, vanish there. Before a maximum it is the smallest real value. The
    highest end follows as in `MovingAverage`; the lowest drops at once where a batch needs it, and rises slowly.

    Attributes:
        axis: of the softmax, one or several; None before a maximum.
        size: magnitude of the mask's constant.
        momentum: in [0, 1).
    """

    axis: int | tuple[int, ...] | None = -1
    size: float = MASK
    momentum: float = 0.99

    def __post_init__(self) -> None:
        check_momentum(self.momentum)
        if not isinstance(self.axis, int | None):  # a list when it was saved
            object.__setattr__(self, "axis", tuple(self.axis))

    def is_real(self, values: tf.Tensor) -> tf.Tensor:
        """Whether the mask leaves a value. Half of its size is the border: a score may be added to the constant."""
        return values > -self.size / 2

    def ends(self, values: tf.Tensor, nonnegative: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """Where a batch's range ends; not finite when everything in it is masked."""
        infinity = tf.constant(np.inf, values.dtype)
        real = tf.where(self.is_real(values), values, -infinity)
        if self.axis is None:
            return tf.reduce_min(tf.where(self.is_real(values), values, infinity)), tf.reduce_max(real)
        total = tf.reduce_logsumexp(real, axis=self.axis)
        count = tf.size(values) // tf.maximum(tf.size(total), 1)
        low = tf.reduce_min(tf.where(tf.math.is_finite(total), total, infinity))
        return low - tf.math.log(256.0 * tf.cast(count, values.dtype)), tf.reduce_max(real)


Ranges = MovingAverage | Percentile | LearnedStep | MaskedScores
NAMED: dict[str, Ranges] = {"ema": MovingAverage(), "percentile": Percentile(), "lsq": LearnedStep()}


def resolve(ranges: str | Ranges) -> Ranges:
    """The object that a name stands for.

    Raises:
        ValueError: an unknown name or type.
    """
    if isinstance(ranges, Ranges):
        return ranges
    if ranges not in NAMED:
        raise ValueError(
            f"`ranges` must be one of {sorted(NAMED)} or a MovingAverage, Percentile or LearnedStep. "
            f"Received: {ranges!r}"
        )
    return NAMED[ranges]
