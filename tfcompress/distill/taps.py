"""Tensors inside a model, by the layer that makes them: seen while the model computes, in any kind of model."""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.flavor import keras

SCORES = ":scores"
# What stands for an axis of any length when shapes are looked at.
_ANY_LENGTH = 16


class Tap:
    """One tensor of a model.

    Attributes:
        key: as it was asked for, as text.
        layer: the layer that makes it.
        scores: whether its attention scores are meant, and not what it returns.
    """

    def __init__(self, model: Any, wanted: Any, argument: str) -> None:
        self.key = str(getattr(wanted, "name", wanted))
        self.scores = isinstance(wanted, str) and wanted.endswith(SCORES)
        self.layer = _layer(model, wanted.removesuffix(SCORES) if self.scores else wanted, argument)
        if self.scores and not hasattr(self.layer, "num_heads"):
            raise ValueError(
                f"`{argument}` must name an attention layer before {SCORES!r}. Received: {self.key!r}, "
                f"a {type(self.layer).__name__}"
            )


def _layer(model: Any, wanted: Any, argument: str) -> Any:
    """The layer of a model that is meant by an index, a name, a path or the layer itself."""
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    parts = flavor.sublayers(model, recursive=True)
    if isinstance(wanted, (int, np.integer)) and not isinstance(wanted, bool):
        if not -len(layers) <= wanted < len(layers):
            raise ValueError(f"`{argument}` must be an index of one of {len(layers)} layers. Received: {wanted}")
        return layers[wanted]
    if isinstance(wanted, keras.layers.Layer):
        if not any(wanted is part for part in parts):
            raise ValueError(f"`{argument}` must be a layer of {model.name!r}. Received: {wanted.name!r}")
        return wanted
    if not isinstance(wanted, str):
        raise TypeError(f"`{argument}` must be a layer, its name, path or index. Received: {wanted!r}")
    *path, name = wanted.split("/")
    within = [model]
    for step in path:
        within = [p for w in within for p in flavor.sublayers(w, recursive=True) if p.name == step]
    found = [part for w in within for part in flavor.sublayers(w, recursive=True) if part.name == name]
    found = list({id(part): part for part in found}.values())
    if len(found) != 1:
        names = ", ".join(dict.fromkeys(part.name for part in parts))
        which = "several; name it with its path (outer/inner)" if found else f"none of: {names}"
        raise ValueError(f"`{argument}` must name one layer of {model.name!r}. Received: {wanted!r}, which is {which}")
    return found[0]


class Seen(threading.local):
    """What the taps of one computation gave; each replica of a strategy computes in a thread of its own."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}


@contextlib.contextmanager
def watched(taps: Sequence[Tap], seen: Seen) -> Iterator[None]:
    """While it lasts, what the taps' layers return is kept in `seen`; of a shared layer, what it returns last."""
    taken: list[tuple[Any, Any]] = []
    try:
        for layer in {id(tap.layer): tap.layer for tap in taps}.values():
            mine = [tap for tap in taps if tap.layer is layer]
            taken.append((layer, layer.__dict__.get("call")))
            object.__setattr__(layer, "call", _watching(layer.call, mine, seen))
        yield
    finally:
        for layer, before in reversed(taken):
            if before is None:
                object.__delattr__(layer, "call")
            else:
                object.__setattr__(layer, "call", before)


def _watching(call: Any, taps: Sequence[Tap], seen: Seen) -> Any:
    """`call`, telling what it returns; an attention layer's is asked for its scores where a tap wants them."""

    def watching(*args: Any, **kwargs: Any) -> Any:
        if not any(tap.scores for tap in taps):
            outputs = call(*args, **kwargs)
        else:
            asked = kwargs.pop("return_attention_scores", False)
            outputs, scores = call(*args, **kwargs, return_attention_scores=True)
            seen.values.update({tap.key: scores for tap in taps if tap.scores})
            if asked:
                return outputs, scores
        seen.values.update({tap.key: outputs for tap in taps if not tap.scores})
        return outputs

    return watching


def computed(model: Any, taps: Sequence[Tap], seen: Seen, *args: Any, **kwargs: Any) -> Any:
    """What the model returns; `seen` holds its taps.

    Raises:
        ValueError: the computation did not reach a layer.
    """
    seen.values = {}
    with watched(taps, seen):
        outputs = model(*args, **kwargs)
    missing = [tap.key for tap in taps if tap.key not in seen.values]
    if missing:
        raise ValueError(f"{model.name!r} does not use the layer {missing[0]!r} when it is called")
    return outputs


def tried(model: Any, taps: Sequence[Tap]) -> tuple[Any, dict[str, Any]]:
    """Outputs and taps of one row of zeros: what shapes they have."""
    seen = Seen()
    outputs = computed(model, taps, seen, zeros_of(model), training=False)
    return outputs, dict(seen.values)


def zeros_of(model: Any) -> Any:
    """One row of zeros as the model takes it."""

    def zeros(spec: Any) -> tf.Tensor:
        return tf.zeros([1, *(size or _ANY_LENGTH for size in spec.shape)], spec.dtype or keras.backend.floatx())

    return _mapped(zeros, flavor.input_specs(model))


def _mapped(function: Any, specs: Any) -> Any:
    if isinstance(specs, dict):
        return {name: _mapped(function, spec) for name, spec in specs.items()}
    if isinstance(specs, (list, tuple)):
        return [_mapped(function, spec) for spec in specs]
    return function(specs)
