"""How much a weight matters: scores that need the weights alone, and what every score must answer."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfcompress.prune.patterns import Pattern
from tfcompress.prune.targets import Target


class Score(ABC):
    """The larger, the more a weight matters. `Pruning` attaches it, asks it at each decision and detaches it."""

    compensates = False
    """Whether it changes the weights that live so that they stand in for those that go."""

    breaks_ties = True
    """Whether of equal scores those of smaller weights go, so that the share is met; else they stay together."""

    def attach(self, model: Any, targets: Sequence[Target]) -> bool:
        """Begin to look at a model. Returns whether its training step must be made anew for that."""
        return False

    def detach(self) -> bool:
        """Let the model go. Returns whether its training step must be made anew for that."""
        return False

    def is_ready(self) -> bool:
        """Whether it has seen what it needs; a decision waits for it, step by step."""
        return True

    @abstractmethod
    def scores(self, targets: Sequence[Target]) -> list[np.ndarray]:
        """For each kernel an array of its shape."""

    def compensate(self, target: Target, kept: np.ndarray, pattern: Pattern) -> tuple[np.ndarray, np.ndarray]:
        """The weights that stand in for those that go, and which of them live; both of the kernel's shape."""
        return target.value(), kept


@dataclass
class Magnitude(Score):
    """|w|: the smallest weights go; equal ones stay together, as in `tensorflow_model_optimization`.

    Source: Han et al. 2015, arXiv:1506.02626; the threshold is that of Zhu & Gupta 2017, arXiv:1710.01878.
    """

    breaks_ties = False

    def scores(self, targets: Sequence[Target]) -> list[np.ndarray]:
        return [np.abs(target.value()) for target in targets]


@dataclass
class Random(Score):
    """A number drawn for each weight, the same each time: the least that any other score must beat.

    Args:
        seed: of the draw; the k-th kernel of a model has the same numbers with the same seed.
    """

    seed: int = 0

    def scores(self, targets: Sequence[Target]) -> list[np.ndarray]:
        draws = [np.random.default_rng([self.seed, place]) for place in range(len(targets))]
        return [draw.random(target.shape, np.float32) for draw, target in zip(draws, targets, strict=True)]
