"""What a model costs as a function of how many channels each group keeps, without building the smaller model."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.flavor import keras
from tfcompress.core.macs import macs_of
from tfcompress.core.transformed import named_weights
from tfcompress.prune.dependencies import Group
from tfcompress.prune.flow import Flow


class Costs:
    """Parameters, bytes and multiply-accumulates by the number of channels that each group keeps.

    A weight has as many numbers as the product of what its axes keep; a call's multiply-accumulates are proportional to
    the numbers in its layer's kernels. Calls whose multiply-accumulates are not known count for nothing.

    Args:
        flow: labels of the model's graph.
        groups: groups that may be pruned.
    """

    def __init__(self, flow: Flow, groups: Sequence[Group]) -> None:
        owner = {int(label): g for g, group in enumerate(groups) for label in group.labels}
        self._weights: list[tuple[int, int, list[tuple[int, dict[int, int]]]]] = []
        kernels: dict[int, list[int]] = {}
        seen = {id(step.call.operation): step.call.operation for step in flow.steps}
        for key, layer in seen.items():
            for name, variable in named_weights(layer).items() if isinstance(layer, keras.layers.Layer) else ():
                known = flow.weights[key].axes.get(name) if key in flow.weights else None
                axes = []
                for axis, size in enumerate(variable.shape):
                    vector = known[axis] if known else None
                    held: dict[int, int] = {}
                    for root in flow.labels.roots(vector) if vector is not None else ():
                        if int(root) in owner:
                            held[owner[int(root)]] = held.get(owner[int(root)], 0) + 1
                    each = {g: count // groups[g].size for g, count in held.items()}
                    axes.append((int(size) - sum(held.values()), each))
                if len(axes) >= 2 and flavor.variable_name(variable) != "bias":
                    kernels.setdefault(key, []).append(len(self._weights))
                self._weights.append((tf.as_dtype(variable.dtype).size, len(axes), axes))
        self._calls = [(macs_of(step.call) or 0, kernels.get(id(step.call.operation), [])) for step in flow.steps]
        self._before = self._sizes([group.size for group in groups])

    def _sizes(self, kept: Sequence[int]) -> np.ndarray:
        sizes = np.ones(len(self._weights), np.float64)
        for n, (_, _, axes) in enumerate(self._weights):
            for rest, held in axes:
                sizes[n] *= rest + sum(kept[g] * count for g, count in held.items())
        return sizes

    def of(self, kept: Sequence[int]) -> dict[str, int]:
        """The cost when each group keeps so many channels: {"macs": ..., "params": ..., "bytes": ...}."""
        sizes = self._sizes(kept)
        macs = sum(count * sizes[k].sum() / self._before[k].sum() for count, k in self._calls if k and count)
        width = np.array([bytes_each for bytes_each, *_ in self._weights])
        return {"macs": round(macs), "params": round(sizes.sum()), "bytes": round(float(sizes @ width))}
