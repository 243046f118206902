"""A file called like a function: real values in and out, on numbers worked out by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tests.tflite_export.handmade import dense, file_of, integer_dense, op, packed, tensor, unpacked
from tflite_export import ExportError, Runner, flatbuffer


def two_ends() -> bytes:
    """Inputs b [2, 1] and a [2, 1] (rows of two), outputs sum = b + a and difference = b - a."""
    tensors = [tensor((2, 1)), tensor((2, 1)), tensor((2, 1)), tensor((2, 1))]
    operators = [op("ADD", (0, 1), (2,), schema.AddOptionsT()), op("SUB", (0, 1), (3,), schema.SubOptionsT())]
    return file_of(tensors, operators, (0, 1), (2, 3), (("b", "a"), ("sum", "difference")))


@pytest.mark.parametrize("kernels", ["xnnpack", "builtin", "reference"])
def test_rows_of_any_number_run_through_a_file_of_one(kernels, tmp_path):
    path = tmp_path / "dense.tflite"
    path.write_bytes(dense())
    x = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, -1.0]])
    # W = [[1, 2], [0, -1], [3, 0]], b = [0.5, 0, -1]
    expected = [[1.5, 0, 2], [2.5, -1, -1], [0.5, 1, 5]]
    for file in (path, dense(), SimpleNamespace(content=dense())):
        y = Runner(file, kernels)(x)
        assert y.dtype == np.float32
        np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(Runner(path, kernels)([[1.0, 0.0]]), expected[:1])


@pytest.mark.parametrize("kernels", ["xnnpack", "builtin", "reference"])
def test_integer_file_takes_and_gives_real_values(kernels):
    runner = Runner(integer_dense(), kernels)
    # x = 0.5 (q - 1): [3, -2] is q = [7, -3]; y = W x with W = [[1, 2], [0, -1]] = [-1, 2]; q_y = y - 3 = [-4, -1].
    np.testing.assert_array_equal(runner([[3.0, -2.0]]), [[-1.0, 2.0]])
    raw = runner.integers([[3.0, -2.0]])
    assert raw.dtype == np.int8
    np.testing.assert_array_equal(raw, [[-4, -1]])
    np.testing.assert_array_equal(runner.integers(np.int8([[7, -3]])), [[-4, -1]])
    # A call never takes integers for codes: the real values 7 and -3 give W x = [7 - 6, 3].
    np.testing.assert_array_equal(runner(np.int8([[7, -3]])), [[1.0, 3.0]])
    # 1e6 saturates at the grid's last value, q = 127: x = 63.
    np.testing.assert_array_equal(runner([[1e6, 0.0]]), [[63.0, 0.0]])


def test_several_inputs_and_outputs_by_name_and_in_order():
    runner = Runner(two_ends())
    b, a = np.float32([[5], [6], [7], [8]]), np.float32([[1], [2], [3], [4]])
    assert list(runner.inputs) == ["b", "a"] and list(runner.outputs) == ["sum", "difference"]
    for x in ([b, a], (b, a), {"a": a, "b": b}):
        y = runner(x)
        assert list(y) == ["sum", "difference"]
        np.testing.assert_array_equal(y["sum"], [[6], [8], [10], [12]])
        np.testing.assert_array_equal(y["difference"], [[4]] * 4)


def test_rows_that_fill_no_batch_run_beside_copies_of_the_last():
    runner = Runner(two_ends())
    rows = np.arange(4, dtype="float32")[:, None]
    whole, part = runner([rows, rows + 10]), runner([rows[:3], rows[:3] + 10])
    for name in ("sum", "difference"):
        np.testing.assert_array_equal(part[name], whole[name][:3])


def test_wrong_inputs_are_told_what_was_expected():
    runner = Runner(two_ends())
    rows = np.zeros((4, 1), "float32")
    for x, message in (
        ({"a": rows}, r"inputs are \['b', 'a'\]. Received: \['a'\]"),
        ([rows], r"takes 2 inputs, \['b', 'a'\].*Received: 1 of them"),
        (rows, r"takes 2 inputs.*Received: ndarray"),
        ([rows, rows[:3]], r"same number of rows. Received: \{'b': 4, 'a': 3\}"),
        ([rows, rows[:, 0]], r"'a' float32\[2, 1\] takes an array of shape \[rows, 1\]. Received: \[4\]"),
        ([rows, np.zeros((4, 2))], r"shape \[rows, 1\]. Received: \[4, 2\]"),
        ([rows, rows[:0]], r"no rows"),
        ([rows, rows.astype(str)], r"takes real values. Received: an array of <U"),
    ):
        with pytest.raises(ValueError, match=message):
            runner(x)
    with pytest.raises(ValueError, match=r"'x'.*NaN"):
        Runner(integer_dense())([[np.nan, 0.0]])
    for wrong in ({"kernels": "fast"}, {"threads": 0}, {"signature": "none"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Runner(dense(), **wrong)
    with pytest.raises(ValueError, match="not a TFLite file"):
        Runner(b"nothing at all, really")


def test_indices_stay_integers():
    table = tensor((3, 2), data=np.float32([[0, 1], [10, 11], [20, 21]]))
    tensors = [tensor((1, 2), "INT32"), table, tensor((1, 2, 2))]
    content = file_of(tensors, [op("GATHER", (1, 0), (2,), schema.GatherOptionsT())], (0,), (2,))
    runner = Runner(content)
    np.testing.assert_array_equal(runner(np.int64([[2, 0], [1, 1]])), [[[20, 21], [0, 1]], [[10, 11], [10, 11]]])
    with pytest.raises(ValueError, match=r"whole numbers in an integer type\. Received: an array of float64"):
        runner(np.zeros((1, 2)))
    with pytest.raises(ValueError, match="do not fit the type"):
        runner(np.int64([[0, 1 << 40]]))


def test_sizes_left_open_follow_the_data():
    content = file_of([tensor((1, 1)), tensor((1, 1))], [op("NEG", (0,), (1,))], (0,), (1,))
    model = unpacked(content)
    model.subgraphs[0].tensors[0].shapeSignature = [-1, -1]
    runner = Runner(packed(model))
    np.testing.assert_array_equal(runner([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), [[-1, -2, -3], [-4, -5, -6]])
    np.testing.assert_array_equal(runner([[7.0]]), [[-7]])


def test_a_signature_of_another_subgraph_runs_by_name(shared):
    # The models add 1 and 2 (read off the constants of the file).
    file = shared / "data" / "tflite" / "mediapipe_two_signature_keys.tflite"
    x = {"first_input": np.ones((3, 1)), "second_input": np.ones((3, 2)), "third_input": np.ones((3, 3))}
    constants = {
        graph.index: sorted(float(t.values().ravel()[0]) for t in graph.tensors if t.data is not None)
        for graph in flatbuffer.read(file).subgraphs
    }
    for index, key in enumerate(("model_one", "model_two")):
        y = Runner(file, signature=key)(x)
        assert [y[f"output_{i}"].shape for i in range(3)] == [(3, 1), (3, 2), (3, 3)]
        assert sorted(float(y[name].ravel()[0]) - 1 for name in y) == constants[index]


def test_state_of_a_recurrent_operation_is_cleared_between_rows(shared):
    runner = Runner(shared / "data" / "tflite" / "tflm_trained_lstm_int8.tflite")
    x = np.random.default_rng(0).uniform(size=(5, 28, 28))
    alone = np.concatenate([runner.integers(row[None]) for row in x])
    np.testing.assert_array_equal(runner.integers(x), alone)
    np.testing.assert_array_equal(runner.integers(x[::-1]), alone[::-1])


def test_tensors_inside_are_read():
    content = file_of([tensor((1, 2)), tensor((1, 2)), tensor((1, 2))],
                      [op("ABS", (0,), (1,)), op("NEG", (1,), (2,))], (0,), (2,))  # fmt: skip
    for kernels in ("xnnpack", "reference"):
        runner = Runner(content, kernels)
        x = np.float32([[1, -2], [-3, 4]])
        inside = runner.tensors(x)
        np.testing.assert_array_equal(inside[1], [[1, 2], [3, 4]])
        np.testing.assert_array_equal(inside[2], [[-1, -2], [-3, -4]])
        assert list(runner.tensors(x, [1])) == [1]


def test_child_process_computes_the_same_and_imports_no_tensorflow(monkeypatch, tmp_path):
    # A package of that name that cannot be imported stands before the real one.
    (tmp_path / "tensorflow.py").write_text("raise ImportError('TensorFlow was imported')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    x = np.random.default_rng(0).normal(size=(6, 2))
    inside, child = Runner(integer_dense()), Runner(integer_dense(), process=True)
    np.testing.assert_array_equal(child(x), inside(x))
    np.testing.assert_array_equal(child.tensors(x)[3], inside.tensors(x)[3])
    y = Runner(two_ends(), "reference", process=True, signature="main")([np.ones((2, 1)), np.ones((2, 1))])
    np.testing.assert_array_equal(y["sum"], [[2], [2]])
    with pytest.raises(ValueError, match="shape"):
        child(np.zeros((1, 5)))


def test_what_kills_the_child_leaves_the_caller_alive(shared):
    runner = Runner(shared / "data" / "tflite" / "tflm_keyword_scrambled_8bit.tflite", process=True)
    with pytest.raises(ExportError, match=r"took its process down \(SIG(ABRT|SEGV)\)"):
        runner(np.zeros((1, 96), "uint8"))


@pytest.mark.parametrize("process", [False, True])
def test_a_file_that_the_runtime_refuses_says_why(shared, process):
    file = shared / "data" / "tflite" / "coral_invalid_model_invoking_error.tflite"
    with pytest.raises(ExportError, match=r"does not take the file: .*fake-op-double"):
        Runner(file, process=process)(np.zeros((1, 3), "uint8"))


def test_third_party_files_run_in_a_child_or_say_why(shared):
    expected = {
        "coral_mobilenet_v1_0.25_128_quant": (1, 1001),
        "litert_qwen_fc_blockwise_quantized": (1, 1, 1024),
        "litert_static_w8_a16_quantized_attn_vec_einsum": (8, 100, 128),
        "tflm_hello_world_int8": (1, 1),
    }
    for stem, shape in expected.items():
        runner = Runner(shared / "data" / "tflite" / f"{stem}.tflite", process=True)
        x = {name: np.zeros([max(1, size) for size in port.tensor.shape]) for name, port in runner.inputs.items()}
        assert runner(x).shape == shape


def test_hello_world_is_a_sine(shared):
    # The network of TFLM's first example was trained on sin(x); its published error is below 0.1 on average.
    x = np.linspace(0, 2 * np.pi, 200)[:, None]
    y = Runner(shared / "data" / "tflite" / "tflm_hello_world_int8.tflite")(x)
    assert np.mean(np.abs(y - np.sin(x))) < 0.1
