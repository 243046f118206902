"""What becomes of each layer: by the rank that was asked for, or by a budget of the whole model."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tfcompress.core.budgets import cost_of, limits_of
from tfcompress.factorize.budget import Choices, distribute
from tfcompress.factorize.ranks import Option, Rule, methods_for, option_of
from tfcompress.factorize.sensitivity import Sensitivity
from tfcompress.factorize.spectrum import Spectrum
from tfcompress.factorize.target import Target

#: By a layer's id: a way to write it, or why it stays.
Plan = dict[int, Option | str]
#: What the methods that are tried make of a layer, given its rank if one was asked for.
Found = Callable[[Target, Rule | None], list[Spectrum]]
_UNFIT = "the method is not for its window, strides and padding"


def spectra_of(target: Target, rule: Rule | None, *, method: str, roots: Mapping[int, np.ndarray]) -> list[Spectrum]:
    """What each method that is tried on a layer makes of it."""
    root = roots.get(id(target.layer))
    return [Spectrum(target.kernel, name, root) for name in methods_for(target, method, rule)]


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
    ways: list[tuple[Target, list[tuple[str, tuple[int, ...]]], np.ndarray]] = []
    for target in targets:
        spectra = found(target, None)
        cheaper = [(s.method, ranks) for s in spectra for ranks in s.grid
                   if target.pays(s.method, ranks) and _saves(target, s.method, ranks, kinds)]  # fmt: skip
        if cheaper:
            costs = [target.costs(), *map(target.costs, cheaper)]
            ways.append((target, cheaper, np.array([[c[kind] or 0 for kind in kinds] for c in costs], float)))
        else:
            plan[id(target.layer)] = f"does not pay: no rank lowers its {' or '.join(kinds)}" if spectra else _UNFIT
    distribute([Choices(costs, np.zeros(len(costs))) for *_, costs in ways], whole, limits)  # refused before any fit
    measured = Sensitivity(flat, batches) if batches is not None else None
    layers: list[Choices] = []
    options: list[list[Option]] = []
    for target, cheaper, costs in ways:
        spectra = found(target, None)  # made anew: what they find out is large
        errors = {s.method: s.error for s in spectra}
        own = [Option(method, ranks, errors[method](ranks)) for method, ranks in cheaper]
        changes = measured.changes(target, spectra, own) if measured else np.array([o.error**2 for o in own])
        layers.append(Choices(costs, np.array([0.0, *changes])))
        options.append(own)
    chosen = distribute(layers, whole, limits)
    for (target, *_), own, n in zip(ways, options, chosen, strict=True):
        plan[id(target.layer)] = own[n - 1] if n else "does not pay: the budget is held without it"
    return plan


def _saves(target: Target, method: str, ranks: tuple[int, ...], kinds: Sequence[str]) -> bool:
    """Whether an option costs less of something in the budget, and more of nothing in it."""
    before, after = target.costs(), target.costs((method, ranks))
    pairs = [(before[kind] or 0, after[kind] or 0) for kind in kinds]
    return all(new <= old for old, new in pairs) and any(new < old for old, new in pairs)
