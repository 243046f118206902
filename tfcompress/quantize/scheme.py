"""Which tensor gets which grid: data only."""

from dataclasses import dataclass, field, replace
from typing import Any

from tfcompress.core.grid import Grid


@dataclass(frozen=True)
class ActivationGrid:
    """The grid of activations.

    Attributes:
        bits: 8 (one zero point a tensor) or 16 (symmetric, zero point 0), which is what the runtimes execute.

    Raises:
        ValueError: other bits.
    """

    bits: int = 8

    def __post_init__(self) -> None:
        if self.bits not in (8, 16):
            raise ValueError(f"`bits` of activations must be 8 or 16. Received: bits={self.bits!r}")

    @property
    def symmetric(self) -> bool:
        return self.bits == 16


class _Keep:
    """An argument that was not given: what the scheme already says stays."""

    def __repr__(self) -> str:
        return "KEEP"


KEEP = _Keep()


@dataclass(frozen=True)
class Override:
    """Other grids for a selection of layers. None: not simulated in training, the exporter decides."""

    select: Any
    weights: Grid | None | _Keep = KEEP
    activations: ActivationGrid | None | _Keep = KEEP


@dataclass(frozen=True)
class Scheme:
    """The grids of weights and activations of a whole model, with exceptions for some layers.

    Attributes:
        name: what the summary and errors call it.
        weights: the grid of kernels.
        activations: the grid of the tensors between operations.
        fold_batch_norm: BatchNormalization is folded into the kernel before training. Needed where one scale serves a
            whole kernel: scaling its channels afterwards would leave the grid.
        overrides: exceptions; a later one wins.

    >>> Scheme.named("w4a8").weights.bits
    4
    """

    name: str
    weights: Grid | None = field(default_factory=Grid)
    activations: ActivationGrid | None = field(default_factory=ActivationGrid)
    fold_batch_norm: bool = False
    overrides: tuple[Override, ...] = ()

    @staticmethod
    def named(name: str) -> "Scheme":
        """One of the schemes in `SCHEMES`: "int8", "int8_per_tensor", "int16x8" or "w4a8".

        Raises:
            ValueError: no scheme has this name.
        """
        if name not in SCHEMES:
            raise ValueError(f"`scheme` must be one of {sorted(SCHEMES)} or a Scheme. Received: scheme={name!r}")
        return SCHEMES[name]

    def override(
        self, select: Any, *, weights: Grid | None | _Keep = KEEP, activations: ActivationGrid | None | _Keep = KEEP
    ) -> "Scheme":
        """This scheme with other grids for some layers.

        Args:
            select: a layer class, a name pattern ("head/*"), a layer, a predicate, or a list of these.
            weights: their kernels' grid; None leaves the kernels to the exporter.
            activations: their output's grid; None leaves the range to be measured by the exporter.

        Returns:
            A new scheme.

        Raises:
            TypeError: a grid is of another type.
        """
        for argument, value, kind in (("weights", weights, Grid), ("activations", activations, ActivationGrid)):
            if value is not None and value is not KEEP and not isinstance(value, kind):
                raise TypeError(f"`{argument}` must be a {kind.__name__} or None. Received: {value!r}")
        return replace(self, overrides=(*self.overrides, Override(select, weights, activations)))


SCHEMES = {
    scheme.name: scheme
    for scheme in (
        Scheme("int8"),
        Scheme("int8_per_tensor", weights=Grid(axis=None), fold_batch_norm=True),
        Scheme("int16x8", activations=ActivationGrid(bits=16)),
        Scheme("w4a8", weights=Grid(bits=4)),
    )
}
