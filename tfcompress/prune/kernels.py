"""Rules of the layers that make channels by a kernel: dense, convolutions, einsum, tables, bare weights."""

from typing import Any

import numpy as np

from tfcompress.core.einsum import Equation
from tfcompress.core.transformed import named_weights
from tfcompress.prune.experiments import reconfigured
from tfcompress.prune.labels import Labels, Vector
from tfcompress.prune.parametric import FOLLOWS, MAKES, READS, Keep, Parametric


def weight(p: Parametric, layer: Any) -> bool:
    """A bare weight: new channels on every axis."""
    shape = [int(d) for d in layer.weight.shape]
    axes = [p.new(str(i), d) if d > 1 else p.zeros(d) for i, d in enumerate(shape)]
    (name,) = named_weights(layer)
    p.bind(name, *((v, MAKES) for v in axes))
    p.outputs[0][:] = axes
    p.weights.rebuild = lambda keep: reconfigured(layer, {"shape": [keep(v).size for v in axes]})
    return True


def dense(p: Parametric, layer: Any) -> bool:
    """Dense: the last axis of the input to units."""
    if not p.known("kernel", "bias"):
        return False
    made = p.new("units", layer.units)
    p.mixing(made, "activation")
    p.bind("kernel", (p.given[0][-1], READS), (made, MAKES))
    if layer.use_bias:
        p.bind("bias", (made, FOLLOWS))
    p.reads = [(0, len(p.given[0]) - 1)]
    p.outputs[0][:] = [*p.given[0][:-1], made]
    p.weights.rebuild = lambda keep: reconfigured(layer, {"units": keep(made).size})
    return True


def _channel_axis(layer: Any, rank: int) -> int:
    return 1 if layer.data_format == "channels_first" else rank - 1


def convolution(p: Parametric, layer: Any) -> bool:
    """Convolutions, grouped ones too."""
    if not p.known("kernel", "bias"):
        return False
    axis = _channel_axis(layer, len(p.given[0]))
    p.only(axis)
    came, made = p.given[0][axis], p.new("filters", layer.filters)
    p.mixing(made, "activation")
    groups = layer.groups
    inner = came
    whole = False
    if groups > 1 and came is not None:
        inner, whole = _grouped(p.labels, came, made, groups)
    spatial = [(None, "")] * (len(layer.kernel.shape) - 2)
    p.bind("kernel", *spatial, (p.zeros(layer.kernel.shape[-2]) if whole else inner, READS), (made, MAKES))
    if layer.use_bias:
        p.bind("bias", (made, FOLLOWS))
    p.reads = [(0, axis)]
    p.outputs[0][axis] = made

    def rebuild(keep: Keep) -> Any:
        share = keep(made).size * groups // layer.filters if whole else groups
        return reconfigured(layer, {"filters": keep(made).size, "groups": share})

    p.weights.rebuild = rebuild
    return True


def _grouped(labels: Labels, came: Vector, made: Vector, groups: int) -> tuple[Vector, bool]:
    """The labels of a grouped kernel's inner axis, and whether whole groups go.

    Either whole groups live or die, with their inputs and outputs; or the same places in every group, so that groups
    stay equal. What leaves more classes is done.
    """
    inside, outside = came.reshape(groups, -1), made.reshape(groups, -1)
    if inside.shape[1] <= groups:
        labels.tie_rows(np.concatenate([inside, outside], axis=1))
        return inside[0], True
    labels.tie_rows(inside.T)
    labels.tie_rows(outside.T)
    return inside[0], False


def transposed(p: Parametric, layer: Any) -> bool:
    """Transposed convolutions: the kernel has its filters before its inputs."""
    if not p.known("kernel", "bias") or getattr(layer, "groups", 1) != 1:
        return False
    axis = _channel_axis(layer, len(p.given[0]))
    p.only(axis)
    came, made = p.given[0][axis], p.new("filters", layer.filters)
    p.mixing(made, "activation")
    spatial = [(None, "")] * (len(layer.kernel.shape) - 2)
    p.bind("kernel", *spatial, (made, MAKES), (came, READS))
    if layer.use_bias:
        p.bind("bias", (made, FOLLOWS))
    p.reads = [(0, axis)]
    p.outputs[0][axis] = made
    p.weights.rebuild = lambda keep: reconfigured(layer, {"filters": keep(made).size})
    return True


def depthwise(p: Parametric, layer: Any) -> bool:
    """Depthwise convolutions: each channel by itself, as often as the multiplier says."""
    names = list(named_weights(layer))
    if not p.known(names[0], "bias"):
        return False
    axis = _channel_axis(layer, len(p.given[0]))
    p.only(axis)
    came = p.given[0][axis]
    if came is None:
        return False
    made = np.repeat(came, layer.depth_multiplier)
    p.mixing(made, "activation")
    kernel = named_weights(layer)[names[0]]
    spatial = [(None, "")] * (len(kernel.shape) - 2)
    p.bind(names[0], *spatial, (came, FOLLOWS), (None, ""))
    if layer.use_bias:
        p.bind("bias", (made, FOLLOWS))
    p.outputs[0][axis] = made
    p.weights.rebuild = lambda keep: reconfigured(layer, {})
    return True


def separable(p: Parametric, layer: Any) -> bool:
    """Separable convolutions: a depthwise kernel, then a pointwise one."""
    if not p.known("depthwise_kernel", "pointwise_kernel", "bias"):
        return False
    axis = _channel_axis(layer, len(p.given[0]))
    p.only(axis)
    came, made = p.given[0][axis], p.new("filters", layer.filters)
    if came is None:
        return False
    p.mixing(made, "activation")
    spatial = [(None, "")] * (len(layer.depthwise_kernel.shape) - 2)
    p.bind("depthwise_kernel", *spatial, (came, FOLLOWS), (None, ""))
    p.bind("pointwise_kernel", *spatial, (np.repeat(came, layer.depth_multiplier), READS), (made, MAKES))
    if layer.use_bias:
        p.bind("bias", (made, FOLLOWS))
    p.reads = [(0, axis)]
    p.outputs[0][axis] = made
    p.weights.rebuild = lambda keep: reconfigured(layer, {"filters": keep(made).size})
    return True


def embedding(p: Parametric, layer: Any) -> bool:
    """Tables: rows of channels."""
    if not p.known("embeddings"):
        return False
    p.labels.fix(p.given[0], f"{layer.name} looks rows up by it")
    made = p.new("output_dim", layer.output_dim)
    p.bind("embeddings", (None, ""), (made, MAKES))
    p.outputs[0][-1] = made
    p.weights.rebuild = lambda keep: reconfigured(layer, {"output_dim": keep(made).size})
    return True


def einsum(p: Parametric, layer: Any) -> bool:
    """EinsumDense: of several new axes (heads, their width) the first makes channels."""
    if "..." in layer.equation or not p.known("kernel", "bias"):
        return False
    equation = Equation.of(layer.equation)
    given, kernel, result = equation.given, equation.kernel, equation.made
    if len(set(given)) < len(given) or len(set(kernel)) < len(kernel):
        return False
    known: dict[str, Vector | None] = dict(zip(given, p.given[0], strict=True))
    for letter, size in zip(kernel, layer.kernel.shape, strict=True):
        if letter not in known:  # of several new axes (heads, their width) the first can be pruned
            first = not any(key in p.weights.made for key in kernel if key != letter) and int(size) > 1
            known[letter] = p.new(letter, int(size)) if first else p.zeros(size)
            p.mixing(known[letter], "activation")  # type: ignore[arg-type]
    role = {letter: READS if letter in equation.read else FOLLOWS if letter in given else MAKES for letter in kernel}
    p.bind("kernel", *((known[letter], role[letter]) for letter in kernel))
    if layer.bias_axes:
        p.bind("bias", *((known[letter], FOLLOWS) for letter in result if letter in layer.bias_axes))
    p.reads = [(0, given.index(letter)) for letter in kernel if role[letter] == READS]
    p.outputs[0][:] = [known[letter] for letter in result]
    sizes = tuple(layer.partial_output_shape)

    def rebuild(keep: Keep) -> Any:
        pairs = zip(result[-len(sizes) :], sizes, strict=True)
        shape = [size if size is None or known[x] is None else keep(known[x]).size for x, size in pairs]  # type: ignore[arg-type]
        return reconfigured(layer, {"output_shape": tuple(shape)})

    p.weights.rebuild = rebuild
    return True
