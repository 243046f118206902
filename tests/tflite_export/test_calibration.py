"""Representative data in every form it comes in."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from tflite_export.calibration import Input, batches, rows

IMAGE = Input("image", (2, 2), "float32")
IDS = Input("ids", (3,), "int32")
X = np.arange(20.0).reshape(5, 2, 2)
T = np.arange(15).reshape(5, 3)


@pytest.mark.parametrize(
    "data",
    [
        X,
        X.astype("float64"),
        X.astype("uint8"),
        [X],
        (X, np.zeros(5)),
        list(X),
        {"image": X},
        lambda: X,
        lambda: iter([X[:2], X[2:]]),
        [[X[:2]], [X[2:]]],
        [(X[:3], np.zeros(3)), (X[3:], np.zeros(2))],
        tf.data.Dataset.from_tensor_slices(X).batch(2),
        tf.data.Dataset.from_tensor_slices((X, np.zeros(5))).batch(4),
        tf.data.Dataset.from_tensor_slices((X, np.zeros(5), np.ones(5))),
        tf.constant(X),
    ],
    ids=str,
)
def test_one_input(data):
    (found,) = rows(data, [IMAGE])
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, X)


@pytest.mark.parametrize(
    "data",
    [
        [X, T],
        (X, T),
        {"ids": T, "image": X},
        [[X[:2], T[:2]], [X[2:], T[2:]]],
        [{"image": X, "ids": T}],
        [({"image": X, "ids": T}, np.zeros(5))],
        tf.data.Dataset.from_tensor_slices(({"image": X, "ids": T}, np.zeros(5))).batch(2),
        tf.data.Dataset.from_tensor_slices(((X, T), np.zeros(5))).batch(3),
    ],
    ids=lambda d: type(d).__name__,
)
def test_two_inputs(data):
    image, ids = rows(data, [IMAGE, IDS])
    np.testing.assert_array_equal(image, X)
    np.testing.assert_array_equal(ids, T)
    assert ids.dtype == np.int32


def test_an_endless_generator_is_read_up_to_the_limit():
    (found,) = rows((X[:1] + i for i in itertools.count()), [IMAGE], limit=7)
    assert found[:, 0, 0].tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_of_a_long_array_a_seeded_choice_is_used():
    long = np.arange(1000.0).reshape(1000, 1)
    spec = [Input("x", (1,), "float32")]
    first, again, other = (rows(long, spec, limit=10, seed=s)[0].ravel() for s in (0, 0, 1))
    assert len(set(first)) == 10 and (first == again).all() and (first != other).any()
    assert first.max() > 500  # not the first ten


@pytest.mark.parametrize(
    "data, error, said",
    [
        (np.zeros((0, 2, 2)), ValueError, "empty"),
        ([], ValueError, "empty"),
        (np.zeros((5, 3, 2)), ValueError, r"'image' must have the shape \(N, 2, 2\). Received: \(5, 3, 2\)"),
        ({"img": X}, ValueError, r"'image'.*Received: \['img'\]"),
        (np.full((2, 2, 2), np.nan), ValueError, "'image' must be finite.*row 0"),
        (np.where(np.arange(5)[:, None, None] == 3, np.inf, X), ValueError, "row 3"),
        (X.astype(str), TypeError, "'image' must hold float32"),
        (X.astype(complex), TypeError, "complex128"),
        ("folder/*.png", TypeError, "str"),
        (3, TypeError, "int"),
    ],
    ids=lambda v: str(v)[:20],
)
def test_wrong_data_are_refused(data, error, said):
    with pytest.raises(error, match=said):
        rows(data, [IMAGE])


def test_real_numbers_are_no_tokens():
    with pytest.raises(TypeError, match="'ids' must hold int32"):
        rows(T + 0.5, [IDS])


def test_inputs_of_different_length_are_refused():
    with pytest.raises(ValueError, match=r"{'image': 5, 'ids': 4}"):
        rows([X, T[:4]], [IMAGE, IDS])


def test_batches_are_whole():
    found = batches([np.arange(7), np.arange(7) * 10], 3)
    assert [[a.tolist() for a in b] for b in found] == [[[0, 1, 2], [0, 10, 20]], [[3, 4, 5], [30, 40, 50]]]
    assert [b[0].tolist() for b in batches([np.array([1, 2])], 5)] == [[1, 2, 1, 2, 1]]
