"""A folder or zip file for a phone: models, labels, normalisation, samples and the answers that are expected.

    BUNDLE/manifest.json              `tflite_export.manifest` tells its form
    BUNDLE/models/NAME.tflite
    BUNDLE/samples/NAME.bin           of each input: [rows, ...], little-endian
    BUNDLE/expected/MODEL/NAME.bin    of each output of each model: [rows, ...], raw values

The Android app in `android_demo/` and the Swift file in `examples/ios/` read it.
"""

import hashlib
import os
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tflite_export.bundle_file import write_bundle
from tflite_export.flatbuffer import File, content_of, name_of, read
from tflite_export.graph import Model
from tflite_export.manifest import TYPES, BundleEnd, BundleInput, BundleModel, Manifest
from tflite_export.port import Port, arranged, ports
from tflite_export.runner import Runner

MANIFEST = "manifest.json"
# A manifest is text about a few models; what is larger is none.
_LONGEST = 16 << 20
_Range = tuple[float, float]


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk.

    Attributes:
        path: of the folder or zip file.
        manifest: its table of contents.
    """

    path: Path
    manifest: Manifest

    def content(self, model: str) -> bytes:
        """The bytes of a model.

        Raises:
            ValueError: there is no model of this name.
        """
        return _read(self.path, self._model(model).file)

    def samples(self) -> dict[str, np.ndarray]:
        """Input's name -> [rows, ...] real values, as `Runner` takes them."""
        return {
            one.name: _array(_read(self.path, one.file), one.type, (self.manifest.rows, *one.shape))
            for one in self.manifest.inputs
        }

    def expected(self, model: str) -> dict[str, np.ndarray]:
        """Output's name -> [rows, ...] raw values in the type of the file, as `Runner.integers` gives them.

        Raises:
            ValueError: there is no model of this name.
        """
        return {
            end.name: _array(_read(self.path, end.expected), end.type, (self.manifest.rows, *end.shape[1:]))
            for end in self._model(model).outputs
        }

    def _model(self, name: str) -> BundleModel:
        for model in self.manifest.models:
            if model.name == name:
                return model
        names = [model.name for model in self.manifest.models]
        raise ValueError(f"`model` must be one of {names}. Received: model={name!r}")

    def __str__(self) -> str:
        from tflite_export.rendering import render, table

        told = self.manifest
        models = [
            (one.name, one.precision, f"{one.size:,}", _told(one.inputs), _told(one.outputs)) for one in told.models
        ]
        head = [
            ("samples", told.rows),
            ("answers of", f"{told.kernels} kernels"),
            ("labels", ", ".join(told.labels) or "-"),
        ]
        head += [(f"input {one.name}", f"{one.content} {list(one.shape)}{_normalisation(one)}") for one in told.inputs]
        return render(
            table(f"Bundle {told.name!r} in {self.path}", ("", "value"), head),
            table("Models", ("name", "precision", "bytes", "inputs", "outputs"), models, right=("bytes",)),
        )


def export_bundle(
    models: Mapping[str, File],
    out: str | os.PathLike[str],
    *,
    samples: Any,
    labels: Sequence[str] = (),
    input_range: _Range | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    name: str = "",
    kernels: str = "xnnpack",
) -> Bundle:
    """Writes what a phone needs besides the files: labels, normalisation, samples with the answers that are expected.

    An image is what has samples of [rows, height, width, 1 or 3] and a normalisation; the app feeds it with pictures:

        model's input = low + (high - low) * pixel / 255    or    (pixel - mean) / std,    pixel 0 to 255

    The expected answers are those of LiteRT's kernels on this machine, raw: integers of integer files.

    Args:
        models: name -> file (bytes, a path or an object with `.content`); all take the same inputs, of batch 1.
        out: a folder, or a file that ends in `.zip`. It is written beside and renamed; a bundle that is there is
            replaced, anything else is left alone.
        samples: rows of real values as `Runner` takes them, at least one.
        labels: class names; the outputs whose last axis is as long belong to them.
        input_range: (low, high) that pixels become.
        mean, std: of pixels from 0 to 255, one number or one a channel; instead of `input_range`.
        name: of the bundle, for people; the name of `out` when left out.
        kernels: that give the expected answers: "xnnpack" (what a phone uses), "builtin" or "reference"; integer files
            differ by a step inside from one to the other, which a softmax magnifies.

    Returns:
        The bundle; prints as a table.

    Raises:
        ValueError: not TFLite files, models that take different inputs or types that a phone's app cannot feed, labels
            that fit no output, or samples that do not fit.
        ExportError: the runtime does not run a file, or `out` cannot be written; nothing is left behind.

    >>> bundle = export_bundle({"int8": "digits.tflite"}, "bundle", samples=x[:8])        # doctest: +SKIP
    """
    if not isinstance(models, Mapping) or not models:
        raise ValueError(f"`models` must map names to files, one at least. Received: {type(models).__name__}")
    if isinstance(labels, str) or not all(isinstance(label, str) and "\n" not in label for label in labels):
        raise ValueError(f"`labels` must be texts of one line. Received: {labels!r:.100}")
    contents = {key: content_of(file) for key, file in models.items()}
    opened = {key: _Opened(key, Runner(contents[key], kernels), contents[key], name_of(models[key])) for key in models}
    first = next(iter(opened.values()))
    arrays = first.samples(samples)
    rows = len(next(iter(arrays.values()), ()))
    given: list[BundleInput] = []
    files: dict[str, bytes] = {}
    for one, array in arrays.items():
        file = f"samples/{_plain(one, files)}.bin"
        files[file] = array.tobytes()
        given.append(_given(one, array, file, normalisation(input_range, mean, std, array)))
    entries = []
    for key, model in opened.items():
        precision = str(getattr(getattr(models[key], "report", None), "precision", ""))
        entries.append(_entry(key, model, arrays, labels, precision, files))
    _check_labels(labels, entries)
    title = name or Path(out).resolve().name.removesuffix(".zip")
    manifest = Manifest(title, tuple(labels), rows, kernels, tuple(given), tuple(entries))
    return Bundle(write_bundle(out, {**files, MANIFEST: manifest.to_json().encode()}), manifest)


def load_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Opens a bundle and checks it: the manifest, and that every file in it is there and is the one that it tells of.

    Args:
        path: of the folder or zip file.

    Raises:
        ValueError: not a bundle, of a later version, or damaged; the message says where.

    >>> load_bundle("bundle").manifest.labels                                            # doctest: +SKIP
    """
    where = Path(path)
    try:
        manifest = Manifest.from_json(_read(where, MANIFEST, _LONGEST))
        for file, size in manifest.sizes.items():
            length = len(_read(where, file))
            if length != size:
                raise ValueError(f"{file} has {length} bytes instead of {size}")
        for model in manifest.models:
            _check_file(model, _read(where, model.file))
    except ValueError as error:
        raise ValueError(f"{str(where)!r} is not a whole bundle: {error}") from error
    return Bundle(where, manifest)


class _Opened:
    """A model that is being bundled."""

    def __init__(self, name: str, runner: Runner, content: bytes, path: str) -> None:
        self.name, self.runner, self.content = name, runner, content
        self.model = read(content, name=path)
        self.inputs: tuple[Port, ...] = ports(self.model, self.model.signature(), "inputs")
        for port in self.inputs:
            _end(name, port)  # says what a phone's app cannot feed

    def samples(self, samples: Any) -> dict[str, np.ndarray]:
        """Input's name -> [rows, ...] in the type that is stored."""
        arrays = {}
        for port, value in zip(self.inputs, arranged(self.inputs, samples), strict=True):
            array = np.asarray(value)
            port.feed(array, raw=False)  # says what does not fit
            kind = np.dtype(np.float32) if port.grid is not None else port.tensor.dtype
            arrays[port.name] = array.astype(kind)
        if len({len(array) for array in arrays.values()}) > 1 or not all(array.size for array in arrays.values()):
            shapes = {key: list(array.shape) for key, array in arrays.items()}
            raise ValueError(f"`samples` must have the same number of rows, one at least. Received: {shapes}")
        return arrays


def normalisation(
    input_range: _Range | None, mean: Any, std: Any, samples: np.ndarray
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) of pixels for one input; both empty where its samples are no images.

        mean = -255 low / (high - low),    std = 255 / (high - low)

    Raises:
        ValueError: not a range, both ways at once, or samples outside of the range.

    >>> normalisation((-1.0, 1.0), None, None, np.zeros((1, 8, 8, 3), np.float32))
    ((127.5,), (127.5,))
    """
    if input_range is None and mean is None and std is None:
        return (), ()
    if (mean is None) != (std is None) or (input_range is not None and mean is not None):
        raise ValueError(f"Give `input_range`, or `mean` and `std`. Received: {input_range=}, {mean=}, {std=}")
    if samples.ndim != 4 or samples.shape[-1] not in (1, 3) or samples.dtype != np.float32:
        return (), ()
    if input_range is None:
        values = (np.atleast_1d(np.asarray(one, np.float64)).tolist() for one in (mean, std))
        return tuple(next(values)), tuple(next(values))
    low, high = (float(value) for value in input_range)
    if not (np.isfinite([low, high]).all() and low < high):
        raise ValueError(f"`input_range` must be (low, high). Received: input_range={input_range}")
    least, most, slack = float(samples.min()), float(samples.max()), 1e-3 * (high - low)
    if least < low - slack or most > high + slack:
        raise ValueError(f"`samples` hold {least:g} to {most:g}, outside of input_range={input_range}")
    return (-255 * low / (high - low) + 0.0,), (255 / (high - low),)


def _given(name: str, array: np.ndarray, file: str, scaled: tuple[tuple[float, ...], tuple[float, ...]]) -> BundleInput:
    content = "image" if scaled[0] else "feature"
    return BundleInput(name, content, array.dtype.name, array.shape[1:], *scaled, file)


def _entry(
    name: str,
    model: _Opened,
    arrays: Mapping[str, np.ndarray],
    labels: Sequence[str],
    precision: str,
    files: dict[str, bytes],
) -> BundleModel:
    """A model of the manifest; its file and the answers expected of it go into `files`."""
    names = [port.name for port in model.inputs]
    if len(names) != len(arrays) or (len(names) > 1 and names != list(arrays)):
        raise ValueError(f"`models` must take the same inputs, {list(arrays)}. Received: {name!r} takes {names}")
    feeds = dict(zip(names, arrays.values(), strict=True))
    raw = model.runner.integers(feeds)
    outputs = ports(model.model, model.model.signature(), "outputs")
    raw = raw if isinstance(raw, dict) else {outputs[0].name: raw}
    folder = _plain(name, files, "models/{}.tflite")
    file = f"models/{folder}.tflite"
    files[file] = model.content
    ends = []
    for port in outputs:
        expected = f"expected/{folder}/{_plain(port.name, files, f'expected/{folder}/{{}}.bin')}.bin"
        files[expected] = np.ascontiguousarray(raw[port.name]).tobytes()
        shape = port.tensor.shape
        labelled = bool(labels) and shape[-1:] == (len(labels),)
        ends.append(replace(_end(name, port), step=_step(model.model, port), labelled=labelled, expected=expected))
    return BundleModel(
        name=name,
        file=file,
        sha256=hashlib.sha256(model.content).hexdigest(),
        size=len(model.content),
        precision=precision,
        signature=model.model.signature().key,
        inputs=tuple(_end(name, port) for port in model.inputs),
        outputs=tuple(ends),
    )


def _step(model: Model, port: Port) -> float | None:
    """Of the grid that a float output is dequantized from; None where it is computed in float."""
    graph = model.subgraphs[model.signature().subgraph]
    for operator in graph.operators:
        if operator.kind == "DEQUANTIZE" and port.tensor.index in operator.outputs:
            source = graph.tensors[operator.inputs[0]].quantization
            if source is not None and source.scale.size == 1:
                return float(source.scale[0])
    return None


def _end(model: str, port: Port) -> BundleEnd:
    if port.batch != 1 or not port.tensor.shape:
        raise ValueError(f"A bundle holds models of batch 1. Received: {model!r} with {port.text}")
    if port.grid is not None and port.grid.scale.size > 1:
        raise ValueError(f"A bundle holds models with one scale an input or output. Received: {model!r}, {port.text}")
    scale, zero = (float(port.grid.scale[0]), int(port.grid.zero_point[0])) if port.grid is not None else (None, None)
    kind = port.tensor.dtype
    type = kind.name if kind is not None else port.tensor.type.lower()
    if type not in TYPES:
        raise ValueError(f"A bundle holds models of the types {list(TYPES)}. Received: {model!r} with {port.text}")
    return BundleEnd(port.name, type, tuple(port.tensor.shape), scale, zero)


def _check_labels(labels: Sequence[str], models: Sequence[BundleModel]) -> None:
    for model in models:
        if labels and not any(end.labelled for end in model.outputs):
            shapes = {end.name: list(end.shape) for end in model.outputs}
            raise ValueError(f"`labels` are {len(labels)}, which fit no output of {model.name!r}: {shapes}")


def _check_file(entry: BundleModel, content: bytes) -> None:
    """A model is the one that the manifest tells of."""
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise ValueError(f"{entry.file} is not the file that its `sha256` tells of")
    model = read(content, name=entry.file)
    signature = next((one for one in model.signatures if one.key == entry.signature), model.signature())
    for side in ("inputs", "outputs"):
        told = [(end.name, end.type, end.shape, end.scale) for end in getattr(entry, side)]
        own = [(e.name, e.type, e.shape, e.scale) for e in (_end(entry.name, p) for p in ports(model, signature, side))]
        if told != own:
            raise ValueError(f"the {side} of {entry.file} are {own}, the manifest tells of {told}")


def _plain(name: str, taken: Mapping[str, bytes], pattern: str = "samples/{}.bin") -> str:
    """A name that every file system takes and that is not taken."""
    plain = re.sub(r"[^\w-]+", "_", name, flags=re.ASCII).strip("_")[:60] or "unnamed"
    number, unique = 2, plain
    while any(pattern.format(unique).lower() == file.lower() for file in taken):
        number, unique = number + 1, f"{plain}_{number}"
    return unique


def _array(content: bytes, type: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.frombuffer(content, np.dtype(type).newbyteorder("<")).reshape(shape)


def _read(path: Path, file: str, longest: int | None = None) -> bytes:
    """A file of a bundle.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        if path.is_dir():
            with (path / file).open("rb") as source:
                return source.read(longest)
        with zipfile.ZipFile(path) as archive, archive.open(file) as source:
            return source.read(-1 if longest is None else longest)
    except (KeyError, OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ValueError(f"{file} cannot be read: {reason}") from error


def _told(ends: Sequence[BundleEnd]) -> str:
    return ", ".join(f"{end.name} {end.type}{list(end.shape)}" for end in ends)


def _normalisation(given: BundleInput) -> str:
    if not given.mean:
        return ""
    shown = [" ".join(f"{value:g}" for value in values) for values in (given.mean, given.std)]
    return f", (pixel - {shown[0]}) / {shown[1]}"
