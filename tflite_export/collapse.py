"""What an integer file lost: tensors that hold almost no value any more, that saturate, softmaxes that do not follow.

A model's output can stay right on easy data while its attention is gone, so each tensor is looked at: the float file
and the integer one run side by side on a few samples, and tensors of one name are compared at the same places.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tflite_export.draft import Draft
from tflite_export.graph import DTYPES, Quantization
from tflite_export.learned import FIXED
from tflite_export.masks import LARGE
from tflite_export.measure import runs
from tflite_export.pairs import Pair, grid_of, matched

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
# Of a softmax: correlation with float about each row's mean, told where that varies visibly; and the share of a row's
# sum that must be left.
_FOLLOWS, _VISIBLE, _EVEN, _MASS = 0.9, 1e-3, 1e-6, 0.5
# Astray: the square of its error is more than (1 - `_WORST`) times its variance, though what it reads is right up to
# (1 - `_RIGHT`) of it; told of tensors that vary by more than `_VARIES` steps of a grid that fits.
_WORST, _RIGHT, _VARIES = -0.5, 0.9, 2.0
# What a mask chooses or pads differs on purpose where it does not count.
_CHOOSES = frozenset({"SELECT", "SELECT_V2", "PAD", "PADV2"})
_SHOWN = 5


@dataclass(frozen=True)
class Collapse:
    """A tensor of an integer file that does not hold what it holds in float.

    Attributes:
        layer: the layer it belongs to.
        operation: kind of the operation that computes it; "INPUT" for an input of the file.
        kind: "flat" (almost no different values left), "saturated" (stuck at the ends of its range), "astray"
            (wrong by more than it varies, though what it reads is right), "softmax" (does not follow the float one) or
            "vanished" (a softmax whose probabilities are rounded to zero).
        detail: the figures.
        advice: what to do.
        last: whether the tensor is an output of the model.
    """

    layer: str
    operation: str
    kind: str
    detail: str
    advice: str
    last: bool = False

    def __str__(self) -> str:
        return f"{self.operation} in {self.layer!r} {self.detail}"


def has_grids(draft: Draft) -> bool:
    """Whether an operation of the file computes integers that stand for real numbers."""
    return any(grid_of(draft, index) is not None for op in draft.operators for index in op.outputs)


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
    found: list[Collapse] = []
    seen_right: dict[int, _Right] = {}
    for pair, kept in zip(pairs, seen, strict=True):
        one, other = (np.concatenate(parts) for parts in zip(*kept, strict=True))
        read = [seen_right[source] for source in pair.sources if source in seen_right]
        told, seen_right[pair.reference] = _judged(pair, one, other, integer, read)
        found += told
    return found


def shown(precision: str, found: Sequence[Collapse]) -> str:
    """What a file does not hold: the first findings with their advice."""
    first = "; ".join(f"{one}: {one.advice}" for one in found[:_SHOWN])
    more = f"; and {len(found) - _SHOWN} more, which may follow from these" if len(found) > _SHOWN else ""
    return f"The {precision} file would not hold what the model computes: {first}{more}"


def by_training(found: Sequence[Collapse], learned: Collection[tuple[str, str]]) -> bool:
    """Whether training is the cause: what comes first has a range that the model has learned, and attention is alive.

    A model that was trained for a few steps has such ranges: what its BatchNormalization gives in training is not yet
    what it gives in inference. That is for its user to judge. `learned` are layers and operations.
    """
    attention = any(one.kind in ("softmax", "vanished") and not one.last for one in found)
    return (found[0].layer, found[0].operation) in learned and not attention


def _picked(expected: np.ndarray, got: np.ndarray, rows: bool) -> tuple[np.ndarray, np.ndarray]:
    """The same places of both, always the same ones for a size; whole rows [n, length] of a softmax, else [n]."""
    width = expected.shape[-1] if rows else 1
    one, other = expected.reshape(-1, width), got.reshape(-1, width)
    limit = max(1, _PLACES // width)
    if len(one) > limit:
        places = np.random.default_rng(len(one)).integers(0, len(one), limit)
        one, other = one[places], other[places]
    return (one, other) if rows else (one[:, 0], other[:, 0])


@dataclass(frozen=True)
class _Right:
    """How right a tensor of the file is.

    Attributes:
        share: how much of its variance is right; at most 1.
        error: root mean square of its error.
        size: root mean square of its values in float.
    """

    share: float = 1.0
    error: float = 0.0
    size: float = 0.0


def _judged(
    pair: Pair, expected: np.ndarray, got: np.ndarray, integer: Draft, read: Sequence[_Right]
) -> tuple[list[Collapse], _Right]:
    """What is wrong with one tensor, and how right it is; `read` is how right that is which it is made of."""
    grid = grid_of(integer, pair.integer)
    if pair.rows:
        step = float(grid.scale[0]) if grid is not None else 0.0
        return list(_softmax(pair, expected, got if grid is None else grid.real(got), step)), _Right()
    real = np.isfinite(expected) & ~(pair.masked & (np.abs(expected) >= LARGE))
    if grid is None or not real.any():
        return [], _Right()
    expected, got = expected[real].astype(np.float64), got[real]
    low, high = min(float(expected.min()), 0.0), max(float(expected.max()), 0.0)
    if float(np.ptp(expected)) < _NOTHING:
        return [], _Right()
    error = float(np.mean((grid.real(got) - expected) ** 2))
    spread = float(expected.std()) > _VARIES * (high - low) / 255
    share = 1 - error / float(expected.var()) if spread else 1.0
    right = _Right(share, float(np.sqrt(error)), float(np.sqrt(np.mean(expected**2))))
    limits = np.iinfo(DTYPES[integer.type(pair.integer)])
    told = _flat(pair, expected, got, grid, limits) or _saturated(pair, expected, got, grid, limits)
    wrong = share < _WORST and min((one.share for one in read), default=1.0) >= _RIGHT
    harmless = pair.score or pair.operation in _CHOOSES or _inherited(pair, right, read)
    if told is None and wrong and not harmless:
        text = f"is wrong by {np.sqrt(1 - share):.1f} times as much as it varies, though what it reads is right"
        told = Collapse(pair.layer, pair.operation, "astray", text, _TOO_COARSE)
    return ([] if told is None else [told]), right


def _inherited(pair: Pair, right: _Right, read: Sequence[_Right]) -> bool:
    """Whether a mean is no more wrong than the errors of the numbers, or of the squares, that it is of make it.

    A mean hardly varies, so what it reads can be right while its error is larger than that:
    |mean(x + e) - mean(x)| <= rms(e), and for squares it is at most (1 + rms(e) / rms(x))**2 - 1 of mean(x**2).
    """
    if pair.operation != "MEAN":
        return False
    return any(
        one.size > 0 and right.error <= max(one.error, right.size * ((1 + one.error / one.size) ** 2 - 1))
        for one in read
    )


def _ends(grid: Quantization, limits: np.iinfo) -> tuple[float, float]:
    low, high = (float(grid.real(np.array([end]))[0]) for end in (limits.min, limits.max))
    return low, high


def _flat(pair: Pair, expected: np.ndarray, got: np.ndarray, grid: Quantization, limits: np.iinfo) -> Collapse | None:
    """Almost no different values are left of many."""
    low, high = min(float(expected.min()), 0.0), max(float(expected.max()), 0.0)
    first, last = _ends(grid, limits)
    had = np.unique(np.round((expected - low) * (255 / (high - low)))).size
    held = np.unique(got).size
    few = 2 if pair.operation in FIXED else had // _TIMES
    harmless = (pair.last and pair.operation in FIXED) or (pair.score and float(grid.scale[0]) <= _FINE)
    if had < _MANY or held > few or harmless:
        return None
    where = f"range [{first:.3g}, {last:.3g}], values [{low:.3g}, {high:.3g}]"
    text = f"holds {held} different values where an 8-bit grid that fits holds {had} ({where})"
    too_wide = last - first > _TIMES / 2 * (high - low)
    return Collapse(pair.layer, pair.operation, "flat", text, _TOO_WIDE if too_wide else _BEFORE)


def _saturated(
    pair: Pair, expected: np.ndarray, got: np.ndarray, grid: Quantization, limits: np.iinfo
) -> Collapse | None:
    """Stuck at the ends of its range; masked scores may be so at the lower one."""
    first, last = _ends(grid, limits)
    beyond = _BEYOND * (last - first)
    below = (got == limits.min) & (expected < first - beyond) & (not pair.score)
    above = (got == limits.max) & (expected > last + beyond)
    share = float(np.mean(below | above))
    if share <= _CLIPPED:
        return None
    text = (
        f"has {100 * share:.0f} % of its values at the ends of its range [{first:.3g}, {last:.3g}] "
        f"while they reach [{float(expected.min()):.3g}, {float(expected.max()):.3g}] in float"
    )
    return Collapse(pair.layer, pair.operation, "saturated", text, _TOO_NARROW)


def _softmax(pair: Pair, expected: np.ndarray, got: np.ndarray, step: float) -> Iterator[Collapse]:
    """Does not follow, or vanished; rows [n, length] of probabilities."""
    whole = np.isfinite(expected).all(-1)
    expected, got = expected[whole].astype(np.float64), got[whole].astype(np.float64)
    if not whole.any():
        return
    allowed = expected > 0  # a masked position is exactly 0
    number = np.maximum(allowed.sum(-1, keepdims=True), 1)
    left, right = (
        np.where(allowed, p - np.where(allowed, p, 0).sum(-1, keepdims=True) / number, 0) for p in (expected, got)
    )
    # A row whose every position is masked is even in float, and does not count.
    counts = allowed & (np.abs(left).max(-1, keepdims=True) > _EVEN)
    left, right = left[counts], right[counts]
    if left.size and np.mean(left**2) > max(step, _VISIBLE) ** 2:
        length = np.sqrt(np.sum(left**2) * np.sum(right**2))
        correlation = float(np.sum(left * right) / length) if length else 0.0
        if correlation < _FOLLOWS:
            text = f"correlates {correlation:.2f} with the float one"
            yield Collapse(pair.layer, pair.operation, "softmax", text, _SCORES, pair.last)
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
_TOO_COARSE = 'one 8-bit grid is too coarse for it: export with precision="int16x8"'
_SCORES = "look at the range of its scores: a mask or a few large values may have taken it; int16x8 holds both"
_FINER = 'export with precision="int16x8"'
