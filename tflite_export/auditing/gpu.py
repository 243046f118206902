"""What the GPU delegate of phones takes of a graph."""

from tflite_export.auditing import cpu, findings
from tflite_export.auditing.checks import (
    Obstacle,
    activation,
    beta_is_one,
    constant,
    default_weights,
    every_rank,
    input_type,
    moving_types,
    no_slice_masks,
    number_of_inputs,
    rank,
    reflects,
    types,
)
from tflite_export.auditing.rules import Rules, table
from tflite_export.auditing.use import Use

_TYPES = moving_types("FLOAT32", "FLOAT16", "INT8", "UINT8")
_FUSED = activation("RELU", "RELU6", "RELU_N1_TO_1", "TANH")
_AXES = (_TYPES, constant(1, "list of axes"), input_type(1, "INT32", what="list of axes"))
_COMPARED = moving_types("FLOAT32", "FLOAT16", "INT8", "UINT8", "BOOL")


def _strides(use: Use) -> Obstacle | None:
    if min(use.option("strideH", 1), use.option("strideW", 1)) <= 0:
        return Obstacle("its stride is not positive")
    return None


def _broadcast(use: Use) -> Obstacle | None:
    """Two tensors of several axes each are joined only when one of every pair of sizes is 1 or both are equal."""
    first, second = use.input(0), use.input(1)
    if first is None or second is None or len(first.shape) < 2 or len(second.shape) < 2:
        return None
    pairs = zip(reversed(first.shape), reversed(second.shape), strict=False)
    if all(a == b or 1 in (a, b) for a, b in pairs):
        return None
    return Obstacle(f"it joins the shapes {list(first.shape)} and {list(second.shape)}", "reshape one of them")


def _block(use: Use) -> Obstacle | None:
    if use.option("blockSize", 2) > 1:
        return None
    return Obstacle("its block has the size 1", "leave the layer out: it does nothing")


def _padding(use: Use) -> Obstacle | None:
    pads = use.input(1)
    if pads is None or (len(pads.shape) == 2 and pads.shape[0] in (3, 4) and pads.shape[1] == 2):
        return None
    return Obstacle(f"its padding has the shape {list(pads.shape)}; there [3, 2] or [4, 2]", "reshape to 3 or 4 axes")


def _depthwise(use: Use) -> Obstacle | None:
    data, output = use.input(0), use.output()
    if data is None or output is None or len(data.shape) != 4 or len(output.shape) != 4:
        return Obstacle("its input and output need 4 axes", "reshape in front of it")
    if output.shape[3] != data.shape[3] * use.option("depthMultiplier", 1):
        return Obstacle("its channels do not follow from its multiplier")
    return None


def _casts(use: Use) -> Obstacle | None:
    source, target = use.input(0), use.output()
    if source is None or target is None:
        return None
    floats, numbers = {"FLOAT16", "FLOAT32"}, {"FLOAT32", "INT32"}
    pair = {source.type, target.type}
    if pair <= numbers or ("BOOL" in pair and pair & floats):
        return None
    return Obstacle(f"it casts {source.type} to {target.type}", "cast outside the model")


def _indices(use: Use) -> Obstacle | None:
    indices = use.input(1)
    if indices is None or (len(indices.shape) == 1 and indices.type == "INT32"):
        return None
    return Obstacle("its indices are not a flat list of INT32", "flatten and cast them")


def _lstm(use: Use) -> Obstacle | None:
    if use.option("kernelType", 0) == 0 and len(use.op.inputs) not in (20, 24):
        return Obstacle(f"it has {len(use.op.inputs)} inputs; there 20 or 24")
    return None


RULES = Rules(
    target="gpu",
    title="the GPU delegate",
    source="LiteRT, tflite/tools/versioning/gpu_compatibility.cc and tflite/delegates/gpu/common/model_builder.cc",
    operations=table(
        ("ADD MUL", (_TYPES, number_of_inputs(2, 2), _broadcast, _FUSED)),
        ("ADD_N", (_TYPES, number_of_inputs(2, 2))),
        ("AVERAGE_POOL_2D MAX_POOL_2D", (_TYPES, _strides, _FUSED)),
        ("BATCH_MATMUL", (_TYPES, number_of_inputs(2, 2))),
        ("CAST", (_casts,)),
        ("CONCATENATION", (_TYPES,)),
        ("CONV_2D TRANSPOSE_CONV", (_TYPES, _strides, _FUSED)),
        ("CUMSUM", (types("FLOAT32", "FLOAT16"), constant(1, "axis"))),
        ("DENSIFY", (constant(0, "input"),)),
        ("DEPTHWISE_CONV_2D", (_TYPES, _strides, _FUSED, rank(1, 4, 4), _depthwise)),
        ("DEPTH_TO_SPACE SPACE_TO_DEPTH", (_TYPES, _block)),
        ("DEQUANTIZE", (input_type(0, "FLOAT16", "FLOAT32", "INT8", "UINT8", what="input"),)),
        ("FULLY_CONNECTED", (_TYPES, default_weights)),
        ("GATHER", (moving_types("FLOAT32", "FLOAT16", "INT8", "UINT8", "INT32"), _indices)),
        ("LSTM", (_TYPES, _lstm)),
        ("MEAN REDUCE_MAX REDUCE_MIN REDUCE_PROD SUM", _AXES),
        ("ONE_HOT", (input_type(0, "INT32", what="input"), constant(2, "on value"), constant(3, "off value"))),
        ("PACK QUANTIZE RELU RELU6 RELU_0_TO_1 RELU_N1_TO_1 LEAKY_RELU PRELU RESHAPE SPLIT SPLIT_V TILE TRANSPOSE",
         (_TYPES,)),
        ("SELECT SELECT_V2", (_COMPARED,)),
        ("SLICE", (_TYPES, rank(0, 3, 4))),
        ("STRIDED_SLICE", (_TYPES, rank(0, 3, 4), no_slice_masks, number_of_inputs(4, 4))),
        ("SOFTMAX", (_TYPES, beta_is_one)),
        ("RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR", (_TYPES,)),
        ("PAD PADV2", (_TYPES, _padding)),
        ("MIRROR_PAD", (_TYPES, _padding, reflects)),
        ("ABS COS ELU EXP FLOOR GELU HARD_SWISH LOG LOGISTIC NEG RSQRT SIGN SIN SQRT SQUARE TANH", (_TYPES,)),
        ("DIV FLOOR_DIV FLOOR_MOD MAXIMUM MINIMUM POW SQUARED_DIFFERENCE SUB", (_TYPES, _FUSED)),
        ("EQUAL GREATER GREATER_EQUAL LESS LESS_EQUAL LOGICAL_AND NOT_EQUAL", (_COMPARED,)),
    ),
    every=(every_rank(4),),
    custom=frozenset({"Convolution2DTransposeBias", "MaxPoolingWithArgmax2D", "MaxUnpooling2D", "Resampler"}),
    rest=cpu.RULES,
    unpacks=True,
    looks=(
        findings.dynamic("sizes known only at run time keep operations off the GPU", "fix the sizes"),
        findings.always(
            "by default one stretch of the graph goes to the GPU: whatever lies behind an operation that falls back "
            "may stay on the processor, too"
        ),
        findings.hybrid("integer weights are unpacked to float for the GPU", ""),
    ),
)  # fmt: skip
