"""How a share of zeros is spread over kernels: the same for each, by hand, Erdős-Rényi, or by one threshold."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfcompress.core.select import matcher
from tfcompress.prune.patterns import kept_count


@dataclass(frozen=True)
class Kernel:
    """What a budget knows of one kernel.

    Attributes:
        layer: the layer that owns it.
        shape: of the kernel.
        units: scores of the units that live or die together (see `Pattern.units`), of any shape.
    """

    layer: Any
    shape: tuple[int, ...]
    units: np.ndarray

    @property
    def size(self) -> int:
        """Number of weights."""
        return int(np.prod(self.shape))


class Budget(ABC):
    """From one share of zeros to the number of units that live in each kernel."""

    @abstractmethod
    def counts(self, kernels: Sequence[Kernel], sparsity: float, final: float) -> list[int]:
        """How many units of each kernel live, each at least 1.

        Args:
            kernels: all kernels that are pruned.
            sparsity: share of zeros now, in [0, 1).
            final: share of zeros at the end of the schedule.
        """

    def attach(self, model: Any) -> None:  # noqa: B027 - most budgets have nothing to look up
        """Look up what the budget says of a model's layers.

        Raises:
            ValueError: it names a layer that is not there.
        """


@dataclass(frozen=True)
class Uniform(Budget):
    """The same share of zeros in each kernel."""

    def counts(self, kernels: Sequence[Kernel], sparsity: float, final: float) -> list[int]:
        return [kept_count(kernel.units.size, sparsity) for kernel in kernels]


class PerLayer(Budget):
    """A final share of zeros for each layer, by name; what is not named has the schedule's.

    On the way, every layer has the same part of its final share: share * sparsity(step) / final.

    Args:
        shares: name pattern, layer or class (as of `select`) -> final share of zeros, in [0, 1). The first that fits
            counts.

    Raises:
        ValueError: a share is outside its range.
    """

    def __init__(self, shares: Mapping[Any, float]) -> None:
        for name, share in shares.items():
            if not isinstance(share, int | float) or not 0.0 <= share < 1.0:
                raise ValueError(f"`budget` must hold shares in [0, 1). Received: {share!r} for {name!r}")
        self.shares = dict(shares)
        self._found: list[tuple[Any, float]] = []

    def attach(self, model: Any) -> None:
        self._found = [(matcher(entry, model, "budget"), share) for entry, share in self.shares.items()]

    def counts(self, kernels: Sequence[Kernel], sparsity: float, final: float) -> list[int]:
        done = sparsity / final if final else 0.0
        return [kept_count(k.units.size, self._share(k.layer, final) * done) for k in kernels]

    def _share(self, layer: Any, final: float) -> float:
        return next((share for fits, share in self._found if fits(layer)), final)


@dataclass(frozen=True)
class ErdosRenyi(Budget):
    """Larger kernels get more zeros: the density of a kernel is proportional to (sum of its sizes) / (their product).

    With sizes d_1, ..., d_r of a kernel (a convolution's window counts, which is the "K" of ERK):

        density = min(1, epsilon * (d_1 + ... + d_r) / (d_1 * ... * d_r))

    and epsilon such that all kernels together have the share of zeros that the schedule asks for.

    Source: Evci et al. 2020, arXiv:1911.11134, section 3 (1).

    >>> small, large = (Kernel(None, shape, np.zeros(shape)) for shape in ((2, 2), (8, 8)))
    >>> ErdosRenyi().counts([small, large], 0.5, 0.5)
    [4, 30]
    """

    def counts(self, kernels: Sequence[Kernel], sparsity: float, final: float) -> list[int]:
        raw = np.array([sum(k.shape) / k.size for k in kernels])
        sizes = np.array([k.size for k in kernels], float)
        dense = np.zeros(len(kernels), bool)
        wanted = (1.0 - sparsity) * sizes.sum()
        while True:
            rest = ~dense
            epsilon = (wanted - sizes[dense].sum()) / max((raw * sizes)[rest].sum(), 1e-30)
            over = rest & (epsilon * raw > 1.0)
            if not over.any():
                break
            dense |= over
        density = np.where(dense, 1.0, np.clip(epsilon * raw, 0.0, 1.0))
        return [kept_count(k.units.size, 1.0 - d) for k, d in zip(kernels, density, strict=True)]


@dataclass(frozen=True)
class Global(Budget):
    """One threshold for the scores of all kernels: layers that matter less lose more.

    In each kernel at least one unit lives.

    >>> quiet, loud = (Kernel(None, (4,), np.array(v)) for v in ([0.1, 0.2, 0.3, 0.4], [1.0, 2.0, 3.0, 4.0]))
    >>> Global().counts([quiet, loud], 0.5, 0.5)
    [1, 4]
    """

    def counts(self, kernels: Sequence[Kernel], sparsity: float, final: float) -> list[int]:
        owner = np.concatenate([np.full(k.units.size, i) for i, k in enumerate(kernels)])
        scores = np.concatenate([k.units.reshape(-1) for k in kernels])
        weights = np.concatenate([np.full(k.units.size, k.size / k.units.size) for k in kernels])
        order = np.argsort(-scores, kind="stable")
        wanted = kept_count(round(float(weights.sum())), sparsity)
        count = int(np.searchsorted(np.cumsum(weights[order]), wanted - 1e-6)) + 1
        counts = np.bincount(owner[order[:count]], minlength=len(kernels))
        return [max(int(n), 1) for n in counts]


def resolve(budget: Any) -> Budget:
    """What a user passed as a budget: an object, "uniform", "erk", "global", or a mapping from layers to shares.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(budget, Budget):
        return budget
    if isinstance(budget, Mapping) and budget:
        return PerLayer(budget)
    names: dict[str, Any] = {"uniform": Uniform, "erk": ErdosRenyi, "global": Global}
    if isinstance(budget, str) and budget in names:
        return names[budget]()
    raise ValueError(
        f"`budget` must be 'uniform', 'erk', 'global', a mapping such as {{'head': 0.5}}, or an object of "
        f"`tfcompress.prune`. Received: budget={budget!r}"
    )
