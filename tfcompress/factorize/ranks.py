"""What a user says of ranks, and the rank of one layer by it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from tfcompress.core.budgets import KINDS
from tfcompress.core.scalars import is_finite, is_whole
from tfcompress.factorize.decompose import METHODS
from tfcompress.factorize.spectrum import Spectrum
from tfcompress.factorize.target import Target

_SHARES = ("energy", "error")
_AUTO = ("svd", "tucker2", "spatial", "channel", "depthwise")  # CP's fit has no guaranteed minimum: only when asked for
MULTIPLIER = 1  # of "depthwise" where methods compete: runtimes have fast kernels for one, and INT8 is slower with more


@dataclass(frozen=True)
class Rule:
    """One layer's rank.

    Attributes:
        kind: "number", "ratio" (of the full rank), "energy", "error" or "vbmf".
        value: the number; of "vbmf" 0.
    """

    kind: str
    value: float = 0.0


@dataclass(frozen=True)
class Option:
    """One way to write a layer.

    Attributes:
        method: as of `decompose`.
        ranks: as of `decompose`.
        error: relative error, as of `Spectrum`.
    """

    method: str
    ranks: tuple[int, ...]
    error: float

    def describe(self) -> str:
        """ "tucker2, ranks 16 and 24"."""
        word = "rank" if len(self.ranks) == 1 else "ranks"
        return f"{self.method}, {word} {' and '.join(map(str, self.ranks))}"


def check_method(method: Any) -> None:
    """Refuse what is no method.

    Raises:
        ValueError: it is none of "auto" and `METHODS`.
    """
    if method not in ("auto", *METHODS):
        raise ValueError(f"`method` must be 'auto' or one of {', '.join(METHODS)}. Received: method={method!r}")


def rules_of(rank: Any) -> Rule | dict[str, Rule]:
    """What a user passed as ranks, one rule or one for each name pattern.

    Raises:
        TypeError: of another type.
        ValueError: out of range, empty, or a budget and something else.
    """
    if not isinstance(rank, Mapping) or any(key in _SHARES for key in rank):
        return rule_of(rank)
    if not rank or any(key in KINDS for key in rank):
        raise ValueError(
            f"`rank` must be a budget ({', '.join(KINDS)}) or ranks by names of layers, not both. Received: {rank!r}"
        )
    if not all(isinstance(name, str) for name in rank):
        raise TypeError(f"`rank` must have names of layers as keys. Received: rank={dict(rank)!r}")
    return {name: rule_of(value, f"rank[{name!r}]") for name, value in rank.items()}


def rule_of(rank: Any, argument: str = "rank") -> Rule:
    """One rule as a user writes it: 8, 0.25, {"energy": 0.9}, {"error": 0.1} or "vbmf".

    >>> rule_of(8), rule_of({"energy": 0.9})
    (Rule(kind='number', value=8), Rule(kind='energy', value=0.9))
    """
    if rank == "vbmf":
        return Rule("vbmf")
    if isinstance(rank, Mapping) and len(rank) == 1 and next(iter(rank)) in _SHARES:
        kind, value = next(iter(rank.items()))
        if not is_finite(value) or not 0 < value < 1:
            raise ValueError(f"`{argument}[{kind!r}]` must be in (0, 1). Received: {value!r}")
        return Rule(kind, value)
    if not is_finite(rank):
        raise TypeError(
            f"`{argument}` must be a number, a ratio of the full rank, {{'energy': 0.9}}, {{'error': 0.1}}, 'vbmf', a "
            f"budget such as {{'macs': 0.5}}, or one of these by names of layers. Received: {argument}={rank!r}"
        )
    if is_whole(rank):
        return Rule("number", int(rank))
    if not isinstance(rank, Integral) and 0 < rank <= 1:
        return Rule("ratio", float(rank))
    raise ValueError(f"`{argument}` must be a whole number of at least 1 or a ratio in (0, 1]. Received: {rank!r}")


def methods_for(target: Target, method: str, rule: Rule | None) -> tuple[str, ...]:
    """The methods that are tried on a layer; without a window there is one.

    By a number, a ratio or VBMF "auto" is SVD of matrices and Tucker-2 of convolutions; by errors and budgets the
    methods compete.
    """
    known = target.methods
    if known == ("svd",):
        return known
    if method != "auto":
        return (method,) if method in known else ()
    if rule is not None and rule.kind not in _SHARES:
        return ("tucker2",)
    return tuple(name for name in _AUTO if name in known)


def option_of(target: Target, spectra: Sequence[Spectrum], rule: Rule) -> Option | str:
    """The way to write a layer that a rule asks for, or the reason why it stays as it is."""
    if rule.kind in _SHARES:
        allowed = rule.value if rule.kind == "error" else math.sqrt(1 - rule.value)
        within = [(spectrum, spectrum.within(allowed)) for spectrum in spectra]
        least = [(spectrum, _least(target, spectrum, ranks)) for spectrum, ranks in within if ranks]
        found = [Option(spectrum.method, ranks, spectrum.error(ranks)) for spectrum, ranks in least]
        best = min(found, key=lambda option: _price(target, option))
    else:
        spectrum = spectra[0]
        ranks = spectrum.vbmf() if rule.kind == "vbmf" else _given(spectrum, rule)
        if not all(ranks):
            return "VBMF finds nothing above the noise of its kernel"
        best = Option(spectrum.method, ranks, spectrum.error(ranks))
    return best if target.pays(best.method, best.ranks) else unpaid(target, best)


def unpaid(target: Target, option: Option) -> str:
    """Why an option is none: "does not pay: svd, rank 60 would take 1,200 parameters of 1,000"."""
    before, after = target.costs(), target.costs((option.method, option.ranks))
    kind, words = ("params", "parameters") if after["params"] >= before["params"] else (  # type: ignore[operator]
        "macs", "multiply-accumulates")  # fmt: skip
    return f"does not pay: {option.describe()} would take {after[kind]:,} {words} of {before[kind]:,}"


def _given(spectrum: Spectrum, rule: Rule) -> tuple[int, ...]:
    if rule.kind == "number":
        return tuple(min(int(rule.value), limit) for limit in spectrum.full)
    return tuple(max(1, math.ceil(rule.value * limit - 1e-9)) for limit in spectrum.full)


def _least(target: Target, spectrum: Spectrum, within: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The cheapest of some ranks."""
    return min(within, key=lambda ranks: _price(target, Option(spectrum.method, ranks, 0.0)))


def _price(target: Target, option: Option) -> tuple[int, int]:
    """Multiply-accumulates, then parameters; the latter alone where the former are not known."""
    costs = target.costs((option.method, option.ranks))
    numbers = costs["params"] or 0
    return (costs["macs"] if costs["macs"] is not None else numbers), numbers
