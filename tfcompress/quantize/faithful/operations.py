"""Operations without a kernel of weights, as the runtime computes them: one rule for each.

A rule is given a `Step` and answers with `Codes` (the lattice is that of what it reads), with `Pending` (the lattice is
that of the quantizer behind it), or with None: it does not know this case.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.arithmetic import elementwise, joins, pooling, rectifiers, resize, softmax, tables
from tfcompress.core.arithmetic.codes import Codes, Lattice, half_away, held, lattice_of
from tfcompress.core.flavor import keras
from tfcompress.core.replay import Call
from tfcompress.core.transformed import Transformed
from tfcompress.quantize.faithful.patterns import operands_of
from tfcompress.quantize.faithful.pending import Pending
from tfcompress.quantize.kinds import activation_name

_LAYERS = keras.layers


@dataclass(frozen=True)
class Step:
    """One call of the graph on values.

    Attributes:
        call: of the old graph.
        values: what its tensor arguments are now, in order: `Codes`, `Pending` or tensors.
        kernels: the kernel set.
        real: what the call computes in real numbers.
        apply: makes the call on other tensors in place of `values`.
    """

    call: Call
    values: Sequence[Any]
    kernels: str
    real: Callable[[], tf.Tensor]
    apply: Callable[[Sequence[tf.Tensor]], Any]

    @property
    def codes(self) -> Codes | None:
        """The one activation that the call reads."""
        return self.values[0] if len(self.values) == 1 and isinstance(self.values[0], Codes) else None

    @property
    def bits(self) -> int:
        """Of the activations that the call reads; no kernel takes several kinds."""
        return next(v.lattice.bits if isinstance(v, Codes) else v.bits for v in self.values if _travels(v))

    def option(self, place: int | None, names: Sequence[str], default: Any) -> Any:
        """What a call says besides its tensors: an attribute of a layer, a keyword, or an argument in its place.

        Of an option without a place (None) there is no such argument.
        """
        call = self.call
        for name in names:
            if hasattr(call.operation, name) and not callable(getattr(call.operation, name)):
                return getattr(call.operation, name)
            if name in call.kwargs:
                return call.kwargs[name]
        return default if place is None or len(call.args) <= place else call.args[place]

    def pending(self, run: Callable[..., Codes]) -> Pending:
        """`run(lattice, low, high)` when the lattice is known."""
        return Pending(run, self.real, bits=self.bits)

    def of_two(self, run: Callable[..., Codes], first: Codes, second: Codes) -> Pending:
        """An operation of two operands, `run`, when the lattice is known."""
        return self.pending(lambda out, low, high: run(first, second, out, kernels=self.kernels, low=low, high=high))


def _travels(value: Any) -> bool:
    """Whether a value travels as integers."""
    return isinstance(value, (Codes, Pending))


def name_of(operation: Any) -> str:
    """What a rule is found by: the activation of an activation layer, an operation's name, a layer's class."""
    if isinstance(operation, _LAYERS.Activation):
        return activation_name(operation)
    if isinstance(operation, Transformed):
        operation = operation.layer
    return flavor.operation_name(operation) or type(operation).__name__


def moved(step: Step) -> Any:
    """Numbers that only move, and maxima: the same call on codes whose zero is 0, so that what is padded is zero."""
    x = step.codes
    if x is None or _brings_numbers(step):
        return None
    zero = tf.cast(x.lattice.zero, tf.float32)
    results = step.apply([x.values - zero])
    if any(not t.dtype.is_floating for t in flavor.flatten(results)):
        return None
    return flavor.map_structure(lambda t: Codes(tf.cast(t, tf.float32) + zero, x.lattice), results)


def _brings_numbers(step: Step) -> bool:
    """Whether numbers of the call's own come among those that move: padding, a first maximum."""
    if step.option(None, ("initial",), None) is not None:
        return True
    value = step.option(3 if "pad" in name_of(step.call.operation).lower() else None, ("constant_values",), 0)
    return value is not None and not (np.isscalar(value) and value == 0)


def averaged(step: Step) -> Any:
    """AVERAGE_POOL_2D of a layer; one of one dimension has a single row."""
    layer, x = step.call.operation, step.codes
    if x is None or getattr(layer, "data_format", "") != "channels_last" or isinstance(layer, _LAYERS.AveragePooling3D):
        return None
    if x.lattice.bits == 16:  # the file brings it to a lattice that is measured when it is made
        return None
    flat = isinstance(layer, _LAYERS.AveragePooling1D)
    size, strides = ((1, *_whole(n)) if flat else _whole(n) for n in (layer.pool_size, layer.strides))
    values = x.values[:, None] if flat else x.values
    if None in values.shape[1:3]:
        return None
    found = pooling.average_pool(
        Codes(values, x.lattice), window=size, strides=strides, padding=layer.padding.upper(), kernels=step.kernels
    )
    return Codes(found.values[:, 0], x.lattice) if flat else found


def _whole(numbers: Any) -> tuple[int, ...]:
    return tuple(numbers) if isinstance(numbers, (list, tuple)) else (int(numbers),)


def mean_of_places(step: Step) -> Any:
    """MEAN of a global average pooling."""
    layer, x = step.call.operation, step.codes
    if x is None or layer.data_format != "channels_last" or None in x.values.shape[1:-1]:
        return None
    if x.lattice.bits == 16 and layer.keepdims:  # the file's MEAN keeps the lattice of what it reads
        return None
    axes = list(range(1, x.values.shape.rank - 1))
    return step.pending(
        lambda out, low, high: pooling.mean(x, out, axes=axes, keep=bool(layer.keepdims), kernels=step.kernels),
    )


def mean_of_axes(step: Step) -> Any:
    """MEAN of an operation, not over the rows of a batch."""
    x, axis = step.codes, step.option(1, ("axis",), None)
    if x is None or axis is None:
        return None
    rank = x.values.shape.rank
    axes = [int(a) % rank for a in (axis if isinstance(axis, (list, tuple)) else [axis])]
    keep = bool(step.option(2, ("keepdims",), False))
    if 0 in axes or any(x.values.shape[a] is None for a in axes):
        return None
    return step.pending(lambda out, low, high: pooling.mean(x, out, axes=axes, keep=keep, kernels=step.kernels))


def _pair(step: Step) -> tuple[Codes, Codes] | None:
    """Both operands of a join; a number is a constant of the file, on a lattice of its own."""
    found = [constant(v) if not isinstance(v, (Codes, Pending)) else v for v in _operands(step)]
    if len(found) != 2:
        return None
    first, second = found
    return (first, second) if isinstance(first, Codes) and isinstance(second, Codes) else None


def _operands(step: Step) -> list[Any]:
    """The two operands in order: activations from `values`, numbers from the call itself."""
    given = iter(step.values)
    found: list[Any] = []
    for one in operands_of(step.call):
        for leaf in flavor.flatten(one) if isinstance(one, (list, tuple)) else [one]:
            if flavor.is_symbolic(leaf):
                found.append(next(given))
            elif leaf is not None and not isinstance(leaf, (str, bool)):
                found.append(np.asarray(leaf))
    return found


def constant(value: Any) -> Codes | None:
    """A constant as the converter quantizes it: 8 bits from the least to the largest number, zero among them.

    >>> made = constant(np.array(3.0, "float32"))
    >>> float(made.values), round(float(made.lattice.scale) * 255, 6)
    (127.0, 3.0)
    """
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
        return None
    real = value.astype(np.float64)
    low, high = min(float(real.min()), 0.0), max(float(real.max()), 0.0)
    if low == high:
        return None
    lattice = lattice_of(tf.constant(low, tf.float64), tf.constant(high, tf.float64))
    steps = half_away(tf.constant(real / ((high - low) / 255.0)))  # divided by NumPy
    codes = tf.clip_by_value(steps + tf.cast(lattice.zero, tf.float64), -128.0, 127.0)
    return Codes(tf.cast(codes, tf.float32), lattice)


def slopes_of(value: tf.Tensor) -> Codes:
    """Weights that are no kernel as the converter quantizes them: symmetric, one scale, 8 bits."""
    real = tf.cast(value, tf.float64)
    largest = tf.reduce_max(tf.abs(real))
    step = tf.where(largest > 0, largest, tf.ones_like(largest)) / held(127.0, tf.float64)
    return Codes(
        tf.cast(half_away(real / step), tf.float32), Lattice(tf.cast(step, tf.float32), tf.zeros([], tf.int32))
    )


def _joined(run: Callable[..., Codes]) -> Callable[[Step], Any]:
    def rule(step: Step) -> Any:
        pair = _pair(step)
        if pair is None or pair[0].lattice.bits != pair[1].lattice.bits:
            return None
        return step.of_two(run, *pair)

    return rule


def divided(step: Step) -> Any:
    """A division by a number is a multiplication by its reciprocal in the file."""
    operands = _operands(step)
    if len(operands) != 2 or not isinstance(operands[0], Codes) or not isinstance(operands[1], np.ndarray):
        return None
    factor = constant(np.asarray(np.float32(1.0) / operands[1].astype(np.float32)))
    if factor is None or operands[0].lattice.bits != 8:
        return None
    return step.of_two(elementwise.multiply, operands[0], factor)


def rescaled(step: Step) -> Any:
    """A Rescaling that adds a number, or multiplies by one."""
    x, layer = step.codes, step.call.operation
    adds = np.ndim(layer.scale) == 0 and layer.scale == 1
    if x is None or (not adds and np.any(layer.offset)):
        return None
    number = constant(np.asarray(layer.offset if adds else layer.scale, np.float32))
    if number is None or x.lattice.bits != 8:
        return None
    return step.of_two(elementwise.add if adds else elementwise.multiply, x, number)


def _curve(run: Callable[..., Codes], widths: tuple[int, ...] = (8,)) -> Callable[[Step], Any]:
    """An operation of one activation, of as many bits as its kernels take."""

    def rule(step: Step) -> Any:
        x = step.codes
        if x is None or x.lattice.bits not in widths:
            return None
        return step.pending(lambda out, low, high: run(x, out, kernels=step.kernels))

    return rule


def leaky(step: Step) -> Any:
    """LEAKY_RELU of a layer or an operation."""
    x, slope = step.codes, step.option(1, ("negative_slope", "alpha"), 0.2)
    if x is None or np.ndim(slope):
        return None
    return step.pending(
        lambda out, low, high: rectifiers.leaky_relu(x, out, slope=float(slope), kernels=step.kernels),
    )


def exponential(step: Step) -> Any:
    """ELU of a layer or an operation, its slope being 1."""
    x, slope = step.codes, step.option(1, ("alpha",), 1.0)
    if x is None or x.lattice.bits != 8 or float(slope) != 1.0:
        return None
    return step.pending(lambda out, low, high: tables.elu(x, out, kernels=step.kernels))


def bent_by_weights(step: Step) -> Any:
    """PRELU with slopes on a grid of their own."""
    wrapper, x = step.call.operation, step.codes
    layer = wrapper.layer if isinstance(wrapper, Transformed) else wrapper
    if x is None or x.lattice.bits != 8 or (isinstance(wrapper, Transformed) and wrapper.transforms):
        return None
    slope = slopes_of(flavor.read(layer.alpha))
    return step.pending(lambda out, low, high: rectifiers.prelu(x, slope, out, kernels=step.kernels))


def softmaxed(step: Step) -> Any:
    """SOFTMAX along the last axis."""
    x, axis = step.codes, step.option(1, ("axis",), -1)
    if x is None or axis not in (None, -1, x.values.shape.rank - 1):
        return None
    return step.pending(lambda out, low, high: softmax.softmax(x, out, kernels=step.kernels))


def gated(step: Step) -> Any:
    """x * LOGISTIC(x): a sigmoid has one lattice whatever it reads."""
    x = step.codes
    if x is None or x.lattice.bits != 8:
        return None
    gate = tables.logistic(x, Lattice(held(1 / 256), tf.constant(-128)), kernels=step.kernels)
    return step.of_two(elementwise.multiply, x, gate)


def bent(step: Step) -> Any:
    """GELU, exact or by tanh."""
    x = step.codes
    if x is None or x.lattice.bits != 8:
        return None
    layer = getattr(step.call.operation, "activation", None)
    rough = bool(getattr(layer, "approximate", step.option(1, ("approximate",), False)))
    return step.pending(lambda out, low, high: tables.gelu(x, out, approximate=rough, kernels=step.kernels))


def joined(step: Step) -> Any:
    """CONCATENATION: what is waiting for its lattice gets that of the whole, all else is brought onto it."""
    given = step.call.args[1] if len(step.call.args) > 1 else step.call.kwargs.get("axis", 0)
    axis = getattr(step.call.operation, "axis", given)
    parts = list(step.values)
    if not parts or not all(isinstance(part, (Codes, Pending)) for part in parts):
        return None
    if any(isinstance(part, Codes) and part.lattice.bits == 16 for part in parts):
        return None  # the file lets these operands have the lattice of the whole from the start

    def finish(out: Lattice, low: Any, high: Any) -> Codes:
        codes = [part.on(out, None, step.kernels) if isinstance(part, Pending) else part for part in parts]
        return joins.concatenate(codes, out, axis=axis, kernels=step.kernels)

    return step.pending(finish)


def enlarged(step: Step) -> Any:
    """RESIZE_BILINEAR, or numbers that are repeated."""
    layer, x = step.call.operation, step.codes
    if getattr(layer, "interpolation", "nearest") == "nearest":
        return moved(step)
    if x is None or layer.interpolation != "bilinear" or layer.data_format != "channels_last":
        return None
    if None in x.values.shape[1:3]:
        return None
    size = [int(n) * int(times) for n, times in zip(x.values.shape[1:3], layer.size, strict=True)]
    return resize.resize_bilinear(x, size=size, align_corners=False, half_pixel_centers=True, kernels=step.kernels)


def looked_up(step: Step) -> Any:
    """GATHER: rows of a table on the table's own scale."""
    wrapper = step.call.operation
    table = wrapper.on_grid("embeddings") if isinstance(wrapper, Transformed) else None
    if table is None or len(step.values) != 1 or isinstance(step.values[0], (Codes, Pending)):
        return None
    if table[1].shape.num_elements() != 1:
        return None
    rows = tf.gather(table[0], tf.cast(step.values[0], tf.int32))
    return Codes(rows, Lattice(tf.reshape(table[1], []), tf.zeros([], tf.int32)))


def unknown(step: Step) -> Any:
    """An operation that computes, although it keeps the range of what it reads."""
    return None


_ADD, _SUB = _joined(elementwise.add), _joined(elementwise.subtract)
_MUL = _joined(elementwise.multiply)
RULES: dict[str, Callable[[Step], Any]] = {
    "Add": _ADD, "add": _ADD, "Subtract": _SUB, "subtract": _SUB, "sub": _SUB,
    "Multiply": _MUL, "multiply": _MUL, "mul": _MUL,
    "Rescaling": rescaled, "truedivide": divided, "divide": divided, "truediv": divided,
    "GlobalAveragePooling1D": mean_of_places, "GlobalAveragePooling2D": mean_of_places,
    "AveragePooling1D": averaged, "AveragePooling2D": averaged,
    "sigmoid": _curve(tables.logistic, (8, 16)), "tanh": _curve(tables.tanh, (8, 16)),
    "hard_silu": _curve(tables.hard_swish),
    "hardsilu": _curve(tables.hard_swish),
    "AveragePooling3D": unknown, "averagepool": unknown, "avgpool": unknown,
    "softmax": softmaxed, "Softmax": softmaxed, "silu": gated, "swish": gated, "gelu": bent,
    "Concatenate": joined, "concatenate": joined, "concat": joined,
    "UpSampling2D": enlarged, "Embedding": looked_up,
    "elu": exponential, "ELU": exponential, "mean": mean_of_axes, "reducemean": mean_of_axes,
    "exponential": _curve(tables.exp), "exp": _curve(tables.exp),
    "PReLU": bent_by_weights, "LeakyReLU": leaky, "leaky_relu": leaky, "leakyrelu": leaky,
}  # fmt: skip
