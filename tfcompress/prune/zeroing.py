"""Channels that go to zero while a model trains, a few at a time, and a smaller model without them at the end."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfcompress.core import flavor
from tfcompress.core.compressed import noted
from tfcompress.core.flavor import keras
from tfcompress.core.projected import Mask, attach, mask_of, project
from tfcompress.core.remake import remake
from tfcompress.core.scalars import is_whole
from tfcompress.core.trace import trace
from tfcompress.core.trainers import Trainer
from tfcompress.core.transformed import named_weights
from tfcompress.prune.channels import candidates, changes, check_plain, kept_whole, noted_groups, scored
from tfcompress.prune.dependencies import Group, Member
from tfcompress.prune.flow import Flow
from tfcompress.prune.iterative import Rounds
from tfcompress.prune.parametric import READS
from tfcompress.prune.surgery import without


class ChannelPruning(keras.callbacks.Callback):
    """Chooses channels in rounds while the model trains and holds them at zero; `shrink` takes them out.

    A channel is at zero when every kernel that reads it has zeros there, held by the kernel's constraint. The zeros are
    in the model's weights, so a checkpoint holds the rounds that are done: restored and trained on with a new callback
    of the same arguments, what is at zero stays, and the next round chooses on. Channels that an operation without
    weights sums over (a product of two tensors) cannot be held so; they stay, with a note in what `shrink` returns. In
    the fit of a `Distiller` they are the student's.

    Args:
        amount: as of `prune_channels`, reached in the last round.
        rounds: how many.
        begin: the epoch at whose begin the first round is made.
        every: epochs from one round to the next.
        importance: as of `prune_channels`, like the arguments that follow.

    Raises:
        ValueError: an argument is out of range; when training begins, a model that is no flat graph of layers:
            `tfcompress.trace(model)` makes one; a model without channels that can be held at zero; in the first round,
            an importance that says nothing of any.

    Source: He et al. 2018 (soft filter pruning), arXiv:1808.06866, with filters that stay at zero.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(32, name="a"), keras.layers.Dense(3, name="b")])
    >>> model.compile("sgd", "mse")
    >>> pruning = ChannelPruning(0.5, rounds=2)
    >>> _ = model.fit(np.ones((2, 4)), np.ones((2, 3)), epochs=3, verbose=0, callbacks=[pruning])
    >>> [tuple(weight.shape) for weight in pruning.shrink().weights]
    [(4, 16), (16,), (16, 3), (3,)]
    """

    def __init__(
        self, amount: Any, *, rounds: int = 4, begin: int = 0, every: int = 1, importance: str = "l1", data: Any = None,
        select: Any = None, round_to: int = 8,
    ) -> None:  # fmt: skip
        super().__init__()
        for name, value, least in (("begin", begin, 0), ("every", every, 1), ("rounds", rounds, 1)):
            if not is_whole(value, least):
                raise ValueError(f"`{name}` must be a whole number of at least {least}. Received: {name}={value!r}")
        self.amount, self.rounds, self.begin, self.every = amount, rounds, begin, every
        self.importance, self.data, self.select, self.round_to = importance, data, select, round_to
        self._plan: Rounds | None = None
        self._epoch = -1  # the last that began

    def on_train_begin(self, logs: Any = None) -> None:
        flat = trace(self._pruned)
        check_plain(flat)
        here = {layer.name for layer in self._pruned.layers}
        inside = [layer.name for layer in flat.layers if layer.weights and layer.name not in here]
        if inside:
            raise ValueError(
                f"`ChannelPruning` must train a flat graph of layers: train `tfcompress.trace(model)`. "
                f"Received: {self._pruned.name!r}, in which {inside[0]!r} is inside another layer"
            )
        self._plan = Rounds(flat, self.amount, self.rounds, self.round_to, self.importance)
        held, notes = _held(Flow(flat), self.select)
        if not held:
            why = next(f"{name}: {note}" for name, note in notes.items())
            raise ValueError(f"`ChannelPruning` must train a model with channels that kernels alone read. "
                             f"Received: {self._pruned.name!r}: {why}")  # fmt: skip
        # A kernel of nothing but zeros was never trained: it is not held there.
        self._put([(group, dead & ~dead.all()) for group, dead in held])
        remake(self.model)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch
        number, rest = divmod(epoch - self.begin, self.every)
        if rest == 0 and 0 <= number < self.rounds:
            self._decide(number + 1, flavor.steps_done(self.model.optimizer))

    @property
    def _pruned(self) -> Any:
        """The model whose channels go: the one that is trained, of a model that trains another that one."""
        products = self.model.products if isinstance(self.model, Trainer) else [self.model]
        if len(products) != 1:
            raise ValueError(
                f"`ChannelPruning` must be in the training of one model. Received: {self.model.name!r}, which trains "
                f"{len(products)}"
            )
        return products[0]

    def _variable(self, member: Member) -> Any:
        layer = next(layer for layer in self._pruned.layers if layer.name == member.layer)
        return named_weights(layer)[member.weight]

    def _decide(self, number: int, step: int) -> None:
        """Put as many channels at zero as the round asks for; those that are there already go first."""
        flow = Flow(trace(self._pruned))
        held, _ = _held(flow, self.select)
        pairs, _ = scored(flow, [group for group, _ in held], self.importance, self.data, self._pruned,
                          [dead for _, dead in held])  # fmt: skip
        counts = self._plan.counts(number)(flow, pairs)  # type: ignore[union-attr]
        self._put([(group, np.argsort(score, kind="stable")[: group.size - count])
                   for (group, score), count in zip(pairs, counts, strict=True)], step)  # fmt: skip

    def _put(self, gone: Sequence[tuple[Group, np.ndarray]], step: int | None = None) -> None:
        """Hold channels at zero where they are read, beside what is held there already; `step` is for the history."""
        kept: dict[int, tuple[Any, np.ndarray]] = {}
        for group, channels in gone:
            for member in group.members:
                if member.role == READS:
                    variable = self._variable(member)
                    mask = mask_of(variable)
                    before = np.ones(variable.shape, bool) if mask is None else mask.kept.copy()
                    _, own = kept.setdefault(id(variable), (variable, before))
                    np.moveaxis(own, member.axis, 0)[member.positions[channels].ravel()] = False
        for variable, own in kept.values():
            mask = mask_of(variable)
            if mask is None:
                attach(variable, mask := Mask(own))
            mask.decide(own, step)
            project(variable)

    def shrink(self) -> Any:
        """The model without the channels that are at zero: smaller, and computing the same.

        Returns:
            A new, uncompiled model. Masks of zeros that were not channels are carried over.

        Warns:
            UserWarning: training ended before the last round, or began after it and found nothing at zero.
        """
        flow = Flow(trace(self._pruned))
        held, notes = _held(flow, self.select)
        notes |= kept_whole([group for group, dead in held if not dead.any()])
        removed = []
        for group, dead in held:
            dead = dead if not dead.all() else np.arange(group.size) > 0
            removed += list(group.labels[dead])
        last = self.begin + (self.rounds - 1) * self.every
        if self._epoch < last or not removed:
            warnings.warn(
                f"`amount` is not reached: the last of {self.rounds} rounds is made when epoch {last} begins (counted "
                f"from 0), training ended with epoch {self._epoch}, and {len(removed)} channels are at zero",
                stacklevel=2,
            )
        changed = changes(flow, removed)
        return noted(without(flow, removed), {**notes, **getattr(self._pruned, "notes", {}), **changed})


def _held(flow: Flow, select: Any) -> tuple[list[tuple[Group, np.ndarray]], dict[str, str]]:
    """The groups whose channels are read by kernels alone, and which of their channels are at zero there; notes on the
    others."""
    summed = [v for step in flow.steps if step.operation is not None
              for n, axis in step.reads if (v := step.given[n][axis]) is not None]  # fmt: skip
    elsewhere = np.unique(np.concatenate([flow.labels.roots(v) for v in summed])) if summed else np.zeros(0)
    layers = {layer.name: layer for layer in flow.layers.values()}
    found = []
    groups, notes = candidates(flow, select)
    for group in groups:
        readers = [member for member in group.members if member.role == READS]
        if not readers or np.isin(group.labels, elsewhere).any():
            notes |= noted_groups([group], "an operation without weights sums over them, where no zeros can be held")
            continue
        dead = np.ones(group.size, bool)
        for member in readers:
            value = np.asarray(flavor.read(named_weights(layers[member.layer])[member.weight]))
            dead &= ~np.any(np.moveaxis(value, member.axis, 0)[member.positions].reshape(group.size, -1), axis=1)
        found.append((group, dead))
    return found, notes
