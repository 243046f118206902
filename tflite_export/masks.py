"""Constants that mean "not this one": -1e9 before a softmax, -inf before a maximum.

As a value of a tensor such a constant would be its range, and the real scores would share one or two integers. It
gets the size that it needs instead: N masked positions together stay below one 8-bit step of probability,

    low = min over rows of (log of the sum of exp(real scores)) - ln(256 N)

and the constant becomes low - (largest score of all positions), doubled until every masked position lies below low.
There the range of the softmax's input ends.
"""

import warnings
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tflite_export.draft import Draft, layer_of
from tflite_export.learned import learned
from tflite_export.measure import runs

Samples = list[list[np.ndarray]]
# A constant from here on is a mask, and a value from half of it on is masked: a score may be added to the constant.
LARGE = 1e4
_HIDDEN = LARGE / 2
# From here down a constant is a mask before a softmax; it can stay as it is, the range need not hold it.
_SMALL = -30.0
_SOFT = frozenset({"SOFTMAX", "LOG_SOFTMAX", "EXP"})
_HARD = frozenset({"MAX_POOL_2D", "REDUCE_MAX", "ARG_MAX", "TOPK_V2"})
# Move values, or compute element by element: a mask's constant stays recognizable behind them.
PASSING = frozenset(
    "ADD SUB MUL DIV NEG SELECT SELECT_V2 PAD PADV2 RESHAPE TRANSPOSE EXPAND_DIMS SQUEEZE TILE GATHER BROADCAST_TO "
    "CONCATENATION PACK STRIDED_SLICE SLICE MINIMUM MAXIMUM QUANTIZE DEQUANTIZE".split()
)
_MOVING = frozenset("RESHAPE TRANSPOSE SQUEEZE EXPAND_DIMS".split())
_DOUBLINGS = 8
_UNKNOWN = 50.0  # width of scores of which nothing is known


@dataclass
class _Sink:
    """What a softmax or a maximum reads.

    Attributes:
        kind: the operation.
        point: where its values are looked at.
        low: where the range ends below.
        top: largest value without masks.
        fired: whether anything was masked.
        loud: whether something masked lies above `low`.
    """

    kind: str
    point: int
    low: float = np.inf
    top: float = -np.inf
    fired: bool = False
    loud: bool = False


def finite(
    draft: Draft, samples: Samples, taught: dict[int, tuple[float, float]] | None = None
) -> tuple[dict[int, float], list[str]]:
    """Gives every mask constant the size that it needs.

    Args:
        draft: the float file, changed in place.
        samples: calibration data; masks must fire in them, which a warning tells where they do not. Without any, every
            range is learned, and a constant becomes twice as large as the range that it must leave.
        taught: learned ranges that do not stand in the draft.

    Returns:
        (tensor -> where its range ends below, notes on masks that never fired).
    """
    constants = _own_copies(draft)
    reach = _reached(draft, constants)
    known = {**(taught or {}), **learned(draft)}
    if not samples:
        sizes = {
            c: max(2 * float(np.ptp(known.get(sink, (0.0, _UNKNOWN)))) for sink in found) for c, found in reach.items()
        }
        _resize(draft, constants, sizes)
        return {}, []
    if not reach:
        return _small(draft, samples, {}), []
    sinks = {sink: _Sink(kind, _before_pair(draft, sink)) for found in reach.values() for sink, kind in found.items()}
    masked = Draft(draft.content())
    sizes = dict.fromkeys(reach, 0.0)
    _resize(draft, constants, sizes)
    _look(masked, draft, samples, sinks)
    for index, (low, _) in known.items():
        if index in sinks:
            sinks[index].low = low
    for constant, found in reach.items():
        sizes[constant] = max(1e-3, *(sinks[sink].top - sinks[sink].low for sink in found))
    for _ in range(_DOUBLINGS):
        _resize(draft, constants, sizes)
        _listen(masked, draft, samples, sinks)
        loud = {index for index, sink in sinks.items() if sink.loud}
        if not loud:
            break
        sizes.update({c: 2 * sizes[c] for c, found in reach.items() if loud & set(found)})
    limited = [sink for sink in sinks.values() if sink.kind in _SOFT | {"MAX_POOL_2D"}]
    ends = {_owner(draft, sink.point): sink.low for sink in limited}
    return {**_small(draft, samples, sinks), **ends}, _silent(draft, sinks)


def _silent(draft: Draft, sinks: dict[int, _Sink]) -> list[str]:
    """A note, and a warning, on each mask that never fired."""
    notes = [
        f"the mask before {layer_of(draft.name(index))!r} never fires in the calibration data: its range is that of "
        "unmasked values only. Give samples in which something is masked"
        for index, sink in sinks.items()
        if not sink.fired
    ]
    for note in dict.fromkeys(notes):
        warnings.warn(note, stacklevel=5)
    return list(dict.fromkeys(notes))


def _small(draft: Draft, samples: Samples, known: dict[int, _Sink]) -> dict[int, float]:
    """Where the inputs of softmaxes end that only masks of a moderate size (-100) reach."""
    constants = {
        index: draft.value(index)
        for op in draft.operators
        for index in op.inputs
        if draft.is_float(index) and draft.is_constant(index) and np.min(draft.value(index), initial=0.0) <= _SMALL
    }
    found = {sink for ends in _reached(draft, constants).values() for sink, kind in ends.items() if kind == "SOFTMAX"}
    taught = learned(draft)
    sinks = {index: _Sink("SOFTMAX", index) for index in found if index not in known and index not in taught}
    if sinks:
        _look(draft, draft, samples, sinks)
    return {_owner(draft, index): sink.low for index, sink in sinks.items()}


def _own_copies(draft: Draft) -> dict[int, np.ndarray]:
    """Mask constants, one for each place that reads one, so that each finds its own size: tensor -> old value."""
    copies = {}
    for op in draft.operators:
        for place, index in enumerate(op.inputs):
            if not draft.is_float(index) or not draft.is_constant(index):
                continue
            value = draft.value(index)
            if np.any(np.abs(value) >= LARGE):
                op.inputs[place] = draft.add_constant(value, draft.name(index))
                copies[op.inputs[place]] = value
    return copies


def _reached(draft: Draft, constants: dict[int, np.ndarray]) -> dict[int, dict[int, str]]:
    """Constant -> the softmaxes and maxima (input tensor -> kind) that it reaches."""
    makers = draft.makers()
    reach: dict[int, dict[int, str]] = defaultdict(dict)
    for op in draft.operators:
        kind = draft.kind(op)
        if kind not in _SOFT | _HARD or not draft.is_float(op.inputs[0]):
            continue
        todo, seen = [op.inputs[0]], set()
        while todo:
            index = todo.pop()
            if index in seen:
                continue
            seen.add(index)
            if index in constants:
                reach[index][op.inputs[0]] = kind
            elif index in makers and draft.kind(makers[index]) in PASSING:
                todo += [i for i in makers[index].inputs if i >= 0]
    return dict(reach)


def _before_pair(draft: Draft, sink: int) -> int:
    """The tensor in front of the QUANTIZE and DEQUANTIZE that make a tensor; the tensor itself without such."""
    makers = draft.makers()
    while sink in makers and draft.kind(makers[sink]) in ("DEQUANTIZE", "QUANTIZE"):
        sink = makers[sink].inputs[0]
    return sink


def _owner(draft: Draft, index: int) -> int:
    """The tensor whose grid a tensor has: the one in front of operations that only move values."""
    makers = draft.makers()
    while index in makers and draft.kind(makers[index]) in _MOVING:
        index = makers[index].inputs[0]
    return index


def _pairs(
    masked: Draft, draft: Draft, samples: Samples, sinks: dict[int, _Sink]
) -> Iterator[list[tuple[_Sink, np.ndarray, np.ndarray]]]:
    """For each sample (sink, its values as they were, as they are now); never more than one sample's at a time."""
    points = [sink.point for sink in sinks.values()]
    for before, now in zip(runs(masked, samples, points), runs(draft, samples, points), strict=True):
        yield list(zip(sinks.values(), before, now, strict=True))


def _look(masked: Draft, draft: Draft, samples: Samples, sinks: dict[int, _Sink]) -> None:
    """Finds where the real values of each sink end, and what is largest when nothing is masked."""
    for pairs in _pairs(masked, draft, samples, sinks):
        for sink, before, now in pairs:
            real = np.abs(before) < _HIDDEN
            sink.fired |= not real.all()
            sink.top = max(sink.top, float(now.max()))
            sink.low = min(sink.low, _low(before, real, sink.kind in _SOFT))
    for sink in sinks.values():
        sink.low = sink.low if np.isfinite(sink.low) else -1.0


def _listen(masked: Draft, draft: Draft, samples: Samples, sinks: dict[int, _Sink]) -> None:
    """Finds the sinks in which something masked lies above where the range ends."""
    for sink in sinks.values():
        sink.loud = False
    for pairs in _pairs(masked, draft, samples, sinks):
        for sink, before, now in pairs:
            sink.loud |= bool(np.any(now[np.abs(before) >= _HIDDEN] > sink.low + 1e-3))


def _low(values: np.ndarray, real: np.ndarray, soft: bool) -> float:
    """The value below which masked positions do no harm; infinite when everything is masked."""
    if not soft:
        return float(np.min(values, where=real, initial=np.inf))
    top = np.max(values, axis=-1, where=real, initial=-np.inf, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        total = np.log(np.sum(np.exp(values - top), axis=-1, where=real)) + top[..., 0]
    return float(np.min(total, where=np.isfinite(total), initial=np.inf) - np.log(256 * values.shape[-1]))


def _resize(draft: Draft, constants: dict[int, np.ndarray], sizes: dict[int, float]) -> None:
    for index, size in sizes.items():
        value = constants[index]
        draft.set_value(index, np.where(np.abs(value) < LARGE, value, np.sign(value) * size).astype(np.float32))
