"""Any model as a flat graph of leaf layers and plain operations that computes the same."""

import itertools
import re
from collections.abc import Iterator
from typing import Any

from tfcompress.core import flavor
from tfcompress.core.attributes import Spec
from tfcompress.core.copy import Memo, copy_layer
from tfcompress.core.dynamic import Loosened, free_primes
from tfcompress.core.flavor import keras
from tfcompress.core.opaque import Einsum, Opaque
from tfcompress.core.opening import Closed, Pass, is_composite
from tfcompress.core.replay import Call, again, calls, run

_INTEGERS = ("Embedding", "NotEqual")  # what reads whole numbers
_DIFFERS = "does something else in training than in inference, or computes with random numbers or the batch size"
_MIXES = "calls a layer now in one mode, now in another, whatever its own"


def trace(model: keras.Model, *, batch_size: int | None = None) -> keras.Model:
    """A model as a flat Functional graph of copied leaf layers and plain operations.

    Nested models, layers whose call uses other layers, and subclassed models are opened: what their calls do becomes
    part of the graph. Weights that such a composite owned itself become `Weight` layers. Recurrent layers,
    Bidirectional and TimeDistributed stay whole. A composite that cannot be called symbolically, adds losses, or does
    something else in training than in inference (random depth) stays one `Opaque` layer; `opaque` lists them.

    Args:
        model: any built model; it is left as it is.
        batch_size: of the traced model's inputs; None keeps the model's own (any size, as a rule).

    Returns:
        A model of the same name and the same structure of inputs and outputs. Layers of the outermost graph keep their
        names, inner ones are named by their path, joined by dots ("block.attention.query"). It shares no weight with
        `model`, and is saved and loaded like any other.

    Raises:
        TypeError: not a model, or a model of the other flavor of Keras.
        ValueError: a model that is not built, or does not remember the shapes it was built with.

    >>> from tfcompress.core.flavor import keras
    >>> inner = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="a")], name="inner")
    >>> model = keras.Sequential([keras.Input((3,)), inner, keras.layers.ReLU(name="b")])
    >>> [layer.name for layer in trace(model).layers[1:]]
    ['inner.a', 'b']
    """
    flavor.check_model(model)
    is_flat_root = flavor.is_graph(model) and not flavor.overrides_call(model)
    tracer = _Graph(model, batch_size) if is_flat_root else _Subclassed(model, batch_size)
    with flavor.masks_may_end():
        return tracer.trace()


def opaque(model: keras.Model) -> dict[str, str]:
    """The composites of a traced model that stayed closed.

    Args:
        model: what `trace` returned, or a model made from it.

    Returns:
        The reason by the layer's name.
    """
    layers = flavor.sublayers(model, recursive=True)
    return {layer.name: layer.reason for layer in layers if isinstance(layer, Opaque)}


class _Graph:
    """Traces a Functional or Sequential model; `copies` holds a copy of all that its graphs call."""

    def __init__(self, model: Any, batch_size: int | None) -> None:
        self.model, self.batch_size = model, batch_size
        self.copies: Memo = {}
        self.closed = Closed()
        self.operations = list(_operations(model))
        for operation in self.operations:
            copy_layer(operation, self.copies)
        self.known = _recorded_calls(self.copies)

    def trace(self) -> keras.Model:
        layers = [self._copy(operation) for operation in self.operations]
        if not any(is_composite(layer) or self.closed.must_open(layer) for layer in layers):
            return self._flat()
        while (model := self._opened()) is None:
            pass
        return model

    def _copy(self, operation: Any) -> Any:
        return self.copies[id(operation)][0] if id(operation) in self.copies else operation

    def _inputs(self, batch: Any) -> Any:
        """New inputs like the model's; `batch` stands where theirs is None."""

        def like(tensor: Any) -> Any:
            return flavor.input_like(tensor, batch if batch is not None and tensor.shape[0] is None else "same")

        return flavor.map_structure(like, flavor.graph_inputs(self.model))

    def _call(self, current: Pass, inputs: Any) -> Any:
        return current.graph(self.model, flavor.flatten(inputs))

    def _flat(self) -> keras.Model:
        """A graph with no composite needs one pass; nothing in it computes with a batch that it did not have before."""
        inputs = self._inputs(self.batch_size)
        with Pass(self.closed, self._copy, False, None) as current:
            outputs = self._call(current, inputs)
        _rename(current, inputs)
        return keras.Model(inputs, outputs, name=self.model.name)

    def _opened(self) -> keras.Model | None:
        """Two passes, in two modes and with two batches, compared; None when the next passes must close more."""
        shut = len(self.closed)
        primes = self._primes()
        inputs = self._inputs(primes[0])
        with Pass(self.closed, self._copy, False, primes[0]) as first:
            outputs = self._call(first, inputs)
        with Pass(self.closed, self._copy, True, primes[1]) as second:
            self._call(second, self._inputs(primes[1]))
        if len(self.closed) == shut:
            self._close_what_differs(first, second)
        if len(self.closed) > shut:
            return None
        _rename(first, inputs)
        steps = calls(keras.Model(inputs, outputs))
        if not self._accept(steps, inputs):
            return None
        self._forget(steps)
        return self._again(first, inputs, outputs, steps, primes[0])

    def _accept(self, steps: list[Call], inputs: Any) -> bool:
        """Whether the inputs are right for what is called."""
        return True

    def _close_what_differs(self, first: Pass, second: Pass) -> None:
        for owner, events in first.events.items():
            if events != second.events.get(owner):
                self.closed.reasons[owner] = _DIFFERS
        for layer, said in first.said.items():
            pairs = [(value, other) for (value, _), (other, _) in zip(said, second.said.get(layer, ()), strict=False)]
            fixed = {value for value, other in pairs if value is not None and value == other}
            if len(fixed) == 1 and all(value == other for value, other in pairs):
                self.closed.training.setdefault(layer, bool(fixed.pop()))
            elif fixed:
                self.closed.reasons.update((id(owner), _MIXES) for _, owner in said)

    def _forget(self, steps: list[Call]) -> None:
        """Let the copies forget the passes, so that the result's calls are the only ones they remember."""
        used = {id(step.operation): step.operation for step in steps}
        for operation in used.values():
            flavor.forget_calls(operation)
        for operation, count in self.known:
            if id(operation) not in used:
                flavor.forget_calls(operation, count)

    def _again(
        self, first: Pass, inputs: Any, outputs: Any, steps: list[Call], prime: int | None
    ) -> keras.Model | None:
        """The graph once more, with the batch that the result is to have; None when more must be closed."""
        free = flavor.map_structure(
            lambda t: flavor.input_like(t, self.batch_size if t.shape[0] == prime else "same"), inputs
        )
        values = {id(old): new for old, new in zip(flavor.flatten(inputs), flavor.flatten(free), strict=True)}
        if prime is None:
            run(steps, values, again)
        else:
            loosened = Loosened(prime, flavor.flatten(free)[0])
            loosened.run(steps, values)
            for operation, reason in loosened.failed:
                if id(operation) not in first.owners:
                    raise ValueError(reason)
                self.closed.reasons[id(first.owners[id(operation)])] = reason
            if loosened.failed:
                return None
        return keras.Model(free, flavor.map_structure(lambda t: values[id(t)], outputs), name=self.model.name)

    def _primes(self) -> list[Any]:
        if not flavor.STATIC_BATCH:
            return [None, None]
        tensors = [t for operation, *_, outputs in flavor.graph_nodes(self.model) for t in flavor.flatten(outputs)]
        shapes = itertools.chain((v.shape for v in self.model.variables), (t.shape for t in tensors))
        return free_primes((d for shape in shapes for d in shape), 2)


class _Subclassed(_Graph):
    """Traces a model that is a composite itself."""

    def __init__(self, model: Any, batch_size: int | None) -> None:
        self.model, self.batch_size = model, batch_size
        self.copies: Memo = {}
        self.closed = Closed()
        self.root = copy_layer(model, self.copies)
        self.operations = [model]
        self.known = _recorded_calls(self.copies)
        self.specs = flavor.input_specs(model)
        self.whole: set[str] = set()

    def _inputs(self, batch: Any) -> Any:
        def make(spec: Any, name: str) -> Any:
            if isinstance(spec, dict):
                return {key: make(item, key) for key, item in spec.items()}
            if isinstance(spec, Spec):
                dtype = spec.dtype or ("int32" if name in self.whole else keras.backend.floatx())
                return keras.Input(tuple(spec.shape), batch_size=batch, dtype=dtype, name=name)
            return [make(item, f"{name}_{i}") for i, item in enumerate(spec)]

        return make(self.specs, "inputs")

    def _call(self, current: Pass, inputs: Any) -> Any:
        return current.composite(self.root, (inputs,))

    def _accept(self, steps: list[Call], inputs: Any) -> bool:
        """Keras 3 remembers shapes, no types: what only embeddings read are whole numbers."""
        types = {id(t): (t, dtype) for t, dtype in zip(flavor.flatten(inputs), _types(self.specs), strict=True)}
        for key, (tensor, dtype) in types.items():
            readers = {type(step.operation).__name__ for step in steps if any(id(t) == key for t in step.inputs)}
            if dtype is None and "Embedding" in readers and readers <= set(_INTEGERS) and tensor.name not in self.whole:
                self.whole.add(tensor.name)
                return False
        return True

    def _primes(self) -> list[Any]:
        if not flavor.STATIC_BATCH:
            return [None, None]
        return free_primes((d for v in self.model.variables for d in v.shape), 2)


def _types(spec: Any) -> list:
    """The types in a structure of specs, in the order in which Keras flattens it."""
    if isinstance(spec, dict):
        return [dtype for key in sorted(spec) for dtype in _types(spec[key])]
    return [spec.dtype] if isinstance(spec, Spec) else [dtype for item in spec for dtype in _types(item)]


def _operations(model: Any) -> Iterator[Any]:
    """All that the graphs of a model call, graphs themselves opened."""
    for operation, *_ in flavor.graph_nodes(model):
        if flavor.is_graph(operation) and not flavor.overrides_call(operation):
            yield from _operations(operation)
        else:
            yield operation


def _recorded_calls(copies: Memo) -> list[tuple[Any, int]]:
    """Each copied operation with the number of calls it remembers (those of graphs inside composites)."""
    new = (copy for copy, _ in copies.values())
    return [(copy, len(copy._inbound_nodes)) for copy in new if hasattr(copy, "_inbound_nodes")]


def _keeps_name(operation: Any) -> bool:
    """Plain operations are named by a counter of the process, which would number them anew in each pass."""
    return not (flavor.is_operation(operation) or isinstance(operation, Einsum))


def _rename(current: Pass, inputs: Any) -> None:
    """Unique names: those of the outermost graph as they are, inner ones by their path."""
    taken = {tensor.name for tensor in flavor.flatten(inputs)}
    for operation, path in sorted(current.paths.values(), key=lambda entry: len(entry[1]) > 1):
        last = re.sub(r"_\d+$", "", path[-1]) if len(path) > 1 and not _keeps_name(operation) else path[-1]
        base = ".".join((*path[:-1], last))
        name = next(n for n in itertools.chain([base], (f"{base}_{i}" for i in itertools.count(1))) if n not in taken)
        taken.add(name)
        flavor.set_name(operation, name)
