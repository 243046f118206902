"""What a file is said to hold, against numbers worked out by hand."""

import gzip
import json

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tests.tflite_export.handmade import dense, file_of, integer_dense, op, packed, tensor, unpacked
from tflite_export import describe
from tflite_export.files import gzipped


def one(kind, shapes, outputs, options=None, constants=()):
    """A file of one operation over tensors of these shapes (None: an input that is left out)."""
    tensors, inputs = [], []
    for place, shape in enumerate(shapes):
        if shape is None:
            inputs.append(-1)
            continue
        inputs.append(len(tensors))
        tensors.append(tensor(shape, data=np.ones(shape, "float32") if place in constants else None))
    made = list(range(len(tensors), len(tensors) + len(outputs)))
    tensors += [tensor(shape) for shape in outputs]
    return file_of(tensors, [op(kind, inputs, made, options)], (0,), made)


LSTM = [(2, 5, 3), *[(4, 3)] * 4, *[(4, 4)] * 4, None, None, None, *[(4,)] * 4, None, None, (2, 4), (2, 4)]
CIFG = [*LSTM[:1], None, *LSTM[2:5], None, *LSTM[6:]]
MACS = {
    # 2 x 7 x 5 x 6 outputs, each of 3 x 3 x 4 products
    "conv": (("CONV_2D", [(2, 9, 7, 4), (6, 3, 3, 4), (6,)], [(2, 7, 5, 6)]), 2 * 7 * 5 * 6 * 36),
    # two groups: the kernel holds 4 of the 8 channels
    "grouped conv": (("CONV_2D", [(1, 5, 5, 8), (6, 1, 1, 4), (6,)], [(1, 5, 5, 6)]), 25 * 6 * 4),
    # 8 output channels (multiplier 2), each of 3 x 3 products
    "depthwise": (("DEPTHWISE_CONV_2D", [(1, 6, 6, 4), (1, 3, 3, 8), (8,)], [(1, 4, 4, 8)]), 16 * 8 * 9),
    # 5 rows of 3 outputs, each of 7 products
    "fully connected": (("FULLY_CONNECTED", [(5, 7), (3, 7), None], [(5, 3)]), 105),
    # each of 1 x 3 x 3 x 4 inputs goes into 2 x 2 x 5 outputs
    "transposed conv": (("TRANSPOSE_CONV", [(4,), (5, 2, 2, 4), (1, 3, 3, 4)], [(1, 6, 6, 5)]), 36 * 20),
    # 2 x 3 x 3 x 6 outputs, each of 3 x 2 x 2 x 4 products
    "conv 3d": (("CONV_3D", [(1, 4, 4, 4, 4), (3, 2, 2, 4, 6), (6,)], [(1, 2, 3, 3, 6)]), 108 * 48),
    # 10 x 2 matrices of 3 x 5 elements, each of 4 products
    "batch matmul": (("BATCH_MATMUL", [(10, 2, 3, 4), (10, 2, 4, 5)], [(10, 2, 3, 5)]), 20 * 15 * 4),
    # x^T y with x [4, 3], y [4, 5]: 3 x 5 elements of 4 products
    "batch matmul, left transposed": (
        ("BATCH_MATMUL", [(4, 3), (4, 5)], [(3, 5)], schema.BatchMatMulOptionsT(adjX=True)),
        60,
    ),
    # 2 rows x 5 steps, 4 gates of (3 + 4) x 4 products each
    "lstm": (("UNIDIRECTIONAL_SEQUENCE_LSTM", LSTM, [(2, 5, 4)]), 10 * 4 * 28),
    # input and forget gate coupled: 3 gates
    "lstm with 3 gates": (("UNIDIRECTIONAL_SEQUENCE_LSTM", CIFG, [(2, 5, 4)]), 10 * 3 * 28),
    "add": (("ADD", [(1, 4), (1, 4)], [(1, 4)]), 0),
}


@pytest.mark.parametrize("name", MACS)
def test_multiply_accumulates(name):
    arguments, expected = MACS[name]
    found = describe(one(*arguments))
    assert found.macs() == expected
    assert found.operations[0].macs == expected


def test_multiply_accumulates_of_published_networks(shared):
    # MobileNetV1 0.25 at 128 x 128: 14 million (Howard et al. 2017, table 8, gives 41 at 224: x (128/224)^2 = 13.4).
    found = describe(shared / "data" / "tflite" / "coral_mobilenet_v1_0.25_128_quant.tflite")
    assert found.macs() == pytest.approx(13.4e6, rel=0.03)


def test_zeros_count_zero_points_and_unpacked_values_of_kernels_only():
    tensors = [
        tensor((1, 4), "UINT8", scale=1.0, zero=0),
        # zero point 3: three of eight values stand for 0
        tensor((2, 4), "UINT8", data=np.uint8([3, 3, 0, 1, 3, 9, 9, 9]), scale=1.0, zero=3),
        tensor((2,), "INT32", data=np.zeros(2, "int32"), scale=1.0),
        tensor((1, 2), "UINT8", scale=1.0, zero=0),
        # -1, 0, 0, 7: two of four
        tensor((2, 2), "INT4", data=np.uint8([0x0F, 0x70]), scale=1.0),
        tensor((1, 2), "UINT8", scale=1.0, zero=0),
    ]
    operators = [op("FULLY_CONNECTED", (0, 1, 2), (3,)), op("FULLY_CONNECTED", (3, 4, -1), (5,))]
    found = describe(file_of(tensors, operators, (0,), (5,)))
    assert found.zeros() == pytest.approx(5 / 12)  # (3 + 2) / (8 + 4); the bias is no kernel
    assert [(k.name, k.zeros, k.distinct, k.bytes) for k in found.kernels] == [("t1", 3 / 8, 4, 8), ("t4", 0.5, 3, 2)]
    assert found.distinct == {"t1": 4, "t4": 3}


def test_zero_points_differ_along_the_axis():
    # Row 0 has zero point 1 (one hit), row 1 zero point 2 (two hits).
    kernel = tensor((2, 3), "UINT8", data=np.uint8([1, 2, 3, 1, 2, 2]), scale=[1.0, 1.0], zero=[1, 2], axis=0)
    content = file_of([tensor((1, 3)), kernel, tensor((1, 2))], [op("FULLY_CONNECTED", (0, 1, -1), (2,))], (0,), (2,))
    assert describe(content).zeros() == 0.5
    assert describe(content).tensors[1].axis == 0


def test_sparse_kernel_counts_what_it_does_not_store():
    kernel = tensor((4, 4), data=np.float32([1, 2, 3]))
    content = file_of([tensor((1, 4)), kernel, tensor((4, 4)), tensor((1, 4))],
                      [op("DENSIFY", (1,), (2,)), op("FULLY_CONNECTED", (0, 2, -1), (3,))], (0,), (3,))  # fmt: skip
    model = unpacked(content)
    model.subgraphs[0].tensors[1].sparsity = schema.SparsityParametersT(traversalOrder=[0, 1])
    found = describe(packed(model))
    # 3 of 16 values are stored; 0 is the fourth different value
    assert found.zeros() == 13 / 16 and found.distinct == {"t1": 4}


def test_half_precision_kernel_is_found_behind_its_dequantize():
    kernel = tensor((2, 2), "FLOAT16", data=np.float16([0.5, 0, 0, 0.25]), name="half")
    operators = [op("DEQUANTIZE", (1,), (2,)), op("FULLY_CONNECTED", (0, 2, -1), (3,))]
    found = describe(file_of([tensor((1, 2)), kernel, tensor((2, 2)), tensor((1, 2))], operators, (0,), (3,)))
    assert [(k.name, k.kind, k.zeros, k.distinct) for k in found.kernels] == [("half", "FULLY_CONNECTED", 0.5, 3)]


def test_bytes_are_counted_once():
    shared_bias = np.zeros(2, "float32")
    tensors = [tensor((1, 2), name="x"), tensor((2, 2), data=np.eye(2, dtype="float32"), name="w"),
               tensor((2,), data=shared_bias, name="b"), tensor((1, 2)), tensor((1, 2))]  # fmt: skip
    operators = [op("FULLY_CONNECTED", (0, 1, 2), (3,)), op("FULLY_CONNECTED", (3, 1, 2), (4,)), op("RELU", (3,), (4,))]
    found = describe(file_of(tensors, operators, (0,), (4,)))
    assert found.bytes_by_tensor == {"w": 16, "b": 8}  # 4 floats, 2 floats
    assert found.bytes_by_operation == {"FULLY_CONNECTED": 24, "RELU": 0}
    assert [row.bytes for row in found.operations] == [24, 0, 0]
    # Two tensors of one buffer: the bytes are the first one's.
    model = unpacked(dense())
    model.subgraphs[0].tensors[2].buffer = model.subgraphs[0].tensors[1].buffer
    model.subgraphs[0].tensors[2].shape = [6]
    assert describe(packed(model)).bytes_by_tensor == {"w": 24}


def test_float_operations_leave_out_the_ends_of_an_integer_file():
    tensors = [
        tensor((1, 2), name="x"),
        tensor((1, 2), "INT8", scale=0.5, zero=0),
        tensor((1, 2), name="inside"),
        tensor((1, 2), name="rounded"),
        tensor((1, 2), "INT8", scale=0.5, zero=0),
        tensor((1, 2), name="y"),
    ]
    operators = [
        op("QUANTIZE", (0,), (1,)),
        op("DEQUANTIZE", (1,), (2,)),
        op("ROUND", (2,), (3,)),
        op("QUANTIZE", (3,), (4,)),
        op("DEQUANTIZE", (4,), (5,)),
    ]
    found = describe(file_of(tensors, operators, (0,), (5,)))
    assert [row.kind for row in found.float_operations()] == ["DEQUANTIZE", "ROUND", "QUANTIZE"]
    assert describe(integer_dense()).float_operations() == ()
    assert len(describe(dense()).float_operations()) == 1


def test_names_grids_and_metadata_are_listed(shared):
    found = describe(integer_dense())
    assert list(found.inputs) == ["x"] and list(found.outputs) == ["y"]
    assert (found.inputs["x"].scales, found.inputs["x"].zero_points) == ((0.5,), (1,))
    assert found.operations[0].types == "INT8 x2,INT32 -> INT8" and found.operations[0].inputs == ("x", "w", "b")
    assert found.signatures[0].key == "main"
    two = describe(shared / "data" / "tflite" / "mediapipe_two_signature_keys.tflite")
    assert [s.key for s in two.signatures] == ["model_one", "model_two"]
    assert two.metadata["min_runtime_version"] == 16


def test_gzip_bytes_are_those_of_the_packed_file():
    content = dense()
    small = gzipped(content)
    assert describe(content).gzip_bytes() == len(small) <= len(gzip.compress(content, compresslevel=9))
    assert gzip.decompress(small) == content


def test_kernels_with_zeros_take_less_than_gzip_looks_for():
    rng = np.random.default_rng(0)
    kernel = (rng.normal(size=40_000) * 32 * rng.integers(0, 2, 40_000)).astype("int8").tobytes()
    assert gzip.decompress(gzipped(kernel)) == kernel
    assert len(gzipped(kernel)) < 0.95 * len(gzip.compress(kernel, compresslevel=9))


def test_prints_as_tables_and_as_json(tmp_path):
    path = tmp_path / "small[1].tflite"
    path.write_bytes(integer_dense())
    found = describe(path)
    text = found.text(tensors=True, gzip_bytes=7)
    # 2 outputs of 2 products; q_w holds 4, 8, 0, -4: one zero of four
    for words in (str(path), "FULLY_CONNECTED", "INT8 x2,INT32 -> INT8", "0.5 * (q - 1)", "25.0 %", "after gzip"):
        assert words in text
    assert "after gzip" not in str(found)
    rows = json.loads(json.dumps(found.rows()))
    assert rows["macs"] == 4 and rows["operations"][0]["kind"] == "FULLY_CONNECTED" and rows["zeros"] == 0.25


def test_a_name_of_a_megabyte_is_cut():
    content = file_of([tensor((1,), name="n" * 1_000_000), tensor((1,))], [op("a" * 1_000_000, (0,), (1,))], (0,), (1,))
    assert len(describe(content).text(tensors=True)) < 20_000


def test_a_constant_that_does_not_fill_its_shape_is_refused(tmp_path):
    path = tmp_path / "short.tflite"
    path.write_bytes(file_of([tensor((3, 3), data=np.float32([1]), name="w")], [], (), ()))
    with pytest.raises(ValueError, match=r"'w'.*shape \[3, 3\] needs 9 values, the file holds 1"):
        describe(path)
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"short\.tflite is not a TFLite file: only 7 bytes"):
        describe(path)


def test_third_party_files_are_described(shared):
    for file in sorted((shared / "data" / "tflite").glob("*.tflite")):
        found = describe(file)
        assert sum(found.bytes_by_tensor.values()) < found.size == file.stat().st_size
        assert found.operations[0].kind in str(found)
    blockwise = describe(shared / "data" / "tflite" / "litert_qwen_fc_blockwise_quantized.tflite")
    # 1024 x 1024 codes of four bits: sixteen values, half a megabyte
    assert [(k.type, k.distinct, k.bytes) for k in blockwise.kernels] == [("INT4", 16, 1024 * 1024 // 2)]
