"""Fewer channels for real: a physically smaller model, with the channels that matter least taken out."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tfcompress.core import flavor
from tfcompress.core.budgets import is_budget, limits_of
from tfcompress.core.compressed import noted
from tfcompress.core.finite import check_finite
from tfcompress.core.scalars import is_whole
from tfcompress.core.select import matcher
from tfcompress.core.trace import trace
from tfcompress.core.transformed import transformed_layers
from tfcompress.prune.amounts import by_budget, by_layers, by_ratio, check_amount, step_of
from tfcompress.prune.costs import Costs
from tfcompress.prune.dependencies import Group, groups_of
from tfcompress.prune.flow import Flow
from tfcompress.prune.importance import importance as scores_of
from tfcompress.prune.importance import ranked
from tfcompress.prune.parametric import MAKES, READS
from tfcompress.prune.reconstruct import refit
from tfcompress.prune.surgery import without

#: How many channels each of the scored groups keeps.
Counts = Callable[[Flow, Sequence[tuple[Group, np.ndarray]]], list[int]]


def prune_channels(
    model: Any, amount: Any, *, importance: str = "l1", data: Any = None, select: Any = None, round_to: int = 8,
    reconstruct: bool = False,
) -> Any:  # fmt: skip
    """A physically smaller model: whole channels, neurons, heads and recurrent units are gone.

    It computes what `model` computes with those channels set to zero wherever a layer sums over them. Channels that
    residual additions, concatenations, depthwise and grouped convolutions, normalizations, multiplications, reshapes
    or shared layers tie together go together; `tfcompress.prune.dependencies` shows which. Inputs and outputs of the
    model keep their shapes. Composite layers and subclassed models are opened first.

    Args:
        model: a built model of the current Keras flavor, not quantized. It is not changed.
        amount: a ratio in (0, 1) of the channels of each group; a dict of ratios by names of layers, such as
            {"block1/*": 0.3}, of which the first that names a group counts; or a budget {"macs": ..., "params": ...,
            "bytes": ...} (one or several, each a fraction of the model's or a whole number), which the result holds.
            For a budget "taylor" and "bn" rank the channels of all groups together, "taylor" by what is lost for what
            is saved; by the others, which do not compare across layers, each group loses its share.
        importance: "l1", "l2", "fpgm" (of the kernels), "bn" (the normalizations' scales), "taylor" (change of the
            loss; `data` is (x, y)), "activation" (magnitudes; `data` is x), or "random".
        data: samples: arrays, or an iterable of batches. The loss for "taylor" is the one that `model` was compiled
            with; else crossentropy where labels or outputs are of classes, squared error otherwise. `reconstruct` uses
            the first 256 samples.
        select: which layers: a layer class, a name pattern ("head/*"), a layer, a predicate, or a list of these. A
            group is pruned when all layers that make its channels are selected. What a LayerNormalization normalizes
            over is pruned only where it is selected: it then normalizes over the channels that stay.
        round_to: counts of channels stay multiples of it; what has no more than that keeps all.
        reconstruct: refit the weights of the layers that lost inputs, by least squares on `data`.

    Returns:
        A new, uncompiled Functional model of ordinary layers. `tfcompress.summary` says what became of each.

    Raises:
        TypeError: not a model, or one of the other Keras flavor; an amount of another type.
        ValueError: the model is not built, holds NaN, or is quantized; an argument is out of range; the budget cannot
            be held; a selection holds nothing that can be pruned; data are missing.

    Source: Li et al. 2017, arXiv:1608.08710 (filters); Fang et al. 2023, arXiv:2301.12900 (dependencies); of the
    importances see `tfcompress.prune.importance`.

    >>> from tfcompress.core.flavor import keras
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(32, name="a"), keras.layers.Dense(3, name="b")])
    >>> small = prune_channels(model, 0.5)
    >>> [tuple(weight.shape) for weight in small.weights]
    [(4, 16), (16,), (16, 3), (3,)]
    """
    flavor.check_model(model)
    check_amount(amount)
    if not is_whole(round_to):
        raise ValueError(f"`round_to` must be a whole number of at least 1. Received: round_to={round_to!r}")
    if reconstruct and data is None:
        raise ValueError("`data` must hold samples for reconstruct=True. Received: data=None")
    return prune_to(model, lambda flow, pairs: kept_of(flow, pairs, amount, round_to, importance),
                    importance=importance, data=data, select=select, reconstruct=reconstruct)  # fmt: skip


def prune_to(model: Any, counts: Counts, *, importance: str, data: Any, select: Any, reconstruct: bool = False) -> Any:
    """The model in which each group keeps as many channels as `counts` says; the arguments of `prune_channels`."""
    check_finite(model)
    flat = trace(model)
    check_plain(flat)
    flow = Flow(flat)
    groups, notes = candidates(flow, select)
    pairs, silent = scored(flow, groups, importance, data, model)
    notes |= silent
    left = counts(flow, pairs)
    whole = kept_whole([group for (group, _), count in zip(pairs, left, strict=True) if count == group.size])
    removed = [label for (group, score), count in zip(pairs, left, strict=True)
               for label in group.labels[np.argsort(score, kind="stable")[: group.size - count]]]  # fmt: skip
    notes |= changes(flow, removed)
    small = without(flow, removed)
    if reconstruct:
        notes |= {name: f"{notes[name]}, refitted" for name in refit(flow, trace(model), small, removed, data)}
    return noted(small, {**whole, **getattr(model, "notes", {}), **notes})


def scored(
    flow: Flow, groups: Sequence[Group], importance: str, data: Any, model: Any,
    gone: Sequence[np.ndarray] | None = None,
) -> tuple[list[tuple[Group, np.ndarray]], dict[str, str]]:  # fmt: skip
    """The groups with the importance of their channels on one scale, and notes on those of which it says nothing.

    Args:
        flow, groups, importance, data, model: as of `importance`.
        gone: for each group where its channels are at zero already: these come first of all.

    Raises:
        ValueError: it says nothing of any group.
    """
    gone = [np.zeros(group.size, bool) for group in groups] if gone is None else gone
    scores = scores_of(flow, groups, importance, data, model)
    silent = [group for group, score in zip(groups, scores, strict=True) if score is None]
    known = [(group, dead, np.where(dead, -np.inf, score))
             for group, dead, score in zip(groups, gone, scores, strict=True) if score is not None]  # fmt: skip
    if not known:
        raise ValueError(f"`importance` must fit the model: {importance!r} says nothing of any group of {model.name!r}")
    places = ranked([score for *_, score in known], importance)
    pairs = [(group, np.where(dead, -np.inf, place)) for (group, dead, _), place in zip(known, places, strict=True)]
    return pairs, noted_groups(silent, f"importance={importance!r} says nothing of it")


def kept_whole(groups: Sequence[Group]) -> dict[str, str]:
    """Notes on groups that lost nothing although they could have."""
    return noted_groups(groups, "`amount`, in steps of `round_to`, leaves all of them")


def check_plain(flat: Any) -> None:
    """Refuse a model that computes with transformed weights.

    Raises:
        ValueError: it is quantized, or has adapters.
    """
    if any(hasattr(layer, "describe_output") for layer in flat.layers) or any(
            wrapper.integers() for wrapper in transformed_layers(flat)):  # fmt: skip
        raise ValueError(f"`model` must not be quantized yet: prune before quantize. Received: {flat.name!r}")
    if transformed_layers(flat):
        raise ValueError(
            f"`model` must have plain weights: `tfcompress.finalize(model)` applies their transforms for good. "
            f"Received: {flat.name!r}"
        )


def candidates(flow: Flow, select: Any) -> tuple[list[Group], dict[str, str]]:
    """The groups that may be pruned, and for layers that make others' channels the reason why not.

    Raises:
        ValueError: there are none.
    """
    chosen = matcher(select, flow.model)
    layers = {layer.name: layer for layer in flow.layers.values()}
    groups: list[Group] = []
    notes: dict[str, str] = {}
    for group in groups_of(flow):
        makers = group.layers(MAKES)
        left_out = [name for name in makers if not chosen(layers[name])]
        if group.fixed is not None:
            notes |= noted_groups([group], group.fixed)
        elif left_out and len(left_out) < len(makers):
            notes |= noted_groups([group], f"tied to {left_out[0]}, which is not selected")
        elif left_out:
            continue
        elif group.rescaled is not None and select is None:
            notes |= noted_groups([group], f"{group.rescaled}: only when selected")
        else:
            groups.append(group)
    if not groups:
        unknown = "; ".join(f"{name}, {why}" for name, why in flow.unknown.items())
        why = next(iter(notes.values()), unknown or "no layer has channels that are known")
        raise ValueError(f"`model` must have channels to remove{'' if select is None else ' in `select`'}. "
                         f"Received: {flow.model.name!r}: {why}")  # fmt: skip
    return groups, notes


def noted_groups(groups: Sequence[Group], reason: str) -> dict[str, str]:
    """A note on each layer that makes channels of these groups."""
    return {name: f"channels kept: {reason}" for group in groups for name in group.layers(MAKES)}


def kept_of(
    flow: Flow, pairs: Sequence[tuple[Group, np.ndarray]], amount: Any, round_to: int, importance: str
) -> list[int]:
    """How many channels each group keeps."""
    groups = [group for group, _ in pairs]
    steps = [step_of(group, round_to) for group in groups]
    if is_budget(amount):
        costs = Costs(flow, groups)
        limits = limits_of(amount, flow.model, "amount")
        return by_budget(groups, [score for _, score in pairs], limits, steps, costs, importance)
    if isinstance(amount, Mapping):
        return by_layers(groups, amount, steps, flow.model)
    return [by_ratio(group, amount, step) for group, step in zip(groups, steps, strict=True)]


def changes(flow: Flow, removed: Sequence[int]) -> dict[str, str]:
    """For each layer that lost channels or inputs how many it had and has: "channels 64 -> 40, inputs 32 -> 24"."""
    sizes: dict[tuple[str, str], tuple[int, int]] = {}
    gone = set(removed)
    for layer in flow.layers.values():
        weights = flow.weights[id(layer)]
        for name, axes in weights.axes.items():
            for vector, role in zip(axes, weights.roles[name], strict=True):
                if vector is None or len(axes) < 2 or role not in (MAKES, READS):
                    continue
                left = sum(int(root) not in gone for root in flow.labels.roots(vector))
                if left < vector.size:
                    sizes.setdefault((layer.name, role), (vector.size, left))
    words = {MAKES: "channels", READS: "inputs"}
    notes: dict[str, str] = {}
    for (name, role), (before, after) in sizes.items():
        said = f"{words[role]} {before} → {after}"
        notes[name] = f"{notes[name]}, {said}" if name in notes else said
    return notes
