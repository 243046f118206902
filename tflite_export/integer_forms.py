"""Operations that the quantizer would leave in float, spelt by others that have an integer form.

This happens on the converted float file: earlier, the converter's fusions (exact GELU, L2 normalization) would not
find their patterns any more.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.comparisons import compare_integers
from tflite_export.draft import Draft
from tflite_export.errors import ExportError
from tflite_export.expansions import expand
from tflite_export.factors import limit_factors
from tflite_export.handwritten import recognize
from tflite_export.measure import ends
from tflite_export.normalizations import center, free_means, sum_squares
from tflite_export.tables import is_tabled, look_up

Samples = list[list[np.ndarray]]
Form = Callable[[Draft, Any, Samples | None], None]


def respell(draft: Draft, samples: Samples | None, bits: int = 8) -> None:
    """Rewrites every operation of a float file that has no integer form but an equivalent that has.

    Args:
        draft: changed in place; it computes the same.
        samples: calibration data, which tell how large the integers are that become real numbers; None: there are none.
        bits: of the activations to come; fewer operations have kernels of 16 bits.

    Raises:
        ExportError: an integer tensor becomes real and nothing tells how large it gets.
    """
    recognize(draft)
    if bits == 16:
        expand(draft)
    if samples:  # a range of its own must be measured
        free_means(draft)
    center(draft)
    sum_squares(draft)
    forms = FORMS if bits == 8 else {**FORMS, **FORMS_OF_16_BITS}
    for op in list(draft.operators):
        form = forms.get(draft.kind(op))
        if form is not None and op.outputs and draft.is_float(op.outputs[0]):
            form(draft, op, samples)
    if samples is not None and bits == 8:
        limit_factors(draft, samples)


def _negative(draft: Draft, op: Any, samples: Samples | None) -> None:
    """-x = x * -1"""
    draft.become(op, "MUL", [op.inputs[0], _scalar(draft, op, -1.0)], schema.MulOptionsT())


def _square(draft: Draft, op: Any, samples: Samples | None) -> None:
    """x**2 = x * x"""
    draft.become(op, "MUL", [op.inputs[0]] * 2, schema.MulOptionsT())


def _cast(draft: Draft, op: Any, samples: Samples | None) -> None:
    """A truth value selects 1 or 0; an integer is looked up in a table of real numbers, after its type was widened."""
    source = op.inputs[0]
    if draft.type(source) in ("UINT8", "INT8", "INT16"):
        result = draft.add_tensor(draft.tensors[source].shape, "INT32", f"{draft.name(op.outputs[0])}/wide")
        options = schema.CastOptionsT(inDataType=draft.tensors[source].type, outDataType=schema.TensorType.INT32)
        draft.insert(draft.place(op), "CAST", [source], [result], options)
        op.inputs, source = [result], result
    if draft.type(source) == "BOOL":
        one, zero = _scalar(draft, op, 1.0), _scalar(draft, op, 0.0)
        draft.become(op, "SELECT_V2", [source, one, zero], schema.SelectV2OptionsT())
    elif not draft.is_float(source):
        if samples is None:
            raise ExportError(
                f"CAST in {draft.layer(op)!r} makes real numbers of integers, and nothing tells how large they get: "
                "pass calibration="
            )
        low, high = (int(end) for end in ends(draft, samples, [source])[source])
        _look_up(draft, op, min(low, 0), max(high, 1))


def _look_up(draft: Draft, op: Any, low: int, high: int) -> None:
    """GATHER from low, low + 1, ..., high at clip(x, low, high) - low: no integer leads outside the table."""
    source, name = op.inputs[0], draft.name(op.outputs[0])
    dtype = {"INT32": np.int32, "INT64": np.int64}.get(draft.type(source))
    if dtype is None:
        raise ExportError(f"CAST from {draft.type(source)} in {draft.layer(op)!r} has no integer form")
    steps = [("MAXIMUM", low, schema.MaximumMinimumOptionsT()), ("MINIMUM", high, schema.MaximumMinimumOptionsT())]
    if low:
        steps.append(("SUB", low, schema.SubOptionsT()))
    for kind, number, options in steps:
        result = draft.add_tensor(draft.tensors[source].shape, draft.type(source), f"{name}/{kind.lower()}")
        constant = draft.add_constant(np.array(number, dtype), f"{name}/{kind.lower()}/y")
        draft.insert(draft.place(op), kind, [source, constant], [result], options)
        source = result
    table = draft.add_constant(np.arange(low, high + 1, dtype=np.float32), f"{name}/table")
    draft.become(op, "GATHER", [table, source], schema.GatherOptionsT())


def _squared_difference(draft: Draft, op: Any, samples: Samples | None) -> None:
    """(x - y)**2 = d * d, d = x - y"""
    difference = _inserted(draft, op, "SUB", op.inputs, schema.SubOptionsT())
    draft.become(op, "MUL", [difference] * 2, schema.MulOptionsT())


def _sum(draft: Draft, op: Any, samples: Samples | None) -> None:
    """sum(x) = mean(x) * n: the reference kernels of a sum of integers forget the zero point of what they read."""
    sizes = [draft.tensors[index].shape for index in (op.inputs[0], op.outputs[0])]
    count = int(np.prod(sizes[0])) // max(int(np.prod(sizes[1])), 1)
    mean = _inserted(draft, op, "MEAN", op.inputs, op.builtinOptions)
    draft.become(op, "MUL", [mean, _scalar(draft, op, count)], schema.MulOptionsT())


def _divide(draft: Draft, op: Any, samples: Samples | None) -> None:
    """x / y = x * (1 / y): the kernels of a quotient of integers disagree, and the reference ones refuse a zero."""
    x, y = op.inputs
    if is_tabled(draft, op) and not draft.is_constant(y):
        return
    activation = op.builtinOptions.fusedActivationFunction if op.builtinOptions else 0
    name = f"{draft.name(op.outputs[0])}/reciprocal"
    if draft.is_constant(y):
        reciprocal = draft.add_constant((1 / draft.value(y)).astype(np.float32), name)
    else:
        reciprocal = draft.add_tensor(draft.tensors[y].shape, "FLOAT32", name)
        draft.insert(draft.place(op), "DIV", [_scalar(draft, op, 1.0), y], [reciprocal], schema.DivOptionsT())
    draft.become(op, "MUL", [x, reciprocal], schema.MulOptionsT(fusedActivationFunction=activation))


def _hard_swish(draft: Draft, op: Any, samples: Samples | None) -> None:
    """x * relu6(x + 3) / 6"""
    relu6 = schema.ActivationFunctionType.RELU6
    gate = _inserted(
        draft, op, "ADD", [op.inputs[0], _scalar(draft, op, 3.0)], schema.AddOptionsT(fusedActivationFunction=relu6)
    )
    sixth = _inserted(draft, op, "MUL", [gate, _scalar(draft, op, 1 / 6)], schema.MulOptionsT())
    draft.become(op, "MUL", [op.inputs[0], sixth], schema.MulOptionsT())


def _tile(draft: Draft, op: Any, samples: Samples | None) -> None:
    """Repeats of a whole axis are a concatenation, of an axis of one element a broadcast: not all kernel sets tile."""
    source, name = op.inputs[0], draft.name(op.outputs[0])
    if not draft.is_constant(op.inputs[1]):
        return
    size, times = list(draft.tensors[source].shape), [int(n) for n in draft.value(op.inputs[1])]
    whole = [axis for axis, n in enumerate(times) if n > 1 and size[axis] > 1]
    for axis in whole:
        size[axis] *= times[axis]
        result = draft.add_tensor(size, "FLOAT32", f"{name}/repeat_{axis}")
        options = schema.ConcatenationOptionsT(axis=axis)
        draft.insert(draft.place(op), "CONCATENATION", [source] * times[axis], [result], options)
        source = result
    shape = draft.add_constant(np.array(draft.tensors[op.outputs[0]].shape, np.int32), f"{name}/shape")
    draft.become(op, "BROADCAST_TO", [source, shape], version=2)


def _pack(draft: Draft, op: Any, samples: Samples | None) -> None:
    """A stack is a concatenation, reshaped: of a PACK the quantizer takes the grid of one part for all."""
    axis, name = op.builtinOptions.axis, draft.name(op.outputs[0])
    shape = list(draft.tensors[op.outputs[0]].shape)
    axis, parts = axis % len(shape), list(op.inputs)
    if axis == len(shape) - 1:  # no axis of the parts to join them along
        parts = [_reshaped(draft, op, i, [*shape[:-1], 1], f"{name}/part_{n}") for n, i in enumerate(parts)]
    joined = [*shape[:axis], shape[axis] * (shape[axis + 1 :] or [1])[0], *shape[axis + 2 :]]
    result = draft.add_tensor(joined, "FLOAT32", f"{name}/joined")
    draft.insert(draft.place(op), "CONCATENATION", parts, [result], schema.ConcatenationOptionsT(axis=axis))
    target = draft.add_constant(np.array(shape, np.int32), f"{name}/shape")
    draft.become(op, "RESHAPE", [result, target], schema.ReshapeOptionsT(newShape=shape))


def _reshaped(draft: Draft, op: Any, index: int, shape: list[int], name: str) -> int:
    """A tensor in another shape, computed in front of the operation."""
    result = draft.add_tensor(shape, "FLOAT32", name)
    target = draft.add_constant(np.array(shape, np.int32), f"{name}/shape")
    draft.insert(draft.place(op), "RESHAPE", [index, target], [result], schema.ReshapeOptionsT(newShape=shape))
    return result


def _reverse(draft: Draft, op: Any, samples: Samples | None) -> None:
    """x[::-1]: the quantizer does not know the operation that reverses."""
    source, name = op.inputs[0], draft.name(op.outputs[0])
    shape = np.array(draft.tensors[source].shape, np.int32)
    steps = np.ones_like(shape)
    steps[draft.value(op.inputs[1])] = -1
    ends = [draft.add_constant(value, f"{name}/{part}") for part, value in (("end", shape), ("steps", steps))]
    begin = draft.add_constant(np.zeros_like(shape), f"{name}/begin")
    whole = (1 << len(shape)) - 1  # all of every axis, whatever `begin` and `end` say
    options = schema.StridedSliceOptionsT(beginMask=whole, endMask=whole)
    draft.become(op, "STRIDED_SLICE", [source, begin, *ends], options)


def _inserted(draft: Draft, op: Any, kind: str, inputs: list[int], options: Any) -> int:
    """The result, of the shape of `op`'s, of a new operation in front of it."""
    shape, name = draft.tensors[op.outputs[0]].shape, f"{draft.name(op.outputs[0])}/{kind.lower()}"
    result = draft.add_tensor(shape, "FLOAT32", name)
    draft.insert(draft.place(op), kind, inputs, [result], options)
    return result


def _scalar(draft: Draft, op: Any, value: float) -> int:
    return draft.add_constant(np.float32(value), f"{draft.name(op.outputs[0])}/constant")


def around_kernels(draft: Draft) -> set[int]:
    """What operations of `KERNELS` read and make: it must have a grid of its own for `lower` to find."""
    ends: set[int] = set()
    for op in draft.operators:
        if draft.kind(op) in KERNELS or is_tabled(draft, op):
            ends.update(i for i in (*op.inputs, *op.outputs) if draft.is_float(i) and not draft.is_constant(i))
    return ends


def lower(draft: Draft) -> None:
    """Lets operations that stand between DEQUANTIZE and QUANTIZE compute in integers where the runtime can.

    The quantizer does not know that the kernels of `KERNELS` have an integer form.

    Args:
        draft: an integer file, changed in place.
    """
    _lower_splits(draft)
    _reshape_later(draft)
    compare_integers(draft)
    for op in list(draft.operators):
        moving = [i for i in op.inputs if not draft.is_constant(i)]
        known = draft.kind(op) in KERNELS or is_tabled(draft, op)
        if not known or draft.makers().get(moving[0]) is None:
            continue
        before, behind = draft.makers()[moving[0]], draft.users().get(op.outputs[0], [])
        between = draft.kind(before) == "DEQUANTIZE" and draft.type(before.inputs[0]) == "INT8"
        if between and op.outputs[0] not in draft.outputs and len(behind) == 1 and draft.kind(behind[0]) == "QUANTIZE":
            op.inputs = [before.inputs[0] if i == moving[0] else i for i in op.inputs]
            op.outputs = list(behind[0].outputs)
            draft.operators.remove(behind[0])
            if not draft.users().get(before.outputs[0]) and before.outputs[0] not in draft.outputs:
                draft.operators.remove(before)
    look_up(draft)


def _reshape_later(draft: Draft) -> None:
    """What `KERNELS` compute is quantized before it gets another shape."""
    users = draft.users()
    for op in draft.operators:
        shaped = users.get(op.outputs[0], []) if draft.kind(op) in KERNELS else []
        behind = users.get(shaped[0].outputs[0], []) if len(shaped) == 1 else []
        if not behind or draft.kind(shaped[0]) != "RESHAPE" or [draft.kind(one) for one in behind] != ["QUANTIZE"]:
            continue
        target = draft.tensors[behind[0].outputs[0]]
        made = draft.tensors[op.outputs[0]].shape
        whole = draft.add_tensor(made, draft.type(behind[0].outputs[0]), f"{draft.name(op.outputs[0])}_whole",
                                 quantization=target.quantization)  # fmt: skip
        draft.insert(draft.place(shaped[0]), "QUANTIZE", [op.outputs[0]], [whole], behind[0].builtinOptions, version=2)
        shaped[0].inputs = [whole, *shaped[0].inputs[1:]]
        shaped[0].outputs = list(behind[0].outputs)
        draft.operators.remove(behind[0])


def _lower_splits(draft: Draft) -> None:
    """A SPLIT of dequantized values that are all quantized again splits the integers; each part is put on its grid."""
    for op in draft.operators:
        source = draft.makers().get(op.inputs[1]) if draft.kind(op) == "SPLIT" else None
        users = draft.users()
        readers = [reader for output in op.outputs for reader in users.get(output, [])]
        if source is None or draft.kind(source) != "DEQUANTIZE" or set(op.outputs) & set(draft.outputs):
            continue
        if all(draft.kind(reader) == "QUANTIZE" for reader in readers):
            op.inputs[1] = source.inputs[0]
            whole = draft.tensors[source.inputs[0]]
            for index in op.outputs:
                draft.tensors[index].type, draft.tensors[index].quantization = whole.type, whole.quantization
    used = {*draft.users(), *draft.outputs}
    draft.graph.operators = [op for op in draft.operators if draft.kind(op) != "DEQUANTIZE" or op.outputs[0] in used]


# Operations of one input whose kernels look 8-bit results up in a table.
KERNELS = frozenset({"ELU"})
FORMS: dict[str, Form] = {
    "NEG": _negative,
    "SQUARE": _square,
    "CAST": _cast,
    "SUM": _sum,
    "DIV": _divide,
    "TILE": _tile,
    "PACK": _pack,
    "REVERSE_V2": _reverse,
}
FORMS_OF_16_BITS: dict[str, Form] = {"SQUARED_DIFFERENCE": _squared_difference, "HARD_SWISH": _hard_swish}
