"""The model with its plan carried out: layers that become several, called in the old one's place."""

from collections.abc import Mapping, Sequence
from typing import Any

from tfcompress.core import flavor
from tfcompress.core.projected import carry, plain_constraint
from tfcompress.core.replay import Call
from tfcompress.factorize.decompose import compose, decompose
from tfcompress.factorize.plan import Plan
from tfcompress.factorize.ranks import Option
from tfcompress.factorize.spectrum import Spectrum
from tfcompress.factorize.target import Target
from tfcompress.factorize.weighting import Root


class Writer:
    """Answers the calls of the old graph with the parts of what is replaced.

    Args:
        flat: the flat graph that is replayed.
        targets: its layers that may change.
        plan: what becomes of them.
        roots: as of `decompose`, by a layer's id.

    Attributes:
        notes: by layer what was done, or why nothing was; grows with the calls.
    """

    def __init__(self, flat: Any, targets: Sequence[Target], plan: Plan, roots: Mapping[int, Root]) -> None:
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
        factors = decompose(target.kernel, option.method, option.ranks, root)
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
