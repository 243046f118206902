"""From a model with adapters to a plain one that computes the same."""

from typing import Any

from tfcompress.core import flavor
from tfcompress.core.compressed import noted
from tfcompress.core.flavor import keras
from tfcompress.core.projected import attach, mask_of
from tfcompress.core.replay import replay_with
from tfcompress.core.trace import trace
from tfcompress.core.transformed import Transformed, named_weights, transformed_layers
from tfcompress.lora.base import Packed
from tfcompress.lora.delta import Delta
from tfcompress.lora.frozen import restore
from tfcompress.lora.names import active, adapters
from tfcompress.lora.notes import FROZEN, rewritten, said_of


def merge_lora(model: Any) -> Any:
    """A plain model whose weights are those that the adapter in force makes; float32, whatever the base was held in.

    What adapters had frozen can be trained again; what the user had frozen before stays frozen, also inside a layer.
    Zeros that pruning holds are held still. What was tied is tied still.

    Args:
        model: a model with adapters; it is not changed.

    Returns:
        A new, uncompiled Functional model of ordinary layers. It computes what `model` computes.

    Raises:
        TypeError: not a model of this Keras flavor.
        ValueError: it has no adapters, none in force, or is quantized.

    >>> import numpy as np
    >>> from tfcompress.lora import add_lora
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8, name="body")])
    >>> merged = merge_lora(add_lora(model, rank=2))
    >>> type(merged.get_layer("body")).__name__, bool(np.allclose(merged.get_weights()[0], model.get_weights()[0]))
    ('Dense', True)
    """
    known = adapters(model)
    if not known:
        raise ValueError(f"`model` must have adapters: `tfcompress.add_lora` adds them. Received: {model.name!r}")
    if active(model) is None:
        raise ValueError(
            f"`model` must have an adapter in force: `tfcompress.lora.activate(model, name)`, name one of {known}. "
            f"Received: {model.name!r}"
        )
    steps = [s for layer in transformed_layers(model) for steps in layer.transforms.values() for s in steps]
    if not all(isinstance(step, Delta | Packed) for step in steps):
        raise ValueError(
            f"`model` must not be quantized: `tfcompress.finalize` applies adapters and grids together, and "
            f"`tflite_export.export` takes it as it is. Received: {model.name!r}"
        )
    notes = getattr(model, "notes", {})
    merged = replay_with(trace(model), lambda old: _plain(old, said_of(notes, old.name, FROZEN)))
    left = rewritten(notes, {})
    return noted(merged, left) if left else merged


def _plain(operation: Any, frozen: str | None) -> Any:
    """The layer without its wrapper, as trainable as it was before it had adapters; `operation` is ours to change."""
    if not isinstance(operation, keras.layers.Layer) or flavor.is_operation(operation):
        return operation
    layer = operation
    if isinstance(operation, Transformed):
        layer = _baked(operation)
        _carry(operation, layer)  # before anything is trainable: tf_keras orders weights by what is frozen
    restore(layer, frozen)
    return layer


def _baked(wrapper: Transformed) -> Any:
    """Its layer with the weights that it computes with: the layer itself, for other layers may hold weights of it."""
    if any(wrapper.held(name) is not None for name in wrapper.transforms):
        return wrapper.baked()
    values = {name: wrapper.value(name) for name in wrapper.transforms}
    weights = named_weights(wrapper.layer)
    for name, value in values.items():
        weights[name].assign(value)
    flavor.forget_calls(wrapper.layer)
    return wrapper.layer


def _carry(wrapper: Transformed, layer: Any) -> None:
    """Zeros that were held on a weight before it was packed, or saved, are held on it again."""
    variables = named_weights(layer)
    for name, steps in wrapper.transforms.items():
        zeros = next((s.zeros for s in steps if isinstance(s, Delta | Packed) and s.zeros is not None), None)
        if zeros is not None and mask_of(variables[name]) is None:
            attach(variables[name], zeros.mask())
