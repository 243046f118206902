"""What an integer file lost: tensors that hold almost no value any more, that saturate, softmaxes that do not follow.

A model's output can stay right on easy data while its attention is gone, so each tensor is looked at: the float file
and the integer one run side by side on a few samples, and tensors of one name are compared at the same places.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tflite_export.draft import Draft, layer_of
from tflite_export.graph import DTYPES, Quantization
from tflite_export.learned import FIXED, heal, without_pairs
from tflite_export.masks import LARGE
from tflite_export.measure import runs

Samples = Sequence[Sequence[np.ndarray]]
# Rows that are run, and values that are looked at in a tensor of one run: what bounds time and memory.
_ROWS = 16
_PLACES = 2048
# Flat: its values on a grid that fits them take `_MANY` integers and `_TIMES` as many as in the file.
_MANY, _TIMES = 32, 16
# The converter makes no range narrower than 2e-6: values that differ by less are one.
_NOTHING = 2e-6
# Scores on a grid of at most this step change no probability by more than an eighth of it.
_FINE = 0.25
# Saturated: this share lies on an end of the grid, and in float beyond it by more than this share of its width.
_CLIPPED, _BEYOND = 0.1, 0.1
# Of a softmax: correlation with float about each row's mean, and the share of a row's sum that must be left.
_FOLLOWS, _MASS = 0.9, 0.5
_SHOWN = 5
# Move values, or compute element by element: a mask's constant stays recognizable behind them.
_CARRIES = frozenset(
    "ADD SUB MUL DIV NEG SELECT SELECT_V2 PAD PADV2 RESHAPE TRANSPOSE EXPAND_DIMS SQUEEZE TILE GATHER BROADCAST_TO "
    "CONCATENATION PACK STRIDED_SLICE SLICE MINIMUM MAXIMUM QUANTIZE DEQUANTIZE".split()
)


@dataclass(frozen=True)
class Collapse:
    """A tensor of an integer file that does not hold what it holds in float.

    Attributes:
        layer: the layer it belongs to.
        operation: kind of the operation that computes it; "INPUT" for an input of the file.
        kind: "flat" (almost no different values left), "saturated" (stuck at the ends of its range), "softmax" (does
            not follow the float one) or "vanished" (a softmax whose probabilities are rounded to zero).
        detail: the figures.
        advice: what to do.
    """

    layer: str
    operation: str
    kind: str
    detail: str
    advice: str

    def __str__(self) -> str:
        return f"{self.operation} in {self.layer!r} {self.detail}"


@dataclass(frozen=True)
class _Pair:
    """A tensor in the float file and in the integer one.

    Attributes:
        reference: its number in the float file.
        integer: its number in the integer file.
        layer: it belongs to.
        operation: kind of the operation that makes it.
        masked: whether values from 1e4 on may come from a mask's constant.
        score: whether it goes to a softmax, at once or behind what moves or shifts values.
        last: whether it is an output of the file.
    """

    reference: int
    integer: int
    layer: str
    operation: str
    masked: bool
    score: bool
    last: bool

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


def has_grids(draft: Draft) -> bool:
    """Whether an operation of the file computes integers that stand for real numbers."""
    return any(_grid(draft, index) is not None for op in draft.operators for index in op.outputs)


def collapses(
    reference: Draft, integer: Draft, samples: Samples, feeds: Samples | None = None, *, tidy: bool = False
) -> list[Collapse]:
    """Tensors of an integer file that do not hold what they hold in float.

    At most 16 rows are run, spread over the samples, and 2048 values of a tensor are looked at in each.

    Args:
        reference: the float file, of `reference`.
        integer: the integer file; names of its tensors are those of the float file.
        samples: calibration data, in the order of the float file's inputs.
        feeds: the same in the types and the order of the integer file's inputs; None: there is no difference.
        tidy: whether the integer file is finished: its names tell no layers any more.

    Returns:
        One entry a finding, in the order in which the file computes.

    Raises:
        ExportError: the runtime refuses a file.
    """
    pairs = matched(reference, integer, tidy=tidy)
    if not pairs or not samples:
        return []
    batch = max((array.shape[0] for array in samples[0] if array.ndim), default=1)
    count = min(len(samples), -(-_ROWS // batch))
    chosen = [int(place) for place in np.linspace(0, len(samples) - 1, count)]
    given = samples if feeds is None else feeds
    left = runs(reference, [samples[place] for place in chosen], [pair.reference for pair in pairs])
    right = runs(integer, [given[place] for place in chosen], [pair.integer for pair in pairs])
    seen: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in pairs]
    for expected, got in zip(left, right, strict=True):
        for pair, kept, one, other in zip(pairs, seen, expected, got, strict=True):
            kept.append(_picked(one, other, pair.rows))
    found = []
    for pair, kept in zip(pairs, seen, strict=True):
        one, other = (np.concatenate(parts) for parts in zip(*kept, strict=True))
        found += list(_judged(pair, one, other, integer))
    return found


def refusal(precision: str, found: Sequence[Collapse]) -> str:
    """Why a file is refused: the first findings with their advice."""
    shown = "; ".join(f"{one}: {one.advice}" for one in found[:_SHOWN])
    more = f"; and {len(found) - _SHOWN} more, which may follow from these" if len(found) > _SHOWN else ""
    return (
        f"The {precision} file would not hold what the model computes: {shown}{more}. "
        "Pass allow_collapse=True to accept it"
    )


def matched(reference: Draft, integer: Draft, *, tidy: bool = False) -> list[_Pair]:
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
    found: dict[int, _Pair] = {}
    for index in order:
        name = integer.name(index)
        source = names.get(name, names.get(name.removesuffix("_int8").removesuffix("_int16")))
        if source is None:
            continue
        made = known.get(source)
        kind = reference.kind(made) if made is not None else "INPUT"
        stored = _stored(integer, index, makers, users)
        if stored is None and kind != "SOFTMAX":
            continue
        target = index if stored is None else stored
        if np.prod(reference.tensors[source].shape) == np.prod(integer.tensors[target].shape):
            marks = source in masked, source in scores, target in ends
            found.setdefault(source, _Pair(source, target, layer_of(reference.name(source)), kind, *marks))
    return list(found.values())


def _stored(draft: Draft, index: int, makers: dict[int, Any], users: dict[int, list[Any]]) -> int | None:
    """The integers behind a tensor: itself, what it was made of, or what it becomes at once."""
    if _grid(draft, index) is not None:
        return index
    if index in makers and draft.kind(makers[index]) == "DEQUANTIZE":
        source = makers[index].inputs[0]
        return source if _grid(draft, source) is not None and not draft.is_constant(source) else None
    return next((op.outputs[0] for op in users.get(index, []) if draft.kind(op) == "QUANTIZE"), None)


def _grid(draft: Draft, index: int) -> Quantization | None:
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
        if draft.kind(op) in _CARRIES and found.intersection(op.inputs):
            found.update(op.outputs)
    return found


def _scores(draft: Draft) -> set[int]:
    """What softmaxes and exponentials read, and what that is made of by moving, shifting and choosing."""
    found: set[int] = set()
    for op in reversed(draft.operators):
        if draft.kind(op) in ("SOFTMAX", "EXP") or (draft.kind(op) in _CARRIES and found.intersection(op.outputs)):
            found.update(i for i in op.inputs if draft.is_float(i) and not draft.is_constant(i))
    return found


def _picked(expected: np.ndarray, got: np.ndarray, rows: bool) -> tuple[np.ndarray, np.ndarray]:
    """The same places of both, always the same ones for a size; whole rows [n, length] of a softmax, else [n]."""
    width = expected.shape[-1] if rows else 1
    one, other = expected.reshape(-1, width), got.reshape(-1, width)
    limit = max(1, _PLACES // width)
    if len(one) > limit:
        places = np.random.default_rng(len(one)).integers(0, len(one), limit)
        one, other = one[places], other[places]
    return (one, other) if rows else (one[:, 0], other[:, 0])


def _judged(pair: _Pair, expected: np.ndarray, got: np.ndarray, integer: Draft) -> Iterator[Collapse]:
    """What is wrong with one tensor."""
    grid = _grid(integer, pair.integer)
    if pair.rows:
        step = float(grid.scale[0]) if grid is not None else 0.0
        yield from _softmax(pair, expected, got if grid is None else grid.real(got), step)
    elif grid is not None:
        dtype = DTYPES[integer.type(pair.integer)]
        real = np.isfinite(expected) & ~(pair.masked & (np.abs(expected) >= LARGE))
        if real.any():
            yield from _values(pair, expected[real], got[real], grid, dtype)


def _values(
    pair: _Pair, expected: np.ndarray, got: np.ndarray, grid: Quantization, dtype: np.dtype
) -> Iterator[Collapse]:
    """Flat or saturated."""
    low, high = min(float(expected.min()), 0.0), max(float(expected.max()), 0.0)
    if float(np.ptp(expected)) < _NOTHING:
        return
    limits, step = np.iinfo(dtype), float(grid.scale[0])
    first, last = (float(grid.real(np.array([end]))[0]) for end in (limits.min, limits.max))
    had = np.unique(np.round((expected - low) * (255 / (high - low)))).size
    held = np.unique(got).size
    wide = (last - first) / (high - low)
    few = 2 if pair.operation in FIXED else had // _TIMES
    harmless = (pair.last and pair.operation in FIXED) or (pair.score and step <= _FINE)
    if had >= _MANY and held <= few and not harmless:
        where = f"range [{first:.3g}, {last:.3g}], values [{low:.3g}, {high:.3g}]"
        yield Collapse(
            pair.layer,
            pair.operation,
            "flat",
            f"holds {held} different values where an 8-bit grid that fits holds {had} ({where})",
            _TOO_WIDE if wide > _TIMES / 2 else _BEFORE,
        )
        return
    beyond = _BEYOND * (last - first)
    below = (got == limits.min) & (expected < first - beyond) & (not pair.score)
    above = (got == limits.max) & (expected > last + beyond)
    share = float(np.mean(below | above))
    if share > _CLIPPED:
        yield Collapse(
            pair.layer,
            pair.operation,
            "saturated",
            f"has {100 * share:.0f} % of its values at the ends of its range [{first:.3g}, {last:.3g}] "
            f"while they reach [{low:.3g}, {high:.3g}] in float",
            _TOO_NARROW,
        )


def _softmax(pair: _Pair, expected: np.ndarray, got: np.ndarray, step: float) -> Iterator[Collapse]:
    """Does not follow, or vanished."""
    allowed = expected > 0  # a masked position is exactly 0
    number = np.maximum(allowed.sum(-1, keepdims=True), 1)
    left, right = (
        np.where(allowed, p - np.where(allowed, p, 0).sum(-1, keepdims=True) / number, 0) for p in (expected, got)
    )
    spread, kept = float(np.mean(left[allowed] ** 2)), float(np.mean(right[allowed] ** 2))
    if spread > max(step, 1e-3) ** 2:
        correlation = float(np.mean(left[allowed] * right[allowed])) / np.sqrt(spread * kept) if kept else 0.0
        if correlation < _FOLLOWS:
            text = f"correlates {correlation:.2f} with the float one"
            yield Collapse(pair.layer, pair.operation, "softmax", text, _SCORES)
            return
    mass = float(np.median(got.sum(-1) / expected.sum(-1)))
    if mass < _MASS and not pair.last:
        text = f"sums to {mass:.2f}: its probabilities over {expected.shape[-1]} places lie below a step of {step:.2g}"
        yield Collapse(pair.layer, pair.operation, "vanished", text, _FINER)


_TOO_WIDE = (
    "its range is too wide: calibrate (or train) with data like the real ones, or, where few values are that large, "
    'export with range_method="percentile"'
)
_BEFORE = "its range fits: look at the operations before it"
_TOO_NARROW = "its range is too narrow: calibrate (or train) with data that reach what the real ones reach"
_SCORES = "look at the range of its scores: a mask or a few large values may have taken it; int16x8 holds both"
_FINER = 'export with precision="int16x8"'
