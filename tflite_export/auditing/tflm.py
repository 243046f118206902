"""What tflite-micro runs on a microcontroller. Nothing else is there: what it does not run is refused."""

from tflite_export.auditing import findings
from tflite_export.auditing.checks import (
    Check,
    Obstacle,
    affine,
    input_type,
    not_hybrid,
    not_sparse,
    packed_per_tensor,
    quantized,
    types,
)
from tflite_export.auditing.rules import Rules, table
from tflite_export.auditing.use import Use

_FLOAT = types("FLOAT32")
_EIGHT = types("FLOAT32", "INT8")
_SIXTEEN = types("FLOAT32", "INT8", "INT16")
_NUMBERS = types("FLOAT32", "INT8", "INT16", "INT32")
_LONG = types("FLOAT32", "INT8", "INT16", "INT32", "INT64")
_COPIED = types("FLOAT32", "INT8", "INT16", "INT32", "INT64", "BOOL")
_WEIGHTS = (
    not_hybrid(1),
    input_type(1, "FLOAT32", "INT8", "INT4", what="kernel"),
    affine(1, "kernel"),
)


def _same_operands(use: Use) -> Obstacle | None:
    """Both operands of a product have one type."""
    first, second = use.input(0), use.input(1)
    if first is None or second is None or first.type == second.type:
        return None
    return Obstacle(f"it multiplies {first.type} by {second.type}", "quantize both operands to the same type")


def _from(*allowed: str) -> Check:
    return input_type(0, *allowed, what="input")


RULES = Rules(
    target="tflm",
    title="tflite-micro",
    source="tflite-micro, python/tflite_micro/python_ops_resolver.cc and micro/kernels (August 2026)",
    operations=table(
        ("ABS RSQRT", (_SIXTEEN,)),
        ("ADD", (_NUMBERS,)),
        ("ADD_N ARG_MAX ARG_MIN BATCH_TO_SPACE_ND CUMSUM DEPTH_TO_SPACE ELU HARD_SWISH", (_EIGHT,)),
        ("L2_NORMALIZATION LOG_SOFTMAX MIRROR_PAD PRELU REDUCE_MAX REDUCE_MIN RESIZE_BILINEAR", (_EIGHT,)),
        ("SPACE_TO_BATCH_ND SPACE_TO_DEPTH", (_EIGHT,)),
        ("AVERAGE_POOL_2D EXPAND_DIMS LEAKY_RELU LOGISTIC MAX_POOL_2D MEAN RELU RELU6", (_SIXTEEN,)),
        ("RESIZE_NEAREST_NEIGHBOR SUM TANH", (_SIXTEEN,)),
        ("SQUARED_DIFFERENCE", (_NUMBERS,)),
        ("REDUCE_ALL", (types("BOOL"),)),
        ("BATCH_MATMUL", (_SIXTEEN, _same_operands)),
        ("BROADCAST_ARGS SHAPE", ()),
        ("BROADCAST_TO", (_COPIED,)),
        ("CALL_ONCE IF WHILE VAR_HANDLE READ_VARIABLE ASSIGN_VARIABLE", ()),
        ("CAST", (types("FLOAT32", "INT8", "INT16", "INT32", "UINT32", "BOOL"),)),
        ("CEIL COS EXP FLOOR FLOOR_DIV FLOOR_MOD L2_POOL_2D LOG NEG ROUND SIN SQRT SQUARE", (_FLOAT,)),
        ("CONCATENATION", (_COPIED,)),
        ("CONV_2D DEPTHWISE_CONV_2D", (_SIXTEEN, *_WEIGHTS)),
        ("DEQUANTIZE", (_from("INT8", "INT16", "UINT8"),)),
        ("DIV", (_EIGHT,)),
        ("DYNAMIC_UPDATE_SLICE", (_LONG,)),
        ("EMBEDDING_LOOKUP", (input_type(1, "FLOAT32", "INT8", what="table"),)),
        ("EQUAL NOT_EQUAL", (types("FLOAT32", "INT8", "INT32", "INT64", "BOOL"),)),
        ("GREATER", (_LONG,)),
        ("GREATER_EQUAL LESS LESS_EQUAL", (types("FLOAT32", "INT8", "INT32", "INT64"),)),
        ("SPLIT SPLIT_V UNPACK PAD PADV2", (_NUMBERS,)),
        ("FILL", (_LONG,)),
        ("FULLY_CONNECTED", (_SIXTEEN, *_WEIGHTS, packed_per_tensor(1, "kernel"))),
        ("GATHER GATHER_ND", (_EIGHT,)),
        ("LOGICAL_AND LOGICAL_NOT LOGICAL_OR", (types("BOOL"),)),
        ("MAXIMUM MINIMUM", (_LONG,)),
        ("MUL SUB", (_NUMBERS,)),
        ("PACK", (_LONG,)),
        ("ZEROS_LIKE", (types("FLOAT32", "INT8", "INT32", "INT64"),)),
        ("QUANTIZE", (_from("FLOAT32", "INT8", "UINT8", "INT16", "INT32"),)),
        ("RESHAPE SQUEEZE", ()),
        ("REVERSE_V2", (types("FLOAT32", "INT8", "UINT8", "INT16", "INT32", "INT64", "BOOL"),)),
        ("SELECT_V2", (_SIXTEEN,)),
        ("SLICE STRIDED_SLICE", (types("FLOAT32", "INT8", "INT16", "INT32", "BOOL"),)),
        ("SOFTMAX", (_SIXTEEN,)),
        ("SVDF", (_EIGHT, not_hybrid(1))),
        ("TRANSPOSE", (_SIXTEEN,)),
        ("TRANSPOSE_CONV", (_SIXTEEN, not_hybrid(1))),
        ("UNIDIRECTIONAL_SEQUENCE_LSTM", (_SIXTEEN, not_hybrid(1))),
    ),
    every=(not_sparse, quantized),
    custom=frozenset(
        {"CIRCULAR_BUFFER", "TFLM_DECODE", "TFLite_Detection_PostProcess", "ethos-u"}
        | {
            f"Signal{name}"
            for name in (
                *("Delay", "Energy", "FftAutoScale", "FilterBank", "FilterBankLog", "FilterBankSpectralSubtraction"),
                *("FilterBankSquareRoot", "Framer", "Irfft", "OverlapAdd", "PCAN", "Rfft", "Stacker", "Window"),
            )
        }
    ),
    looks=(
        findings.dynamic("sizes known only at run time: memory is planned once, with the sizes in the file",
                         "fix the sizes"),
        findings.hybrid("dynamic-range quantization: tflite-micro has no kernels for float values and integer weights",
                        'export "int8" from a calibrated model'),
        findings.half_weights("float16 weights: tflite-micro has no DEQUANTIZE from float16",
                              'export "float32" or "int8"'),
        findings.sparse("stored sparse: tflite-micro has no DENSIFY", "export without sparse storage; zeros may stay"),
        findings.signatures("several signatures: the interpreter runs the first subgraph only",
                            "write a file for each"),
        findings.all_float("floating point throughout: it runs, slowly on a core without a floating-point unit",
                           'export "int8" from a calibrated model'),
    ),
)  # fmt: skip
