"""What cannot compute in integers, or not at all on the runtime: each operation with its layer and the way out."""

from typing import Any

from tflite_export.draft import Draft

_FLOATS = frozenset({"FLOAT32", "FLOAT16", "FLOAT64"})
_GELU = "spell it as keras.activations.gelu, or as its tanh form with approximate=True"
_ONE_OPERAND = "integers take a function of one tensor only: make the other operand a constant"
_SORT = "keep the scores as an output and sort behind the file"
_SHAPE = "give the model a fixed input shape, so that sizes are constants"
# What to write instead, by the operation's name in the file.
WAYS_OUT: dict[str, str] = {
    "ATAN2": "keep its two operands as outputs and take the angle behind the file",
    "BUCKETIZE": "compute the bucket's number before the file and pass it as an integer input",
    "COMPLEX_ABS": "compute the spectrum before the file",
    "CONV_3D": "give it a fixed input shape, so that it becomes a sum of 2-D convolutions",
    "CONV_3D_TRANSPOSE": "upsample with UpSampling3D and a Conv3D",
    "CUMSUM": "multiply by a constant triangular matrix of ones",
    "Erf": _GELU,
    "Erfc": _GELU,
    "FFT2D": "compute the spectrum before the file",
    "FLOOR_DIV": _ONE_OPERAND,
    "FLOOR_MOD": _ONE_OPERAND,
    "LOCAL_RESPONSE_NORMALIZATION": "use LayerNormalization or BatchNormalization",
    "MULTINOMIAL": "keep the logits as an output and draw behind the file",
    "POW": _ONE_OPERAND,
    "RANDOM_STANDARD_NORMAL": "pass the random numbers as an input",
    "RANDOM_UNIFORM": "pass the random numbers as an input",
    "REDUCE_PROD": "take the exponential of a sum of logarithms",
    "RFFT2D": "compute the spectrum before the file",
    "SCATTER_ND": "multiply by a constant matrix of zeros and ones, or use a one-hot product",
    "SEGMENT_SUM": "multiply by a constant matrix of zeros and ones",
    "TOPK_V2": _SORT,
    "WHERE": _SHAPE,
    "WHILE": "give the layer a fixed number of steps, so that it is unrolled",
}


def float_operations(draft: Draft) -> list[str]:
    """Operations that read or make float values, each with the layer it came from and, where one is known, the way
    out; a QUANTIZE or DEQUANTIZE at the boundary of the file is none."""
    ends = {*draft.inputs, *draft.outputs}
    found = []
    for op in draft.operators:
        floats = [i for i in (*op.inputs, *op.outputs) if i >= 0 and draft.type(i) in _FLOATS]
        if floats and not (draft.kind(op) in ("QUANTIZE", "DEQUANTIZE") and ends.intersection(floats)):
            found.append(_named(draft, op))
    return list(dict.fromkeys(found))


def unknown_operations(draft: Draft) -> list[str]:
    """Operations that the runtime does not have, which came through as custom ones; named as above."""
    codes = draft.model.operatorCodes
    custom = [op for op in draft.operators if codes[op.opcodeIndex].customCode is not None]
    return list(dict.fromkeys(_named(draft, op) for op in custom))


def _named(draft: Draft, op: Any) -> str:
    kind = draft.kind(op)
    way = f" ({WAYS_OUT[kind]})" if kind in WAYS_OUT else ""
    return f"{kind} in {draft.layer(op)!r}{way}"
