"""Which layer of a deep teacher teaches which layer of a shallower student."""

from collections.abc import Callable, Sequence
from typing import Any

from tfcompress.core import flavor
from tfcompress.core.flavor import keras
from tfcompress.core.scalars import is_whole
from tfcompress.core.select import matcher
from tfcompress.distill.objects import DistillationLoss

HOW = ("uniform", "first", "last")


def layer_map(
    loss: Callable[..., DistillationLoss], teacher: Any, student: Any, select: Any,
    how: str | Sequence[int] = "uniform",
    **options: Any,
) -> list[DistillationLoss]:  # fmt: skip
    """A loss for each selected layer of the student, and the teacher's layer that it learns from.

    Of N selected layers of the teacher and M <= N of the student, layer m = 0 ... M - 1 of the student learns from

        uniform   ceil((m + 1) N / M) - 1    every other layer, where N = 2 M
        first     m
        last      N - M + m

    Args:
        loss: makes a loss of two layers: `Features`, `AttentionMatrices`, `Cosine` and so on.
        teacher: a Keras model.
        student: a Keras model.
        select: which layers count, in both models, in the order in which they were built: a layer class, a name pattern
            ("block_*"), a predicate, or a list of these; a pair (of the teacher, of the student) where they differ.
        how: "uniform", "first", "last", or the number of the teacher's layer for each of the student's.
        options: further arguments of `loss`.

    Returns:
        M losses, to be given to `Distiller` beside others.

    Raises:
        ValueError: the student has more selected layers than the teacher, or `how` does not fit.

    Source: Jiao et al. 2019 (TinyBERT), arXiv:1909.10351, section 3.1 (the mapping function); Sanh et al. 2019
    (DistilBERT), arXiv:1910.01108, section 3.

    >>> from tfcompress.distill import Features
    >>> def chain(depth):
    ...     hidden = [keras.layers.Dense(4, name=f"block_{i}") for i in range(depth)]
    ...     return keras.Sequential([keras.Input((4,)), *hidden])
    >>> [(pair.teacher.name, pair.student.name) for pair in layer_map(Features, chain(4), chain(2), "block_*")]
    [('block_1', 'block_0'), ('block_3', 'block_1')]
    """
    flavor.check_model(teacher, "teacher")
    flavor.check_model(student, "student")
    mine, other = select if isinstance(select, tuple) and len(select) == 2 else (select, select)
    taught, learning = _chosen(teacher, mine), _chosen(student, other)
    pairs = zip(places(len(taught), len(learning), how), learning, strict=True)
    return [loss(teacher=taught[place], student=layer, **options) for place, layer in pairs]


def _chosen(model: Any, select: Any) -> list[Any]:
    """The selected layers; what is inside one of them is part of it."""
    chosen = matcher(select, model)
    parts = [part for part in flavor.sublayers(model, recursive=True) if chosen(part)]
    inside = {id(part) for outer in parts for part in flavor.sublayers(outer, recursive=True) if part is not outer}
    return [part for part in parts if id(part) not in inside and not isinstance(part, keras.layers.InputLayer)]


def places(teacher: int, student: int, how: str | Sequence[int] = "uniform") -> list[int]:
    """The number of the teacher's layer for each of the student's.

    Args:
        teacher: how many layers the teacher has.
        student: how many the student has, from 1 to `teacher`.
        how: as for `layer_map`.

    Raises:
        ValueError: the numbers do not fit.

    >>> places(12, 6), places(4, 2, "last")
    ([1, 3, 5, 7, 9, 11], [2, 3])
    """
    if not isinstance(how, str):
        chosen = list(how)
        if len(chosen) != student or not all(is_whole(place, -teacher) and place < teacher for place in chosen):
            raise ValueError(
                f"`how` must name one of {teacher} layers of the teacher for each of the student's {student}. "
                f"Received: how={how!r}"
            )
        return [int(place) % teacher for place in chosen]
    if how not in HOW:
        raise ValueError(f"`how` must be one of {HOW}, or numbers of layers. Received: how={how!r}")
    if not 0 < student <= teacher:
        raise ValueError(
            f"`select` must name at least as many layers of the teacher as of the student. Received: {teacher} of the "
            f"teacher, {student} of the student"
        )
    if how == "uniform":
        return [-(-(place + 1) * teacher // student) - 1 for place in range(student)]
    return [place + (teacher - student if how == "last" else 0) for place in range(student)]
