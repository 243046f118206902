"""A layer that may become several: its kernel as an array, what the parts cost, and the parts."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.replay import Call
from tfcompress.factorize.decompose import factor_shapes, methods_of

#: What a layer costs, by kind: "macs", "params", "bytes"; None where it is not known.
Costs = dict[str, int | None]


class Target(ABC):
    """A layer with a kernel that has a low-rank form.

    Args:
        layer: a built layer of a flat graph.
        calls: its calls in the graph.
    """

    #: The name of the weight that is decomposed.
    weight = "kernel"
    #: The rank that was asked for by the layer's name, if any.
    rule: Any = None

    def __init__(self, layer: Any, calls: Sequence[Call]) -> None:
        self.layer, self.calls = layer, tuple(calls)

    @property
    def variable(self) -> Any:
        return getattr(self.layer, self.weight)

    @property
    def kernel(self) -> np.ndarray:
        """The weight as [..., inputs, outputs], float64."""
        value = np.asarray(flavor.read(self.variable), np.float64)
        return value.reshape(self.shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of `kernel`."""
        return tuple(int(size) for size in self.variable.shape)

    def arranged(self, value: Any) -> Any:
        """A tensor of the weight's shape as one of the shape of `kernel`."""
        return value

    @property
    def methods(self) -> tuple[str, ...]:
        """What the layer can be decomposed by."""
        return methods_of(self.shape)

    def problem(self) -> str | None:
        """Why the layer has to stay as it is; None where it may change."""
        return None

    def assign(self, kernel: np.ndarray) -> None:
        """Let the layer compute with another kernel of the shape of `kernel`."""
        put(self.variable, kernel)

    @abstractmethod
    def positions(self, method: str) -> tuple[int, list[int]] | None:
        """How often one sample meets the kernel, and each factor of a method; None where a size is not known."""

    @abstractmethod
    def parts(self, method: str, ranks: Sequence[int]) -> list[Any]:
        """New layers, called one after the other, without weights; those before the last have no bias."""

    @abstractmethod
    def rows(self, values: np.ndarray) -> np.ndarray | None:
        """What the kernel is multiplied with, from the values of the layer's input.

        Returns:
            [positions, numbers of all axes of `kernel` but the last]; whole numbers [positions] that stand for rows of
            the unit matrix; None where it is not known.
        """

    def fill(self, parts: Sequence[Any], factors: Sequence[np.ndarray]) -> None:
        """Give built parts the arrays of a decomposition and the layer's bias."""
        from_factors = [part for part in parts if part.weights]
        for part, factor in zip(from_factors, factors, strict=True):
            put(part.weights[0], factor)
        if getattr(self.layer, "bias", None) is not None:
            parts[-1].bias.assign(flavor.read(self.layer.bias))

    def costs(self, option: tuple[str, Sequence[int]] | None = None) -> Costs:
        """Of the kernel, or of the factors of (method, ranks); multiply-accumulates are of one sample."""
        shapes = [self.shape] if option is None else factor_shapes(self.shape, *option)
        numbers = [math.prod(shape) for shape in shapes]
        known = self.positions(self.methods[0] if option is None else option[0])
        macs = None
        if known is not None:
            macs = sum(n * p for n, p in zip(numbers, [known[0]] if option is None else known[1], strict=True))
        size = tf.as_dtype(self.variable.dtype).size
        return {"macs": macs, "params": sum(numbers), "bytes": size * sum(numbers)}

    def pays(self, method: str, ranks: Sequence[int]) -> bool:
        """Whether the factors take fewer numbers, and fewer multiply-accumulates where these are known."""
        before, after = self.costs(), self.costs((method, ranks))
        fewer = after["params"] < before["params"]  # type: ignore[operator]
        if before["macs"] is None or after["macs"] is None:
            return fewer
        return fewer and (before["macs"] == 0 or after["macs"] < before["macs"])


def put(variable: Any, value: np.ndarray) -> None:
    """Assign numbers in the variable's order, in its shape and type."""
    variable.assign(np.reshape(value, tuple(variable.shape)).astype(np.asarray(flavor.read(variable)).dtype))


def shared(layer: Any, name: str) -> dict[str, Any]:
    """The arguments that every part of a layer has: its name, whether it is trained, its types."""
    return {"name": name, "trainable": layer.trainable, "dtype": flavor.dtype_policy(layer)}


def without(config: dict[str, Any], *names: str) -> dict[str, Any]:
    """A layer's configuration without some arguments."""
    return {key: value for key, value in config.items() if key not in names}


def product(sizes: Sequence[int | None]) -> int | None:
    """The product of sizes; None where one is not known."""
    return None if None in sizes else math.prod(size for size in sizes if size is not None)


def summed(counts: Sequence[tuple[int | None, list[int | None]]]) -> tuple[int, list[int]] | None:
    """`Target.positions` of several calls together."""
    if any(first is None or None in rest for first, rest in counts):
        return None
    firsts = [first for first, _ in counts if first is not None]
    columns = zip(*(rest for _, rest in counts), strict=True)
    return sum(firsts), [sum(n for n in column if n is not None) for column in columns]
