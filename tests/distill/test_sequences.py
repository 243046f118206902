"""Models that write: sampling, batches of the student's own, policy gradient."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import log_softmax

from tfcompress.core.errors import CompressionError
from tfcompress.distill import Distiller, JensenShannon
from tfcompress.distill.sequences import OnPolicy, PolicyGradient, sample, teacher_texts

keras = tf.keras
WORDS, LENGTH = 5, 6


def language(seed: int) -> keras.Model:
    """Says the next token from the one before."""
    keras.utils.set_random_seed(seed)
    tokens = keras.Input((None,), dtype="int32")
    return keras.Model(tokens, keras.layers.Dense(WORDS)(keras.layers.Embedding(WORDS, 8)(tokens)))


def chain(model: keras.Model) -> np.ndarray:
    """[before, next] probabilities of a model that looks one token back."""
    logits = np.asarray(model(np.arange(WORDS)[None]))[0].astype("float64")
    chances = np.exp(logits)
    return chances / chances.sum(-1, keepdims=True)


def test_samples_follow_the_models_probabilities():
    model, other = language(0), language(1)
    prompts = np.full((4000, 1), 2)
    for mix in (0.0, 0.25):
        drawn = sample(model, prompts, 2, other=other, mix=mix, seed=1)[:, 1]
        expected = (1 - mix) * chain(model)[2] + mix * chain(other)[2]
        np.testing.assert_allclose(np.bincount(drawn, minlength=WORDS) / 4000, expected, atol=0.03)


def test_no_temperature_takes_the_most_likely():
    model = language(0)
    best, tokens = chain(model).argmax(-1), [3]
    for _ in range(LENGTH - 1):
        tokens.append(int(best[tokens[-1]]))
    assert sample(model, [[3]], LENGTH, temperature=0).tolist() == [tokens]


def test_texts_of_the_teacher_begin_with_their_prompts():
    prompts = np.array([[1, 2], [3, 4], [0, 1]])
    written = teacher_texts(language(0), prompts, LENGTH, batch_size=2)
    assert written.shape == (3, LENGTH)
    np.testing.assert_array_equal(written[:, :2], prompts)


def test_batches_of_the_student_are_its_own():
    data = np.zeros((10, LENGTH), int)
    student = language(0)
    best = chain(student).argmax(-1)
    batches = OnPolicy(student, data, 1, share=1.0, batch_size=3, temperature=0)
    x, y, _ = next(iter(batches))
    np.testing.assert_array_equal(x[:, 1:], y[:, :-1])
    np.testing.assert_array_equal(y, best[x])
    x, y, weights = next(iter(OnPolicy(student, data, 3, share=0.0, batch_size=3)))
    assert not x.any() and not y.any()
    np.testing.assert_array_equal(weights, [[0, 0, 1, 1, 1]] * 3)


def test_what_stands_behind_the_end_does_not_count():
    model = language(3)
    best = chain(model).argmax(-1)
    end = int(best[best[2]])
    batches = OnPolicy(model, [[2] * LENGTH], 1, share=1.0, batch_size=2, temperature=0, end=end, padding=4)
    x, y, weights = next(batches)
    assert x[0].tolist() == [2, best[2], end, 4, 4] and y[0].tolist() == [best[2], end, 4, 4, 4]
    np.testing.assert_array_equal(weights, [[1, 1, 0, 0, 0]] * 2)
    one = (end + 1) % WORDS
    data = [[end, one, end, one, one, one], [end, one, one, one, end, one]]  # a prompt's own end ends nothing
    x, y, weights = next(OnPolicy(model, data, 1, share=0.0, batch_size=40, end=end))
    counts = np.where(x[:, 2:3] == end, [[1, 1, 0, 0, 0]], [[1, 1, 1, 1, 0]])
    assert len(np.unique(counts, axis=0)) == 2
    np.testing.assert_array_equal(weights, counts)


def test_a_share_is_written_by_the_teacher():
    student, teacher = language(0), language(1)
    best, taught = chain(student).argmax(-1), chain(teacher).argmax(-1)
    assert (best != taught).any()
    data = np.arange(40).reshape(8, 5) % WORDS
    batches = OnPolicy(student, data, 1, share=1.0, temperature=0, teacher=teacher, mix=1.0)
    x, y, _ = next(iter(batches))
    np.testing.assert_array_equal(y, taught[x])


def test_batches_cost_one_trace_and_follow_the_student():
    student, traced = language(0), []

    def counted(tokens, training):
        traced.append(tokens.shape)
        return student(tokens, training=training)

    batches = iter(OnPolicy(counted, np.zeros((10, LENGTH), int), 1, share=1.0, batch_size=3, temperature=0))
    for seed in range(4):
        student.set_weights(language(seed).get_weights())
        x, y, _ = next(batches)
        np.testing.assert_array_equal(y, chain(student).argmax(-1)[x])
    assert len(traced) == 1


def test_fit_takes_batches_without_an_end():
    teacher, student = language(0), language(1)
    distiller = Distiller(teacher, student, JensenShannon(0.3), student_loss_weight=0.0)
    distiller.compile(keras.optimizers.SGD(0.1), None)
    batches = OnPolicy(student, np.zeros((4, LENGTH), int), 1, share=1.0, batch_size=4)
    history = distiller.fit(batches, steps_per_epoch=7, epochs=2, verbose=0)
    assert len(history.history["loss"]) == 2 and int(distiller.optimizer.iterations) == 14


def test_texts_end_where_a_token_says_so():
    model = language(3)
    best = chain(model).argmax(-1)
    end = int(best[best[2]])  # the second token that is written
    assert end not in (2, best[2])
    expected = [2, int(best[2]), end, 9, 9, 9]
    assert sample(model, [[2]], LENGTH, temperature=0, end=end, padding=9).tolist() == [expected]
    assert teacher_texts(model, [[2]], LENGTH, temperature=0, end=end, padding=9).tolist() == [expected]
    (drawn,) = sample(model, [[end]], 40, seed=1, end=end, padding=9)  # the prompt's own does not end it
    last = int(np.argmax(drawn[1:] == end)) + 1
    assert last > 1 and (drawn[last + 1 :] == 9).all() and 9 not in drawn[:last]


def test_policy_gradient_of_one_text_in_numbers():
    """Three written tokens behind two of a prompt; R_1 = (r_2 + r_3) / 2, R_2 = r_3, R_3 = 0, r = log p / q."""
    rng = np.random.default_rng(4)
    logits = rng.normal(size=(2, 4, 5))
    labels = np.array([0, 3, 1, 4])
    log_p, log_q = log_softmax(logits, -1)[:, 1:]
    picked = np.arange(3), labels[1:]
    r, kl = (log_p - log_q)[picked], (np.exp(log_q) * (log_q - log_p)).sum(-1)
    terms = kl - np.array([(r[1] + r[2]) / 2, r[2], 0]) * log_q[picked]
    p, q = np.exp(log_p)[picked], np.exp(log_q)[picked]
    given = tf.constant(logits, tf.float32)
    for mix in (0.0, 0.3, 1.0):
        expected = np.mean(q / (mix * p + (1 - mix) * q) * terms)
        found = PolicyGradient(2, mix).loss(given[:1], given[1:], labels[None])
        np.testing.assert_allclose(found, [expected], rtol=1e-5)


def test_policy_gradient_ends_where_the_text_does():
    rng = np.random.default_rng(5)
    teacher, student = (tf.constant(rng.normal(size=(1, 6, 5)), tf.float32) for _ in range(2))
    labels = np.array([[4, 0, 3, 4, 1, 4]])  # the prompt's 4 ends nothing, the second one ends the text
    expected = PolicyGradient(2, 0.3).loss(teacher[:, :4], student[:, :4], labels[:, :4])
    np.testing.assert_allclose(PolicyGradient(2, 0.3, end=4).loss(teacher, student, labels), expected, rtol=1e-6)


def test_policy_gradient_is_that_of_the_divergence_of_sequences():
    """Averaged over all sequences by their probability, gradients are those of KL(q || p) over whole sequences, where
    rewards are not normalized: with two written tokens they are not. Where the teacher wrote as well, weights make up
    for it."""
    rng = np.random.default_rng(0)
    teacher = tf.constant(rng.normal(size=(1, 3, 3)), tf.float32)
    weights = tf.Variable(rng.normal(size=(3, 3)), dtype=tf.float32)  # [place, words], one history for all
    log_p = tf.nn.log_softmax(teacher[0, 1:])
    sequences = list(itertools.product(range(3), repeat=2))
    with tf.GradientTape() as tape:
        log_q = tf.nn.log_softmax(weights[1:])
        terms = []
        for a, b in sequences:
            mine, theirs = log_q[0, a] + log_q[1, b], log_p[0, a] + log_p[1, b]
            terms.append(tf.exp(mine) * (mine - theirs))
        true = tf.add_n(terms)
    expected = tape.gradient(true, weights)

    def drawn(mix, told):
        """The mean gradient of the loss, which is told of one share, over texts of which the teacher wrote another."""
        total = tf.zeros_like(expected)
        chances = mix * tf.exp(log_p) + (1 - mix) * tf.nn.softmax(weights[1:])
        for a, b in sequences:
            with tf.GradientTape() as tape:
                labels = tf.constant([[0, a, b]])
                loss = PolicyGradient(2, told).loss(teacher, weights[None], labels)[0] * 2  # a mean of two places
            total += chances[0, a] * chances[1, b] * tape.gradient(loss, weights)
        return total

    for mix in (0.0, 0.2, 0.9):
        np.testing.assert_allclose(drawn(mix, mix), expected, atol=1e-5)
    assert np.abs(drawn(0.9, 0.0) - expected).max() > 0.05  # as it is without the weights


@pytest.mark.parametrize("loss", [JensenShannon(0.3), PolicyGradient(1)], ids=["gkd", "minillm"])
def test_a_student_comes_nearer_to_its_teacher(loss):
    teacher, student = language(0), language(1)
    data = teacher_texts(teacher, np.arange(64)[:, None] % WORDS, LENGTH)
    before = np.abs(chain(student) - chain(teacher)).sum()
    distiller = Distiller(teacher, student, loss, student_loss_weight=0.0)
    distiller.compile(keras.optimizers.Adam(0.03), None)
    batches = iter(OnPolicy(student, data, 1, share=1.0, batch_size=32))
    distiller.fit(batches, steps_per_epoch=60, epochs=1, verbose=0)
    assert np.abs(chain(student) - chain(teacher)).sum() < 0.5 * before


def certain(seed: int) -> keras.Model:
    """As `language`, and ends in probabilities; quite sure."""
    keras.utils.set_random_seed(seed)
    tokens = keras.Input((None,), dtype="int32")
    made = keras.layers.Embedding(WORDS, 8, embeddings_initializer=keras.initializers.RandomNormal(stddev=2.0))(tokens)
    return keras.Model(tokens, keras.layers.Dense(WORDS, activation="softmax")(made))


def test_probabilities_are_sampled_as_they_are():
    model, other = certain(0), language(1)
    said = np.asarray(model(np.arange(WORDS)[None]), "float64")[0]
    assert said.max() > 0.8
    prompts = np.full((4000, 1), 2)
    for temperature in (1.0, 2.0):
        expected = said[2] ** (1 / temperature) / (said[2] ** (1 / temperature)).sum()
        for drawn in (
            sample(model, prompts, 2, temperature=temperature),
            teacher_texts(model, prompts, 2, batch_size=4000, temperature=temperature),
            next(OnPolicy(model, prompts.repeat(2, 1), 1, share=1.0, batch_size=4000, temperature=temperature))[1],
        ):
            np.testing.assert_allclose(np.bincount(drawn[:, -1], minlength=WORDS) / 4000, expected, atol=0.03)
    drawn = sample(other, prompts, 2, other=model, mix=0.5)[:, 1]
    expected = 0.5 * said[2] + 0.5 * chain(other)[2]
    np.testing.assert_allclose(np.bincount(drawn, minlength=WORDS) / 4000, expected, atol=0.03)


def test_policy_gradient_of_probabilities_is_that_of_their_logits():
    teacher, student = certain(0), certain(1)
    x = np.array([[0, 1, 2, 3], [4, 3, 2, 1]])
    found = []
    for models in ((teacher, student), [keras.Model(m.input, without_softmax(m)) for m in (teacher, student)]):
        distiller = Distiller(*models, PolicyGradient(2, 0.3), student_loss_weight=0.0)
        distiller.compile("sgd")
        found.append(distiller.evaluate(x, (x + 1) % WORDS, verbose=0, return_dict=True)["distillation_loss"])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4)


def without_softmax(model: keras.Model):
    """The logits of `certain`, by a layer of the same weights."""
    made, last = model.layers[1], model.layers[2]
    plain = keras.layers.Dense(WORDS)
    logits = plain(made.output)
    plain.set_weights(last.get_weights())
    return logits


class Placed(keras.layers.Layer):
    """A learned vector for each of so many places, and no more."""

    def build(self, shape):
        self.table = self.add_weight(name="table", shape=(LENGTH - 1, 8))

    def call(self, x):
        return x + tf.gather(self.table, tf.range(tf.shape(x)[1]))


@pytest.mark.parametrize("fixed", [LENGTH - 1, LENGTH, 2 * LENGTH, None])
def test_models_of_a_fixed_length_write(fixed):
    """Training takes length - 1 tokens; so does writing, and fills up what a model takes beyond them."""
    tokens = keras.Input((fixed,), dtype="int32")
    free = language(0)
    x = free.layers[1](tokens)
    x = Placed()(x) if fixed in (None, LENGTH - 1) else x
    model = keras.Model(tokens, free.layers[2](x))
    best = chain(free).argmax(-1)
    if fixed in (None, LENGTH - 1):
        model.layers[2].set_weights([np.zeros((LENGTH - 1, 8))])
    batches = OnPolicy(model, np.zeros((4, LENGTH), int), 1, share=1.0, batch_size=2, temperature=0)
    x, y, _ = next(batches)
    assert x.shape == (2, LENGTH - 1)
    np.testing.assert_array_equal(y, best[x])
    written = teacher_texts(model, [[1], [3]], LENGTH, temperature=0)
    np.testing.assert_array_equal(written[:, 1:], best[written[:, :-1]])
    if fixed == LENGTH:
        assert sample(model, [[1]], LENGTH + 1).shape == (1, LENGTH + 1)
        with pytest.raises(ValueError, match=rf"`length` must be at most {LENGTH + 1}: the model reads {LENGTH} "):
            sample(model, [[1]], LENGTH + 2)


def test_batches_of_texts_are_drawn_apart():
    """A seed's later batches are not what another seed writes first, nor what it wrote before."""
    model, prompts = language(0), np.ones((12, 1), int)
    rows = teacher_texts(model, prompts, 20, batch_size=4)
    others = [teacher_texts(model, prompts[:8], 20, batch_size=4, seed=seed) for seed in (4, 8)]
    assert len({row.tobytes() for row in np.concatenate([rows, *others])}) == 28
    np.testing.assert_array_equal(rows, teacher_texts(model, prompts, 20, batch_size=np.int64(4)))


def test_what_is_no_number_is_not_drawn_from():
    model = language(0)
    model.set_weights([np.full_like(w, np.nan) for w in model.get_weights()])
    for call, name in (
        (lambda: sample(model, [[1]], 3), "the model"), (lambda: teacher_texts(model, [[1]], 3), "the model"),
        (lambda: sample(language(0), [[1]], 3, temperature=0, other=model, mix=0.5), "the other model"),
        (lambda: next(OnPolicy(model, [[1, 2]], 1, share=1.0)), "the model"),
    ):  # fmt: skip
        with pytest.raises(CompressionError, match=f"^{name} says NaN or infinity of the token at place 1"):
            call()
    logits = np.array([-np.inf, 0.0, -np.inf, 0.0, -np.inf])  # what is ruled out is a number's worth
    drawn = sample(lambda tokens, training: tf.ones((*tokens.shape, 1)) * logits, np.ones((50, 1)), 5)
    assert set(drawn[:, 1:].ravel()) == {1, 3}


def test_wrong_arguments_are_named():
    model = language(0)
    for call, message in (
        (lambda: sample(model, [[1]], 1), "`length` must be a whole number from 2"),
        (lambda: sample(model, [[1, 2]], 2), r"`prompts` must be .* from 1 to 1 tokens\], .*Received: shape \(1, 2\)"),
        (
            lambda: sample(model, [[1, 2], [1]], 3),
            r"`prompts` must be .* all of one length. Received: \[\[1, 2\], \[1\]\]",
        ),
        (lambda: sample(model, [[1], [1.5]], 3), r"`prompts` must be whole numbers .*Received: float64 with 1.5"),
        (lambda: teacher_texts(model, [], 3), r"`prompts` .* at least one row. Received: shape \(0,\)"),
        (
            lambda: teacher_texts(model, np.zeros((0, 1), int), 3),
            r"`prompts` .* at least one row. Received: shape \(0, 1\)",
        ),
        (lambda: teacher_texts(model, [[1]], 3, batch_size=0), "`batch_size`"),
        (lambda: sample(model, [[1]], 3, temperature=np.nan), "`temperature`"),
        (lambda: sample(model, [[1]], 3, mix=0.5), "`mix`"),
        (lambda: OnPolicy(model, np.zeros((2, 3), int), 3), "`given`"),
        (lambda: OnPolicy(model, [[1, 2, 3], [3, 4]], 1), r"`data` must be rows of one shape.*\(2,\), \(3,\)"),
        (lambda: OnPolicy(model, np.zeros((2, 3), int), 1, share=2), "`share`"),
        (lambda: OnPolicy(model, np.zeros((2, 3), int), 1, batch_size=0), "`batch_size`"),
        (lambda: OnPolicy(model, np.zeros((2, 3), int), 1, temperature=float("nan")), "`temperature`"),
        (lambda: OnPolicy(model, np.zeros((2, 3), int), 1, mix=0.5), "`mix` .* from 0 to 1 and with another model"),
        (lambda: OnPolicy(model, np.zeros((2, 3), int), 1, share=0.5).policy_gradient(), "must be 1 .* share=0.5"),
        (lambda: sample(model, [[1]], 3, end=1.5), "`end` must be a token"),
        (lambda: sample(model, [[1]], 3, seed=-1), "`seed` must be a whole number from 0"),
        (lambda: teacher_texts(model, [[1]], 3, seed=0.5), "`seed` must be a whole number from 0"),
        (lambda: OnPolicy(model, np.zeros((2, 3), int), 1, seed=-1), "`seed` must be a whole number from 0"),
        (lambda: teacher_texts(model, [[1]], 3, end="x"), "`end` must be a token"),
        (lambda: OnPolicy(model, np.zeros((2, 3), int), 1, end=2, padding=0.5), "`padding` must be a whole number"),
        (lambda: PolicyGradient(1, end=-1), "`end` must be a token"),
        (lambda: PolicyGradient(0), "`given`"),
        (lambda: PolicyGradient(-2), "`given`"),
        (
            lambda: PolicyGradient(3).loss(tf.zeros((1, 2, 3)), tf.zeros((1, 2, 3)), [[0, 0]]),
            "`given` must be at most 2",
        ),
        (lambda: PolicyGradient(1, 1.5), "`mix`"),
        (lambda: PolicyGradient(1).loss(tf.zeros((1, 2, 3)), tf.zeros((1, 2, 3)), None), "as labels"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
