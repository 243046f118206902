"""What Vela places on an Arm Ethos-U; the Cortex-M beside it runs the rest with tflite-micro."""

from dataclasses import replace

from tflite_export.auditing import findings, tflm
from tflite_export.auditing.checks import (
    Check,
    Obstacle,
    constant,
    input_type,
    label,
    moving_types,
    no_slice_masks,
    quantized,
    types,
)
from tflite_export.auditing.rules import Rules, table
from tflite_export.auditing.use import Use

_SMALL = types("INT8", "UINT8", "INT16")
_WIDE = types("INT8", "UINT8", "INT16", "INT32")
_PER_AXIS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
_LARGEST_MEAN = 4096


def _one_scale(use: Use) -> Obstacle | None:
    if use.op.kind in _PER_AXIS:
        return None
    for tensor in use.tensors():
        if tensor.quantization is not None and tensor.quantization.scale.size > 1:
            return Obstacle(f"its {label(tensor)} has a scale for each channel", "quantize it with one scale")
    return None


def _strides(most: int) -> Check:
    def check(use: Use) -> Obstacle | None:
        strides = [use.option(name, 1) for name in ("strideH", "strideW")]
        valid = use.option("padding", 0) == 1
        dilated = max(use.option("dilationHFactor", 1), use.option("dilationWFactor", 1)) > 1
        if max(strides) <= most or (valid and not dilated and use.op.kind != "DEPTHWISE_CONV_2D"):
            return None
        return Obstacle(f"its strides are {strides[0]} x {strides[1]}; there at most {most}", "use smaller strides")

    return check


def _pool(use: Use) -> Obstacle | None:
    height, width = use.option("filterHeight", 1), use.option("filterWidth", 1)
    same = use.option("padding", 0) == 0
    if use.op.kind == "AVERAGE_POOL_2D" and same and max(height, width) > 8:
        return Obstacle(f"it averages {height} x {width} with padding; there at most 8 x 8", 'pad "valid"')
    if height > 256 or height * width > 256 * 256:
        return Obstacle(f"it pools {height} x {width}; there at most 256 high and 65,536 values", "pool in steps")
    return None


def _transposed(use: Use) -> Obstacle | None:
    strides = (use.option("strideH", 1), use.option("strideW", 1))
    if max(strides) <= 2 and (strides[0] == strides[1] or 1 in strides):
        return None
    return Obstacle(f"its strides are {strides[0]} x {strides[1]}; there 1 x 1 or 2 x 2", "upsample by 2")


def _mean(use: Use) -> Obstacle | None:
    data, axes = use.input(0), use.integers(1)
    if data is None or axes is None or not data.shape:
        return None
    if data.shape[0] != 1 and len(data.shape) == 4:
        return Obstacle("its batch is not 1", "use a batch of 1")
    longest = max((data.shape[axis] for axis in axes if -len(data.shape) <= axis < len(data.shape)), default=0)
    if longest < _LARGEST_MEAN:
        return None
    return Obstacle(f"it averages {longest} values along an axis; there fewer than {_LARGEST_MEAN}", "average in steps")


_WEIGHTS = (
    constant(1, "kernel"),
    constant(2, "bias"),
    input_type(1, "INT8", "UINT8", what="kernel"),
    input_type(2, "INT32", "INT64", what="bias"),
)

RULES = Rules(
    target="ethos-u",
    title="Ethos-U",
    source="Vela 5.2.0, its report of supported operators for Ethos-U55 and U65",
    operations=table(
        ("ADD MUL SUB NEG", (_WIDE,)),
        ("ABS MAXIMUM MINIMUM SQUARED_DIFFERENCE", (_SMALL,)),
        ("ARG_MAX", (_SMALL,)),
        ("AVERAGE_POOL_2D MAX_POOL_2D", (_SMALL, _pool, _strides(3))),
        ("BATCH_MATMUL", (types("INT8"),)),
        ("CONCATENATION PACK UNPACK SPLIT SPLIT_V TILE", (_SMALL,)),
        ("CONV_2D DEPTHWISE_CONV_2D", (_SMALL, *_WEIGHTS, _strides(3))),
        ("ELU", (types("INT8"),)),
        ("GELU", (types("INT8", "UINT8"),)),
        ("EXP", (_SMALL,)),
        ("LOG RSQRT", (types("INT8", "INT16"),)),
        ("EXPAND_DIMS RESHAPE SQUEEZE", ()),
        ("FULLY_CONNECTED", (_SMALL, *_WEIGHTS[1:])),
        ("HARD_SWISH LEAKY_RELU LOGISTIC PRELU RELU RELU6 RELU_0_TO_1 RELU_N1_TO_1 TANH", (_SMALL,)),
        ("QUANTIZE", (input_type(0, "INT8", "UINT8", "INT16", what="input"),)),
        ("MEAN", (_SMALL, constant(1, "list of axes"), _mean)),
        ("MIRROR_PAD PAD PADV2", (_SMALL, constant(1, "padding"))),
        ("REDUCE_MAX REDUCE_MIN", (_SMALL, constant(1, "list of axes"))),
        ("SUM", (_WIDE, constant(1, "list of axes"))),
        ("RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR REVERSE_V2 SOFTMAX", (_SMALL,)),
        ("SLICE", (_SMALL, constant(1, "start"), constant(2, "size"))),
        ("STRIDED_SLICE", (_SMALL, constant(1, "start"), constant(2, "end"), constant(3, "step"), no_slice_masks)),
        ("TRANSPOSE", (_WIDE, constant(1, "order of axes"))),
        ("TRANSPOSE_CONV", (_SMALL, constant(1, "kernel"), _transposed)),
        ("UNIDIRECTIONAL_SEQUENCE_LSTM", (types("INT8", "INT16"),)),
    ),
    every=(moving_types("INT8", "UINT8", "INT16", "INT32", "INT64"), quantized, _one_scale),
    custom=frozenset({"ethos-u"}),
    rest=tflm.RULES,
    looks=(
        findings.dynamic("sizes known only at run time: Vela plans with fixed sizes", "fix the sizes", slows=True),
        findings.sparse("stored sparse: Vela ignores sparsity", "export without sparse storage; zeros still compress"),
        findings.all_float("floating point throughout: everything runs on the Cortex-M",
                           'export "int8" from a calibrated model'),
        findings.boundary_types(("INT8", "INT16", "UINT8"), "the Cortex-M quantizes float inputs and outputs",
                                'export with inputs="int8", outputs="int8"'),
        findings.signatures("several signatures: Vela compiles the whole file, tflite-micro runs its first subgraph",
                            "write a file for each"),
    ),
)  # fmt: skip

_U85 = replace(
    RULES,
    source="Vela 5.2.0, its report of supported operators for Ethos-U85",
    operations={
        **RULES.operations,
        **table(
            ("ASSIGN_VARIABLE READ_VARIABLE", ()),
            ("CAST DIV GATHER SCATTER_ND SELECT SELECT_V2", ()),
            ("EQUAL NOT_EQUAL GREATER GREATER_EQUAL LESS LESS_EQUAL", ()),
            ("LOGICAL_AND LOGICAL_NOT LOGICAL_OR REDUCE_ALL REDUCE_ANY", ()),
            ("BATCH_MATMUL", (_SMALL,)),
        ),
    },
    every=(moving_types("BOOL", "INT8", "UINT8", "INT16", "INT32", "INT64", "RESOURCE"), *RULES.every[1:]),
)
# Kind of Ethos-U -> its rules; the first is what is asked for when none is named.
ACCELERATORS: dict[str, Rules] = {
    **{f"ethos-u55-{macs}": RULES for macs in (128, 32, 64, 256)},
    **{f"ethos-u65-{macs}": RULES for macs in (256, 512)},
    **{f"ethos-u85-{macs}": _U85 for macs in (128, 256, 512, 1024, 2048)},
}
