"""What a student is told apart from its teacher by: pure functions of two tensors.

Every function takes the teacher first. Classes are on the last axis; what is returned has a number for each of the
others, [batch] or [batch, ...] where there are pixels or tokens. Probabilities are taken to logits by their logarithm.
"""

from typing import Any

import numpy as np
import tensorflow as tf

# What 32 bits hold least of: a probability above 0, and 1 less one below it.
_TINY = float(np.finfo(np.float32).tiny)
_REST = 2.0**-25


@tf.custom_gradient
def _log(p: tf.Tensor) -> tuple[tf.Tensor, Any]:
    """log max(p, tiny), whose gradient 1 / p stays a number when it is multiplied, and is 0 below."""
    large = 0.1 * tf.float32.max

    def gradient(upstream: tf.Tensor) -> tf.Tensor:
        found = tf.clip_by_value(upstream / tf.maximum(p, _TINY), -large, large)
        return tf.where(p >= _TINY, found, tf.zeros_like(p))

    return tf.math.log(tf.maximum(p, _TINY)), gradient


def log_probabilities(outputs: tf.Tensor, temperature: float, from_logits: bool) -> tf.Tensor:
    """log softmax(z / T); of probabilities p, which are known up to a constant of z = log p.

    Args:
        outputs: [..., classes].
        temperature: T > 0.
        from_logits: whether `outputs` are z and not p.

    >>> import numpy as np
    >>> [round(float(p), 4) for p in np.exp(log_probabilities(tf.constant([[0.8, 0.2]]), 2.0, False))[0]]
    [0.6667, 0.3333]
    """
    outputs = tf.cast(outputs, tf.float32)
    logits = outputs if from_logits else _log(outputs)
    return tf.nn.log_softmax(logits / temperature, axis=-1)


def logits_of(outputs: tf.Tensor, from_logits: bool, binary: bool = False) -> tf.Tensor:
    """z: as they are, log p - mean log p of probabilities, or log p - log(1 - p) of those that decide on their own."""
    outputs = tf.cast(outputs, tf.float32)
    if from_logits:
        return outputs
    logits = _log(outputs)
    if binary:
        return logits - _log(tf.maximum(1 - outputs, _REST))
    return logits - tf.reduce_mean(logits, axis=-1, keepdims=True)


def _two_sided(outputs: tf.Tensor, from_logits: bool) -> tf.Tensor:
    """Logits [..., 2] of a yes and its no, for outputs of which each decides on its own."""
    logits = logits_of(outputs, from_logits, binary=True)
    return tf.stack([logits, tf.zeros_like(logits)], axis=-1)


def _both(
    teacher: tf.Tensor, student: tf.Tensor, temperature: float, from_logits: tuple[bool, bool], binary: bool
) -> tuple[tf.Tensor, tf.Tensor]:
    """log p and log q [..., classes], or [..., outputs, 2] of outputs of which each decides on its own."""
    pair = list(zip((teacher, student), from_logits, strict=True))
    if binary:
        pair = [(_two_sided(outputs, raw), True) for outputs, raw in pair]
    log_p, log_q = (log_probabilities(outputs, temperature, raw) for outputs, raw in pair)
    return log_p, log_q


def _summed(values: tf.Tensor, binary: bool) -> tf.Tensor:
    """What is apart [...], of outputs that decide on their own the sum over them."""
    return tf.reduce_sum(values, axis=-1) if binary else values


def divergence(log_p: tf.Tensor, log_q: tf.Tensor) -> tf.Tensor:
    """KL(p || q) = sum_i p_i (log p_i - log q_i) over the last axis; what p rules out adds nothing."""
    return tf.reduce_sum(tf.math.multiply_no_nan(log_p - log_q, tf.exp(log_p)), axis=-1)


def hinton(
    teacher: tf.Tensor, student: tf.Tensor, temperature: float = 1.0, *,
    from_logits: tuple[bool, bool] = (True, True), binary: bool = False,
) -> tf.Tensor:  # fmt: skip
    """T^2 KL(softmax(t / T) || softmax(s / T)).

    Args:
        teacher: [batch, ..., classes].
        student: of the same shape.
        temperature: T > 0.
        from_logits: whether the teacher's and the student's outputs are logits; else they are probabilities.
        binary: every output decides on its own (one sigmoid each): the sum over outputs of their two-class divergence.

    Returns:
        [batch, ...].

    Source: Hinton et al. 2015, arXiv:1503.02531, section 2 (T^2 keeps gradients of one size).

    >>> float(hinton(tf.constant([[2.0, 0.0]]), tf.constant([[2.0, 0.0]]), 4.0)[0])
    0.0
    """
    return temperature**2 * _summed(divergence(*_both(teacher, student, temperature, from_logits, binary)), binary)


def soft_cross_entropy(
    teacher: tf.Tensor, student: tf.Tensor, temperature: float = 1.0, *,
    from_logits: tuple[bool, bool] = (True, True), binary: bool = False,
) -> tf.Tensor:  # fmt: skip
    """-T^2 sum_i softmax(t / T)_i log softmax(s / T)_i: Hinton's loss plus T^2 times the teacher's entropy.

    Args:
        teacher: [batch, ..., classes].
        student: of the same shape.
        temperature: T > 0.
        from_logits: as for `hinton`.
        binary: as for `hinton`: the sum over outputs of their two-class cross entropy.

    Returns:
        [batch, ...].

    Source: Hinton et al. 2015, arXiv:1503.02531, equation 2.

    >>> round(float(soft_cross_entropy(tf.constant([[0.0, 0.0]]), tf.constant([[0.0, 0.0]]))[0]), 4)  # log 2
    0.6931
    """
    log_p, log_q = _both(teacher, student, temperature, from_logits, binary)
    return -(temperature**2) * _summed(tf.reduce_sum(tf.exp(log_p) * log_q, axis=-1), binary)


def squared_error(teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
    """mean (t - s)^2 over the last axis: of logits, of what a regression gives, or of features.

    Source: Ba and Caruana 2014, arXiv:1312.6184, equation 1.
    """
    apart = tf.math.squared_difference(tf.cast(teacher, tf.float32), tf.cast(student, tf.float32))
    return tf.reduce_mean(apart, axis=-1) if apart.shape.rank > 1 else apart


def decoupled(
    teacher: tf.Tensor, student: tf.Tensor, labels: tf.Tensor, temperature: float = 4.0, alpha: float = 1.0,
    beta: float = 8.0, *, from_logits: tuple[bool, bool] = (True, True),
) -> tf.Tensor:  # fmt: skip
    """T^2 (alpha KL(b^t || b^s) + beta KL(q^t || q^s)): the target class against the rest, and the rest among itself.

    Args:
        teacher: [batch, ..., classes].
        student: of the same shape.
        labels: class numbers, [batch, ...] with or without a last axis of 1; or [batch, ..., classes], of which the
            largest counts.
        temperature: T > 0.
        alpha: weight of the two-class part b = (p_target, 1 - p_target).
        beta: weight of the part q over the other classes.
        from_logits: as for `hinton`.

    Source: Zhao et al. 2022, arXiv:2203.08679, equation 7.
    """
    classes = teacher.shape[-1]
    if labels.shape.rank > 1 and labels.shape[-1] == classes and labels.shape.rank == teacher.shape.rank:
        labels = tf.argmax(labels, axis=-1)
    target = tf.one_hot(tf.reshape(tf.cast(labels, tf.int32), tf.shape(teacher)[:-1]), classes)
    log_p = log_probabilities(teacher, temperature, from_logits[0])
    log_q = log_probabilities(student, temperature, from_logits[1])

    def sides(log: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        chosen = tf.reduce_sum(log * target, axis=-1)
        rest = tf.reduce_logsumexp(log - 1e9 * target, axis=-1)
        return tf.stack([chosen, rest], axis=-1), log - 1e9 * target - rest[..., None]

    (two_p, rest_p), (two_q, rest_q) = sides(log_p), sides(log_q)
    others = tf.reduce_sum((1 - target) * tf.exp(rest_p) * (rest_p - rest_q), axis=-1)
    return temperature**2 * (alpha * divergence(two_p, two_q) + beta * others)


def reverse_divergence(
    teacher: tf.Tensor, student: tf.Tensor, temperature: float = 1.0, *,
    from_logits: tuple[bool, bool] = (True, True), binary: bool = False,
) -> tf.Tensor:  # fmt: skip
    """KL(softmax(s / T) || softmax(t / T)), without T^2: the student leaves out what it cannot do.

    Args:
        teacher: [batch, ..., classes].
        student: of the same shape.
        temperature: T > 0.
        from_logits: as for `hinton`.
        binary: as for `hinton`.

    Returns:
        [batch, ...].

    Source: Gu et al. 2023 (MiniLLM), arXiv:2306.08543, equation 1.

    >>> q, p = tf.math.log([[0.5, 0.5]]), tf.math.log([[0.9, 0.1]])  # log(0.5 / 0.9) / 2 + log(0.5 / 0.1) / 2
    >>> round(float(reverse_divergence(p, q)[0]), 4)
    0.5108
    """
    log_p, log_q = _both(teacher, student, temperature, from_logits, binary)
    return _summed(divergence(log_q, log_p), binary)


def jensen_shannon(
    teacher: tf.Tensor, student: tf.Tensor, beta: float = 0.5, temperature: float = 1.0, *,
    from_logits: tuple[bool, bool] = (True, True), binary: bool = False,
) -> tf.Tensor:  # fmt: skip
    """beta KL(p || m) + (1 - beta) KL(q || m), m = beta p + (1 - beta) q, of p = softmax(t / T), q = softmax(s / T).

    T^2 is not applied.

    Args:
        teacher: [batch, ..., classes].
        student: of the same shape.
        beta: between 0 and 1; divided by beta it is KL(p || q) towards 0, by 1 - beta KL(q || p) towards 1.
        temperature: T > 0.
        from_logits: as for `hinton`.
        binary: as for `hinton`.

    Returns:
        [batch, ...].

    Source: Agarwal et al. 2023 (GKD), arXiv:2306.13649, equation 1.

    >>> sure = tf.constant([[50.0, 0.0]])  # of the other class: m = (1/2, 1/2), log 2 from each
    >>> round(float(jensen_shannon(sure, -sure)[0]), 4)
    0.6931
    """
    log_p, log_q = _both(teacher, student, temperature, from_logits, binary)
    log_m = tf.reduce_logsumexp(tf.stack([log_p + tf.math.log(beta), log_q + tf.math.log(1 - beta)]), axis=0)
    return _summed(beta * divergence(log_p, log_m) + (1 - beta) * divergence(log_q, log_m), binary)
