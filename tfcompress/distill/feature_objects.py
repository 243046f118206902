"""Distillation losses as objects: those between what teacher and student compute inside."""

from typing import Any

import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.distill import feature_losses, losses
from tfcompress.distill.objects import DistillationLoss, number
from tfcompress.distill.taps import SCORES, Scores


class Features(DistillationLoss):
    """mean (t - W s)^2 of features of any width; W is learned beside the student and dropped.

    Args:
        teacher: the teacher's tensor.
        student: the student's tensor. Maps of another height and width: the teacher's are resized to the student's.

    Source: Romero et al. 2014 (FitNets), arXiv:1412.6550; for hidden states of Transformers Jiao et al. 2019
    (TinyBERT), arXiv:1909.10351, equation 8.

    >>> Features("block_2", "block_1").student
    'block_1'
    """

    projects = True

    def check(self, teacher: tuple, student: tuple) -> None:
        super().check(teacher, student)
        self._check_positions(teacher, student)

    def loss(self, teacher: tf.Tensor, student: tf.Tensor, labels: Any) -> tf.Tensor:
        return losses.squared_error(feature_losses.on_grid(teacher, student), student)


class Cosine(Features):
    """1 - cos(t, W s) along the last axis, from 0 to 2; W is learned where widths differ, and dropped.

    Args:
        teacher: as for `Features`.
        student: as for `Features`.

    Source: Sanh et al. 2019 (DistilBERT), arXiv:1910.01108, section 3.

    >>> Cosine("layer_3", "layer_1").teacher
    'layer_3'
    """

    def loss(self, teacher: tf.Tensor, student: tf.Tensor, labels: Any) -> tf.Tensor:
        return feature_losses.cosine(feature_losses.on_grid(teacher, student), student)


class AttentionTransfer(DistillationLoss):
    """Where features are large, whatever their width: || Q_s / ||Q_s|| - Q_t / ||Q_t|| ||^2, Q = vec(sum_c |A_c|^p).

    Args:
        teacher: the teacher's tensor, [batch, ..., channels] with at least one axis in between.
        student: the student's tensor. Maps of another height and width: the teacher's are resized to the student's.
        power: p > 0; the paper's are 1, 2 and 4.

    Raises:
        ValueError: `power` out of range; when a distiller is made, shapes that do not fit.

    Source: Zagoruyko and Komodakis 2016, arXiv:1612.03928, equation 2.

    >>> AttentionTransfer("block_2", "block_2").power
    2.0
    """

    def __init__(self, teacher: Any, student: Any, power: float = 2.0) -> None:
        super().__init__(teacher, student)
        self.power = number("power", power)

    def check(self, teacher: tuple, student: tuple) -> None:
        """Widths may differ; there must be positions to compare."""
        super().check(teacher, student)
        if len(teacher) < 3:
            self._refuse(teacher, student, "an axis between the first and the last")
        self._check_positions(teacher, student)

    def loss(self, teacher: tf.Tensor, student: tf.Tensor, labels: Any) -> tf.Tensor:
        return feature_losses.attention_transfer(teacher, student, self.power, flavor.mask_of(student))


class AttentionMatrices(DistillationLoss):
    """mean (A_t - A_s)^2 of attention layers' matrices; heads are averaged where their numbers differ.

    What is compared of an attention layer is what it returns as its scores: after the softmax, rows that sum to one.
    TinyBERT fits the unnormalized scores Q K^T / sqrt(d) in front of it; name the layer that makes those, in a model
    whose attention is made of layers of its own, to do so.
    Padded queries are left out; so are padded keys of a sequence that attends to itself, which one with as many keys as
    queries is taken to do.

    Args:
        teacher: an attention layer of the teacher: the layer, its name, path or index; or the layer whose output is the
            matrix already, such as the softmax of an attention that `quantize_model` opened.
        student: the same in the student.

    Raises:
        ValueError: when a distiller is made, other numbers of queries or keys.

    Source: Jiao et al. 2019 (TinyBERT), arXiv:1909.10351, equation 7.

    >>> str(AttentionMatrices("attention_1", "attention_0").teacher)
    'attention_1:scores'
    """

    def __init__(self, teacher: Any, student: Any) -> None:
        super().__init__(_scores(teacher), _scores(student))

    def check(self, teacher: tuple, student: tuple) -> None:
        """Queries and keys must be as many; heads need not."""
        super().check(teacher, student)
        if teacher[-2:] != student[-2:]:
            self._refuse(teacher, student, "the same numbers of queries and keys")

    def loss(self, teacher: tf.Tensor, student: tf.Tensor, labels: Any) -> tf.Tensor:
        return feature_losses.attention_matrices(teacher, student, flavor.mask_of(student))


def _positions_first(tensor: tf.Tensor, wanted: Any) -> tf.Tensor:
    """An attention matrix [batch, heads, queries, keys] with its queries on axis 1, anything else as it is."""
    name = wanted[1] if isinstance(wanted, tuple) else wanted
    scores = isinstance(name, Scores) or (isinstance(name, str) and name.endswith(SCORES))
    return tf.transpose(tensor, [0, 2, 1, 3]) if scores and tensor.shape.rank == 4 else tensor


def _scores(wanted: Any) -> Any:
    """The attention matrix of what a user names; of several teachers it is named with the teacher's number."""
    if isinstance(wanted, tuple) and len(wanted) == 2:
        return wanted[0], _scores(wanted[1])
    if isinstance(wanted, str):
        return Scores(wanted.removesuffix(SCORES))
    return wanted if isinstance(wanted, Scores) else Scores(wanted)


class _Relational(DistillationLoss):
    """A loss of what examples of a batch are to each other: any widths and shapes.

    What the student's mask hides is left out of both, of a teacher with other positions all of it counts.
    """

    def check(self, teacher: tuple, student: tuple) -> None:
        """Any two shapes go together."""

    def loss(self, teacher: tf.Tensor, student: tf.Tensor, labels: Any) -> tf.Tensor:
        mask = flavor.mask_of(student)
        return self.compare(_positions_first(teacher, self.teacher), _positions_first(student, self.student), mask)

    def compare(self, teacher: tf.Tensor, student: tf.Tensor, mask: Any) -> tf.Tensor:
        """The loss of a batch whose positions are on axis 1."""
        raise TypeError(f"{type(self).__name__} must define `compare`")


class RelationalDistance(_Relational):
    """Distances between the examples of a batch, relative to their mean: huber(d_t / mean d_t - d_s / mean d_s).

    The mean over all b^2 pairs, i = j among them. One number for a batch: a `sample_weight` does not change it.

    Args:
        teacher: the teacher's tensor; None for its output.
        student: the student's tensor, of any width.

    Source: Park et al. 2019, arXiv:1904.05068, equations 5 to 8.

    >>> RelationalDistance("hidden", "hidden").teacher
    'hidden'
    """

    def compare(self, teacher: tf.Tensor, student: tf.Tensor, mask: Any) -> tf.Tensor:
        return feature_losses.relational_distance(teacher, student, mask)


class RelationalAngle(_Relational):
    """Angles between any three examples of a batch: huber(cos t_ijk - cos s_ijk).

    The mean over all b^3 triples. One number for a batch: a `sample_weight` does not change it.

    Args:
        teacher: the teacher's tensor; None for its output.
        student: the student's tensor, of any width.

    Source: Park et al. 2019, arXiv:1904.05068, equations 9 and 10.

    >>> RelationalAngle("hidden", "hidden").student
    'hidden'
    """

    def compare(self, teacher: tf.Tensor, student: tf.Tensor, mask: Any) -> tf.Tensor:
        return feature_losses.relational_angle(teacher, student, mask)


class SimilarityPreserving(_Relational):
    """Likeness of the examples of a batch: || G_t - G_s ||_F^2 / b^2 of their Gram matrices with rows of length one.

    One number for a batch: a `sample_weight` does not change it.

    Args:
        teacher: the teacher's tensor; None for its output.
        student: the student's tensor, of any width.

    Source: Tung and Mori 2019, arXiv:1907.09682, equations 2 to 4.

    >>> SimilarityPreserving("hidden", "hidden").teacher
    'hidden'
    """

    def compare(self, teacher: tf.Tensor, student: tf.Tensor, mask: Any) -> tf.Tensor:
        return feature_losses.similarity_preserving(teacher, student, mask)


class Contrastive(_Relational):
    """A student's features are nearest to its own teacher's among those of the batch.

        -log( exp(<t_i, W s_i> / tau) / sum_j exp(<t_j, W s_i> / tau) ),  of rows of length one

    Args:
        teacher: the teacher's tensor; axes between batch and channels are averaged away.
        student: the student's tensor.
        temperature: tau > 0.

    Raises:
        ValueError: `temperature` out of range.

    Source: Tian et al. 2019 (CRD), arXiv:1910.10699, with the batch as negatives.

    >>> Contrastive("hidden", "hidden").temperature
    0.1
    """

    projects = True

    def __init__(self, teacher: Any = None, student: Any = None, temperature: float = 0.1) -> None:
        super().__init__(teacher, student)
        self.temperature = number("temperature", temperature)

    def compare(self, teacher: tf.Tensor, student: tf.Tensor, mask: Any) -> tf.Tensor:
        return feature_losses.contrastive(teacher, student, self.temperature, mask)
