"""Metadata as Android's Task library and MediaPipe read it: written, read back, and read by others."""

import io
import random
import struct
import zipfile
from types import SimpleNamespace

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tests.tflite_export.handmade import dense, file_of, integer_dense, op, packed, tensor, unpacked
from tflite_export import Runner, metadata_schema, read_metadata, write_metadata
from tflite_export.flatbuffer import read
from tflite_export.metadata_tensor import TensorMetadata

CLASSES = ["cat", "dög", "a bird, flying"]


def classifier() -> bytes:
    """image [1, 4, 4, 3] -> scores [1, 3], a signature of these names."""
    kernel = np.random.default_rng(0).normal(size=(3, 48)).astype("float32")
    tensors = [tensor((1, 4, 4, 3), name="in:0"), tensor((2,), "INT32", data=np.int32([1, 48])), tensor((1, 48)),
               tensor((3, 48), data=kernel), tensor((1, 3), name="out:0")]
    operators = [op("RESHAPE", (0, 1), (2,)), op("FULLY_CONNECTED", (2, 3, -1), (4,), schema.FullyConnectedOptionsT())]
    return file_of(tensors, operators, (0,), (4,), (("image",), ("scores",)))


def test_what_is_written_is_read_back(tmp_path):
    (tmp_path / "vocabulary.txt").write_text("one\ntwo\n")
    content = write_metadata(
        classifier(), name="Tiere", description="Finds animals.", version="1.2", author="Ä. P.", license="Apache-2.0",
        inputs={"image": {"name": "photo", "description": "A square.", "color": "rgb", "mean": [0.485, 0.456, 0.406],
                          "std": [0.229, 0.224, 0.225], "min": 0, "max": 1, "dimension_names": ["n", "h", "w", "c"]}},
        outputs=[TensorMetadata(labels=CLASSES, content="feature")],
        files={"vocabulary.txt": tmp_path / "vocabulary.txt", "notes": b"\x00\xff"},
    )
    got = read_metadata(content)
    assert (got.name, got.description, got.version) == ("Tiere", "Finds animals.", "1.2")
    assert (got.author, got.license, got.min_parser_version) == ("Ä. P.", "Apache-2.0", "1.0.0")
    assert got.inputs == (TensorMetadata(
        name="photo", description="A square.", content="image", color="rgb", mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225), min=(0.0,), max=(1.0,), dimension_names=("n", "h", "w", "c")),)
    assert got.outputs == (TensorMetadata(name="scores", content="feature", labels=tuple(CLASSES),
                                          labels_file="labels.txt"),)
    assert got.files == {"labels.txt": "cat\ndög\na bird, flying\n".encode(), "vocabulary.txt": b"one\ntwo\n",
                         "notes": b"\x00\xff"}
    assert got.signatures == {"main": ({"image": "in:0"}, {"scores": "out:0"})}
    for text in ("Tiere", "Finds animals.", "labels.txt: 24 bytes", "image rgb", "cat, dög, a bird, flying", "0.485"):
        assert text in str(got)


def test_the_file_computes_the_same_and_opens_as_an_archive(tmp_path):
    x = np.random.default_rng(1).normal(size=(5, 4, 4, 3)).astype("float32")
    content = write_metadata(classifier(), name="x", outputs=[{"labels": CLASSES}])
    np.testing.assert_array_equal(Runner(content)(x), Runner(classifier())(x))
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None and archive.namelist() == ["labels.txt"]
        entry = archive.getinfo("labels.txt")
        assert entry.compress_type == zipfile.ZIP_STORED  # readers map it into memory
        # Offsets count from the start of the whole file.
        start = entry.header_offset + 30 + len("labels.txt")
        assert content[start : start + entry.file_size] == archive.read("labels.txt")


def test_writing_again_replaces():
    first = write_metadata(classifier(), name="old", author="me", outputs=[{"labels": CLASSES}], files={"a": b"1"})
    second = write_metadata(first, name="new")
    got = read_metadata(second)
    assert (got.name, got.author, got.files, got.outputs[0].labels) == ("new", "", {}, ())
    assert not zipfile.is_zipfile(io.BytesIO(second))
    assert write_metadata(second, name="new") == second  # nothing piles up
    assert write_metadata(first, name="new") == second


def test_other_metadata_of_the_file_stays():
    model = unpacked(classifier())
    model.buffers.append(schema.BufferT(data=np.frombuffer(b"1.5.0\0", np.uint8)))
    model.metadata = [schema.MetadataT(name="min_runtime_version", buffer=len(model.buffers) - 1)]
    content = write_metadata(packed(model), name="x")
    assert bytes(read(content).metadata["min_runtime_version"]) == b"1.5.0\0"
    assert list(read(content).metadata) == ["min_runtime_version", "TFLITE_METADATA"]


def test_names_are_changed_in_the_signature():
    content = write_metadata(classifier(), rename={"image": "pixels", "scores": "probability"})
    got = read_metadata(content)
    assert got.signatures == {"main": ({"pixels": "in:0"}, {"probability": "out:0"})}
    assert (got.inputs[0].name, got.outputs[0].name) == ("pixels", "probability")
    assert list(Runner(content).inputs) == ["pixels"]
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_content=content).get_signature_runner("main")
    assert list(runner(pixels=np.zeros((1, 4, 4, 3), "float32"))) == ["probability"]


def test_a_file_without_a_signature_gets_one():
    assert read_metadata(dense()).signatures == {"": ({"x": "x"}, {"y": "y"})}
    got = read_metadata(write_metadata(dense(), rename={"y": "result"}))
    assert got.signatures == {"serving_default": ({"x": "x"}, {"result": "y"})}


def test_a_file_without_metadata_says_so():
    got = read_metadata(integer_dense())
    assert (got.name, got.inputs, got.files, got.min_parser_version) == ("", (), {}, "")
    assert "No metadata in this file" in str(got) and "(tensor x)" in str(got)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"inputs": {"other": {}}}, r"`inputs` must name some of \['image'\]. Received: \['other'\]"),
    ({"inputs": [{}, {}]}, r"`inputs` must tell of 1 tensors"),
    ({"inputs": [{"means": 1}]}, r"know \['name', .*Received: \['means'\]"),
    ({"inputs": ["image"]}, "must hold mappings"),
    ({"inputs": [{"mean": 1}]}, "`mean` and `std` must be as long"),
    ({"inputs": [{"mean": 1, "std": 0}]}, "`std` must be positive"),
    ({"inputs": [{"mean": "x", "std": 1}]}, "`mean` must be a number"),
    ({"inputs": [{"mean": float("nan"), "std": 1}]}, "`mean` must be finite"),
    ({"inputs": [{"mean": [1, 2], "std": [1, 2]}]}, r"`mean` of 'image' must be 1 or 3 numbers.*Received: 2"),
    ({"inputs": [{"color": "blue"}]}, "`color` must be one of"),
    ({"inputs": [{"color": "rgb", "content": "audio"}]}, "`color` is of images"),
    ({"inputs": [{"sample_rate": 8000, "content": "image"}]}, "are of audio"),
    ({"inputs": [{"dimension_names": ["h"]}]}, "`dimension_names` of 'image' must be 4"),
    ({"outputs": [{"labels": ["a", "b"]}]}, r"`labels` of 'scores' must be 3.*Received: 2"),
    ({"outputs": [{"labels": ["a", "b", "c\n"]}]}, "texts of one line"),
    ({"outputs": [{"labels": "nowhere.txt"}]}, "`labels` names a file that cannot be read"),
    ({"outputs": [{"labels": CLASSES, "label_kind": "x"}]}, "`label_kind` must be one of"),
    ({"outputs": [{"labels": CLASSES}], "files": {"labels.txt": b""}}, "must not have the name of a label file"),
    ({"files": {"../x": b""}}, "plain names"),
    ({"files": {"x": "nowhere"}}, "`files` names 'nowhere', which cannot be read"),
    ({"rename": {"nobody": "x"}}, r"`rename` must map some of \['image', 'scores'\]"),
    ({"rename": {"image": ""}}, "`rename` must map"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        write_metadata(classifier(), **arguments)


def test_two_names_cannot_become_one():
    model = file_of([tensor((1, 2)), tensor((1, 2)), tensor((1, 2))], [op("ADD", (0, 1), (2,), schema.AddOptionsT())],
                    (0, 1), (2,), (("a", "b"), ("y",)))
    with pytest.raises(ValueError, match="gives two the same name"):
        write_metadata(model, rename={"a": "b"})
    swapped = write_metadata(model, rename={"a": "b", "b": "a"})
    assert list(read(swapped).signatures[0].inputs.items()) == [("b", 0), ("a", 1)]


def test_two_label_files_have_two_names(tmp_path):
    (tmp_path / "classes.txt").write_bytes(b"x\r\ny")
    model = file_of([tensor((1, 2)), tensor((1, 2)), tensor((1, 1))],
                    [op("ABS", (0,), (1,)), op("ABS", (0,), (2,))], (0,), (1, 2), (("a",), ("one two", "kind")))
    content = write_metadata(model, outputs={"one two": {"labels": tmp_path / "classes.txt"},
                                             "kind": {"labels": ["p", "q", "r"], "label_kind": "value"}})
    got = read_metadata(content)
    assert got.files == {"one_two_labels.txt": b"x\ny\n", "kind_labels.txt": b"p\nq\nr\n"}
    assert [(end.labels, end.label_kind) for end in got.outputs] == [(("x", "y"), "axis"), (("p", "q", "r"), "value")]


def test_audio_needs_a_later_parser():
    content = write_metadata(dense(), inputs=[{"sample_rate": 16000, "channels": 1}])
    got = read_metadata(content)
    assert (got.inputs[0].content, got.inputs[0].sample_rate, got.min_parser_version) == ("audio", 16000, "1.3.0")


def test_field_numbers_are_those_of_the_schema():
    # Tables by hand, by the numbers of metadata_schema.fbs: name 0, subgraph_metadata 3, author 4, parser version 7.
    b = flatbuffers.Builder(64)
    name, author, version, image = (b.CreateString(text) for text in ("N", "A", "1.0.0", "I"))
    b.StartVector(4, 2, 4)
    b.PrependFloat32(0.5)
    b.PrependFloat32(0.25)
    mean = b.EndVector()
    b.StartObject(2)  # NormalizationOptions: mean 0, std 1
    b.PrependUOffsetTRelativeSlot(0, mean, 0)
    b.PrependUOffsetTRelativeSlot(1, mean, 0)
    options = b.EndObject()
    b.StartObject(2)  # ProcessUnit: the union's type 0, its value 1
    b.PrependUint8Slot(0, 1, 0)
    b.PrependUOffsetTRelativeSlot(1, options, 0)
    unit = b.EndObject()
    b.StartObject(2)  # ImageProperties: color_space 0
    b.PrependInt8Slot(0, 2, 0)
    properties = b.EndObject()
    b.StartObject(3)  # Content: the union's type 0, its value 1, range 2
    b.PrependUint8Slot(0, 2, 0)
    b.PrependUOffsetTRelativeSlot(1, properties, 0)
    content = b.EndObject()

    def vector(offset):
        b.StartVector(4, 1, 4)
        b.PrependUOffsetTRelative(offset)
        return b.EndVector()

    units = vector(unit)
    b.StartObject(7)  # TensorMetadata: name 0, content 3, process_units 4
    b.PrependUOffsetTRelativeSlot(0, image, 0)
    b.PrependUOffsetTRelativeSlot(3, content, 0)
    b.PrependUOffsetTRelativeSlot(4, units, 0)
    ends = vector(b.EndObject())
    b.StartObject(10)  # SubGraphMetadata: input_tensor_metadata 2
    b.PrependUOffsetTRelativeSlot(2, ends, 0)
    graphs = vector(b.EndObject())
    b.StartObject(8)
    for slot, value in ((0, name), (3, graphs), (4, author), (7, version)):
        b.PrependUOffsetTRelativeSlot(slot, value, 0)
    b.Finish(b.EndObject(), b"M001")
    got = metadata_schema.unpack(bytes(b.Output()))
    entry = {"name": "I", "content": {"content_properties": ("ImageProperties", {"color_space": 2})},
             "process_units": [{"options": ("NormalizationOptions", {"mean": [0.25, 0.5], "std": [0.25, 0.5]})}]}
    assert got == {"name": "N", "author": "A", "min_parser_version": "1.0.0",
                   "subgraph_metadata": [{"input_tensor_metadata": [entry]}]}
    assert metadata_schema.unpack(metadata_schema.pack(got)) == got


def test_files_of_others_are_read(shared):
    folder = shared / "data" / "tflite"
    got = read_metadata(folder / "coral_mobilenet_v1_0.25_128_quant.tflite")
    assert got.name == "ImageClassifier" and got.min_parser_version == "1.0.0"
    assert got.inputs[0] == TensorMetadata(name="image", description="Input image to be classified.", color="rgb",
                                           mean=127.5, std=127.5, min=0, max=255)
    assert got.outputs[0].labels[:3] == ("background", "tench, Tinca tinca", "goldfish, Carassius auratus")
    assert len(got.outputs[0].labels) == 1001 and got.outputs[0].labels_file == "imagenet_labels.txt"
    dilated = read_metadata(folder / "support_dilated_conv.tflite")
    assert (dilated.version, dilated.license[:14], dilated.files) == ("v1", "Apache License", {})


def test_damaged_metadata_is_refused_and_never_more():
    content = write_metadata(classifier(), name="x" * 50, inputs=[{"mean": [1, 2, 3], "std": 3 * [1], "color": "rgb"}],
                             outputs=[{"labels": CLASSES}])
    original = metadata_schema.unpack(bytes(read(content).metadata["TFLITE_METADATA"]))
    record = bytearray(metadata_schema.pack(original))
    draw = random.Random(0)
    refused = 0
    for _ in range(3000):
        damaged = bytearray(record)
        for _ in range(draw.randint(1, 4)):
            damaged[draw.randrange(8, len(damaged))] = draw.choice((0, 1, 255, draw.randrange(256)))
        try:
            metadata_schema.unpack(bytes(damaged))
        except ValueError as error:
            refused += "damaged" in str(error)
    assert refused > 100
    with pytest.raises(ValueError, match="must have b'M001'"):
        metadata_schema.unpack(b"\0" * 16)
    with pytest.raises(KeyError, match="has no field"):
        metadata_schema.pack({"nmae": "x"})


def test_vectors_that_name_themselves_end():
    # 4000 tables that are all the same one, each with a vector of the same 4000: 16 million if nobody counts.
    b = flatbuffers.Builder(64)
    b.StartObject(7)
    one = b.EndObject()
    b.StartVector(4, 4000, 4)
    for _ in range(4000):
        b.PrependUOffsetTRelative(one)
    many = b.EndVector()
    b.StartObject(10)
    b.PrependUOffsetTRelativeSlot(2, many, 0)
    graph = b.EndObject()
    b.StartVector(4, 4000, 4)
    for _ in range(4000):
        b.PrependUOffsetTRelative(graph)
    graphs = b.EndVector()
    b.StartObject(8)
    b.PrependUOffsetTRelativeSlot(3, graphs, 0)
    b.Finish(b.EndObject(), b"M001")
    with pytest.raises(ValueError, match="damaged"):
        metadata_schema.unpack(bytes(b.Output()))


def test_damaged_archives_are_refused():
    content = write_metadata(classifier(), outputs=[{"labels": CLASSES}])
    place = content.rindex(b"dog") if b"dog" in content else content.rindex(b"bird")
    broken = bytearray(content)
    broken[place] ^= 1
    with pytest.raises(ValueError, match="archive behind the model is damaged"):
        read_metadata(bytes(broken))
    promised = bytearray(content)
    entry = promised.rindex(b"PK\x01\x02")
    struct.pack_into("<I", promised, entry + 24, 1 << 30)
    with pytest.raises(ValueError, match="promise more than 64 MiB"):
        read_metadata(bytes(promised))


def test_a_file_above_2_gb_is_refused(monkeypatch):
    tree = unpacked(dense())
    tree.buffers[1].offset = 4096
    monkeypatch.setattr("tflite_export.metadata.load", lambda data: tree)
    with pytest.raises(ValueError, match="above 2 GB"):
        write_metadata(SimpleNamespace(content=dense()))


def test_mediapipe_finds_labels_and_normalisation(shared, tmp_path):
    mediapipe = pytest.importorskip("mediapipe")
    vision = pytest.importorskip("mediapipe.tasks.python.vision")
    source = shared / "data" / "tflite" / "coral_mobilenet_v1_0.25_128_quant.tflite"
    path = tmp_path / "ours.tflite"
    labels = [f"class {number}" for number in range(1001)]
    path.write_bytes(write_metadata(source, inputs=[{"mean": 127.5, "std": 127.5, "color": "rgb"}],
                                    outputs=[{"labels": labels}]))
    options = mediapipe.tasks.BaseOptions
    image = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    found = []
    for file in (source, path):
        settings = vision.ImageClassifierOptions(base_options=options(model_asset_path=str(file)), max_results=3)
        with vision.ImageClassifier.create_from_options(settings) as model:
            result = model.classify(mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=image))
        found.append(result.classifications[0].categories)
    assert [category.score for category in found[0]] == [category.score for category in found[1]]
    assert [category.category_name for category in found[1]] == [f"class {category.index}" for category in found[0]]
