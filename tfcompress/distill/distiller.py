"""A student trained on labels and on what a teacher makes of the same data, by an ordinary `fit`."""

import threading
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.flavor import keras
from tfcompress.core.scalars import is_finite
from tfcompress.distill.objects import DistillationLoss, Foreign, Outputs, resolve
from tfcompress.distill.output_kind import output_kind, probabilities_layer
from tfcompress.distill.reduction import reduced
from tfcompress.distill.taps import Given, Seen, Tap, computed, tried_on, tried_on_zeros
from tfcompress.distill.teacher import Teacher
from tfcompress.distill.teachers import resolve as resolve_teacher
from tfcompress.distill.tracked import Tracked


class _Mode(threading.local):
    """Whether this thread evaluates; each replica of a strategy has a thread of its own."""

    evaluating = False


class _Hidden:
    """Holds what Keras must neither train nor save: the teacher, the taps and what they saw, the weights of the losses.

    `keys` and `places` say what each loss compares in teacher and student, a tap or one of several outputs. `weights`
    are those of the losses and, last, that of the task, `share`: variables, which callbacks may change.
    """

    def __init__(self, teacher: Teacher, losses: list[DistillationLoss]) -> None:
        self.teacher, self.losses = teacher, losses
        self.student_taps: dict[str, Tap] = {}
        self.keys: list[tuple[str | None, str | None]] = []
        self.seen = Seen()
        self.places: list[tuple[int | None, int | None]] = []
        self.mode = _Mode()
        self.weights: tf.Variable | None = None
        self.share = 0.0


class Distiller(Tracked):
    """Trains a student on labels and on a teacher's answers to the same data.

        loss = w * task loss + (1 - w) * sum_i w_i * distillation loss_i

    It is compiled, fitted and evaluated as any Keras model: callbacks, `sample_weight` (which weighs both losses, by
    position where it has an axis for them; of several outputs' weights a loss takes its output's), masks of padded
    sequences, `class_weight`, several outputs, mixed precision and `tf.distribute` work as ever. The loss and the
    metrics given to `compile` are the student's; `student_loss` and `distillation_loss` are further metrics. The
    teacher runs in inference mode, is never trained, and is not saved; `student` is the product, and what `save`
    writes.

    Args:
        teacher: a Keras model; a list of teachers, averaged (`Ensemble` weighs them); a function of tensors; path or
            bytes of a `.tflite` file; the folder of a SavedModel; answers stored by `cache_teacher`.
        student: a built Keras model, float, pruned or quantized. It is trained in place.
        distillation_losses: a loss of `tfcompress.distill` or of `keras.distillation`, or a list of them.
        distillation_loss_weights: a number for each loss; 1 when left out.
        student_loss_weight: w, from 0 (the teacher alone; labels are not needed) to 1.
        name: of the model.

    Raises:
        TypeError: no model, no teacher, or no loss.
        ValueError: a tensor that is not there, or shapes that do not fit, both of which the message names; weights that
            are no such numbers; a student that would train weights of the teacher; in `compile` XLA with a teacher that
            it cannot compile.

    Source: Hinton et al. 2015, arXiv:1503.02531.

    >>> from tfcompress.distill import Logits
    >>> teacher, student = (keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]) for _ in range(2))
    >>> distiller = Distiller(teacher, student, Logits(temperature=4.0))
    >>> distiller.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    >>> history = distiller.fit(tf.ones([8, 4]), tf.zeros([8]), verbose=0)
    >>> sorted(history.history)
    ['distillation_loss', 'loss', 'student_loss']
    """

    def __init__(
        self, teacher: Any, student: Any, distillation_losses: Any,
        distillation_loss_weights: Sequence[float] | None = None, student_loss_weight: float = 0.5,
        name: str = "distiller",
    ) -> None:  # fmt: skip
        flavor.check_model(student, "student")
        losses = resolve(distillation_losses)
        weights = _weights(distillation_loss_weights, len(losses))
        student_loss_weight = _share(student_loss_weight)
        super().__init__(name=name)
        hidden = _Hidden(resolve_teacher(teacher), losses)
        _check_apart(hidden.teacher, student)
        object.__setattr__(self, "_hidden", hidden)
        self.student = student
        hidden.weights = tf.Variable([*weights, student_loss_weight], trainable=False, dtype=tf.float32)
        hidden.share = student_loss_weight
        self.projections = self._prepared()
        self.track(getattr(student, "output_names", None))
        if not hidden.teacher.compiles:
            self.supports_jit = False

    @property
    def products(self) -> list[Any]:
        """The student: callbacks and penalties of `tfcompress` leave projections alone."""
        return [self.student]

    @property
    def teacher(self) -> Teacher:
        """What teaches, as it is asked."""
        return self._hidden.teacher

    @property
    def distillation_losses(self) -> list[DistillationLoss]:
        """The losses as this distiller computes them: copies of those given, which know what they compare."""
        return self._hidden.losses

    @property
    def distillation_loss_weights(self) -> list[float]:
        """w_i of each distillation loss; what is assigned holds from the next step on."""
        return [float(weight) for weight in self._hidden.weights.numpy()[:-1]]

    @distillation_loss_weights.setter
    def distillation_loss_weights(self, weights: Sequence[float]) -> None:
        checked = _weights(weights, len(self._hidden.losses))
        self._hidden.weights.assign([*checked, self.student_loss_weight])

    @property
    def student_loss_weight(self) -> float:
        """w of the task's loss; what is assigned holds from the next step on."""
        return float(self._hidden.weights.numpy()[-1])

    @student_loss_weight.setter
    def student_loss_weight(self, weight: float) -> None:
        self._hidden.share = _share(weight)
        self._hidden.weights.assign([*self.distillation_loss_weights, self._hidden.share])

    def _prepared(self) -> list[Any]:
        """Finds the tensors of every loss, checks their shapes, and makes the projections."""
        hidden = self._hidden
        if flavor.is_graph(self.student):
            hidden.teacher.ask_by([flavor.input_name(x) for x in flavor.flatten(flavor.graph_inputs(self.student))])
        for loss in hidden.losses:
            wanted = self._in_front(loss) if loss.student is None else loss.student
            student = None if wanted is None else Tap(self.student, wanted, "student")
            if student is not None:
                hidden.student_taps[student.key] = student
            teacher = None if loss.teacher is None else hidden.teacher.tap(loss.teacher)
            hidden.keys.append((teacher, None if student is None else student.key))
        taps = list(hidden.student_taps.values())
        (answers, inner), (taught, seen) = tried_on_zeros(
            self.student, lambda zeros: (tried_on(self.student, taps, zeros), hidden.teacher.tried(zeros))
        )
        return [
            self._projection(loss, keys, (taught, seen), (answers, inner))
            for loss, keys in zip(hidden.losses, hidden.keys, strict=True)
        ]

    def _in_front(self, loss: DistillationLoss) -> Given | None:
        """The logits in front of the output that a loss is about, where a layer of its own makes them probabilities."""
        if not isinstance(loss, Outputs) or loss.from_logits is not None or not flavor.is_graph(self.student):
            return None
        place = _place(flavor.graph_outputs(self.student), loss.output, self._names())
        layer = probabilities_layer(self.student, place)
        return None if layer is None else Given(layer)

    def _projection(self, loss: DistillationLoss, keys: Any, teacher: Any, student: Any) -> Any:
        if isinstance(loss, Foreign):
            self._hidden.places.append((None, None))
            return _as_it_is()
        places = self._places(loss, keys, teacher[0], student[0])
        self._hidden.places.append(places)
        if isinstance(loss, Outputs):
            loss.settle(*self._kinds(loss, keys, places), loss.student is None and keys[1] is not None)
        sides = zip(keys, places, (teacher, student), strict=True)
        one, other = (_chosen(key, place, *tensors) for key, place, tensors in sides)
        loss.check(tuple(one.shape), tuple(other.shape))
        projection = loss.projection(tuple(one.shape), tuple(other.shape))
        if projection is None:
            return _as_it_is()
        projection.build((None, *other.shape[1:]))
        return projection

    def _names(self) -> list[str]:
        return list(getattr(self.student, "output_names", None) or [])

    def _places(self, loss: DistillationLoss, keys: Any, taught: Any, answers: Any) -> tuple[int | None, int | None]:
        """Which of the teacher's and of the student's outputs a loss is about: a name is looked up in each's own.

        A name that the teacher's outputs do not have means the same place in both, where both have an order.
        """
        wanted = getattr(loss, "output", None)
        mine = _place(answers, wanted, self._names()) if loss.student is None else None
        count = len(flavor.flatten(taught))
        if keys[0] is not None or count == 1:
            return (None if keys[0] is not None else 0), mine
        names = sorted(taught) if isinstance(taught, dict) else self._hidden.teacher.output_names or []
        ordered = isinstance(wanted, int) or not (isinstance(taught, dict) or isinstance(answers, dict))
        if mine is not None and mine < count and wanted not in names and ordered:
            return mine, mine
        return _place(taught, wanted, names), mine

    def _kinds(self, loss: DistillationLoss, keys: Any, places: Any) -> tuple[str, str]:
        """What teacher's and student's tensors are, of a tap as of an output."""
        teacher = self._hidden.teacher
        one = teacher.kind_of(places[0]) if keys[0] is None else teacher.kind_of_tap(keys[0])
        return one, (
            output_kind(self.student, places[1]) if loss.student is None else self._hidden.student_taps[keys[1]].kind
        )

    def compile(self, *args: Any, **options: Any) -> None:
        """As any model."""
        if options.get("jit_compile") is True and not self._hidden.teacher.compiles:
            kind = type(self._hidden.teacher).__name__.lower()
            raise ValueError(f"`jit_compile` must be left out: XLA does not compile a teacher that is a {kind}")
        super().compile(*args, **options)

    def call(self, inputs: Any, training: Any = None) -> Any:
        """The student's answers."""
        hidden = self._hidden
        return computed(self.student, list(hidden.student_taps.values()), hidden.seen, inputs, training=training)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """The weighted sum of the task's and the distillation loss of a batch, and the student's own further losses."""
        hidden = self._hidden
        *weights, share = tf.unstack(tf.convert_to_tensor(hidden.weights))
        task = self._task(y, y_pred, sample_weight, share)
        inner = dict(hidden.seen.values)
        if hidden.mode.evaluating:
            taught, seen, known = hidden.teacher.evaluated(x)
        else:
            (taught, seen), known = hidden.teacher(x), None
        total = tf.constant(0.0)
        for loss, keys, places, projection, weight in zip(
            hidden.losses, hidden.keys, hidden.places, self.projections, weights, strict=True
        ):
            one = _chosen(keys[0], places[0], taught, seen)
            other, mask = _projected(_chosen(keys[1], places[1], y_pred, inner), places[1], projection, y_pred)
            values = loss.loss(one, other, self._of_output(loss, y, y_pred))
            if known is not None and values.shape.rank == 0:
                values = tf.where(tf.reduce_all(known), values, 0.0)
            total += weight * reduced(values, self._of_output(loss, sample_weight, y_pred), _both(mask, known))
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        return self.told(task, total, share * task + (1 - share) * total / replicas, y_pred)

    def _task(self, y: Any, y_pred: Any, sample_weight: Any, share: tf.Tensor) -> tf.Tensor:
        """The task's loss; 0 where there is none and none counts."""
        if y is not None and self.loss:
            return tf.cast(flavor.compiled_loss(self, y, y_pred, sample_weight), tf.float32)
        missing, place = ("y", "fit") if y is None else ("loss", "compile")
        needed = f"`{missing}` must be passed to {place}, or `student_loss_weight` be 0, the teacher alone"
        received = f"Received: {missing}=None"
        if self._hidden.share:
            raise ValueError(f"{needed}. {received} with student_loss_weight={self._hidden.share}")
        tf.debugging.assert_equal(share, 0.0, f"{needed}. {received}")  # a callback may change it behind this trace
        return tf.constant(0.0)

    def _of_output(self, loss: DistillationLoss, given: Any, y_pred: Any) -> Any:
        """What `fit` was given for a loss's output, of labels or weights; None where it was given nothing for it."""
        if given is None or not isinstance(given, (dict, list, tuple)):
            return given
        flat = flavor.flatten(given)
        if len(flavor.flatten(y_pred)) == 1:
            return flat[0] if flat else None
        wanted = getattr(loss, "output", None)
        if wanted is None:
            return None
        place = _place(y_pred, wanted, self._names())
        if isinstance(given, dict):
            return given.get((sorted(y_pred) if isinstance(y_pred, dict) else self._names())[place])
        return flat[place]

    def test_step(self, *args: Any) -> Any:
        """As Keras does it; a teacher whose answers are stored is not asked for rows that it has no answers to."""
        self._hidden.mode.evaluating = True
        try:
            return super().test_step(*args)
        finally:
            self._hidden.mode.evaluating = False

    def save(self, filepath: Any, overwrite: bool = True, **options: Any) -> None:
        """Saves the student, a model without a trace of the teacher."""
        self.student.save(filepath, overwrite=overwrite, **options)


def _check_apart(teacher: Teacher, student: Any) -> None:
    """Refuse a student whose training would train the teacher."""
    theirs = {id(variable) for variable in teacher.variables}
    shared = [flavor.variable_path(v) for v in student.trainable_weights if id(v) in theirs]
    if shared:
        raise ValueError(
            f"`student` must not train weights of the teacher: freeze the layers that both have, or copy them "
            f"(`student_from`). Received: {student.name!r}, which shares {', '.join(shared[:10])}"
        )


def _share(weight: Any) -> float:
    if not is_finite(weight):
        raise TypeError(f"`student_loss_weight` must be a number. Received: {weight!r}")
    if not 0 <= weight <= 1:
        raise ValueError(f"`student_loss_weight` must be from 0 to 1. Received: {weight!r}")
    return float(weight)


def _weights(given: Sequence[float] | None, count: int) -> list[float]:
    weights: list[Any] = [1.0] * count if given is None else [given] if is_finite(given) else [*given]  # type: ignore[misc]
    numbers = all(is_finite(w) and w >= 0 for w in weights)
    if len(weights) != count or not numbers:
        raise ValueError(
            f"`distillation_loss_weights` must be {count} numbers from 0 on, one for each loss. Received: {given!r}"
        )
    return [float(w) for w in weights]


def _as_it_is() -> Any:
    """In place of a projection; of 32 bits whatever the policy, or answers would be rounded to 16."""
    return keras.layers.Activation("linear", dtype="float32")


def _place(outputs: Any, wanted: Any, names: list[str]) -> int:
    """Which of the outputs, in the order in which they are flattened, is meant by a name or an index."""
    flat = flavor.flatten(outputs)
    known = sorted(outputs) if isinstance(outputs, dict) else names
    if len(flat) == 1 and wanted in (None, 0, *known, *names):
        return 0
    if wanted is None:
        raise ValueError(
            f"`output` must say which of the {len(flat)} outputs a loss is about, by name or index. Received: None"
        )
    if wanted in known:
        return known.index(wanted)
    if isinstance(wanted, int) and 0 <= wanted < len(flat):
        return wanted
    raise ValueError(f"`output` must be one of {known}, or an index below {len(flat)}. Received: output={wanted!r}")


def _chosen(key: str | None, place: int | None, outputs: Any, seen: dict[str, Any]) -> Any:
    """The tensor that a loss is about: a tapped one, one of the outputs, or all of them."""
    if key is not None:
        return seen[key]
    return outputs if place is None else flavor.flatten(outputs)[place]


def _both(mask: Any, known: Any) -> Any:
    """Where a position counts and its row [batch] does; None where all do."""
    if mask is None or known is None:
        return known if mask is None else mask
    return tf.logical_and(tf.cast(mask, tf.bool), tf.reshape(known, [-1] + [1] * (mask.shape.rank - 1)))


def _projected(tensor: Any, place: int | None, projection: Any, y_pred: Any) -> tuple[Any, Any]:
    """A student's tensor as a loss compares it, its mask behind it, and that mask, or None."""
    mask = flavor.mask_of(tensor)
    if mask is None and place is not None:  # in front of an output whose mask is the same
        mask = flavor.mask_of(flavor.flatten(y_pred)[place])
    other = projection(tensor)
    if mask is not None and flavor.mask_of(other) is None:
        flavor.set_mask(other, mask)
    return other, mask
