"""Zeros while a plain model trains, as a Keras callback."""

import warnings
from typing import Any

import numpy as np

from tfcompress.core import flavor
from tfcompress.core.flavor import keras
from tfcompress.core.projected import detach, project
from tfcompress.core.remake import remake
from tfcompress.prune import budgets, patterns, schedules
from tfcompress.prune.data_scores import Apoz, Gradient, Movement, Taylor, Wanda
from tfcompress.prune.scores import Magnitude, Random, Score
from tfcompress.prune.second_order import OBD, OBS, SparseGPT
from tfcompress.prune.targets import Target, project_last, targets

_SCORES: dict[str, type[Score]] = {
    "magnitude": Magnitude, "random": Random, "gradient": Gradient, "taylor": Taylor, "movement": Movement,
    "apoz": Apoz, "wanda": Wanda, "obd": OBD, "obs": OBS, "sparsegpt": SparseGPT,
}  # fmt: skip
_PATIENCE = 10  # calls of `step` after which an optimizer that has not moved is told


class Pruning(keras.callbacks.Callback):
    """Makes weights zero on a schedule, and holds them at zero while the model trains.

    The zeros are held by the constraints of the kernels, which optimizers apply inside the compiled step: the model
    stays the plain model that it is, nothing wraps it, nothing is to be stripped, its file is sparse. They hold beyond
    the callback, in later fits and in whatever `tfcompress` makes of the model; `release` lets them go. What is zero
    stays zero unless the schedule's share falls.

    In `fit` it is a callback; in that of a `Distiller` it prunes the student alone. Weights that another callback
    restores when training ends, as `EarlyStopping(restore_best_weights=True)` does, are put onto the zeros, too; those
    of an epoch before the last decision are then not what was measured: let it start where the schedule ends. In a loop
    of one's own:

        pruning.attach(model)               before the step is traced by tf.function
        for x, y in batches:
            pruning.step()
            train_step(x, y)                ends in optimizer.apply_gradients, or optimizer.apply
        pruning.on_train_end()              a decision due after the last step; the score looks no longer

    Steps are those of the optimizer that the model is compiled with (`optimizer.iterations`). Under
    `steps_per_execution=n` a decision falls on the first multiple of n that is not before it.

    Args:
        schedule: when zeros are decided and how many: `PolynomialDecay`, `CosineDecay`, `ConstantSparsity`, `OneShot`,
            `Iterative`, or a schedule of `tensorflow_model_optimization`.
        score: which weights go: "magnitude", "random", "gradient", "taylor", "movement", "apoz", "wanda", "obd",
            "obs", "sparsegpt", or an object such as `Taylor(data=(x, y))`. Those that need data and are given none look
            at the batches of `fit`, or of the loop; those by gradients at steps of the model's own optimizer.
        pattern: which go together: "unstructured", "2:4" (2 of 4 live), (height, width) of a block, "channels".
        budget: how the share is spread over kernels: "uniform", "erk", "global", or final shares by layer such as
            {"head": 0.5}.
        select: which layers: a layer class, a name pattern, a layer, a predicate, or a list of these. Default: every
            kernel but those of depthwise convolutions.

    Raises:
        ValueError, TypeError: an argument is none of these, or a share is more than the pattern can have.

    Source: Zhu & Gupta 2017, arXiv:1710.01878 (gradual pruning; the threshold of "magnitude" is theirs).

    >>> from tfcompress.prune import ConstantSparsity
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="body")])
    >>> model.compile("sgd", "mse")
    >>> pruning = Pruning(ConstantSparsity(0.75), select="body")
    >>> _ = model.fit(np.ones((2, 8)), np.ones((2, 4)), verbose=0, callbacks=[pruning])
    >>> int(np.sum(model.get_weights()[0] == 0)), pruning.sparsity()
    (24, 0.75)
    """

    def __init__(self, schedule: Any, *, score: Any = "magnitude", pattern: Any = "unstructured",
                 budget: Any = "uniform", select: Any = None) -> None:  # fmt: skip
        super().__init__()
        self.schedule = schedules.resolve(schedule)
        self.score = resolved(score)
        self.pattern = patterns.resolve(pattern)
        self.budget = budgets.resolve(budget)
        self.select = select
        if not isinstance(self.schedule, schedules.Foreign):
            self._check_share("schedule", self.schedule.final)
        for share in getattr(self.budget, "shares", {}).values():
            self._check_share("budget", share)
        self.targets: list[Target] = []
        self._owner: Any = None  # the model that `targets` are of
        self._last = -1  # steps that were asked for a decision
        self._decided = (-1, 0.0)  # the last decision
        self._first = 0  # steps that were done when the epoch, or the loop, began
        self._calls = 0  # of `step`, for a loop without a compiled optimizer
        self._waiting: tuple[int, float] | None = None  # a decision for which the score has not seen enough

    def attach(self, model: Any) -> None:
        """Hold zeros on a model's kernels from now on; those that it has stay. The score begins to look at the model.

        Raises:
            ValueError: the selection matches nothing, or the score cannot look at the model.
        """
        known = self._owner is model and bool(self.targets)
        if not known:
            self.targets = targets(model, self.select)
            self.budget.attach(model)
            self._owner = model
            self._last, self._decided, self._calls, self._waiting = -1, (-1, 0.0), 0, None
        if self.score.attach(model, self.targets) or not known:
            remake(model)

    def release(self) -> None:
        """Let the weights go: from the next fit on they train from zero like all others."""
        self.score.detach()
        for target in self.targets:
            detach(target.variable, target.mask)
        remake(self._owner)
        self.targets, self._owner = [], None

    def sparsity(self) -> float:
        """Share of zeros over all kernels that it holds, in [0, 1]; 0 when it holds none."""
        sizes = [float(np.prod(target.shape)) for target in self.targets]
        return float(np.average([target.mask.sparsity for target in self.targets], weights=sizes)) if sizes else 0.0

    def step(self, step: int | None = None) -> None:
        """Decide what is due; to be called before each step of a training loop of one's own.

        Args:
            step: optimizer steps done so far. Default: those of the optimizer that the model is compiled with; of a
                model that is not compiled the number of calls before this one.

        Raises:
            ValueError: `attach` was not called.
        """
        if not self.targets:
            raise ValueError("`Pruning.step` needs a model: call `pruning.attach(model)` before the loop")
        done = self._done() if step is None else step
        self._first = self._first if self._calls else done
        self._calls += 1
        if step is None and done == self._first:
            self._check_moves(done)
        self._advance(done, done)

    def project(self) -> None:
        """Put the weights onto their zeros now; for loops that change weights without a Keras optimizer."""
        for target in self.targets:
            project(target.variable)

    def on_train_begin(self, logs: Any = None) -> None:
        self.attach(self.model)
        done = self._done()
        self._last = done if self._last == done else done - 1
        self._catch_up(done)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._first = self._done()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._advance(self._first + batch)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.project()  # something else may have set weights: averages of them, a best epoch

    def on_train_end(self, logs: Any = None) -> None:
        if self.schedule.closes:
            done = self._done()
            self._advance(done, done)
        if self._waiting is not None:
            warnings.warn(
                f"Training ended before `score` {type(self.score).__name__} had seen the batches that it needs of each "
                f"layer: the decision of step {self._waiting[0]} for {self._waiting[1]:.0%} zeros was not made. Train "
                f"for longer, give the score fewer `batches` or `data`, or leave layers out that are not called",
                stacklevel=2,
            )
        self.project()
        project_last(self._owner, [target.variable for target in self.targets])
        if self.score.detach():
            remake(self._owner)

    def _done(self) -> int:
        optimizer = getattr(self._owner, "optimizer", None)
        return self._calls if optimizer is None else flavor.steps_done(optimizer)

    def _check_moves(self, done: int) -> None:
        """Tell of a loop in which the model's own optimizer makes no steps."""
        optimizer = getattr(self._owner, "optimizer", None)
        if self._calls == _PATIENCE * (getattr(optimizer, "gradient_accumulation_steps", None) or 1):
            warnings.warn(
                f"`Pruning.step` was called {self._calls} times, but the optimizer that {self._owner.name!r} is "
                f"compiled with stands at step {done}: give the step, `pruning.step(step)`, where another one trains",
                stacklevel=3,
            )

    def _check_share(self, argument: str, share: float) -> None:
        """Refuse a share that the pattern cannot have."""
        if share > self.pattern.limit() + 1e-6:
            limit = f"`pattern` {self.pattern} has at most {self.pattern.limit():.1%}"
            raise ValueError(f"`{argument}` asks for {share:.1%} zeros, {limit}")

    def _advance(self, guess: int, done: int | None = None) -> None:
        """Decide for the last step up to now that asks for it.

        `guess` may run ahead of the optimizer, which leaves steps out whose gradients are not finite; its own number
        `done` is asked for only when something is due: reading it waits for the device.
        """
        if self._waiting is not None and self.score.is_ready():
            due, self._waiting = self._waiting, None
            self._decide(*due)
        for step in range(guess, self._last, -1):
            asked, share = self.schedule(step)
            if asked:
                done = self._done() if done is None else done
                if done < step:
                    self._first -= guess - done  # so that guesses of the epoch's later batches are nearer
                    return self._advance(done, done)
                self._decide(step, share)
                break
        self._last = max(guess, self._last)
        return None

    def _catch_up(self, done: int) -> None:
        """A model whose optimizer is past decisions that were never made has them made at once."""
        if done <= self.schedule.begin_step or isinstance(self.schedule, schedules.Foreign):
            return
        latest = next((s for s in range(done - 1, self.schedule.begin_step - 1, -1) if self.schedule.is_due(s)), None)
        share = 0.0 if latest is None else self.schedule.sparsity(latest)
        if latest is None or self.sparsity() > 0 or share == 0:
            return
        warnings.warn(
            f"Training goes on at step {done} of the optimizer and finds no zeros, but the schedule begins at step "
            f"{self.schedule.begin_step}: {share:.0%} of the weights become zero at once. Compile the model anew to "
            f"count steps from 0, or give the schedule later steps",
            stacklevel=2,
        )
        self._decide(latest, share)

    def _decide(self, step: int, share: float) -> None:
        self._check_share("schedule", share)
        if share > 0 and not self.score.is_ready():
            self._waiting = (step, share)
            return
        fell = step > self._decided[0] and share < self._decided[1]
        self._decided = (step, share)
        counts, units = self._counts(share)
        for target, count, own in zip(self.targets, counts, units, strict=True):
            weights = target.value()
            if self.score.breaks_ties or fell:  # what comes back is all zero: equal
                own = patterns.ranked(own, self.pattern.units(np.abs(weights), target.axis))
            kept = self.pattern.kept(own, count, target.shape, target.axis, target.inputs)
            kept = kept if fell else kept & target.mask.kept
            if self.score.compensates and share > 0:
                weights, kept = self.score.compensate(target, kept, self.pattern)
            target.mask.decide(kept, step)
            target.assign(weights)

    def _counts(self, share: float) -> tuple[list[int], list[np.ndarray]]:
        """How many units of each kernel live, and the units' scores; what is zero already comes last."""
        if share == 0.0:
            found = [np.ones(target.shape, np.float32) for target in self.targets]
        else:
            found = self.score.scores(self.targets)
        units, known = [], []
        for target, own in zip(self.targets, found, strict=True):
            if not np.isfinite(own).all():
                raise ValueError(
                    f"`model` must have finite weights, and data that give finite scores: {target.name!r} has "
                    f"{np.sum(~np.isfinite(own))} of {own.size} scores that are no numbers, so zeros cannot be chosen"
                )
            kept = target.mask.kept
            scores = self.pattern.units(np.where(kept, own, np.zeros((), own.dtype)), target.axis)
            alive = self.pattern.units(kept.astype(own.dtype), target.axis) > 0
            units.append(np.where(alive, scores, np.array(-np.inf, own.dtype)))
            known.append(budgets.Kernel(target.layer, target.shape, units[-1]))
        final = self.schedule.final if isinstance(self.budget, budgets.PerLayer) else share
        return self.budget.counts(known, share, final), units


def resolved(score: Any) -> Score:
    """What a user passed as a score: an object, or the name of one with its defaults.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(score, Score):
        return score
    if isinstance(score, str) and score in _SCORES:
        return _SCORES[score]()
    raise ValueError(
        f"`score` must be one of {list(_SCORES)}, or an object of `tfcompress.prune` such as Taylor(data=(x, y)). "
        f"Received: score={score!r}"
    )
