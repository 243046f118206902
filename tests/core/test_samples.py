"""Every form of data that Keras takes gives the same rows in the order of the model's inputs."""

import numpy as np
import pytest
import tensorflow as tf

from tests.zoo import keras, layers
from tfcompress.core.samples import Samples, inputs_of

A = np.arange(10.0, dtype="float32").reshape(5, 2)
B = np.arange(15, dtype="int32").reshape(5, 3)


def one():
    inputs = keras.Input((2,), name="a")
    return keras.Model(inputs, layers.Dense(1)(inputs))


def two(as_dict=False):
    a, b = keras.Input((2,), name="a"), keras.Input((3,), dtype="int32", name="b")
    outputs = layers.Concatenate()([a, layers.Flatten()(layers.Embedding(20, 1)(b))])
    return keras.Model({"second": b, "first": a} if as_dict else [a, b], layers.Dense(1)(outputs))


def rows(samples):
    return [np.concatenate(parts) for parts in zip(*samples, strict=True)]


class Sequence(keras.utils.Sequence if hasattr(keras.utils, "Sequence") else keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return A[2 * index : 2 * index + 2], np.zeros(2)


def generator():
    yield A[:2]
    yield A[2:]


ONE = {
    "array": A,
    "list of one": [A],
    "dict": {"a": A},
    "eager tensor": tf.constant(A),
    "float64": A.astype("float64"),
    "integers": A.astype("int64"),
    "dataset": tf.data.Dataset.from_tensor_slices(A).batch(2),
    "labelled dataset": tf.data.Dataset.from_tensor_slices((A, np.zeros(5))).batch(2),
    "weighted dataset": tf.data.Dataset.from_tensor_slices((A, np.zeros(5), np.ones(5))).batch(2),
    "dataset of dicts": tf.data.Dataset.from_tensor_slices({"a": A}).batch(2),
    "generator function": generator,
    "generator": generator(),
    "batches": [A[:2], A[2:4], A[4:]],
    "batches of dicts": [{"a": A[:2]}, {"a": A[2:]}],
    "sequence": Sequence(),
}


@pytest.mark.parametrize("form", ONE)
def test_one_input_gives_its_rows_in_every_form_and_as_often_as_wanted(form):
    samples = Samples(ONE[form], inputs_of(one()), batch_size=2)
    for _ in range(2):
        (found,) = rows(samples)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, A)


TWO = {
    "list": [A, B],
    "tuple": (A, B),
    "dict": {"a": A, "b": B},
    "reversed dict": {"b": B, "a": A},
    "labelled dataset": tf.data.Dataset.from_tensor_slices(((A, B), np.zeros(5))).batch(2),
    "generator function": lambda: iter([(A[:3], B[:3]), (A[3:], B[3:])]),
}


@pytest.mark.parametrize("form", TWO)
def test_two_inputs_are_told_apart_in_every_form(form):
    a, b = rows(Samples(TWO[form], inputs_of(two()), batch_size=2))
    np.testing.assert_array_equal(a, A)
    np.testing.assert_array_equal(b, B)


@pytest.mark.parametrize("data", [{"first": A, "second": B}, {"second": B, "first": A}])
def test_a_dictionary_of_inputs_is_read_by_its_own_keys(data):
    model = two(as_dict=True)
    found = dict(zip([t.shape[1] for t in model.inputs], rows(Samples(data, inputs_of(model))), strict=True))
    np.testing.assert_array_equal(found[2], A)  # the input of two columns is "first"
    np.testing.assert_array_equal(found[3], B)


def test_arrays_are_cut_into_batches_and_limited():
    inputs = inputs_of(one())
    assert [len(batch[0]) for batch in Samples(A, inputs, batch_size=2)] == [2, 2, 1]
    assert [len(batch[0]) for batch in Samples(A, inputs, batch_size=2, limit=3)] == [2, 1]
    assert [len(batch[0]) for batch in Samples(A, inputs, batch_size=2, limit=4)] == [2, 2]


def nan():
    broken = A.copy()
    broken[3, 1] = np.nan
    return broken


REFUSED = {
    "empty array": (one, A[:0], ValueError, "`data` is empty: at least one sample is needed"),
    "no batches": (one, lambda: iter([]), ValueError, "`data` is empty"),
    "shape": (one, np.zeros((5, 3)), ValueError, r"input 'a' must have the shape \(N, 2\). Received: \(5, 3\)"),
    "rank": (one, np.zeros(5), ValueError, r"must have the shape \(N, 2\). Received: \(5,\)"),
    "nan": (one, nan(), ValueError, "input 'a' must be finite. Received: NaN or infinity in row 3"),
    "infinity": (one, np.full((2, 2), np.inf), ValueError, "must be finite"),
    "text": (one, np.array([["x", "y"]]), TypeError, "must hold float32 values. Received: <U1"),
    "inputs": (two, A, ValueError, r"must hold arrays for 'a' .* 'b' .*Received: one array"),
    "key": (two, {"a": A, "c": B}, ValueError, r"\['a', 'b'\] by name. Received: \['a', 'c'\], without \['b'\]"),
    "rows": (two, [A, B[:2]], ValueError, r"as many rows for each input. Received: \{'a': 5, 'b': 2\}"),
    "indices": (two, [A, B + 0.5], TypeError, "input 'b' must hold int32 values. Received: float64 that are no whole"),
    "type": (one, 3, TypeError, "must be arrays, batches .* Received: int"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_data_are_refused_with_the_reason(case):
    model, data, kind, words = REFUSED[case]
    with pytest.raises(kind, match=words):
        list(Samples(data, inputs_of(model())))


def test_the_error_names_the_parameter_of_the_user():
    with pytest.raises(ValueError, match="`calibration` is empty"):
        list(Samples(A[:0], inputs_of(one()), "calibration"))
    with pytest.raises(ValueError, match=r"`batch_size` must be a positive whole number. Received: batch_size=0"):
        Samples(A, inputs_of(one()), batch_size=0)


def test_whole_numbers_of_a_float_type_serve_as_indices():
    found = rows(Samples([A, B.astype("float32")], inputs_of(two())))[1]
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, B)
