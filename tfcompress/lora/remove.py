"""A model with one adapter less."""

from typing import Any

from tfcompress.core.compressed import noted
from tfcompress.core.replay import replay_with
from tfcompress.core.trace import trace
from tfcompress.core.transformed import Transform, Transformed
from tfcompress.lora.delta import Delta
from tfcompress.lora.names import adapters


def remove(model: Any, name: str) -> Any:
    """The model without one of its adapters; where that was in force, the frozen base computes alone.

    Args:
        model: a model with several adapters; it is not changed.
        name: of the adapter.

    Returns:
        A new, uncompiled Functional model with the other adapters and the same base.

    Raises:
        TypeError: not a model of this Keras flavor.
        ValueError: it has no adapter of this name, or no other one: `merge_lora` makes a plain model.

    >>> from tfcompress.core.flavor import keras
    >>> from tfcompress.lora import add_lora
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8)])
    >>> both = add_lora(add_lora(model, 2, name="one"), 3, name="two")
    >>> adapters(remove(both, "one"))
    ['two']
    """
    known = adapters(model)
    if name not in known or len(known) == 1:
        raise ValueError(
            f"`name` must be one of several adapters of {model.name!r} ({known}); of the last one `merge_lora` makes a "
            f"plain model. Received: name={name!r}"
        )
    left = replay_with(trace(model), lambda old: _without(old, name) if isinstance(old, Transformed) else old)
    return noted(left, getattr(model, "notes", {}))


def _without(wrapper: Transformed, name: str) -> Any:
    """A wrapper of the same layer, base and other adapters."""
    steps: dict[str, list[Transform]] = {}
    for weight, before in wrapper.transforms.items():
        left = [_less(step, name) if isinstance(step, Delta) else step for step in before]
        if kept := [step for step in left if not isinstance(step, Delta) or step.adapters]:
            steps[weight] = kept
    return Transformed(wrapper.layer, steps) if steps else wrapper.layer


def _less(delta: Delta, name: str) -> Delta:
    others = {title: adapter for title, adapter in delta.adapters.items() if title != name}
    left = Delta(others, None if delta.active == name else delta.active)
    left.zeros = delta.zeros
    return left
