"""A `.tflite` file under edit: operators that become others, constants that are added, ranges that are written."""

import itertools
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.buffers import drop_unused
from tflite_export.flatbuffer import TYPES, kind, load, store
from tflite_export.graph import DTYPES

_NUMBERS = {name: number for number, name in TYPES.items()}
_TYPE_OF = {dtype: name for name, dtype in DTYPES.items()}
# Ends the name of a layer within a tensor's: "dense./dense/MatMul". A layer called twice gives "dense._1/...".
SCOPE_END = "."
_LAYER = re.compile(r"^(?:.*?;)??([^;]*?)\.(?:_\d+)?/")


class Draft:
    """The first subgraph of a file, open for edits; `content()` is the edited file.

    Tensors and operators are the schema's own objects and are named by their index and by identity. Whatever is not
    touched stays as it was.
    """

    def __init__(self, content: bytes) -> None:
        self.model = load(content)
        self.graph = self.model.subgraphs[0]
        self.graph.inputs, self.graph.outputs = (
            [int(i) for i in self.graph.inputs],
            [int(i) for i in self.graph.outputs],
        )
        self.graph.operators = list(self.graph.operators or [])
        for op in self.graph.operators:
            op.inputs, op.outputs = [int(i) for i in op.inputs], [int(i) for i in op.outputs]
        for tensor in self.graph.tensors:
            tensor.shape = [] if tensor.shape is None else [int(size) for size in tensor.shape]

    def content(self) -> bytes:
        """The edited file; constants that nothing uses any more are left out."""
        drop_unused(self.model)
        return store(self.model)

    @property
    def tensors(self) -> list[Any]:
        return self.graph.tensors

    @property
    def operators(self) -> list[Any]:
        return self.graph.operators

    @property
    def inputs(self) -> list[int]:
        return self.graph.inputs

    @property
    def outputs(self) -> list[int]:
        return self.graph.outputs

    def kind(self, op: Any) -> str:
        """ "CONV_2D", or the name of a custom operation."""
        return kind(self.model, op)

    def type(self, index: int) -> str:
        """ "FLOAT32", "INT8", ..."""
        return TYPES[self.tensors[index].type]

    def is_float(self, index: int) -> bool:
        return index >= 0 and self.type(index) == "FLOAT32"

    def is_constant(self, index: int) -> bool:
        return index >= 0 and self.model.buffers[self.tensors[index].buffer].data is not None

    def name(self, index: int) -> str:
        return (self.tensors[index].name or b"").decode("utf-8", errors="replace")

    def layer(self, op: Any) -> str:
        """The layer an operation came from, as far as the names of its results tell."""
        return layer_of(self.name(op.outputs[0])) if op.outputs else ""

    def tidy_names(self) -> None:
        """Takes the marks of layers out of the tensors' names: "dense./dense/MatMul" becomes "dense/MatMul".

        Names stay unique, as other tools ask for: of several, an input or output keeps it, then a result; the others
        are numbered, "dense/MatMul_1". A constant is named by its number alone: what the converter calls it misleads (a
        bias has the name of an activation), and on a microcontroller names are flash.
        """
        ends = {*self.graph.inputs, *self.graph.outputs}
        taken: set[str] = set()
        for index in sorted(range(len(self.tensors)), key=lambda i: (i not in ends, self.is_constant(i))):
            name = str(index) if self.is_constant(index) else self.name(index).split(";")[0]
            name = re.sub(r"\.(_\d+)?/", "/", name)
            name = re.sub(r"(^|/)([^/]+)/\2(_\d+)?/", r"\1\2/", name)
            numbered = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(1)))
            name = next(candidate for candidate in numbered if candidate not in taken)
            self.tensors[index].name = name.encode()
            taken.add(name)

    def value(self, index: int) -> np.ndarray:
        """A constant in its shape, of its own type.

        Raises:
            ValueError: the tensor is no constant.
        """
        if not self.is_constant(index):
            raise ValueError(f"Tensor {self.name(index)!r} is no constant")
        tensor = self.tensors[index]
        data = np.ascontiguousarray(np.asarray(self.model.buffers[tensor.buffer].data, np.uint8))
        return data.view(DTYPES[TYPES[tensor.type]]).reshape(tensor.shape)

    def makers(self) -> dict[int, Any]:
        """tensor -> the operator that computes it."""
        return {output: op for op in self.operators for output in op.outputs}

    def users(self) -> dict[int, list[Any]]:
        """tensor -> the operators that read it."""
        users: dict[int, list[Any]] = defaultdict(list)
        for op in self.operators:
            for index in dict.fromkeys(op.inputs):
                if index >= 0:
                    users[index].append(op)
        return users

    def grid(self, index: int) -> Any:
        """The schema's quantization of an integer tensor, None when it has none."""
        quantization = self.tensors[index].quantization
        if quantization is None or quantization.scale is None or not np.size(quantization.scale):
            return None
        return quantization

    def set_range(self, index: int, low: float, high: float) -> None:
        """Writes a range to be quantized to; the tensor's old one, or its grid, is gone."""
        self.tensors[index].quantization = schema.QuantizationParametersT(min=[float(low)], max=[float(high)])

    def add_tensor(
        self, shape: Sequence[int], type_name: str, name: str, *, buffer: int | None = None, **fields: Any
    ) -> int:
        """A new tensor; `fields` are further attributes of the schema's TensorT. Returns its index."""
        if buffer is None:
            self.model.buffers.append(schema.BufferT())
            buffer = len(self.model.buffers) - 1
        tensor = schema.TensorT()
        tensor.shape, tensor.type = [int(size) for size in shape], _NUMBERS[type_name]
        tensor.buffer, tensor.name = buffer, name.encode()
        for field, value in fields.items():
            setattr(tensor, field, value)
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def add_constant(self, value: np.ndarray, name: str, **fields: Any) -> int:
        """A new constant of the array's own type. Returns its index."""
        value = np.asarray(value)
        self.model.buffers.append(schema.BufferT(data=_bytes(value)))
        type_name = _TYPE_OF[value.dtype.newbyteorder("<") if value.dtype.itemsize > 1 else value.dtype]
        return self.add_tensor(value.shape, type_name, name, buffer=len(self.model.buffers) - 1, **fields)

    def set_value(self, index: int, value: np.ndarray) -> None:
        """Replaces a constant by one of any type; a buffer that other tensors share is left to them."""
        self.model.buffers.append(schema.BufferT(data=_bytes(value)))
        tensor = self.tensors[index]
        tensor.buffer, tensor.shape = len(self.model.buffers) - 1, list(value.shape)
        tensor.type = _NUMBERS[_TYPE_OF[value.dtype.newbyteorder("<") if value.dtype.itemsize > 1 else value.dtype]]

    def set_bytes(self, index: int, data: np.ndarray, type_name: str) -> None:
        """Replaces a constant by packed bytes that numpy has no type for."""
        self.model.buffers.append(schema.BufferT(data=data))
        self.tensors[index].buffer, self.tensors[index].type = len(self.model.buffers) - 1, _NUMBERS[type_name]

    def become(self, op: Any, kind_name: str, inputs: Sequence[int], options: Any = None, version: int = 1) -> Any:
        """Turns an operator into another builtin one with the same outputs.

        Args:
            op: the operator, changed in place.
            kind_name: name of the new operation, such as "MUL".
            inputs: tensor indices.
            options: the schema's `...OptionsT` object; None for an operation without.
            version: of the operation.
        """
        op.opcodeIndex, op.inputs = self._code(kind_name, version), [int(i) for i in inputs]
        op.customOptions = op.builtinOptions = op.builtinOptions2 = None
        op.builtinOptionsType = op.builtinOptions2Type = 0
        if options is not None:
            op.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__[:-1])
            op.builtinOptions = options
        return op

    def insert(
        self,
        at: int,
        kind_name: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        options: Any = None,
        version: int = 1,
    ) -> Any:
        """A new operator at place `at` of the order of execution."""
        op = schema.OperatorT(inputs=[], outputs=[int(i) for i in outputs])
        self.operators.insert(at, self.become(op, kind_name, inputs, options, version))
        return op

    def place(self, op: Any) -> int:
        """The place of an operator in the order of execution."""
        return next(i for i, other in enumerate(self.operators) if other is op)

    def replace_uses(self, old: int, new: int, keep: Sequence[Any] = ()) -> None:
        """Every reader of `old`, and the graph's outputs, read `new` instead; the operators in `keep` do not change."""
        for op in self.operators:
            if not any(op is other for other in keep):
                op.inputs = [new if i == old else i for i in op.inputs]
        self.graph.outputs = [new if i == old else i for i in self.graph.outputs]

    def _code(self, kind_name: str, version: int) -> int:
        number = getattr(schema.BuiltinOperator, kind_name)
        for index, code in enumerate(self.model.operatorCodes):
            if max(code.builtinCode, code.deprecatedBuiltinCode) == number and code.version == version:
                return index
        code = schema.OperatorCodeT(deprecatedBuiltinCode=min(number, 127), builtinCode=number, version=version)
        self.model.operatorCodes.append(code)
        return len(self.model.operatorCodes) - 1


def layer_of(name: str) -> str:
    """The layer that a tensor's name tells, the whole name when it tells none.

    >>> layer_of("block/dense./dense/MatMul;block/dense./dense/BiasAdd"), layer_of("input_0")
    ('block/dense', 'input_0')
    """
    found = _LAYER.match(name)
    return found[1] if found else name.split(";")[0]


def _bytes(value: np.ndarray) -> np.ndarray:
    return np.frombuffer(np.ascontiguousarray(value).tobytes(), np.uint8)
