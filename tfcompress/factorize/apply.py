"""Layers replaced by products of smaller ones where that pays."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfcompress.core import flavor
from tfcompress.core.budgets import check_budget, cost_of, is_budget, limits_of
from tfcompress.core.compressed import noted
from tfcompress.core.finite import check_finite
from tfcompress.core.projected import carry, plain_constraint
from tfcompress.core.replay import Call, replay
from tfcompress.core.samples import Samples, inputs_of
from tfcompress.core.trace import trace
from tfcompress.core.transformed import transformed_layers
from tfcompress.factorize.budget import Choices, distribute
from tfcompress.factorize.candidates import candidates
from tfcompress.factorize.covariance import second_moments
from tfcompress.factorize.decompose import compose, decompose
from tfcompress.factorize.ranks import (
    Option,
    Rule,
    check_method,
    methods_for,
    option_of,
    rules_of,
)
from tfcompress.factorize.sensitivity import Sensitivity
from tfcompress.factorize.spectrum import Spectrum
from tfcompress.factorize.target import Target

#: What becomes of each layer, by its id: a way to write it, or why it stays.
Plan = dict[int, Option | str]
_SAMPLES = 512  # of the data, at most


def factorize_model(model: Any, rank: Any, *, method: str = "auto", select: Any = None, data: Any = None) -> Any:
    """A model in which large kernels are products of small ones wherever that takes fewer numbers and operations.

    Dense, EinsumDense (the projections of attention, too), Embedding, convolutions and the 1x1 kernels of separable
    ones (1D, 2D) become two or three ordinary layers: the last keeps the name, bias and activation, those before it are
    named by what they do ("conv.reduce").
    Where it does not pay, a layer stays as it is; `tfcompress.summary` says of each what was done or why not.
    Composite layers and subclassed models are opened first.

    Args:
        model: a built model of the current Keras flavor, not quantized. It is not changed.
        rank: of each layer
            - a number (8), or a ratio in (0, 1] of the full rank (0.25); of Tucker-2 for both ranks;
            - {"energy": 0.9}: the share of the squared kernel that is kept, in (0, 1);
            - {"error": 0.1}: the relative error that is allowed, in (0, 1);
            - "vbmf": what stands out of the noise of the kernel;
            or one of these by names of layers, {"block/*": 8, "head": "vbmf"}; or a budget for the whole model,
            {"macs": ..., "params": ..., "bytes": ...} (one or several, each a fraction of the model's or a whole
            number), which the result holds: it is distributed such that the model's answers change least.
        method: of convolutions with a window: "tucker2" (1x1, kxk, 1x1), "svd" (kxk, 1x1), "channel" (1x1, kxk),
            "spatial" (kx1, 1xk), "cp" (1x1, kxk of each channel alone, 1x1), "depthwise" (kxk of each channel alone,
            as many times as the rank says, 1x1), or "auto": all but CP compete for errors and budgets, "tucker2"
            otherwise. Kernels without a window are matrices, which SVD takes apart whatever the method.
        select: which layers: a layer class, a name pattern ("head/*"), a layer, a predicate, or a list of these.
        data: samples: arrays, or an iterable of batches. With them errors are those of the layers' outputs, SVD is
            weighted by what the layers read, and a budget goes by the measured change of the model's answers; without
            them every layer's relative error counts the same. The first 512 are used, and read once.

    Returns:
        A new, uncompiled Functional model, ready to be trained, pruned, quantized and exported.

    Raises:
        TypeError: not a model, or one of the other Keras flavor; ranks of another type.
        ValueError: the model is not built, holds NaN, or is quantized; an argument is out of range; a budget cannot be
            held; a selection or a name matches nothing.
        ImportError: Tucker-2 or CP without tensorly.

    Source: see `tfcompress.factorize.decompose`; of "vbmf" `tfcompress.factorize.vbmf_rank`.

    >>> from tfcompress.core.flavor import keras
    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64, activation="relu", name="body")])
    >>> small = factorize_model(model, 8)
    >>> [(layer.name, layer.units) for layer in small.layers[1:]], small.count_params(), model.count_params()
    ([('body.reduce', 8), ('body', 64)], 1088, 4160)
    """
    flavor.check_model(model)
    check_method(method)
    budget = rank if is_budget(rank) else None
    rules: Any = None
    if budget is None:
        rules = rules_of(rank)
    else:
        check_budget(budget, "rank")
    check_finite(model)
    flat = trace(model)
    _check_plain(flat)
    targets, notes = candidates(flat, select, rules if isinstance(rules, Mapping) else None)
    batches = None if data is None else list(Samples(data, inputs_of(flat), limit=_SAMPLES))  # read once
    roots = second_moments(flat, targets, batches) if batches is not None and targets else {}
    found = functools.partial(_spectra, method=method, roots=roots)
    if budget is not None:
        if not targets:
            said = "; ".join(f"{name}: {note}" for name, note in list(notes.items())[:10]) or "no layer has a kernel"
            raise ValueError(f"`rank` {dict(budget)!r} cannot be held: no layer of {model.name!r} may change. {said}")
        plan = _by_budget(flat, targets, found, budget, batches)
    else:
        plan = _by_rules(targets, found, rules)
    maker = _Maker(flat, targets, plan, roots)
    small = replay(flat, maker.call)
    return noted(small, {**getattr(model, "notes", {}), **notes, **maker.notes})


def _check_plain(flat: Any) -> None:
    if any(hasattr(layer, "describe_output") for layer in flat.layers) or any(
            wrapper.integers() for wrapper in transformed_layers(flat)):  # fmt: skip
        raise ValueError(f"`model` must not be quantized yet: factorize before quantize. Received: {flat.name!r}")


def _spectra(target: Target, rule: Rule | None, *, method: str, roots: Mapping[int, np.ndarray]) -> list[Spectrum]:
    root = roots.get(id(target.layer))
    return [Spectrum(target.kernel, name, root) for name in methods_for(target, method, rule)]


def _by_rules(targets: Sequence[Target], found: Any, rules: Any) -> Plan:
    plan: Plan = {}
    for target in targets:
        rule = rules if isinstance(rules, Rule) else target.rule
        spectra = found(target, rule)
        plan[id(target.layer)] = option_of(target, spectra, rule) if spectra else _UNFIT
    return plan


_UNFIT = "the method is not for its window, strides and padding"


def _by_budget(
    flat: Any, targets: Sequence[Target], found: Any, budget: Mapping[str, Any], batches: list[list[np.ndarray]] | None
) -> Plan:
    whole = cost_of(flat)
    limits = limits_of(budget, whole, "rank")
    kinds = list(limits)
    unknown = [target.layer.name for target in targets if "macs" in kinds and target.costs()["macs"] is None]
    if unknown:
        raise ValueError(
            f"`rank['macs']` needs multiply-accumulates that are known: those of {', '.join(unknown[:10])} are not, as "
            f"with inputs of any size. Received: rank={dict(budget)!r}"
        )
    measured = Sensitivity(flat, batches) if batches is not None else None
    plan: Plan = {}
    layers: list[Choices] = []
    ways: list[tuple[Target, list[Option]]] = []
    for target in targets:
        spectra = found(target, None)
        options = [Option(s.method, ranks, s.error(ranks)) for s in spectra for ranks in s.grid
                   if target.pays(s.method, ranks) and _saves(target, s.method, ranks, kinds)]  # fmt: skip
        if not options:
            plan[id(target.layer)] = f"does not pay: no rank lowers its {' or '.join(kinds)}" if spectra else _UNFIT
            continue
        changes = measured.changes(target, spectra, options) if measured else np.array([o.error**2 for o in options])
        costs = [target.costs(), *(target.costs((o.method, o.ranks)) for o in options)]
        layers.append(Choices(np.array([[c[kind] or 0 for kind in kinds] for c in costs], float),
                              np.array([0.0, *changes])))  # fmt: skip
        ways.append((target, options))
    chosen = distribute(layers, whole, limits)
    for (target, options), n in zip(ways, chosen, strict=True):
        plan[id(target.layer)] = options[n - 1] if n else "does not pay: the budget is held without it"
    return plan


def _saves(target: Target, method: str, ranks: tuple[int, ...], kinds: Sequence[str]) -> bool:
    """Whether an option costs less of something in the budget, and more of nothing in it."""
    before, after = target.costs(), target.costs((method, ranks))
    pairs = [(before[kind] or 0, after[kind] or 0) for kind in kinds]
    return all(new <= old for old, new in pairs) and any(new < old for old, new in pairs)


class _Maker:
    """Answers the calls of the old graph with the parts of what is replaced."""

    def __init__(self, flat: Any, targets: Sequence[Target], plan: Plan, roots: Mapping[int, np.ndarray]) -> None:
        self._targets = {id(target.layer): target for target in targets}
        self._plan, self._roots = plan, roots
        self._names = {layer.name for layer in flat.layers}
        self._made: dict[int, list[Any]] = {}
        self.notes = {self._targets[key].layer.name: f"full rank kept: {said}" for key, said in plan.items()
                      if isinstance(said, str)}  # fmt: skip

    def call(self, call: Call, args: tuple, kwargs: dict[str, Any]) -> Any:
        option = self._plan.get(id(call.operation))
        if not isinstance(option, Option):
            return call.operation(*args, **kwargs)
        target = self._targets[id(call.operation)]
        is_new = id(call.operation) not in self._made
        if is_new:
            self._made[id(call.operation)] = self._named(target, option)
        first, *rest = self._made[id(call.operation)]
        outputs = first(*args, **kwargs)
        for part in rest:
            outputs = part(outputs)
        if is_new:
            self._fill(target, option)
        return outputs

    def _named(self, target: Target, option: Option) -> list[Any]:
        """The parts, under names that no other layer has."""
        parts = target.parts(option.method, option.ranks)
        for part in parts[:-1]:
            base, number = part.name, 0
            while part.name in self._names:
                number += 1
                flavor.set_name(part, f"{base}_{number}")
            self._names.add(part.name)
        return parts

    def _fill(self, target: Target, option: Option) -> None:
        layer, parts = target.layer, self._made[id(target.layer)]
        root = self._roots.get(id(layer))
        factors = decompose(target.kernel, option.method, option.ranks, root if option.method == "svd" else None)
        target.fill(parts, factors)
        if getattr(layer, "bias", None) is not None:
            carry(layer.bias, parts[-1].bias)
        error = Spectrum(target.kernel, option.method, root).error_of(compose(option.method, factors))
        before, after = target.costs(), target.costs((option.method, option.ranks))
        said = f"{option.describe()}, {'output' if root is not None else 'kernel'} error {error:.1%}, parameters "
        said += f"{before['params']:,} → {after['params']:,}"
        if before["macs"] and after["macs"] is not None:
            said += f", MACs {before['macs']:,} → {after['macs']:,}"
        if plain_constraint(target.variable) is not None:
            said += "; the constraint of its kernel is dropped"
        self.notes[layer.name] = said
        self.notes |= {part.name: f"part of {layer.name}" for part in parts[:-1]}
