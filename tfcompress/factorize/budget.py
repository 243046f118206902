"""One budget for a whole model: which layers give up how much of their rank."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


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

    by a Lagrange multiplier found by bisection; then single layers are given back what still fits.

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

    def at(price: float) -> list[int]:
        return [int(np.argmin(layer.changes + price * (layer.costs / total).sum(1))) for layer in layers]

    low, high = 1e-12, 1e12
    if (cost(at(high)) > most).any():
        least = dict(zip(kinds, map(int, cost(at(high))), strict=True))
        raise ValueError(
            f"`rank`: at most {dict(limits)} cannot be held: at the lowest ranks of the layers that may change the "
            f"model has {least} of {dict(whole)}"
        )
    for _ in range(80):
        middle = float(np.sqrt(low * high))
        low, high = (low, middle) if (cost(at(middle)) <= most).all() else (middle, high)
    return _given_back(layers, at(high), most - cost(at(high)))


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
