import base64

import numpy as np
import pytest

from tests.tflite_export.handmade import dense, file_of, integer_dense, op, tensor
from tflite_export import ExportError
from tflite_export.bench.inputs import Feeds, feeds
from tflite_export.bench.job import Named
from tflite_export.bench.wasm import TFJS, comparable, meaning, outputs_of, refusal, request_of, result_of
from tflite_export.flatbuffer import read


def sent(name: str, array: np.ndarray) -> dict:
    data = base64.b64encode(array.tobytes()).decode()
    return {"name": name, "type": str(array.dtype), "shape": list(array.shape), "data": data}


FIELDS = {"device": "here", "runtime": "LiteRT.js", "version": "1", "threads": 1}


@pytest.mark.parametrize(
    ("said", "part"),
    [
        ("Element type INT8 is not supported.", "inputs or outputs of INT8: export it with inputs='float32'"),
        ("TensorBuffer ranked tensor type Float32[1, 2] does not match expected ranked tensor type Float32[-1, 2]",
         "fixed batch_size"),
        ("Failed to load model | ERROR: [model_load.cc:290] Variable tensors not yet supported.", "use tfjs-tflite"),
        ("ERROR: Encountered unresolved custom op: tftext:Whitespace.See", "no operation tftext:Whitespace"),
        ("INVALID_ARGUMENT | ERROR: Unsupported data type 17 in tensor", "use LiteRT.js"),
    ],
)  # fmt: skip
def test_refusals_say_the_way_out_and_keep_the_words(said, part):
    assert part in meaning(said) and said in meaning(said)


def test_other_words_stay():
    assert meaning("memory access out of bounds") == "memory access out of bounds"


def test_a_request_holds_the_bytes_of_each_inference():
    given = feeds(integer_dense(), np.float32([[0.0, 1.0], [1.5, 2.0]]))
    request = request_of([Named("f", integer_dense())], [given], 7, warm=3)
    assert (request["runs"], request["warm"]) == (7, 3)
    first, second = request["files"][0]["feeds"]
    # real = 0.5 (q - 1): 0, 1 -> 1, 3 and 1.5, 2 -> 4, 5
    assert base64.b64decode(first[0]["data"]) == bytes([1, 3]) and base64.b64decode(second[0]["data"]) == bytes([4, 5])
    assert (first[0]["type"], first[0]["shape"]) == ("int8", [1, 2])


def test_text_is_refused():
    words = Feeds({"x": np.array([b"a"])}, 1, True)
    with pytest.raises(ExportError, match="input 'x' takes text"):
        request_of([Named("f", b"")], [words], 1)


def test_outputs_are_found_by_name_then_by_tensor_then_by_order():
    model, value = read(integer_dense()), np.int8([[1, 2]])
    for name in ("y", "unknown"):
        (got,) = outputs_of(model, [[sent(name, value)], [sent(name, value + 1)]]).values()
        assert got.tolist() == [[[1, 2]], [[2, 3]]]
    names = (("a",), ("b",))  # of the signature; the runtime may tell the tensors' names instead
    tensors = [tensor((1, 4), name="x"), tensor((1, 4), name="z")]
    model = read(file_of(tensors, [op("TANH", (0,), (1,))], (0,), (1,), names))
    assert list(outputs_of(model, [[sent("z", np.zeros((1, 4), "f"))]])) == ["b"]


def test_outputs_that_do_not_fill_their_shape_are_no_outputs():
    output = {**sent("y", np.int8([[1, 2]])), "shape": []}
    with pytest.raises(ExportError, match=r"output 'y' of shape \[\] came back with 2 values"):
        outputs_of(read(integer_dense()), [[output]])
    with pytest.raises(ExportError, match="gave 0 outputs, the file has 1"):
        outputs_of(read(integer_dense()), [[]])


def answer(output: np.ndarray, **more) -> dict:
    times = {"init": 5.0, "first": 3.0, "turns": [[1.0, 2.0], [3.0]]}
    return {"name": "f", **times, "outputs": [[sent("y", output)]], **more}


def test_a_result_has_the_figures_and_the_check():
    given = feeds(dense(), np.float32([[1, 2]]))
    right = answer(np.float32([[5.5, -2, 2]]))
    result = result_of(Named("f", dense()), given, right, right, None, FIELDS)
    assert (result.status, result.median, result.min, result.init, result.first, result.runs) == ("ok", 2, 1, 5, 3, 3)
    assert result.agreement is not None and result.agreement.equal == 1.0 and result.ratio is None
    slower = {**right, "turns": [[2.0, 2.0], [9.0]]}
    assert result_of(Named("f", dense()), given, right, slower, right, FIELDS).ratio == pytest.approx((2 / 1.5 + 3) / 2)


def test_quick_garbage_is_a_failure():
    given, garbage = feeds(dense(), np.float32([[1, 2]])), answer(np.zeros((1, 3), "f"))
    result = result_of(Named("f", dense()), given, garbage, garbage, None, FIELDS)
    assert result.status == "failed" and "its outputs are not the file's" in result.reason


def test_an_error_is_a_failure_with_its_meaning():
    refused = {"name": "f", "error": "Element type INT8 is not supported."}
    result = result_of(Named("f", dense()), feeds(dense()), refused, None, None, FIELDS)
    assert result.status == "failed" and result.reason.startswith("LiteRT.js takes and gives float32")


def test_state_that_nobody_clears_leaves_one_inference_to_compare():
    tensors = [tensor((1, 2), name="x"), tensor((1, 2), variable=True), tensor((1, 2), name="y")]
    content = file_of(tensors, [op("ADD", (0, 1), (2,))], (0,), (2,))
    assert comparable(content, feeds(content, times=4)).times == 1
    assert comparable(dense(), feeds(dense(), times=4)).times == 4


def test_another_subgraph_is_refused_where_the_first_alone_runs(shared):
    content = (shared / "data" / "tflite" / "mediapipe_two_signature_keys.tflite").read_bytes()
    expected = "first subgraph alone" if read(content).signature().subgraph else ""
    assert expected in refusal(content, TFJS) and refusal(dense(), TFJS) == ""
