"""Channels taken out little by little, with training in between, as one call that can be continued."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tfcompress.core import flavor
from tfcompress.core.budgets import cost_of, is_budget, limits_of
from tfcompress.core.flavor import keras
from tfcompress.core.projected import Mask, attach, mask_of
from tfcompress.core.scalars import is_whole
from tfcompress.core.select import matcher
from tfcompress.core.trace import trace
from tfcompress.prune.amounts import by_budget, by_layers, by_ratio, check_amount, step_of
from tfcompress.prune.channels import check_plain, prune_to
from tfcompress.prune.costs import Costs
from tfcompress.prune.dependencies import Group
from tfcompress.prune.flow import Flow
from tfcompress.prune.parametric import MAKES


class Rounds:
    """How much is left after each of several rounds: as large a part of what was left goes in each.

    After round k of n a ratio r leaves (1 - r)^(k/n) of each group's channels, a budget b of a cost c leaves
    c (b / c)^(k/n).

    Args:
        model: a flat graph, as it is before the first round.
        amount: as of `prune_channels`, reached in the last round.
        rounds: how many.
        round_to: as of `prune_channels`.
        importance: as of `prune_channels`.
    """

    def __init__(self, model: Any, amount: Any, rounds: int, round_to: int, importance: str) -> None:
        check_amount(amount)
        if not is_whole(rounds):
            raise ValueError(f"`rounds` must be a whole number of at least 1. Received: rounds={rounds!r}")
        self.amount, self.rounds, self.round_to, self.importance = amount, rounds, round_to, importance
        self._costs = cost_of(model)
        self._limits = limits_of(amount, model, "amount") if is_budget(amount) else None
        self._sizes = _made(Flow(model))

    def counts(self, number: int) -> Callable[[Flow, Sequence[tuple[Group, np.ndarray]]], list[int]]:
        """What round `number` (from 1) leaves of each group."""
        share = number / self.rounds

        def counts(flow: Flow, pairs: Sequence[tuple[Group, np.ndarray]]) -> list[int]:
            groups = [group for group, _ in pairs]
            steps = [step_of(group, self.round_to) for group in groups]
            if self._limits is not None:
                limits = {kind: round(self._costs[kind] * min(1.0, limit / self._costs[kind]) ** share, 6)
                          for kind, limit in self._limits.items()}  # fmt: skip
                return by_budget(groups, [score for _, score in pairs], limits, steps, Costs(flow, groups),
                                 self.importance)  # fmt: skip
            now = _made(flow)
            before = [self._before(group, now) for group in groups]
            whole = [replace(group, size=size) for group, size in zip(groups, before, strict=True)]
            if isinstance(self.amount, Mapping):
                ratios = {name: 1 - (1 - ratio) ** share for name, ratio in self.amount.items()}
                goals_of = by_layers(whole, ratios, steps, flow.model)
            else:
                goals_of = [by_ratio(g, 1 - (1 - self.amount) ** share, s) for g, s in zip(whole, steps, strict=True)]
            return [min(group.size, goal) for group, goal in zip(groups, goals_of, strict=True)]

        return counts

    def _before(self, group: Group, now: Mapping[str, int]) -> int:
        """How many channels a group had before the first round, by what its first maker had."""
        maker = (group.layers(MAKES) or [group.name])[0]
        return round(group.size * self._sizes.get(maker, now.get(maker, 1)) / max(now.get(maker, 1), 1))


def _made(flow: Flow) -> dict[str, int]:
    """How many channels each layer makes."""
    found: dict[str, int] = {}
    for layer in flow.layers.values():
        weights = flow.weights[id(layer)]
        for name, axes in weights.axes.items():
            for vector, role in zip(axes, weights.roles[name], strict=True):
                if role == MAKES and vector is not None and vector.any():
                    found.setdefault(layer.name, vector.size)
    return found


def prune_iteratively(
    model: Any, amount: Any, train: Callable[[Any], Any], *, rounds: int = 4, folder: str | Path | None = None,
    seed: int | None = None, importance: str = "l1", data: Any = None, select: Any = None, round_to: int = 8,
    reconstruct: bool = False,
) -> Any:  # fmt: skip
    """Channels taken out in several rounds, each followed by training.

    Args:
        model: as of `prune_channels`. It is not changed.
        amount: as of `prune_channels`, reached in the last round.
        train: compiles and trains the model that it is given, in place; or returns another one. A `History` says that
            it was in place.
        rounds: how many, at least 1.
        folder: where the model after each round is kept, with the zeros that are held on it. Started again with the
            same model and arguments, the call goes on after the last round that is there; `data` and `train` are not
            compared.
        seed: when given, Keras' seeds are set by it before each round, so that a call that was interrupted and started
            again returns what one that was not returns.
        importance: as of `prune_channels`, like the arguments that follow.

    Returns:
        The model after the last round, as `train` left it.

    Raises:
        ValueError: the folder holds the rounds of another model or other arguments; or as of `prune_channels`.
        TypeError: `train` returns something else; or as of `prune_channels`.

    Source: Molchanov et al. 2017, arXiv:1611.06440, section 2 (prune and fine-tune by turns).

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(32, name="a"), keras.layers.Dense(3, name="b")])
    >>> widths = []
    >>> small = prune_iteratively(model, 0.75, lambda m: widths.append(m.layers[1].units), rounds=2, round_to=1)
    >>> widths
    [16, 8]
    """
    flavor.check_model(model)
    flat = trace(model)
    check_plain(flat)
    plan = Rounds(flat, amount, rounds, round_to, importance)
    place = None if folder is None else Path(folder)
    matches = matcher(select, flat)
    arguments = {"amount": dict(amount) if isinstance(amount, Mapping) else amount, "rounds": rounds, "seed": seed,
                 "importance": importance, "select": [n for n, layer in enumerate(flat.layers) if matches(layer)],
                 "round_to": round_to, "reconstruct": reconstruct, "weights": _digest(model)}  # fmt: skip
    done, current = (0, model) if place is None else _found(place, arguments, model, rounds)
    for number in range(done + 1, rounds + 1):
        if seed is not None:
            keras.utils.set_random_seed(seed + number)
        current = prune_to(current, plan.counts(number), importance=importance, data=data, select=select,
                           reconstruct=reconstruct)  # fmt: skip
        current = _trained(current, train)
        if place is not None:
            _keep(current, place, number)
    return current


def _trained(model: Any, train: Callable[[Any], Any]) -> Any:
    """The model after training: what `train` returns, or the one that it was given."""
    result = train(model)
    if isinstance(result, keras.Model):
        return result
    if result is not None and not isinstance(result, keras.callbacks.History):
        raise TypeError(f"`train` must return a model, or None for the one that it was given. Received: {result!r}")
    return model


def _digest(model: Any) -> str:
    """Tells models with other weights apart."""
    digest = hashlib.sha256()
    for variable in model.weights:
        digest.update(np.ascontiguousarray(flavor.read(variable)).tobytes())
    return digest.hexdigest()


def _keep(model: Any, place: Path, number: int) -> None:
    """Write the model after a round, and the masks on its weights before it: a file that is there is whole."""
    masks = {str(n): mask.kept for n, v in enumerate(model.weights) if (mask := mask_of(v)) is not None}
    np.savez_compressed(place / "part.npz", **masks)  # type: ignore[arg-type]
    (place / "part.npz").replace(place / f"round_{number}.npz")
    model.save(place / "part.keras")
    (place / "part.keras").replace(place / f"round_{number}.keras")


def _kept(place: Path, number: int) -> Any:
    """The model after a round, with its masks."""
    model = keras.models.load_model(place / f"round_{number}.keras")
    with np.load(place / f"round_{number}.npz") as masks:
        for key, kept in masks.items():
            attach(model.weights[int(key)], Mask(kept))
    return model


def _found(place: Path, arguments: dict[str, Any], model: Any, rounds: int) -> tuple[int, Any]:
    """The last round that is done, and the model after it."""
    place.mkdir(parents=True, exist_ok=True)
    notes, text = place / "rounds.json", json.dumps(arguments, default=float)
    if notes.exists() and notes.read_text() != text:
        raise ValueError(
            "`folder` must hold rounds of the same model and the same arguments, or none; take another one, or delete "
            f"it. Received: folder={str(place)!r}"
        )
    (place / "part.json").write_text(text)
    (place / "part.json").replace(notes)
    for number in range(rounds, 0, -1):
        if (place / f"round_{number}.keras").exists():
            return number, _kept(place, number)
    return 0, model
