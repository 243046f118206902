"""Losses between what teacher and student compute inside: features, attention, relations within a batch.

Where a function takes a `mask`, it is [batch, positions] of what counts in sequences that were padded; None for all.
"""

from typing import Any

import tensorflow as tf

_TINY = 1e-12


def _counted(features: tf.Tensor, mask: Any) -> Any:
    """What a mask keeps of features [batch, positions, ...], as numbers of as many axes; all of other positions."""
    if mask is None or features.shape.rank < 2:
        return 1.0
    counted, lengths = tf.cast(mask, tf.float32), (mask.shape[1], features.shape[1])
    if None in lengths:
        like = tf.ones(tf.shape(features)[:2])
        counted = tf.cond(tf.shape(counted)[1] == tf.shape(like)[1], lambda: counted, lambda: like)
    elif lengths[0] != lengths[1]:
        return 1.0
    for _ in features.shape[2:]:
        counted = counted[..., None]
    return counted


def _rows(features: tf.Tensor, mask: Any = None) -> tf.Tensor:
    """[batch, width]; what a mask hides of sequences [batch, positions, ...] is 0."""
    features = tf.cast(features, tf.float32)
    counted = _counted(features, mask) if features.shape.rank > 2 else 1.0
    return tf.reshape(features * counted, [tf.shape(features)[0], -1])


def averaged(features: tf.Tensor, mask: Any = None) -> tf.Tensor:
    """[batch, channels]: the mean over the axes in between, of what a mask keeps."""
    features = tf.cast(features, tf.float32)
    if features.shape.rank < 3:
        return features
    counted, between = _counted(features, mask) * tf.ones_like(features), list(range(1, features.shape.rank - 1))
    return tf.math.divide_no_nan(tf.reduce_sum(features * counted, between), tf.reduce_sum(counted, between))


def _areas(given: tf.Tensor, wanted: tf.Tensor) -> tf.Tensor:
    """[wanted, given]: how much of each new cell is covered by each old one; every row sums to one."""
    ratio = tf.cast(given, tf.float32) / tf.cast(wanted, tf.float32)
    begin = tf.range(wanted, dtype=tf.float32)[:, None] * ratio
    old = tf.range(given, dtype=tf.float32)[None]
    covered = tf.minimum(begin + ratio, old + 1) - tf.maximum(begin, old)
    return tf.maximum(covered, 0.0) / ratio


def on_grid(teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
    """The teacher's maps [batch, height, width, channels] at the student's height and width, averaged by area.

    Two products with matrices: XLA has no kernel for TensorFlow's resize with antialiasing.
    """
    teacher, student = tf.convert_to_tensor(teacher), tf.convert_to_tensor(student)
    sizes = teacher.shape[1:3], student.shape[1:3]
    if teacher.shape.rank != 4 or (sizes[0].is_fully_defined() and sizes[0] == sizes[1]):
        return teacher
    given, wanted = ([x.shape[i] or tf.shape(x)[i] for i in (1, 2)] for x in (teacher, student))
    rows, columns = (_areas(*pair) for pair in zip(given, wanted, strict=True))
    return tf.einsum("bhwc,yh,xw->byxc", tf.cast(teacher, tf.float32), rows, columns)


def attention_transfer(teacher: tf.Tensor, student: tf.Tensor, power: float = 2.0, mask: Any = None) -> tf.Tensor:
    """|| Q_s / ||Q_s|| - Q_t / ||Q_t|| ||^2, Q = vec(sum_c |A_c|^p): where features are large, whatever their width.

    Args:
        teacher: [batch, ..., channels]; maps of another height and width are resized to the student's.
        student: [batch, ..., channels], with any number of channels.
        power: p > 0; the paper's are 1, 2 and 4.
        mask: of the positions of sequences [batch, positions, ..., channels].

    Returns:
        [batch].

    Source: Zagoruyko and Komodakis 2016, arXiv:1612.03928, equation 2 (squared, as in their code).
    """

    def maps(values: tf.Tensor) -> tf.Tensor:
        heat = tf.reduce_sum(tf.pow(tf.abs(tf.cast(values, tf.float32)), power), axis=-1)
        return tf.math.l2_normalize(_rows(heat * _counted(heat, mask)), axis=-1, epsilon=_TINY)

    return tf.reduce_sum(tf.math.squared_difference(maps(on_grid(teacher, student)), maps(student)), axis=-1)


def attention_matrices(teacher: tf.Tensor, student: tf.Tensor, mask: Any = None) -> tf.Tensor:
    """mean over heads and keys of (A_t - A_s)^2; heads are averaged first where their numbers differ.

    Args:
        teacher: [batch, heads, queries, keys] attention of a layer, or [batch, queries, keys].
        student: the same, with any number of heads.
        mask: of queries. Where there are as many keys, a sequence attends to itself: its masked keys are left out too.

    Returns:
        [batch, queries].

    Source: Jiao et al. 2019 (TinyBERT), arXiv:1909.10351, equation 7.
    """
    teacher, student = tf.cast(teacher, tf.float32), tf.cast(student, tf.float32)
    if teacher.shape.rank == 4 and teacher.shape[1] != student.shape[1]:
        teacher, student = (tf.reduce_mean(x, axis=1, keepdims=True) for x in (teacher, student))
    apart = tf.math.squared_difference(teacher, student)
    apart = tf.reduce_mean(apart, axis=1) if apart.shape.rank == 4 else apart
    by_keys = tf.linalg.matrix_transpose(apart)
    keys = _counted(by_keys, mask) * tf.ones_like(by_keys)
    return tf.math.divide_no_nan(tf.reduce_sum(by_keys * keys, axis=1), tf.reduce_sum(keys, axis=1))


def cosine(teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
    """1 - cos(t, s) along the last axis.

    Returns:
        [batch, ...].

    Source: Sanh et al. 2019 (DistilBERT), arXiv:1910.01108, section 3 (the cosine embedding loss).
    """
    pair = (tf.math.l2_normalize(tf.cast(x, tf.float32), axis=-1, epsilon=_TINY) for x in (teacher, student))
    return 1 - tf.reduce_sum(next(pair) * next(pair), axis=-1)


def _distances(rows: tf.Tensor) -> tf.Tensor:
    squares = tf.reduce_sum(rows**2, axis=1)
    apart = squares[:, None] + squares[None] - 2 * tf.matmul(rows, rows, transpose_b=True)
    same = tf.eye(tf.shape(rows)[0], dtype=tf.bool)
    return tf.where(same, 0.0, tf.sqrt(tf.maximum(tf.where(same, 1.0, apart), _TINY)))


def _huber(x: tf.Tensor) -> tf.Tensor:
    return tf.where(tf.abs(x) <= 1, 0.5 * x**2, tf.abs(x) - 0.5)


def relational_distance(teacher: tf.Tensor, student: tf.Tensor, mask: Any = None) -> tf.Tensor:
    """mean over all b^2 pairs, i = j among them, of huber(d_t(i, j) / mean d_t - d_s(i, j) / mean d_s).

    The mean of the distances is over the b (b - 1) pairs of two examples.

    Args:
        teacher: [batch, ...], flattened; of any width.
        student: [batch, ...]; of any width.
        mask: of the positions of sequences [batch, positions, ...], which count as 0 where it hides them.

    Returns:
        One number for the batch of at least two.

    Source: Park et al. 2019, arXiv:1904.05068, equations 5 to 8.
    """

    def relative(values: tf.Tensor) -> tf.Tensor:
        apart = _distances(_rows(values, mask))
        pairs = tf.cast(tf.size(apart) - tf.shape(apart)[0], tf.float32)
        return apart * pairs / tf.maximum(tf.reduce_sum(apart), _TINY)

    return tf.reduce_mean(_huber(relative(teacher) - relative(student)))


def relational_angle(teacher: tf.Tensor, student: tf.Tensor, mask: Any = None) -> tf.Tensor:
    """mean over triples of huber(cos angle_t(i, j, k) - cos angle_s(i, j, k)), the angle at j.

    The mean is over all b^3 triples, those with one example twice among them.

    Args:
        teacher: [batch, ...], flattened; of any width.
        student: [batch, ...]; of any width.
        mask: of the positions of sequences [batch, positions, ...], which count as 0 where it hides them.

    Returns:
        One number for the batch of at least three.

    Source: Park et al. 2019, arXiv:1904.05068, equations 9 and 10.
    """

    def angles(values: tf.Tensor) -> tf.Tensor:
        rows = _rows(values, mask)
        rows -= tf.reduce_mean(rows, axis=0)
        # <r_i - r_j, r_k - r_j> from products of two: differences would take b^2 times the width.
        products = tf.matmul(rows, rows, transpose_b=True)
        own = tf.linalg.diag_part(products)
        squares = own[:, None] + own - 2 * products
        apart = squares > 1e-6 * tf.reduce_mean(own)  # one example twice has no direction
        short = tf.where(apart, tf.math.rsqrt(tf.where(apart, squares, 1.0)), 0.0)
        between = products[None] - products[:, :, None] - products[:, None] + own[:, None, None]  # [j, i, k]
        return between * short[:, :, None] * short[:, None]

    return tf.reduce_mean(_huber(angles(teacher) - angles(student)))


def similarity_preserving(teacher: tf.Tensor, student: tf.Tensor, mask: Any = None) -> tf.Tensor:
    """|| G_t - G_s ||_F^2 / b^2, G the Gram matrix of the batch with rows of length one.

    Args:
        teacher: [batch, ...], flattened; of any width.
        student: [batch, ...]; of any width.
        mask: as of `relational_distance`.

    Returns:
        One number for the batch.

    Source: Tung and Mori 2019, arXiv:1907.09682, equations 2 to 4.
    """

    def gram(values: tf.Tensor) -> tf.Tensor:
        rows = _rows(values, mask)
        return tf.math.l2_normalize(tf.matmul(rows, rows, transpose_b=True), axis=1, epsilon=_TINY)

    return tf.reduce_mean(tf.math.squared_difference(gram(teacher), gram(student)))


def contrastive(teacher: tf.Tensor, student: tf.Tensor, temperature: float = 0.1, mask: Any = None) -> tf.Tensor:
    """-log( exp(<t_i, s_i> / tau) / sum_j exp(<t_j, s_i> / tau) ): a student's row is nearest to its own teacher's.

    Args:
        teacher: [batch, width], or more axes, which are averaged away.
        student: of the same width.
        temperature: tau > 0.
        mask: of the positions of sequences [batch, positions, ..., width].

    Returns:
        [batch].

    Source: Tian et al. 2019 (CRD), arXiv:1910.10699, section 3, with the batch as negatives (van den Oord et al. 2018,
    arXiv:1807.03748, equation 4).
    """

    def unit(values: tf.Tensor) -> tf.Tensor:
        return tf.math.l2_normalize(averaged(values, mask), axis=-1, epsilon=_TINY)

    likeness = tf.matmul(unit(student), unit(teacher), transpose_b=True) / temperature
    return -tf.linalg.diag_part(tf.nn.log_softmax(likeness, axis=-1))
