"""How much each channel of a group matters: one number per channel, from weights or from data."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfcompress.core import flavor
from tfcompress.core.flavor import keras
from tfcompress.core.transformed import named_weights
from tfcompress.prune.dependencies import Group, Member
from tfcompress.prune.flow import Flow
from tfcompress.prune.gates import activations, sensitivities
from tfcompress.prune.objective import objective
from tfcompress.prune.parametric import MAKES

#: Names of importances that need data.
NEED_DATA = ("taylor", "activation")


def _norm(order: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda rows: np.linalg.norm(rows, ord=order, axis=1)


def _distances(rows: np.ndarray) -> np.ndarray:
    """For each row the sum of its distances to all others: small near the geometric median."""
    squares = np.sum(rows**2, 1)
    return np.sqrt(np.maximum(squares[:, None] + squares - 2 * rows @ rows.T, 0)).sum(1)


_OF_KERNELS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"l1": _norm(1), "l2": _norm(2), "fpgm": _distances}
# Of one unit in all groups: loss, and scales that one penalty made small.
OF_LOSS = ("taylor",)
_OF_ONE_UNIT = ("bn", *OF_LOSS)
NAMES = (*_OF_KERNELS, "bn", "taylor", "activation", "random")


def importance(flow: Flow, groups: Sequence[Group], name: str, data: Any, model: Any) -> list[np.ndarray | None]:
    """The importance of every channel of every group.

    "l1", "l2", "fpgm": of the slices of the kernels that make a channel, each kernel's divided by their mean over the
    group, averaged over kernels. "activation": mean magnitude where the channel is read, divided by the group's mean.
    "bn": magnitude of the normalizations' scales. "taylor": squared first-order change of the loss. "random".

    Args:
        flow: labels of the graph.
        groups: those to score.
        name: one of `NAMES`.
        data: for "taylor" (x, y) or batches of them; for "activation" samples.
        model: the user's model, whose loss "taylor" reads.

    Returns:
        For each group float64 [size], or None where the importance says nothing of it ("bn" without normalization).

    Raises:
        ValueError: the name is unknown, or data are missing.

    Source: Li et al. 2017, arXiv:1608.08710 (l1); He et al. 2019, arXiv:1811.00250, eq. 5 (fpgm); Liu et al. 2017,
    arXiv:1708.06519 (bn); Molchanov et al. 2019, arXiv:1906.10771 (taylor); 2017, arXiv:1611.06440 (activation).
    """
    if name not in NAMES:
        raise ValueError(f"`importance` must be one of {', '.join(NAMES)}. Received: importance={name!r}")
    if name in NEED_DATA and data is None:
        wanted = "(x, y)" if name == "taylor" else "samples"
        raise ValueError(f"`data` must be {wanted} for importance={name!r}. Received: data=None")
    if not groups:
        return []
    if name == "random":
        seed = int(np.random.randint(2**31))  # follows keras.utils.set_random_seed
        rng = np.random.default_rng(seed)
        return [rng.uniform(size=group.size) for group in groups]
    if name in NEED_DATA:
        found = sensitivities(flow, groups, data, objective(model)) if name == "taylor" else activations(
            flow, groups, data)  # fmt: skip
        parts = np.split(found, np.cumsum([group.size for group in groups])[:-1])
        return [part if name == "taylor" else _relative(part) for part in parts]
    layers = {layer.name: layer for layer in flow.layers.values()}
    if name == "bn":
        return [_scales(layers, group) for group in groups]
    return [_of_kernels(layers, group, _OF_KERNELS[name]) for group in groups]


def ranked(scores: Sequence[np.ndarray], name: str) -> list[np.ndarray]:
    """The scores of groups on one scale: as they are where they have one unit, else each channel's place in its group.

    >>> [score.tolist() for score in ranked([np.array([3.0, 1.0]), np.array([9.0, 5.0, 8.0, 7.0])], "l1")]
    [[0.75, 0.25], [0.875, 0.125, 0.625, 0.375]]
    """
    if name in _OF_ONE_UNIT:
        return list(scores)
    return [(np.argsort(np.argsort(score, kind="stable")) + 0.5) / len(score) for score in scores]


def _relative(values: np.ndarray) -> np.ndarray:
    return values / max(float(values.mean()), 1e-30)


def rows(layers: dict[str, Any], member: Member) -> np.ndarray:
    """The slices of a weight on which channels lie, one row for each channel: float64 [size, numbers]."""
    value = np.asarray(flavor.read(named_weights(layers[member.layer])[member.weight]), "float64")
    slices = np.moveaxis(value, member.axis, 0)[member.positions]
    return slices.reshape(len(member.positions), -1)


def _of_kernels(layers: dict[str, Any], group: Group, score: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    makers = [m for m in group.members if m.role == MAKES and _rank(layers, m) > 1] or list(group.members)
    return np.mean([_relative(score(rows(layers, member))) for member in makers], axis=0)


def _rank(layers: dict[str, Any], member: Member) -> int:
    return len(named_weights(layers[member.layer])[member.weight].shape)


def _scales(layers: dict[str, Any], group: Group) -> np.ndarray | None:
    found = [np.abs(rows(layers, m)).mean(1) for m in group.members
             if m.weight == "gamma" and isinstance(layers[m.layer], keras.layers.BatchNormalization)]  # fmt: skip
    return np.mean(found, axis=0) if found else None
