"""What a layer holds in its attributes: values at paths such as "token" or "tables.0", found and exchanged."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

#: Attributes in which the two flavors keep their books; what stands there stands in another attribute as well.
BOOKKEEPING = frozenset(
    "_tracker _trainable_variables _non_trainable_variables _trainable_weights _non_trainable_weights _layers _metrics"
    " _losses _seed_generators _inbound_nodes _outbound_nodes _inbound_nodes_value _outbound_nodes_value _loss_ids"
    " _callable_losses _obj_reference_counts_dict _self_tracked_trackables _self_unconditional_checkpoint_dependencies"
    " _self_unconditional_dependency_names _self_unconditional_deferred_dependencies _undeduplicated_weights".split()
)


def held(owner: Any, wanted: Callable[[Any], bool]) -> Iterator[tuple[str, Any]]:
    """(path, value) of each wanted value in the attributes of `owner` and in the lists, tuples and dicts there."""

    def visit(path: str, value: Any) -> Iterator[tuple[str, Any]]:
        if wanted(value):
            yield path, value
        elif isinstance(value, dict):
            for key, item in value.items():
                yield from visit(f"{path}.{key}", item)
        elif isinstance(value, (list, tuple)):
            for i, item in enumerate(value):
                yield from visit(f"{path}.{i}", item)

    for name, value in list(vars(owner).items()):
        if name not in BOOKKEEPING:
            yield from visit(name, value)


def exchanged(owner: Any, others: dict[int, Any]) -> dict[str, Any]:
    """The attributes of `owner` that hold an object of `others` (by id), with the other in its place.

    Lists, tuples and dicts that hold one become plain new ones; the old are left as they are.
    """

    def visit(value: Any) -> Any:
        if id(value) in others:
            return others[id(value)]
        if isinstance(value, dict):
            parts = {key: visit(item) for key, item in value.items()}
            return parts if any(parts[key] is not item for key, item in value.items()) else value
        if isinstance(value, (list, tuple)):
            items = [visit(item) for item in value]
            if all(new is old for new, old in zip(items, value, strict=True)):
                return value
            if hasattr(value, "_fields"):
                return type(value)(*items)
            return tuple(items) if isinstance(value, tuple) else items
        return value

    attributes = {name: value for name, value in vars(owner).items() if name not in BOOKKEEPING}
    changed = {name: visit(value) for name, value in attributes.items()}
    return {name: value for name, value in changed.items() if value is not attributes[name]}


@contextlib.contextmanager
def exchanging(pairs: Iterable[tuple[Any, dict[int, Any]]]) -> Iterator[None]:
    """While this holds, attributes of each owner hold the objects of `exchanged`; set past Keras' tracking."""
    undo: list[tuple[dict, str, Any]] = []
    try:
        for owner, others in pairs:
            for name, value in exchanged(owner, others).items() if others else ():
                undo.append((vars(owner), name, vars(owner)[name]))
                vars(owner)[name] = value
        yield
    finally:
        for attributes, name, value in reversed(undo):
            attributes[name] = value


def owned(owner: Any, tracked: list, is_variable: Callable[[Any], bool], name: Callable[[Any], str]) -> dict[str, Any]:
    """The tracked variables of a layer by the path at which it holds them, by name where it holds them nowhere."""
    mine = {id(v) for v in tracked}
    paths: dict[int, str] = {}
    for path, variable in held(owner, is_variable):
        inner = getattr(variable, "_variable", variable)  # tf_keras' autocast variable stands for the real one
        if id(variable) in mine or id(inner) in mine:
            paths.setdefault(id(variable) if id(variable) in mine else id(inner), path)
    return {paths.get(id(v), name(v)): v for v in tracked}


@dataclass(frozen=True)
class Spec:
    """What a model takes as one of its inputs."""

    shape: tuple[int | None, ...]
    """Without the batch."""
    dtype: Any
    """None where Keras does not remember it."""


def specs_of_shapes(shapes: Any) -> Any:
    """A structure of shapes that start with the batch, as one of specs with no dtype."""
    if isinstance(shapes, dict):
        return {name: specs_of_shapes(shape) for name, shape in shapes.items()}
    if all(d is None or isinstance(d, int) for d in shapes):
        return Spec(tuple(shapes[1:]), None)
    return [specs_of_shapes(shape) for shape in shapes]
