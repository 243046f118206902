"""One budget for a whole model: which layers give up how much of their rank."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_STEPS = 4096


@dataclass(frozen=True)
class Choices:
    """What one layer may be, the layer as it is first.

    Attributes:
        costs: [options, kinds].
        changes: [options], what each does to the model's answers; 0 first.
    """

    costs: np.ndarray
    changes: np.ndarray


def distribute(layers: Sequence[Choices], whole: Mapping[str, int], limits: Mapping[str, float]) -> list[int]:
    """One option for each layer, such that the model holds the budget and its answers change least.

        min sum of changes  subject to  sum of costs <= budget

    by Lagrange multipliers, one for each kind: their ratios are tried, their size is found by bisection. Then single
    layers are given back what still fits. Of one kind the knapsack is also filled by dynamic programming, in steps of
    1/4096 of what there is: that is exact for few layers, where multipliers are not, and coarse for many.

    Args:
        layers: what each may be; costs in the order of the limits' kinds.
        whole: what the model costs now.
        limits: kind -> how much there may be of it.

    Returns:
        The place of each layer's option.

    Raises:
        ValueError: the budget cannot be held.

    >>> cheap = Choices(np.array([[10.0], [5.0]]), np.array([0.0, 0.1]))
    >>> dear = Choices(np.array([[10.0], [5.0]]), np.array([0.0, 0.9]))
    >>> distribute([cheap, dear], {"macs": 20}, {"macs": 15})
    [1, 0]
    """
    kinds, most = list(limits), np.array(list(limits.values()), float)
    total = np.array([float(whole[kind]) for kind in kinds])
    rest = total - sum((layer.costs[0] for layer in layers), np.zeros(len(kinds)))

    def cost(chosen: Sequence[int]) -> np.ndarray:
        return rest + sum((layer.costs[n] for layer, n in zip(layers, chosen, strict=True)), np.zeros(len(kinds)))

    def at(prices: np.ndarray) -> list[int]:
        return [int(np.argmin(layer.changes + layer.costs @ (prices / total))) for layer in layers]

    found: list[list[int]] = []
    near = 1.5 if len(kinds) > 1 else 1 + 1e-12  # of many ratios each may be found roughly
    for ratio in _ratios(len(kinds)):
        low, high = 1e-12, 1e12
        if (cost(at(high * ratio)) > most).any():
            continue
        while high > near * low:
            middle = float(np.sqrt(low * high))
            low, high = (low, middle) if (cost(at(middle * ratio)) <= most).all() else (middle, high)
        chosen = at(high * ratio)
        found.append(_given_back(layers, chosen, most - cost(chosen)))
    if len(kinds) == 1:
        packed = _packed(layers, float((most - rest)[0]))
        found += [_given_back(layers, packed, most - cost(packed))] if packed else []
    if not found:
        least = dict(zip(kinds, map(int, cost(at(np.full(len(kinds), 1e12)))), strict=True))
        raise ValueError(
            f"`rank`: at most {dict(limits)} cannot be held: at the lowest ranks of the layers that may change the "
            f"model has {least} of {dict(whole)}"
        )
    return min(found, key=lambda one: sum(layer.changes[n] for layer, n in zip(layers, one, strict=True)))


def _packed(layers: Sequence[Choices], room: float) -> list[int] | None:
    """Options of least change whose costs, rounded up to steps, fit; None where none do."""
    best, taken = np.zeros(_STEPS + 1), []
    for layer in layers:
        need = np.ceil(layer.costs[:, 0] * _STEPS / max(room, 1e-30) - 1e-9)
        ways = np.full((len(need), _STEPS + 1), np.inf)
        for option, size in enumerate(need):
            if size <= _STEPS:
                ways[option, int(size) :] = best[: _STEPS + 1 - int(size)] + layer.changes[option]
        taken.append((np.argmin(ways, 0), need))
        best = ways.min(0)
    if not np.isfinite(best[-1]):
        return None
    left, chosen = _STEPS, []
    for options, need in reversed(taken):
        chosen.append(int(options[left]))
        left -= int(need[chosen[-1]])
    return chosen[::-1]


def _ratios(kinds: int) -> list[np.ndarray]:
    """Prices of the kinds to one another."""
    steps = 4.0 ** np.arange(-4, 5) if kinds == 2 else 8.0 ** np.arange(-2, 3)
    return [np.array([1.0, *rest]) for rest in itertools.product(steps, repeat=kinds - 1)]


def _given_back(layers: Sequence[Choices], chosen: list[int], slack: np.ndarray) -> list[int]:
    """Better options for single layers, the one that helps most first, as long as they fit."""
    while True:
        best, place, option = 0.0, -1, -1
        for n, layer in enumerate(layers):
            gain = layer.changes[chosen[n]] - layer.changes
            fits = (layer.costs - layer.costs[chosen[n]] <= slack).all(1)
            gain = np.where(fits, gain, 0.0)
            if gain.max() > best:
                best, place, option = float(gain.max()), n, int(np.argmax(gain))
        if place < 0:
            return chosen
        slack = slack - (layers[place].costs[option] - layers[place].costs[chosen[place]])
        chosen[place] = option
