"""Labels through operations without weights, and those operations made again with fewer channels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfcompress.core import flavor
from tfcompress.core.errors import CompressionError
from tfcompress.core.flavor import keras
from tfcompress.core.replay import Call
from tfcompress.prune.experiments import Answer, Experiment, Failed, Kept, Sizes, reconfigured
from tfcompress.prune.labels import Axes, Labels, Vector

_PIECES = 16  # a choice of positions that is no slice is put together from at most so many


@dataclass
class Operation:
    """What a call without weights does to labels.

    Attributes:
        call: the call.
        outputs: labels of its outputs.
        constants: labels of the axes of arrays among its arguments, numbered as `experiments.filled` does.
        sums: axes (tensor, axis) over which it sums, so that channels that are zero may be left out.
        reason: why labels of its inputs cannot be removed, or None.
        moved: whether its arguments may have to change with the number of channels.
        lengths: (label of a number, labels of the axis whose length it is).
    """

    call: Call
    outputs: list[list[Vector | None]]
    constants: dict[tuple[int, int], Vector] = field(default_factory=dict)
    sums: list[tuple[int, int]] = field(default_factory=list)
    reason: str | None = None
    moved: bool = False
    lengths: list[tuple[Vector, Vector]] = field(default_factory=list)


def blank(tensor: Any) -> list[Vector | None]:
    """The axes of a tensor on which nothing can be removed."""
    return [None if size is None else np.zeros(int(size), np.int64) for size in tensor.shape]


def label_operation(call: Call, given: Sequence[Axes], labels: Labels, sizes: Sizes) -> Operation:
    """Let labels flow through a call without weights; what is not understood fixes them.

    Args:
        call: the call.
        given: the labels of its different inputs, in their order.
        labels: grows, and is tied where the call ties.
        sizes: of the graph's tensors.
    """
    done = Operation(call, [blank(t) for t in call.outputs])
    labelled = [any(map(labels.free, axes)) for axes in given]
    if not any(labelled):
        return done
    if _reads_sizes(call):
        _sizes(done, given[0], labels)
        return done
    try:
        experiment = Experiment(call, sizes, labelled)
    except Failed as error:
        return _fixed(done, given, labels, f"{call.name} cannot be tried alone ({error})")
    left = [place for place in _places(given, labels) if not _alike(done, experiment, given, labels, *place)]
    if left and not (_moves(done, experiment, given, labels, left) or _sums(done, experiment, given, labels, left)):
        return _fixed(done, [_at(axes, left) for axes in given], labels, f"{call.name} mixes channels")
    return done


def _fixed(done: Operation, given: Sequence[Axes], labels: Labels, reason: str) -> Operation:
    for axes in given:
        labels.fix(axes, reason)
    done.reason = reason
    return done


def _reads_sizes(call: Call) -> bool:
    """Whether a call asks for the shape of a tensor: its output has a number for each axis."""
    rank = len(call.inputs[0].shape) if len(call.inputs) == 1 else -1
    return (flavor.operation_name(call.operation) or "").endswith("shape") and tuple(call.outputs[0].shape) == (rank,)


def _sizes(done: Operation, axes: Axes, labels: Labels) -> None:
    """A number that is the length of an axis with labels has a label itself: who computes with it fixes the axis."""
    numbers = np.zeros(len(axes), np.int64)
    for axis, vector in enumerate(axes):
        if vector is not None and labels.free(vector):
            numbers[axis] = labels.fresh(1)[0]
            done.lengths.append((numbers[axis : axis + 1], vector))
    done.outputs = [[numbers]]


def _places(given: Sequence[Axes], labels: Labels) -> list[tuple[int, int]]:
    """(place from the right, length) of each axis with labels."""
    found = {(axis - len(axes), v.size): None
             for axes in given for axis, v in enumerate(axes) if v is not None and labels.free(v)}  # fmt: skip
    return list(found)


def _at(axes: Axes, places: Sequence[tuple[int, int]]) -> Axes:
    return tuple(v if v is not None and (axis - len(axes), v.size) in places else None for axis, v in enumerate(axes))


def _alike(
    done: Operation, experiment: Experiment, given: Sequence[Axes], labels: Labels, place: int, size: int
) -> bool:
    """Channels that are treated alike keep their labels; where tensors meet, theirs are tied.

    Tried are the tensors with labels at this place, those with labels of this length wherever (heads of queries and of
    scores), then all that is as long at this place.
    """
    labelled = [(n, axis) for n, axes in enumerate(given) for axis, v in enumerate(axes)
                if v is not None and v.size == size and labels.free(v)]  # fmt: skip
    here = [(n, axis) for n, axis in labelled if axis - len(given[n]) == place]
    one_each = [axes for axes in (here, labelled) if len({n for n, _ in axes}) == len(axes)]
    for axes in (*one_each, experiment.axes_at(place, size)):
        found = experiment.channelwise(axes, size)
        if found is not None:
            break
    else:
        return False
    first, axis = here[0]
    vector: Vector = given[first][axis]  # type: ignore[assignment]
    for n, axis in axes:
        other = given[n][axis] if n >= 0 else None
        if n < 0:
            done.constants[n, axis] = vector
        else:
            labels.tie(vector, np.zeros(size, np.int64) if other is None else other)
    for output, axis in zip(done.outputs, found, strict=True):
        if output[axis] is None:  # a length that is not known
            labels.fix(vector, f"{done.call.name} gives it a length that is not known")
        else:
            output[axis] = vector
    return True


def _moves(
    done: Operation, experiment: Experiment, given: Sequence[Axes], labels: Labels, left: Sequence[tuple[int, int]]
) -> bool:
    """Numbers that are moved take their labels along."""
    sources = experiment.sources()
    if sources is None:
        return False
    done.moved = True
    for place in dict.fromkeys(place for place, _ in left):
        parts = []
        for shape, axes in zip(experiment.shapes, given, strict=True):
            vector = axes[place] if len(axes) >= -place and axes[place] is not None else np.zeros(1, np.int64)
            parts.append(np.ravel(np.broadcast_to(_column(vector, place) if vector.any() else 0, shape)))  # type: ignore[union-attr, arg-type]
        laid = np.concatenate(parts)
        for source, output, tensor in zip(sources, done.outputs, done.call.outputs, strict=True):
            elements = np.where(source < 0, -1, laid[np.maximum(source, 0)])
            if not np.any(elements > 0):
                continue
            taken = [i for i, d in enumerate(tensor.shape) if d is None or (output[i] is not None and output[i].any())]  # type: ignore[union-attr]
            if len(taken) == elements.ndim:
                labels.fix(np.unique(elements[elements > 0]), f"{done.call.name} spreads it over lengths not known")
                continue
            axis, vector = labels.along(elements, taken)
            output[axis] = vector
    return _can_be_redone(done, experiment, given, labels)


def _column(vector: Vector, place: int) -> np.ndarray:
    return vector.reshape(vector.shape + (1,) * (-1 - place))


def _can_be_redone(done: Operation, experiment: Experiment, given: Sequence[Axes], labels: Labels) -> bool:
    """Whether the call can be made with fewer channels, tried on two choices."""
    every = [v for axes in (*given, *done.outputs) for v in axes if v is not None and labels.free(v)]
    roots = np.unique(np.concatenate([labels.roots(v) for v in every])) if every else np.zeros(0, np.int64)
    roots = np.array([root for root in roots if labels.reason(root) is None], np.int64)
    rng = np.random.default_rng(3)
    for share in (roots.size // 2, 1):
        gone = rng.choice(roots, share, replace=False) if roots.size > share else roots[:0]

        def keep(vector: Vector, gone: np.ndarray = gone) -> np.ndarray:
            return np.flatnonzero(~np.isin(labels.roots(vector), gone))

        if any(keep(v).size == 0 for v in every):  # a tensor with no channel left is never asked for
            continue
        try:
            _answer(done, experiment, given, keep)
        except CompressionError:
            return False
    return True


def _sums(
    done: Operation, experiment: Experiment, given: Sequence[Axes], labels: Labels, left: Sequence[tuple[int, int]]
) -> bool:
    """Channels that are summed over end here; those that are multiplied before are tied."""
    axes = [(n, axis) for n, all_axes in enumerate(given) for axis, v in enumerate(_at(all_axes, left))
            if v is not None and labels.free(v)]  # fmt: skip
    vectors = [given[n][axis] for n, axis in axes]
    sizes = {v.size for v in vectors if v is not None}
    if len(sizes) != 1 or len({n for n, _ in axes}) != len(axes) or not experiment.sums(axes, sizes.pop()):
        return False
    for vector in vectors[1:]:
        labels.tie(vectors[0], vector)  # type: ignore[arg-type]
    done.sums = axes
    return True


def redone(done: Operation, given: Sequence[Axes], keep: Callable[[Vector], np.ndarray], sizes: Sizes) -> Answer | None:
    """How to make a call again with fewer channels; None when it is made as it was.

    Args:
        done: what `label_operation` said.
        given: the labels of the call's different inputs.
        keep: the positions of an axis that stay.
        sizes: of the graph's tensors.

    Raises:
        CompressionError: no way was found.
    """
    if not done.moved or not any(_loses(axes, keep) for axes in given):
        return None
    return _answer(done, Experiment(done.call, sizes, [_loses(axes, keep) for axes in given]), given, keep)


def _loses(axes: Axes, keep: Callable[[Vector], np.ndarray]) -> bool:
    return any(v is not None and keep(v).size < v.size for v in axes)


def _answer(
    done: Operation, experiment: Experiment, given: Sequence[Axes], keep: Callable[[Vector], np.ndarray]
) -> Answer | None:
    """The first way to make the call again that gives what is expected, on numbers."""

    def kept_of(all_axes: Sequence[Sequence[Vector | None]]) -> Kept:
        return {(n, axis): keep(v) for n, axes in enumerate(all_axes) for axis, v in enumerate(axes)
                if v is not None and keep(v).size < v.size}  # fmt: skip

    inputs, outputs = kept_of(given), kept_of(done.outputs)
    values = next(experiment.draws())
    expected = experiment.run(values)
    for (n, axis), chosen in outputs.items():
        expected[n] = np.take(expected[n], chosen, axis)
    part = list(values)
    for (n, axis), chosen in inputs.items():
        part[n] = np.take(part[n], chosen, axis)
    constants = {key: keep(v) for key, v in done.constants.items()}
    for answer in (None, _reshaped(done, outputs), _picked(done, experiment, inputs, outputs)):
        try:
            found = experiment.run(part, answer, constants)
        except Failed:
            continue
        if all(np.array_equal(a, b, equal_nan=True) for a, b in zip(expected, found, strict=True)):
            return answer
    raise CompressionError(f"{done.call.name!r} cannot be made with fewer channels")


def _reshaped(done: Operation, outputs: Kept) -> Answer:
    """The call, with every shape among its arguments replaced by that of the smaller output."""
    operation = done.call.operation
    pairs = []
    for n, tensor in enumerate(done.call.outputs):
        old = [None if d is None else int(d) for d in tensor.shape]
        new = [outputs[n, axis].size if (n, axis) in outputs else d for axis, d in enumerate(old)]
        pairs += [(old, new), (old[1:], new[1:])]

    def change(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: change(item) for key, item in value.items()}
        if not isinstance(value, (list, tuple)):
            return value
        for old, new in pairs:
            if _is_shape(value, old):
                return type(value)(b if isinstance(v, (int, np.integer)) and v != -1 and a is not None else v
                                   for v, a, b in zip(value, old, new, strict=True))  # fmt: skip
        return type(value)(map(change, value))

    def answer(args: tuple, kwargs: dict[str, Any]) -> Any:
        if isinstance(operation, keras.layers.Layer) and not flavor.is_operation(operation):
            new = reconfigured(operation, {k: change(v) for k, v in operation.get_config().items()})
        else:
            new = flavor.loosened_operation(operation, change)
        return new(*change(args), **change(kwargs))

    return answer


def _is_shape(value: Sequence[Any], shape: Sequence[int | None]) -> bool:
    numbers = [isinstance(v, (int, np.integer)) and not isinstance(v, bool) for v in value]
    if len(value) != len(shape) or not any(numbers):
        return False
    places = zip(value, shape, numbers, strict=True)
    return all(not number or v == -1 or size is None or v == size for v, size, number in places)


def _picked(done: Operation, experiment: Experiment, inputs: Kept, outputs: Kept) -> Answer | None:
    """Slices of one tensor, where that is all the call does along one axis."""
    if len(experiment.inputs) != 1 or len(inputs) != 1:
        return None
    ((_, axis),) = inputs
    chosen = inputs[0, axis]
    source = experiment.inputs[0]
    values = next(experiment.draws())[0]
    runs = []
    for n, output in enumerate(experiment.run([values])):
        if output.ndim != values.ndim:
            return None
        places = _taken(experiment, n, axis)
        if places is None or not np.array_equal(np.take(values, places, axis), output):
            return None
        kept = places[outputs[n, axis]] if (n, axis) in outputs else places
        if not np.isin(kept, chosen).all():
            return None
        runs.append(_slices(np.searchsorted(chosen, kept)))
    if any(len(pieces) > _PIECES for pieces in runs):
        return None

    def answer(args: tuple, kwargs: dict[str, Any]) -> Any:
        given = flavor.flatten((args, kwargs))
        leaves = flavor.flatten((done.call.args, done.call.kwargs))
        tensor = next(new for new, old in zip(given, leaves, strict=True) if old is source)
        made = []
        for pieces in runs:
            parts = [tensor[(slice(None),) * axis + (piece,)] for piece in pieces]
            made.append(parts[0] if len(parts) == 1 else keras.layers.Concatenate(axis=axis)(parts))
        return made[0] if len(made) == 1 else made

    return answer


def _taken(experiment: Experiment, n: int, axis: int) -> np.ndarray | None:
    """The positions along an axis of the only input that an output consists of."""
    sources = experiment.sources()
    if sources is None or np.any(sources[n] < 0):
        return None
    shape = experiment.shapes[0]
    along = np.moveaxis(np.unravel_index(sources[n], shape)[axis], axis, 0)
    return np.reshape(along, (along.shape[0], -1))[:, 0]


def _slices(places: np.ndarray) -> list[slice]:
    """Positions in order as slices.

    >>> _slices(np.array([0, 1, 2, 5, 6]))
    [slice(0, 3, None), slice(5, 7, None)]
    """
    breaks = np.flatnonzero(np.diff(places) != 1) + 1
    return [slice(int(run[0]), int(run[-1]) + 1) for run in np.split(places, breaks) if run.size]
