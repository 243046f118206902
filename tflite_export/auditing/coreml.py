"""What the Core ML delegate of iOS takes of a graph."""

from tflite_export.auditing import cpu, findings
from tflite_export.auditing.checks import (
    Check,
    Obstacle,
    activation,
    beta_is_one,
    constant,
    default_weights,
    input_type,
    reflects,
)
from tflite_export.auditing.rules import Rules, table
from tflite_export.auditing.use import Use

_LARGEST_KERNEL = 16384
_ANY_FUSED = activation("RELU", "RELU6", "RELU_N1_TO_1", "TANH")
_TO_FLOAT = 'export "float32" or "float16": this delegate computes in floating point only'


def _float(place: int) -> Check:
    def check(use: Use) -> Obstacle | None:
        tensor = use.input(place)
        if tensor is None or tensor.type == "FLOAT32":
            return None
        return Obstacle(f"it computes in {tensor.type}; there it runs in FLOAT32", _TO_FLOAT)

    return check


def _binary(use: Use) -> Obstacle | None:
    first, second = use.input(0), use.input(1)
    if first is None or second is None:
        return None
    if max(len(first.shape), len(second.shape)) > 4:
        return Obstacle("it joins tensors of more than 4 axes", "merge axes by a reshape")
    a, b = ([1] * (4 - len(t.shape)) + list(t.shape) for t in (first, second))
    single = any(t.size == 1 and use.constant(place) is not None for place, t in enumerate((first, second)))
    planes = a[1:3] == b[1:3] or [1, 1] in (a[1:3], b[1:3])
    channels = a[3] == b[3] or 1 in (a[3], b[3])
    if (a[0] == b[0] or single) and planes and channels:
        return None
    return Obstacle(f"it joins the shapes {list(first.shape)} and {list(second.shape)}", "reshape one of them")


def _joins_channels(use: Use) -> Obstacle | None:
    data = use.input(0)
    if data is None:
        return None
    if len(data.shape) in (3, 4) and use.option("axis", 0) in (-1, len(data.shape) - 1):
        return None
    return Obstacle("it joins along another axis than the last one of 3 or 4", "join along the channels")


def _kernel_size(use: Use) -> Obstacle | None:
    kernel = use.input(1)
    if kernel is None or all(size <= _LARGEST_KERNEL for size in kernel.shape[1:3]):
        return None
    return Obstacle(f"its kernel is larger than {_LARGEST_KERNEL}")


def _one_row(use: Use) -> Obstacle | None:
    data = use.input(0)
    if data is None or (data.shape and data.shape[-1] == data.size):
        return None
    return Obstacle("it multiplies more than one row", "use a batch of 1 and flatten in front of it")


def _pads_plane(use: Use) -> Obstacle | None:
    pads = use.integers(1)
    if pads is None:
        return None
    if len(pads) == 8 and not any(pads[:2]) and not any(pads[6:]):
        return None
    return Obstacle("it pads something else than height and width of 4 axes", "pad height and width only")


def _means_plane(use: Use) -> Obstacle | None:
    axes, data = use.integers(1), use.input(0)
    if axes is None or data is None:
        return None
    if len(data.shape) == 4 and {axis % 4 for axis in axes} <= {1, 2} and use.option("keepDims", False):
        return None
    return Obstacle("it averages something else than height and width", "use GlobalAveragePooling2D(keepdims=True)")


def _never_reshapes(use: Use) -> Obstacle | None:
    return Obstacle("Core ML 3 and later take no RESHAPE from this delegate", "pool to 1 x 1 in place of Flatten")


_FLOAT_WEIGHTS = input_type(1, "FLOAT32", "FLOAT16", what="kernel")
_CONVOLUTION = (_float(0), constant(1, "kernel"), constant(2, "bias"), _FLOAT_WEIGHTS, _kernel_size, _ANY_FUSED)

RULES = Rules(
    target="coreml",
    title="the Core ML delegate",
    source="LiteRT, tflite/delegates/coreml/coreml_delegate.mm and its builders (August 2026)",
    operations=table(
        ("ADD MUL", (_float(0), _binary, _ANY_FUSED)),
        ("AVERAGE_POOL_2D MAX_POOL_2D", (_float(0), activation())),
        ("CONCATENATION", (_float(0), activation(), _joins_channels)),
        ("CONV_2D DEPTHWISE_CONV_2D", _CONVOLUTION),
        ("FULLY_CONNECTED", (_float(0), constant(1, "kernel"), constant(2, "bias"), _FLOAT_WEIGHTS, _one_row,
                             default_weights)),
        ("HARD_SWISH LOGISTIC RELU RELU6 RELU_N1_TO_1 TANH", (_float(0),)),
        ("MEAN", (_float(0), constant(1, "list of axes"), _means_plane)),
        ("MIRROR_PAD", (_float(0), constant(1, "padding"), _pads_plane, reflects)),
        ("PAD PADV2", (_float(0), constant(1, "padding"), _pads_plane)),
        ("RESHAPE", (_float(0), _never_reshapes)),
        ("RESIZE_BILINEAR", (_float(0), constant(1, "size"))),
        ("SOFTMAX", (_float(0), beta_is_one)),
        ("TRANSPOSE_CONV", (_float(2), constant(1, "kernel"), constant(0, "output size"), _FLOAT_WEIGHTS,
                            _kernel_size)),
    ),
    rest=cpu.RULES,
    unpacks=True,
    looks=(
        findings.always("stretches of fewer than 2 operations stay on the processor; devices without a Neural Engine "
                        "use the processor for everything by default"),
        findings.dynamic("sizes known only at run time stay on the processor", "fix the sizes"),
        findings.hybrid("integer weights: Core ML takes float weights only", 'export "float16"'),
    ),
)  # fmt: skip
