"""What the NNAPI delegate hands to Android's drivers, from Android 12 (feature level 6) on."""

from tflite_export.auditing import cpu, findings
from tflite_export.auditing.checks import (
    Check,
    Obstacle,
    activation,
    constant,
    every_rank,
    input_type,
    not_hybrid,
    number_of_inputs,
    output_type,
    rank,
    types,
)
from tflite_export.auditing.rules import Rules, table
from tflite_export.auditing.use import Use

_EIGHT = types("FLOAT32", "INT8", "UINT8")
_NUMBERS = types("FLOAT32", "INT8", "UINT8", "INT32")
_FLOAT = types("FLOAT32")
_INDEXED = input_type(0, "FLOAT32", "FLOAT16", "INT32", "INT8", "UINT8", what="input")
_RANK4 = (rank(0, 0, 4), rank(1, 0, 4))


def _version(most: int) -> Check:
    """Later versions of an operation say something that the delegate does not know."""

    def check(use: Use) -> Obstacle | None:
        if use.op.version <= most:
            return None
        return Obstacle(f"the file asks for version {use.op.version} of it, NNAPI knows up to {most}")

    return check


def _no_scalar(use: Use) -> Obstacle | None:
    output = use.output()
    if output is None or output.shape:
        return None
    return Obstacle("it makes a single number without axes", "keep the axes (keepdims=True)")


def _plain_integers(use: Use) -> Obstacle | None:
    data = use.input(0)
    if data is not None and data.type == "INT32" and use.activation != "NONE":
        return Obstacle("an activation is fused into INT32 arithmetic", "compute in float32 or int8")
    return None


def _not_last(use: Use) -> Obstacle | None:
    data = use.input(0)
    if data is None:
        return None
    if use.option("axis", 0) in (-1, len(data.shape) - (use.op.kind == "UNPACK")):
        return Obstacle("it works along the last axis", "transpose in front of it")
    return None


def _crops_nothing(use: Use) -> Obstacle | None:
    crops = use.integers(2)
    if crops is not None and not any(crops):
        return None
    return Obstacle("it crops", "pad so that nothing is cropped")


RULES = Rules(
    target="nnapi",
    title="NNAPI",
    source="LiteRT, tflite/delegates/nnapi/nnapi_delegate.cc (August 2026), at feature level 6 and later",
    operations=table(
        ("ADD", (_NUMBERS, _plain_integers, _version(2), *_RANK4)),
        ("MUL SUB", (_NUMBERS, _plain_integers, _version(3), *_RANK4)),
        ("DIV", (_FLOAT, *_RANK4)),
        ("ARG_MAX ARG_MIN", (_INDEXED, output_type("INT32"), constant(1, "axis"))),
        ("AVERAGE_POOL_2D MAX_POOL_2D", (_EIGHT, _version(2))),
        ("L2_POOL_2D L2_NORMALIZATION", (_FLOAT, activation())),
        ("CONV_2D", (_EIGHT, _version(5), number_of_inputs(3, 3))),
        ("DEPTHWISE_CONV_2D", (_EIGHT, _version(3))),
        ("FULLY_CONNECTED", (_EIGHT, _version(5))),
        ("HARD_SWISH LOGISTIC TANH RELU RELU6 RELU_N1_TO_1", (_EIGHT,)),
        ("SOFTMAX", (_EIGHT, rank(0, 0, 4))),
        ("RESHAPE", (_NUMBERS, rank(0, 0, 4), constant(1, "shape"))),
        ("RESIZE_BILINEAR", (_EIGHT, _version(3), rank(0, 4, 4), constant(1, "size"))),
        ("RESIZE_NEAREST_NEIGHBOR", (_EIGHT, _version(3), constant(1, "size"))),
        ("SQUEEZE SPACE_TO_BATCH_ND STRIDED_SLICE", (_EIGHT,)),
        ("BATCH_TO_SPACE_ND", (_EIGHT, _crops_nothing)),
        ("UNIDIRECTIONAL_SEQUENCE_LSTM BIDIRECTIONAL_SEQUENCE_LSTM UNIDIRECTIONAL_SEQUENCE_RNN", (not_hybrid(1),)),
        ("LSTM RNN SVDF", (input_type(1, "FLOAT32", "UINT8", "INT8", what="kernel"),)),
        ("LOCAL_RESPONSE_NORMALIZATION FLOOR LOG_SOFTMAX ELU SUM REDUCE_PROD", (_FLOAT, _no_scalar)),
        ("ABS EXP LOG POW COS SIN SQRT", (_FLOAT,)),
        ("RSQRT", (_EIGHT,)),
        ("NEG", (types("FLOAT32", "INT32"),)),
        ("CONCATENATION", (types("FLOAT32", "FLOAT16", "INT8", "UINT8"), activation(), rank(0, 0, 4))),
        ("DEQUANTIZE", (input_type(0, "INT8", "UINT8", "FLOAT16", what="input"),)),
        ("DENSIFY", (constant(0, "input"),)),
        ("PAD PADV2 MIRROR_PAD", (_NUMBERS,)),
        ("REVERSE_V2", (_NUMBERS,)),
        ("TRANSPOSE", (_EIGHT, constant(1, "order of axes"))),
        ("TRANSPOSE_CONV", (_EIGHT, constant(0, "output size"), constant(1, "kernel"))),
        ("SLICE", (_NUMBERS, input_type(1, "INT32", what="start"), input_type(2, "INT32", what="size"))),
        ("SPACE_TO_DEPTH DEPTH_TO_SPACE LEAKY_RELU PRELU", (_EIGHT,)),
        ("MEAN", (_EIGHT, rank(0, 0, 4), _no_scalar)),
        ("REDUCE_MAX REDUCE_MIN", (_EIGHT, _no_scalar)),
        ("REDUCE_ANY", (_no_scalar,)),
        ("EMBEDDING_LOOKUP", (input_type(1, "FLOAT32", what="table"),)),
        ("MAXIMUM MINIMUM TILE", (_NUMBERS,)),
        ("CAST", (_NUMBERS,)),
        ("LOGICAL_OR LOGICAL_AND LOGICAL_NOT", (types("BOOL"),)),
        ("LESS LESS_EQUAL GREATER GREATER_EQUAL EQUAL NOT_EQUAL",
         (types("FLOAT32", "UINT8", "INT8", "BOOL", "INT32"),)),
        ("TOPK_V2", (_INDEXED, constant(1, "count"))),
        ("SELECT", (_NUMBERS,)),
        ("GATHER", (_INDEXED, input_type(1, "INT32", what="list of indices"))),
        ("EXPAND_DIMS", (_INDEXED, constant(1, "axis"))),
        ("SPLIT", (_NUMBERS, constant(0, "axis"))),
        ("SPLIT_V", (_NUMBERS, constant(1, "sizes"), constant(2, "axis"))),
        ("QUANTIZE", (output_type("INT8", "UINT8"),)),
        ("FILL", (constant(0, "shape"),)),
        ("PACK", (_NUMBERS,)),
        ("UNPACK", (_EIGHT, rank(0, 2, 4), _not_last)),
        ("SQUARED_DIFFERENCE", (_NUMBERS, *_RANK4)),
        ("BATCH_MATMUL", (types("FLOAT32", "INT32", "INT8"), rank(0, 2, 4), not_hybrid(1))),
    ),
    every=(every_rank(8),),
    rest=cpu.RULES,
    unpacks=True,
    looks=(
        findings.always(
            "Android 15 calls NNAPI deprecated, and drivers differ: what is handed over may still run on a processor"
        ),
        findings.half_weights("float16 weights go to NNAPI only when it takes the whole graph"),
        findings.dynamic("sizes known only at run time are compiled anew for each size", "fix the sizes"),
    ),
)  # fmt: skip
