"""16-bit activations as the runtime's kernels want them, where the converter does otherwise."""

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.draft import Draft

# Operations with a bias, and where it is.
_BIASES = {"CONV_2D": 2, "DEPTHWISE_CONV_2D": 2, "FULLY_CONNECTED": 2, "TRANSPOSE_CONV": 3}
# Operations whose constant operand is an activation, not a kernel.
_ELEMENTWISE = frozenset(
    "ADD SUB MUL DIV MAXIMUM MINIMUM SQUARED_DIFFERENCE CONCATENATION PACK SELECT SELECT_V2 PADV2 PRELU".split()
)
_HALF_OPEN = ("LOGISTIC", "TANH")


def constants(draft: Draft) -> None:
    """Writes float constants that stand for activations as 16-bit integers, a DEQUANTIZE behind each.

    The converter would make them 8-bit ones, and the kernels want both operands of one type.

    Args:
        draft: a float file, changed in place.
    """
    done: dict[int, int] = {}
    for op in list(draft.operators):
        if draft.kind(op) not in _ELEMENTWISE:
            continue
        for place, index in enumerate(op.inputs):
            if draft.is_float(index) and draft.is_constant(index):
                if index not in done:
                    done[index] = _sixteen(draft, index)
                op.inputs[place] = done[index]


def _sixteen(draft: Draft, index: int) -> int:
    value, name = draft.value(index).astype(np.float64), draft.name(index)
    scale = np.float32(max(np.abs(value).max(initial=0.0), 1e-9) / 32767)
    grid = schema.QuantizationParametersT(scale=np.array([scale]), zeroPoint=np.zeros(1, np.int64))
    stored = draft.add_constant(np.round(value / scale).astype(np.int16), name, quantization=grid)
    real = draft.add_tensor(value.shape, "FLOAT32", name + "_real")
    draft.insert(0, "DEQUANTIZE", [stored], [real], schema.DequantizeOptionsT(), version=3)
    return real


def settle(draft: Draft) -> None:
    """Biases become 64-bit integers, and sigmoid and tanh give the scale 1 / 32768 that their kernels ask for.

    The converter writes 32-bit biases, which microcontrollers do not take with 16-bit activations and which could
    overflow, and the scale 1 / 65536 for a sigmoid, which no kernel takes.

    Args:
        draft: an integer file, changed in place.
    """
    wide: dict[int, int] = {}
    for op in draft.operators:
        place = _BIASES.get(draft.kind(op))
        if place is not None and len(op.inputs) > place and draft.type(op.outputs[0]) == "INT16":
            index = op.inputs[place]
            if index >= 0 and draft.is_constant(index) and draft.type(index) == "INT32":
                if index not in wide:
                    grid = draft.tensors[index].quantization
                    value = draft.value(index).astype(np.int64)
                    wide[index] = draft.add_constant(value, draft.name(index), quantization=grid)
                op.inputs[place] = wide[index]
        elif draft.kind(op) in _HALF_OPEN and draft.type(op.outputs[0]) == "INT16":
            grid = schema.QuantizationParametersT(scale=np.float32([1 / 32768]), zeroPoint=np.zeros(1, np.int64))
            draft.tensors[op.outputs[0]].quantization = grid
