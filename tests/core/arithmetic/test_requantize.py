"""Roundings against Python's whole numbers and C's own definitions."""

import math
from fractions import Fraction

import numpy as np
import pytest
import tensorflow as tf

from tfcompress.core.arithmetic.requantize import (
    FixedPoint,
    fixed_point,
    rounded_double,
    rounded_short,
    rounded_single,
    rounded_twice,
)


def by_hand(real):
    """QuantizeMultiplier in whole numbers."""
    mantissa, shift = math.frexp(real)
    whole = math.floor(Fraction(mantissa) * 2**31 + Fraction(1, 2))
    if whole == 2**31:
        whole, shift = 2**30, shift + 1
    return (0, 0) if shift < -31 else (whole, shift)


def away(value):
    """Half away from zero."""
    return math.floor(value + Fraction(1, 2)) if value >= 0 else -math.floor(-value + Fraction(1, 2))


def test_fixed_points_are_the_nearest_of_31_bits():
    rng = np.random.default_rng(0)
    reals = [*np.exp(rng.uniform(-26, 5, 2000)), 1.0, 0.5, 0.75, 1 - 2.0**-40, 2.0**-32, 2.0**-33, 3.0, 127.0]
    made = fixed_point(tf.constant(reals, tf.float64))
    assert list(zip(made.mantissa.numpy(), made.shift.numpy(), strict=True)) == [by_hand(real) for real in reals]


@pytest.mark.parametrize("ties_up", [False, True])
def test_two_roundings(ties_up):
    rng = np.random.default_rng(1)
    reals = np.exp(rng.uniform(-12, 1, 5000))
    reals[::5] = 2.0 ** rng.integers(-9, 2, 1000)  # a power of two makes ties
    totals = np.round(rng.uniform(-300, 300, 5000) / reals).astype(np.int32)
    found = rounded_twice(tf.constant(totals), fixed_point(tf.constant(reals)), ties_up=ties_up).numpy()
    for total, real, y in zip(totals.tolist(), reals, found.tolist(), strict=True):
        mantissa, shift = by_hand(real)
        high = math.floor(Fraction(total * 2 ** max(shift, 0) * mantissa, 2**31) + Fraction(1, 2))
        value = Fraction(high, 2 ** max(-shift, 0))
        assert y == (math.floor(value + Fraction(1, 2)) if ties_up else away(value))


def test_ties_that_go_up_in_some_channels_only():
    quarter = fixed_point(tf.constant([0.25, 0.25], tf.float64))
    found = rounded_twice(tf.constant([[-10, -10], [10, 10]]), quarter, ties_up=tf.constant([True, False]))
    assert found.numpy().tolist() == [[-2, -3], [3, 3]]


def test_a_short_mantissa():
    rng = np.random.default_rng(2)
    reals = np.exp(rng.uniform(-15, 4, 5000))
    reals[:2] = 1 - 2.0**-20, 2 - 2.0**-20  # these do not round up to 2**15
    totals = np.round(rng.uniform(-40000, 40000, 5000) / reals).astype(np.int64)
    found = rounded_short(tf.constant(totals), fixed_point(tf.constant(reals))).numpy()
    for total, real, y in zip(totals.tolist(), reals, found.tolist(), strict=True):
        mantissa, shift = by_hand(real)
        short = min((mantissa + 2**15) // 2**16, 2**15 - 1)
        assert y == math.floor(Fraction(total * short, 2 ** (15 - shift)) + Fraction(1, 2))


def test_rounding_in_float64_and_in_float32():
    rng = np.random.default_rng(3)
    totals = rng.integers(-(2**31), 2**31, 20000).astype(np.int32)
    real = np.float64(np.float32(1e-7))
    found = rounded_double(tf.constant(totals), tf.constant(real)).numpy()
    np.testing.assert_array_equal(found, [away(Fraction(float(total * real))) for total in totals.astype(float)])
    single = rounded_single(tf.constant(totals), tf.constant(real, tf.float32)).numpy()
    np.testing.assert_array_equal(single, np.rint(totals.astype(np.float32) * np.float32(real)))


def test_nothing_is_left_of_a_factor_below_the_smallest():
    tiny = fixed_point(tf.constant(1e-12, tf.float64))
    assert isinstance(tiny, FixedPoint)
    assert rounded_twice(tf.constant([2**31 - 1, -(2**31)]), tiny).numpy().tolist() == [0, 0]
