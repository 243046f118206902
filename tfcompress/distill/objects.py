"""Distillation losses as objects: which tensors they compare, with what settings; those between answers."""

import copy
from typing import Any

import tensorflow as tf

from tfcompress.core.flavor import keras
from tfcompress.core.scalars import is_finite
from tfcompress.distill import losses


class DistillationLoss:
    """What a distiller asks of a loss. Subclasses compute in `loss`; `Distiller` finds the tensors.

    Attributes:
        teacher: the teacher's tensor: a layer, its name, path or index; with ":scores" behind an attention layer's name
            its attention matrix; None for the output.
        student: the same in the student.
    """

    #: Whether the last axes of both must be equal.
    same_width = False
    #: Whether a learned projection makes the student's last axis as wide as the teacher's.
    projects = False

    def __init__(self, teacher: Any = None, student: Any = None) -> None:
        self.teacher, self.student = teacher, student

    def loss(self, teacher: tf.Tensor, student: tf.Tensor, labels: Any) -> tf.Tensor:
        """The loss of a batch.

        Args:
            teacher: the teacher's tensor.
            student: the student's tensor, projected where the loss asks for it.
            labels: what the model is trained on, None when there is nothing.

        Returns:
            [batch, ...], a number for each position, of which those that the student's tensor masks are left out and
            the others weighed by a `sample_weight` of as many axes; [batch]; or one number for the batch, which no
            `sample_weight` changes.
        """
        raise TypeError(f"{type(self).__name__} must define `loss`")

    def check(self, teacher: tuple, student: tuple) -> None:
        """Refuses shapes that cannot be compared, both with the batch in front.

        Raises:
            ValueError: says both shapes.
        """
        if len(teacher) != len(student):
            self._refuse(teacher, student, "the same number of axes")
        if self.same_width and teacher[-1] != student[-1]:
            self._refuse(teacher, student, "the same last axis")

    def _check_positions(self, teacher: tuple, student: tuple) -> None:
        """Refuses other axes between the first and the last, but for maps, which are resized."""
        if len(teacher) != 4 and teacher[1:-1] != student[1:-1]:
            self._refuse(teacher, student, "the same axes between the first and the last")

    def _refuse(self, teacher: tuple, student: tuple, expected: str) -> None:
        asked = self.teacher, self.student
        where = ["the output" if x is None else repr(str(getattr(x, "name", x))) for x in asked]
        raise ValueError(
            f"`{type(self).__name__}` needs {expected} in teacher and student. Received: {tuple(teacher)} of the "
            f"teacher ({where[0]}) and {tuple(student)} of the student ({where[1]}), batch first"
        )

    def projection(self, teacher: tuple, student: tuple) -> Any:
        """A layer that makes the student's tensor as wide as the teacher's, for training only; None where it is."""
        if not self.projects or teacher[-1] == student[-1]:
            return None
        return keras.layers.Dense(teacher[-1], use_bias=False, dtype="float32")


def number(name: str, value: Any, zero: bool = False) -> float:
    """A setting that must be above 0, or from 0 on."""
    if not is_finite(value) or value < 0 or (value == 0 and not zero):
        raise ValueError(f"`{name}` must be a number {'from 0 on' if zero else 'above 0'}. Received: {name}={value!r}")
    return float(value)


class Outputs(DistillationLoss):
    """A loss between answers, which are logits or probabilities."""

    same_width = True

    def __init__(
        self, temperature: float = 1.0, *, from_logits: bool | tuple[bool, bool] | None = None, output: Any = None,
        teacher: Any = None, student: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(teacher, student)
        if not (from_logits is None or isinstance(from_logits, bool)):
            several = list(from_logits) if isinstance(from_logits, (list, tuple)) else []
            if len(several) != 2 or not all(isinstance(part, bool) for part in several):
                raise ValueError(
                    f"`from_logits` must be True, False, None, or (of the teacher, of the student). "
                    f"Received: from_logits={from_logits!r}"
                )
        self.temperature, self.from_logits, self.output = number("temperature", temperature), from_logits, output
        self.kinds = ("logits", "logits")
        self.in_front = False

    def check(self, teacher: tuple, student: tuple) -> None:
        """Answers at each position are compared: there must be as many."""
        super().check(teacher, student)
        if teacher[1:-1] != student[1:-1]:
            self._refuse(teacher, student, "the same axes between the first and the last")

    def settle(self, teacher: str, student: str, in_front: bool = False) -> None:
        """Takes over what the outputs are, "logits", "softmax" or "sigmoid", where the user said nothing.

        Args:
            teacher: what the teacher's are.
            student: what the student's are.
            in_front: whether of the student the logits in front of its probabilities are compared.
        """
        self.in_front = in_front
        if self.from_logits is None:
            self.kinds = (teacher, student)
        else:
            asked = (self.from_logits,) * 2 if isinstance(self.from_logits, bool) else tuple(self.from_logits)
            known = [found if found != "logits" else "softmax" for found in (teacher, student)]
            self.kinds = tuple("logits" if raw else kind for raw, kind in zip(asked, known, strict=True))  # type: ignore[assignment]

    @property
    def logits(self) -> tuple[bool, bool]:
        """Whether the tensors of teacher and student that are compared are logits."""
        return self.kinds[0] == "logits", self.in_front or self.kinds[1] == "logits"

    def each_alone(self, width: int | None) -> bool:
        """Whether each of `width` outputs decides on its own (a sigmoid, or a single output)."""
        return "sigmoid" in self.kinds or width == 1


class Logits(Outputs):
    """Answers at a temperature: T^2 KL(softmax(t / T) || softmax(s / T)).

    Args:
        temperature: T > 0; 2 to 20 show how the teacher ranks what is wrong. A student that is too small to follow it
            there, or trains for few steps, may learn less than alone: then 1 costs it least. "mse" knows none.
        loss: "kl" (Hinton's), "cross_entropy" (the same gradient), or "mse": mean (t - s)^2 of the logits, each less
            their mean where one side gives probabilities of classes, of which logits are known up to a constant.
        from_logits: whether the outputs are logits; a pair for teacher and student. None: found out from the layers
            that make them (a softmax or sigmoid activation); of a SavedModel or a function of which all answers to a
            try are probabilities that sum to one, they are those of a softmax, else logits.
        binary: every output is a yes or no of its own (sigmoid). None: where there is one output, or a sigmoid.
        output: of a model with several outputs: which one, by name or index. None: the only one.
        teacher: another tensor of the teacher than its output.
        student: another tensor of the student.

    Raises:
        ValueError: a setting is not one of those.

    Source: Hinton et al. 2015, arXiv:1503.02531; "mse": Ba and Caruana 2014, arXiv:1312.6184.

    >>> Logits(temperature=4.0).temperature
    4.0
    """

    def __init__(
        self, temperature: float = 3.0, loss: str = "kl", *, from_logits: Any = None, binary: bool | None = None,
        output: Any = None, teacher: Any = None, student: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(temperature, from_logits=from_logits, output=output, teacher=teacher, student=student)
        if loss not in ("kl", "cross_entropy", "mse"):
            raise ValueError(f"`loss` must be 'kl', 'cross_entropy' or 'mse'. Received: loss={loss!r}")
        if binary not in (None, True, False):
            raise ValueError(f"`binary` must be True, False or None. Received: binary={binary!r}")
        self.kind, self.binary = loss, binary

    def loss(self, teacher: tf.Tensor, student: tf.Tensor, labels: Any) -> tf.Tensor:
        binary = self.each_alone(student.shape[-1]) if self.binary is None else self.binary
        if self.kind == "mse":
            pair = [losses.logits_of(x, raw, binary) for x, raw in zip((teacher, student), self.logits, strict=True)]
            if not (binary or all(self.logits)):
                pair = [x - tf.reduce_mean(x, axis=-1, keepdims=True) for x in pair]
            return losses.squared_error(*pair)
        compare = losses.soft_cross_entropy if self.kind == "cross_entropy" else losses.hinton
        return compare(teacher, student, self.temperature, from_logits=self.logits, binary=binary)


class DecoupledLogits(Outputs):
    """Decoupled knowledge distillation: the target class and the others apart.

        T^2 (alpha KL(b^t || b^s) + beta KL(q^t || q^s)),  b: target against the rest, q: the rest among itself

    Args:
        temperature: T > 0.
        alpha: weight of the target against the rest, from 0 on.
        beta: weight of the rest among itself, from 0 on.
        from_logits: as for `Logits`.
        output: as for `Logits`.

    Raises:
        ValueError: a setting out of range; when a distiller is made, outputs that each decide on their own (sigmoid),
            of which none is the target and none the rest.

    Source: Zhao et al. 2022, arXiv:2203.08679, equation 7.

    >>> DecoupledLogits(temperature=4.0, beta=2.0).beta
    2.0
    """

    def __init__(
        self, temperature: float = 4.0, alpha: float = 1.0, beta: float = 8.0, *, from_logits: Any = None,
        output: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(temperature, from_logits=from_logits, output=output)
        self.alpha, self.beta = number("alpha", alpha, True), number("beta", beta, True)

    def check(self, teacher: tuple, student: tuple) -> None:
        """As any loss; outputs that decide on their own are refused as well."""
        super().check(teacher, student)
        if self.each_alone(student[-1]):
            raise ValueError(
                "`DecoupledLogits` needs classes of which one is the target: use `Logits` for outputs that each decide "
                f"on their own. Received: {student[-1]} outputs, {self.kinds[0]} of the teacher and {self.kinds[1]} of "
                "the student"
            )

    def loss(self, teacher: tf.Tensor, student: tf.Tensor, labels: Any) -> tf.Tensor:
        if labels is None:
            raise ValueError("`DecoupledLogits` needs labels: pass y to fit")
        settings = self.temperature, self.alpha, self.beta
        return losses.decoupled(teacher, student, labels, *settings, from_logits=self.logits)


class ReverseLogits(Outputs):
    """KL(softmax(s / T) || softmax(t / T)): the student gives up what it cannot do, and does the rest well.

    T^2 is not applied: gradients shrink with 1 / T^2, which a weight of the loss makes up for. Outputs that decide on
    their own (sigmoid, or a single one) are compared as as many two-class questions, as by `Logits`.

    Args:
        temperature: T > 0.
        from_logits: as for `Logits`.
        output: as for `Logits`.
        teacher: as for `Logits`.
        student: as for `Logits`.

    Source: Gu et al. 2023 (MiniLLM), arXiv:2306.08543, equation 1.

    >>> ReverseLogits(temperature=2.0).temperature
    2.0
    """

    def loss(self, teacher: tf.Tensor, student: tf.Tensor, labels: Any) -> tf.Tensor:
        binary = self.each_alone(student.shape[-1])
        return losses.reverse_divergence(teacher, student, self.temperature, from_logits=self.logits, binary=binary)


class JensenShannon(Outputs):
    """beta KL(p || m) + (1 - beta) KL(q || m), m = beta p + (1 - beta) q, of the teacher's p and the student's q.

    T^2 is not applied. Outputs that decide on their own are compared as by `ReverseLogits`.

    Args:
        beta: between 0 and 1, both excluded; towards 0 it behaves as KL (p || q), towards 1 as reverse KL.
        temperature: T > 0.
        from_logits: as for `Logits`.
        output: as for `Logits`.

    Raises:
        ValueError: a setting out of range.

    Source: Agarwal et al. 2023 (GKD), arXiv:2306.13649, equation 1.

    >>> JensenShannon(beta=0.1).beta
    0.1
    """

    def __init__(
        self, beta: float = 0.5, temperature: float = 1.0, *, from_logits: Any = None, output: Any = None
    ) -> None:
        super().__init__(temperature, from_logits=from_logits, output=output)
        if not is_finite(beta) or not 0 < beta < 1:
            raise ValueError(f"`beta` must be a number between 0 and 1. Received: beta={beta!r}")
        self.beta = float(beta)

    def loss(self, teacher: tf.Tensor, student: tf.Tensor, labels: Any) -> tf.Tensor:
        binary, raw = self.each_alone(student.shape[-1]), self.logits
        return losses.jensen_shannon(teacher, student, self.beta, self.temperature, from_logits=raw, binary=binary)


class Foreign(DistillationLoss):
    """A loss object of Keras 3, with its own names for what it compares."""

    def __init__(self, loss: Any) -> None:
        super().__init__(getattr(loss, "teacher_layer_name", None), getattr(loss, "student_layer_name", None))
        self.foreign = loss

    def check(self, teacher: tuple, student: tuple) -> None:
        """Keras checks when it computes."""

    def loss(self, teacher: tf.Tensor, student: tf.Tensor, labels: Any) -> tf.Tensor:
        self.foreign.validate_outputs(teacher, student)
        return self.foreign.compute_loss(teacher, student)


def resolve(distillation_losses: Any) -> list[DistillationLoss]:
    """One loss or several, ours or Keras 3's, as a list of ours: copies, which a distiller settles for its models.

    Raises:
        TypeError: something is no distillation loss.
        ValueError: there is none.
    """
    given = list(distillation_losses) if isinstance(distillation_losses, (list, tuple)) else [distillation_losses]
    if not given:
        raise ValueError("`distillation_losses` must hold at least one loss")
    found = []
    for loss in given:
        if isinstance(loss, DistillationLoss):
            found.append(copy.copy(loss))
        elif hasattr(loss, "compute_loss") and hasattr(loss, "validate_outputs"):
            found.append(Foreign(loss))
        else:
            raise TypeError(f"`distillation_losses` must be distillation losses. Received: {loss!r}")
    return found
