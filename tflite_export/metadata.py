"""What a file says of itself to the app that runs it: labels, normalisation, author, names.

The format of TensorFlow Lite's Task library and MediaPipe Tasks: a flatbuffer "TFLITE_METADATA" among the model's
metadata, and a zip archive of label and other files behind the model:

    [ flatbuffer TFL3 ... metadata "TFLITE_METADATA" -> buffer with a flatbuffer M001 ][ zip: labels.txt, ... ]

Archivers open such a file as the archive, runtimes as the model.
"""

import io
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import File, content_of, load, name_of, read, store
from tflite_export.graph import Model
from tflite_export.metadata_schema import pack, unpack
from tflite_export.metadata_tensor import TensorMetadata

FIELD = "TFLITE_METADATA"
_Tensors = Mapping[str, TensorMetadata | Mapping[str, Any]] | Sequence[TensorMetadata | Mapping[str, Any]]
# No label or vocabulary file is larger; a damaged or hostile archive can promise any size.
_LARGEST = 64 << 20
_DAMAGED_ARCHIVE = (zipfile.BadZipFile, OSError, struct.error, zlib.error, NotImplementedError, RuntimeError, EOFError)


@dataclass(frozen=True)
class Metadata:
    """What a file says of itself.

    Attributes:
        name, description, version, author, license: of the model; "" when it is not told.
        inputs, outputs: one an input and output of the first subgraph, in its order; empty when nothing is told.
        files: name -> content of the files packed into the model, label files among them.
        signatures: key -> (input name -> tensor name, output name -> tensor name).
        min_parser_version: of the metadata format that the reader must know; "" when the file has no metadata.
    """

    name: str
    description: str
    version: str
    author: str
    license: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]
    files: Mapping[str, bytes]
    signatures: Mapping[str, tuple[Mapping[str, str], Mapping[str, str]]]
    min_parser_version: str

    def __str__(self) -> str:
        from tflite_export.rendering import render, table

        rows = [(key, getattr(self, key)) for key in ("name", "description", "version", "author", "license")]
        rows += [("file", f"{name}: {len(content):,} bytes") for name, content in self.files.items()]
        for key, sides in self.signatures.items():
            for side, names in zip(("input", "output"), sides, strict=True):
                rows += [(f"{side} of {key!r}", f"{name} (tensor {tensor})") for name, tensor in names.items()]
        head = "Metadata" if self.min_parser_version else "No metadata in this file"
        parts = [table(head, ("", "value"), [row for row in rows if row[1]])]
        ends = [("input", end) for end in self.inputs] + [("output", end) for end in self.outputs]
        if ends:
            parts.append(table("Inputs and outputs", ("", "name", "what", "normalisation", "labels", "description"), [
                (side, end.name, " ".join(filter(None, (end.content, end.color))), _normalisation(end),
                 _first(end.labels), end.description) for side, end in ends
            ]))  # fmt: skip
        return render(*parts)


def _normalisation(end: TensorMetadata) -> str:
    shown = [" ".join(f"{value:g}" for value in values) for values in (end.mean, end.std)]
    return f"(x - {shown[0]}) / {shown[1]}" if end.mean else ""


def _first(labels: Sequence[str]) -> str:
    return ", ".join(labels[:3]) + (f", ... ({len(labels)})" if len(labels) > 3 else "")


def write_metadata(
    content: File,
    *,
    name: str = "",
    description: str = "",
    version: str = "",
    author: str = "",
    license: str = "",
    inputs: _Tensors | None = None,
    outputs: _Tensors | None = None,
    files: Mapping[str, bytes | str | os.PathLike[str]] | None = None,
    rename: Mapping[str, str] | None = None,
) -> bytes:
    """A file with metadata in the format that Android's Task library and MediaPipe read. It computes the same.

    Metadata and packed files that are already there are replaced as a whole.

    Args:
        content: bytes, a path, or an object with `.content`.
        name, description, version, author, license: of the model; "" leaves it out.
        inputs, outputs: name in the signature -> what is told of it, or a sequence in the file's order:
            `TensorMetadata` or mappings of its attributes, such as `{"mean": 127.5, "std": 127.5, "color": "rgb"}`.
            What is left out has its name alone.
        files: further files to be packed: name -> bytes, or the path of a file.
        rename: old -> new name of inputs and outputs in every signature; a file without a signature gets the one named
            "serving_default".

    Returns:
        The new file's bytes.

    Raises:
        ValueError: not a TFLite file or one above 2 GB; a name that the signature does not have; or a value that does
            not fit, such as labels of another number than the classes.

    Source: TensorFlow Lite metadata, metadata_schema.fbs 1.5.0.

    >>> content = write_metadata("fashion.tflite", name="Fashion", license="Apache-2.0",
    ...                          inputs=[{"mean": 0, "std": 255, "color": "grayscale"}],
    ...                          outputs=[{"labels": "labels.txt"}])            # doctest: +SKIP
    """
    data = content_of(content)
    model = read(data, name=name_of(content))
    tree = load(data)
    if any(buffer.offset > 1 for buffer in tree.buffers or []):
        raise ValueError("Metadata cannot be written into a file above 2 GB, whose constants lie behind the flatbuffer")
    if rename:
        _rename(tree, model, rename)
        model = read(store(tree))
    told = {side: _told(side, given, model) for side, given in (("inputs", inputs), ("outputs", outputs))}
    packed = _packed_files(files or {}, [*told["inputs"], *told["outputs"]])
    record = {
        "name": name or None,
        "description": description or None,
        "version": version or None,
        "author": author or None,
        "license": license or None,
        "subgraph_metadata": [
            {
                "input_tensor_metadata": [end.record() for end in told["inputs"]],
                "output_tensor_metadata": [end.record() for end in told["outputs"]],
            }
        ],
        "associated_files": [{"name": file} for file in files or {}] or None,
        # The versions that introduced what is used here.
        "min_parser_version": "1.3.0" if any(end.content == "audio" for end in told["inputs"]) else "1.0.0",
    }
    _plant(tree, pack(record))
    return _with_archive(store(tree), packed)


def read_metadata(content: File) -> Metadata:
    """What a file says of itself; prints as a table.

    Args:
        content: bytes, a path, or an object with `.content`.

    Returns:
        Its metadata; without any, texts are empty and `signatures` still tells the names.

    Raises:
        ValueError: not a TFLite file, or its metadata or archive is damaged.

    >>> print(read_metadata("fashion.tflite").outputs[0].labels)                # doctest: +SKIP
    """
    data = content_of(content)
    model = read(data, name=name_of(content))
    files = _archive(data)
    record = unpack(model.metadata[FIELD].tobytes()) if FIELD in model.metadata else {}
    graphs = record.get("subgraph_metadata", [])
    ends = [
        tuple(TensorMetadata.of_record(entry, files) for entry in (graphs[0].get(side, []) if graphs else []))
        for side in ("input_tensor_metadata", "output_tensor_metadata")
    ]
    signatures = {
        signature.key: tuple(
            {name: model.subgraphs[signature.subgraph].tensors[index].name for name, index in side.items()}
            for side in (signature.inputs, signature.outputs)
        )
        for signature in model.signatures
    }
    texts = {key: record.get(key, "") for key in ("name", "description", "version", "author", "license")}
    return Metadata(
        **texts,
        inputs=ends[0],
        outputs=ends[1],
        files=files,
        signatures=signatures,  # type: ignore[arg-type]
        min_parser_version=record.get("min_parser_version", "1.0.0" if record else ""),
    )


def _told(side: str, given: _Tensors | None, model: Model) -> list[TensorMetadata]:
    """One an input or output of the first subgraph, names and label files filled in, checked against its tensor."""
    graph = model.subgraphs[0]
    signature = next((s for s in model.signatures if s.subgraph == 0), None)
    names = {index: name for name, index in (getattr(signature, side) if signature else {}).items()}
    indices = getattr(graph, side)
    known = [names.get(index, graph.tensors[index].name) for index in indices]
    if isinstance(given, Mapping):
        if unknown := [key for key in given if key not in known]:
            raise ValueError(f"`{side}` must name some of {known}. Received: {unknown}")
        entries = [TensorMetadata.of(given.get(key, {})) for key in known]
    else:
        if isinstance(given, str) or (given is not None and len(given) != len(known)):
            raise ValueError(f"`{side}` must tell of {len(known)} tensors, {known}. Received: {given!r}")
        entries = [TensorMetadata.of(entry) for entry in given or [{}] * len(known)]
    alone = sum(bool(entry.labels) for entry in entries) == 1
    told = []
    for key, entry, index in zip(known, entries, indices, strict=True):
        _check_fits(key, entry, graph.tensors[index].dynamic)
        values = {**vars(entry), "name": entry.name or key}
        if entry.labels and not entry.labels_file:
            prefix = "" if alone else re.sub(r"[^\w.-]", "_", key, flags=re.ASCII) + "_"
            values["labels_file"] = f"{prefix}labels.txt"
        told.append(TensorMetadata(**values))
    return told


def _check_fits(key: str, entry: TensorMetadata, shape: Sequence[int]) -> None:
    """Lengths against the tensor's shape, where that is known."""
    last = shape[-1] if shape else 1
    for attribute in ("mean", "min", "max"):
        size = len(getattr(entry, attribute))
        if size > 1 and size != last > 0:
            expected = f"1 or {last} numbers, its shape is {list(shape)}"
            raise ValueError(f"`{attribute}` of {key!r} must be {expected}. Received: {size}")
    labels = len(entry.labels)
    if labels and entry.label_kind == "axis" and labels != last > 0:
        raise ValueError(f"`labels` of {key!r} must be {last}, its shape is {list(shape)}. Received: {labels}")
    if entry.dimension_names and len(entry.dimension_names) != len(shape):
        raise ValueError(f"`dimension_names` of {key!r} must be {len(shape)}. Received: {entry.dimension_names}")


def _packed_files(files: Mapping[str, Any], ends: Sequence[TensorMetadata]) -> dict[str, bytes]:
    packed: dict[str, bytes] = {}
    for end in ends:
        if end.labels:
            text = "".join(f"{label}\n" for label in end.labels).encode()
            if packed.setdefault(end.labels_file, text) != text:
                raise ValueError(f"`labels_file` must differ where labels do. Received twice: {end.labels_file!r}")
    for name, value in files.items():
        if name in packed:
            raise ValueError(f"`files` must not have the name of a label file. Received: {name!r}")
        if isinstance(value, (str, os.PathLike)):
            try:
                value = Path(value).read_bytes()
            except OSError as error:
                reason = error.strerror or type(error).__name__
                raise ValueError(f"`files` names {os.fspath(value)!r}, which cannot be read: {reason}") from error
        packed[name] = bytes(value)
    for name in packed:
        if not name or name.startswith("/") or ".." in name.split("/") or "\\" in name or "\0" in name:
            raise ValueError(f"Files in a model must have plain names. Received: {name!r}")
    return packed


def _plant(tree: schema.ModelT, data: bytes) -> None:
    """Puts the metadata buffer in; an existing one is replaced."""
    values = np.frombuffer(data, np.uint8)
    entries = [entry for entry in tree.metadata or [] if entry.name == FIELD.encode()]
    if entries:
        tree.buffers[entries[0].buffer] = schema.BufferT(data=values)
        tree.metadata = [entry for entry in tree.metadata if entry is entries[0] or entry.name != FIELD.encode()]
        return
    tree.buffers.append(schema.BufferT(data=values))
    tree.metadata = [*(tree.metadata or []), schema.MetadataT(name=FIELD, buffer=len(tree.buffers) - 1)]


def _rename(tree: schema.ModelT, model: Model, names: Mapping[str, str]) -> None:
    """New names of inputs and outputs in every signature."""
    if not tree.signatureDefs:
        only = model.signatures[0]
        sides = [
            [schema.TensorMapT(name=name, tensorIndex=index) for name, index in side.items()]
            for side in (only.inputs, only.outputs)
        ]
        tree.signatureDefs = [schema.SignatureDefT(sides[0], sides[1], "serving_default", only.subgraph)]
    left = set(names)
    for signature in tree.signatureDefs:
        for side in (signature.inputs or [], signature.outputs or []):
            for entry in side:
                old = entry.name.decode() if isinstance(entry.name, bytes) else entry.name
                entry.name = names.get(old, old)
                left.discard(old)
            if len({entry.name for entry in side}) != len(side):
                raise ValueError(f"`rename` gives two the same name. Received: rename={dict(names)}")
    if left or not all(isinstance(new, str) and new for new in names.values()):
        known = sorted({n for s in model.signatures for n in (*s.inputs, *s.outputs)})
        raise ValueError(f"`rename` must map some of {known} to new names. Received: rename={dict(names)}")


def _with_archive(model: bytes, files: Mapping[str, bytes]) -> bytes:
    """The model with an archive behind it; entries are stored as they are, since readers map them into memory."""
    if not files:
        return model
    result = io.BytesIO(model)
    with zipfile.ZipFile(result, "a", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)  # a fixed date: the same call gives the same bytes
    return result.getvalue()


def _archive(data: bytes) -> dict[str, bytes]:
    """name -> content of the files packed behind a model.

    Raises:
        ValueError: there is an archive and it is damaged.
    """
    source = io.BytesIO(data)
    if not zipfile.is_zipfile(source):
        return {}
    try:
        with zipfile.ZipFile(source) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            if sum(entry.file_size for entry in entries) > _LARGEST:
                raise ValueError(f"The files packed into the model promise more than {_LARGEST >> 20} MiB")
            return {entry.filename: archive.read(entry) for entry in entries}
    except _DAMAGED_ARCHIVE as error:
        raise ValueError(f"The archive behind the model is damaged: {error}") from error
