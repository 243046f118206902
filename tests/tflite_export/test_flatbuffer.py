"""Reading flatbuffers: what is in them comes out, what is damaged is refused with a reason."""

import time
from types import SimpleNamespace

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tests.tflite_export.handmade import dense, file_of, integer_dense, op, packed, tensor, unpacked
from tflite_export import flatbuffer


def test_bytes_path_and_object_with_content_read_alike(tmp_path):
    content = dense()
    path = tmp_path / "dense.tflite"
    path.write_bytes(content)
    for file in (content, bytearray(content), memoryview(content), path, str(path), SimpleNamespace(content=content)):
        graph = flatbuffer.read(file).subgraphs[0]
        assert [o.kind for o in graph.operators] == ["FULLY_CONNECTED"]
        assert graph.tensors[1].values().tolist() == [[1, 2], [0, -1], [3, 0]]
        assert graph.tensors[3].data is None and graph.tensors[3].shape == (1, 3)


def test_what_is_no_file_is_refused_with_path_and_reason(tmp_path):
    whole = dense()
    for content, reason in (
        (b"", "empty"),
        (whole[:10], "only 10 bytes"),
        (b"PK\x03\x04" + bytes(100), "TFL3"),
        (b"\xff\xff\xff\x7fTFL3" + bytes(100), "damaged or cut off"),
        (whole[:200], "damaged or cut off"),
    ):
        path = tmp_path / "broken.tflite"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=reason):
            flatbuffer.read(content)
        with pytest.raises(ValueError, match=r"broken\.tflite"):
            flatbuffer.read(path)
        with pytest.raises(ValueError, match=reason):
            flatbuffer.load(content)
    with pytest.raises(TypeError, match=r"bytes, a path or an object with `\.content`. Received: int"):
        flatbuffer.read(3)
    with pytest.raises(FileNotFoundError):
        flatbuffer.read(tmp_path / "absent.tflite")


def test_a_file_cut_anywhere_in_its_tables_or_constants_is_refused():
    whole = integer_dense()
    # The last constant ends with the file up to 15 bytes of padding, so each shorter file lacks something.
    for size in range(0, len(whole) - 16, 7):
        with pytest.raises(ValueError):
            flatbuffer.read(whole[:size])


def test_a_number_that_points_nowhere_is_named():
    model = unpacked(dense())
    model.subgraphs[0].operators[0].inputs = [0, 77, 2]
    with pytest.raises(ValueError, match=r"operator 0 \(FULLY_CONNECTED\) names tensor 77 of 4"):
        flatbuffer.read(packed(model))
    model = unpacked(dense())
    model.subgraphs[0].tensors[1].buffer = 9
    with pytest.raises(ValueError, match="tensor 1 names buffer 9 of 3"):
        flatbuffer.read(packed(model))


def test_operator_code_is_the_larger_of_the_two_numbers():
    # 150 is GELU: too large for the old byte, which holds 127 instead. Files from before 2020 leave the new field 0.
    for builtin, deprecated, kind in ((150, 127, "GELU"), (0, 3, "CONV_2D"), (9, 9, "FULLY_CONNECTED")):
        model = unpacked(dense())
        model.operatorCodes[0].builtinCode, model.operatorCodes[0].deprecatedBuiltinCode = builtin, deprecated
        content = packed(model)
        assert flatbuffer.read(content).subgraphs[0].operators[0].kind == kind
        loaded = flatbuffer.load(content)
        assert flatbuffer.kind(loaded, loaded.subgraphs[0].operators[0]) == kind


def test_custom_operation_has_its_own_name():
    content = file_of([tensor((1,)), tensor((1,))], [op("my_op", (0,), (1,))], (0,), (1,))
    found = flatbuffer.read(content).subgraphs[0].operators[0]
    assert (found.kind, found.is_custom) == ("my_op", True)
    loaded = flatbuffer.load(content)
    assert flatbuffer.kind(loaded, loaded.subgraphs[0].operators[0]) == "my_op"


def test_load_and_store_keep_every_number():
    content = integer_dense()
    again = flatbuffer.store(flatbuffer.load(content))
    assert again[4:8] == b"TFL3"
    for before, after in zip(*(flatbuffer.read(c).subgraphs[0].tensors for c in (content, again)), strict=True):
        assert (before.name, before.shape, before.type) == (after.name, after.shape, after.type)
        assert (before.data is None) == (after.data is None)
        if before.data is not None:
            assert before.values().tolist() == after.values().tolist()
        assert before.quantization.scale.tolist() == after.quantization.scale.tolist()


def test_stored_constants_lie_on_16_byte_boundaries():
    tensors = [tensor((n,), "INT8", data=np.ones(n, "int8")) for n in (1, 3, 16, 21)] + [tensor((1,)), tensor((1,))]
    content = flatbuffer.store(flatbuffer.load(file_of(tensors, [op("ABS", (4,), (5,))], (4,), (5,))))
    start = np.frombuffer(content, np.uint8).ctypes.data
    constants = [t.data for t in flatbuffer.read(content).subgraphs[0].tensors if t.data is not None]
    assert [(data.ctypes.data - start) % 16 for data in constants] == [0, 0, 0, 0]


def test_packed_values_come_low_bits_first():
    # 0x7F: low nibble 15 = -1, high nibble 7; 0x08: -8, then padding. As 2 bits 0b11_10_01_00: 0, 1, -2, -1.
    four = tensor((3,), "INT4", data=np.uint8([0x7F, 0x08]))
    two = tensor((4,), "INT2", data=np.uint8([0b11_10_01_00]))
    unsigned = tensor((2,), "UINT4", data=np.uint8([0xF1]))
    found = flatbuffer.read(file_of([four, two, unsigned], [], (), ())).subgraphs[0].tensors
    assert [t.values().tolist() for t in found] == [[-1, 7, -8], [0, 1, -2, -1], [1, 15]]


def test_bfloat16_is_the_upper_half_of_float32():
    # 1.5 = 0x3FC00000, -2 = 0xC0000000
    found = flatbuffer.read(file_of([tensor((2,), "BFLOAT16", data=np.uint16([0x3FC0, 0xC000]))], [], (), ()))
    assert found.subgraphs[0].tensors[0].values().tolist() == [1.5, -2.0]


def test_constant_of_another_size_than_its_shape_is_refused():
    found = flatbuffer.read(file_of([tensor((3,), data=np.float32([1, 2]))], [], (), ()))
    with pytest.raises(ValueError, match=r"'t0'.*shape \[3\] needs 3 values, the file holds 2"):
        found.subgraphs[0].tensors[0].values()


def test_buffer_behind_the_flatbuffer_is_found():
    model = unpacked(dense())
    model.buffers[1].data = None
    model.buffers[1].offset, model.buffers[1].size = 1 << 20, 24
    content = packed(model).ljust(1 << 20, b"\0") + np.float32([9, 8, 7, 6, 5, 4]).tobytes()
    assert flatbuffer.read(content).subgraphs[0].tensors[1].values().ravel().tolist() == [9, 8, 7, 6, 5, 4]
    with pytest.raises(ValueError, match="cut off"):
        flatbuffer.read(content[:-1])


def test_signature_lists_names_in_the_order_of_the_graph():
    tensors = [tensor((1,), name="tensor_of_b"), tensor((1,), name="tensor_of_a"), tensor((1,), name="sum")]
    operators = [op("ADD", (0, 1), (2,), schema.AddOptionsT())]
    named = flatbuffer.read(file_of(tensors, operators, (0, 1), (2,), (("b", "a"), ("out",))))
    assert (list(named.signature("main").inputs), list(named.signature().outputs)) == (["b", "a"], ["out"])
    with pytest.raises(ValueError, match=r"one of \['main'\]. Received: signature='other'"):
        named.signature("other")
    bare = flatbuffer.read(file_of(tensors, operators, (0, 1), (2,)))
    assert list(bare.signature().inputs) == ["tensor_of_b", "tensor_of_a"]


def test_third_party_files_read(shared):
    # Numbers of operators as `tf.lite.experimental.Analyzer` prints them.
    expected = {
        "coral_mobilenet_v1_0.25_128_quant": [31],
        "mediapipe_face_detection_short_range_fp16": [164],
        "mediapipe_two_signature_keys": [3, 3],
        "support_dilated_conv": [25],
        "tflm_keyword_scrambled_8bit": [15],
    }
    files = sorted((shared / "data" / "tflite").glob("*.tflite"))
    assert len(files) == 16
    for file in files:
        model = flatbuffer.read(file)
        if file.stem in expected:
            assert [len(graph.operators) for graph in model.subgraphs] == expected[file.stem]
        again = flatbuffer.read(flatbuffer.store(flatbuffer.load(file.read_bytes())))
        assert [o.kind for g in again.subgraphs for o in g.operators] == [
            o.kind for g in model.subgraphs for o in g.operators
        ]


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_are_read_or_refused_within_a_second(shared, seed):
    rng = np.random.default_rng(seed)
    for file in sorted((shared / "data" / "tflite").glob("*.tflite")):
        whole = np.frombuffer(file.read_bytes(), np.uint8)
        for _ in range(6):
            broken = whole.copy()
            where = rng.integers(0, min(len(whole), 4000), 12)
            broken[where] = rng.integers(0, 256, 12)
            begin = time.perf_counter()
            try:
                flatbuffer.read(broken.tobytes())
            except ValueError as error:
                assert "not a " in str(error)
            assert time.perf_counter() - begin < 1


def test_equal_vectors_of_numbers_are_written_once():
    def content(size):
        kernel = tensor([size, 1, 1, 4], "INT8", np.ones((size, 1, 1, 4), "int8"), [0.5] * size, [0] * size)
        bias = tensor([size], "INT32", np.arange(size, dtype="int32"), [0.25] * size, [0] * size)
        ends = [tensor([1, 2, 2, channels], "INT8", scale=0.5, zero=0) for channels in (4, size)]
        options = schema.Conv2DOptionsT(strideH=1, strideW=1)
        return file_of([*ends, kernel, bias], [op("CONV_2D", [0, 2, 3], [1], options)], [0], [1])

    once = flatbuffer.store(flatbuffer.load(content(64)))
    assert len(content(64)) - len(once) >= 64 * 8  # the zero points, of 64 bits
    assert flatbuffer.store(flatbuffer.load(once)) == once
    before, after = (flatbuffer.read(c).subgraphs[0] for c in (content(64), once))
    for one, other in zip(before.tensors, after.tensors, strict=True):
        assert one.shape == other.shape and np.array_equal(one.quantization.scale, other.quantization.scale)
        assert np.array_equal(one.quantization.zero_point, other.quantization.zero_point)
