"""What the Edge TPU compiler maps onto a Coral Edge TPU; the host's processor runs the rest."""

from tflite_export.auditing import cpu, findings
from tflite_export.auditing.checks import (
    Obstacle,
    activation,
    constant,
    default_weights,
    keeps_batch,
    label,
    moving_types,
    quantized,
)
from tflite_export.auditing.rules import Finding, Rules, table, uses
from tflite_export.auditing.use import Use
from tflite_export.graph import Model

_LARGEST_SOFTMAX = 16_000


def _three_axes(use: Use) -> Obstacle | None:
    """Only the three innermost axes may be longer than 1."""
    for tensor in use.moving():
        if any(size > 1 for size in tensor.shape[:-3]):
            return Obstacle(f"its {label(tensor)} has more than 3 axes longer than 1", "use a batch of 1")
    return None


def _joins_zeros(use: Use) -> Obstacle | None:
    constants = [place for place in range(len(use.op.inputs)) if use.constant(place) is not None]
    if not constants or len(use.op.inputs) == 2:
        return None
    return Obstacle("it joins a constant with several tensors", "join the constant in a step of its own")


def _even_dilation(use: Use) -> Obstacle | None:
    rates = use.option("dilationHFactor", 1), use.option("dilationWFactor", 1)
    if rates[0] == rates[1]:
        return None
    return Obstacle(f"its dilation is {rates[0]} x {rates[1]}", "dilate both axes alike")


def _depth_of_four(use: Use) -> Obstacle | None:
    data, axes = use.input(0), use.integers(1)
    if data is None or axes is None or not data.shape:
        return None
    if any(axis in (-1, len(data.shape) - 1) for axis in axes) and data.shape[-1] % 4:
        return Obstacle(f"it averages over {data.shape[-1]} channels, no multiple of 4", "use a multiple of 4")
    return None


def _short_softmax(use: Use) -> Obstacle | None:
    data = use.input(0)
    if data is None or (data.shape and data.shape[-1] == data.size <= _LARGEST_SOFTMAX):
        return None
    return Obstacle(f"it works on more than one row, or on more than {_LARGEST_SOFTMAX:,} values", "use a batch of 1")


def _unit_steps(use: Use) -> Obstacle | None:
    steps = use.integers(3)
    if use.option("ellipsisMask", 0) or use.option("newAxisMask", 0):
        return Obstacle("the slice adds an axis", "reshape instead")
    if steps is not None and any(step != 1 for step in steps):
        return Obstacle("the slice has steps", "use a pooling layer or a stride in the layer before")
    return None


def _one_row(use: Use) -> Obstacle | None:
    output = use.output()
    if output is None or (output.shape and output.shape[-1] == output.size):
        return None
    return Obstacle("it makes more than one row", "use a batch of 1")


def _needs_compiler(model: Model) -> Finding | None:
    if any(use.op.kind == "edgetpu-custom-op" for use in uses(model)):
        return None
    return Finding("the Edge TPU runs compiled files only: run `edgetpu_compiler FILE` and audit what it prints, too")


RULES = Rules(
    target="edgetpu",
    title="the Edge TPU",
    source="Coral documentation, coral.ai/docs/edgetpu/models-intro: model requirements and supported operations",
    operations=table(
        ("ADD EXPAND_DIMS L2_NORMALIZATION LOGISTIC MAXIMUM MINIMUM MUL QUANTIZE RELU RELU6 RELU_N1_TO_1", ()),
        ("RESHAPE RSQRT SLICE SPACE_TO_DEPTH SQUARED_DIFFERENCE SQUEEZE SUB TANH TRANSPOSE", ()),
        ("RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR", ()),
        ("AVERAGE_POOL_2D MAX_POOL_2D", (activation(),)),
        ("CONCATENATION", (activation(), _joins_zeros)),
        ("CONV_2D DEPTHWISE_CONV_2D", (constant(1, "kernel"), constant(2, "bias"), _even_dilation)),
        ("TRANSPOSE_CONV", (constant(1, "kernel"),)),
        ("FULLY_CONNECTED", (constant(1, "kernel"), constant(2, "bias"), _one_row,
                             default_weights)),
        ("LSTM UNIDIRECTIONAL_SEQUENCE_LSTM", ()),
        ("MEAN", (keeps_batch(1), _depth_of_four)),
        ("SUM REDUCE_MAX REDUCE_MIN", (keeps_batch(1),)),
        ("PACK PAD SPLIT", ()),
        ("PRELU", (constant(1, "slope"),)),
        ("SOFTMAX", (_short_softmax,)),
        ("STRIDED_SLICE", (_unit_steps,)),
    ),
    every=(moving_types("INT8", "UINT8"), quantized, _three_axes),
    custom=frozenset({"edgetpu-custom-op"}),
    rest=cpu.RULES,
    chained=True,
    looks=(
        _needs_compiler,
        findings.all_float("floating point throughout: the compiler refuses a file that is not quantized",
                           'export "int8" from a calibrated model', stops=True),
        findings.dynamic("the compiler needs sizes that are fixed, the batch included", "export with a batch of 1",
                         stops=True, batch=True),
        findings.boundary_types(("INT8", "UINT8"), "the host's processor quantizes float inputs and outputs",
                                'export with inputs="int8", outputs="int8"'),
    ),
)  # fmt: skip
