"""Bytes of a `.tflite` file to objects and back. No TensorFlow.

A file of this kind is a flatbuffer of the schema TFL3:

    byte 0..3    offset of the root table (Model)
    byte 4..7    the identifier, b"TFL3"
    then tables in any order; constants lie 16-byte aligned, and behind the flatbuffer when the file exceeds 2 GB
"""

import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.graph import Model, Operator, Quantization, Signature, Subgraph, Tensor

IDENTIFIER = b"TFL3"
KINDS: dict[int, str] = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
TYPES: dict[int, str] = {v: k for k, v in vars(schema.TensorType).items() if isinstance(v, int)}
_SCHEMES: dict[int, str] = {v: k for k, v in vars(schema.QuantizationDetails).items() if isinstance(v, int)}
# What reading a damaged flatbuffer raises: offsets that lead outside, lengths without bytes, tables of another kind.
_DAMAGE = (struct.error, IndexError, KeyError, TypeError, ValueError, OverflowError, AttributeError, MemoryError)


class HasContent(Protocol):
    """Anything that carries a file's bytes, such as `Exported`."""

    @property
    def content(self) -> bytes: ...


File = bytes | bytearray | memoryview | str | os.PathLike[str] | HasContent


def content_of(file: File) -> bytes:
    """The bytes of a file given as bytes, as a path or as an object with `.content`.

    Raises:
        TypeError: `file` is none of these.
        OSError: the path cannot be read.
    """
    content = getattr(file, "content", file)
    if isinstance(content, bytes):
        return content
    if isinstance(content, (bytearray, memoryview)):
        return bytes(content)
    if isinstance(content, (str, os.PathLike)):
        return Path(content).read_bytes()
    raise TypeError(f"`file` must be bytes, a path or an object with `.content`. Received: {type(file).__name__}")


def name_of(file: File) -> str:
    """How messages call a file: its path, or "bytes"."""
    return os.fspath(file) if isinstance(file, (str, os.PathLike)) else "bytes"


def read(file: File, *, name: str = "") -> Model:
    """A file as plain objects; constants are views of the file's bytes, nothing is copied.

    Args:
        file: bytes, a path, or an object with `.content`.
        name: how messages call the file, where the bytes of a known file are given.

    Returns:
        The model: every number in it that points somewhere points at something that exists.

    Raises:
        ValueError: not a whole `.tflite` file; the message says which file and why.
        TypeError: `file` is none of the three.
        OSError: the path cannot be read.

    Source: LiteRT, schema.fbs, version 3.
    """
    content, name = content_of(file), name or name_of(file)
    _check_head(content, name)
    try:
        return _Reader(content).model()
    except _Invalid as error:
        raise ValueError(f"{name} is not a valid TFLite file: {error}") from None
    except _DAMAGE as error:
        raise ValueError(f"{name} is not a valid TFLite file: {_DAMAGED} ({type(error).__name__})") from error


def load(content: bytes) -> schema.ModelT:
    """The file in the schema's object form, to be edited and given to `store`; constants are numpy views.

    Raises:
        ValueError: not a TFLite file, or damaged.
    """
    _check_head(content, "bytes")
    try:
        return schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    except _DAMAGE as error:
        raise ValueError(f"bytes is not a valid TFLite file: {_DAMAGED} ({type(error).__name__})") from error


def store(model: schema.ModelT) -> bytes:
    """The bytes of an object form, with the identifier."""
    size = sum(len(buffer.data) for buffer in model.buffers or [] if buffer.data is not None)
    builder = _Builder(size + (1 << 16))
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


class _Builder(flatbuffers.Builder):
    """Puts vectors of bytes on 16 byte boundaries, as schema.fbs demands of constants; generated code does not.

    Equal vectors of numbers (shapes, the zero points of kernels and biases) are written once.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._written: dict[tuple[int, bytes], int] = {}
        self._before, self._width, self._points = 0, 1, False

    def StartVector(self, elemSize: int, numElems: int, alignment: int) -> Any:
        self._before, self._width, self._points = self.Offset(), elemSize, False
        return super().StartVector(elemSize, numElems, 16 if elemSize == 1 else alignment)

    def PrependUOffsetTRelative(self, off: int) -> None:
        self._points = True  # such a vector tells distances from where it stands
        super().PrependUOffsetTRelative(off)

    def EndVector(self, numElems: int | None = None) -> Any:
        offset = super().EndVector(numElems)
        start = len(self.Bytes) - self.Offset()
        count = int.from_bytes(self.Bytes[start : start + 4], "little")
        width, self._width = self._width, 1  # strings and bytes end here, too, and do not begin as a vector
        if self._points or width == 1:
            return offset
        content = bytes(self.Bytes[start : start + 4 + count * width])
        first = self._written.setdefault((width, content), offset)
        if first != offset:
            self.head = len(self.Bytes) - self._before
        return first


def kind(model: schema.ModelT, op: schema.OperatorT) -> str:
    """Name of an operator of the object form: "CONV_2D", or the name of a custom operation."""
    code = model.operatorCodes[op.opcodeIndex]
    return _kind(code.builtinCode, code.deprecatedBuiltinCode, code.customCode)[0]


_DAMAGED = "its structure points outside the file (damaged or cut off)"


class _Invalid(Exception):
    """A reason why a file cannot be used."""


def _check_head(content: bytes, where: str) -> None:
    if not content:
        raise ValueError(f"{where} is not a TFLite file: it is empty")
    if len(content) < 16:
        raise ValueError(f"{where} is not a TFLite file: only {len(content)} bytes")
    if content[4:8] != IDENTIFIER:
        raise ValueError(
            f"{where} is not a TFLite file: bytes 4 to 7 must be {IDENTIFIER!r}. Received: {content[4:8]!r}"
        )


def _kind(builtin: int, deprecated: int, custom: bytes | None) -> tuple[str, bool]:
    """(name, whether it is custom). Numbers above 127 did not fit the old one-byte field: the larger one counts."""
    number = max(builtin, deprecated)
    if number == schema.BuiltinOperator.CUSTOM:
        return _text(custom) or "CUSTOM", True
    return KINDS.get(number, f"BUILTIN_{number}"), False


def _text(value: bytes | None) -> str:
    return value.decode("utf-8", errors="replace") if value else ""


class _Reader:
    """One pass over the tables of a file.

    A damaged length can name more tables than the file has bytes for; each table costs time, so they are counted and a
    file that holds more than it can is refused.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.bytes = np.frombuffer(content, np.uint8)
        # The smallest table, an empty buffer, takes 8 bytes: 4 of offset and 4 of vtable. Numbers may be shared.
        self.tables_left = len(content) // 8 + 16
        self.numbers_left = len(content) + 1024

    def model(self) -> Model:
        root = schema.Model.GetRootAs(self.content, 0)
        buffers = [self._buffer(b) for b in self._tables(root.BuffersLength(), root.Buffers)]
        codes = [
            (*_kind(c.BuiltinCode(), c.DeprecatedBuiltinCode(), c.CustomCode()), c.Version())
            for c in self._tables(root.OperatorCodesLength(), root.OperatorCodes)
        ]
        graphs = tuple(
            self._subgraph(number, graph, codes, buffers)
            for number, graph in enumerate(self._tables(root.SubgraphsLength(), root.Subgraphs))
        )
        if not graphs:
            raise _Invalid("it has no subgraph")
        metadata = {}
        for entry in self._tables(root.MetadataLength(), root.Metadata):
            data = self._within(buffers, entry.Buffer(), f"metadata {_text(entry.Name())!r} names buffer")
            metadata[_text(entry.Name())] = np.zeros(0, np.uint8) if data is None else data
        signatures = [self._signature(s, graphs) for s in self._tables(root.SignatureDefsLength(), root.SignatureDefs)]
        return Model(
            size=len(self.content),
            version=root.Version(),
            description=_text(root.Description()),
            subgraphs=graphs,
            signatures=tuple(signatures) or (_tensor_names(graphs[0]),),
            metadata=metadata,
        )

    def _tables(self, length: int, get: Callable[[int], Any]) -> Iterator[Any]:
        self.tables_left -= length
        if self.tables_left < 0:
            raise _Invalid(_DAMAGED)
        return (get(i) for i in range(length))

    def _numbers(self, vector: Any) -> tuple[int, ...]:
        """A vector of numbers; flatbuffers hands out the number 0 for an absent one."""
        if isinstance(vector, int):
            return ()
        self.numbers_left -= vector.size
        if self.numbers_left < 0:
            raise _Invalid(_DAMAGED)
        return tuple(vector.tolist())

    @staticmethod
    def _within(items: Any, index: int, what: str) -> Any:
        if not 0 <= index < len(items):
            raise _Invalid(f"{what} {index} of {len(items)}")
        return items[index]

    def _buffer(self, buffer: Any) -> np.ndarray | None:
        """A constant's bytes; None for the empty buffer of tensors that are no constants."""
        if buffer.Offset() > 1:  # 0 and 1 are placeholders; a real offset counts from the start of the file
            start, size = buffer.Offset(), buffer.Size()
            if start + size > len(self.content):
                raise _Invalid(_DAMAGED)
            return self.bytes[start : start + size]
        return None if buffer.DataLength() == 0 else buffer.DataAsNumpy()

    def _subgraph(self, number: int, graph: Any, codes: list, buffers: list) -> Subgraph:
        tensors = tuple(
            self._tensor(i, tensor, buffers)
            for i, tensor in enumerate(self._tables(graph.TensorsLength(), graph.Tensors))
        )
        operators = tuple(
            self._operator(i, op, codes)
            for i, op in enumerate(self._tables(graph.OperatorsLength(), graph.Operators))
        )
        inputs, outputs = self._numbers(graph.InputsAsNumpy()), self._numbers(graph.OutputsAsNumpy())
        for index in (*inputs, *outputs):
            self._within(tensors, index, f"subgraph {number} names tensor")
        for op in operators:
            for index in (*(i for i in op.inputs if i != -1), *op.outputs):
                self._within(tensors, index, f"operator {op.index} ({op.kind}) names tensor")
        return Subgraph(number, _text(graph.Name()), tensors, operators, inputs, outputs)

    def _tensor(self, index: int, tensor: Any, buffers: list) -> Tensor:
        shape = self._numbers(tensor.ShapeAsNumpy())
        # Buffer 0 means "no constant"; small hand-made files leave out the empty buffer that it would name.
        buffer = tensor.Buffer()
        data = self._within(buffers, buffer, f"tensor {index} names buffer") if buffer or buffers else None
        if any(size < 0 for size in shape):
            raise _Invalid(f"tensor {index} has the shape {list(shape)}")
        number = tensor.Type()
        return Tensor(
            index=index,
            name=_text(tensor.Name()),
            shape=shape,
            dynamic=self._numbers(tensor.ShapeSignatureAsNumpy()) or shape,
            type=TYPES.get(number, f"TYPE_{number}"),
            buffer=buffer,
            data=data,
            quantization=self._quantization(index, tensor.Quantization()),
            is_variable=bool(tensor.IsVariable()),
            is_sparse=tensor.Sparsity() is not None,
        )

    def _quantization(self, index: int, quantization: Any) -> Quantization | None:
        if quantization is None:
            return None
        scheme = quantization.DetailsType()
        if scheme:
            name = _SCHEMES.get(scheme, f"scheme {scheme}")
            return Quantization(np.zeros(0, np.float32), np.zeros(0, np.int64), scheme=name)
        scale = quantization.ScaleAsNumpy()
        if isinstance(scale, int) or scale.size == 0:  # ranges of a calibration alone are no grid
            return None
        zero = quantization.ZeroPointAsNumpy()
        zero = np.zeros(scale.size, np.int64) if isinstance(zero, int) or zero.size == 0 else zero
        if zero.size not in (1, scale.size):
            raise _Invalid(f"tensor {index} has {scale.size} scales and {zero.size} zero points")
        if zero.size != scale.size:
            zero = np.broadcast_to(zero, scale.shape)
        return Quantization(scale, zero, quantization.QuantizedDimension())

    def _operator(self, index: int, op: Any, codes: list) -> Operator:
        name, is_custom, version = self._within(codes, op.OpcodeIndex(), f"operator {index} names operator code")
        options = schema.BuiltinOptionsCreator(op.BuiltinOptionsType(), op.BuiltinOptions())
        if options is None:
            options = schema.BuiltinOptions2Creator(op.BuiltinOptions2Type(), op.BuiltinOptions2())
        inputs, outputs = self._numbers(op.InputsAsNumpy()), self._numbers(op.OutputsAsNumpy())
        return Operator(index, name, is_custom, version, inputs, outputs, options)

    def _signature(self, signature: Any, graphs: tuple[Subgraph, ...]) -> Signature:
        key = _text(signature.SignatureKey())
        graph = self._within(graphs, signature.SubgraphIndex(), f"signature {key!r} names subgraph")
        sides = []
        for length, get, order in (
            (signature.InputsLength(), signature.Inputs, graph.inputs),
            (signature.OutputsLength(), signature.Outputs, graph.outputs),
        ):
            names = {_text(entry.Name()): entry.TensorIndex() for entry in self._tables(length, get)}
            for index in names.values():
                self._within(graph.tensors, index, f"signature {key!r} names tensor")
            place = {index: position for position, index in reversed(list(enumerate(order)))}
            sides.append(dict(sorted(names.items(), key=lambda item: place.get(item[1], len(place)))))
        return Signature(key, graph.index, *sides)


def _tensor_names(graph: Subgraph) -> Signature:
    """A signature for a file without one: the tensors' own names, numbered where they are missing or repeat."""

    def named(indices: tuple[int, ...], side: str) -> dict[str, int]:
        names: dict[str, int] = {}
        for position, index in enumerate(indices):
            name = graph.tensors[index].name
            names[name if name and name not in names else f"{side}_{position}"] = index
        return names

    return Signature("", graph.index, named(graph.inputs, "input"), named(graph.outputs, "output"))
