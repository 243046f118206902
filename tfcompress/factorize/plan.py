"""What becomes of each layer: by the rank that was asked for, or by a budget of the whole model."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tfcompress.core.budgets import cost_of, limits_of
from tfcompress.factorize.budget import Choices, distribute
from tfcompress.factorize.ranks import MULTIPLIER, Option, Rule, methods_for, option_of
from tfcompress.factorize.sensitivity import Sensitivity
from tfcompress.factorize.spectrum import Spectrum
from tfcompress.factorize.target import Target
from tfcompress.factorize.weighting import Root

#: By a layer's id: a way to write it, or why it stays.
Plan = dict[int, Option | str]
#: What the methods that are tried make of a layer, given its rank if one was asked for.
Found = Callable[[Target, Rule | None], list[Spectrum]]
#: Method and ranks.
Way = tuple[str, tuple[int, ...]]
_UNFIT = "the method is not for its window, strides and padding"


def spectra_of(target: Target, rule: Rule | None, *, method: str, roots: Mapping[int, Root]) -> list[Spectrum]:
    """What each method that is tried on a layer makes of it."""
    root = roots.get(id(target.layer))
    most = MULTIPLIER if method == "auto" else None
    return [Spectrum(target.kernel, name, root, most) for name in methods_for(target, method, rule)]


def by_rules(targets: Sequence[Target], found: Found, rules: Any) -> Plan:
    """Each layer by the rank that was asked for it."""
    plan: Plan = {}
    for target in targets:
        rule = rules if isinstance(rules, Rule) else target.rule
        spectra = found(target, rule)
        plan[id(target.layer)] = option_of(target, spectra, rule) if spectra else _UNFIT
    return plan


def by_budget(
    flat: Any, targets: Sequence[Target], found: Found, budget: Mapping[str, Any],
    batches: list[list[np.ndarray]] | None,
) -> Plan:  # fmt: skip
    """Such that the whole model holds a budget and its answers change least.

    Raises:
        ValueError: the budget cannot be held, or is of what is not known.
    """
    whole = cost_of(flat)
    limits = limits_of(budget, flat, "rank")
    kinds = list(limits)
    plan: Plan = {}
    ways: list[tuple[Target, list[Way], np.ndarray]] = []
    for target in targets:
        spectra = found(target, None)
        cheaper = [(s.method, ranks) for s in spectra for ranks in s.grid
                   if target.pays(s.method, ranks) and _saves(target, s.method, ranks, kinds)]  # fmt: skip
        if cheaper:
            ways.append((target, cheaper, _prices(target, cheaper, kinds)))
        else:
            plan[id(target.layer)] = f"does not pay: no rank lowers its {' or '.join(kinds)}" if spectra else _UNFIT
    # What cannot be held is refused before anything is fitted or measured.
    distribute([Choices(prices, np.zeros(len(prices))) for *_, prices in ways], whole, limits)
    measured = Sensitivity(flat, batches) if batches is not None else None
    options: list[list[Option]] = []
    layers: list[Choices] = []
    for target, cheaper, prices in ways:
        spectra = found(target, None)  # made anew: what they find out is large
        errors = {s.method: s.error for s in spectra}
        options.append([Option(method, ranks, errors[method](ranks)) for method, ranks in cheaper])
        changes = measured.changes(target, spectra, options[-1]) if measured else [o.error**2 for o in options[-1]]
        layers.append(Choices(prices, np.array([0.0, *changes])))
    chosen = distribute(layers, whole, limits)
    for (target, *_), own, n in zip(ways, options, chosen, strict=True):
        plan[id(target.layer)] = own[n - 1] if n else "does not pay: the budget is held without it"
    return plan


def _prices(target: Target, ways: Sequence[Way], kinds: Sequence[str]) -> np.ndarray:
    """[1 + ways, kinds]: what the layer costs as it is, and by each way to write it."""
    costs = [target.costs(), *map(target.costs, ways)]
    return np.array([[one[kind] or 0 for kind in kinds] for one in costs], float)


def _saves(target: Target, method: str, ranks: tuple[int, ...], kinds: Sequence[str]) -> bool:
    """Whether an option costs less of something in the budget, and more of nothing in it."""
    before, after = target.costs(), target.costs((method, ranks))
    pairs = [(before[kind] or 0, after[kind] or 0) for kind in kinds]
    return all(new <= old for old, new in pairs) and any(new < old for old, new in pairs)
