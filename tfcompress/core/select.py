"""Which layers of a model a technique applies to."""

import difflib
import fnmatch
from collections.abc import Callable, Iterable
from typing import Any

from tfcompress.core.flavor import keras
from tfcompress.core.trainers import product_layers

#: A layer class, a name pattern ("head/*"), a layer, a predicate of a layer, a list of these, or None for every layer.
Selection = Any


def matcher(select: Selection, model: keras.Model, argument: str = "select") -> Callable[[Any], bool]:
    """What a user wrote as a selection, as a predicate of layers.

    Args:
        select: layer class (of a composite: what was traced out of it), name pattern (as in a shell; "block/*" is every
            layer in "block", or traced out of it), layer of the model or of the model it was traced from, predicate,
            list of these (any of them), or None (everything).
        model: the model in which each entry must select something; of one that trains others in its products.
        argument: the name of the user's parameter, for messages.

    Returns:
        A function from layer to bool.

    Raises:
        TypeError: an entry is none of these.
        ValueError: an entry selects no layer; the message lists what there is, names most like it first.

    >>> from tfcompress.core.flavor import keras
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="a"), keras.layers.ReLU(name="b")])
    >>> chosen = matcher(["a", keras.layers.ReLU], model)
    >>> [layer.name for layer in model.layers if chosen(layer)]
    ['a', 'b']
    """
    if select is None:
        return lambda layer: True
    entries = list(select) if isinstance(select, (list, tuple, set, frozenset)) else [select]
    if not entries:
        raise ValueError(
            f"`{argument}` must select something; None selects every layer. Received: {argument}={select!r}"
        )
    places = _places(model) if any(isinstance(entry, str) and "/" in path(entry) for entry in entries) else {}
    tests = [_test(entry, argument, places) for entry in entries]
    parts = product_layers(model, recursive=True)
    layers = [layer for layer in parts if not isinstance(layer, keras.layers.InputLayer)]
    for entry, test in zip(entries, tests, strict=True):
        if not any(map(test, layers)):
            raise ValueError(
                f"{_received(entry, argument)} selects no layer of {model.name!r}. {_what_exists(entry, layers)}"
            )
    return lambda layer: any(test(layer) for test in tests)


def path(name: str) -> str:
    """A traced layer's name as a path: Keras allows no slash in names, so tracing joins them by dots.

    >>> path("block.attention.query")
    'block/attention/query'
    """
    return name.replace(".", "/")


def mark_within(operation: Any, kinds: Iterable[type]) -> None:
    """Note that an operation was traced out of composites of these classes; `matcher` selects it by them as well."""
    known: frozenset[type] = getattr(operation, "_traced_out_of", frozenset())
    if more := set(kinds) - known:
        object.__setattr__(operation, "_traced_out_of", known | more)


def _places(model: Any) -> dict[int, str]:
    """The paths of the layers in layers, by id: what tracing would name them."""
    found: dict[int, str] = {}

    def visit(part: Any, prefix: str) -> None:
        for layer in product_layers(part):
            if id(layer) not in found:
                found[id(layer)] = f"{prefix}{layer.name}"
                visit(layer, f"{found[id(layer)]}.")

    visit(model, "")
    return found


def _test(entry: Any, argument: str, places: dict[int, str]) -> Callable[[Any], bool]:
    if isinstance(entry, type):
        return lambda layer: (
            isinstance(layer, entry) or any(issubclass(kind, entry) for kind in getattr(layer, "_traced_out_of", ()))
        )
    if isinstance(entry, str) and "/" in path(entry):
        return lambda layer: _named(layer.name, entry) or _named(places.get(id(layer), layer.name), entry)
    if isinstance(entry, str):
        return lambda layer: _named(layer.name, entry)
    if isinstance(entry, keras.layers.Layer):
        return lambda layer: layer is entry or _named(layer.name, _escaped(entry.name))
    if callable(entry):
        return lambda layer: bool(entry(layer))
    raise TypeError(
        f"`{argument}` must be a layer class, a name pattern, a layer, a predicate, a list of these, or None. "
        f"{_received(entry, argument)}"
    )


def _escaped(name: str) -> str:
    """A pattern that matches only this name."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _named(name: str, pattern: str) -> bool:
    """Whether a pattern names a layer, or something that the layer was traced out of.

    "dense" matches "dense", "block.dense" and, as the name of what was opened, "dense.kernel".
    """
    parts, wanted = path(name).split("/"), path(pattern)
    if fnmatch.fnmatchcase("/".join(parts), wanted) or fnmatch.fnmatchcase(name, pattern):
        return True
    width = wanted.count("/") + 1
    runs = ("/".join(parts[i : i + width]) for i in range(len(parts) - width + 1))
    return any(fnmatch.fnmatchcase(run, wanted) for run in runs) if len(parts) > 1 else False


def _received(entry: Any, argument: str) -> str:
    shown = f"{entry.__module__}.{entry.__name__}" if isinstance(entry, type) else repr(getattr(entry, "name", entry))
    return f"`{argument}` entry {shown}"


def _what_exists(entry: Any, layers: list) -> str:
    """Names close to the entry first, then the others, at most twenty."""
    if isinstance(entry, str):
        names = [layer.name for layer in layers]
        close = difflib.get_close_matches(entry.replace("/", ".").strip("*."), names, n=5, cutoff=0.4)
    else:
        names = [type(layer).__name__ for layer in layers]
        close = difflib.get_close_matches(getattr(entry, "__name__", type(entry).__name__), names, n=5, cutoff=0.4)
    ordered = list(dict.fromkeys([*close, *names]))
    more = f" and {len(ordered) - 20} more" if len(ordered) > 20 else ""
    return f"There are: {', '.join(ordered[:20])}{more}"
