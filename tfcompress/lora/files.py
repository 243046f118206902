"""Adapters alone in a file, beside the model that they belong to.

A file is a NumPy archive (.npz) of these arrays, nothing pickled:

    about                      JSON: format, adapter's name, base, and a list of entries
    <number>/<part>            float32; the parts of an entry by its number: "a" and "b" of an update of low rank,
                               "whole" of a weight that is trained whole, "value" of a layer's own weight (statistics)
"""

import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.transformed import named_weights
from tfcompress.lora.adapted import Adapted, Plan, check_adaptable, inner_of, shapes_of, shared_state
from tfcompress.lora.adapter import Adapter
from tfcompress.lora.base import TABLES, Packed
from tfcompress.lora.names import activate, active, adapters, deltas, members
from tfcompress.lora.notes import TRAINED, says

_FORMAT = "tfcompress adapters 1"
_MODELS_OWN = "saved"


def save(model: Any, path: str | os.PathLike[str], name: str | None = None) -> None:
    """Write one adapter to a file, with what was trained beside it (`train` of `add_lora`), without the base.

    Args:
        model: a model with adapters.
        path: of the file, ".npz" as a rule. It is written beside and renamed, so that no half of it ever stands there.
        name: of the adapter; None: the one in force.

    Raises:
        TypeError: not a model of this Keras flavor.
        ValueError: it has no such adapter.
        FileNotFoundError: the file's folder does not exist.

    >>> from tfcompress.core.flavor import keras
    >>> from tfcompress.lora import add_lora
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8, name="body")])
    >>> save(add_lora(model, rank=2), "adapter.npz")
    >>> [w.shape for w in np.load("adapter.npz").values()][1:]
    [(8, 2), (2, 8)]
    """
    known = adapters(model)
    name = active(model) if name is None else name
    if name is None or name not in known:
        raise ValueError(f"`name` must be an adapter of {model.name!r}: {known}. Received: name={name!r}")
    entries: list[dict[str, Any]] = []
    arrays: dict[str, np.ndarray] = {}
    for wrapper, weight, adapter in members(model, name):
        keys = ("shape", "rank", "alpha", "folding")
        config = {key: value for key, value in adapter.get_config().items() if key in keys}
        arrays |= {f"{len(entries)}/{part}": value for part, value in adapter.parts().items()}
        entries.append({"layer": wrapper.name, "weight": weight, "adapter": config})
    for layer in _trained_themselves(model):
        for weight, variable in named_weights(layer).items():
            arrays[f"{len(entries)}/value"] = _numbers(variable)
            entries.append({"layer": layer.name, "weight": weight, "adapter": None})
    kinds = sorted({s.kind for w, n, _ in deltas(model) for s in w.transforms[n] if isinstance(s, Packed)})
    about = {"format": _FORMAT, "name": name, "base": kinds[0] if kinds else None, "entries": entries}
    _write(Path(path), {"about": np.array(json.dumps(about)), **arrays})


def _trained_themselves(model: Any) -> Iterator[Any]:
    """The layers without wrappers: adapters that they got later are none of their weights."""
    notes = getattr(model, "notes", {})
    yield from (inner_of(layer) for layer in model.layers if says(notes, layer.name, TRAINED))


def _numbers(variable: Any) -> np.ndarray:
    """The value of a layer's own weight for a file, of 16 bits in 32: NumPy does not know bfloat16."""
    value = flavor.read(variable)
    return np.asarray(tf.cast(value, tf.float32) if value.dtype in (tf.bfloat16, tf.float16) else value)


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    if not path.parent.is_dir():
        raise FileNotFoundError(f"`path` must lie in a folder that exists. Received: path={str(path)!r}")
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def load(model: Any, path: str | os.PathLike[str], *, name: str | None = None, base: str | None = _MODELS_OWN) -> Any:
    """The model with an adapter from a file, in force.

    Args:
        model: the model that the adapter was made for, plain or with adapters. It is not changed.
        path: what `save` has written.
        name: of the adapter in the model; None: the one that it was saved with. An adapter of this name that the model
            has already is overwritten.
        base: how a plain model's frozen matrices are to be held, as in `add_lora`: "saved" (as when the adapter was
            trained), None, "int8", "int4" or "nf4". A model with adapters keeps its base.

    Returns:
        A new, uncompiled Functional model.

    Raises:
        TypeError: not a model of this Keras flavor.
        ValueError: the file holds no adapters, or they do not fit the model or its adapter of this name; it holds a
            layer that was trained itself (one with statistics), and the model has other adapters and another state of
            that layer.
        FileNotFoundError: there is no such file.

    >>> from tfcompress.core.flavor import keras
    >>> from tfcompress.lora import add_lora
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8, name="body")])
    >>> save(add_lora(model, rank=2, name="french"), "french.npz")
    >>> adapters(load(model, "french.npz"))
    ['french']
    """
    if base not in (_MODELS_OWN, None, *TABLES):
        kinds = ", ".join(map(repr, (_MODELS_OWN, None, *TABLES)))
        raise ValueError(f"`base` must be one of {kinds}. Received: base={base!r}")
    about, arrays = _read(path)
    name = about["name"] if name is None else name
    flavor.check_model(model)
    known = adapters(model)
    kind = None if known else about["base"] if base == _MODELS_OWN else base
    check_adaptable(model, kind, name)
    work = Adapted(model, kind, name)
    if name in known:
        adapted = work.made(
            lambda layer: (None if layer.name in work.trained and inner_of(layer) is layer else {}, None)
        )
        object.__setattr__(adapted, "notes", dict(work.notes))
    else:
        work.trained |= {entry["layer"] for entry in about["entries"] if entry["adapter"] is None}
        adapted = work.made(_plan(about["entries"], path))
    _fill(adapted, work, about["entries"], arrays, path)
    activate(adapted, name)
    return adapted


def _plan(entries: list[dict[str, Any]], path: str | os.PathLike[str]) -> Plan:
    """Adapters as they were saved, for weights of the shapes that they were saved for."""
    by_layer: dict[str, list[dict[str, Any]]] = {}
    for entry in entries:
        by_layer.setdefault(entry["layer"], []).append(entry)

    def plan(operation: Any) -> tuple[dict[str, Adapter] | None, str | None]:
        given = by_layer.get(operation.name, [])
        learned = [entry for entry in given if entry["adapter"] is not None]
        if given and not learned:
            return None, None
        shapes = shapes_of(operation)
        found = {e["weight"]: Adapter(**e["adapter"]) for e in learned if e["weight"] in shapes}
        for weight, adapter in found.items():
            _check_shapes(path, f"{operation.name}/{weight}", adapter.shape, shapes[weight])
        return found, None if given else "none in the file"

    return plan


def _fill(model: Any, work: Adapted, entries: list[dict[str, Any]], arrays: dict[str, np.ndarray], path: Any) -> None:
    """Give the adapter that the model has got the values of a file; each part must fit.

    A layer that was trained itself computes for adapters of other names too: where the model has some, it must be in
    the file what it is in the model, and is frozen.
    """
    places = {(wrapper.name, weight): adapter for wrapper, weight, adapter in members(model, work.name)}
    own = {(part.name, weight): v for part in _trained_themselves(model) for weight, v in named_weights(part).items()}
    learned = {(entry["layer"], entry["weight"]) for entry in entries if entry["adapter"]}
    states = {(entry["layer"], entry["weight"]) for entry in entries if not entry["adapter"]}
    extra = [f"{layer}/{weight}" for layer, weight in places.keys() - learned]
    lacking = [f"{layer}/{weight}" for layer, weight in (learned - places.keys()) | (states - own.keys())]
    if lacking or extra:
        raise ValueError(
            f"`path` must hold an adapter of this model. Received: path={os.fspath(path)!r}, for which {model.name!r} "
            f"lacks {sorted(lacking)} and the file lacks {sorted(extra)}"
        )
    others = [name for name in work.known if name != work.name]
    for number, entry in enumerate(entries):
        key = (entry["layer"], entry["weight"])
        parts = places[key].parts() if entry["adapter"] else {"value": _numbers(own[key])}
        given = {part: arrays[f"{number}/{part}"] for part in parts if f"{number}/{part}" in arrays}
        shapes = {part: value.shape for part, value in parts.items()}
        _check_shapes(path, "/".join(key), {part: value.shape for part, value in given.items()}, shapes)
        if entry["adapter"]:
            places[key].set_parts(given, entry["adapter"]["alpha"])
        elif not others:
            own[key].assign(given["value"])
        elif not (says(work.notes, key[0], TRAINED) and np.array_equal(given["value"], parts["value"])):
            raise shared_state(f"`path` must not change {key[0]!r}", others, f"path={os.fspath(path)!r}")
    if others:
        for layer in _trained_themselves(model):
            layer.trainable = False


def _check_shapes(path: str | os.PathLike[str], place: str, received: Any, expected: Any) -> None:
    """Refuse a weight, or the parts of its adapter, of other shapes than the model's."""
    if received != expected:
        raise ValueError(
            f"`path` must hold an adapter of this model's shapes. Received: path={os.fspath(path)!r}, in which {place} "
            f"has {received} in place of {expected}"
        )


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What a file says and holds.

    Raises:
        ValueError: it is no file of adapters.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        about = json.loads(str(arrays.pop("about")))
        if about["format"] != _FORMAT:
            raise KeyError(about["format"])
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"`path` must be a file that `tfcompress.lora.save` has written. Received: path={os.fspath(path)!r} "
            f"({type(error).__name__}: {error})"
        ) from error
    return about, arrays
