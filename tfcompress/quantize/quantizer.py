"""A tensor boundary of the integer runtime, as a Keras layer."""

from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.arithmetic.codes import Lattice, held, lattice_of
from tfcompress.core.flavor import keras
from tfcompress.quantize.fake_quant import Positive, balanced, learned_step, nudged, round_activation
from tfcompress.quantize.ranges import LearnedStep, MaskedScores, Ranges, resolve

_RELUS = {"relu": tf.nn.relu, "relu6": tf.nn.relu6}


@flavor.register
class Quantizer(keras.layers.Layer):
    """Rounds what passes to the integer grid of a range, and finds that range while the model trains.

        y = (clip(round(x / s) + z, first, last) - z) * s      first, last: the codes of the grid

    In training the range follows `ranges`; in inference it stands. Before anything was seen, inference passes `x`
    through as it is. Gradients are those of `round_activation`, or of `learned_step` for "lsq".

    Args:
        ranges: "ema", "percentile", "lsq", or a `MovingAverage`, `Percentile`, `LearnedStep` or `MaskedScores`.
        bits: 8 (with a zero point) or 16 (symmetric).
        fixed: (low, high) of a range that the runtime prescribes (softmax: 0 to 255/256); `ranges` is then unused.
        activation: "relu" or "relu6", computed before rounding (in training a ReLU by the clipping to a range that
            begins at 0, which costs nothing), or None.
        balanced: whether the zero point is 0 where that costs little: XNNPACK multiplies matrices of activations only
            so.

    Source: Jacob et al. 2018, arXiv:1712.05877, section 3; Esser et al. 2020, arXiv:1902.08153 for "lsq".

    >>> Quantizer(fixed=(0.0, 255 / 256))(tf.constant([0.1234, 2.0])).numpy().tolist()
    [0.125, 0.99609375]
    """

    def __init__(
        self,
        ranges: str | Ranges = "ema",
        *,
        bits: int = 8,
        fixed: tuple[float, float] | None = None,
        activation: str | None = None,
        balanced: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if bits not in (8, 16):
            raise ValueError(f"`bits` must be 8 or 16. Received: bits={bits!r}")
        if activation not in (None, *_RELUS):
            raise ValueError(f"`activation` must be one of {list(_RELUS)} or None. Received: activation={activation!r}")
        if fixed is not None and not (len(fixed) == 2 and fixed[0] <= 0 <= fixed[1] and fixed[0] < fixed[1]):
            raise ValueError(f"`fixed` must be (low, high) around 0. Received: fixed={fixed!r}")
        self.ranges, self.bits, self.activation = resolve(ranges), bits, activation
        self.fixed = None if fixed is None else (float(fixed[0]), float(fixed[1]))
        self.balanced = bool(balanced)
        self.supports_masking = True

    def build(self, input_shape: Any = None) -> None:
        if hasattr(self, "observed") or self.fixed is not None:
            self.built = True
            return
        make = self.add_weight
        shared: dict[str, Any] = {"dtype": "float32", **flavor.mean_over_replicas()}
        if isinstance(self.ranges, LearnedStep):
            self.step = make(name="step", shape=(), initializer="ones", trainable=True, constraint=Positive(), **shared)
        # [low, high, 1 once anything was seen]: one variable, so that a step assigns once.
        self.observed = make(name="range", shape=(3,), initializer="zeros", trainable=False, **shared)
        self.frozen = make(name="frozen", shape=(), initializer="zeros", trainable=False, **shared)
        self.built = True

    @property
    def learned(self) -> bool:
        """Whether the range comes from data, and data were seen."""
        return self.fixed is None and bool(flavor.read(self.observed)[2] > 0)

    def limits(self) -> tuple[float, float] | None:
        """The real values of the grid's first and last code, or None before data were seen."""
        if self.fixed is not None:
            return self.fixed
        if not self.learned:
            return None
        low, high = (float(end) for end in self._ends())
        return low, high

    def set_range(self, low: float, high: float) -> None:
        """Put a range that was measured in place of the learned one; a learned step starts from its wider side."""
        if self.fixed is not None:
            raise ValueError(f"the range of {self.name!r} is fixed at {self.fixed}")
        self.observed.assign([low, high, 1.0])
        if isinstance(self.ranges, LearnedStep):
            below, above = self._codes(low < 0)
            self.step.assign(max(low / below if below else 0.0, high / above, 1e-9))

    def freeze(self, frozen: bool = True) -> None:
        """Stop (or let go on) what training does to the range."""
        if self.fixed is None:
            self.frozen.assign(float(frozen))

    def _codes(self, signed: bool) -> tuple[int, int]:
        """First and last code counted from the zero point."""
        half = 2 ** (self.bits - 1)
        return (-half, half - 1) if signed or self.bits == 16 else (0, 2 * half - 1)

    def _clips_as_relu(self) -> bool:
        """Whether a range that begins at 0 computes the ReLU before it."""
        return self.activation == "relu" and self.fixed is None and self.bits == 8

    def _span(self) -> tuple[tf.Tensor, tf.Tensor]:
        """First and last code of a learned step's grid: signed once a negative value was seen."""
        signed = flavor.read(self.observed)[0] < 0
        (first, last), (zero, most) = self._codes(True), self._codes(False)
        return tf.where(signed, float(first), float(zero)), tf.where(signed, float(last), float(most))

    def _ends(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Low and high of the grid as it stands."""
        if isinstance(self.ranges, LearnedStep):
            step, (first, last) = tf.maximum(flavor.read(self.step), 1e-9), self._span()
            return step * first, step * last
        return nudged(*self._seen(), self.bits, self.bits == 16)

    def _seen(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Low and high of what was seen, widened where the grid is balanced."""
        low, high, _ = tf.unstack(flavor.read(self.observed))
        return balanced(low, high) if self.balanced and self.bits == 8 else (low, high)

    def _range(self) -> tuple[tf.Tensor, tf.Tensor]:
        """What the rounding operation is given: of 8 bits it moves the ends to the nearest exact zero itself."""
        return self._ends() if self.bits == 16 or isinstance(self.ranges, LearnedStep) else self._seen()

    def lattice(self) -> Lattice:
        """The grid as the file holds it: scale in float32, zero point, signed codes."""
        low, high = (tf.cast(end, tf.float64) for end in (self.fixed or self._range()))
        if self.bits == 16:
            steps = high / held(32767.0, tf.float64)  # of a prescribed range: -1 is the code -32768
            steps = tf.maximum(steps, -low / held(32767.0 if self.fixed is None else 32768.0, tf.float64))
            scale = tf.cast(steps, tf.float32)
            return Lattice(held(scale), tf.zeros([], tf.int32), 16)
        high = tf.where(high > low, high, tf.ones_like(high))  # always zero so far: any range holds it
        return lattice_of(low, high)

    def _observe(self, values: tf.Tensor) -> None:
        """Take a training batch into account."""
        values = tf.stop_gradient(values)
        old = flavor.read(self.observed)
        if isinstance(self.ranges, LearnedStep):
            values = _RELUS[self.activation](values) if self.activation else values
            low, high, mean = self.ranges.statistics(values)
            starts = tf.logical_and(old[2] <= 0, tf.reduce_all(tf.math.is_finite(tf.stack([low, high, mean]))))
            self.observed.assign(tf.where(starts, tf.stack([low, high, 1.0]), old))
            last = self._span()[1]
            start = tf.minimum(2.0 * mean / tf.sqrt(last), tf.maximum(-low, high) / last)
            self.step.assign(tf.where(starts, tf.maximum(start, 1e-9), flavor.read(self.step)))
            return
        low, high = self.ranges.ends(values, nonnegative=self.activation is not None)
        high = tf.minimum(high, 6.0) if self.activation == "relu6" else high
        momentum = tf.maximum(flavor.read(self.frozen), self.ranges.momentum) * old[2]
        new = tf.stack([tf.minimum(low, 0.0), tf.maximum(high, 0.0), 1.0])
        after = momentum * old + (1.0 - momentum) * new
        if isinstance(self.ranges, MaskedScores):  # no batch may see more of what is masked than a step
            after = tf.where(momentum < 1.0, tf.minimum(after, [new[0], np.inf, np.inf]), old)
        self.observed.assign(tf.where(tf.math.is_finite(low + high), after, old))

    def _round(self, values: tf.Tensor, clips: bool) -> tf.Tensor:
        """What training computes; `clips`: the range stands for the ReLU before it."""
        if self.fixed is not None:
            low, high = self.fixed
            return round_activation(values, low, high, self.bits)
        if isinstance(self.ranges, LearnedStep):
            return self._learned_step(values)
        low, high = self._range()
        if isinstance(self.ranges, MaskedScores):  # what is masked has no gradient
            values = tf.maximum(values, low)
        return round_activation(values, low, high, self.bits, relu=clips)

    def _learned_step(self, values: tf.Tensor) -> tf.Tensor:
        step = tf.maximum(flavor.read(self.step), 1e-9)
        step = tf.where(flavor.read(self.frozen) > 0, tf.stop_gradient(step), step)
        first, last = self._span()
        features = tf.cast(tf.size(values) // tf.maximum(tf.shape(values)[0], 1), tf.float32)
        return learned_step(values, step, first, last, 1.0 / tf.sqrt(features * last))

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        values = tf.cast(inputs, tf.float32)
        clips = bool(training) and self._clips_as_relu()
        if self.activation and not clips:
            values = _RELUS[self.activation](values)
        if self.fixed is not None:
            rounded = self._round(values, clips)
        elif training:
            self._observe(values)
            rounded = self._round(values, clips)
        else:
            low, high = self._range()
            rounded = tf.cond(
                flavor.read(self.observed)[2] > 0,
                lambda: tf.quantization.fake_quant_with_min_max_vars(values, low, high, num_bits=self.bits),
                lambda: values,
            )
        return tf.cast(rounded, inputs.dtype)

    def for_inference(self) -> Any:
        """The layer with its range as a constant, in float32; nothing was seen: one that passes its input through."""
        if self.fixed is None and not self.learned:
            return keras.layers.Activation(self.activation or "linear", name=self.name, dtype="float32")
        low, high = self.fixed or (float(end) for end in self._range())
        high = high if high > low else 1.0  # always zero so far: any range holds it
        return Quantizer(
            bits=self.bits, fixed=(low, high), activation=self.activation, name=self.name,
            dtype="float32",
        )  # fmt: skip

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def describe_output(self) -> str:
        """What the summary says of the layer before this one."""
        if self.fixed is not None:
            return f"int{self.bits} output, fixed range"
        kind = type(self.ranges).__name__
        words = {"MovingAverage": "moving average", "Percentile": "percentile", "LearnedStep": "learned step",
                 "MaskedScores": "moving average of what is not masked"}[kind]  # fmt: skip
        return f"int{self.bits} output, {words}" + ("" if self.learned else ", nothing seen yet")

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "ranges": flavor.saving.serialize_keras_object(self.ranges),
            "bits": self.bits,
            "fixed": self.fixed,
            "activation": self.activation,
            "balanced": self.balanced,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Quantizer":
        config = dict(config)
        if isinstance(config.get("ranges"), dict):
            config["ranges"] = flavor.saving.deserialize_keras_object(config["ranges"])
        return cls(**config)


def quantizers(model: Any) -> list[Quantizer]:
    """The quantizers of activations in a model, in the order of its layers."""
    return [layer for layer in flavor.sublayers(model, recursive=True) if isinstance(layer, Quantizer)]
