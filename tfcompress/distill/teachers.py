"""Whatever can teach, as a `Teacher`: a Keras model, several, a function of tensors, a file, stored answers."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.flavor import keras
from tfcompress.core.scalars import is_finite
from tfcompress.distill.output_kind import output_kind
from tfcompress.distill.stored import META, Stored
from tfcompress.distill.taps import Seen, Tap, computed
from tfcompress.distill.teacher import Judged, Teacher, stopped
from tfcompress.distill.teacher_files import File, Saved


class Model(Teacher):
    """A Keras model in inference mode."""

    def __init__(self, model: Any) -> None:
        flavor.check_model(model, "teacher")
        self.model, self.kind = model, output_kind(model)
        self.output_names = list(getattr(model, "output_names", None) or []) or None
        self._taps: dict[str, Tap] = {}
        self._seen = Seen()

    @property
    def variables(self) -> list[Any]:
        return list(self.model.weights)

    def kind_of(self, place: int) -> str:
        several = flavor.is_graph(self.model) and len(flavor.flatten(flavor.graph_outputs(self.model))) > 1
        return output_kind(self.model, place) if several else self.kind

    def tap(self, wanted: Any) -> str:
        tap = Tap(self.model, wanted, "teacher")
        self._taps[tap.key] = tap
        return tap.key

    def kind_of_tap(self, key: str) -> str:
        return self._taps[key].kind

    def __call__(self, x: Any) -> tuple[Any, dict[str, Any]]:
        outputs = computed(self.model, list(self._taps.values()), self._seen, x, training=False)
        return stopped(outputs), stopped(dict(self._seen.values))


class Ensemble(Teacher):
    """Several teachers as one: the weighted mean of their answers, as probabilities unless all give logits.

        sum_k w_k p_k(x) / sum_k w_k

    Args:
        teachers: at least one of anything that can teach.
        weights: one number from 0 on each; equal when left out.

    Inner tensors are named with the number of the teacher: `Features(teacher=(1, "conv"), student="conv")`.

    Raises:
        ValueError: no teacher, weights that do not fit, or answers that are no alternatives of one kind.

    Source: You et al. 2017, Learning from multiple teacher networks, equation 2.
    """

    def __init__(self, teachers: Sequence[Any], weights: Sequence[float] | None = None) -> None:
        self.teachers = [resolve(teacher) for teacher in teachers]
        if not self.teachers:
            raise ValueError("`teacher` must hold at least one teacher. Received: none")
        given = [1.0] * len(self.teachers) if weights is None else list(weights) if np.iterable(weights) else [weights]
        if len(given) != len(self.teachers) or not all(is_finite(w) and w >= 0 for w in given) or not sum(given) > 0:
            raise ValueError(
                f"`weights` must be {len(self.teachers)} numbers from 0 on, not all 0. Received: weights={weights!r}"
            )
        self.weights = [float(w) / float(sum(given)) for w in given]
        self.kind_of(0)
        self.output_names = self.teachers[0].output_names
        self.compiles = all(teacher.compiles for teacher in self.teachers)

    @property
    def variables(self) -> list[Any]:
        return [variable for teacher in self.teachers for variable in teacher.variables]

    @property
    def kind(self) -> str:  # type: ignore[override]
        """What the first output's means are."""
        return self.kind_of(0)

    def kind_of(self, place: int) -> str:
        kinds = {teacher.kind_of(place) for teacher in self.teachers}
        if "sigmoid" in kinds and len(kinds) > 1:
            raise ValueError(f"`teacher` must hold teachers whose outputs are of one kind. Received: {sorted(kinds)}")
        return kinds.pop() if len(kinds) == 1 else "softmax"

    def tap(self, wanted: Any) -> str:
        if not isinstance(wanted, tuple) or len(wanted) != 2 or wanted[0] not in range(len(self.teachers)):
            raise ValueError(
                f"`teacher` must be (number of the teacher, its layer) with several teachers. Received: {wanted!r}"
            )
        return f"{wanted[0]}/{self.teachers[wanted[0]].tap(wanted[1])}"

    def kind_of_tap(self, key: str) -> str:
        number, _, inner = key.partition("/")
        return self.teachers[int(number)].kind_of_tap(inner)

    def ask_by(self, names: Sequence[str]) -> None:
        for teacher in self.teachers:
            teacher.ask_by(names)

    def __call__(self, x: Any) -> tuple[Any, dict[str, Any]]:
        return self._joined([teacher(x) for teacher in self.teachers])

    def tried(self, x: Any) -> tuple[Any, dict[str, Any]]:
        return self._joined([teacher.tried(x) for teacher in self.teachers])

    def evaluated(self, x: Any) -> tuple[Any, dict[str, Any], tf.Tensor | None]:
        found = [teacher.evaluated(x) for teacher in self.teachers]
        partly = [answered for *_, answered in found if answered is not None]
        known = tf.reduce_all(tf.stack(partly), axis=0) if partly else None
        return *self._joined([(outputs, inner) for outputs, inner, _ in found]), known

    def _joined(self, found: list[tuple[Any, dict[str, Any]]]) -> tuple[Any, dict[str, Any]]:
        rows = []
        for teacher, (outputs, _) in zip(self.teachers, found, strict=True):
            flat = [
                _unified(tensor, teacher.kind_of(place), self.kind_of(place))
                for place, tensor in enumerate(flavor.flatten(outputs))
            ]
            rows.append(flat)
        shapes = [[answer.shape for answer in row] for row in rows]
        if not all(one.is_compatible_with(other) for row in shapes for one, other in zip(shapes[0], row, strict=True)):
            received = [[tuple(shape) for shape in row] for row in shapes]
            raise ValueError(f"`teacher` must hold teachers with outputs of the same shapes. Received: {received}")
        means = [self._mean(*answers) for answers in zip(*rows, strict=True)]
        inner = {f"{n}/{key}": value for n, (_, seen) in enumerate(found) for key, value in seen.items()}
        return flavor.pack_like(found[0][0], means), inner

    def _mean(self, *answers: tf.Tensor) -> tf.Tensor:
        return tf.add_n([weight * answer for weight, answer in zip(self.weights, answers, strict=True)])


def _unified(outputs: tf.Tensor, kind: str, wanted: str) -> tf.Tensor:
    outputs = tf.cast(outputs, tf.float32)
    return tf.nn.softmax(outputs) if wanted == "softmax" and kind == "logits" else outputs


class Function(Judged):
    """Any function of tensors: a loaded SavedModel, a model of another library behind `tf.numpy_function`."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function
        self._shapes: list[tuple[int, ...]] = []  # of a row: `tf.numpy_function` forgets them

    def tried(self, x: Any) -> tuple[Any, dict[str, Any]]:
        answers = super().tried(x)
        self._shapes = [tuple(tensor.shape)[1:] for tensor in flavor.flatten(answers[0])]
        return answers

    def __call__(self, x: Any) -> tuple[Any, dict[str, Any]]:
        answers = stopped(self.function(x))
        for tensor, shape in zip(flavor.flatten(answers), self._shapes, strict=False):
            if tensor.shape.rank is None:
                tensor.set_shape((None, *([None] * (len(shape) - 1)), *shape[-1:]))
        return answers, {}


def resolve(teacher: Any) -> Teacher:
    """Whatever can teach, as a `Teacher`.

    Args:
        teacher: a Keras model; a list of teachers; a `Teacher`, such as stored answers; a function of tensors; the path
            of a `.tflite` file, of a SavedModel, or of answers stored by `cache_teacher`; bytes of a `.tflite` file.

    Raises:
        TypeError: none of these.
        ValueError: a path that holds none of these.
    """
    if isinstance(teacher, Teacher):
        return teacher
    if isinstance(teacher, keras.Model):
        return Model(teacher)
    if isinstance(teacher, (list, tuple)):
        return Ensemble(teacher)
    if isinstance(teacher, (bytes, bytearray)) or isinstance(getattr(teacher, "content", None), bytes):
        return File(teacher)
    if isinstance(teacher, (str, os.PathLike)):
        return _at(Path(teacher))
    if callable(teacher) and not isinstance(teacher, keras.layers.Layer):
        flavor_problem = type(teacher).__module__.split(".")[0] in ("keras", "tf_keras")
        if not flavor_problem:
            return Function(teacher)
        flavor.check_model(teacher, "teacher")
    raise TypeError(
        "`teacher` must be a Keras model, a list of teachers, a function of tensors, a path or bytes of a .tflite "
        f"file, a SavedModel's folder, or stored answers. Received: {type(teacher).__name__}"
    )


def _at(path: Path) -> Teacher:
    if path.suffix == ".tflite":
        return File(path)
    if (path / META).is_file():
        return Stored(path)
    if (path / "saved_model.pb").is_file():
        return Saved(path)
    raise ValueError(
        f"`teacher` must be a .tflite file, the folder of a SavedModel, or of answers stored by `cache_teacher`. "
        f"Received: {os.fspath(path)!r}" + ("" if path.exists() else ", which does not exist")
    )
