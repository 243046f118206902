"""The equation of an EinsumDense, its letters by what they do."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Equation:
    """An einsum of an input and a kernel, its letters by what they do.

    Attributes:
        given: letters of the input, "..." first where it has any number of axes.
        kernel: letters of the kernel.
        made: letters of the output.
    """

    given: str
    kernel: str
    made: str

    @classmethod
    def of(cls, text: str) -> "Equation":
        """The equation of an EinsumDense."""
        given, kernel, made = re.split(r",|->", text.replace(" ", ""))
        return cls(given, kernel, made)

    @property
    def read(self) -> str:
        """Letters of the kernel that are summed over."""
        return "".join(c for c in self.kernel if c in self.given and c not in self.made)

    @property
    def shared(self) -> str:
        """Letters that the kernel has with input and output: a batch of kernels."""
        return "".join(c for c in self.kernel if c in self.given and c in self.made)

    @property
    def new(self) -> str:
        """Letters that only the kernel and the output have."""
        return "".join(c for c in self.kernel if c in self.made and c not in self.given)

    @property
    def left(self) -> str:
        """What of the input the kernel does not sum over, in its order."""
        return "".join(c for c in self.given if c not in self.read)

    @property
    def is_matrix(self) -> bool:
        """Whether the kernel, its axes moved, is one matrix from what is read to what is new."""
        whole = sorted(self.kernel) == sorted(self.read + self.new) and bool(self.read) and bool(self.new)
        return whole and not self.given.endswith("...")

    def split(self) -> tuple[str, str]:
        """The equations of two layers with an axis of their own between them.

        >>> Equation.of("abc,cde->abde").split()
        ('abc,cz->abz', 'abz,zde->abde')
        """
        rank = next(c for c in "zyxwvutsrqponmlkjihgfedcba" if c not in self.given + self.kernel + self.made)
        return (f"{self.given},{self.read}{rank}->{self.left}{rank}",
                f"{self.left}{rank},{rank}{self.new}->{self.made}")  # fmt: skip
