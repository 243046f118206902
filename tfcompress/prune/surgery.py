"""A model with fewer channels: every weight sliced, every layer made anew with what is left."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from tfcompress.core import flavor
from tfcompress.core.flavor import keras
from tfcompress.core.projected import carry
from tfcompress.core.replay import Call, replay
from tfcompress.core.transformed import named_weights
from tfcompress.prune.experiments import filled, reconfigured
from tfcompress.prune.flow import Flow, Step
from tfcompress.prune.labels import Vector
from tfcompress.prune.operations import redone
from tfcompress.prune.parametric import Weights


def without(flow: Flow, removed: Iterable[int]) -> Any:
    """The model of a flow without some classes of channels.

    Args:
        flow: labels of a flat graph; its model is used up: layers that stay as they are are those of the result.
        removed: numbers of classes (`Group.labels`) that are free.

    Returns:
        A Functional model of ordinary layers. It computes what the old one computes with those channels set to zero
        wherever a layer sums over them. Projections of weights are carried over, sliced like them.
    """
    gone = np.fromiter(removed, np.int64)
    cache: dict[int, tuple[Vector, np.ndarray]] = {}  # by id; a vector that is held keeps its id

    def keep(vector: Vector) -> np.ndarray:
        if id(vector) not in cache:
            cache[id(vector)] = vector, np.flatnonzero(~np.isin(flow.labels.roots(vector), gone))
        return cache[id(vector)][1]

    maker = _Maker(flow, keep)
    return replay(flow.model, maker.call)


class _Maker:
    """Answers the calls of the old graph with smaller layers."""

    def __init__(self, flow: Flow, keep: Callable[[Vector], np.ndarray]) -> None:
        self._flow, self._keep = flow, keep
        self._steps = iter(flow.steps)
        self._made: dict[int, Any] = {}
        self._shrinking = {id(step.call.operation) for step in flow.steps if step.operation and self._shrinks(step)}

    def _shrinks(self, step: Step) -> bool:
        return any(v is not None and self._keep(v).size < v.size for axes in step.given for v in axes)

    def call(self, call: Call, args: tuple, kwargs: dict[str, Any]) -> Any:
        step = next(self._steps)
        layer = call.operation
        if step.operation is not None:
            return self._operation(step, args, kwargs)
        if id(layer) in self._made:
            return self._made[id(layer)](*args, **kwargs)
        weights = self._flow.weights[id(layer)]
        if weights.rebuild is None or not self._changes(weights):
            self._made[id(layer)] = layer
            return layer(*args, **kwargs)
        new = weights.rebuild(self._keep)
        self._made[id(layer)] = new
        outputs = new(*args, **kwargs)
        new.trainable = layer.trainable
        self._fill(layer, new, weights)
        return outputs

    def _changes(self, weights: Weights) -> bool:
        vectors = (v for axes in weights.axes.values() for v in axes if v is not None)
        return any(self._keep(v).size < v.size for v in vectors)

    def _operation(self, step: Step, args: tuple, kwargs: dict[str, Any]) -> Any:
        done, call = step.operation, step.call
        layer = call.operation
        answer = redone(done, step.given, self._keep, self._flow.sizes)  # type: ignore[arg-type]
        constants = {key: self._keep(v) for key, v in done.constants.items()}  # type: ignore[union-attr]
        if any(kept.size < done.constants[key].size for key, kept in constants.items()):  # type: ignore[union-attr]
            values = {id(old): new for old, new in zip(flavor.flatten((call.args, call.kwargs)),
                                                       flavor.flatten((args, kwargs)), strict=True)}  # fmt: skip
            args, kwargs = filled(call, values, constants)
        if answer is not None:
            return answer(args, kwargs)
        if id(layer) in self._shrinking and _is_plain(layer):
            if id(layer) not in self._made:  # a new one knows nothing of the old shapes
                self._made[id(layer)] = reconfigured(layer, {})
            layer = self._made[id(layer)]
        return layer(*args, **kwargs)

    def _fill(self, old: Any, new: Any, weights: Weights) -> None:
        """The old weights, sliced, with their projections."""
        target = dict(zip(named_weights(old), named_weights(new).values(), strict=True))
        for name, variable in named_weights(old).items():
            axes = weights.axes.get(name, [])

            def change(value: np.ndarray, axes: list = axes) -> np.ndarray:
                for axis, vector in enumerate(axes):
                    if vector is not None:
                        value = np.take(value, self._keep(vector), axis)
                return value

            target[name].assign(change(np.asarray(flavor.read(variable))))
            carry(variable, target[name], change)


def _is_plain(layer: Any) -> bool:
    """Whether a layer is one of Keras' own, without sublayers, that its configuration describes."""
    own = isinstance(layer, keras.layers.Layer) and type(layer).__module__.split(".")[0] in ("keras", "tf_keras")
    known = own and not isinstance(layer, keras.layers.Lambda)
    return known and not flavor.is_operation(layer) and not flavor.sublayers(layer)
