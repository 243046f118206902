"""The calls that a closed composite makes of the layers inside it."""

import json
from typing import Any

from tfcompress.core import flavor
from tfcompress.core.flavor import keras
from tfcompress.core.opaque import Opaque, described, symbols
from tfcompress.core.opening import ONE_AT_A_TIME, ORIGINAL_CALL
from tfcompress.core.replay import Call


def inner_calls(closed: Opaque, call: Call) -> list[Call]:
    """What one call of a closed composite calls inside, leaves only, for their shapes.

    Args:
        closed: the composite's node.
        call: a call of it in a graph.

    Returns:
        Calls whose tensors are those of a graph that is thrown away. Empty when the composite takes other things than
        tensors and plain values.
    """
    given = described(call.args, call.kwargs)
    if given is None:
        return []
    args, kwargs = symbols(json.loads(given))
    found: list[Call] = []

    def spy(layer: Any, *args: Any, **kwargs: Any) -> Any:
        outputs = ORIGINAL_CALL(layer, *args, **kwargs)
        if flavor.is_whole(layer) or not flavor.sublayers(layer):
            inputs, made = _tensors((args, kwargs)), _tensors(outputs)
            found.append(Call(layer, args, kwargs, inputs, made, outputs))
        return outputs

    known = len(closed.layer._inbound_nodes)
    with ONE_AT_A_TIME, flavor.branches_recorded(), flavor.masks_may_end():
        keras.layers.Layer.__call__ = spy
        try:
            closed.layer(*args, **kwargs)
        finally:
            keras.layers.Layer.__call__ = ORIGINAL_CALL
    flavor.forget_calls(closed.layer, known)
    return found


def _tensors(structure: Any) -> list:
    return [value for value in flavor.flatten(structure) if hasattr(value, "shape")]
