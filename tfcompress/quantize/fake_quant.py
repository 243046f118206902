"""Fake quantization: numbers rounded to a grid in the forward pass, gradients straight through."""

from typing import Any

import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.flavor import keras
from tfcompress.core.grid import BALANCED, Grid, codes_of, magnitude, scale_of
from tfcompress.core.transformed import Transform, Transformed


@tf.custom_gradient
def _straight_through(weight: tf.Tensor, rounded: tf.Tensor) -> Any:
    return tf.identity(rounded), lambda gradient: (gradient, None)


def snap(weight: tf.Tensor, grid: Grid) -> tf.Tensor:
    """The nearest numbers of a symmetric grid whose step the largest magnitude decides.

        forward:   clip(round(w / s), -Q, Q) * s,   s = max|w| / Q
        gradient:  d/dw = 1 (nothing is clipped: the largest magnitude is Q steps)

    Args:
        weight: float32 tensor.
        grid: its bits and axes, resolved.

    Source: Jacob et al. 2018, arXiv:1712.05877, section 3; Bengio et al. 2013, arXiv:1308.3432 (straight-through).

    >>> snap(tf.constant([1.0, 0.3, -0.5]), Grid(bits=2, axis=None)).numpy().tolist()
    [1.0, 0.0, -0.0]
    """
    fixed = tf.stop_gradient(weight)
    scale = scale_of(fixed, grid)
    return _straight_through(weight, codes_of(fixed, scale, grid) * scale)


def learned_step(values: tf.Tensor, step: tf.Tensor, low: int, high: int, gradient_scale: float) -> tf.Tensor:
    """Learned step size quantization (LSQ).

        forward:        clip(round(v), low, high) * s,   v = values / s
        d/d values:     1 where low < v < high, else 0
        d/d s:          g * sum of (round(v) - v) inside, low or high outside;   g = gradient_scale

    Args:
        values: float32 tensor.
        step: s > 0, a shape that broadcasts to that of `values`.
        low, high: the grid's first and last code.
        gradient_scale: g, 1 / sqrt(count * high) in the paper (count: the numbers that share a step).

    Source: Esser et al. 2020, arXiv:1902.08153, eq. 1-3 and section 2.2.

    >>> learned_step(tf.constant([0.9, 0.2, -3.0]), tf.constant(0.5), -2, 1, 1.0).numpy().tolist()
    [0.5, 0.0, -1.0]
    """

    @tf.custom_gradient
    def quantize(values: tf.Tensor, step: tf.Tensor) -> Any:
        scaled = values / step
        rounded = tf.round(tf.clip_by_value(scaled, low, high))

        def gradients(upstream: tf.Tensor) -> Any:
            inside = tf.logical_and(scaled > low, scaled < high)
            to_step = tf.where(inside, rounded - scaled, rounded) * upstream * gradient_scale
            shared = [a for a in range(len(values.shape)) if not len(step.shape) or step.shape[a] == 1]
            reduced = tf.reduce_sum(to_step, axis=shared, keepdims=bool(len(step.shape)))
            return tf.where(inside, upstream, tf.zeros_like(upstream)), tf.reshape(reduced, tf.shape(step))

        return rounded * step, gradients

    return quantize(values, step)


def balanced(low: tf.Tensor, high: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """A range whose 8-bit zero point is 0, where that makes it at most a quarter wider; else as it is.

        [-m 128/127, m],   m = max(high, -low 127/128)

    >>> [round(float(end), 3) for end in balanced(tf.constant(-1.0), tf.constant(1.27))]
    [-1.28, 1.27]
    >>> [float(end) for end in balanced(tf.constant(0.0), tf.constant(4.0))]
    [0.0, 4.0]
    """
    most = tf.maximum(high, low * (-127 / 128))
    fits = most * (255 / 127) <= BALANCED * (high - low)
    return tf.where(fits, most * (-128 / 127), low), tf.where(fits, most, high)


@flavor.register
class Positive(keras.constraints.Constraint):
    """w <- max(w, 1e-6): a learned step that an update took below zero can grow again."""

    def __call__(self, w: Any) -> tf.Tensor:
        return tf.maximum(tf.convert_to_tensor(w), 1e-6)


@flavor.register
class FakeQuantWeight(Transform):
    """A weight on an integer grid.

    Args:
        grid: its bits and axes, resolved for the layer ("channel" has become axes).

    Raises:
        ValueError: the grid is not resolved.
    """

    def __init__(self, grid: Grid | dict[str, Any]) -> None:
        self.grid = grid if isinstance(grid, Grid) else Grid(**grid)
        if self.grid.axis == "channel":
            raise ValueError(f"`grid` must name axes of the weight. Received: {self.grid}")
        self.step: Any = None

    def build(self, wrapper: Transformed, name: str, variable: Any) -> None:
        if self.grid.step == "max":
            return
        value = flavor.read(variable)
        # LSQ starts from 2 mean|w| / sqrt(Q); the largest magnitude is shaped like the step.
        largest = magnitude(value, self.grid)
        self.step = wrapper.add_weight(
            name=f"{name}_step", shape=largest.shape, initializer=keras.initializers.Constant(1.0), dtype="float32",
            constraint=Positive(),
        )  # fmt: skip
        kept = self.grid.kept(len(value.shape))
        mean = tf.reduce_mean(tf.abs(value), axis=[a for a in range(len(value.shape)) if a not in kept], keepdims=True)
        start = 2.0 * mean / self.grid.top**0.5
        self.step.assign(tf.where(start > 0, start, tf.ones_like(start)))

    def _learned(self) -> tf.Tensor:
        return tf.maximum(flavor.read(self.step), 1e-9)

    def __call__(self, value: tf.Tensor) -> tf.Tensor:
        if self.step is None:
            return snap(value, self.grid)
        step = self._learned()
        count = value.shape.num_elements() / step.shape.num_elements()
        return learned_step(value, step, -self.grid.top, self.grid.top, 1.0 / (count * self.grid.top) ** 0.5)

    def integers(self, value: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, int]:
        scale = scale_of(value, self.grid) if self.step is None else self._learned()
        return codes_of(value, scale, self.grid), scale, self.grid.bits

    def describe(self) -> str:
        where = "per tensor" if self.grid.axis is None else "per gate" if self.grid.groups else "per channel"
        return f"int{self.grid.bits} {where}" + (", learned step" if self.grid.step == "learned" else "")

    def get_config(self) -> dict[str, Any]:
        return {"grid": self.grid.get_config()}


def round_activation(values: tf.Tensor, low: tf.Tensor, high: tf.Tensor, bits: int, relu: bool = False) -> tf.Tensor:
    """Values on the grid of a range that follows them, gradients straight through.

        forward:   (clip(round(x / s) + z, first, last) - z) * s
        gradient:  dy/dx = 1; with `relu` 1 where x > 0, else 0

    What lies outside such a range is at most the newest batch's extremes, so clipping is no part of the gradient: the
    exact one would cost three more passes over the tensor.

    Args:
        values: float32 tensor.
        low, high: the range's ends, low <= 0 <= high; they have no gradient.
        bits: 8 or 16.
        relu: the range begins at 0 and so computes a ReLU, whose gradient this then is.

    Source: Bengio et al. 2013, arXiv:1308.3432 (straight-through).

    >>> round_activation(tf.constant([-1.0, 0.3, 300.0]), 0.0, 255.0, 8, relu=True).numpy().tolist()
    [0.0, 0.0, 255.0]
    """

    @tf.custom_gradient
    def quantize(values: tf.Tensor) -> Any:
        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            return tf.raw_ops.ReluGrad(gradients=upstream, features=values) if relu else upstream

        return tf.quantization.fake_quant_with_min_max_vars(values, low, high, num_bits=bits), gradient

    return quantize(values)


def nudged(low: tf.Tensor, high: tf.Tensor, bits: int, symmetric: bool) -> tuple[tf.Tensor, tf.Tensor]:
    """The ends of the activation grid nearest to a range: zero is inside and exactly on the grid.

    Asymmetric: s = (high - low) / (2**bits - 1), both ends moved by the rounding of -low / s.
    Symmetric: s = max(-low, high) / (2**(bits-1) - 1), ends -2**(bits-1) * s and (2**(bits-1) - 1) * s.

    >>> [float(v) for v in nudged(tf.constant(-1.0), tf.constant(1.0), 8, True)]
    [-1.0078740119934082, 1.0]
    """
    low, high = tf.minimum(low, 0.0), tf.maximum(high, 0.0)
    if symmetric:
        half = 2.0 ** (bits - 1)
        step = tf.maximum(tf.maximum(-low, high), 1e-9) / (half - 1)
        return -half * step, (half - 1) * step
    levels = 2.0**bits - 1
    step = tf.maximum(high - low, 1e-9) / levels
    below = tf.round(-low / step)
    return -below * step, (levels - below) * step
