"""tf_keras: variables, and what stands in their place."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from tfcompress.core.attributes import exchanging, held, owned
from tfcompress.core.errors import CompressionError
from tfcompress.core.legacy.graph import sublayers

VARIABLES = (tf.Variable,)


def is_variable(value: Any) -> bool:
    """Whether this is a weight."""
    return isinstance(value, tf.Variable)


def own_variables(layer: Any) -> dict[str, Any]:
    """The variables that a layer owns itself, by attribute or path inside one ("token", "tables.0")."""
    return owned(layer, [*layer._trainable_weights, *layer._non_trainable_weights], is_variable, variable_name)


def variable_name(variable: Any) -> str:
    """The variable's own name: "kernel"."""
    return variable_path(variable).split("/")[-1]


def variable_path(variable: Any) -> str:
    """The variable's name with its layer's: "dense/kernel"."""
    return variable.name.split(":")[0]


def regularizer_of(layer: Any, variable: Any) -> Any:
    """The regularizer of a variable, which tf_keras keeps only inside the closure of a loss."""
    for loss in layer._callable_losses:
        while isinstance(loss, functools.partial) and isinstance(loss.args[0], functools.partial):
            loss = loss.args[0]
        bound = loss.args[0] if isinstance(loss, functools.partial) else None
        if bound is variable or (bound is not None and getattr(bound, "_variable", None) is variable):
            return dict(zip(loss.func.__code__.co_freevars, loss.func.__closure__ or (), strict=True))[
                "regularizer"
            ].cell_contents
    return None


def constraint_of(variable: Any) -> Any:
    """What is applied to a variable after each optimizer step, or None."""
    return variable.constraint


def constrain(variable: Any, constraint: Any) -> None:
    """Have something applied to a variable after each optimizer step; None ends it."""
    inner = getattr(variable, "_variable", variable)  # an autocast variable stands for the real one
    for part in getattr(inner, "_values", (inner,)):  # a distributed one for one on each device
        part._constraint = constraint


def add_penalty(layer: Any, variable: Any, penalty: Callable[[Any], Any]) -> Callable[[], None]:
    """Add a penalty of one of the layer's variables to its losses; what is returned takes it away again."""

    def loss() -> Any:
        return penalty(variable)

    layer._callable_losses.append(loss)

    def undo() -> None:
        layer._callable_losses.remove(loss)

    return undo


def swap_variable(layer: Any, attribute: str, shape: Sequence[int], dtype: str) -> Any:
    """A new variable, not trained, in place of the one in an attribute of a built layer; the old one is forgotten."""
    old = getattr(layer, attribute)
    inner = getattr(old, "_variable", old)

    def bound(loss: Any) -> bool:
        while isinstance(loss, functools.partial):
            loss = loss.args[0] if loss.args else None
        return loss is old or getattr(loss, "_variable", loss) is inner

    layer._callable_losses = [loss for loss in layer._callable_losses if not bound(loss)]
    name = variable_name(old)
    delattr(layer, attribute)
    new = layer.add_weight(name=name, shape=tuple(shape), dtype=dtype, initializer="zeros", trainable=False)
    setattr(layer, attribute, new)
    return new


def watch_gradients(optimizer: Any, seen: Callable[[list], None]) -> Callable[[], None]:
    """Show `seen` the (gradient, variable) pairs of each step before they are applied; what is returned ends it."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)  # behind the one that scales losses
    original = inner.apply_gradients

    def apply_gradients(grads_and_vars: Any, *args: Any, **kwargs: Any) -> Any:
        pairs = list(grads_and_vars)
        seen(pairs)
        return original(pairs, *args, **kwargs)

    vars(inner)["apply_gradients"] = apply_gradients
    return lambda: vars(inner).pop("apply_gradients", None)


def replaced(layer: Any, replacements: Sequence[tuple[Any, Any]], call: Callable[[], Any]) -> Any:
    """The outputs of `call()`, for which variables of `layer` (at any depth) read as the given tensors.

    Args:
        layer: the layer whose call happens inside `call`.
        replacements: (variable, tensor) pairs; the tensor is of the variable's shape unless that holds whole numbers.
        call: computes the outputs.

    Returns:
        What `call` returns. What it assigned to other variables is assigned, what it added as losses is added.

    Raises:
        CompressionError: a variable stands in no attribute of the layer or its sublayers.
    """
    pairs: list[tuple[Any, dict[int, Any]]] = []
    seen: set[int] = set()
    for part in (layer, *sublayers(layer, recursive=True)):
        others = {}
        for _, value in held(part, is_variable):
            for variable, tensor in replacements:
                inner = getattr(variable, "_variable", variable)
                if value is variable or getattr(value, "_variable", None) is inner:
                    cast = value is not variable or hasattr(value, "_variable") or not value.dtype.is_floating
                    others[id(value)] = tf.cast(tensor, part.compute_dtype if cast else value.dtype)
                    seen.add(id(variable))
        pairs.append((part, others))
    missing = [variable_path(v) for v, _ in replacements if id(v) not in seen]
    if missing:
        raise CompressionError(
            f"layer {layer.name!r} holds {missing} in none of its attributes, so nothing can stand in for it"
        )
    with exchanging(pairs):
        return call()


def read(variable: Any) -> tf.Tensor:
    """A variable as a tensor of its own dtype, whatever the layer around computes in."""
    return tf.convert_to_tensor(getattr(variable, "_variable", variable))


def dtype_policy(layer: Any) -> Any:
    """The dtypes that a layer computes in and keeps its weights in."""
    return layer._dtype_policy


def mean_over_replicas() -> dict[str, Any]:
    """Arguments of `add_weight` for a variable whose replicas agree on the mean of what each assigns."""
    return {"aggregation": tf.VariableAggregation.MEAN}


def compute_in_float32(layer: Any) -> None:
    """Let a layer whose dtype policy is a mixed one compute in the type of its variables."""
    for part in (layer, *sublayers(layer, recursive=True)):
        if part.dtype != part.compute_dtype:
            part._set_dtype_policy("float32")
