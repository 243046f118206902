"""What teaches: the interface of all teachers."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.distill.output_kind import answers_kind


class Teacher:
    """Answers to a batch of inputs, with or without tensors from inside.

    Attributes:
        kind: what the answers are: "logits", "softmax" or "sigmoid"; of several outputs, the first.
        compiles: whether XLA can compile what it computes.
        output_names: of several outputs, their names in the order in which they are flattened; None where unknown.
    """

    kind = "logits"
    compiles = True
    output_names: list[str] | None = None

    @property
    def variables(self) -> list[Any]:
        """The variables of Keras models that teach."""
        return []

    def tap(self, wanted: Any) -> str:
        """The key under which `__call__` gives an inner tensor.

        Raises:
            ValueError: there is no such tensor, or this kind of teacher shows none.
        """
        raise ValueError(
            f"`teacher` shows no inner tensors, being a {type(self).__name__.lower()}; only its output can be used. "
            f"Received: teacher={wanted!r}"
        )

    def __call__(self, x: Any) -> tuple[Any, dict[str, Any]]:
        """Answers [batch, ...] and the tapped tensors; no gradient flows into either."""
        raise TypeError(f"{type(self).__name__} must define __call__")

    def tried(self, x: Any) -> tuple[Any, dict[str, Any]]:
        """Answers to a row that is in no data: what shapes they have."""
        return self(x)

    def kind_of(self, place: int) -> str:
        """What the answers of one of several outputs are, counted in the order in which they are flattened."""
        return self.kind

    def kind_of_tap(self, key: str) -> str:
        """What a tapped tensor is: "logits", "softmax" or "sigmoid"."""
        return "logits"

    def ask_by(self, names: Sequence[str]) -> None:
        """Takes over the names of the student's inputs, in the order in which a list of inputs is given."""

    def evaluated(self, x: Any) -> tuple[Any, dict[str, Any], tf.Tensor | None]:
        """Answers and tapped tensors for rows that are not trained on, and which rows [batch] have any (None: all)."""
        return *self(x), None


class Judged(Teacher):
    """A teacher that does not say what its answers are: those to a try are looked at.

    "softmax" where they are probabilities that sum to one along the last axis, else "logits"; the `from_logits` of a
    loss says what cannot be seen, such as sigmoid outputs.
    """

    def __init__(self) -> None:
        self._kinds: list[str] = []

    def tried(self, x: Any) -> tuple[Any, dict[str, Any]]:
        answers, inner = self(x)
        self._kinds = [answers_kind(answer) for answer in flavor.flatten(answers)]
        self.kind = self._kinds[0]
        return answers, inner

    def kind_of(self, place: int) -> str:
        return self._kinds[place] if place < len(self._kinds) else self.kind


def stopped(structure: Any) -> Any:
    """Tensors through which no gradient flows."""
    return tf.nest.map_structure(tf.stop_gradient, structure)
