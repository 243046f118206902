"""Distillation losses as objects: which tensors they compare, and with what settings."""

from typing import Any

import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.flavor import keras
from tfcompress.distill import feature_losses, losses
from tfcompress.distill.taps import SCORES, Scores


class DistillationLoss:
    """What a distiller asks of a loss. Subclasses compute in `loss`; `Distiller` finds the tensors.

    Attributes:
        teacher: the teacher's tensor: a layer, its name, path or index; with ":scores" behind an attention layer's name
            its attention matrix; None for the output.
        student: the same in the student.
    """

    #: Whether the last axes of both must be equal; a learned projection makes them so where `projects`.
    same_width = False
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
        if self.same_width and not self.projects and teacher[-1] != student[-1]:
            self._refuse(teacher, student, "the same last axis")

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


class Outputs(DistillationLoss):
    """A loss between answers, which are logits or probabilities."""

    same_width = True

    def __init__(
        self, temperature: float = 1.0, *, from_logits: bool | tuple[bool, bool] | None = None, output: Any = None,
        teacher: Any = None, student: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(teacher, student)
        if not isinstance(temperature, (int, float)) or isinstance(temperature, bool) or not temperature > 0:
            raise ValueError(f"`temperature` must be a number above 0. Received: temperature={temperature!r}")
        if from_logits is not None and not isinstance(from_logits, bool):
            if len(tuple(from_logits)) != 2 or not all(isinstance(part, bool) for part in from_logits):
                raise ValueError(
                    f"`from_logits` must be True, False, None, or (of the teacher, of the student). "
                    f"Received: from_logits={from_logits!r}"
                )
        self.temperature, self.from_logits, self.output = float(temperature), from_logits, output
        self.kinds = ("logits", "logits")
        self.in_front = False

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
        return self.kinds[0] == "logits", self.in_front or self.kinds[1] == "logits"


class Logits(Outputs):
    """Answers at a temperature: T^2 KL(softmax(t / T) || softmax(s / T)).

    Args:
        temperature: T > 0; 2 to 20 show how the teacher ranks what is wrong.
        loss: "kl" (Hinton's), "cross_entropy" (the same gradient), or "mse" (of the logits).
        from_logits: whether the outputs are logits; a pair for teacher and student. None: found out from the layers
            that make them (a softmax or sigmoid activation).
        binary: every output is a yes or no of its own (sigmoid). None: where there is one output, or a sigmoid.
        output: of a model with several outputs: which one, by name or index. None: the only one.
        teacher: another tensor of the teacher than its output.
        student: another tensor of the student.

    Raises:
        ValueError: a setting is not one of those.

    Source: Hinton et al. 2015, arXiv:1503.02531.

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
        self.kind, self.binary = loss, binary

    def loss(self, teacher: tf.Tensor, student: tf.Tensor, labels: Any) -> tf.Tensor:
        binary = self.binary
        if binary is None:
            binary = "sigmoid" in self.kinds or student.shape[-1] == 1
        if self.kind == "mse":
            pair = zip((teacher, student), self.logits, strict=True)
            return losses.squared_error(*(losses.logits_of(x, raw, binary) / self.temperature for x, raw in pair))
        if self.kind == "cross_entropy" and not binary:
            return losses.soft_cross_entropy(teacher, student, self.temperature, from_logits=self.logits)
        return losses.hinton(teacher, student, self.temperature, from_logits=self.logits, binary=binary)


class DecoupledLogits(Outputs):
    """Decoupled knowledge distillation: the target class and the others apart.

    Args:
        temperature: T > 0.
        alpha: weight of the target against the rest.
        beta: weight of the rest among itself.
        from_logits: as for `Logits`.
        output: as for `Logits`.

    Source: Zhao et al. 2022, arXiv:2203.08679, equation 7.
    """

    def __init__(
        self, temperature: float = 4.0, alpha: float = 1.0, beta: float = 8.0, *, from_logits: Any = None,
        output: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(temperature, from_logits=from_logits, output=output)
        self.alpha, self.beta = alpha, beta

    def loss(self, teacher: tf.Tensor, student: tf.Tensor, labels: Any) -> tf.Tensor:
        if labels is None:
            raise ValueError("`DecoupledLogits` needs labels: pass y to fit")
        settings = self.temperature, self.alpha, self.beta
        return losses.decoupled(teacher, student, labels, *settings, from_logits=self.logits)


class ReverseLogits(Outputs):
    """KL(student || teacher): the student gives up what it cannot do, and does the rest well.

    Source: Gu et al. 2023 (MiniLLM), arXiv:2306.08543.
    """

    def loss(self, teacher: tf.Tensor, student: tf.Tensor, labels: Any) -> tf.Tensor:
        return losses.reverse_divergence(teacher, student, self.temperature, from_logits=self.logits)


class JensenShannon(Outputs):
    """The generalized Jensen-Shannon divergence, between KL (beta to 0) and reverse KL (beta to 1).

    Args:
        beta: between 0 and 1, both excluded.
        temperature: T > 0.
        from_logits: as for `Logits`.
        output: as for `Logits`.

    Source: Agarwal et al. 2023 (GKD), arXiv:2306.13649, equation 1.
    """

    def __init__(
        self, beta: float = 0.5, temperature: float = 1.0, *, from_logits: Any = None, output: Any = None
    ) -> None:
        super().__init__(temperature, from_logits=from_logits, output=output)
        if not 0 < beta < 1:
            raise ValueError(f"`beta` must be between 0 and 1. Received: beta={beta!r}")
        self.beta = beta

    def loss(self, teacher: tf.Tensor, student: tf.Tensor, labels: Any) -> tf.Tensor:
        return losses.jensen_shannon(teacher, student, self.beta, self.temperature, from_logits=self.logits)


class Features(DistillationLoss):
    """mean (t - W s)^2 of features of any width; W is learned beside the student and dropped.

    Args:
        teacher: the teacher's tensor.
        student: the student's tensor. Maps of another height and width: the teacher's are resized to the student's.

    Source: Romero et al. 2014 (FitNets), arXiv:1412.6550; for hidden states of Transformers Jiao et al. 2019
    (TinyBERT), arXiv:1909.10351, equation 8.
    """

    projects = same_width = True

    def check(self, teacher: tuple, student: tuple) -> None:
        super().check(teacher, student)
        if len(teacher) != 4 and teacher[1:-1] != student[1:-1]:
            self._refuse(teacher, student, "the same axes between the first and the last")

    def loss(self, teacher: tf.Tensor, student: tf.Tensor, labels: Any) -> tf.Tensor:
        return losses.squared_error(feature_losses.on_grid(teacher, student), student)


class Cosine(Features):
    """1 - cos(t, W s) along the last axis.

    Source: Sanh et al. 2019 (DistilBERT), arXiv:1910.01108, section 3.
    """

    def loss(self, teacher: tf.Tensor, student: tf.Tensor, labels: Any) -> tf.Tensor:
        return feature_losses.cosine(feature_losses.on_grid(teacher, student), student)


class AttentionTransfer(DistillationLoss):
    """Where features are large, whatever their width: normalized maps of their energy.

    Args:
        teacher: the teacher's tensor.
        student: the student's tensor.
        power: p from 1 on.

    Source: Zagoruyko and Komodakis 2016, arXiv:1612.03928, equation 2.
    """

    def __init__(self, teacher: Any, student: Any, power: float = 2.0) -> None:
        super().__init__(teacher, student)
        self.power = power

    def loss(self, teacher: tf.Tensor, student: tf.Tensor, labels: Any) -> tf.Tensor:
        return feature_losses.attention_transfer(teacher, student, self.power, flavor.mask_of(student))


class AttentionMatrices(DistillationLoss):
    """mean (A_t - A_s)^2 of attention layers' matrices; heads are averaged where their numbers differ.

    Args:
        teacher: an attention layer of the teacher: the layer, its name, path or index; or the layer whose output is the
            matrix already, such as the softmax of an attention that `quantize_model` opened.
        student: the same in the student.

    Source: Jiao et al. 2019 (TinyBERT), arXiv:1909.10351, equation 7.
    """

    def __init__(self, teacher: Any, student: Any) -> None:
        super().__init__(_scores(teacher), _scores(student))

    def check(self, teacher: tuple, student: tuple) -> None:
        super().check(teacher, student)
        if teacher[2:] != student[2:]:
            self._refuse(teacher, student, "the same numbers of queries and keys")

    def loss(self, teacher: tf.Tensor, student: tf.Tensor, labels: Any) -> tf.Tensor:
        return feature_losses.attention_matrices(teacher, student, flavor.mask_of(student))


def _scores(wanted: Any) -> Any:
    """The attention matrix of what a user names; of several teachers it is named with the teacher's number."""
    if isinstance(wanted, tuple) and len(wanted) == 2:
        return wanted[0], _scores(wanted[1])
    if isinstance(wanted, str):
        return Scores(wanted.removesuffix(SCORES))
    return wanted if isinstance(wanted, Scores) else Scores(wanted)


class _Relational(DistillationLoss):
    """A loss of what examples of a batch are to each other: any widths and shapes."""

    def check(self, teacher: tuple, student: tuple) -> None:
        """Any two shapes go together."""


class RelationalDistance(_Relational):
    """Distances between the examples of a batch, relative to their mean. Source: Park et al. 2019, arXiv:1904.05068."""

    def loss(self, teacher: tf.Tensor, student: tf.Tensor, labels: Any) -> tf.Tensor:
        return feature_losses.relational_distance(teacher, student)


class RelationalAngle(_Relational):
    """Angles between any three examples of a batch. Source: Park et al. 2019, arXiv:1904.05068, equation 9."""

    def loss(self, teacher: tf.Tensor, student: tf.Tensor, labels: Any) -> tf.Tensor:
        return feature_losses.relational_angle(teacher, student)


class SimilarityPreserving(_Relational):
    """Likeness of the examples of a batch. Source: Tung and Mori 2019, arXiv:1907.09682."""

    def loss(self, teacher: tf.Tensor, student: tf.Tensor, labels: Any) -> tf.Tensor:
        return feature_losses.similarity_preserving(teacher, student)


class Contrastive(_Relational):
    """A student's features are nearest to its own teacher's among those of the batch.

    Args:
        teacher: the teacher's tensor; axes between batch and channels are averaged away.
        student: the student's tensor.
        temperature: tau > 0.

    Source: Tian et al. 2019 (CRD), arXiv:1910.10699, with the batch as negatives.
    """

    projects = True

    def __init__(self, teacher: Any = None, student: Any = None, temperature: float = 0.1) -> None:
        super().__init__(teacher, student)
        self.temperature = temperature

    def loss(self, teacher: tf.Tensor, student: tf.Tensor, labels: Any) -> tf.Tensor:
        return feature_losses.contrastive(teacher, student, self.temperature, flavor.mask_of(student))


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
    """One loss or several, ours or Keras 3's, as a list of ours.

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
            found.append(loss)
        elif hasattr(loss, "compute_loss") and hasattr(loss, "validate_outputs"):
            found.append(Foreign(loss))
        else:
            raise TypeError(f"`distillation_losses` must be distillation losses. Received: {loss!r}")
    return found
