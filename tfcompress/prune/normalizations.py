"""Rules of the layers that scale channels and make none: normalizations, learned slopes."""

from typing import Any

from tfcompress.core.transformed import named_weights
from tfcompress.prune.experiments import reconfigured
from tfcompress.prune.parametric import FOLLOWS, Parametric


def _axes_of(layer: Any, rank: int) -> list[int]:
    axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
    return [axis % rank for axis in axes]


def batch_normalization(p: Parametric, layer: Any) -> bool:
    """Each channel by itself, over everything else."""
    axes = _axes_of(layer, len(p.given[0]))
    if len(axes) != 1 or not p.known("gamma", "beta", "moving_mean", "moving_variance"):
        return False
    p.only(axes[0])
    for name in named_weights(layer):
        p.bind(name, (p.given[0][axes[0]], FOLLOWS))
    p.outputs[0][axes[0]] = p.given[0][axes[0]]
    p.weights.rebuild = lambda keep: reconfigured(layer, {})
    return True


def layer_normalization(p: Parametric, layer: Any) -> bool:
    """Over channels: those that stay are normalized among themselves."""
    axes = _axes_of(layer, len(p.given[0]))
    if not p.known("gamma", "beta", "scale"):
        return False
    for name in named_weights(layer):
        p.bind(name, *((p.given[0][axis], FOLLOWS) for axis in sorted(axes)))
    for axis in axes:
        came = p.given[0][axis]
        if came is not None:
            p.labels.rescale(came, f"{layer.name} normalizes over the channels that stay")
    p.outputs[0][:] = p.given[0]
    p.weights.rebuild = lambda keep: reconfigured(layer, {})
    return True


def group_normalization(p: Parametric, layer: Any) -> bool:
    """Over groups of channels: whole groups live or die."""
    axis = _axes_of(layer, len(p.given[0]))[0]
    came = p.given[0][axis]
    if came is None or not p.known("gamma", "beta"):
        return False
    p.only(axis)
    groups = layer.groups if layer.groups != -1 else came.size
    p.labels.tie_rows(came.reshape(groups, -1))
    if groups == 1:
        p.labels.fix(came, f"{layer.name} normalizes over all channels")
    for name in named_weights(layer):
        p.bind(name, (came, FOLLOWS))
    p.outputs[0][axis] = came
    p.weights.rebuild = lambda keep: reconfigured(layer, {"groups": keep(came).size * groups // came.size})
    return True


def prelu(p: Parametric, layer: Any) -> bool:
    """A slope for each channel."""
    (name,) = named_weights(layer)
    sizes = named_weights(layer)[name].shape
    p.bind(name, *((v if size > 1 else None, FOLLOWS) for v, size in zip(p.given[0][1:], sizes, strict=True)))
    p.outputs[0][:] = p.given[0]
    p.weights.rebuild = lambda keep: reconfigured(layer, {})
    return True
