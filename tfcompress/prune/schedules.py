"""When zeros are decided anew, and how many: functions of the optimizer step.

A schedule is called with the number of optimizer steps that are done and answers (whether to decide now, the share of
zeros). Schedules of `tensorflow_model_optimization` answer the same and are taken as they are; there steps count from
1, the one that is about to be made.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfcompress.core.scalars import is_whole


class Schedule(ABC):
    """Share of zeros over optimizer steps. Subclasses define `sparsity` and `is_due`.

    Attributes:
        begin_step: first step at which zeros are decided.
        final: share of zeros at the end, in [0, 1).
    """

    begin_step: int
    final: float
    closes = True
    """Whether a decision that is due when training ends is made then."""

    @abstractmethod
    def sparsity(self, step: int) -> float:
        """Share of zeros, in [0, 1), when `step` optimizer steps are done."""

    @abstractmethod
    def is_due(self, step: int) -> bool:
        """Whether zeros are decided anew when `step` optimizer steps are done."""

    def __call__(self, step: int) -> tuple[bool, float]:
        return self.is_due(step), self.sparsity(step)


def _check_share(argument: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0.0 <= value < 1.0:
        raise ValueError(f"`{argument}` must be in [0, 1). Received: {argument}={value!r}")


def _check_whole(argument: str, value: int, least: int) -> None:
    if not is_whole(value, least):
        raise ValueError(f"`{argument}` must be a whole number >= {least}. Received: {argument}={value!r}")


@dataclass(frozen=True)
class ConstantSparsity(Schedule):
    """The same share of zeros from `begin_step` on; where they are is decided every `frequency` steps.

    Args:
        target_sparsity: share of zeros, in [0, 1).
        begin_step: first step, >= 0.
        end_step: last step at which zeros are decided; -1: they are to the end.
        frequency: steps between decisions, >= 1.

    Raises:
        ValueError: an argument is outside its range.

    >>> [ConstantSparsity(0.5, begin_step=2, frequency=3)(step) for step in (1, 2, 4, 5)]
    [(False, 0.0), (True, 0.5), (False, 0.5), (True, 0.5)]
    """

    target_sparsity: float
    begin_step: int = 0
    end_step: int = -1
    frequency: int = 100

    def __post_init__(self) -> None:
        _check_share("target_sparsity", self.target_sparsity)
        _check_whole("begin_step", self.begin_step, 0)
        _check_whole("frequency", self.frequency, 1)
        if self.end_step != -1:
            _check_whole("end_step", self.end_step, self.begin_step)

    @property
    def final(self) -> float:  # type: ignore[override]
        return self.target_sparsity

    def sparsity(self, step: int) -> float:
        return self.target_sparsity if step >= self.begin_step else 0.0

    def is_due(self, step: int) -> bool:
        within = step >= self.begin_step and (self.end_step < 0 or step <= self.end_step)
        return within and (step - self.begin_step) % self.frequency == 0


@dataclass(frozen=True)
class _Decay(Schedule):
    """From one share of zeros to another between two steps; decided every `frequency` steps and at the last one."""

    initial_sparsity: float
    final_sparsity: float
    begin_step: int
    end_step: int

    def _check(self, frequency: int) -> None:
        _check_share("initial_sparsity", self.initial_sparsity)
        _check_share("final_sparsity", self.final_sparsity)
        _check_whole("begin_step", self.begin_step, 0)
        _check_whole("frequency", frequency, 1)
        _check_whole("end_step", self.end_step, self.begin_step)

    @property
    def final(self) -> float:  # type: ignore[override]
        return self.final_sparsity

    def _progress(self, step: int) -> np.float32:
        length = np.float32(max(self.end_step - self.begin_step, 1))
        return np.clip(np.float32(step - self.begin_step) / length, np.float32(0), np.float32(1))

    def _is_due(self, step: int, frequency: int) -> bool:
        if not self.begin_step <= step <= self.end_step:
            return False
        return step == self.end_step or (step - self.begin_step) % frequency == 0


@dataclass(frozen=True)
class PolynomialDecay(_Decay):
    """Zeros come fast at first, then ever more slowly.

    With p = clip((step - begin) / (end - begin), 0, 1), in float32:

        sparsity(step) = final + (initial - final) * (1 - p) ** power

    Zeros are decided every `frequency` steps from `begin_step` on and, so that the final share is met, at `end_step`.

    Args:
        initial_sparsity: share of zeros at `begin_step`, in [0, 1).
        final_sparsity: share of zeros from `end_step` on, in [0, 1).
        begin_step: first step, >= 0.
        end_step: last step, >= begin_step.
        power: > 0; 1 is linear, 3 is the paper's value.
        frequency: steps between decisions, >= 1.

    Raises:
        ValueError: an argument is outside its range.

    Source: Zhu & Gupta 2017, arXiv:1710.01878, eq. 1.

    >>> schedule = PolynomialDecay(0.0, 0.8, begin_step=0, end_step=10, frequency=5)
    >>> [(due, round(share, 4)) for due, share in map(schedule, (0, 4, 5, 10, 11))]
    [(True, 0.0), (False, 0.6272), (True, 0.7), (True, 0.8), (False, 0.8)]
    """

    power: float = 3
    frequency: int = 100

    def __post_init__(self) -> None:
        self._check(self.frequency)
        if isinstance(self.power, bool) or not isinstance(self.power, int | float | np.number) or not self.power > 0:
            raise ValueError(f"`power` must be a number > 0. Received: power={self.power!r}")

    def sparsity(self, step: int) -> float:
        if step < self.begin_step:
            return 0.0
        difference = np.float32(self.initial_sparsity - self.final_sparsity)
        rest = np.power(np.float32(1) - self._progress(step), np.float32(self.power))
        return float(difference * rest + np.float32(self.final_sparsity))

    def is_due(self, step: int) -> bool:
        return self._is_due(step, self.frequency)


@dataclass(frozen=True)
class CosineDecay(_Decay):
    """Zeros come slowly, then fast, then slowly again.

    With p = clip((step - begin) / (end - begin), 0, 1):

        sparsity(step) = final + (initial - final) * (1 + cos(pi * p)) / 2

    Args:
        initial_sparsity: share of zeros at `begin_step`, in [0, 1).
        final_sparsity: share of zeros from `end_step` on, in [0, 1).
        begin_step: first step, >= 0.
        end_step: last step, >= begin_step; zeros are decided at it, too.
        frequency: steps between decisions, >= 1.

    Raises:
        ValueError: an argument is outside its range.

    >>> schedule = CosineDecay(0.0, 0.8, begin_step=0, end_step=10)
    >>> [round(schedule.sparsity(step), 4) for step in (0, 5, 10)]
    [0.0, 0.4, 0.8]
    """

    frequency: int = 100

    def __post_init__(self) -> None:
        self._check(self.frequency)

    def sparsity(self, step: int) -> float:
        if step < self.begin_step:
            return 0.0
        rest = 0.5 * (1.0 + math.cos(math.pi * float(self._progress(step))))
        return self.final_sparsity + (self.initial_sparsity - self.final_sparsity) * rest

    def is_due(self, step: int) -> bool:
        return self._is_due(step, self.frequency)


@dataclass(frozen=True)
class OneShot(Schedule):
    """All zeros at one step; training before and after it is as long as the user wants.

    Args:
        target_sparsity: share of zeros, in [0, 1).
        begin_step: the step, >= 0.

    Raises:
        ValueError: an argument is outside its range.

    >>> [OneShot(0.9, begin_step=5)(step) for step in (4, 5, 6)]
    [(False, 0.0), (True, 0.9), (False, 0.9)]
    """

    target_sparsity: float
    begin_step: int = 0

    def __post_init__(self) -> None:
        _check_share("target_sparsity", self.target_sparsity)
        _check_whole("begin_step", self.begin_step, 0)

    @property
    def final(self) -> float:  # type: ignore[override]
        return self.target_sparsity

    def sparsity(self, step: int) -> float:
        return self.target_sparsity if step >= self.begin_step else 0.0

    def is_due(self, step: int) -> bool:
        return step == self.begin_step


@dataclass(frozen=True)
class Iterative(Schedule):
    """Rounds that each take the same share of what is left, with training between them to recover.

    Round i of n (from 1) happens at step begin + (i - 1) * recovery_steps and leaves zeros of

        sparsity = 1 - (1 - final) ** (i / n)

    Args:
        final_sparsity: share of zeros after the last round, in [0, 1).
        rounds: how many, >= 1.
        recovery_steps: optimizer steps between two rounds, >= 1.
        begin_step: step of the first round, >= 0.

    Raises:
        ValueError: an argument is outside its range.

    Source: Han et al. 2015, arXiv:1506.02626, section 3.4; shares as in Frankle & Carbin 2019, arXiv:1803.03635.

    >>> schedule = Iterative(0.75, rounds=2, recovery_steps=10)
    >>> [schedule(step) for step in (0, 5, 10, 20)]
    [(True, 0.5), (False, 0.5), (True, 0.75), (False, 0.75)]
    """

    final_sparsity: float
    rounds: int
    recovery_steps: int
    begin_step: int = 0

    def __post_init__(self) -> None:
        _check_share("final_sparsity", self.final_sparsity)
        _check_whole("rounds", self.rounds, 1)
        _check_whole("recovery_steps", self.recovery_steps, 1)
        _check_whole("begin_step", self.begin_step, 0)

    @property
    def final(self) -> float:  # type: ignore[override]
        return self.final_sparsity

    def sparsity(self, step: int) -> float:
        if step < self.begin_step:
            return 0.0
        done = min((step - self.begin_step) // self.recovery_steps + 1, self.rounds)
        return 1.0 - (1.0 - self.final_sparsity) ** (done / self.rounds)

    def is_due(self, step: int) -> bool:
        since = step - self.begin_step
        return since >= 0 and since % self.recovery_steps == 0 and since // self.recovery_steps < self.rounds


class Foreign(Schedule):
    """Anything that answers as a schedule of `tensorflow_model_optimization` does.

    Args:
        answer: called with the number of the step that is about to be made, from 1 on, returns (whether to decide now,
            share of zeros), as numbers or scalar tensors.
    """

    closes = False  # tfmot decides at the beginning of a step only

    def __init__(self, answer: Any) -> None:
        self._answer = answer
        self.begin_step = int(getattr(answer, "begin_step", 1)) - 1

    @property
    def final(self) -> float:  # type: ignore[override]
        """The share of zeros at the end.

        Raises:
            ValueError: the schedule does not say.
        """
        for name in ("final_sparsity", "target_sparsity", "final"):
            if hasattr(self._answer, name):
                return float(getattr(self._answer, name))
        raise ValueError(
            f"`schedule` must have an attribute `final_sparsity` for a budget per layer. Received: {self._answer!r}"
        )

    def __call__(self, step: int) -> tuple[bool, float]:
        due, share = self._answer(step + 1)
        return bool(due), float(share)

    def sparsity(self, step: int) -> float:
        return self(step)[1]

    def is_due(self, step: int) -> bool:
        return self(step)[0]


def resolve(schedule: Any) -> Schedule:
    """What a user passed as a schedule.

    Raises:
        TypeError: it is none.
    """
    if isinstance(schedule, Schedule):
        return schedule
    if callable(schedule) and not isinstance(schedule, type):
        return Foreign(schedule)
    raise TypeError(
        f"`schedule` must be a schedule of `tfcompress.prune`, such as PolynomialDecay(0.0, 0.8, begin_step=0, "
        f"end_step=1000), or answer a step as one does. Received: schedule={schedule!r}"
    )
