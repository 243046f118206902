"""Operations of an 8-bit file that compute in 16 bits: QUANTIZE in front, exactly, and QUANTIZE behind."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.draft import Draft

# Operations that can be widened, and the versions of theirs that compute in 16 bits.
VERSIONS = {"RESHAPE": 1, "TRANSPOSE": 2, "MUL": 2, "ADD": 3, "SUB": 2, "MAXIMUM": 2, "MEAN": 2, "QUANTIZE": 2,
            "RSQRT": 2, "BATCH_MATMUL": 2}  # fmt: skip
_HANDED_ON = ("RESHAPE", "TRANSPOSE", "MAXIMUM")
_LAST = 32767
# An 8-bit number less its zero point is at most 255, so so many steps of 16 bits are exact.
_FINER = 128

Constants = Mapping[str, np.ndarray]


def float_constants(draft: Draft) -> dict[str, np.ndarray]:
    """The constants of a float file by name, those without a name of their own left out."""
    found = [(draft.name(i), i) for i in range(len(draft.tensors)) if draft.is_float(i) and draft.is_constant(i)]
    times = Counter(name for name, _ in found)
    return {name: draft.value(index) for name, index in found if times[name] == 1}


def widen(draft: Draft, operations: Sequence[Any], constants: Constants) -> None:
    """Makes the results of 8-bit operations 16 bits wide, and 8 bits again where other operations read them.

    Args:
        draft: an integer file, changed in place.
        operations: of `VERSIONS`, with one 8-bit result each, in the order of execution.
        constants: of `float_constants`: what operands were before they were rounded to 8 bits.
    """
    wide: dict[int, int] = {}
    members = {id(op) for op in operations}
    for op in operations:
        for index in op.inputs:
            if index not in wide and not draft.is_constant(index):
                wide[index] = _tensor(draft, index, float(draft.grid(index).scale[0]) / _FINER)
                draft.insert(draft.place(op), "QUANTIZE", [index], [wide[index]], schema.QuantizeOptionsT(), version=2)
        (result,) = op.outputs
        inputs = [_operand(draft, index, wide, op, constants) for index in op.inputs]
        wide[result] = _tensor(draft, result, _scale(draft, op, inputs))
        if hasattr(op.builtinOptions, "potScaleInt16"):
            op.builtinOptions.potScaleInt16 = False
        draft.become(op, draft.kind(op), inputs, op.builtinOptions, VERSIONS[draft.kind(op)])
        op.outputs = [wide[result]]
        readers = [reader for reader in draft.users().get(result, []) if id(reader) not in members]
        if readers or result in draft.outputs:
            draft.insert(draft.place(op) + 1, "QUANTIZE", op.outputs, [result], schema.QuantizeOptionsT(), version=2)


def _scale(draft: Draft, op: Any, inputs: Iterable[int]) -> float:
    """The 16-bit step of a result: the range that it had in 8 bits, or the grid of what is only handed on."""
    if draft.kind(op) in _HANDED_ON:
        moving = next(i for i in inputs if draft.type(i) == "INT16" and not draft.is_constant(i))
        return float(draft.grid(moving).scale[0])
    grid = draft.grid(op.outputs[0])
    ends = [(code - int(grid.zeroPoint[0])) * float(grid.scale[0]) for code in (-128, 127)]
    return max(map(abs, ends)) / _LAST


def _operand(draft: Draft, index: int, wide: Mapping[int, int], op: Any, constants: Constants) -> int:
    """What stands in 16 bits for an operand: the tensor before, or a constant on a grid of its own."""
    if index in wide:
        return wide[index]
    if draft.type(index) != "INT8":
        return index
    value = real_value(draft, index, constants)
    largest = float(np.abs(value).max(initial=0.0)) or 1.0
    moving = next(wide[i] for i in op.inputs if i in wide)
    scale = float(draft.grid(moving).scale[0]) if draft.kind(op) in _HANDED_ON else largest / _LAST
    codes = np.clip(np.round(value / np.float32(scale)), -_LAST, _LAST).astype(np.int16)
    return draft.add_constant(codes, f"{draft.name(index)}_int16", quantization=_grid(scale))


def real_value(draft: Draft, index: int, constants: Constants) -> np.ndarray:
    """What an 8-bit constant was before it was rounded, as far as that is known."""
    grid = draft.grid(index)
    rounded = (draft.value(index).astype(np.float64) - int(grid.zeroPoint[0])) * float(grid.scale[0])
    before = constants.get(draft.name(index))
    # A name may have gone to something else on the way.
    if before is not None and before.size == rounded.size:
        before = before.astype(np.float64).reshape(rounded.shape)
        if np.all(np.abs(before - rounded) <= float(grid.scale[0])):
            return before
    return rounded


def _tensor(draft: Draft, like: int, scale: float) -> int:
    shape, name = draft.tensors[like].shape, f"{draft.name(like)}_int16"
    return draft.add_tensor(shape, "INT16", name, quantization=_grid(scale))


def _grid(scale: float) -> Any:
    return schema.QuantizationParametersT(scale=np.array([scale], np.float32), zeroPoint=np.zeros(1, np.int64))
