"""What can teach: a Keras model, several, a function of tensors, a SavedModel, a `.tflite` file, stored answers."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.flavor import keras
from tfcompress.core.scalars import is_finite
from tfcompress.distill.output_kind import answers_kind, output_kind
from tfcompress.distill.taps import Seen, Tap, computed


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
        return _stopped(outputs), _stopped(dict(self._seen.values))


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
        answers = _stopped(self.function(x))
        for tensor, shape in zip(flavor.flatten(answers), self._shapes, strict=False):
            if tensor.shape.rank is None:
                tensor.set_shape((None, *([None] * (len(shape) - 1)), *shape[-1:]))
        return answers, {}


class Saved(Judged):
    """A SavedModel's signature `serving_default`; several inputs are matched by their names."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        loaded = tf.saved_model.load(os.fspath(path))
        if "serving_default" not in loaded.signatures:
            raise ValueError(
                f"`teacher` must have the signature 'serving_default'. Received: {path}, with {list(loaded.signatures)}"
            )
        self._loaded = loaded  # its variables live as long as this object
        self._signature = loaded.signatures["serving_default"]
        self._wanted = self._signature.structured_input_signature[1]
        self._order: list[str] = []

    def ask_by(self, names: Sequence[str]) -> None:
        self._order = list(names)

    def __call__(self, x: Any) -> tuple[Any, dict[str, Any]]:
        feeds = self._feeds(x)
        outputs = self._signature(**{name: tf.cast(value, self._wanted[name].dtype) for name, value in feeds.items()})
        return _stopped(next(iter(outputs.values())) if len(outputs) == 1 else outputs), {}

    def _feeds(self, x: Any) -> dict[str, Any]:
        """Inputs by the signature's names, which come in no order of the user's."""
        flat = flavor.flatten(x)
        if len(self._wanted) == len(flat) == 1:
            return dict.fromkeys(self._wanted, flat[0])
        given = x if isinstance(x, Mapping) else dict(zip(self._order, flat, strict=False))
        if set(given) != set(self._wanted) or len(flat) != len(self._wanted):
            received = sorted(given) if given else f"a list of {len(flat)} inputs without names"
            raise ValueError(
                f"`x` must be a dict with the inputs {sorted(self._wanted)} of the SavedModel, or a list for a student "
                f"whose inputs have these names. Received: {received}"
            )
        return {name: given[name] for name in self._wanted}


class File(Teacher):
    """A `.tflite` file, run row by row on this machine's runtime: slow, so store its answers (`cache_teacher`).

    What its answers are is told by the operator that makes them: SOFTMAX, LOGISTIC, or any other for logits.
    """

    compiles = False

    def __init__(self, file: Any) -> None:
        # Only this kind of teacher needs files and their runtime.
        from tflite_export.flatbuffer import content_of, read
        from tflite_export.runner import Runner

        self._runner = Runner(file)
        if len(self._runner.outputs) != 1:
            raise ValueError(f"`teacher` must be a file with one output. Received: {list(self._runner.outputs)}")
        (port,) = self._runner.outputs.values()
        self._shape = tuple(port.tensor.shape[1:])
        model = read(content_of(file))
        self.kind = _made_by(model.subgraphs[model.signature().subgraph], port.tensor.index)

    def __call__(self, x: Any) -> tuple[Any, dict[str, Any]]:
        names = list(x) if isinstance(x, Mapping) else None

        def run(*arrays: np.ndarray) -> np.ndarray:
            given = dict(zip(names, arrays, strict=True)) if names else list(arrays) if len(arrays) > 1 else arrays[0]
            return np.asarray(self._runner(given), np.float32)

        answers = tf.numpy_function(run, list(x.values()) if names else flavor.flatten(x), tf.float32)
        answers.set_shape([None, *self._shape])
        return _stopped(answers), {}


def _made_by(graph: Any, tensor: int) -> str:
    """The kind of a file's tensor, by its operator behind those that hand values on."""
    operator = graph.maker.get(tensor)
    while operator is not None and operator.kind in ("DEQUANTIZE", "QUANTIZE", "RESHAPE", "CAST"):
        operator = graph.maker.get(operator.inputs[0])
    kinds = {"SOFTMAX": "softmax", "LOGISTIC": "sigmoid"}
    return "logits" if operator is None else kinds.get(operator.kind, "logits")


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
    from tfcompress.distill.stored import META, Stored

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


def _stopped(structure: Any) -> Any:
    return tf.nest.map_structure(tf.stop_gradient, structure)
