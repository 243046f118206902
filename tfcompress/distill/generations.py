"""One teacher after another: what has learned teaches what comes next."""

from collections.abc import Callable, Sequence
from typing import Any

from tfcompress.core import flavor
from tfcompress.core.flavor import keras
from tfcompress.core.scalars import is_whole
from tfcompress.distill.distiller import Distiller
from tfcompress.distill.objects import Logits


def born_again(
    teacher: Any, make: Callable[[], Any], train: Callable[[Distiller], Any], *, generations: int = 3,
    losses: Any = None, student_loss_weight: float = 0.5,
) -> list[Any]:  # fmt: skip
    """Generations of one architecture, each taught by the one before it.

    Args:
        teacher: what teaches the first generation; anything that `Distiller` takes.
        make: makes a new, untrained student; called once for each generation.
        train: compiles and fits the distiller that it is given.
        generations: how many, from 1 on.
        losses: as `Distiller` takes them; `Logits(temperature=1.0)` when left out.
        student_loss_weight: as `Distiller` takes it.

    Returns:
        The students, oldest first; given as a list, they teach or answer as an ensemble.

    Raises:
        ValueError: less than one generation.

    Source: Furlanello et al. 2018, arXiv:1805.04770, section 3.

    >>> import numpy as np
    >>> def make():
    ...     return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> def train(distiller):
    ...     distiller.compile("sgd")
    ...     distiller.fit(np.ones((8, 4), "float32"), verbose=0)
    >>> len(born_again(make(), make, train, generations=2, student_loss_weight=0.0))
    2
    """
    if not is_whole(generations):
        raise ValueError(f"`generations` must be a whole number from 1 on. Received: generations={generations!r}")
    losses = Logits(temperature=1.0) if losses is None else losses
    return _in_turn(teacher, [make] * int(generations), train, losses, student_loss_weight, False)


def through_assistants(
    teacher: Any, students: Sequence[Any], train: Callable[[Distiller], Any], *, losses: Any = None,
    student_loss_weight: float = 0.5, dense: bool = False,
) -> list[Any]:  # fmt: skip
    """Teacher assistants: models of sizes in between, so that no student is too far from who teaches it.

    Args:
        teacher: anything that `Distiller` takes.
        students: the assistants, largest first, and last the student: built models, or functions that make them.
        train: compiles and fits the distiller that it is given.
        losses: as `Distiller` takes them, or a function `(teacher, student) -> losses` where these name layers;
            `Logits(temperature=4.0)` when left out.
        student_loss_weight: as `Distiller` takes it.
        dense: each learns from all that came before it, as an ensemble, and not from the last alone.

    Returns:
        The trained models in the order of `students`.

    Raises:
        ValueError: no students.

    Source: Mirzadeh et al. 2019, arXiv:1902.03393, section 3; Son et al. 2020, arXiv:2009.08825 (dense).

    >>> import numpy as np
    >>> def of(width):
    ...     return keras.Sequential([keras.Input((4,)), keras.layers.Dense(width), keras.layers.Dense(3)])
    >>> def train(distiller):
    ...     distiller.compile("sgd")
    ...     distiller.fit(np.ones((8, 4), "float32"), verbose=0)
    >>> [model.count_params() for model in through_assistants(of(16), [of(8), of(4)], train, student_loss_weight=0.0)]
    [67, 35]
    """
    students = list(students)
    if not students:
        raise ValueError("`students` must hold at least one model. Received: none")
    losses = Logits(temperature=4.0) if losses is None else losses
    return _in_turn(teacher, students, train, losses, student_loss_weight, dense)


def _in_turn(
    teacher: Any, students: Sequence[Any], train: Callable[[Distiller], Any], losses: Any, weight: float, dense: bool
) -> list[Any]:
    trained: list[Any] = []
    for given in students:
        student = given if isinstance(given, keras.Model) else given()
        flavor.check_model(student, "student")
        before = [teacher, *trained] if dense and trained else trained[-1] if trained else teacher
        train(Distiller(before, student, losses(before, student) if callable(losses) else losses, None, weight))
        trained.append(student)
    return trained
