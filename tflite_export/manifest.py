"""The manifest of a bundle: what an app on a phone has to know of the files beside it.

`manifest.json`, UTF-8, one object. Unknown keys are passed over, so that an app reads bundles of later writers; a
change that an older reader would misread raises `schema`.

    format    "tflite_export.bundle"
    schema    1
    name      of the bundle, for people
    labels    class names in the order of the answers, or []
    rows      number of samples
    kernels   of LiteRT that gave the answers: "xnnpack", "builtin" or "reference"
    inputs    list, in the order in which samples are fed, of
        name       for people
        content    "image" (shape is [height, width, 1 or 3]) or "feature"
        type       of the values in `file`: "float32", or an integer type where the model takes plain integers
        shape      of one sample, without the batch
        mean, std  of an image: the model takes (pixel - mean) / std of pixels 0 to 255; [1] or [channels]; else []
        file       the samples: [rows, *shape], little-endian, without a header
    models    list of
        name, file, sha256, size (bytes)
        precision  as it was exported, such as "int8"; "" when it is not known
        signature  to be called; "" when the file has none
        inputs     list of {name, type, shape, scale, zero_point}, in the order of `inputs` above
        outputs    list of {name, type, shape, scale, zero_point, step, labelled, expected}
            step       of the grid that float answers of an integer file were dequantized from, else null: runtimes
                       may differ by one
            expected   file with the raw answers to the samples: [rows, *shape without batch], in the type of the tensor
            labelled   the last axis belongs to `labels`

`shape` of a model has the batch, 1. `scale` and `zero_point` are those of the integer grid,
real = scale * (integer - zero_point), and null where the values are taken as they are.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

FORMAT = "tflite_export.bundle"
SCHEMA = 1
CONTENTS = ("image", "feature")
TYPES = {"float32": 4, "int8": 1, "uint8": 1, "int16": 2, "int32": 4, "int64": 8, "bool": 1}
_PLAIN = re.compile(r"[A-Za-z0-9_-][\w.-]*(/[A-Za-z0-9_-][\w.-]*)*", re.ASCII)


@dataclass(frozen=True)
class BundleEnd:
    """An input or output of a model.

    Attributes:
        name: in the signature.
        type: such as "int8".
        shape: with the batch, which is 1.
        scale, zero_point: of its integer grid; None without one.
        step: of the grid that a float output was dequantized from; None without one, and for an input.
        labelled: the last axis belongs to the labels.
        expected: file of the raw answers to the samples; "" for an input.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    scale: float | None = None
    zero_point: int | None = None
    step: float | None = None
    labelled: bool = False
    expected: str = ""


@dataclass(frozen=True)
class BundleModel:
    """A model of a bundle.

    Attributes:
        name: as the app lists it.
        file: in the bundle.
        sha256, size: of the file.
        precision: as it was exported; "" when it is not known.
        signature: to be called; "" when the file has none.
        inputs, outputs: in the order of the signature.
    """

    name: str
    file: str
    sha256: str
    size: int
    precision: str
    signature: str
    inputs: tuple[BundleEnd, ...]
    outputs: tuple[BundleEnd, ...]


@dataclass(frozen=True)
class BundleInput:
    """What all models of a bundle are fed with.

    Attributes:
        name: for people.
        content: "image" or "feature".
        type: of the stored samples.
        shape: of one sample, without the batch.
        mean, std: (pixel - mean) / std is what the model takes, pixels from 0 to 255; empty unless it is an image.
        file: the samples.
    """

    name: str
    content: str
    type: str
    shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    file: str


@dataclass(frozen=True)
class Manifest:
    """A bundle's table of contents, checked when it is made.

    Attributes:
        name: of the bundle.
        labels: class names; empty when there are none.
        rows: number of samples.
        kernels: that gave the answers.
        inputs: what all models are fed with.
        models: at least one.
        schema: version of the form.
    """

    name: str
    labels: tuple[str, ...]
    rows: int
    kernels: str
    inputs: tuple[BundleInput, ...]
    models: tuple[BundleModel, ...]
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        _need(bool(self.models), "`models` must hold at least one model")
        _need(self.rows >= 1, f"`rows` must be at least 1, it is {self.rows}")
        names = [model.name for model in self.models]
        _need(len(set(names)) == len(names), f"`models` must have different names, they are {names}")
        for given in self.inputs:
            _check_input(given)
        for model in self.models:
            _check_model(self, model)

    @property
    def sizes(self) -> dict[str, int]:
        """Every file of the bundle but the manifest -> its bytes."""
        found = {model.file: model.size for model in self.models}
        found |= {one.file: self.rows * math.prod(one.shape) * TYPES[one.type] for one in self.inputs}
        for model in self.models:
            found |= {end.expected: self.rows * math.prod(end.shape) * TYPES[end.type] for end in model.outputs}
        return found

    def to_json(self) -> str:
        """The text of manifest.json."""
        return json.dumps({"format": FORMAT, **asdict(self)}, allow_nan=False, ensure_ascii=False, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> "Manifest":
        """The manifest that `to_json` wrote.

        Raises:
            ValueError: not a manifest, of a later schema, or a value that does not fit; the message names it.
        """
        try:
            record = json.loads(text)
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ValueError(f"manifest.json is not JSON: {error}") from error
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            raise ValueError(f"manifest.json is not that of a bundle: its `format` must be {FORMAT!r}")
        schema = _value(record, "schema", int, "")
        if schema != SCHEMA:
            raise ValueError(f"the bundle is of schema {schema}, this version reads {SCHEMA}")
        return cls(
            name=_value(record, "name", str, ""),
            labels=_texts(record, "labels"),
            rows=_value(record, "rows", int, ""),
            kernels=_value(record, "kernels", str, ""),
            inputs=tuple(_input(one, f"inputs[{i}]") for i, one in enumerate(_list(record, "inputs", ""))),
            models=tuple(_model(one, f"models[{i}]") for i, one in enumerate(_list(record, "models", ""))),
        )


def _input(record: Any, where: str) -> BundleInput:
    name, content, type, file = (_value(record, key, str, where) for key in ("name", "content", "type", "file"))
    mean, std = (_numbers(record, key, where) for key in ("mean", "std"))
    return BundleInput(name, content, type, _shape(record, where), mean, std, file)


def _model(record: Any, where: str) -> BundleModel:
    name, file, sha256 = (_value(record, key, str, where) for key in ("name", "file", "sha256"))
    precision, signature = (_value(record, key, str, where) for key in ("precision", "signature"))
    inputs, outputs = (
        tuple(_end(one, f"{where}.{side}[{i}]", side) for i, one in enumerate(_list(record, side, where)))
        for side in ("inputs", "outputs")
    )
    return BundleModel(name, file, sha256, _value(record, "size", int, where), precision, signature, inputs, outputs)


def _end(record: Any, where: str, side: str) -> BundleEnd:
    name, type = (_value(record, key, str, where) for key in ("name", "type"))
    scale = zero_point = None
    if record.get("scale") is not None:
        scale = float(_value(record, "scale", (int, float), where))
        zero_point = _value(record, "zero_point", int, where)
    step, labelled, expected = None, False, ""
    if side == "outputs":
        labelled, expected = _value(record, "labelled", bool, where), _value(record, "expected", str, where)
        if record.get("step") is not None:
            step = float(_value(record, "step", (int, float), where))
    return BundleEnd(name, type, _shape(record, where), scale, zero_point, step, labelled, expected)


def _check_input(given: BundleInput) -> None:
    what = f"input {given.name!r}"
    _check_file(given.file, what)
    _check_type(given.type, what)
    _need(given.content in CONTENTS, f"{what}: `content` must be one of {list(CONTENTS)}, it is {given.content!r}")
    _need(all(size >= 1 for size in given.shape), f"{what}: `shape` must hold sizes from 1, it is {list(given.shape)}")
    if given.content == "feature":
        _need(not given.mean and not given.std, f"{what}: `mean` and `std` are of images")
        return
    channels = given.shape[-1] if len(given.shape) == 3 else 0
    image = channels in (1, 3) and given.type == "float32"
    _need(image, f"{what}: an image is float32 of [height, width, 1 or 3], it is {given.type} {list(given.shape)}")
    for key in ("mean", "std"):
        values = getattr(given, key)
        fits = len(values) in (1, channels) and all(map(math.isfinite, values))
        _need(fits, f"{what}: `{key}` must be 1 or {channels} numbers, it is {list(values)}")
    _need(all(given.std), f"{what}: `std` must not be 0, it is {list(given.std)}")


def _check_model(manifest: Manifest, model: BundleModel) -> None:
    what = f"model {model.name!r}"
    _need(bool(model.name) and model.name.isprintable(), f"{what}: `name` must be a text of one line")
    _check_file(model.file, what)
    _need(model.size >= 1, f"{what}: `size` must be at least 1, it is {model.size}")
    _need(bool(re.fullmatch(r"[0-9a-f]{64}", model.sha256)), f"{what}: `sha256` is {model.sha256!r}")
    _need(len(model.inputs) == len(manifest.inputs), f"{what}: `inputs` must be {len(manifest.inputs)}")
    _need(bool(model.outputs), f"{what}: `outputs` must hold at least one")
    for given, end in zip(manifest.inputs, model.inputs, strict=True):
        _check_end(end, f"{what}, input {end.name!r}")
        _need(end.shape[1:] == given.shape, f"{what}: input {end.name!r} is {list(end.shape)}, not 1 x {given.shape}")
        samples = "float32" if end.type == "float32" or end.scale is not None else end.type
        _need(samples == given.type, f"{what}: input {end.name!r} takes {samples}, the samples are {given.type}")
    for end in model.outputs:
        _check_end(end, f"{what}, output {end.name!r}")
        _check_file(end.expected, f"{what}, output {end.name!r}")
        if end.labelled:
            fits = end.shape[-1] == len(manifest.labels)
            _need(fits, f"{what}: output {end.name!r} is {list(end.shape)}, there are {len(manifest.labels)} labels")


def _check_end(end: BundleEnd, what: str) -> None:
    _check_type(end.type, what)
    sizes = len(end.shape) >= 1 and end.shape[0] == 1 and all(size >= 1 for size in end.shape)
    _need(sizes, f"{what}: `shape` must begin with a batch of 1, it is {list(end.shape)}")
    if end.scale is not None:
        _need(end.type in ("int8", "uint8", "int16"), f"{what}: a {end.type} has no grid")
        _need(math.isfinite(end.scale) and end.scale > 0, f"{what}: `scale` must be positive, it is {end.scale}")
        _need(end.zero_point is not None, f"{what}: `zero_point` is missing")
    if end.step is not None:
        _need(math.isfinite(end.step) and end.step > 0, f"{what}: `step` must be positive, it is {end.step}")


def _check_type(type: str, what: str) -> None:
    _need(type in TYPES, f"{what}: `type` must be one of {list(TYPES)}, it is {type!r}")


def _check_file(file: str, what: str) -> None:
    # Names are joined to a folder of the phone: none leads out of it.
    _need(bool(_PLAIN.fullmatch(file)), f"{what}: files must have plain relative names, one is {file!r}")


def _need(fits: bool, message: str) -> None:
    if not fits:
        raise ValueError(message)


def _value(record: Any, key: str, kind: type | tuple[type, ...], where: str) -> Any:
    path = f"{where}.{key}" if where else key
    if not isinstance(record, Mapping):
        raise ValueError(f"manifest.json: {where} must be an object, it is {record!r:.60}")
    if key not in record:
        raise ValueError(f"manifest.json: {path} is missing")
    value = record[key]
    wrong = not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)
    if wrong:
        kinds = kind if isinstance(kind, tuple) else (kind,)
        raise ValueError(f"manifest.json: {path} must be of {kinds[-1].__name__}, it is {value!r:.60}")
    return value


def _list(record: Any, key: str, where: str) -> Sequence[Any]:
    return _value(record, key, list, where)


def _shape(record: Any, where: str) -> tuple[int, ...]:
    return tuple(_each(record, "shape", int, where))


def _numbers(record: Any, key: str, where: str) -> tuple[float, ...]:
    return tuple(float(value) for value in _each(record, key, (int, float), where))


def _texts(record: Any, key: str) -> tuple[str, ...]:
    return tuple(_each(record, key, str, ""))


def _each(record: Any, key: str, kind: Any, where: str) -> list[Any]:
    values = _list(record, key, where)
    return [_value({f"{key}[{i}]": value}, f"{key}[{i}]", kind, where) for i, value in enumerate(values)]
