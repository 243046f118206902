"""Scores that look at data: gradients, or what layers read and return."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core.einsum import Equation
from tfcompress.core.flavor import keras
from tfcompress.prune.activations import ActivationSums, Measure
from tfcompress.prune.batches import repeatable
from tfcompress.prune.gradients import GradientSums
from tfcompress.prune.scores import Score
from tfcompress.prune.targets import DEPTHWISE, TRANSPOSED, Target

_LAYERS = keras.layers
_CONVOLUTIONS = (_LAYERS.Conv1D, _LAYERS.Conv2D, _LAYERS.Conv3D)


class BatchScore(Score):
    """A score from sums over batches, of `data` at each decision or of `fit` since the last one.

    Args:
        data: see the subclasses; None: the batches of `fit`.
        batches: so many, >= 1.
        batch_size: rows of a batch, where `data` are arrays.

    Raises:
        ValueError: `batches` or `batch_size` is no whole number from 1 on.
    """

    _sums: Any = None

    def __init__(self, data: Any, batches: int, batch_size: int) -> None:
        check_counts(batches, batch_size)
        self.data, self.batches, self.batch_size = repeatable(data, batches), batches, batch_size

    def detach(self) -> bool:
        if self._sums is None or self.data is not None:
            return False
        self._sums.unwatch()
        return True

    def is_ready(self) -> bool:
        return self.data is not None or (self._sums is not None and self._sums.count >= self.batches)


class GradientScore(BatchScore):
    """A score from sums over batches of something computed from gradients. Subclasses define `summand`.

    Args:
        data: (x, y) of arrays, a `tf.data.Dataset`, or batches (x, y): at each decision gradients are computed on them
            in inference mode. None: the gradients of `fit`'s own batches since the last decision count, at no cost but
            that of the sums.
        batches: at most so many of `data`; a decision waits until `fit` has shown so many, >= 1.
        batch_size: rows of a batch, where `data` are arrays.
        loss: (labels, predictions) -> loss, for `data`; None: the loss that the model is compiled with.

    Raises:
        ValueError: `batches` or `batch_size` is no whole number from 1 on.
    """

    remembers = False
    """Whether sums go on over decisions."""

    def __init__(self, data: Any = None, *, batches: int = 8, batch_size: int = 64, loss: Any = None) -> None:
        super().__init__(data, batches, batch_size)
        self.loss = loss
        self._sums: GradientSums | None = None

    @abstractmethod
    def summand(self, gradient: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
        """What is summed over batches; all of the kernel's shape."""

    def from_sum(self, total: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """The score from the sum and the weights as they are now."""
        return total

    def attach(self, model: Any, targets: Sequence[Target]) -> bool:
        self.detach()  # of a fit that did not come to its end
        if self._sums is None or not (self.remembers and self._sums.model is model):
            self._sums = GradientSums(model, targets, self.summand, self.data is None)
        if self.data is None:
            self._sums.watch()
        return self.data is None

    def scores(self, targets: Sequence[Target]) -> list[np.ndarray]:
        sums = attached(self._sums, self)
        if self.data is not None:
            sums.fill(self.data, self.batch_size, self.batches, self.loss)
        totals = sums.totals(reset=not self.remembers)
        return [self.from_sum(total, target.value()) for total, target in zip(totals, targets, strict=True)]


class Gradient(GradientScore):
    """sum over batches of |g|: weights go whose loss does not care, be they large or small.

    Args: see `GradientScore`.
    """

    def summand(self, gradient: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
        return tf.abs(gradient)


class Taylor(GradientScore):
    """sum over batches of (g * w)²: the squared change of the loss to first order when a weight becomes zero.

    Args: see `GradientScore`.

    Source: Molchanov et al. 2019, arXiv:1906.10771, eq. 8.
    """

    def summand(self, gradient: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
        return tf.square(gradient * weight)


class Movement(GradientScore):
    """- sum over batches of g * w: weights go that training moves towards zero, however large they still are.

    The sum goes on from the first step to the last. It is not in the model's file: training that goes on from a
    checkpoint begins a new one.

    Args: see `GradientScore`.

    Source: Sanh et al. 2020, arXiv:2005.07683, eq. 3.
    """

    remembers = True

    def summand(self, gradient: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
        return -gradient * weight


class ActivationScore(BatchScore):
    """A score from sums over batches of something computed from what a layer reads and returns.

    Args:
        data: (x, y) or x of arrays, a `tf.data.Dataset`, or batches: at each decision the model runs on them. None:
            the first batches of `fit` after the last decision count.
        batches: so many, >= 1.
        batch_size: rows of a batch, where `data` are arrays.

    Raises:
        ValueError: `batches` or `batch_size` is no whole number from 1 on.
    """

    def __init__(self, data: Any = None, *, batches: int = 8, batch_size: int = 64) -> None:
        super().__init__(data, batches, batch_size)
        self._sums: ActivationSums | None = None

    @abstractmethod
    def measure(self, target: Target) -> tuple[Measure, tuple[int, ...]]:
        """What is summed for a kernel, and its shape.

        Raises:
            ValueError: a layer of which nothing is known.
        """

    def attach(self, model: Any, targets: Sequence[Target]) -> bool:
        self.detach()  # of a fit that did not come to its end
        measures = [self.measure(target) for target in targets]
        functions, shapes = [m for m, _ in measures], [s for _, s in measures]
        self._sums = ActivationSums(model, targets, functions, shapes, self.batches, self.data is None)
        if self.data is None:
            self._sums.watch()
        return self.data is None

    @abstractmethod
    def from_sum(self, total: np.ndarray, target: Target) -> np.ndarray:
        """The score, in the kernel's shape."""

    def scores(self, targets: Sequence[Target]) -> list[np.ndarray]:
        sums = attached(self._sums, self)
        if self.data is not None:
            sums.fill(self.data, self.batch_size)
        found = [self.from_sum(sums.total(place), target) for place, target in enumerate(targets)]
        sums.reset()
        return found


class Apoz(ActivationScore):
    """Share of a channel's outputs that are above zero (1 - APoZ): channels that a ReLU mostly stops go.

    It is the same for all weights of an output channel, so it is made for `pattern="channels"`. Looked at is what the
    layer itself returns, before a BatchNormalization behind it.

    Args: see `ActivationScore`.

    Source: Hu et al. 2016, arXiv:1607.03250, eq. 1.
    """

    def measure(self, target: Target) -> tuple[Measure, tuple[int, ...]]:
        channels = target.shape[target.axis]
        layer = target.layer
        known = (_LAYERS.Dense, *_CONVOLUTIONS, *TRANSPOSED, *DEPTHWISE)
        if isinstance(layer, _LAYERS.EinsumDense) or not isinstance(layer, known):
            raise unknown("apoz", target)

        def measure(given: tf.Tensor, made: tf.Tensor) -> tf.Tensor:
            share = tf.reduce_mean(tf.cast(by_channel(made, layer) > 0, tf.float32), 0)
            return tf.reduce_mean(tf.reshape(share, [channels, -1]), 1)  # a depthwise layer makes several of each

        return measure, (channels,)

    def from_sum(self, total: np.ndarray, target: Target) -> np.ndarray:
        return _along(total, target.axis, target.shape)


class Wanda(ActivationScore):
    """|w| * ||x||: a weight's size times the norm of the input that it meets.

    The norm is that of an input channel over all batches and positions.

    Args: see `ActivationScore`.

    Source: Sun et al. 2023, arXiv:2306.11695, eq. 1.
    """

    def measure(self, target: Target) -> tuple[Measure, tuple[int, ...]]:
        layer = target.layer
        if isinstance(layer, _LAYERS.EinsumDense):
            equation = Equation.of(layer.equation)
            both = [c for c in equation.kernel if c in equation.given]
            shape = tuple(size for size, c in zip(target.shape, equation.kernel, strict=True) if c in both)
            return lambda given, made: _einsum_squares(given, equation.given, both), shape
        axis = _input_axis(target)
        return lambda given, made: tf.reduce_sum(tf.square(by_channel(given, layer)), 0), (target.shape[axis],)

    def from_sum(self, total: np.ndarray, target: Target) -> np.ndarray:
        norms = np.sqrt(total)
        if isinstance(target.layer, _LAYERS.EinsumDense):
            equation = Equation.of(target.layer.equation)
            sizes = [n if c in equation.given else 1 for n, c in zip(target.shape, equation.kernel, strict=True)]
            return np.abs(target.value()) * norms.reshape(sizes)
        return np.abs(target.value()) * _along(norms, _input_axis(target), target.shape)


def by_channel(values: tf.Tensor, layer: Any) -> tf.Tensor:
    """[rows, channels] in float32."""
    values = tf.cast(values, tf.float32)
    if getattr(layer, "data_format", "channels_last") == "channels_first":
        values = tf.transpose(values, [0, *range(2, values.shape.rank), 1])
    return tf.reshape(values, [-1, values.shape[-1]])


def _einsum_squares(given: tf.Tensor, inputs: str, shared: Sequence[str]) -> tf.Tensor:
    """Sums of squares over the indices that the kernel does not have."""
    spare = iter("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    missing = given.shape.rank - len(inputs.replace("...", ""))
    letters = inputs.replace("...", "".join(next(spare) for _ in range(missing)))
    return tf.einsum(f"{letters}->{''.join(shared)}", tf.square(tf.cast(given, tf.float32)))


def _input_axis(target: Target) -> int:
    """The axis of a kernel along which its input channels lie."""
    layer, rank = target.layer, len(target.shape)
    if isinstance(layer, TRANSPOSED):
        return rank - 1
    if isinstance(layer, DEPTHWISE) or isinstance(layer, _LAYERS.Dense):
        return rank - 2
    if isinstance(layer, _CONVOLUTIONS) and getattr(layer, "groups", 1) == 1:
        return rank - 2
    raise unknown("wanda", target)


def _along(values: np.ndarray, axis: int, shape: tuple[int, ...]) -> np.ndarray:
    lined = values.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return np.broadcast_to(lined, shape).astype(np.float32)


def unknown(score: str, target: Target) -> ValueError:
    """The error for a layer that a score cannot look at."""
    return ValueError(
        f"`score` {score!r} looks at inputs and outputs of Dense, EinsumDense and convolutions. Leave other layers out "
        f"by `select`. Received: {target.name!r} of {type(target.layer).__name__}"
    )


def check_counts(batches: int, batch_size: int) -> None:
    """Refuse what are no numbers of batches and rows.

    Raises:
        ValueError: one is no whole number from 1 on.
    """
    for argument, value in (("batches", batches), ("batch_size", batch_size)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"`{argument}` must be a whole number >= 1. Received: {argument}={value!r}")


def attached(sums: Any, score: Score) -> Any:
    """The sums of a score that looks at a model.

    Raises:
        ValueError: it looks at none.
    """
    if sums is None:
        raise ValueError(f"`{type(score).__name__}` looks at no model yet: `attach` it first")
    return sums
