"""What a smaller model must compute, from nothing but the two models: its kernels are found in the old ones by value.

A channel that a kernel of the smaller model no longer reads is set to zero where the old kernel reads it. Nothing of
the library's own labels is used: which rows are left is read off the numbers in the kernels.
"""

from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.replay import Call, replay
from tfcompress.core.trace import trace
from tfcompress.core.transformed import named_weights

keras = tf.keras


class Zeros(keras.layers.Layer):
    """Multiplies by a constant of zeros and ones."""

    def __init__(self, ones: np.ndarray) -> None:
        super().__init__()
        self.ones = ones
        self.built = True

    def call(self, x: Any) -> Any:
        return x * tf.cast(self.ones, x.dtype)

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


def positions(old: np.ndarray, new: np.ndarray) -> list[np.ndarray]:
    """For each axis the positions of `old` of which `new` is made, found by looking its numbers up."""
    order = np.argsort(old, axis=None, kind="stable")
    values = np.ravel(old)[order]
    flat = np.ravel(new)
    where = np.minimum(np.searchsorted(values, flat), values.size - 1)
    unique = np.concatenate([[True], values[1:] != values[:-1]]) & np.concatenate([values[1:] != values[:-1], [True]])
    sure = (values[where] == flat) & unique[where]
    found = np.stack(np.unravel_index(order[where], old.shape))
    result = []
    for axis in range(old.ndim):
        places = np.indices(new.shape)[axis].ravel()[sure]
        votes = np.zeros((new.shape[axis], old.shape[axis]), np.int32)
        np.add.at(votes, (places, found[axis][sure]), 1)
        assert (votes.max(1) > 0).all(), "a slice of the new kernel is nowhere in the old one"
        result.append(votes.argmax(1))
    assert np.array_equal(old[np.ix_(*result)], new), "the new kernel is no choice of the old one's slices"
    return result


def read_axes(layer: Any, rank: int) -> dict[str, list[tuple[int, int]]]:
    """For each kernel (axis of the kernel, axis of the layer's input) that the layer sums over."""
    name = type(layer).__name__
    first = next(iter(named_weights(layer)))
    channel = 1 if getattr(layer, "data_format", "") == "channels_first" else rank - 1
    if "Depthwise" in name or name == "Embedding" or "Normalization" in name:
        return {}
    if "Separable" in name:
        return {"depthwise_kernel": [(len(layer.depthwise_kernel.shape) - 2, channel)]}
    if "Transpose" in name:
        return {"kernel": [(len(layer.kernel.shape) - 1, channel)]}
    if name.startswith("Conv") and layer.groups == 1:
        return {"kernel": [(len(layer.kernel.shape) - 2, channel)]}
    if name == "EinsumDense":
        operands, result = layer.equation.split("->")
        given, kernel = operands.split(",")
        return {"kernel": [(kernel.index(c), given.index(c)) for c in kernel if c in given and c not in result]}
    if name in ("Dense", "TimeDistributed", "LSTM", "GRU", "SimpleRNN", "Bidirectional"):
        return {first: [(len(named_weights(layer)[first].shape) - 2, channel)]}
    return {}


def expected(model: Any, small: Any) -> Any:
    """The old model with zeros wherever it reads a channel that the smaller one lacks, as a model."""
    flat = trace(model)
    new = {layer.name: layer for layer in small.layers}
    _forget_units(flat, new)

    def call(old: Call, args: tuple, kwargs: dict[str, Any]) -> Any:
        layer = old.operation
        if not isinstance(layer, keras.layers.Layer) or not layer.weights or layer.name not in new:
            return layer(*args, **kwargs)
        leaves = flavor.flatten((args, kwargs))
        before, after = named_weights(layer), named_weights(new[layer.name])
        for name, axes in read_axes(layer, len(leaves[0].shape)).items():
            for kernel_axis, axis in axes:
                if before[name].shape == after[name].shape:
                    continue
                left = positions(np.asarray(before[name]), np.asarray(after[name]))[kernel_axis]
                leaves[0] = _zeroed(leaves[0], axis, left, before[name].shape[kernel_axis])
        if type(layer).__name__.startswith("Conv") and getattr(layer, "groups", 1) > 1:
            leaves[0] = _grouped(layer, new[layer.name], leaves[0])
        args, kwargs = flavor.pack_like((args, kwargs), leaves)
        return _silenced(layer, new[layer.name], layer(*args, **kwargs))

    return replay(flat, call)


def _silenced(old: Any, new: Any, output: Any) -> Any:
    """What a dense layer no longer makes is zero: queries and keys, which no kernel reads."""
    kernel, smaller = named_weights(old).get("kernel"), named_weights(new).get("kernel")
    if type(old).__name__ not in ("Dense", "EinsumDense") or kernel.shape == smaller.shape:
        return output
    axes = {len(kernel.shape) - 1: len(output.shape) - 1}
    if type(old).__name__ == "EinsumDense":
        operands, result = old.equation.split("->")
        letters = operands.split(",")[1]
        axes = {letters.index(c): result.index(c) for c in letters if c in result}
    left = positions(np.asarray(kernel), np.asarray(smaller))
    for axis, place in axes.items():
        output = _zeroed(output, place, left[axis], kernel.shape[axis])
    return output


def _zeroed(tensor: Any, axis: int, left: np.ndarray, size: int) -> Any:
    if len(left) == size:
        return tensor
    ones = np.zeros(size, "float32")
    ones[left] = 1
    return Zeros(ones.reshape([-1 if i == axis else 1 for i in range(len(tensor.shape))]))(tensor)


def _grouped(old: Any, new: Any, tensor: Any) -> Any:
    """A grouped kernel reads the inputs of the groups that it has filters of, at the rows that it has."""
    kernel, smaller = np.asarray(old.kernel), np.asarray(new.kernel)
    if kernel.shape == smaller.shape:
        return tensor
    *_, rows, filters = positions(kernel, smaller)
    groups = np.unique(filters // (kernel.shape[-1] // old.groups))
    left = (groups[:, None] * kernel.shape[-2] + np.sort(rows)).ravel()
    channel = 1 if old.data_format == "channels_first" else len(tensor.shape) - 1
    return _zeroed(tensor, channel, left, tensor.shape[channel])


def _forget_units(flat: Any, new: dict[str, Any]) -> None:
    """A unit that is gone is read by no unit of its own layer."""
    for layer in flat.layers:
        for name, variable in named_weights(layer).items():
            if "recurrent_kernel" in name and variable.shape != named_weights(new[layer.name])[name].shape:
                rows, _ = positions(np.asarray(variable), np.asarray(named_weights(new[layer.name])[name]))
                value = np.zeros(variable.shape, "float32")
                value[rows] = np.asarray(variable)[rows]
                variable.assign(value)


def error(model: Any, small: Any, x: Any) -> float:
    """The largest difference between the smaller model and what is expected of it, over the largest output."""
    worst = 0.0
    wanted, found = expected(model, small)(x, training=False), small(x, training=False)
    for a, b in zip(flavor.flatten(wanted), flavor.flatten(found), strict=True):
        a, b = np.asarray(a, "float64"), np.asarray(b, "float64")
        worst = max(worst, float(np.max(np.abs(a - b)) / max(np.max(np.abs(a)), 1e-12)))
    return worst
