"""Small `.tflite` files written table by table, so that every number in them is known."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema


def tensor(shape: Sequence[int], type: str = "FLOAT32", data: Any = None, scale: Any = None, zero: Any = None,
           axis: int = 0, name: str = "", variable: bool = False) -> SimpleNamespace:
    """A tensor: `data` an array (a constant) or None, `scale` and `zero` numbers or lists."""
    return SimpleNamespace(**locals())


def op(kind: str, inputs: Sequence[int], outputs: Sequence[int], options: Any = None) -> SimpleNamespace:
    """An operator; `kind` in lower case is the name of a custom operation, `options` a schema object."""
    return SimpleNamespace(**locals())


def file_of(tensors: Sequence[SimpleNamespace], operators: Sequence[SimpleNamespace], inputs: Sequence[int],
            outputs: Sequence[int], names: tuple[Sequence[str], Sequence[str]] | None = None) -> bytes:
    """Bytes of a file of one subgraph; `names` of inputs and outputs make a signature "main"."""
    model = schema.ModelT(version=3, description="by hand", buffers=[schema.BufferT()], operatorCodes=[])
    graph = schema.SubGraphT(name="graph", tensors=[], operators=[], inputs=list(inputs), outputs=list(outputs))
    for number, t in enumerate(tensors):
        buffer = 0
        if t.data is not None:
            model.buffers.append(schema.BufferT(data=np.frombuffer(np.ascontiguousarray(t.data).tobytes(), np.uint8)))
            buffer = len(model.buffers) - 1
        made = schema.TensorT(shape=list(t.shape), type=getattr(schema.TensorType, t.type), buffer=buffer,
                              name=t.name or f"t{number}", isVariable=t.variable)
        if t.scale is not None:
            made.quantization = schema.QuantizationParametersT(
                scale=list(np.atleast_1d(t.scale)), zeroPoint=list(np.atleast_1d(0 if t.zero is None else t.zero)),
                quantizedDimension=t.axis)
        graph.tensors.append(made)
    for o in operators:
        if o.kind.islower():
            code = schema.OperatorCodeT(customCode=o.kind, builtinCode=32, deprecatedBuiltinCode=32)
        else:
            number = getattr(schema.BuiltinOperator, o.kind)
            code = schema.OperatorCodeT(builtinCode=number, deprecatedBuiltinCode=min(number, 127))
        code.version = 1
        model.operatorCodes.append(code)
        code_index = len(model.operatorCodes) - 1
        made = schema.OperatorT(opcodeIndex=code_index, inputs=list(o.inputs), outputs=list(o.outputs))
        if o.options is not None:
            made.builtinOptions = o.options
            made.builtinOptionsType = getattr(schema.BuiltinOptions, type(o.options).__name__[:-1])
        graph.operators.append(made)
    model.subgraphs = [graph]
    if names is not None:
        sides = [[schema.TensorMapT(name=n, tensorIndex=i) for n, i in zip(side, indices, strict=True)]
                 for side, indices in zip(names, (inputs, outputs), strict=True)]
        model.signatureDefs = [schema.SignatureDefT(sides[0], sides[1], "main", 0)]
    return packed(model)


def packed(model: Any) -> bytes:
    """Bytes of the schema's object form."""
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def unpacked(content: bytes) -> Any:
    """The schema's object form of bytes."""
    return schema.ModelT.InitFromPackedBuf(content, 0)


def dense() -> bytes:
    """y = x W^T + b in float: W = [[1, 2], [0, -1], [3, 0]], b = [0.5, 0, -1]; x [1, 2] -> y [1, 3]."""
    weights, bias = np.float32([[1, 2], [0, -1], [3, 0]]), np.float32([0.5, 0, -1])
    tensors = [tensor((1, 2), name="x"), tensor((3, 2), data=weights, name="w"), tensor((3,), data=bias, name="b"),
               tensor((1, 3), name="y")]
    return file_of(tensors, [op("FULLY_CONNECTED", (0, 1, 2), (3,), schema.FullyConnectedOptionsT())], (0,), (3,))


def integer_dense() -> bytes:
    """y = x W^T in integers: q_y = round(0.5 * 0.25 / 1 * (q_x - 1) q_w^T) - 3.

    x = 0.5 (q_x - 1) [1, 2], W = 0.25 q_w with q_w = [[4, 8], [0, -4]], y = 1 (q_y + 3) [1, 2].
    """
    weights = np.int8([[4, 8], [0, -4]])
    tensors = [tensor((1, 2), "INT8", scale=0.5, zero=1, name="x"),
               tensor((2, 2), "INT8", data=weights, scale=0.25, zero=0, name="w"),
               tensor((2,), "INT32", data=np.zeros(2, "int32"), scale=0.125, zero=0, name="b"),
               tensor((1, 2), "INT8", scale=1.0, zero=-3, name="y")]
    operators = [op("FULLY_CONNECTED", (0, 1, 2), (3,), schema.FullyConnectedOptionsT())]
    return file_of(tensors, operators, (0,), (3,), (("x",), ("y",)))
