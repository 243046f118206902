"""What each layer and operation does to tensor boundaries on the integer runtime: one table of data.

| kind        | its output on the runtime                                                                        |
|-------------|--------------------------------------------------------------------------------------------------|
| PRODUCT     | a boundary; a BatchNormalization or ReLU that alone reads it is computed before that boundary     |
| JOIN        | a boundary; a ReLU that alone reads it is computed before it                                      |
| NORM        | a boundary of its own, unless fused into the product before it                                    |
| RELU        | a boundary without negative values, unless fused into what stands before it                       |
| SAME        | the very numbers of its input: same range, no boundary                                            |
| CONCAT      | a boundary that its operands share, where nothing else reads them                                 |
| TRANSPARENT | nothing at inference                                                                              |
| FIXED       | a range that the runtime prescribes                                                               |
| TABLE       | rows of a weight: the weight's own scale, no range                                                |
| CONSTANT    | a boundary whose range is that of the weight as it stands                                         |
| OTHER       | a boundary; what the operation computes inside has ranges that the exporter measures              |
"""

from enum import Enum, auto
from typing import Any

from tfcompress.core import flavor
from tfcompress.core.flavor import keras
from tfcompress.core.opaque import Weight


class Kind(Enum):
    """What a layer or operation does to tensor boundaries; the table above says what each means."""

    PRODUCT = auto()
    JOIN = auto()
    NORM = auto()
    RELU = auto()
    SAME = auto()
    CONCAT = auto()
    TRANSPARENT = auto()
    FIXED = auto()
    TABLE = auto()
    CONSTANT = auto()
    OTHER = auto()


_LAYERS: dict[Kind, str] = {
    Kind.PRODUCT: """Conv1D Conv2D Conv3D DepthwiseConv1D DepthwiseConv2D Conv1DTranspose Conv2DTranspose
                     Conv3DTranspose Dense EinsumDense""",
    Kind.JOIN: "Add Subtract Multiply",
    Kind.NORM: "BatchNormalization",
    Kind.SAME: """Reshape Flatten Permute RepeatVector Cropping1D Cropping2D Cropping3D ZeroPadding1D ZeroPadding2D
                  ZeroPadding3D MaxPooling1D MaxPooling2D MaxPooling3D GlobalMaxPooling1D GlobalMaxPooling2D
                  GlobalMaxPooling3D AveragePooling1D AveragePooling2D AveragePooling3D UpSampling1D UpSampling2D
                  UpSampling3D""",
    Kind.CONCAT: "Concatenate",
    Kind.TRANSPARENT: """Dropout SpatialDropout1D SpatialDropout2D SpatialDropout3D GaussianNoise GaussianDropout
                         AlphaDropout ActivityRegularization Identity""",
    Kind.FIXED: "Softmax",
    Kind.TABLE: "Embedding",
}
# Names of keras.ops and of TensorFlow operations, without underscores and case.
_OPERATIONS: dict[Kind, str] = {
    Kind.JOIN: "add subtract sub multiply mul",
    Kind.RELU: "relu relu6",
    Kind.SAME: """reshape transpose permute squeeze expanddims getitem slice stridedslice split unstack max amax
                  reducemax maxpool pad tile repeat broadcastto flip roll take gather swapaxes moveaxis averagepool
                  avgpool ravel""",
    Kind.CONCAT: "concatenate concat stack pack",
    Kind.TRANSPARENT: "identity stopgradient converttotensor dropout",
    Kind.FIXED: "softmax sigmoid tanh",
}
_BY_CLASS = {
    cls: kind for kind, names in _LAYERS.items() for name in names.split() if (cls := getattr(keras.layers, name, None))
}
_BY_OPERATION = {name: kind for kind, names in _OPERATIONS.items() for name in names.split()}
_BY_ACTIVATION = {
    "linear": Kind.TRANSPARENT, "relu": Kind.RELU, "relu6": Kind.RELU,
    "softmax": Kind.FIXED, "sigmoid": Kind.FIXED, "tanh": Kind.FIXED,
}  # fmt: skip


def activation_name(layer: Any) -> str:
    """The name of a layer's `activation`, "linear" where it has none, "" where the function has no name."""
    function = getattr(layer, "activation", None)
    return "linear" if function is None else getattr(function, "__name__", "")


def _is_plain_relu(layer: Any) -> bool:
    maximum, slope = layer.max_value, getattr(layer, "negative_slope", 0)
    return maximum in (None, 6, 6.0) and not slope and not layer.threshold


def _is_one_join(layer: Any) -> bool:
    """Whether a Rescaling does no more than add a number, or multiply by one."""
    numbers = isinstance(layer.scale, (int, float)) and isinstance(layer.offset, (int, float))
    return numbers and (layer.scale == 1) != (layer.offset == 0)


def kind_of(operation: Any) -> Kind:
    """The kind of a layer or of an operation that is no layer."""
    if isinstance(operation, Weight):
        return Kind.CONSTANT
    if isinstance(operation, keras.layers.ReLU):
        return Kind.RELU if _is_plain_relu(operation) else Kind.OTHER
    if isinstance(operation, keras.layers.Activation):
        return _BY_ACTIVATION.get(activation_name(operation), Kind.OTHER)
    if isinstance(operation, keras.layers.Rescaling):
        return Kind.JOIN if _is_one_join(operation) else Kind.OTHER
    for cls in type(operation).__mro__:  # the most specific class that the table knows
        if cls in _BY_CLASS:
            return _BY_CLASS[cls]
    name = flavor.operation_name(operation)
    return _BY_OPERATION.get(name, Kind.OTHER) if name else Kind.OTHER


def relu_of(operation: Any) -> str | None:
    """ "relu" or "relu6" for a layer or operation that ends in one, else None."""
    if isinstance(operation, keras.layers.ReLU):
        return ("relu" if operation.max_value is None else "relu6") if _is_plain_relu(operation) else None
    name = flavor.operation_name(operation) or activation_name(operation)
    return name if name in ("relu", "relu6") else None


def fixed_range(operation: Any, bits: int) -> tuple[float, float]:
    """The range that LiteRT prescribes for the output of a softmax, sigmoid or tanh.

    8 bits: [0, 255/256], tanh [-1, 127/128]. 16 bits: [-1, 32767/32768] for all.

    Source: TensorFlow Lite 8-bit quantization specification, operators SOFTMAX, LOGISTIC and TANH.
    """
    name = flavor.operation_name(operation) or activation_name(operation)
    half = 2.0 ** (bits - 1)
    signed = bits == 16 or name == "tanh"
    return (-1.0, (half - 1) / half) if signed else (0.0, (2 * half - 1) / (2 * half))
