"""Where a file meets its user: names and order of inputs and outputs, their types, the signature."""

from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.draft import Draft

_SHIFT = {"int8": 0, "int16": 0, "uint8": 128}


def order_inputs(draft: Draft, count: int) -> list[int]:
    """The file's input tensors in the order of the function's arguments, which were named "input_0", "input_1", ...

    The converter keeps no promise about their order. An argument that nothing reads may be missing: it is added again.
    """
    by_name = {draft.name(index).split(":")[0].removeprefix("serving_default_"): index for index in draft.inputs}
    draft.graph.inputs = [by_name[f"input_{i}"] for i in range(count)]
    return draft.graph.inputs


def name_ends(draft: Draft, inputs: Sequence[str], outputs: Sequence[str], key: str) -> None:
    """Names the tensors at the boundary, and writes the signature.

    Args:
        draft: changed in place.
        inputs: names in the order of the file's inputs, each once.
        outputs: names in the order of the file's outputs, each once; one may be an input's as well, its tensor is then
            named "..._output".
        key: of the signature.
    """
    taken = {*inputs, *outputs}
    for index, tensor in enumerate(draft.tensors):
        if index not in draft.inputs and index not in draft.outputs and draft.name(index) in taken:
            tensor.name = (draft.name(index) + "_inner").encode()
    for index, name in [*zip(draft.outputs[::-1], outputs[::-1], strict=True), *zip(draft.inputs, inputs, strict=True)]:
        twice = name in inputs and index not in draft.inputs
        draft.tensors[index].name = (f"{name}_output" if twice else name).encode()
    signature = schema.SignatureDefT(signatureKey=key.encode(), subgraphIndex=0)
    for side, indices, names in (("inputs", draft.inputs, inputs), ("outputs", draft.outputs, outputs)):
        entries = [schema.TensorMapT(name=n.encode(), tensorIndex=i) for n, i in zip(names, indices, strict=True)]
        setattr(signature, side, entries)
    draft.model.signatureDefs = [signature]


def separate(draft: Draft) -> None:
    """Gives every output a tensor of its own, by a RESHAPE to the same shape: it may be an input, or another output."""
    seen = set(draft.inputs)
    for place, index in enumerate(list(draft.outputs)):
        if index in seen:
            tensor = draft.tensors[index]
            shape = draft.add_constant(np.array(tensor.shape, np.int32), f"{draft.name(index)}_shape")
            copy = draft.add_tensor(
                tensor.shape, draft.type(index), f"{draft.name(index)}_copy", quantization=tensor.quantization
            )
            options = schema.ReshapeOptionsT(newShape=tensor.shape)
            draft.insert(len(draft.operators), "RESHAPE", [index, shape], [copy], options)
            draft.graph.outputs[place] = copy
        seen.add(index)


def integer_inputs(draft: Draft, type_name: str) -> None:
    """The file takes integers: each float input's QUANTIZE is gone and its result is the input.

    Args:
        draft: an integer file whose float inputs are quantized first, changed in place.
        type_name: "int8", "uint8" or "int16".
    """
    for place, index in enumerate(list(draft.inputs)):
        doors = [op for op in draft.users().get(index, []) if draft.kind(op) == "QUANTIZE"]
        if not draft.is_float(index) or not doors:
            continue
        first, *others = doors
        inner = first.outputs[0]
        draft.operators.remove(first)
        for op in others:  # the same input on another grid: from the first grid, by a QUANTIZE between integers
            op.inputs = [inner]
        rest = [op for op in draft.users().get(index, []) if op not in others]
        if rest:
            real = draft.add_tensor(draft.tensors[index].shape, "FLOAT32", draft.name(index) + "_real")
            for op in rest:
                op.inputs = [real if i == index else i for i in op.inputs]
            draft.insert(0, "DEQUANTIZE", [inner], [real], schema.DequantizeOptionsT(), version=2)
        draft.graph.inputs[place] = _shifted_input(draft, inner) if type_name == "uint8" else inner
        draft.graph.outputs = [inner if i == index else i for i in draft.outputs]


def integer_outputs(draft: Draft, type_name: str) -> None:
    """The file returns integers: each output's DEQUANTIZE is gone.

    Args:
        draft: an integer file whose outputs are dequantized last, changed in place.
        type_name: "int8", "uint8" or "int16".
    """
    for place, index in enumerate(list(draft.outputs)):
        op = draft.makers().get(index)
        if op is None or draft.kind(op) != "DEQUANTIZE":
            continue
        inner = op.inputs[0]
        if not draft.users().get(index) and draft.outputs.count(index) == 1:
            draft.operators.remove(op)
        draft.graph.outputs[place] = _shifted_output(draft, inner) if type_name == "uint8" else inner


def _shifted_input(draft: Draft, inner: int) -> int:
    outer = _twin(draft, inner, "_input")
    draft.insert(0, "QUANTIZE", [outer], [inner], schema.QuantizeOptionsT(), version=2)
    return outer


def _shifted_output(draft: Draft, inner: int) -> int:
    outer = _twin(draft, inner, "_output")
    draft.insert(len(draft.operators), "QUANTIZE", [inner], [outer], schema.QuantizeOptionsT(), version=2)
    return outer


def _twin(draft: Draft, inner: int, suffix: str) -> int:
    """A uint8 tensor of the same real values as an int8 one: the zero point is 128 higher."""
    grid = draft.grid(inner)
    quantization = schema.QuantizationParametersT(
        scale=np.asarray(grid.scale, np.float32), zeroPoint=np.asarray(grid.zeroPoint, np.int64) + _SHIFT["uint8"]
    )
    return draft.add_tensor(draft.tensors[inner].shape, "UINT8", draft.name(inner) + suffix, quantization=quantization)


def described(draft: Draft, ends: Sequence[int]) -> list[str]:
    """One text an input or output: name, type, shape, grid."""
    texts = []
    for index in ends:
        text = f"{draft.name(index)} {draft.type(index).lower()} {tuple(draft.tensors[index].shape)}"
        grid = draft.grid(index)
        if grid is not None:
            text += f" = {float(np.ravel(grid.scale)[0]):.6g} * (integer - {int(np.ravel(grid.zeroPoint)[0])})"
        texts.append(text)
    return texts
