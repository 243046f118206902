"""Stored answers: as the live teacher's, asked for once, resumable, refused for other data."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import softmax
from scipy.stats import entropy

from tests.distill.models import X, Y, compiled, dense, keras
from tfcompress.core.errors import CompressionError
from tfcompress.distill import Distiller, Ensemble, Logits, Stored, cache_teacher


class Counting:
    """A teacher that counts the rows it was asked for, and can break down."""

    def __init__(self, breaks_after=10**9):
        self.kernel = np.random.default_rng(5).normal(size=(6, 3)).astype("float32")
        self.rows, self.breaks_after = 0, breaks_after

    def _answer(self, x):
        self.rows += len(x)
        if self.rows > self.breaks_after:
            raise KeyboardInterrupt
        return x @ self.kernel

    def __call__(self, x):
        answers = tf.numpy_function(self._answer, [x], tf.float32)
        answers.set_shape([None, 3])
        return answers


def fitted(teacher, epochs=2, **options):
    keras.utils.set_random_seed(1)
    distiller = compiled(Distiller(teacher, dense(4), Logits(2.0), student_loss_weight=0.3))
    history = distiller.fit(X, Y, batch_size=8, epochs=epochs, shuffle=False, verbose=0, **options)
    return history.history, distiller.student.get_weights()


def test_training_with_stored_answers_is_training_with_the_teacher(tmp_path):
    live = fitted(Counting())
    stored = fitted(cache_teacher(Counting(), X, tmp_path, verbose=0))
    np.testing.assert_allclose(live[0]["distillation_loss"], stored[0]["distillation_loss"], rtol=0, atol=1e-6)
    for a, b in zip(live[1], stored[1], strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


def test_no_epoch_runs_the_teacher(tmp_path):
    teacher = Counting()
    stored = cache_teacher(teacher, X, tmp_path, batch_size=5, verbose=0)
    assert teacher.rows == 24
    fitted(stored, epochs=3)
    assert teacher.rows == 24


def test_rows_are_found_however_they_are_shuffled_and_wherever_they_are_kept(tmp_path):
    teacher = Counting()
    stored = cache_teacher(teacher, X, tmp_path, batch_size=5, shard_rows=7, verbose=0)
    assert len(list(tmp_path.glob("answers-*.npy"))) == 3  # shards close at 10, 20 and 24 rows
    order = np.random.default_rng(0).permutation(24)
    np.testing.assert_allclose(stored(X[order])[0], X[order] @ teacher.kernel, rtol=1e-5, atol=1e-6)
    assert len(Stored(tmp_path)) == 24
    np.testing.assert_allclose(Distiller(str(tmp_path), dense(), Logits()).teacher(X[:2])[0], X[:2] @ teacher.kernel,
                               rtol=1e-5, atol=1e-6)  # fmt: skip


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path):
    with pytest.raises((KeyboardInterrupt, tf.errors.OpError)):
        cache_teacher(Counting(breaks_after=15), X, tmp_path, batch_size=4, shard_rows=4, verbose=0)
    with pytest.raises(ValueError, match="answers to a part of the data: call `cache_teacher` again"):
        Stored(tmp_path)
    again = Counting()
    stored = cache_teacher(again, X, tmp_path, batch_size=4, shard_rows=4, verbose=0)
    assert again.rows == 24 - 12 + 4  # 12 rows were stored; the first batch is asked for again to know the teacher
    np.testing.assert_allclose(stored(X)[0], X @ again.kernel, rtol=1e-5, atol=1e-6)


def test_a_run_that_was_killed_before_it_said_so_is_taken_up(tmp_path):
    """All answers are there, `soft_labels.json` is not."""
    cache_teacher(Counting(), X, tmp_path, verbose=0)
    (tmp_path / "soft_labels.json").unlink()
    again = Counting()
    stored = cache_teacher(again, X, tmp_path, verbose=0)
    np.testing.assert_allclose(stored(X)[0], X @ again.kernel, rtol=1e-5, atol=1e-6)
    assert Stored(tmp_path).shape == (3,)


def test_two_runs_do_not_write_in_one_folder(tmp_path):
    def teacher(x):
        with pytest.raises(CompressionError, match=r"another run writes .*soft_labels.json'"):
            cache_teacher(Counting(), X, tmp_path, verbose=0)
        return x

    assert len(cache_teacher(teacher, X, tmp_path, verbose=0)) == 24
    assert not list(tmp_path.glob("*.lock"))


def test_datasets_with_labels_and_rows_in_dicts(tmp_path):
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(7)
    stored = cache_teacher(lambda x: 2.0 * x, data, tmp_path / "pairs", verbose=0)
    np.testing.assert_allclose(stored(X)[0], 2 * X)
    stored = cache_teacher(lambda x: 3.0 * x, (X, Y), tmp_path / "tuple", verbose=0)
    np.testing.assert_allclose(stored(X)[0], 3 * X)
    both = {"b": X, "a": Y.astype("int32")}
    stored = cache_teacher(lambda x: x["b"] + tf.cast(x["a"], tf.float32)[:, None], both, tmp_path / "dict", verbose=0)
    np.testing.assert_allclose(stored({"a": both["a"][:3], "b": X[:3]})[0], X[:3] + Y[:3, None], rtol=1e-6)


def test_rows_are_known_in_whatever_order_they_come(tmp_path):
    """A script that is run again shuffles anew; no row is asked for a second time but those of one batch."""
    with pytest.raises((KeyboardInterrupt, tf.errors.OpError)):
        cache_teacher(Counting(breaks_after=15), X, tmp_path, batch_size=4, shard_rows=4, verbose=0)
    data = tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(24, seed=3).batch(1)
    again = Counting()
    stored = cache_teacher(again, data, tmp_path, shard_rows=5, verbose=0)
    assert again.rows == 24 - 12 + 1 and len(stored) == 24
    np.testing.assert_allclose(stored(X)[0], X @ again.kernel, rtol=1e-5, atol=1e-6)
    files = {file: file.read_bytes() for file in tmp_path.glob("*.npy")}
    for data in (X[::-1].copy(), np.concatenate([X, X]), X[5:9]):
        last = Counting()
        stored = cache_teacher(last, data, tmp_path, batch_size=4, verbose=0)
        assert last.rows == 4 and len(stored) == 24
    assert {file: file.read_bytes() for file in tmp_path.glob("*.npy")} == files


def test_other_data_are_refused(tmp_path):
    cache_teacher(Counting(), X, tmp_path, verbose=0)
    with pytest.raises(ValueError, match="holds answers to other data, 1 of 25 rows of a batch are not among them"):
        cache_teacher(Counting(), np.concatenate([X, X[:1] + 1]), tmp_path, verbose=0)
    with pytest.raises(ValueError, match="holds answers to other data, 24 of 24 rows"):
        cache_teacher(Counting(), X + 1, tmp_path, verbose=0)


def test_a_part_of_other_data_is_not_mixed_with_these(tmp_path):
    with pytest.raises((KeyboardInterrupt, tf.errors.OpError)):
        cache_teacher(Counting(breaks_after=15), X, tmp_path, batch_size=4, shard_rows=4, verbose=0)
    files = set(tmp_path.iterdir())
    with pytest.raises(ValueError, match="holds answers to other data, none of its rows is in `dataset`"):
        cache_teacher(Counting(), X + 1, tmp_path, batch_size=4, shard_rows=4, verbose=0)
    other = Counting()
    other.kernel = other.kernel + 1
    with pytest.raises(ValueError, match="holds the answers of another teacher"):  # its first 12 rows are new ones
        cache_teacher(other, X[::-1].copy(), tmp_path, batch_size=4, shard_rows=4, verbose=0)
    assert set(tmp_path.iterdir()) == files


def test_another_teacher_is_refused(tmp_path):
    cache_teacher(Counting(), X, tmp_path, verbose=0)
    other = Counting()
    other.kernel = other.kernel + 1
    with pytest.raises(ValueError, match="holds the answers of another teacher"):
        cache_teacher(other, X, tmp_path, verbose=0)


def says(logits, activation="softmax"):
    """A model that answers the same to everything."""
    model = dense(activation=activation, classes=len(logits))
    kernel, _ = model.get_layer("out").get_weights()
    model.get_layer("out").set_weights([0 * kernel, np.array(logits, "float32")])
    return model


@pytest.mark.parametrize(("one", "other", "activation"), [
    ([14.0, 0.0, -4.0], [14.0, -4.0, 0.0], "softmax"),  # all p but the first are below 1e-6
    ([-9.0, 2.0], [-12.0, 2.0], "sigmoid"), ([9.0, 2.0], [7.0, 2.0], "sigmoid"),
    ([1e-4, 2e-4], [1e-4, 3e-4], None), ([5.0, 6.0], [5.0, 6.05], None),
])  # fmt: skip
def test_a_teacher_that_is_as_sure_is_another_one(tmp_path, one, other, activation):
    if activation == "softmax":  # close as probabilities, far apart at a temperature
        assert entropy(softmax(np.array(one) / 4), softmax(np.array(other) / 4)) > 0.01
        np.testing.assert_allclose(softmax(one), softmax(other), atol=1e-5)
    cache_teacher(says(one, activation), X, tmp_path / "m", verbose=0)
    with pytest.raises(ValueError, match="holds the answers of another teacher"):
        cache_teacher(says(other, activation), X, tmp_path / "m", verbose=0)
    model, function = says(one, activation), says(other, activation)
    if activation == "softmax":  # a function does not say what its answers are: they show it
        cache_teacher(lambda x: model(x), X, tmp_path / "f", verbose=0)
        with pytest.raises(ValueError, match="holds the answers of another teacher"):
            cache_teacher(lambda x: function(x), X, tmp_path / "f", verbose=0)
    nearly = says(np.array(one) * (1 + 1e-5), activation)  # as another machine rounds
    cache_teacher(nearly, X, tmp_path / "m", verbose=0)


def test_answers_of_another_kind_are_refused(tmp_path):
    model = dense(activation="softmax")
    assert cache_teacher(lambda x: 2 * model(x), X, tmp_path, verbose=0).kind == "logits"
    with pytest.raises(ValueError, match=r"answers that are 'logits', those of `teacher` are 'softmax'.*remove it"):
        cache_teacher(model, X, tmp_path, verbose=0)


def test_a_list_of_tensors_are_several_inputs(tmp_path):
    for number, make in enumerate((np.asarray, tf.constant)):
        data = [make(X), make(Y.astype("float32")[:, None])]
        stored = cache_teacher(lambda x: x[0] + 2 * x[1], data, tmp_path / str(number), batch_size=7, verbose=0)
        assert len(stored) == 24
        answers, _ = stored([X[:5], Y[:5, None].astype("float32")])
        np.testing.assert_allclose(answers, X[:5] + 2 * Y[:5, None], rtol=1e-6)


def test_what_cannot_be_stored(tmp_path):
    for name in ("batch_size", "shard_rows"):
        with pytest.raises(ValueError, match=f"`{name}` must be a whole number from 1"):
            cache_teacher(Counting(), X, tmp_path / "none", **{name: 0})
    with pytest.raises(ValueError, match="`dataset` is empty"):
        cache_teacher(Counting(), X[:0], tmp_path / "empty", verbose=0)
    with pytest.raises(ValueError, match="`dataset` is empty"):
        cache_teacher(Counting(), [], tmp_path / "empty", verbose=0)
    with pytest.raises(CompressionError, match="NaN or infinity"):
        cache_teacher(lambda x: x / 0.0, X, tmp_path / "infinite", verbose=0)
    with pytest.raises(ValueError, match=r"must have one output, whose answers are stored. Received: 2 outputs"):
        cache_teacher(lambda x: [x, x], X, tmp_path / "two", verbose=0)


def test_rows_without_answers_stop_training_but_not_validation(tmp_path):
    stored = cache_teacher(Counting(), X, tmp_path, verbose=0)
    history, _ = fitted(stored, epochs=1, validation_data=(X + 1, Y))
    # No row is known: the validation's loss is the task's, at its weight.
    assert history["val_distillation_loss"] == [0.0]
    np.testing.assert_allclose(history["val_loss"], 0.3 * np.array(history["val_student_loss"]), rtol=1e-5)
    distiller = compiled(Distiller(stored, dense(4), Logits()))
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match="8 of 8 rows have no stored answer"):
        distiller.fit(X + 1, Y, batch_size=8, verbose=0)


def test_validation_on_known_rows_asks_the_store(tmp_path):
    stored = cache_teacher(Counting(), X, tmp_path, verbose=0)
    distiller = compiled(Distiller(stored, dense(4), Logits(2.0)))
    live = compiled(Distiller(Counting(), distiller.student, Logits(2.0)))
    scores = [model.evaluate(X, Y, verbose=0, return_dict=True) for model in (distiller, live)]
    assert scores[0]["distillation_loss"] > 0.01
    for name in scores[0]:
        np.testing.assert_allclose(scores[0][name], scores[1][name], rtol=1e-5)


def test_of_partly_known_rows_the_known_ones_count(tmp_path):
    stored = cache_teacher(Counting(), X, tmp_path, verbose=0)
    student = dense(4)
    some = np.concatenate([X[:6], X[:2] + 1])
    partly = compiled(Distiller(stored, student, Logits(2.0))).evaluate(some, Y[:8], verbose=0, return_dict=True)
    known = compiled(Distiller(Counting(), student, Logits(2.0))).evaluate(X[:6], Y[:6], verbose=0, return_dict=True)
    np.testing.assert_allclose(partly["distillation_loss"], known["distillation_loss"], rtol=1e-5)
    assert partly["distillation_loss"] > 0.01


def test_what_a_function_answers_is_seen_in_its_answers(tmp_path):
    model = dense(activation="softmax")
    assert cache_teacher(lambda x: model(x), X, tmp_path, verbose=0).kind == "softmax"
    assert cache_teacher(model, X, tmp_path, verbose=0).kind == "softmax"


def test_stored_answers_in_an_ensemble(tmp_path):
    stored = cache_teacher(Counting(), X, tmp_path, verbose=0)
    both = Ensemble([stored, lambda x: x[:, :3]], weights=[3, 1])
    np.testing.assert_allclose(both(X)[0], 0.75 * X @ Counting().kernel + 0.25 * X[:, :3], rtol=1e-4, atol=1e-5)
    history, _ = fitted(both, epochs=1, validation_data=(X + 1, Y))
    assert history["val_distillation_loss"] == [0.0]


def test_the_kind_of_the_answers_is_stored(tmp_path):
    stored = cache_teacher(dense(activation="softmax"), X, tmp_path, verbose=0)
    assert stored.kind == "softmax"
    assert Stored(tmp_path).kind == "softmax"
