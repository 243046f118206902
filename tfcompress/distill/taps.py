"""Tensors inside a model, by the layer that makes them: seen while the model computes, in any kind of model."""

import contextlib
import functools
import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.flavor import keras
from tfcompress.distill.output_kind import layer_kind

SCORES = ":scores"
#: What stands for an axis of any length when shapes are looked at: the first that a model takes.
LENGTHS = (16, 64, 256)


class Scores:
    """The attention matrix of a layer, as something that can be tapped.

    Args:
        wanted: the attention layer, its name, path or index; or the layer whose output is the matrix already, such as
            the softmax of an attention that was opened.
    """

    def __init__(self, wanted: Any) -> None:
        self.wanted = wanted

    def __str__(self) -> str:
        return f"{getattr(self.wanted, 'name', self.wanted)}{SCORES}"


class Given:
    """What a layer is given, as something that can be tapped: the logits in front of a softmax.

    Args:
        layer: a layer that is called on one tensor.
    """

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    def __str__(self) -> str:
        return f"the input of {self.layer.name}"


class Tap:
    """One tensor of a model.

    Attributes:
        asked: as it was asked for, as text.
        layer: the layer that makes it.
        scores: whether its attention scores are meant, and not what it returns.
        given: whether what it is called on is meant.
        output: which of several tensors that the layer returns; None for the only one.
        key: tells it from the model's other tensors; layers of one name may stand in several nested models.
    """

    def __init__(self, model: Any, wanted: Any, argument: str) -> None:
        if isinstance(wanted, str) and wanted.endswith(SCORES):
            wanted = Scores(wanted.removesuffix(SCORES))
        self.asked = str(getattr(wanted, "name", wanted))
        self.given = isinstance(wanted, Given)
        inner = wanted.wanted if isinstance(wanted, Scores) else wanted.layer if isinstance(wanted, Given) else wanted
        self.output = None
        if isinstance(inner, str) and inner.rpartition(":")[2].isdecimal() and inner.rpartition(":")[0]:
            inner, _, output = inner.rpartition(":")
            self.output = int(output)
        self.layer = _layer(model, inner, argument)
        self.scores = isinstance(wanted, Scores) and not _is_softmax(self.layer)
        if self.scores and "return_attention_scores" not in inspect.signature(self.layer.call).parameters:
            raise ValueError(
                f"`{argument}` must name an attention layer, or the softmax of one. Received: {self.asked!r}, "
                f"a {type(self.layer).__name__}"
            )
        place = next(number for number, part in enumerate(_parts(model)) if part is self.layer)
        which = f":{self.output}" if self.output is not None else ""
        self.key = f"{place}{SCORES if self.scores else ''}{':given' if self.given else ''}{which}"

    @property
    def kind(self) -> str:
        """What it is: "logits", "softmax" or "sigmoid"."""
        return "softmax" if self.scores else "logits" if self.given else layer_kind(self.layer)

    def chosen(self, outputs: Any) -> Any:
        """The tensor that is meant of what its layer returned.

        Raises:
            ValueError: there are several and none is said, or not so many.
        """
        several = flavor.flatten(outputs)
        if self.output is None and len(several) == 1:
            return several[0]
        if self.output is None or self.output >= len(several):
            raise ValueError(
                f"{self.layer.name!r} returns {len(several)} tensors: name one of them by its number behind a colon, "
                f"from '{self.layer.name}:0' to '{self.layer.name}:{len(several) - 1}'. Received: {self.asked!r}"
            )
        return several[self.output]


def _parts(model: Any) -> list[Any]:
    """Every layer of a model, and the operations between the layers of its graphs (`x + h`), each once."""
    layers = flavor.sublayers(model, recursive=True)
    graphs = [part for part in (model, *layers) if flavor.is_graph(part)]
    found = [*layers, *(operation for graph in graphs for operation, *_ in flavor.graph_nodes(graph))]
    return list({id(part): part for part in found}.values())


def _held(part: Any) -> list[Any]:
    """The parts of a layer; an operation that is no layer has none."""
    return _parts(part) if isinstance(part, keras.layers.Layer) else []


def _is_softmax(layer: Any) -> bool:
    activation = getattr(layer, "activation", None)
    return isinstance(layer, keras.layers.Softmax) or getattr(activation, "__name__", activation) == "softmax"


def _layer(model: Any, wanted: Any, argument: str) -> Any:
    """The layer of a model that is meant by an index, a name, a path or the layer itself."""
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    parts = _parts(model)
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
        within = [p for w in within for p in _held(w) if p.name == step]
    found = [part for w in within for part in _held(w) if part.name == name]
    found = list({id(part): part for part in found}.values())
    # A layer that computes with transformed weights has the name of the one inside it, and stands for it.
    inside = {id(part) for outer in found for part in _held(outer) if part is not outer}
    found = [part for part in found if id(part) not in inside]
    if len(found) != 1:
        names = ", ".join(dict.fromkeys(part.name for part in parts))
        which = "several; name it with its path (outer/inner)" if found else f"none of: {names}"
        raise ValueError(f"`{argument}` must name one layer of {model.name!r}. Received: {wanted!r}, which is {which}")
    return found[0]


class Seen(threading.local):
    """What the taps of one computation gave; each replica of a strategy computes in a thread of its own."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.masks: dict[str, Any] = {}  # layers that attend take the mask off what they are given

    def keep(self, key: str, value: Any, masked: Any = None) -> None:
        """A tap's tensor, and the mask as it is now behind it, or behind the layer's output where it is no output."""
        self.values[key], self.masks[key] = value, flavor.mask_of(value if masked is None else masked)


class _Active(threading.local):
    """The taps that this thread's computations watch, innermost last."""

    def __init__(self) -> None:
        self.watches: list[tuple[Sequence[Tap], Seen]] = []


class _Patched:
    """A layer whose `call` and `compute_mask` tell what they return, and how many computations want it so."""

    def __init__(self, layer: Any) -> None:
        self.layer, self.users = layer, 0
        self.before = {name: vars(layer).get(name) for name in ("call", "compute_mask") if hasattr(layer, name)}


_ACTIVE = _Active()
_PATCHED: dict[int, _Patched] = {}
# Replicas of a strategy take turns in the middle of a computation: the first to end must not end it for the others.
_LOCK = threading.Lock()


@contextlib.contextmanager
def watched(taps: Sequence[Tap], seen: Seen) -> Iterator[None]:
    """While it lasts, what the taps' layers return is kept in `seen`; of a shared layer, what it returns last."""
    layers = list({id(tap.layer): tap.layer for tap in taps}.values())
    with _LOCK:
        for layer in layers:
            if id(layer) not in _PATCHED:
                _PATCHED[id(layer)] = _Patched(layer)
                object.__setattr__(layer, "call", _watching(layer.call, layer))
                if hasattr(layer, "compute_mask"):
                    object.__setattr__(layer, "compute_mask", _masking(layer.compute_mask, layer))
            _PATCHED[id(layer)].users += 1
    _ACTIVE.watches.append((taps, seen))
    try:
        yield
    finally:
        _ACTIVE.watches.pop()
        with _LOCK:
            for layer in layers:
                _release(layer)


def _release(layer: Any) -> None:
    patched = _PATCHED[id(layer)]
    patched.users -= 1
    if patched.users:
        return
    del _PATCHED[id(layer)]
    for name, before in patched.before.items():
        if before is None:
            object.__delattr__(layer, name)
        else:
            object.__setattr__(layer, name, before)


def _wanted(layer: Any) -> list[tuple[Tap, Seen]]:
    return [(tap, seen) for taps, seen in _ACTIVE.watches for tap in taps if tap.layer is layer]


def _masking(compute_mask: Any, layer: Any) -> Any:
    """`compute_mask`, telling the mask that Keras is about to put behind what the layer returned."""

    def masking(*args: Any, **kwargs: Any) -> Any:
        mask = compute_mask(*args, **kwargs)
        for tap, seen in _wanted(layer):
            if not tap.given and not isinstance(mask, (list, tuple)):
                seen.masks[tap.key] = mask
        return mask

    return masking


def _watching(call: Any, layer: Any) -> Any:
    """`call`, telling what it returns; an attention layer's is asked for its scores where a tap wants them."""

    def watching(*args: Any, **kwargs: Any) -> Any:
        wanted = _wanted(layer)
        for tap, seen in wanted:
            if tap.given:
                seen.keep(tap.key, [*args, *kwargs.values()][0])
        if not any(tap.scores for tap, _ in wanted):
            outputs = call(*args, **kwargs)
        else:
            asked = kwargs.pop("return_attention_scores", False)
            outputs, scores = call(*args, **kwargs, return_attention_scores=True)
            for tap, seen in wanted:
                if tap.scores:
                    seen.keep(tap.key, scores, outputs)
            if asked:
                return outputs, scores
        for tap, seen in wanted:
            if not tap.scores and not tap.given:
                seen.keep(tap.key, tap.chosen(outputs))
        return outputs

    return watching


def computed(model: Any, taps: Sequence[Tap], seen: Seen, *args: Any, **kwargs: Any) -> Any:
    """What the model returns; `seen` holds its taps, with the masks that Keras passes along behind them.

    Raises:
        ValueError: the computation did not reach a layer.
    """
    seen.values, seen.masks = {}, {}
    with watched(taps, seen):
        outputs = model(*args, **kwargs)
    for key, mask in seen.masks.items():
        if mask is not None:
            flavor.set_mask(seen.values[key], mask)
    missing = [tap.asked for tap in taps if tap.key not in seen.values]
    if missing:
        raise ValueError(f"{model.name!r} does not use the layer {missing[0]!r} when it is called")
    return outputs


def tried(model: Any, taps: Sequence[Tap]) -> tuple[Any, dict[str, Any]]:
    """Outputs and taps of one row of zeros: what shapes they have."""
    return tried_on_zeros(model, lambda zeros: tried_on(model, taps, zeros))


def tried_on(model: Any, taps: Sequence[Tap], inputs: Any) -> tuple[Any, dict[str, Any]]:
    """Outputs and taps of inputs."""
    seen = Seen()
    outputs = computed(model, taps, seen, inputs, training=False)
    return outputs, dict(seen.values)


def tried_on_zeros(model: Any, function: Callable[[Any], Any]) -> Any:
    """What a function makes of one row of zeros as the model takes it, axes of any length as long as they must be."""
    specs = flavor.input_specs(model)
    *short, longest = LENGTHS if any(None in tuple(spec.shape) for spec in flavor.flatten(specs)) else LENGTHS[:1]
    for length in short:
        # Too short for a window or for so many halvings: TensorFlow has no error of its own for it.
        with contextlib.suppress(Exception):
            return function(_mapped(functools.partial(_zeros, length), specs))
    return function(_mapped(functools.partial(_zeros, longest), specs))


def _zeros(length: int, spec: Any) -> tf.Tensor:
    return tf.zeros([1, *(size or length for size in spec.shape)], spec.dtype or keras.backend.floatx())


def _mapped(function: Any, specs: Any) -> Any:
    if isinstance(specs, dict):
        return {name: _mapped(function, spec) for name, spec in specs.items()}
    if isinstance(specs, (list, tuple)):
        return [_mapped(function, spec) for spec in specs]
    return function(specs)
