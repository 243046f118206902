"""Batches of data in the forms that users have, read off arrays by hand."""

import numpy as np
import pytest
import tensorflow as tf

from tfcompress.prune.batches import labelled, repeatable

X, Y = np.arange(10.0).reshape(5, 2), np.arange(5)


def test_arrays_and_tensors_are_cut_into_batches():
    for x in (X, tf.constant(X)):
        assert [np.asarray(part).tolist() for part, _, _ in labelled(x, 2, 9)] == [
            [[0, 1], [2, 3]], [[4, 5], [6, 7]], [[8, 9]],
        ]  # fmt: skip
        assert [np.asarray(y).tolist() for _, y, _ in labelled((x, Y), 2, 2)] == [[0, 1], [2, 3]]


def test_arrays_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match=r"`data` must have as many rows in each array. Received: \[5, 4\]"):
        list(labelled((X, Y[:4]), 2, 9))


def test_what_runs_once_is_kept_as_far_as_it_is_wanted():
    kept = repeatable(((X, Y + n) for n in range(100)), 3)
    assert [[int(y[0]) for _, y, _ in labelled(kept, 2, 9)] for _ in range(2)] == [[0, 1, 2]] * 2
    data = tf.data.Dataset.from_tensors((X, Y))
    assert repeatable(data, 3) is data
