import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tests.tflite_export.handmade import dense, file_of, integer_dense, op, tensor
from tflite_export.bench.inputs import feeds


def one_input(kind, **fields):
    """A file that hands its only input, [2, 50], on."""
    tensors = [tensor((2, 50), kind, name="x", **fields), tensor((2, 50), kind, name="y", **fields)]
    return file_of(tensors, [op("CAST", (0,), (1,))], (0,), (1,))


@pytest.mark.parametrize(
    "kind, low, high, distinct",
    [("FLOAT32", 0, 1, 800), ("FLOAT16", 0, 1, 300), ("BOOL", 0, 1, 2), ("INT32", 0, 1, 2), ("INT64", 0, 1, 2)],
)
def test_made_up_values_fit_the_type(kind, low, high, distinct):
    found = feeds(one_input(kind), times=8)
    values = found.arrays["x"]
    assert found.generated and found.times == 8
    assert values.shape == (16, 50) and values.dtype == kind.lower()
    assert values.min() >= low and values.max() <= high and len(np.unique(values)) >= distinct


def test_quantized_inputs_take_every_integer():
    values = feeds(one_input("INT8", scale=0.5, zero=3), times=50).arrays["x"]
    assert set(np.unique(values)) == set(range(-128, 128))


def test_a_real_input_that_is_quantized_takes_the_grid_s_range():
    # Integers -128 to 127 around -28 in steps of 0.5 are -50 to 77.5.
    tensors = [tensor((1, 500), name="x"), tensor((1, 500), "INT8", scale=0.5, zero=-28)]
    content = file_of(tensors, [op("QUANTIZE", (0,), (1,), schema.QuantizeOptionsT())], (0,), (1,))
    values = feeds(content).arrays["x"]
    assert -50 <= values.min() < -45 and 72 < values.max() <= 77.5


def test_indices_stay_within_the_table_that_they_look_up():
    # x -> RESHAPE -> GATHER of a table of 5 rows.
    tensors = [
        tensor((1, 40), "INT32", name="x"),
        tensor((40,), "INT32"),
        tensor((5, 3), data=np.zeros((5, 3), "float32")),
        tensor((40, 3)),
    ]
    operators = [op("RESHAPE", (0,), (1,)), op("GATHER", (2, 1), (3,), schema.GatherOptionsT())]
    values = feeds(file_of(tensors, operators, (0,), (3,))).arrays["x"]
    assert set(np.unique(values)) == {0, 1, 2, 3, 4}


def test_made_up_values_are_the_same_every_time():
    first, again, other = (feeds(dense(), seed=seed).arrays["x"] for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_samples_are_quantized_and_dealt_out_by_turns():
    # q = x / 0.5 + 1
    found = feeds(integer_dense(), np.float32([[0, 1], [2, 3], [4, 5]]))
    assert not found.generated and found.times == 3
    assert [found.turn(n)[0].tolist() for n in (0, 2, 3)] == [[[1, 3]], [[9, 11]], [[1, 3]]]
    assert found.head(2).times == 2 and found.head(9).times == 3
    assert found.head(2).arrays["x"].tolist() == [[1, 3], [5, 7]]
    with pytest.raises(ValueError, match="shape"):
        feeds(integer_dense(), np.zeros((3, 7)))
