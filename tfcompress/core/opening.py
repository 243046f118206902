"""One pass over a model in which composite layers record what they compute instead of themselves."""

import contextlib
import functools
import inspect
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.attributes import exchanged
from tfcompress.core.fingerprint import CannotOpen, Fingerprint, is_batch, symbolic
from tfcompress.core.flavor import keras
from tfcompress.core.opaque import Opaque, Weight, saveable
from tfcompress.core.projected import carry, plain_constraint
from tfcompress.core.rebuild import rebuilds
from tfcompress.core.replay import Call, calls, run
from tfcompress.core.select import mark_within

ORIGINAL_CALL = keras.layers.Layer.__call__
ONE_AT_A_TIME = threading.RLock()


def is_composite(layer: Any) -> bool:
    """Whether a layer's call uses other layers and may be opened.

    Recurrent layers, Bidirectional and TimeDistributed are leaves: what is inside runs once per step.
    """
    if not isinstance(layer, keras.layers.Layer) or flavor.is_whole(layer) or getattr(layer, "stays_whole", False):
        return False
    return bool(flavor.sublayers(layer))


class Closed:
    """What stays shut, learned from pass to pass, and the helper layers, which are the same in every pass."""

    def __init__(self) -> None:
        self.reasons: dict[int, str] = {}
        self.training: dict[int, bool] = {}
        self._helpers: dict[int, Any] = {}
        self._constants: dict[tuple, Weight] = {}
        self._rebuilds: dict[int, bool] = {}
        self._names: dict[int, tuple[Any, str]] = {}

    def __len__(self) -> int:
        return len(self.reasons) + len(self.training)

    def name(self, operation: Any) -> str:
        """The name that an operation had when it was first seen, before tracing renamed it."""
        return self._names.setdefault(id(operation), (operation, operation.name))[1]

    def must_open(self, layer: Any) -> bool:
        """Whether a leaf could not be loaded again, so that what its call does is to be saved in its place."""
        return id(layer) not in self.reasons and not self._rebuilds.setdefault(id(layer), rebuilds(layer))

    def helper(self, subject: Any, make: Callable[[], Any]) -> Any:
        """The helper layer that stands for a layer or variable."""
        if id(subject) not in self._helpers:
            self._helpers[id(subject)] = make(), subject
        return self._helpers[id(subject)][0]

    def constant(self, owner: Any, value: np.ndarray) -> Weight:
        """The layer that holds a constant of a composite; the same for the same values."""
        key = id(owner), value.dtype.name, value.shape, value.tobytes()
        if key not in self._constants:
            weight = Weight(value.shape, "constant", False, dtype=value.dtype.name, name="constant")
            weight.build()
            weight.weight.assign(value)
            self._constants[key] = weight
        return self._constants[key]


class Pass:
    """A pass: `with Pass(...) as current: outputs = current.graph(model, inputs)`.

    Attributes:
        events: for each composite (by id) what each of its calls did itself; equal between two passes unless it depends
            on the mode, on random numbers or on the batch as a number.
        said: for each leaf (by id) the values of `training` that composites called it with.
        paths: for each operation (by id) the operation and its name as a path.
        owners: for each operation (by id) the innermost composite that called it.
    """

    def __init__(self, closed: Closed, copy: Callable[[Any], Any], training: bool, batch: int | None) -> None:
        self.closed, self.copy, self.training, self.batch = closed, copy, training, batch
        self.events: dict[int, list] = {}
        self.said: dict[int, list[tuple[Any, Any]]] = {}
        self.paths: dict[int, tuple[Any, tuple[str, ...]]] = {}
        self.owners: dict[int, Any] = {}
        self._nodes: dict[int, Any] = {}
        self._path: tuple[str, ...] = ()
        self._within: tuple[type, ...] = ()
        self._stack: list[Any] = []
        self._references: list[Any] = []
        self._tape: tf.GradientTape | None = None
        self._inherited: list[Any] = [None]
        self._paused = 0

    def __enter__(self) -> "Pass":
        ONE_AT_A_TIME.acquire()
        thread, current = threading.get_ident(), self

        def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
            if current._paused or threading.get_ident() != thread:
                return ORIGINAL_CALL(layer, *args, **kwargs)
            if not symbolic((args, kwargs)):
                if not current._stack or not layer.weights:
                    return ORIGINAL_CALL(layer, *args, **kwargs)
                args, kwargs = flavor.map_structure(current._constant, (args, kwargs))
            return current._layer(layer, args, kwargs)

        keras.layers.Layer.__call__ = call
        return self

    def __exit__(self, *exception: Any) -> None:
        keras.layers.Layer.__call__ = ORIGINAL_CALL
        ONE_AT_A_TIME.release()

    def graph(self, model: Any, tensors: list) -> Any:
        """The calls of a graph, made on copies of its layers; nested graphs and composites are opened."""
        values = {id(old): new for old, new in zip(flavor.flatten(flavor.graph_inputs(model)), tensors, strict=True)}
        run(calls(model), values, self._step)
        return flavor.map_structure(lambda t: values[id(t)], flavor.graph_outputs(model))

    def composite(self, layer: Any, args: tuple) -> Any:
        """A subclassed model as the whole of what is traced."""
        return self._open_or_close(layer, args, {}, ())

    def _step(self, call: Call, args: tuple, kwargs: dict[str, Any]) -> Any:
        operation = call.operation
        if flavor.is_graph(operation) and not flavor.overrides_call(operation):
            return self._nested(operation, args, kwargs)
        operation = self.copy(operation)
        if not isinstance(operation, keras.layers.Layer) or flavor.is_operation(operation):
            self._place(operation)
        return operation(*args, **kwargs)

    def _nested(self, model: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        """A nested graph, opened; a `training` it is called with is handed on to its layers."""
        given = dict(inspect.signature(model.call).bind(*args, **kwargs).arguments)
        training = given.get("training")
        if not flavor.HONORS_TRAINING and not self._stack:
            training = None
        first = next(iter(given.values()))
        before = self._path, self._within
        self._path, self._within = (*self._path, model.name), (*self._within, type(model))
        self._inherited.append(training if training is not None else self._inherited[-1])
        try:
            outputs = self.graph(model, flavor.reference_inputs(model, first))
        finally:
            self._path, self._within = before
            self._inherited.pop()
        return outputs[0] if isinstance(outputs, (list, tuple)) and len(outputs) == 1 else outputs

    def _layer(self, layer: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        """What a layer's `__call__` does during a pass."""
        if flavor.is_graph(layer) and not flavor.overrides_call(layer):
            return self._nested(layer, args, kwargs)
        args, kwargs = _training_by_name(layer, args, kwargs)
        if flavor.accepts_training(layer) and kwargs.get("training") is None and self._inherited[-1] is not None:
            kwargs["training"] = self._inherited[-1]
        kwargs |= flavor.mask_arguments(layer, args, kwargs)
        if is_composite(layer) or self.closed.must_open(layer):
            return self._open_or_close(layer, args, kwargs, (*self._path, self.closed.name(layer)))
        return self._leaf(layer, args, kwargs)

    def _leaf(self, layer: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        if self._stack and flavor.accepts_training(layer):
            self.said.setdefault(id(layer), []).append((kwargs.pop("training", None), self._stack[-1]))
            fixed = self.closed.training.get(id(layer))
            if fixed is not None and flavor.HONORS_TRAINING:
                kwargs["training"] = fixed
            elif fixed is not None:
                layer = self._with_training(layer, fixed, args, kwargs)
        layer, args, kwargs = saveable(layer, args, kwargs)
        self._record(layer)
        with self._pause():
            outputs = ORIGINAL_CALL(layer, *args, **kwargs)
        flavor.settle_shapes(layer, args, kwargs, outputs)
        flavor.settle_masks(layer, args, kwargs, outputs, opened=False)
        return outputs

    def _with_training(self, layer: Any, fixed: bool, args: tuple, kwargs: dict[str, Any]) -> Any:
        """The layer, in one mode for good if it makes a difference."""
        if isinstance(layer, Opaque):
            layer.training = fixed
            return layer
        with self._unwatched():
            if not _reacts(layer, args, kwargs):
                return layer
        reason = f"is called with training={fixed} whatever the mode"
        return self.closed.helper(layer, lambda: Opaque(layer, reason, training=fixed, name=layer.name))

    def _constant(self, value: Any) -> Any:
        """A constant that a composite gives to a layer with weights (positions to an embedding), as a node."""
        if not isinstance(value, (tf.Tensor, np.ndarray)):
            return value
        array = np.asarray(value)
        if array.ndim and is_batch(array.shape[0], self.batch):
            raise CannotOpen("gives a layer a constant with a row for each sample")
        with self._unwatched():
            return self._leaf(self.closed.constant(self._stack[-1], array), (self._references[-1],), {})

    def _place(self, operation: Any) -> None:
        """Note where an operation stands: the names around it for its own, the classes for selections."""
        self.paths.setdefault(id(operation), (operation, (*self._path, self.closed.name(operation))))
        mark_within(operation, self._within)

    def _record(self, operation: Any) -> None:
        self._place(operation)
        if self._stack:
            self.owners.setdefault(id(operation), self._stack[-1])

    @contextlib.contextmanager
    def _pause(self) -> Iterator[None]:
        """While a leaf runs its own call, nothing is opened and what it reads is its own matter."""
        self._paused += 1
        try:
            with self._unwatched():
                yield
        finally:
            self._paused -= 1

    @contextlib.contextmanager
    def _unwatched(self) -> Iterator[None]:
        """While this holds, no composite is charged with the variables that are read."""
        tape, self._tape = self._tape, None
        try:
            with tape.stop_recording() if tape is not None else contextlib.nullcontext():
                yield
        finally:
            self._tape = tape

    def _open_or_close(self, layer: Any, args: tuple, kwargs: dict[str, Any], path: tuple[str, ...]) -> Any:
        if id(layer) not in self.closed.reasons:
            before, depth = (self._path, self._within), len(self._inherited)
            self._path, self._within = path, (*self._within, type(layer))
            try:
                return self._open(layer, args, dict(kwargs))
            except Exception as error:  # whatever a stranger's call does: then it stays one node
                self.closed.reasons[id(layer)] = _reason(error)
                self.events.pop(id(layer), None)
            finally:
                self._path, self._within = before
                del self._inherited[depth:]
        if not is_composite(layer):
            return self._leaf(layer, args, kwargs)
        reason = self.closed.reasons[id(layer)]
        node = self.closed.helper(layer, lambda: Opaque(layer, reason, name=path[-1] if path else layer.name))
        mark_within(node, (type(layer),))
        return self._leaf(node, args, kwargs)

    def _open(self, layer: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        """The outputs of the layer's `call`, of which every inner call is a node of its own."""
        if getattr(layer, "activity_regularizer", None) is not None:
            raise CannotOpen("has an activity regularizer")
        if flavor.accepts_training(layer) and kwargs.get("training") is None:
            kwargs["training"] = self.training
        given = symbolic((args, kwargs))
        self._stack.append(layer)
        self._references.append(given[0])
        self._inherited.append(None)
        try:
            cast_args, cast_kwargs = flavor.cast_inputs(layer, args, kwargs)
            with self._unwatched(), _attributes(layer, {**self._weights(layer, given[0]), "add_loss": _refuse_loss}):
                with tf.GradientTape() as self._tape:
                    outputs = layer.call(*cast_args, **cast_kwargs)
                read = self._tape.watched_variables()
            if read:
                raise CannotOpen(f"reads weights of its sublayers: {', '.join(v.name for v in read[:3])}")
            if not symbolic(outputs):
                raise CannotOpen("returns no tensor that depends on its inputs")
            self._claim(layer, given, outputs)
            flavor.settle_masks(layer, args, kwargs, outputs, opened=True)
            return outputs
        finally:
            self._stack.pop()
            self._references.pop()
            self._inherited.pop()

    def _weights(self, layer: Any, reference: Any) -> dict[str, Any]:
        """The layer's attributes that hold its own variables, with their values as tensors of the graph instead."""
        tensors = {}
        for path, variable in flavor.own_variables(layer).items():
            name = path.replace(".", "_").lstrip("_")
            helper = self.closed.helper(variable, functools.partial(_weight, layer, variable, name))
            tensors[id(variable)] = self._leaf(helper, (reference,), {})
        return exchanged(layer, tensors)

    def _claim(self, layer: Any, given: list, outputs: Any) -> None:
        """Note what the layer's call did itself: the nodes behind its outputs that no inner composite has claimed."""
        numbers: dict[int, int] = {}
        edge = [*given, *(m for m in map(flavor.mask_of, given) if flavor.is_symbolic(m))]
        for tensor in edge:
            numbers.setdefault(id(tensor), len(numbers))
        border = set(numbers)
        describe = Fingerprint(numbers, self.batch)
        todo, done = symbolic(outputs)[::-1], []
        events = [describe(symbolic(outputs))]
        while todo:
            tensor = todo.pop()
            made = None if id(tensor) in border else flavor.producer(tensor)
            if made is None or id(made[2]) in self._nodes:
                continue
            operation, _, node = made
            self._nodes[id(node)] = node
            args, kwargs = flavor.node_arguments(node)
            events.append((describe.operation(operation), describe(args), describe(kwargs)))
            done.append(operation)
            todo.extend(symbolic((args, kwargs))[::-1])
        for operation in reversed(done):
            self._record(operation)
        self.events.setdefault(id(layer), []).append(events)


@contextlib.contextmanager
def _attributes(layer: Any, values: dict[str, Any]) -> Iterator[None]:
    """While this holds, attributes of a layer have other values; set past Keras' tracking."""
    attributes = vars(layer)
    before = {name: attributes[name] for name in values if name in attributes}
    attributes.update(values)
    try:
        yield
    finally:
        for name in values:
            attributes.pop(name, None)
        attributes.update(before)


def _refuse_loss(*_: Any, **__: Any) -> None:
    raise CannotOpen("adds a loss in its call")


def _reacts(layer: Any, args: tuple, kwargs: dict[str, Any]) -> bool:
    """Whether a layer computes something else in training than in inference."""
    tensors = symbolic((args, kwargs))
    specs = [tf.TensorSpec(tuple(t.shape), tf.as_dtype(t.dtype)) for t in tensors]

    def operations(training: bool) -> list[str]:
        def compute(*values: Any) -> Any:
            at = {id(t): v for t, v in zip(tensors, values, strict=True)}
            given, named = flavor.map_structure(lambda v: at.get(id(v), v), (args, kwargs))
            return layer.call(*given, **named, training=training)

        graph = tf.function(compute).get_concrete_function(*specs).graph
        return [operation.type for operation in graph.get_operations()]

    return operations(True) != operations(False)


def _training_by_name(layer: Any, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """The same arguments, with everything from a positional `training` on given by keyword."""
    if len(args) < 2 or not flavor.accepts_training(layer):
        return args, dict(kwargs)
    names = [p.name for p in inspect.signature(layer.call).parameters.values()]
    at = names.index("training")
    return args[:at], {**dict(zip(names[at:], args[at:], strict=False)), **kwargs}


def _weight(layer: Any, variable: Any, name: str) -> Weight:
    """A Weight layer with the value of a composite's variable."""
    floating = tf.as_dtype(variable.dtype).is_floating
    weight = Weight(
        tuple(variable.shape), flavor.variable_name(variable), bool(variable.trainable),
        flavor.regularizer_of(layer, variable), plain_constraint(variable),
        dtype=layer.dtype_policy if floating else tf.as_dtype(variable.dtype).name, name=name,
        trainable=layer.trainable)  # fmt: skip
    weight.build()
    weight.weight.assign(tf.convert_to_tensor(variable))
    carry(variable, weight.weight)
    return weight


def _reason(error: Exception) -> str:
    """One sentence that says why a composite was not opened."""
    if isinstance(error, CannotOpen):
        return str(error)
    text = " ".join(re.sub(r"\x1b\[\d*m", "", str(error)).split())
    if "__len__" in text or "Python `bool`" in text or "as a boolean" in text:
        return "its call branches on the value of a tensor, or asks for its length"
    said = re.split(r" (?:Arguments|Call arguments) received by ", text)[0]
    return f"its call cannot be recorded: {type(error).__name__}: {said}"
