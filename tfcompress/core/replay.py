"""The calls of a graph in order, and the same calls made again with some of them answered differently."""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tfcompress.core import flavor
from tfcompress.core.flavor import keras


@dataclass(frozen=True)
class Call:
    """One call in the graph of a Functional or Sequential model.

    Invariants: `inputs` are the symbolic tensors in `args` and `kwargs`, `outputs` those in `output_structure`, both in
    the order in which Keras flattens them; a nested model is one call, its operation is the model.
    """

    operation: Any
    """The layer, nested model or plain operation that was called."""
    args: tuple
    """Positional arguments, with the symbolic tensors of the old graph."""
    kwargs: dict[str, Any]
    """Keyword arguments, with the symbolic tensors of the old graph."""
    inputs: list
    """Symbolic tensors among the arguments."""
    outputs: list
    """Symbolic tensors that the call returned."""
    output_structure: Any
    """What the call returned; Keras 3 keeps no structure, so there several outputs are a flat list."""

    @property
    def name(self) -> str:
        """The name of the operation; calls of a shared layer have the same."""
        return self.operation.name


def calls(model: keras.Model) -> list[Call]:
    """Every call of a graph, in an order in which each call's inputs are made before it.

    Args:
        model: a Functional model, or a Sequential one that is built.

    Returns:
        The calls; input layers are left out, a nested model is one call.

    Raises:
        ValueError: the model holds no graph of calls.

    >>> from tfcompress.core.flavor import keras
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="a"), keras.layers.ReLU(name="b")])
    >>> [call.name for call in calls(model)]
    ['a', 'b']
    """
    if not flavor.is_graph(model):
        raise ValueError(
            f"`model` must be a graph of calls: a Functional model or a Sequential one that is built; "
            f"`tfcompress.trace` makes one of any model. Received: model={model!r}"
        )
    return [
        Call(operation, tuple(args), dict(kwargs), inputs, flavor.flatten(outputs), outputs)
        for operation, args, kwargs, inputs, outputs in flavor.graph_nodes(model)
    ]


def readers(steps: Iterable[Call]) -> dict[int, list[Call]]:
    """For each tensor, by its id, the calls that read it, in order; once for each time that a call does."""
    found: dict[int, list[Call]] = {}
    for step in steps:
        for tensor in step.inputs:
            found.setdefault(id(tensor), []).append(step)
    return found


def again(call: Call, args: tuple, kwargs: dict[str, Any]) -> Any:
    """The old operation, called on the new tensors."""
    return call.operation(*args, **kwargs)


def run(
    steps: list[Call], values: dict[int, Any], call: Callable[[Call, tuple, dict[str, Any]], Any]
) -> dict[int, Any]:
    """Make calls on other tensors.

    Args:
        steps: calls in order.
        values: the new tensor for each old input, by the old one's id; grows by the outputs of each call.
        call: makes one call on the new tensors.

    Returns:
        `values`.

    Raises:
        ValueError: a call returned another number of tensors than the old one.
    """
    for step in steps:
        args, kwargs = flavor.map_structure(
            lambda t: values[id(t)] if flavor.is_symbolic(t) else t, (step.args, step.kwargs)
        )
        symbolic = any(flavor.is_symbolic(t) for t in flavor.flatten((args, kwargs)))
        with flavor.drawn(step.operation) if symbolic else contextlib.nullcontext():
            outputs = flavor.flatten(call(step, args, kwargs))
        for tensor in outputs:
            made = flavor.producer(tensor) if flavor.is_symbolic(tensor) else None
            if made is not None:
                flavor.settle_shapes(made[0], *flavor.node_arguments(made[2]), tensor)
        if len(outputs) != len(step.outputs):
            raise ValueError(
                f"`call` must return as many tensors as {step.name!r} does ({len(step.outputs)}). "
                f"Received: {len(outputs)}"
            )
        values.update((id(old), new) for old, new in zip(step.outputs, outputs, strict=True))
    return values


def replay_with(model: keras.Model, make: Callable[[Any], Any]) -> keras.Model:
    """`replay` in which each layer or operation is what `make` gives for it, asked once however often it is called.

    >>> from tfcompress.core.flavor import keras
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2), keras.layers.ReLU()])
    >>> same = replay_with(model, lambda old: keras.layers.Identity() if isinstance(old, keras.layers.ReLU) else old)
    >>> type(same.layers[-1]).__name__, same.layers[-2] is model.layers[-2]
    ('Identity', True)
    """
    made: dict[int, Any] = {}

    def call(old: Call, args: tuple, kwargs: dict[str, Any]) -> Any:
        operation = old.operation
        if id(operation) not in made:
            made[id(operation)] = make(operation)
        return made[id(operation)](*args, **kwargs)

    return replay(model, call)


def replay(
    model: keras.Model,
    call: Callable[[Call, tuple, dict[str, Any]], Any] | None = None,
    *,
    name: str | None = None,
    batch_size: Any = "same",
    shapes: Sequence[Sequence[int | None]] | None = None,
) -> keras.Model:
    """The same calls again, as a new Functional model.

    Args:
        model: a Functional model, or a Sequential one that is built.
        call: `(old call, args, kwargs) -> outputs`, given the new tensors; makes the old call again by default.
        name: of the new model; the old one's by default.
        batch_size: int or None for another batch size of the inputs than the old ones.
        shapes: of the inputs in the order in which Keras flattens them, without batch; None: as they were.

    Returns:
        A model with new inputs (same names, dtypes and structure; same shapes by default) and the same structure of
        outputs. It shares the layers of the old model, except where `call` uses others.

    Raises:
        ValueError: the model holds no graph of calls, or `call` returned another number of tensors than the old call.

    >>> import numpy as np
    >>> from tfcompress.core.flavor import keras
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.ReLU(), keras.layers.ReLU()])
    >>> twice = replay(model, lambda old, args, kwargs: keras.layers.Rescaling(2.0)(args[0]))
    >>> float(twice.predict(np.ones((1, 2)), verbose=0)[0, 0])
    4.0
    """
    steps = calls(model)
    structure = flavor.graph_inputs(model)
    symbols = flavor.flatten(structure)
    given: Sequence[Any] = shapes or [None] * len(symbols)
    sizes = {id(old): shape for old, shape in zip(symbols, given, strict=True)}
    values: dict[int, Any] = {}

    def like(old: Any) -> Any:
        if not flavor.is_symbolic(old):
            return old
        return values.setdefault(id(old), flavor.input_like(old, batch_size, shape=sizes[id(old)]))

    inputs = flavor.map_structure(like, structure)
    with flavor.masks_may_end():
        run(steps, values, call or again)
    outputs = flavor.map_structure(lambda t: values[id(t)], flavor.graph_outputs(model))
    return keras.Model(inputs, outputs, name=name or model.name)
