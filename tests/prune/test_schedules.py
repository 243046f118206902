"""Schedules against tfmot's formulas worked by hand, and their ends."""

import numpy as np
import pytest

from tfcompress.prune.schedules import (
    ConstantSparsity,
    CosineDecay,
    Iterative,
    OneShot,
    PolynomialDecay,
    resolve,
)


def due(schedule, steps):
    return [step for step in range(steps) if schedule(step)[0]]


def test_a_polynomial_meets_its_ends_and_its_formula():
    schedule = PolynomialDecay(0.2, 0.8, begin_step=10, end_step=20, power=2, frequency=4)
    assert schedule(9) == (False, 0.0)
    assert schedule.sparsity(10) == pytest.approx(0.2)
    assert schedule.sparsity(15) == pytest.approx(0.8 - 0.6 * 0.25)  # p = 1/2, (1 - p)² = 1/4
    assert schedule.sparsity(20) == schedule.sparsity(10**6) == pytest.approx(0.8)
    assert due(schedule, 40) == [10, 14, 18, 20]  # every 4th and the last one


def test_a_cosine_is_half_way_in_the_middle():
    schedule = CosineDecay(0.0, 0.9, begin_step=0, end_step=8, frequency=3)
    assert [schedule.sparsity(s) for s in (0, 4, 8)] == pytest.approx([0.0, 0.45, 0.9])
    assert schedule.sparsity(2) == pytest.approx(0.45 * (1 - np.sqrt(0.5)))  # cos(pi / 4)
    assert due(schedule, 20) == [0, 3, 6, 8]


def test_a_constant_share_is_decided_between_its_steps():
    assert due(ConstantSparsity(0.5, begin_step=3, end_step=9, frequency=3), 20) == [3, 6, 9]
    assert due(ConstantSparsity(0.5, begin_step=3, frequency=5), 20) == [3, 8, 13, 18]


def test_one_shot_is_decided_once():
    assert due(OneShot(0.5, begin_step=4), 20) == [4]


def test_rounds_take_the_same_share_of_what_is_left():
    schedule = Iterative(0.875, rounds=3, recovery_steps=5, begin_step=2)
    assert due(schedule, 40) == [2, 7, 12]
    assert [schedule.sparsity(s) for s in (1, 2, 6, 7, 12, 39)] == pytest.approx([0, 0.5, 0.5, 0.75, 0.875, 0.875])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ConstantSparsity(1.0), r"`target_sparsity` must be in \[0, 1\). Received: target_sparsity=1.0"),
        (lambda: PolynomialDecay(0, 0.5, 5, 4), "`end_step` must be a whole number >= 5. Received: end_step=4"),
        (lambda: PolynomialDecay(0, 0.5, 0, 12.5), "`end_step` must be a whole number >= 0. Received: end_step=12.5"),
        (lambda: PolynomialDecay(0, 0.5, 0, 4, power=0), "`power` must be a number > 0"),
        (lambda: PolynomialDecay(0, 0.5, 0, 4, power="x"), "`power` must be a number > 0. Received: power='x'"),
        (lambda: CosineDecay(0, 0.5, 0, 4, frequency=0), "`frequency` must be a whole number >= 1"),
        (lambda: OneShot(0.5, begin_step=-1), "`begin_step` must be a whole number >= 0"),
        (lambda: Iterative(0.5, rounds=0, recovery_steps=1), "`rounds` must be a whole number >= 1"),
    ],
)
def test_arguments_outside_their_range_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_numbers_of_numpy_are_numbers():
    schedule = PolynomialDecay(np.float32(0), np.float64(0.5), np.int64(0), np.int32(4), frequency=np.int64(3))
    assert [step for step in range(6) if schedule.is_due(step)] == [0, 3, 4]


def test_what_is_no_schedule_is_refused():
    with pytest.raises(TypeError, match=r"`schedule` must be a schedule of `tfcompress\.prune`"):
        resolve(0.5)


def test_anything_that_answers_as_a_schedule_is_one():
    schedule = resolve(lambda step: (step == 3, 0.25))
    assert schedule(2) == (True, 0.25) and schedule(3) == (False, 0.25)  # the third step is about to be made
    with pytest.raises(ValueError, match="`final_sparsity`"):
        _ = schedule.final
