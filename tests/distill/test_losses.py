"""Losses between answers: closed forms by numpy and scipy, gradients by finite differences."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import expit, log_softmax, logsumexp, softmax
from scipy.stats import entropy

from tests.distill.gradients import check_gradient
from tfcompress.distill import losses

RNG = np.random.default_rng(7)
TEACHER = RNG.normal(size=(3, 4)).astype("float32") * 3
STUDENT = RNG.normal(size=(3, 4)).astype("float32") * 2
LABELS = np.array([2, 0, 3])
TEMPERATURES = [1.0, 2.0, 4.0, 20.0]
#: (teacher, student) as logits or as the probabilities of those logits
GIVEN = [(True, True), (False, False), (True, False), (False, True)]


def as_given(raw):
    """What a model with or without a softmax at its end answers."""
    pair = zip((TEACHER, STUDENT), raw, strict=True)
    return [tf.constant(x if one else softmax(x.astype("float64"), -1).astype("float32")) for x, one in pair]


def parted(temperature):
    return [softmax(x.astype("float64") / temperature, -1) for x in (TEACHER, STUDENT)]


@pytest.mark.parametrize("raw", GIVEN)
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_hinton_is_the_squared_temperature_times_the_divergence(temperature, raw):
    p, q = parted(temperature)
    found = losses.hinton(*as_given(raw), temperature, from_logits=raw)
    np.testing.assert_allclose(found, temperature**2 * entropy(p, q, axis=-1), rtol=2e-5, atol=1e-6)


def test_hinton_worked_by_hand():
    # T = 2: softmax((2 ln 3, 0) / 2) = (3/4, 1/4); softmax((0, 0)) = (1/2, 1/2)
    # 4 (3/4 ln (3/2) + 1/4 ln (1/2)) = 3 ln 1.5 - ln 2 = 1.2163953 - 0.6931472
    found = losses.hinton(tf.constant([[2 * np.log(3.0), 0.0]], tf.float32), tf.zeros([1, 2]), 2.0)
    np.testing.assert_allclose(found, [0.5232481], atol=1e-6)


@pytest.mark.parametrize("raw", GIVEN)
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_soft_cross_entropy_is_hinton_and_the_teachers_entropy(temperature, raw):
    p, q = parted(temperature)
    found = losses.soft_cross_entropy(*as_given(raw), temperature, from_logits=raw)
    np.testing.assert_allclose(found, -(temperature**2) * np.sum(p * np.log(q), -1), rtol=2e-5)


@pytest.mark.parametrize("raw", GIVEN)
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_outputs_that_decide_on_their_own_are_as_many_two_class_questions(temperature, raw):
    pair = zip((TEACHER, STUDENT), raw, strict=True)
    given = [tf.constant(x if one else expit(x)) for x, one in pair]
    # The yes of logit z at temperature T is expit(z / T).
    p, q = (expit(x.astype("float64") / temperature) for x in (TEACHER, STUDENT))
    expected = np.sum(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)), -1)
    found = losses.hinton(*given, temperature, from_logits=raw, binary=True)
    np.testing.assert_allclose(found, temperature**2 * expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_decoupled_is_the_target_against_the_rest_and_the_rest_among_itself(temperature):
    p, q = parted(temperature)
    expected = []
    for row, target in enumerate(LABELS):
        rest_p, rest_q = np.delete(p[row], target), np.delete(q[row], target)
        two_p, two_q = ([x[row, target], 1 - x[row, target]] for x in (p, q))
        expected.append(1.5 * entropy(two_p, two_q) + 6 * entropy(rest_p, rest_q))  # entropy() makes them sum to one
    for labels in (LABELS, LABELS[:, None], np.eye(4)[LABELS]):
        found = losses.decoupled(*map(tf.constant, (TEACHER, STUDENT, labels)), temperature, 1.5, 6.0)
        np.testing.assert_allclose(found, temperature**2 * np.array(expected), rtol=1e-4, atol=1e-6)


def test_decoupled_with_the_rests_own_probability_as_weight_is_hinton():
    # Equation 6 of Zhao et al.: KL = KL(b) + (1 - p_target) KL(q).
    p, _ = parted(2.0)
    for row, target in enumerate(LABELS):
        pair = [tf.constant(x[row : row + 1]) for x in (TEACHER, STUDENT)]
        found = losses.decoupled(*pair, tf.constant([target]), 2.0, 1.0, float(1 - p[row, target]))
        np.testing.assert_allclose(found, losses.hinton(*pair, 2.0), rtol=1e-4)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_reverse_divergence_asks_the_student_first(temperature):
    p, q = parted(temperature)
    found = losses.reverse_divergence(tf.constant(TEACHER), tf.constant(STUDENT), temperature)
    np.testing.assert_allclose(found, entropy(q, p, axis=-1), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9])
def test_jensen_shannon(beta):
    p, q = parted(1.0)
    middle = beta * p + (1 - beta) * q
    expected = beta * entropy(p, middle, axis=-1) + (1 - beta) * entropy(q, middle, axis=-1)
    found = losses.jensen_shannon(tf.constant(TEACHER), tf.constant(STUDENT), beta)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_squared_error_and_the_logits_of_probabilities():
    found = losses.squared_error(tf.constant(TEACHER), tf.constant(STUDENT))
    np.testing.assert_allclose(found, np.mean((TEACHER - STUDENT) ** 2, -1), rtol=1e-5)
    # log p - mean log p: the logits without their mean, which a softmax does not show.
    found = losses.logits_of(tf.constant(softmax(TEACHER, -1)), False)
    np.testing.assert_allclose(found, TEACHER - TEACHER.mean(-1, keepdims=True), atol=1e-4)
    found = losses.logits_of(tf.constant(expit(TEACHER)), False, True)
    np.testing.assert_allclose(found, TEACHER, rtol=1e-3, atol=1e-3)


def test_pixels_and_tokens_each_have_a_number():
    teacher, student = (RNG.normal(size=(2, 3, 5, 4)).astype("float32") for _ in range(2))
    found = losses.hinton(tf.constant(teacher), tf.constant(student), 2.0)
    p, q = (softmax(x / 2.0, -1) for x in (teacher, student))
    np.testing.assert_allclose(found, 4 * entropy(p, q, axis=-1), rtol=1e-4, atol=1e-6)
    labels = RNG.integers(0, 4, (2, 3, 5))
    found = losses.decoupled(tf.constant(teacher), tf.constant(student), tf.constant(labels), 2.0)
    rows = [tf.reshape(tf.constant(x), [30, 4]) for x in (teacher, student)]
    one_by_one = losses.decoupled(*rows, tf.constant(labels.ravel()), 2.0)
    np.testing.assert_allclose(found, np.reshape(one_by_one, (2, 3, 5)), rtol=1e-5, atol=1e-6)


def test_a_probability_of_zero_is_finite():
    sure = tf.constant([[1.0, 0.0, 0.0]])
    found = losses.hinton(sure, tf.constant([[0.0, 1.0, 0.0]]), 1.0, from_logits=(False, False))
    assert np.isfinite(found.numpy()).all()


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_what_a_teachers_logits_rule_out_adds_nothing(temperature):
    ruled_out, student = tf.constant([[1.0, 2.0, -np.inf]]), tf.Variable([[0.5, -1.0, 3.0]])
    p = softmax(np.array([1.0, 2.0]) / temperature)
    q = log_softmax(np.array([0.5, -1.0, 3.0]) / temperature)
    with tf.GradientTape() as tape:
        found = losses.hinton(ruled_out, student, temperature)
    np.testing.assert_allclose(found, [temperature**2 * (p * (np.log(p) - q[:2])).sum()], rtol=1e-5)
    gradient = temperature * (np.exp(q) - np.append(p, 0.0))
    np.testing.assert_allclose(tape.gradient(found, student), [gradient], rtol=1e-4, atol=1e-6)


def test_the_smallest_probabilities_keep_their_logarithms():
    # log(1e-30) = -69.08: of logits 0 and -69.08 the probabilities are 1 and 1e-30.
    tiny = tf.constant([[1.0, 1e-30]])
    logits = tf.constant([[0.0, -69.0776]])
    other = tf.constant([[0.3, 0.1]])
    expected = losses.hinton(other, logits, 4.0)
    np.testing.assert_allclose(losses.hinton(other, tiny, 4.0, from_logits=(True, False)), expected, rtol=1e-4)


@pytest.mark.parametrize("least", [0.0, 1.2e-38, 1e-37, 1e-20])
def test_gradients_of_the_smallest_probabilities_are_numbers(least):
    p = tf.constant([[1.0, least]])
    with tf.GradientTape() as tape:
        tape.watch(p)
        value = 10 * tf.reduce_sum(losses.hinton(tf.constant([[0.0, 3.0]]), p, 20.0, from_logits=(True, False)))
    found = tape.gradient(value, p).numpy()
    assert np.isfinite(found).all()
    assert found[0, 1] == 0 if least == 0 else found[0, 1] < 0  # more of what the teacher finds likelier


SMOOTH = {
    "hinton": lambda s: losses.hinton(tf.constant(TEACHER), s, 4.0),
    "cross entropy": lambda s: losses.soft_cross_entropy(tf.constant(TEACHER), s, 2.0),
    "binary": lambda s: losses.hinton(tf.constant(TEACHER), s, 2.0, binary=True),
    "decoupled": lambda s: losses.decoupled(tf.constant(TEACHER), s, tf.constant(LABELS), 4.0),
    "reverse": lambda s: losses.reverse_divergence(tf.constant(TEACHER), s),
    "jensen shannon": lambda s: losses.jensen_shannon(tf.constant(TEACHER), s, 0.3),
    "squared": lambda s: losses.squared_error(tf.constant(TEACHER), s),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_are_finite_differences(name):
    check_gradient(lambda s: tf.reduce_mean(SMOOTH[name](s)), STUDENT)


def test_the_gradient_at_a_high_temperature_is_that_of_matching_centered_logits():
    # Hinton et al., equation 4: T^2 dKL/ds -> (s - mean s - t + mean t) / classes.
    point = tf.constant(STUDENT)
    with tf.GradientTape() as tape:
        tape.watch(point)
        value = tf.reduce_sum(losses.hinton(tf.constant(TEACHER), point, 1e3))
    centered = [x - x.mean(-1, keepdims=True) for x in (STUDENT, TEACHER)]
    np.testing.assert_allclose(tape.gradient(value, point), (centered[0] - centered[1]) / 4, atol=0.02)


def test_log_probabilities_are_scipys():
    np.testing.assert_allclose(
        losses.log_probabilities(tf.constant(TEACHER), 3.0, True), log_softmax(TEACHER / 3.0, -1), atol=1e-6
    )
    assert abs(logsumexp(losses.log_probabilities(tf.constant(softmax(TEACHER, -1)), 3.0, False)[0])) < 1e-5
