"""Weights that must satisfy something: projections on a variable, applied in every optimizer step as its constraint.

A projection belongs to the variable, not to the configuration of its layer: the model stays plain, and so does its
file. Copies of the variable carry copies of its projections.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core import flavor


class Projection:
    """What a variable's value is put onto after each change by an optimizer."""

    def __call__(self, value: tf.Tensor) -> tf.Tensor:
        """The nearest value that satisfies it; of the shape and type of `value`."""
        raise TypeError(f"{type(self).__name__} must define __call__")

    def copied(self, change: Callable[[np.ndarray], np.ndarray] | None = None) -> "Projection":
        """The same for another variable. `change` is how that one's value came from the old one's (slices, an axis
        moved); it takes an array of the old shape."""
        raise TypeError(f"{type(self).__name__} must define copied")

    def describe(self) -> str:
        """A few words for the summary."""
        return type(self).__name__


class Mask(Projection):
    """Zeros at fixed places:  w <- w where kept, else 0.

    Args:
        kept: bool array of the variable's shape, True where a weight lives.
        history: (optimizer step, share of zeros) of each decision so far.

    Attributes:
        history: as the argument; grows by `decide`.
    """

    def __init__(self, kept: np.ndarray, history: Sequence[tuple[int, float]] = ()) -> None:
        self._kept = tf.Variable(np.asarray(kept, bool), trainable=False, name="kept", dtype=tf.bool,
                                 aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA)  # fmt: skip
        self.history = list(history)

    @property
    def kept(self) -> np.ndarray:
        """True where a weight lives; bool, of the variable's shape."""
        return tf.convert_to_tensor(self._kept).numpy()

    @property
    def sparsity(self) -> float:
        """Share of zeros, in [0, 1]."""
        return 1.0 - float(np.mean(self.kept))

    def decide(self, kept: np.ndarray, step: int | None = None) -> None:
        """Put the zeros elsewhere.

        Args:
            kept: bool array of the variable's shape.
            step: optimizer steps done, for the history; None leaves no trace.
        """
        self._kept.assign(np.asarray(kept, bool))
        if step is not None:
            self.history.append((int(step), 1.0 - float(np.mean(kept))))

    def __call__(self, value: tf.Tensor) -> tf.Tensor:
        return tf.where(self._kept, value, tf.zeros((), value.dtype))

    def copied(self, change: Callable[[np.ndarray], np.ndarray] | None = None) -> "Mask":
        kept = self.kept
        return Mask(kept if change is None else change(kept), self.history)

    def describe(self) -> str:
        """ "80.0% zeros held", with the way there: "(step 0: 0.0%, 100: 65.3%, 262: 80.0%)"."""
        words = f"{self.sparsity:.1%} zeros held"
        if len(self.history) < 2:
            return words
        shown = self.history if len(self.history) <= 5 else [self.history[i] for i in _spread(len(self.history), 5)]
        return f"{words} (step {', '.join(f'{step}: {share:.1%}' for step, share in shown)})"


def _spread(count: int, wanted: int) -> list[int]:
    """Places from the first to the last.

    >>> _spread(9, 5)
    [0, 2, 4, 6, 8]
    """
    return [round(i * (count - 1) / (wanted - 1)) for i in range(wanted)]


class Projected:
    """A variable's constraint that applies the user's own, then projections in the order in which they were attached.

    Args:
        plain: the constraint that the variable had, or None.
        steps: the projections.
    """

    def __init__(self, plain: Callable[[Any], Any] | None, steps: Sequence[Projection]) -> None:
        self.plain, self.steps = plain, tuple(steps)

    @tf.autograph.experimental.do_not_convert
    def __call__(self, value: Any) -> tf.Tensor:
        if self.plain is not None:
            value = self.plain(value)
        value = flavor.read(value) if flavor.is_variable(value) else tf.convert_to_tensor(value)
        for step in self.steps:
            value = step(value)
        return value

    def copied(self, change: Callable[[np.ndarray], np.ndarray] | None = None) -> "Projected":
        """The same constraint for a copy of the variable."""
        return Projected(self.plain, [step.copied(change) for step in self.steps])


def projections(variable: Any) -> tuple[Projection, ...]:
    """The projections attached to a variable, first applied first.

    >>> from tfcompress.core.flavor import keras
    >>> dense = keras.layers.Dense(2)
    >>> dense.build((None, 2))
    >>> attach(dense.kernel, Mask(np.eye(2)))
    >>> project(dense.kernel)
    >>> float(dense.get_weights()[0][0, 1]), projections(dense.kernel)[0].describe()
    (0.0, '50.0% zeros held')
    """
    constraint = flavor.constraint_of(variable)
    return constraint.steps if isinstance(constraint, Projected) else ()


def plain_constraint(variable: Any) -> Any:
    """The constraint of a variable as its user gave it, without projections; None when there is none."""
    constraint = flavor.constraint_of(variable)
    return constraint.plain if isinstance(constraint, Projected) else constraint


def mask_of(variable: Any) -> Mask | None:
    """The mask on a variable, or None."""
    return next((step for step in projections(variable) if isinstance(step, Mask)), None)


def attach(variable: Any, projection: Projection) -> None:
    """Let a projection hold from the next optimizer step on; it is applied after those that are attached already.

    A training step that is compiled already does not know it: `make_train_function(force=True)`.
    """
    _set(variable, [*projections(variable), projection])


def detach(variable: Any, projection: Projection) -> None:
    """Let a variable go; what it does not have is no error."""
    _set(variable, [step for step in projections(variable) if step is not projection])


def _set(variable: Any, steps: Sequence[Projection]) -> None:
    plain = plain_constraint(variable)
    flavor.constrain(variable, Projected(plain, steps) if steps else plain)


def project(variable: Any) -> None:
    """Put the variable's value onto its projections now."""
    value = flavor.read(variable)
    for step in projections(variable):
        value = step(value)
    variable.assign(value)


def carry(old: Any, new: Any, change: Callable[[np.ndarray], np.ndarray] | None = None) -> None:
    """Give a variable copies of another one's projections.

    Args:
        old: the variable that has them.
        new: the one whose value was made from the old one's.
        change: how its value was made, as a function of an array of the old shape; None when the shape is the same
            and each number stands where it stood.
    """
    for step in projections(old):
        attach(new, step.copied(change))


def carry_all(old: Any, new: Any) -> None:
    """`carry` for each weight of two layers that hold weights of the same shapes in the same order."""
    for before, after in zip(old.weights, new.weights, strict=True):
        carry(before, after)


def described(layer: Any) -> list[str]:
    """What is held on the weights of a layer, at any depth: "kernel 80.0% zeros held"."""
    return [f"{flavor.variable_name(v)} {step.describe()}" for v in _variables(layer) for step in projections(v)]


def _variables(layer: Any) -> Iterator[Any]:
    yield from {id(v): v for v in layer.weights}.values()
