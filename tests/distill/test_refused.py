"""What a distiller and its losses refuse, and how they say so."""

import numpy as np
import pytest

from tests.distill.models import X, conv, dense, keras, layers
from tfcompress.distill import DecoupledLogits, Distiller, Features, JensenShannon, Logits, cache_teacher


def test_shapes_that_do_not_fit_are_both_named():
    with pytest.raises(ValueError, match=r"same last axis.*\(1, 4\) of the teacher.*\(1, 3\) of the student"):
        Distiller(dense(classes=4), dense(), Logits())
    one, other = (keras.Sequential([keras.Input((6, 2)), layers.Conv1D(3, width)]) for width in (3, 2))
    with pytest.raises(ValueError, match=r"same axes between.*\(1, 4, 3\) of the teacher.*\(1, 5, 3\) of the student"):
        Distiller(one, other, Logits())
    with pytest.raises(ValueError, match=r"same number of axes.*\(1, 8, 8, 4\).*'conv'.*\(1, 3\).*'out'"):
        Distiller(conv(), conv(), Features("conv", "out"))
    with pytest.raises(ValueError, match="`student` must name one layer"):
        Distiller(dense(), dense(), Features("hidden", "nowhere"))


@pytest.mark.parametrize(("wrong", "error", "message"), [
    ({"distillation_losses": []}, ValueError, "at least one loss"),
    ({"distillation_losses": "kl"}, TypeError, "must be distillation losses. Received: 'kl'"),
    ({"distillation_loss_weights": [1.0, 2.0]}, ValueError, "must be 1 numbers from 0 on"),
    ({"distillation_loss_weights": [-1.0]}, ValueError, "must be 1 numbers from 0 on"),
    ({"student_loss_weight": 1.5}, ValueError, "must be from 0 to 1. Received: 1.5"),
    ({"student_loss_weight": "half"}, TypeError, "must be a number"),
    ({"student": 3}, TypeError, "`student` must be a keras.Model"),
])  # fmt: skip
def test_wrong_arguments(wrong, error, message):
    given = {"teacher": dense(), "student": dense(), "distillation_losses": Logits(), **wrong}
    with pytest.raises(error, match=message):
        Distiller(**given)


def test_decoupled_needs_labels():
    distiller = Distiller(dense(), dense(), DecoupledLogits(), student_loss_weight=0.0)
    distiller.compile("sgd", run_eagerly=True)
    with pytest.raises(ValueError, match="`DecoupledLogits` needs labels"):
        distiller.fit(X, verbose=0)


def test_settings_of_losses_are_checked():
    assert Logits(np.float32(2.0)).temperature == 2.0
    for temperature in (0, -1, "hot", True, float("inf")):
        with pytest.raises(ValueError, match="`temperature` must be a number above 0"):
            Logits(temperature)
    with pytest.raises(ValueError, match=r"`loss` must be 'kl', 'cross_entropy' or 'mse'. Received: loss='l1'"):
        Logits(loss="l1")
    with pytest.raises(ValueError, match="`from_logits` must be"):
        Logits(from_logits=(True,))
    for from_logits in (1, "yes", (True, 0), np.array([True, False])):
        with pytest.raises(ValueError, match="`from_logits` must be"):
            Logits(from_logits=from_logits)
    with pytest.raises(ValueError, match=r"`binary` must be True, False or None. Received: binary='yes'"):
        Logits(binary="yes")
    assert JensenShannon(np.float64(0.3)).beta == 0.3
    for beta in (0, 1.0, float("nan"), "half"):
        with pytest.raises(ValueError, match="`beta` must be a number between 0 and 1"):
            JensenShannon(beta)


def test_a_student_that_trains_weights_of_the_teacher_is_refused():
    teacher = dense()
    inputs = keras.Input((6,))
    student = keras.Model(inputs, layers.Dense(3)(teacher.get_layer("hidden")(inputs)))
    with pytest.raises(ValueError, match=r"must not train weights of the teacher.*hidden"):
        Distiller([dense(), teacher], student, Logits())
    teacher.get_layer("hidden").trainable = False
    Distiller(teacher, student, Logits())


def test_xla_with_a_teacher_that_it_cannot_compile_is_refused(tmp_path):
    distiller = Distiller(cache_teacher(dense(), X, tmp_path / "soft", verbose=0), dense(), Logits())
    with pytest.raises(ValueError, match="`jit_compile` must be left out"):
        distiller.compile("sgd", "mse", jit_compile=True)
