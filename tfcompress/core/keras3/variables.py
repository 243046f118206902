"""Keras 3: variables, and what stands in their place."""

from collections.abc import Callable, Sequence
from typing import Any

import keras as keras3
import tensorflow as tf

# StatelessScope reads the scope around it (nested replacements must see each other); no public name exists.
from keras.src.backend.common.stateless_scope import get_stateless_scope

# Without it a variable read inside a layer has the layer's dtype; no public name exists.
from keras.src.backend.common.variables import AutocastScope

from tfcompress.core.attributes import exchanging, owned
from tfcompress.core.keras3.graph import sublayers

VARIABLES = (tf.Variable,)


def is_variable(value: Any) -> bool:
    """Whether this is a weight."""
    return isinstance(value, keras3.Variable)


def own_variables(layer: Any) -> dict[str, Any]:
    """The variables that a layer owns itself, by attribute or path inside one ("token", "tables.0")."""
    return owned(layer, [*layer._trainable_variables, *layer._non_trainable_variables], is_variable, variable_name)


def variable_name(variable: Any) -> str:
    """The variable's own name: "kernel"."""
    return variable.name


def variable_path(variable: Any) -> str:
    """The variable's name with its layer's: "dense/kernel"."""
    return variable.path


def regularizer_of(layer: Any, variable: Any) -> Any:
    """The regularizer of one of the layer's variables as its user gave it, or None."""
    held = variable.regularizer
    return held.plain if isinstance(held, _Penalized) else held


def constraint_of(variable: Any) -> Any:
    """What is applied to a variable after each optimizer step, or None."""
    return getattr(variable, "constraint", None)


def constrain(variable: Any, constraint: Any) -> None:
    """Have something applied to a variable after each optimizer step; None ends it."""
    variable.constraint = constraint


def add_penalty(layer: Any, variable: Any, penalty: Callable[[Any], Any]) -> Callable[[], None]:
    """Add a penalty of one of the layer's variables to its losses; what is returned takes it away again."""
    held = variable.regularizer
    if not isinstance(held, _Penalized):
        held = variable.regularizer = _Penalized(held)
    held.penalties.append(penalty)

    def undo() -> None:
        held.penalties.remove(penalty)
        if not held.penalties and variable.regularizer is held:
            variable.regularizer = held.plain

    return undo


class _Penalized:
    """A variable's regularizer while there are penalties on it, which come and go in any order."""

    def __init__(self, plain: Callable[[Any], Any] | None) -> None:
        self.plain = plain
        self.penalties: list[Callable[[Any], Any]] = []

    def __call__(self, value: Any) -> Any:
        return sum(term(value) for term in (self.plain, *self.penalties) if term is not None)


def swap_variable(layer: Any, attribute: str, shape: Sequence[int], dtype: str) -> Any:
    """A new variable, not trained, in place of the one in an attribute of a built layer; the old one is forgotten."""
    old = getattr(layer, attribute)
    locked = layer._tracker.locked
    layer._tracker.unlock()
    layer._untrack_variable(old)
    new = layer.add_weight(name=old.name, shape=tuple(shape), dtype=dtype, initializer="zeros", trainable=False)
    setattr(layer, attribute, new)
    if locked:
        layer._tracker.lock()
    return new


def watch_gradients(optimizer: Any, seen: Callable[[list], None]) -> Callable[[], None]:
    """Show `seen` the (gradient, variable) pairs of each step before they are applied; what is returned ends it."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)  # behind the one that scales losses
    original = inner.apply

    def apply(grads: Any, trainable_variables: Any = None) -> Any:
        variables = inner._trainable_variables if trainable_variables is None else trainable_variables
        grads, variables = list(grads), list(variables)
        seen(list(zip(grads, variables, strict=True)))
        return original(grads, trainable_variables if trainable_variables is None else variables)

    vars(inner)["apply"] = apply
    return lambda: vars(inner).pop("apply", None)


class _Scope(keras3.StatelessScope):
    """A scope that knows which variables were assigned to in it; a layer does not list the states that it keeps."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.updated: dict[int, Any] = {}

    def add_update(self, update: tuple[Any, Any]) -> None:
        super().add_update(update)
        self.updated[id(update[0])] = update[0]


def _holds_codes(variable: Any) -> bool:
    return not tf.as_dtype(variable.dtype).is_floating


def replaced(layer: Any, replacements: Sequence[tuple[Any, Any]], call: Callable[[], Any]) -> Any:
    """The outputs of `call()`, for which variables of `layer` (at any depth) read as the given tensors.

    Args:
        layer: the layer whose call happens inside `call`.
        replacements: (variable, tensor) pairs; the tensor is of the variable's shape unless that holds whole numbers.
        call: computes the outputs.

    Returns:
        What `call` returns. What it assigned to other variables is assigned, what it added as losses is added.
    """
    around = get_stateless_scope()
    like = [(v, t) for v, t in replacements if not _holds_codes(v)]
    codes = [(v, t) for v, t in replacements if _holds_codes(v)]  # a scope takes only tensors like the variable
    parts = (layer, *sublayers(layer, recursive=True)) if codes else ()
    pairs = [(part, {id(v): tf.cast(t, part.compute_dtype) for v, t in codes}) for part in parts]
    scope = _Scope(state_mapping=like, collect_losses=True)
    if around is not None:
        scope.state_mapping = {**around.state_mapping, **scope.state_mapping}
    with scope, exchanging(pairs):
        outputs = call()
    hidden = {id(variable) for variable, _ in replacements}
    for variable in scope.updated.values():
        if id(variable) not in hidden:
            variable.assign(scope.get_current_value(variable))
    for loss in scope.losses:
        layer.add_loss(loss)
    return outputs


def read(variable: Any) -> tf.Tensor:
    """A variable as a tensor of its own dtype, whatever the layer around computes in."""
    with AutocastScope(None):
        return tf.convert_to_tensor(variable.value)


def dtype_policy(layer: Any) -> Any:
    """The dtypes that a layer computes in and keeps its weights in."""
    return layer.dtype_policy


def mean_over_replicas() -> dict[str, Any]:
    """Arguments of `add_weight` for a variable whose replicas agree on the mean of what each assigns."""
    return {"aggregation": "mean"}


def compute_in_float32(layer: Any) -> None:
    """Let a layer whose dtype policy is a mixed one compute in the type of its variables."""
    for part in (layer, *sublayers(layer, recursive=True)):
        if part.dtype != part.compute_dtype:
            part.dtype_policy = "float32"
