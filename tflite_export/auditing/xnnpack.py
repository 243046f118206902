"""What XNNPACK takes of a graph: the fast kernels of processors in phones, boards, PCs and browsers."""

from tflite_export.auditing import cpu, findings
from tflite_export.auditing.checks import (
    Check,
    Obstacle,
    activation,
    beta_is_one,
    constant,
    input_type,
    label,
    no_slice_masks,
    number_of_inputs,
    rank,
    types,
)
from tflite_export.auditing.rules import Rules, table
from tflite_export.auditing.use import Use
from tflite_export.graph import FLOATS

_FLOAT = types("FLOAT32", "FLOAT16")
_EIGHT = types("FLOAT32", "FLOAT16", "INT8", "UINT8")
_SIGNED = types("FLOAT32", "FLOAT16", "INT8")
_FUSED = activation("RELU", "RELU6", "RELU_N1_TO_1")


def one_scale(use: Use) -> Obstacle | None:
    """8-bit values have one scale, weights aside."""
    for tensor in (*(use.input(place) for place in use.data_places), use.output()):
        if tensor is None or tensor.type not in ("INT8", "UINT8") or use.constant(1) is tensor:
            continue
        grid = tensor.quantization
        if grid is None or grid.scale.size != 1:
            return Obstacle(f"its {label(tensor)} is {tensor.type} without one scale", "quantize it per tensor")
    return None


def _weights(place: int, *, packed: bool) -> Check:
    """Weights fit the values: floats to floats, 8 bits to either; fewer bits only where `packed` says so."""

    def check(use: Use) -> Obstacle | None:
        data, weights = use.input(use.data_places[0]), use.input(place)
        if data is None or weights is None:
            return None
        if weights.type in ("INT4", "INT2") and not packed:
            return Obstacle(f"its weights are {weights.type}, which only FULLY_CONNECTED has", "keep them in 8 bits")
        if data.type == "UINT8" and weights.type != "UINT8":
            return Obstacle(f"UINT8 values meet {weights.type} weights", 'convert the model again as "int8"')
        if data.type == "INT8" and weights.type in FLOATS:
            return Obstacle("8-bit values meet float weights", "quantize the weights, too")
        return None

    return check


def _no_dynamic_range(use: Use) -> Obstacle | None:
    data, weights = use.input(0), use.input(1)
    if data is None or weights is None or data.type not in FLOATS or weights.type in FLOATS:
        return None
    return Obstacle(
        f"float values meet {weights.type} weights in a {use.op.kind} (dynamic-range quantization)",
        "quantize these weights only (weight-only) or everything; every such layer splits the graph",
    )


def _bias(use: Use) -> Obstacle | None:
    bias = use.input(2)
    if bias is None:
        return Obstacle("it has no bias", "give the layer a bias, zeros will do")
    return _bias_grid(use)


def _bias_grid(use: Use) -> Obstacle | None:
    bias = use.input(2)
    if bias is None or bias.type != "INT32" or bias.quantization is not None:
        return None
    return Obstacle("its integer bias has no scale", "convert the model again: the scale is that of input times kernel")


def _concatenation(use: Use) -> Obstacle | None:
    if not 2 <= len(use.op.inputs) <= 5:
        return Obstacle(f"it joins {len(use.op.inputs)} tensors; there 2 to 5", "join them in steps")
    return None


def _pooling(use: Use) -> Obstacle | None:
    sizes = [use.option(name, 1) for name in ("filterHeight", "filterWidth")]
    strides = [use.option(name, 1) for name in ("strideH", "strideW")]
    if sizes == [1, 1] and strides != [1, 1]:
        return Obstacle("a pool of 1 x 1 with strides", "use a strided slice")
    return None


def _keeps_sign(use: Use) -> Obstacle | None:
    types = [tensor.type for tensor in use.tensors()]
    if sorted(types) != ["INT8", "UINT8"]:
        return None
    return Obstacle(f"it turns {types[0]} into {types[1]}", "give inputs and outputs the type of the layers inside")


def _float_softmax(use: Use) -> Obstacle | None:
    data = use.input(0)
    if data is None or data.type in ("FLOAT32", "FLOAT16"):
        return None
    return Obstacle(
        f"a softmax of {data.type}; there it runs in FLOAT32",
        "leave it: it is small; or end the model with logits where only the largest counts",
    )


SOURCE = "LiteRT, tflite/delegates/xnnpack/xnnpack_delegate.cc (August 2026)"
OPERATIONS = table(
    ("ABS CEIL COS EXP FLOOR GELU HARD_SWISH LOG NEG RELU RELU6 RELU_N1_TO_1 ROUND RSQRT SIN SQRT SQUARE", (_FLOAT,)),
    ("LOGISTIC TANH LEAKY_RELU", (_EIGHT, one_scale)),
    ("ELU", (_SIGNED, one_scale)),
    ("QUANTIZE", (_EIGHT, one_scale, _keeps_sign)),
    ("DEQUANTIZE", (input_type(0, "INT8", "UINT8", what="input"), one_scale)),
    ("ADD SUB MUL", (number_of_inputs(2, 2), _EIGHT, one_scale, _FUSED)),
    ("DIV", (_FLOAT, _FUSED)),
    ("MAXIMUM MINIMUM SQUARED_DIFFERENCE", (_FLOAT,)),
    ("PRELU", (_FLOAT, constant(1, "slope"))),
    ("AVERAGE_POOL_2D", (_FLOAT, _FUSED, _pooling)),
    ("MAX_POOL_2D", (_EIGHT, one_scale, _FUSED, _pooling)),
    ("BATCH_MATMUL", (_SIGNED, one_scale)),
    ("CONCATENATION", (_EIGHT, one_scale, _concatenation)),
    ("CONV_2D", (_EIGHT, one_scale, rank(0, 4, 4), constant(1, "kernel"), constant(2, "bias"), _bias, _FUSED,
                 _weights(1, packed=False))),
    ("DEPTHWISE_CONV_2D", (_EIGHT, one_scale, rank(0, 4, 4), constant(1, "kernel"), constant(2, "bias"), _bias, _FUSED,
                           _weights(1, packed=False), _no_dynamic_range)),
    ("TRANSPOSE_CONV", (_EIGHT, one_scale, constant(0, "output size"), constant(1, "kernel"), constant(3, "bias"),
                        _weights(1, packed=False))),
    ("FULLY_CONNECTED", (_EIGHT, one_scale, rank(1, 2, 2), constant(1, "kernel"), constant(2, "bias"), _bias_grid,
                         _FUSED, _weights(1, packed=True))),
    ("DEPTH_TO_SPACE SPACE_TO_DEPTH", (_EIGHT, one_scale)),
    ("MEAN SUM REDUCE_MAX REDUCE_MIN", (_EIGHT, one_scale, constant(1, "list of axes"),
                                        input_type(1, "INT32", what="list of axes"))),
    ("PAD", (_EIGHT, one_scale, constant(1, "padding"), input_type(1, "INT32", what="padding"))),
    ("RESHAPE", (_EIGHT, one_scale, constant(1, "shape"))),
    ("RESIZE_BILINEAR", (_EIGHT, one_scale, rank(0, 4, 4), constant(1, "size"))),
    ("SLICE", (_EIGHT, one_scale, constant(1, "start"), constant(2, "size"))),
    ("STRIDED_SLICE", (_EIGHT, one_scale, no_slice_masks, constant(1, "start"), constant(2, "end"),
                       constant(3, "step"))),
    ("SPLIT", (_EIGHT, one_scale, constant(0, "axis"))),
    ("TRANSPOSE", (_EIGHT, one_scale, constant(1, "order of axes"))),
    ("SOFTMAX", (_float_softmax, beta_is_one)),
    ("VAR_HANDLE READ_VARIABLE ASSIGN_VARIABLE", ()),
)  # fmt: skip
CUSTOM = frozenset({"Convolution2DTransposeBias", "MaxPoolingWithArgmax2D", "MaxUnpooling2D"})

RULES = Rules(
    target="xnnpack",
    title="XNNPACK",
    source=SOURCE,
    operations=OPERATIONS,
    custom=CUSTOM,
    rest=cpu.RULES,
    unpacks=True,
    looks=(
        findings.dynamic("sizes known only at run time: each new size plans the graph again", "fix the sizes"),
        findings.sparse("stored sparse: sparse kernels exist for ARM and wasm, not x86; check outputs on the device"),
        findings.half_weights("float16 weights are unpacked to float32 when the file is opened: no memory is saved"),
        findings.hybrid(
            "dynamic-range quantization: layers that stay outside split the graph, which may be slower than float32",
            'export "int8" for speed',
        ),
        findings.signatures("several signatures: each is planned on its own", ""),
    ),
)
