"""Stages of a distillation: which losses count from which epoch on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tfcompress.core.flavor import keras
from tfcompress.core.scalars import is_whole
from tfcompress.distill.distiller import Distiller


@dataclass(frozen=True)
class Stage:
    """What counts from an epoch on.

    Attributes:
        epoch: the first epoch, counted from 0.
        weights: of each distillation loss, from 0 on.
        student_loss_weight: of the task, from 0 to 1; None leaves it as it is.
    """

    epoch: int
    weights: Sequence[float]
    student_loss_weight: float | None = None


class Progressive(keras.callbacks.Callback):
    """Losses one after another in one `fit`: first what the shallow layers compute, then deeper ones, then the answers.

    Args:
        stages: in the order of their epochs, the first at epoch 0; how a student learns in two stages, features before
            answers (TinyBERT), or block by block.

    Raises:
        TypeError: it is used with a model that is no `Distiller`.
        ValueError: stages out of order; or, as training begins, weights of any stage that do not fit the distiller's
            losses.

    Source: Jiao et al. 2019 (TinyBERT), arXiv:1909.10351, section 3.2; Wang et al. 2018, Progressive blockwise
    knowledge distillation for neural network acceleration, IJCAI, section 3.

    >>> Progressive([Stage(0, [1.0, 0.0], 0.0), Stage(3, [0.0, 1.0], 0.5)]).stages[1].epoch
    3
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        super().__init__()
        self.stages, self._entered = list(stages), False
        epochs = [stage.epoch for stage in self.stages]
        whole = all(is_whole(epoch, 0) for epoch in epochs)
        if not epochs or not whole or epochs[0] != 0 or epochs != sorted(set(epochs)):
            raise ValueError(
                f"`stages` must begin at epoch 0, a whole number, and follow each other. Received: epochs {epochs}"
            )

    def on_train_begin(self, logs: Any = None) -> None:
        self._entered = False
        if not isinstance(self.model, Distiller):
            raise TypeError(f"`Progressive` must be used with a `Distiller`. Received: {type(self.model).__name__}")
        before = Stage(0, self.model.distillation_loss_weights, self.model.student_loss_weight)
        for stage in self.stages:
            try:
                self._enter(stage)
            except (TypeError, ValueError) as error:
                raise type(error)(f"`stages` from epoch {stage.epoch} on: {error}") from None
            finally:
                self._enter(before)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        begun = [stage for stage in self.stages if stage.epoch <= epoch]
        # A training that is taken up in a later stage begins with what the earlier ones left.
        for stage in begun[-1:] if self._entered else begun:
            self._enter(stage)
        self._entered = True

    def _enter(self, stage: Stage) -> None:
        self.model.distillation_loss_weights = stage.weights
        if stage.student_loss_weight is not None:
            self.model.student_loss_weight = stage.student_loss_weight
