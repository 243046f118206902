"""Copies of layers and of whole models, made object by object: nothing is constructed anew, nothing is shared.

`from_config`, `clone_model` and `copy.deepcopy` fail on layers whose constructor does not tell all; attributes do.
"""

import contextvars
import functools
import threading
import types
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.flavor import keras
from tfcompress.core.projected import Projected
from tfcompress.core.replay import replay

#: id of an old object -> (its copy, the old object, kept so that its id stays its own)
Memo = dict[int, tuple[Any, Any]]

#: id of a variable that holds codes -> the shape of the weight that they stand for; of the wrappers being copied
_codes: contextvars.ContextVar[dict[int, tuple[int, ...]]] = contextvars.ContextVar("_codes", default={})  # noqa: B039


def copy_layer(layer: Any, memo: Memo | None = None) -> Any:
    """A structural copy of a layer or model: built, equal weights, no variable shared.

    Only what can hold state is new (layers, variables, metrics, random generators, containers, closures over those,
    and objects of classes that say so by `holds_state`: transforms of weights); all else (functions, initializers,
    dtype policies) is shared. A copy starts with no recorded calls, a copy of a compiled model is not compiled.

    Args:
        layer: a layer or model of this process's Keras.
        memo: what was copied before, by id; grows by what is copied. With the same memo, what was one object stays one.

    Returns:
        The copy.

    >>> from tfcompress.core.flavor import keras
    >>> dense = keras.layers.Dense(2)
    >>> _ = dense.build((None, 3))
    >>> other = copy_layer(dense)
    >>> other.kernel is dense.kernel, bool((other.get_weights()[0] == dense.get_weights()[0]).all())
    (False, True)
    """
    return _copy({} if memo is None else memo, layer)


def substitute(layer: Any, replacements: Mapping[int, Any]) -> Any:
    """A copy of a layer or model in which other layers stand for some of its sublayers.

    Every attribute, list, dict, tracker and graph that held an old sublayer holds the new one in the copy.

    Args:
        layer: the layer or model to copy.
        replacements: the new layer for each old sublayer, by the old one's `id`.

    Returns:
        The copy; what `replacements` holds is in it as it is, not copied.

    Raises:
        ValueError: a replacement is for no sublayer.

    >>> from tfcompress.core.flavor import keras
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.ReLU(name="a"), keras.layers.ReLU(name="b")])
    >>> other = substitute(model, {id(model.layers[0]): keras.layers.Rescaling(2.0, name="c")})
    >>> [part.name for part in other.layers]
    ['c', 'b']
    """
    parts = {id(part): part for part in (layer, *flavor.sublayers(layer, recursive=True))}
    unknown = [new.name for old, new in replacements.items() if old not in parts]
    if unknown:
        raise ValueError(
            f"`replacements` must have ids of sublayers of {layer.name!r} as keys. Received: {unknown} for others"
        )
    return _copy({old: (new, parts[old]) for old, new in replacements.items()}, layer)


@functools.cache
def _trainer_attributes() -> frozenset[str]:
    """The attributes that belong to compiling and fitting."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    before = set(vars(model))
    model.compile("sgd", "mse", metrics=["mae"])
    one = np.zeros((1, 1), "float32")
    model.fit(one, one, verbose=0)
    model.evaluate(one, one, verbose=0)
    model.predict(one, verbose=0)
    return frozenset((set(vars(model)) - before) | (set(vars(_Blank())) - set(vars(keras.layers.Dense(1)))))


class _Blank(keras.Model):
    """A model that was never compiled."""

    def call(self, x: Any) -> Any:
        return x


def _copy(memo: Memo, old: Any) -> Any:
    """A copy of anything that a layer holds, or the thing itself where it holds no state."""
    if id(old) in memo:
        return memo[id(old)][0]
    again = functools.partial(_copy, memo)

    def keep(new: Any) -> Any:
        memo[id(old)] = new, old
        return new

    if flavor.is_graph(old) and not _hides_graph(old):
        return _copy_graph(memo, old)
    if isinstance(old, flavor.COPIED) or getattr(type(old), "holds_state", False):
        packed = old.packed_shapes() if hasattr(type(old), "packed_shapes") else {}
        token = _codes.set({**_codes.get(), **packed})
        try:
            return _copy_object(memo, old)
        finally:
            _codes.reset(token)
    if isinstance(old, types.MethodType):
        return types.MethodType(old.__func__, again(old.__self__))
    if isinstance(old, functools.partial):  # tf_keras keeps regularization losses as partials that hold the variable
        keywords = {k: again(v) for k, v in old.keywords.items()}
        return functools.partial(again(old.func), *map(again, old.args), **keywords)
    if isinstance(old, types.FunctionType):
        return _copy_function(memo, old)
    if flavor.is_tracked_container(old):
        return flavor.copy_container(old, again, keep)
    if isinstance(old, tuple):
        parts = [again(v) for v in old]
        if all(a is b for a, b in zip(parts, old, strict=True)):
            return old
        return type(old)(*parts) if hasattr(old, "_fields") else tuple(parts)
    if isinstance(old, (list, set, dict)) or type(old).__name__ == "ObjectIdentityDictionary":
        return _copy_container(memo, old)
    if isinstance(old, threading.local):
        return keep(threading.local())
    if isinstance(old, Projected):  # Keras 3 keeps it in the variable
        return keep(old.copied())
    return old


def _hides_graph(model: Any) -> bool:
    """Whether the graph is an attribute of the model (a Sequential's in Keras 3), copied like any other."""
    return "_functional" in vars(model)


def _copy_object(memo: Memo, old: Any) -> Any:
    """A copy of a layer, variable, metric, operation or generator, attribute by attribute."""
    if isinstance(old, flavor.VARIABLES):
        new = flavor.copy_variable(old)
        if new is not None:
            memo[id(old)] = new, old
            constraint = flavor.constraint_of(old)
            if isinstance(constraint, Projected):
                flavor.constrain(new, constraint.copied())
            return new
    new, as_they_are = flavor.blank_copy(old)
    memo[id(old)] = new, old
    is_model = isinstance(old, keras.Model)
    trainer = _trainer_attributes() if is_model else frozenset()
    blank = vars(_Blank()) if is_model else {}
    for name, value in list(vars(old).items()):
        if name in as_they_are:
            continue
        if name in trainer:
            if name in blank:
                vars(new)[name] = blank[name]
        elif name.lstrip("_").startswith(("inbound_nodes", "outbound_nodes")):
            vars(new)[name] = []
        else:
            vars(new)[name] = _copy(memo, value)
    flavor.finish_copy(new)
    return new


def _copy_function(memo: Memo, old: types.FunctionType) -> Any:
    """A function whose closure holds state, over the copies of it: else a copy would compute with the old layer."""
    if not old.__closure__:
        return old
    memo[id(old)] = old, old  # a closure may hold its own function
    bound = (*flavor.COPIED, types.MethodType, types.FunctionType, functools.partial)
    cells = []
    for cell in old.__closure__:
        try:
            value = cell.cell_contents
        except ValueError:  # an empty cell
            cells.append(cell)
            continue
        new = _copy(memo, value) if isinstance(value, bound) else value
        cells.append(cell if new is value else types.CellType(new))
    if all(a is b for a, b in zip(cells, old.__closure__, strict=True)):
        return old
    function = types.FunctionType(old.__code__, old.__globals__, old.__name__, old.__defaults__, tuple(cells))
    memo[id(old)] = function, old
    function.__kwdefaults__ = old.__kwdefaults__
    vars(function).update(vars(old))
    return function


def _copy_container(memo: Memo, old: Any) -> Any:
    new = type(old)()
    memo[id(old)] = new, old
    if hasattr(old, "items"):
        for key, value in list(old.items()):
            new[_copy(memo, key)] = _copy(memo, value)
    elif isinstance(old, list):
        new.extend(_copy(memo, value) for value in list(old))
    else:
        new.update(_copy(memo, value) for value in list(old))
    return new


def _copy_graph(memo: Memo, model: Any) -> Any:
    """A graph is its calls made again on the copies of its layers; nested models stay nested."""
    codes = _codes.get()

    def call_copy(call: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        old, new = call.operation, _copy(memo, call.operation)
        pairs = zip(old.weights, new.weights, strict=True) if codes and isinstance(old, keras.layers.Layer) else ()
        weights = [(mine, tf.zeros(codes[id(its)])) for its, mine in pairs if id(its) in codes]
        # The graph needs the shapes only, but a layer cannot be called on codes.
        return flavor.replaced(new, weights, lambda: new(*args, **kwargs)) if weights else new(*args, **kwargs)

    new = replay(model, call_copy)
    memo[id(model)] = new, model
    trainer = _trainer_attributes()
    for name, value in list(vars(model).items()):  # what a subclass keeps beside its graph
        if name not in vars(new) and name not in trainer:
            vars(new)[name] = _copy(memo, value)
    new.__class__ = type(model)
    new._trainable = model._trainable
    return new
