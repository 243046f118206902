"""Tensors in which a large constant says "not this one": where they are, and in front of what they end.

-1e9 before a softmax, -inf before a maximum: as a value such a constant would be the range of its tensor. What reads
the tensor decides which range it gets instead (`MaskedScores`).
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.flavor import keras
from tfcompress.core.opaque import Weight
from tfcompress.core.replay import Call, calls
from tfcompress.quantize.kinds import Kind, activation_name, kind_of
from tfcompress.quantize.masked_attention import Choose
from tfcompress.quantize.ranges import MASK, MaskedScores

_SOFT = frozenset("softmax logsoftmax exp logsumexp reducelogsumexp".split())
_HARD = frozenset("max amax reducemax maxpool argmax topk".split())
_POOLS = tuple(
    getattr(keras.layers, f"{prefix}MaxPooling{rank}D") for prefix in ("", "Global") for rank in (1, 2, 3)
)  # fmt: skip
# Operations whose kind is OTHER, through which a mask passes.
_PASSING = frozenset(
    "where wherev2 select selectv2 maximum minimum divide truediv realdiv negative neg cast clip clipbyvalue full "
    "fulllike fill triu tril bandpart sum addn".split()
)
_SMALL = 30.0  # a constant from here on, subtracted in front of a softmax, is a mask as well
_GOES_ON = frozenset({Kind.JOIN, Kind.SAME, Kind.TRANSPARENT, Kind.CONCAT})


def _name(operation: Any) -> str:
    """The name of a plain operation or of a layer's activation, without underscores and case."""
    if isinstance(operation, keras.layers.Softmax):
        return "softmax"
    if isinstance(operation, Choose):
        return "where"
    named = flavor.operation_name(operation)
    if named is None and isinstance(operation, keras.layers.Activation):
        named = activation_name(operation)
    return (named or "").replace("_", "").lower()


def _numbers(call: Call) -> Iterator[np.ndarray]:
    """The numbers that a call is given besides tensors of the graph."""
    if isinstance(call.operation, Weight):
        yield np.asarray(flavor.read(call.operation.weight), "float64")
    given: Any = (call.args, call.kwargs, getattr(call.operation, "otherwise", 0.0))
    if kind_of(call.operation) is Kind.SAME:  # sizes and axes, but what a pad is filled with
        given = (call.args[2:], call.kwargs) if _name(call.operation) == "pad" else ()
    for value in flavor.flatten(given):
        if isinstance(value, int | float | np.ndarray | np.generic | tf.Tensor) and not isinstance(value, bool):
            array = np.asarray(value)
            if array.dtype.kind in "fiu":
                yield array.astype("float64")


def _size(call: Call) -> float:
    """The magnitude of the mask's constant that a call brings into the graph; 0 when it brings none."""
    most = max((float(np.max(np.abs(array), initial=0.0)) for array in _numbers(call)), default=0.0)
    least = min((float(np.min(array, initial=0.0)) for array in _numbers(call)), default=0.0)
    return MASK if most >= MASK else -least if least <= -_SMALL else 0.0


def _passes(operation: Any) -> bool:
    name = _name(operation)
    if name in _SOFT | _HARD or isinstance(operation, _POOLS):
        return False
    return kind_of(operation) in _GOES_ON or name in _PASSING


class Masks:
    """The masks of a flat graph.

    Args:
        model: a flat Functional model.

    Attributes:
        carried: tensors (by id) through which a mask reaches a softmax or a maximum.
        ends: those of them that a softmax or maximum reads -> how their range is found.
        parts: tensors of zeros and ones that only become a mask, multiplied by its constant.
    """

    def __init__(self, model: Any) -> None:
        steps = calls(model)
        sizes = _sizes(steps)
        self.ends: dict[int, MaskedScores] = {}
        self.carried: set[int] = set()
        soft: set[int] = set()
        for call in reversed(steps):
            name = _name(call.operation)
            is_end = name in _SOFT | _HARD or isinstance(call.operation, _POOLS)
            leads = any(id(t) in self.carried for t in call.outputs) and _passes(call.operation)
            if not (is_end or leads):
                continue
            is_soft = name in _SOFT or (leads and any(id(t) in soft for t in call.outputs))
            reached = {id(t) for t in call.inputs if sizes.get(id(t), 0.0) >= (_SMALL if is_soft else MASK)}
            self.carried |= reached
            if is_soft:
                soft |= reached
            if is_end:
                for tensor in reached:
                    self.ends.setdefault(tensor, MaskedScores(axis=_axis(call), size=sizes[tensor]))
        self.parts = _parts(steps, self.carried)
        for tensor, found in self.ends.items():
            if tensor in soft and found.axis is None:  # a hand-written softmax begins with a maximum
                self.ends[tensor] = replace(found, axis=-1)


def _sizes(steps: list[Call]) -> dict[int, float]:
    """Tensors (by id) that a mask's constant reaches -> its magnitude."""
    sizes: dict[int, float] = {}
    for call in steps:
        if isinstance(call.operation, Weight) or _passes(call.operation):
            size = max([_size(call), *(sizes.get(id(t), 0.0) for t in call.inputs)])
            if size:
                sizes.update((id(t), size) for t in call.outputs if _is_float(t))
    return sizes


def _parts(steps: list[Call], carried: set[int]) -> set[int]:
    """Tensors that nothing reads but what makes a mask of them."""
    parts: set[int] = set()
    other: set[int] = set()
    for call in reversed(steps):
        made = {id(t) for t in call.outputs}
        scales = _name(call.operation) in ("multiply", "mul") and len(call.inputs) == 1 and bool(made & carried)
        leads = bool(made & parts) and not made & other and _passes(call.operation)
        (parts if scales or leads else other).update(id(t) for t in call.inputs)
    return parts - other


def _is_float(tensor: Any) -> bool:
    return "float" in str(getattr(tensor.dtype, "name", tensor.dtype))


def _axis(call: Call) -> int | tuple[int, ...] | None:
    """The axis over which a softmax is taken; None for a maximum."""
    if _name(call.operation) not in _SOFT:
        return None
    axis = call.kwargs.get("axis", getattr(call.operation, "axis", call.args[1] if len(call.args) > 1 else None))
    if isinstance(axis, int):
        return axis
    return tuple(axis) if isinstance(axis, list | tuple) and all(isinstance(a, int) for a in axis) else -1
