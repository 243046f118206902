"""Calls of the graph that the converter makes one operation of, although quantizers stand between them."""

from typing import Any

import numpy as np

from tfcompress.core import flavor
from tfcompress.core.flavor import keras
from tfcompress.core.replay import Call, calls, readers
from tfcompress.core.transformed import Transformed
from tfcompress.quantize.kinds import Kind, kind_of
from tfcompress.quantize.quantizer import Quantizer

_PRODUCTS, _SUMS = ("multiply", "mul"), ("add", "addv2")
_QUOTIENTS = ("truedivide", "divide", "truediv", "realdiv")


def hard_swishes(model: Any) -> dict[int, Any]:
    """The calls that end x * relu6(x + 3) * (1/6), written in this order: HARD_SWISH in the file.

    Args:
        model: a quantized Functional model.

    Returns:
        id of the last call's result -> the tensor x.
    """
    steps = calls(model)
    makers = {id(tensor): call for call in steps for tensor in call.outputs}

    def maker(tensor: Any) -> Call | None:
        """The call that computes a tensor, seen through quantizers that only round."""
        made = makers.get(id(tensor))
        while made is not None and _only_rounds(made.operation):
            made = makers.get(id(made.inputs[0]))
        return made

    def swished(call: Call) -> Any:
        product = maker(call.inputs[0]) if _is_sixth(call) else None
        if product is None or not _is(product, "Multiply", _PRODUCTS) or len(product.inputs) != 2:
            return None
        for x, gate in (product.inputs, product.inputs[::-1]):
            clip = maker(gate)
            if clip is None or getattr(clip.operation, "activation", None) != "relu6" or not clip.inputs:
                continue
            shifted = maker(clip.inputs[0])
            if shifted is not None and len(shifted.inputs) == 1 and shifted.inputs[0] is x and _adds_three(shifted):
                return x
        return None

    found = {id(call.outputs[0]): swished(call) for call in steps if len(call.inputs) == 1 and call.outputs}
    return {end: x for end, x in found.items() if x is not None}


def largest_of_windows(model: Any) -> set[int]:
    """Results of MAX_POOL_2D, by id, that one call alone reads: the file fuses a ReLU into the pooling.

    Args:
        model: a quantized Functional model.
    """
    steps = calls(model)
    read_by, ends = readers(steps), {id(tensor) for tensor in model.outputs}
    found: set[int] = set()
    for step in steps:
        pools = isinstance(step.operation, keras.layers.MaxPooling2D) and len(step.outputs) == 1
        passed = _passes(step.operation) and len(step.inputs) == 1 and id(step.inputs[0]) in found
        if (pools or passed) and len(read_by.get(id(step.outputs[0]), [])) == 1 and id(step.outputs[0]) not in ends:
            found.add(id(step.outputs[0]))
    return found


def _passes(operation: Any) -> bool:
    """Whether an operation does nothing in inference."""
    return not isinstance(operation, (Transformed, Quantizer)) and kind_of(operation) is Kind.TRANSPARENT


def _only_rounds(operation: Any) -> bool:
    if isinstance(operation, Quantizer):
        return operation.activation is None
    return _passes(operation)


def _is(call: Call, layer: str, names: tuple[str, ...]) -> bool:
    return type(call.operation).__name__ == layer or flavor.operation_name(call.operation) in names


def operands_of(call: Call) -> list[Any]:
    """The arguments of a call of two operands, without its other options."""
    return [*call.args, *(value for key, value in call.kwargs.items() if key in ("y", "x2"))]


def _number(call: Call) -> float | None:
    """The one number among a call's operands."""
    found = [leaf for leaf in flavor.flatten(operands_of(call)) if not flavor.is_symbolic(leaf)]
    if len(found) != 1 or isinstance(found[0], (str, bool)) or np.ndim(found[0]):
        return None
    return float(np.asarray(found[0]))


def _is_sixth(call: Call) -> bool:
    layer = call.operation
    if isinstance(layer, keras.layers.Rescaling):
        return bool(np.allclose(layer.scale, 1 / 6, rtol=1e-6) and not np.any(layer.offset))
    number = _number(call)
    if number is None or not (_is(call, "Multiply", _PRODUCTS) or _is(call, "Divide", _QUOTIENTS)):
        return False
    return abs((number if _is(call, "Multiply", _PRODUCTS) else 1 / (number or 1.0)) - 1 / 6) < 1e-6


def _adds_three(call: Call) -> bool:
    layer = call.operation
    if isinstance(layer, keras.layers.Rescaling):
        return bool(np.ndim(layer.offset) == 0 and layer.scale == 1 and layer.offset == 3)
    return _is(call, "Add", _SUMS) and _number(call) == 3
