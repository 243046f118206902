"""Tensors of a float file and of the integer file made of it: which belong together."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tflite_export.draft import Draft, layer_of
from tflite_export.graph import Quantization
from tflite_export.learned import FIXED, heal, without_pairs
from tflite_export.masks import LARGE, PASSING


@dataclass(frozen=True)
class Pair:
    """A tensor in the float file and in the integer one.

    Attributes:
        reference: its number in the float file.
        integer: its number in the integer file.
        layer: it belongs to.
        operation: kind of the operation that makes it.
        masked: whether values from 1e4 on may come from a mask's constant.
        score: whether it goes to a softmax, at once or behind what moves or shifts values.
        last: whether it is an output of the file.
        sources: tensors of the float file that it is made of, the nearest that are in a pair as well.
    """

    reference: int
    integer: int
    layer: str
    operation: str
    masked: bool
    score: bool
    last: bool
    sources: tuple[int, ...]

    @property
    def rows(self) -> bool:
        """Whether a softmax makes it."""
        return self.operation == "SOFTMAX"


def reference(draft: Draft) -> Draft:
    """The same computation without any rounding: a copy of a float file without its quantizers.

    Args:
        draft: the float file; it is not changed.
    """
    copy = Draft(draft.content())
    heal(copy)
    without_pairs(copy)
    used = {*copy.inputs, *copy.outputs, *(i for op in copy.operators for i in (*op.inputs, *op.outputs))}
    for index in {*range(len(copy.tensors))} - used:
        copy.tensors[index].name = b""  # else it would take a number from a tensor of the same name
    return copy


def matched(reference: Draft, integer: Draft, *, tidy: bool = False) -> list[Pair]:
    """Tensors of both files under one name, in the order in which the integer file computes them.

    The integer file has a further tensor where it goes from integers to real numbers or back: the integers count.
    """
    makers, users = integer.makers(), integer.users()
    known = reference.makers()
    named = reference
    if tidy:
        named = Draft(reference.content())
        named.tidy_names()
    names = {named.name(i): i for i in (*known, *reference.inputs) if reference.is_float(i)}
    masked, scores = _masked(reference), _scores(reference)
    ends = {i for index in integer.outputs for i in (index, *(makers[index].inputs if index in makers else ()))}
    order = [*integer.inputs, *(index for op in integer.operators for index in op.outputs)]
    found: dict[int, Pair] = {}
    for index in order:
        name = integer.name(index)
        source = names.get(name, names.get(name.removesuffix("_int8").removesuffix("_int16")))
        if source is None:
            continue
        made = known.get(source)
        kind = reference.kind(made) if made is not None else "INPUT"
        if index in makers and integer.kind(makers[index]) in FIXED:
            kind = integer.kind(makers[index])  # one that was spelt by hand is recognized on the way
        stored = _stored(integer, index, makers, users)
        if stored is None and kind != "SOFTMAX":
            continue
        target = index if stored is None else stored
        if np.prod(reference.tensors[source].shape) == np.prod(integer.tensors[target].shape):
            layer = layer_of(reference.name(source))
            marks = source in masked, source in scores, target in ends
            found.setdefault(source, Pair(source, target, layer, kind, *marks, ()))
    return [replace(pair, sources=_nearest(known, source, found)) for source, pair in found.items()]


def _nearest(makers: dict[int, Any], index: int, paired: Collection[int]) -> tuple[int, ...]:
    """The tensors in a pair that a tensor is made of, at once or through others that are in none."""
    seen: dict[int, None] = {}
    waiting = [index]
    while waiting:
        made = makers.get(waiting.pop())
        for one in made.inputs if made is not None else ():
            if one not in seen:
                seen[one] = None
                waiting += [] if one in paired else [one]
    return tuple(one for one in seen if one in paired)


def _stored(draft: Draft, index: int, makers: dict[int, Any], users: dict[int, list[Any]]) -> int | None:
    """The integers behind a tensor: itself, what it was made of, or what it becomes at once."""
    if grid_of(draft, index) is not None:
        return index
    if index in makers and draft.kind(makers[index]) == "DEQUANTIZE":
        source = makers[index].inputs[0]
        return source if grid_of(draft, source) is not None and not draft.is_constant(source) else None
    return next((op.outputs[0] for op in users.get(index, []) if draft.kind(op) == "QUANTIZE"), None)


def grid_of(draft: Draft, index: int) -> Quantization | None:
    """The integer grid of a tensor; None when its values are no integers on one grid."""
    grid = draft.grid(index)
    if draft.type(index) not in ("INT8", "UINT8", "INT16") or grid is None or np.size(grid.scale) != 1:
        return None
    return Quantization(np.asarray(grid.scale, np.float32), np.asarray(grid.zeroPoint, np.int64))


def _masked(draft: Draft) -> set[int]:
    """Tensors that a mask's constant may have reached."""
    found = {
        i
        for op in draft.operators
        for i in op.inputs
        if draft.is_float(i) and draft.is_constant(i) and np.any(np.abs(draft.value(i)) >= LARGE)
    }
    for op in draft.operators:
        if draft.kind(op) in PASSING and found.intersection(op.inputs):
            found.update(op.outputs)
    return found


def _scores(draft: Draft) -> set[int]:
    """What softmaxes and exponentials read, and what that is made of by moving, shifting and choosing."""
    found: set[int] = set()
    for op in reversed(draft.operators):
        if draft.kind(op) in ("SOFTMAX", "EXP") or (draft.kind(op) in PASSING and found.intersection(op.outputs)):
            found.update(i for i in op.inputs if draft.is_float(i) and not draft.is_constant(i))
    return found
