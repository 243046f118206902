"""How many channels each group keeps: by a ratio, by ratios of single layers, or by a budget of the whole model."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tfcompress.core.budgets import KINDS, check_budget, is_budget
from tfcompress.core.select import matcher
from tfcompress.prune.costs import Costs
from tfcompress.prune.dependencies import Group
from tfcompress.prune.importance import OF_LOSS
from tfcompress.prune.parametric import MAKES, READS

_FLOOR = 0.1  # the share of a group that a budget leaves wherever it can


def step_of(group: Group, round_to: int) -> int:
    """The smallest number of channels of a group that keeps the counts of its kernels multiples of `round_to`."""
    step = 1
    for member in group.members:
        if member.role in (MAKES, READS):
            channels = member.positions.shape[1] * member.width
            step = math.lcm(step, round_to // math.gcd(round_to, channels))
    return step


def check_amount(amount: Any, argument: str = "amount") -> None:
    """Refuse what is neither a ratio, nor ratios by layers, nor a budget.

    Raises:
        TypeError: of another type.
        ValueError: out of range, empty, or both a budget and ratios.
    """
    if isinstance(amount, Mapping):
        if not amount:
            raise ValueError(f"`{argument}` must hold something. Received: {argument}={amount!r}")
        if is_budget(amount):
            return check_budget(amount, argument)
        if any(key in KINDS for key in amount):
            raise ValueError(
                f"`{argument}` must be a budget ({', '.join(KINDS)}) or ratios by names of layers, not both. "
                f"Received: {argument}={dict(amount)!r}"
            )
        for name, ratio in amount.items():
            if not isinstance(name, str):
                raise TypeError(f"`{argument}` must have names of layers as keys. Received: {name!r}")
            check_amount(ratio, f"{argument}[{name!r}]")
        return None
    if isinstance(amount, bool) or not isinstance(amount, (int, float, np.number)):
        raise TypeError(
            f"`{argument}` must be a ratio of channels to remove, ratios by layer names, or a budget such as "
            f'{{"macs": 0.5}}. Received: {argument}={amount!r}'
        )
    if not 0 < amount < 1:
        raise ValueError(f"`{argument}` must be a ratio in (0, 1). Received: {argument}={amount!r}")
    return None


def by_ratio(group: Group, ratio: float, step: int) -> int:
    """Channels that stay when a ratio goes: the nearest multiple of `step`, never none.

    >>> group = Group("a", 30, (), None, None, np.arange(30))
    >>> by_ratio(group, 0.5, 8), by_ratio(group, 0.5, 1), by_ratio(group, 0.99, 8)
    (16, 15, 8)
    """
    if group.size <= step:
        return group.size
    return min(group.size, max(step, round(group.size * (1 - ratio) / step) * step))


def by_layers(groups: Sequence[Group], amount: Mapping[str, float], steps: Sequence[int], model: Any) -> list[int]:
    """Channels that stay when each layer named loses its own ratio; a group is named when all its makers are, and of
    several names that name it the first one counts.

    Raises:
        ValueError: a name selects no layer, or none whose channels may be removed.
    """
    kept = [group.size for group in groups]
    layers = {layer.name: layer for layer in model.layers}
    for name, ratio in reversed(list(amount.items())):  # the first has the last word
        matches = matcher(name, model, "amount")
        chosen = [g for g, group in enumerate(groups) if all(matches(layers[m]) for m in group.layers(MAKES))]
        if not chosen:
            tied = [group.layers(MAKES) for group in groups if any(matches(layers[m]) for m in group.layers(MAKES))]
            why = f": tied to others in {tied[0]}" if tied else "; see tfcompress.prune.dependencies(model)"
            raise ValueError(f"`amount` names no channels that can be removed by {name!r}{why}")
        for g in chosen:
            kept[g] = by_ratio(groups[g], ratio, steps[g])
    return kept


def by_budget(
    groups: Sequence[Group], scores: Sequence[np.ndarray], limits: Mapping[str, float], steps: Sequence[int],
    costs: Costs, importance: str,
) -> list[int]:  # fmt: skip
    """Channels that stay when the least important of all groups go until the model costs no more than the limits.

    Importances that are changes of the loss are taken for what a channel saves, as those of things in a knapsack:

        importance / sum over kinds of (cost saved) / (cost - limit)

    Bisection over the ranking of all channels; then steps that still fit are given back, the most important first. A
    group keeps at least a tenth of its channels while the budget can be held so.

    Raises:
        ValueError: the budget cannot be held.
    """
    sizes = [group.size for group in groups]

    def fits(kept: Sequence[int]) -> bool:
        cost = costs.of(kept)
        return all(cost[kind] <= limit for kind, limit in limits.items())

    if fits(sizes):
        return sizes
    if importance in OF_LOSS:
        scores = [score / saved for score, saved in zip(scores, _saved(sizes, limits, steps, costs), strict=True)]
    order = np.concatenate([np.full(size, g) for g, size in enumerate(sizes)] or [np.zeros(0, int)])
    order = order[np.argsort(np.concatenate(list(scores) or [np.zeros(0)]), kind="stable")]
    for floor in (_FLOOR, 0.0):
        least = [min(size, max(step, math.ceil(size * floor / step) * step))
                 for size, step in zip(sizes, steps, strict=True)]  # fmt: skip

        def kept_after(removed: int, least: Sequence[int] = least) -> list[int]:
            left = np.array(sizes) - np.bincount(order[:removed], minlength=len(sizes))
            return [min(size, max(low, math.ceil(count / step) * step))
                    for size, low, count, step in zip(sizes, least, left, steps, strict=True)]  # fmt: skip

        if fits(kept_after(len(order))):
            low, high = 0, len(order)
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (low, middle) if fits(kept_after(middle)) else (middle, high)
            return _given_back(kept_after(high), sizes, scores, steps, fits)
    smallest = costs.of(kept_after(len(order)))
    lowest = {kind: smallest[kind] for kind in limits}
    raise ValueError(f"`amount`: {dict(limits)} cannot be held: with the fewest channels the model has {lowest}")


def _saved(sizes: Sequence[int], limits: Mapping[str, float], steps: Sequence[int], costs: Costs) -> list[float]:
    """For each group which share of what must be saved one of its channels saves, over all kinds of cost."""
    whole = costs.of(sizes)
    over = {kind: whole[kind] - limit for kind, limit in limits.items() if whole[kind] > limit}
    shares = []
    for group, step in enumerate(steps):
        count = max(1, min(step, sizes[group] - 1))
        less = costs.of([size - count if g == group else size for g, size in enumerate(sizes)])
        shares.append(sum((whole[kind] - less[kind]) / rest for kind, rest in over.items()) / count)
    return [max(share, 1e-12) for share in shares]


def _given_back(
    kept: list[int], sizes: Sequence[int], scores: Sequence[np.ndarray], steps: Sequence[int],
    fits: Callable[[Sequence[int]], bool],
) -> list[int]:  # fmt: skip
    ranked = [np.sort(score)[::-1] for score in scores]
    while True:
        open_groups = [g for g in range(len(sizes)) if kept[g] < sizes[g]]
        for g in sorted(open_groups, key=lambda g: -ranked[g][kept[g]]):
            larger = min(sizes[g], (kept[g] // steps[g] + 1) * steps[g])
            trial = [larger if i == g else count for i, count in enumerate(kept)]
            if fits(trial):
                kept = trial
                break
        else:
            return kept
