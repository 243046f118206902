"""Bundles: what is written is read back, agrees with the real runtime, and damage is named."""

import json
import zipfile

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from tests.tflite_export.handmade import dense, file_of, integer_dense, op, tensor
from tflite_export import ExportError, Runner, export_bundle, load_bundle
from tflite_export.bundle import normalisation
from tflite_export.manifest import Manifest

LABELS = ["cat", "dög", "a bird"]


def classifier(seed: int = 0, shape: tuple[int, ...] = (1, 4, 4, 1)) -> bytes:
    """image -> scores [1, 3], a signature of these names."""
    size = int(np.prod(shape))
    kernel = np.random.default_rng(seed).normal(size=(3, size)).astype("float32")
    tensors = [
        tensor(shape, name="in:0"),
        tensor((2,), "INT32", data=np.int32([1, size])),
        tensor((1, size)),
        tensor((3, size), data=kernel),
        tensor((1, 3), name="out:0"),
    ]
    operators = [op("RESHAPE", (0, 1), (2,)), op("FULLY_CONNECTED", (2, 3, -1), (4,), schema.FullyConnectedOptionsT())]
    return file_of(tensors, operators, (0,), (4,), (("image",), ("scores",)))


@pytest.fixture
def images():
    return np.random.default_rng(3).random((5, 4, 4, 1)).astype("float32")


@pytest.fixture
def bundle(tmp_path, images):
    models = {"float 32": classifier(), "float_32": classifier(1)}
    return export_bundle(models, tmp_path / "b", samples=images, labels=LABELS, input_range=(0, 1))


def ran(content, rows):
    """Raw outputs of LiteRT itself, one row at a time."""
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    given, got = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    found = []
    for row in rows:
        interpreter.set_tensor(given["index"], row[None])
        interpreter.invoke()
        found.append(interpreter.get_tensor(got["index"])[0].copy())
    return np.stack(found)


@pytest.mark.parametrize("name", ["b", "b.zip"])
def test_what_is_written_is_read_back(tmp_path, images, name):
    out = tmp_path / name
    models = {"float 32": classifier(), "float_32": classifier(1)}
    written = export_bundle(models, out, samples=images, labels=LABELS, input_range=(0, 1))
    got = load_bundle(out)
    assert got.manifest == written.manifest and got.path == out
    assert (got.manifest.name, got.manifest.labels, got.manifest.rows) == ("b", tuple(LABELS), 5)
    [given] = got.manifest.inputs
    assert (given.name, given.content, given.shape) == ("image", "image", (4, 4, 1))
    assert (given.mean, given.std) == ((0,), (255,))
    assert [(one.name, one.file, one.size) for one in got.manifest.models] == [
        ("float 32", "models/float_32.tflite", len(classifier())),
        ("float_32", "models/float_32_2.tflite", len(classifier(1))),
    ]
    np.testing.assert_array_equal(got.samples()["image"], images)
    for key, content in models.items():
        assert got.content(key) == content
        np.testing.assert_array_equal(got.expected(key)["scores"], ran(content, images))
    for text in ("cat, dög, a bird", "float_32", "scores float32[1, 3]", "image [4, 4, 1], (pixel - 0) / 255"):
        assert text in str(got)
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


def test_files_lie_on_disk_as_the_manifest_says(bundle, images):
    told = json.loads((bundle.path / "manifest.json").read_text())
    assert (told["format"], told["schema"]) == ("tflite_export.bundle", 1)
    sample = np.fromfile(bundle.path / told["inputs"][0]["file"], "<f4").reshape(5, 4, 4, 1)
    np.testing.assert_array_equal(sample, images)
    [output] = told["models"][1]["outputs"]
    expected = np.fromfile(bundle.path / output["expected"], "<f4").reshape(5, 3)
    np.testing.assert_array_equal(expected, ran(classifier(1), images))
    assert output["labelled"] is True and output["scale"] is None


def test_an_integer_file_keeps_its_grid_and_raw_answers(tmp_path):
    content = integer_dense()
    interpreter = Interpreter(model_content=content)
    details = interpreter.get_input_details()[0]
    scale, zero = details["quantization"]
    rows = np.random.default_rng(0).normal(size=(4, *details["shape"][1:])).astype("float32")
    bundle = export_bundle({"int8": content}, tmp_path / "b", samples=rows)
    [end] = bundle.manifest.models[0].inputs
    assert (end.type, end.scale, end.zero_point) == ("int8", pytest.approx(scale), zero)
    integers = np.clip(np.round(rows / np.float32(scale)) + zero, -128, 127).astype("int8")
    [expected] = bundle.expected("int8").values()
    assert expected.dtype == np.int8
    np.testing.assert_array_equal(expected, ran(content, integers))
    assert bundle.manifest.inputs[0].content == "feature" and load_bundle(bundle.path).manifest == bundle.manifest


def test_the_kernels_of_the_answers_are_told(tmp_path, images):
    bundles = {
        k: export_bundle({"a": classifier()}, tmp_path / k, samples=images, kernels=k) for k in ("xnnpack", "reference")
    }
    assert [load_bundle(one.path).manifest.kernels for one in bundles.values()] == ["xnnpack", "reference"]
    for kernels, bundle in bundles.items():
        np.testing.assert_array_equal(bundle.expected("a")["scores"], Runner(classifier(), kernels)(images))
    with pytest.raises(ValueError, match="`kernels` must be one of"):
        export_bundle({"a": classifier()}, tmp_path / "c", samples=images, kernels="gpu")


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (-2.5, 7.0), (0.0, 255.0)])
def test_a_range_is_a_mean_and_a_deviation(low, high):
    pixels = np.arange(256)
    (mean,), (std,) = normalisation((low, high), None, None, np.full((1, 2, 2, 3), low, np.float32))
    np.testing.assert_allclose((pixels - mean) / std, low + (high - low) * pixels / 255, atol=1e-12)


def test_normalisation_by_channel(tmp_path):
    mean, std = [123.7, 116.3, 103.5], [58.4, 57.1, 57.4]
    rows = np.zeros((1, 4, 4, 3), np.float32)
    bundle = export_bundle({"a": classifier(shape=(1, 4, 4, 3))}, tmp_path / "b", samples=rows, mean=mean, std=std)
    assert (bundle.manifest.inputs[0].mean, bundle.manifest.inputs[0].std) == (tuple(mean), tuple(std))


def text_file() -> bytes:
    return file_of([tensor((1,), "STRING", name="text")], [], (0,), (0,), (("text",), ("again",)))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"models": {}}, "`models` must map names to files"),
        ({"models": {"a": b"x" * 30}}, "not a"),
        ({"models": {"a": text_file()}}, "'a' with 'text' string"),
        ({"models": {"a": classifier(shape=(2, 4, 4, 1))}}, "models of batch 1. Received: 'a' with 'image'"),
        ({"models": {"a": classifier(), "b": classifier(shape=(1, 2, 8, 1))}}, "takes an array of shape"),
        ({"labels": ["cat"]}, "`labels` are 1, which fit no output of 'a'"),
        ({"labels": "cat"}, "`labels` must be texts of one line"),
        ({"input_range": (0, 0.5)}, "outside of input_range"),
        ({"input_range": (1, 0)}, r"`input_range` must be \(low, high\)"),
        ({"input_range": (0, 1), "mean": 0, "std": 1}, "Give `input_range`, or `mean` and `std`"),
        ({"mean": 0}, "Give `input_range`, or `mean` and `std`"),
        ({"mean": 0, "std": 0}, "`std` must not be 0"),
        ({"mean": [1, 2], "std": [1, 2]}, "`mean` must be 1 or 1 numbers"),
        ({"samples": np.zeros((0, 4, 4, 1), np.float32)}, "`samples` must have the same number of rows"),
        ({"samples": np.zeros((2, 4, 4), np.float32)}, "takes an array of shape"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_written(tmp_path, images, arguments, told):
    given = {"models": {"a": classifier()}, "samples": images, **arguments}
    with pytest.raises(ValueError, match=told):
        export_bundle(given.pop("models"), tmp_path / "b", **given)
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_is_replaced_and_anything_else_left_alone(tmp_path, images, bundle):
    export_bundle({"other": classifier()}, bundle.path, samples=images)
    assert [one.name for one in load_bundle(bundle.path).manifest.models] == ["other"]
    assert [path.name for path in (bundle.path / "models").iterdir()] == ["other.tflite"]
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(ExportError, match="is no bundle, it is left alone"):
        export_bundle({"a": classifier()}, mine, samples=images)
    with pytest.raises(ExportError, match="Nothing was written"):
        export_bundle({"a": classifier()}, tmp_path / "none" / "b", samples=images)
    assert (mine / "thesis.txt").read_text() == "years of work"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "mine"]


def changed(bundle, change):
    told = json.loads((bundle.path / "manifest.json").read_text())
    change(told)
    (bundle.path / "manifest.json").write_text(json.dumps(told))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t.update(format="zip"), "its `format` must be 'tflite_export.bundle'"),
        (lambda t: t.update(schema=2), "the bundle is of schema 2, this version reads 1"),
        (lambda t: t.update(schema="1"), "schema must be of int, it is '1'"),
        (lambda t: t.pop("rows"), "rows is missing"),
        (lambda t: t.update(rows=True), "rows must be of int, it is True"),
        (lambda t: t.update(rows=4), "samples/image.bin has 320 bytes instead of 256"),
        (lambda t: t.update(labels=["a", 1]), r"labels\[1\] must be of str, it is 1"),
        (lambda t: t.update(labels=["a"]), "there are 1 labels"),
        (lambda t: t.update(models=[]), "`models` must hold at least one model"),
        (lambda t: t.update(models=["x"]), r"models\[0\] must be an object, it is 'x'"),
        (lambda t: t["models"][1].update(name="float 32"), "different names"),
        (lambda t: t["models"][0].update(file="../../etc/passwd"), "plain relative names"),
        (lambda t: t["models"][0].update(file="/etc/passwd"), "plain relative names"),
        (lambda t: t["models"][0].update(sha256="00"), "`sha256` is '00'"),
        (lambda t: t["models"][0].update(sha256="0" * 64), "is not the file that its `sha256` tells of"),
        (lambda t: t["models"][0]["inputs"][0].update(type="complex64"), "`type` must be one of"),
        (lambda t: t["models"][0]["inputs"][0].update(shape=[1, 2, 2, 1]), r"is \[1, 2, 2, 1\], not"),
        (lambda t: t["models"][0]["inputs"][0].update(name="other"), "the manifest tells of"),
        (lambda t: t["models"][0]["outputs"][0].update(scale=-1, zero_point=0), "a float32 has no grid"),
        (lambda t: t["inputs"][0].update(content="sound"), "`content` must be one of"),
        (lambda t: t["inputs"][0].update(std=[0]), "`std` must not be 0"),
    ],
)
def test_a_damaged_manifest_is_named(bundle, change, told):
    changed(bundle, change)
    with pytest.raises(ValueError, match=told):
        load_bundle(bundle.path)


def test_damaged_files_are_named(bundle, tmp_path):
    with pytest.raises(ValueError, match=r"manifest.json cannot be read: No such file"):
        load_bundle(tmp_path / "none")
    (tmp_path / "no.zip").write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match=r"manifest.json cannot be read: File is not a zip file"):
        load_bundle(tmp_path / "no.zip")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as archive:
        archive.writestr("other", "")
    with pytest.raises(ValueError, match=r"There is no item named 'manifest.json'"):
        load_bundle(tmp_path / "empty.zip")
    (bundle.path / "samples" / "image.bin").write_bytes(b"short")
    with pytest.raises(ValueError, match=r"samples/image.bin has 5 bytes instead of 320"):
        load_bundle(bundle.path)
    (bundle.path / "samples" / "image.bin").unlink()
    with pytest.raises(ValueError, match=r"samples/image.bin cannot be read: No such file"):
        load_bundle(bundle.path)
    (bundle.path / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match=r"manifest.json is not JSON"):
        load_bundle(bundle.path)


def test_unknown_models_and_later_keys(bundle):
    with pytest.raises(ValueError, match=r"`model` must be one of \['float 32', 'float_32'\]. Received: model='x'"):
        bundle.content("x")
    changed(bundle, lambda t: (t.update(later=1), t["models"][0].update(later=[2])))
    assert load_bundle(bundle.path).manifest == bundle.manifest
    assert Manifest.from_json(bundle.manifest.to_json()) == bundle.manifest


def test_without_labels_and_normalisation(tmp_path):
    content = dense()
    shape = Interpreter(model_content=content).get_input_details()[0]["shape"]
    rows = np.random.default_rng(0).normal(size=(2, *shape[1:])).astype("float32")
    got = load_bundle(export_bundle({"dense": content}, tmp_path / "b", samples=rows, name="Ranges").path).manifest
    assert (got.name, got.labels, got.inputs[0].content, got.inputs[0].std) == ("Ranges", (), "feature", ())
    assert not got.models[0].outputs[0].labelled


def test_the_step_of_a_dequantized_answer_is_told(tmp_path):
    tensors = [tensor((1, 4), name="x"), tensor((1, 4), "INT8", scale=0.25, zero=-3), tensor((1, 4), name="y")]
    operators = [op("QUANTIZE", (0,), (1,)), op("DEQUANTIZE", (1,), (2,))]
    content = file_of(tensors, operators, (0,), (2,), (("x",), ("y",)))
    bundle = export_bundle({"a": content}, tmp_path / "b", samples=np.float32([[0.1, 0.2, 0.3, 9.0]]))
    assert load_bundle(bundle.path).manifest.models[0].outputs[0].step == 0.25
    np.testing.assert_array_equal(bundle.expected("a")["y"], np.float32([[0.0, 0.25, 0.25, 9.0]]))
