"""The result of an operation before its lattice is known."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from tfcompress.core.arithmetic.codes import Codes, Lattice
from tfcompress.core.arithmetic.fused import bounds

# (the lattice of the result, the codes between which a fused activation clamps) -> the result
Finish = Callable[[Lattice, Any, Any], Codes]


@dataclass(frozen=True)
class Pending:
    """An operation whose kernel runs when the lattice of its result is known.

    Attributes:
        finish: runs the kernel.
        real: the result in real numbers, where nothing rounds it.
        relu: "relu", "relu6" or None: fused into the kernel.
        folded: the same operation with a BatchNormalization folded in; None: it takes none.
        bits: of the lattices that the kernel can write to.
        alone: the file has no ReLU fused into this kernel: what it then writes has a range that no quantizer knows.
    """

    finish: Finish
    real: Callable[[], tf.Tensor]
    relu: str | None = None
    folded: "Callable[[Any, Callable[[], tf.Tensor]], Pending | None] | None" = None
    bits: int = 8
    alone: bool = False

    def obstacle(self, bits: int, relu: str | None) -> str | None:
        """Why the kernel cannot write to the lattice of a quantizer of so many bits that computes this ReLU."""
        if self.bits != bits:
            return f"no kernel takes {self.bits} bits and gives {bits}"
        return "the file measures a range before this ReLU" if self.alone and (self.relu or relu) else None

    def on(self, lattice: Lattice, relu: str | None, kernels: str) -> Codes:
        """The result on a lattice, behind the activation that the operation or its quantizer computes."""
        return self.finish(lattice, *bounds(self.relu or relu, lattice, kernels=kernels))
