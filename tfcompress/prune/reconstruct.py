"""Weights refitted to the channels that are left: the reconstruction-error family."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.flavor import keras
from tfcompress.core.projected import mask_of, project
from tfcompress.core.replay import Call, calls
from tfcompress.core.samples import Samples, inputs_of
from tfcompress.prune.flow import Flow
from tfcompress.prune.parametric import READS

_ROWS = 8192  # positions that a layer is fitted on, at most
_RIDGE = 1e-4  # of the mean square of the inputs
_KINDS = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D)


def refit(flow: Flow, original: Any, small: Any, removed: Iterable[int], data: Any) -> list[str]:
    """Refit each layer that lost inputs, in the order of the graph, so that it returns what it did.

        min over D:  |X' D - (Y - X' W - b)|^2 + r |D|^2,    W <- W + D

    X' is what the layer reads in the smaller model, in which all layers before it are refitted already; Y is what the
    layer returned in the original before its activation, at the channels that are left. The bias is fitted with W.
    Where a mask holds zeros of W, D is zero.

    Args:
        flow: labels of the original's graph.
        original: the original as a flat graph.
        small: the model without the channels; its weights change.
        removed: the classes of channels that are gone.
        data: samples; the first 256 are used, and of their positions a choice.

    Returns:
        The names of the layers that were refitted: Dense and convolutions without groups, called once.

    Source: He et al. 2017, arXiv:1707.06168, eq. 5 (channels given); Luo et al. 2017 (ThiNet), arXiv:1707.06342.
    """
    gone = np.fromiter(removed, np.int64)
    batch = Samples(data, inputs_of(original), limit=256, batch_size=256).columns()
    new = {call.name: call for call in calls(small)}
    done = []
    for call in calls(original):
        if not _can(call, [c for c in flow.steps if c.call.operation.name == call.name]):
            continue
        vectors = flow.weights[id(_step(flow, call).call.operation)]
        axes, roles = vectors.axes["kernel"], vectors.roles["kernel"]
        lost = [v is not None and role == READS and np.isin(flow.labels.roots(v), gone).any()
                for v, role in zip(axes, roles, strict=True)]  # fmt: skip
        made = axes[-1]
        if any(lost) and made is not None and call.name in new:
            left = np.flatnonzero(~np.isin(flow.labels.roots(made), gone))
            _fit(call, new[call.name], left, original, small, batch)
            done.append(call.name)
    return done


def _step(flow: Flow, call: Call) -> Any:
    return next(step for step in flow.steps if step.call.operation.name == call.name)


def _can(call: Call, same: Sequence[Any]) -> bool:
    layer = call.operation
    plain = isinstance(layer, _KINDS) and type(layer).call in [kind.call for kind in _KINDS]
    return plain and len(same) == 1 and getattr(layer, "groups", 1) == 1 and (
        getattr(layer, "data_format", "channels_last") == "channels_last")  # fmt: skip


def _fit(old: Call, new: Call, left: np.ndarray, original: Any, small: Any, batch: Sequence[np.ndarray]) -> None:
    before, after = _value(original, old.inputs[0], batch), _value(small, new.inputs[0], batch)
    wanted = _linear(old.operation, before)[..., left]
    missing = wanted - _linear(new.operation, after)
    rows = _patches(new.operation, after)
    target = np.reshape(missing, (-1, missing.shape[-1]))
    if len(rows) > _ROWS:
        chosen = np.sort(np.random.default_rng(0).choice(len(rows), _ROWS, replace=False))
        rows, target = rows[chosen], target[chosen]
    layer = new.operation
    if layer.use_bias:
        rows = np.concatenate([rows, np.ones((len(rows), 1))], 1)
    gram = rows.T @ rows
    gram += np.eye(len(gram)) * max(_RIDGE * float(np.trace(gram)) / len(gram), 1e-12)
    kernel, mask = np.asarray(flavor.read(layer.kernel)), mask_of(layer.kernel)
    free = np.ones((len(gram), target.shape[-1]), bool)
    inner = kernel.size // kernel.shape[-1]
    if mask is not None:
        free[:inner] = mask.kept.reshape(inner, -1)
    delta = _solved(gram, rows.T @ target, free)
    layer.kernel.assign(kernel + delta[:inner].reshape(kernel.shape))
    project(layer.kernel)
    if layer.use_bias:
        layer.bias.assign(np.asarray(flavor.read(layer.bias)) + delta[-1])


def _solved(gram: np.ndarray, wanted: np.ndarray, free: np.ndarray) -> np.ndarray:
    """D with gram D = wanted, column by column over the rows that are free there; zero in the others."""
    if free.all():
        return np.linalg.solve(gram, wanted)
    found = np.zeros_like(wanted)
    for column, own in enumerate(free.T):
        found[own, column] = np.linalg.solve(gram[np.ix_(own, own)], wanted[own, column])
    return found


def _value(model: Any, tensor: Any, batch: Sequence[np.ndarray]) -> np.ndarray:
    part = keras.Model(flavor.graph_inputs(model), tensor)
    given = flavor.pack_like(flavor.graph_inputs(model), [tf.convert_to_tensor(a) for a in batch])
    return np.asarray(part(given, training=False), "float64")


def _linear(layer: Any, x: np.ndarray) -> np.ndarray:
    """What the layer returns before its activation."""
    activation, layer.activation = layer.activation, keras.activations.linear
    try:
        return np.asarray(layer(tf.constant(x, "float32")), "float64")
    finally:
        layer.activation = activation


def _patches(layer: Any, x: np.ndarray) -> np.ndarray:
    """What the kernel is multiplied with at each position: float64 [positions, numbers of the kernel's inner axes]."""
    if isinstance(layer, keras.layers.Dense):
        return x.reshape(-1, x.shape[-1])
    size, strides, dilation = layer.kernel_size, layer.strides, layer.dilation_rate
    padding = layer.padding.upper()
    if len(size) == 1:
        if padding == "CAUSAL":
            x, padding = np.pad(x, ((0, 0), (dilation[0] * (size[0] - 1), 0), (0, 0))), "VALID"
        x = x[:, :, None]
        size, strides, dilation = (*size, 1), (*strides, 1), (*dilation, 1)
    found = tf.image.extract_patches(tf.constant(x), (1, *size, 1), (1, *strides, 1), (1, *dilation, 1), padding)
    return np.asarray(found).reshape(-1, found.shape[-1])
