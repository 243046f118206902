"""Constants that mean "not this one": -1e9 before a softmax, -inf before a maximum.

As a value of a tensor such a constant would be its range, and the real scores would share one or two integers. It
gets the size that it needs instead: N masked positions together stay below one 8-bit step of probability,

    low = min over rows of (largest real score) - ln(256 N)

and the constant becomes low - (largest score of all positions), doubled until every masked position lies below low.
There the range of the softmax's input ends.
"""

from collections import defaultdict

import numpy as np

from tflite_export.draft import Draft
from tflite_export.learned import learned
from tflite_export.measure import runs

Samples = list[list[np.ndarray]]
# A constant from here on is a mask.
LARGE = 1e4
_SOFT = frozenset({"SOFTMAX", "LOG_SOFTMAX", "EXP"})
_HARD = frozenset({"MAX_POOL_2D", "REDUCE_MAX", "ARG_MAX", "TOPK_V2"})
_PASSING = frozenset(
    "ADD SUB MUL DIV NEG SELECT SELECT_V2 PAD PADV2 RESHAPE TRANSPOSE EXPAND_DIMS SQUEEZE TILE GATHER BROADCAST_TO "
    "CONCATENATION PACK STRIDED_SLICE SLICE MINIMUM MAXIMUM QUANTIZE DEQUANTIZE".split()
)
_DOUBLINGS = 8


def finite(draft: Draft, samples: Samples) -> tuple[dict[int, float], list[str]]:
    """Gives every mask constant the size that it needs.

    Args:
        draft: the float file, changed in place.
        samples: calibration data; masks must fire in them.

    Returns:
        (tensor -> where its range ends below, notes on masks that never fired).
    """
    constants = _own_copies(draft)
    reach = _reached(draft, constants)
    if not reach:
        return {}, []
    sinks = {sink: kind for found in reach.values() for sink, kind in found.items()}
    points = {sink: _before_pair(draft, sink) for sink in sinks}
    before = _values(draft, samples, points)
    sizes = dict.fromkeys(reach, 0.0)
    _resize(draft, constants, sizes)
    raw = _values(draft, samples, points)
    taught = learned(draft)
    lows = {}
    for sink, kind in sinks.items():
        real = np.abs(before[sink]) < LARGE
        lows[sink] = taught[sink][0] if sink in taught else _low(before[sink], real, kind in _SOFT)
        for constant in (c for c, found in reach.items() if sink in found):
            sizes[constant] = max(sizes[constant], float(raw[sink].max()) - lows[sink], 1e-3)
    for _ in range(_DOUBLINGS):
        _resize(draft, constants, sizes)
        now = _values(draft, samples, points)
        loud = {s for s in sinks if np.any(now[s][np.abs(before[s]) >= LARGE] > lows[s] + 1e-3)}
        if not loud:
            break
        sizes.update({c: 2 * sizes[c] for c, found in reach.items() if loud & set(found)})
    silent = [s for s in sinks if not np.any(np.abs(before[s]) >= LARGE)]
    notes = [
        f"the mask before {draft.name(s)!r} never fires in the calibration data: "
        "its range is that of unmasked values only"
        for s in silent
    ]
    ends = {points[s]: low for s, low in lows.items() if sinks[s] in _SOFT | {"MAX_POOL_2D"}}
    return ends, notes


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
            elif index in makers and draft.kind(makers[index]) in _PASSING:
                todo += [i for i in makers[index].inputs if i >= 0]
    return dict(reach)


def _before_pair(draft: Draft, sink: int) -> int:
    """The tensor in front of the QUANTIZE and DEQUANTIZE that make a tensor; the tensor itself without such."""
    makers = draft.makers()
    while sink in makers and draft.kind(makers[sink]) in ("DEQUANTIZE", "QUANTIZE"):
        sink = makers[sink].inputs[0]
    return sink


def _values(draft: Draft, samples: Samples, points: dict[int, int]) -> dict[int, np.ndarray]:
    """sink -> values [samples, ...] at its point."""
    seen = list(runs(draft, samples, list(points.values())))
    return {sink: np.stack(values) for sink, values in zip(points, zip(*seen, strict=True), strict=True)}


def _low(values: np.ndarray, real: np.ndarray, soft: bool) -> float:
    """The value below which masked positions do no harm."""
    if not real.any():
        return -1.0
    if not soft:
        return float(values[real].min())
    top = np.where(real, values, -np.inf).max(-1)
    return float(top[np.isfinite(top)].min() - np.log(256 * values.shape[-1]))


def _resize(draft: Draft, constants: dict[int, np.ndarray], sizes: dict[int, float]) -> None:
    for index, size in sizes.items():
        value = constants[index]
        draft.set_value(index, np.where(np.abs(value) < LARGE, value, np.sign(value) * size).astype(np.float32))
