"""Operations x kernel sets: which are computed exactly, and how near the others come. Data only."""

EXACT = "exact"

_EVERYWHERE: dict[str, str | float] = {"xnnpack": EXACT, "reference": EXACT, "tflm": EXACT}

# operation -> kernel set -> EXACT, or the measured part of the elements that are equal (the others differ by one step).
# "int16x8": 16-bit activations and 8-bit kernels; "int4": kernels packed two to a byte.
TABLE: dict[str, dict[str, str | float]] = {
    "BATCH_MATMUL": _EVERYWHERE,
    "BATCH_MATMUL int16": _EVERYWHERE,
    "CONV_2D": _EVERYWHERE,
    "CONV_2D int16x8": _EVERYWHERE,
    "CONV_2D int4": _EVERYWHERE,
    "DEPTHWISE_CONV_2D": _EVERYWHERE,
    "DEPTHWISE_CONV_2D int16x8": _EVERYWHERE,
    "DEPTHWISE_CONV_2D int4": _EVERYWHERE,
    "FULLY_CONNECTED": _EVERYWHERE,
    "FULLY_CONNECTED int16x8": _EVERYWHERE,
    "FULLY_CONNECTED int4": _EVERYWHERE,
    "QUANTIZE": _EVERYWHERE,
    "TRANSPOSE_CONV": _EVERYWHERE,
    "TRANSPOSE_CONV int16x8": _EVERYWHERE,
}
