"""Which methods of tflite-micro's MicroMutableOpResolver register the operations of a file."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from tflite_export.errors import ExportError
from tflite_export.graph import Model

HEADER = Path("tensorflow", "lite", "micro", "micro_mutable_op_resolver.h")
_DIRECTORY = str | os.PathLike[str]

# Operations whose method is their name in camel case: FULLY_CONNECTED -> AddFullyConnected.
_REGULAR = """
    ABS ADD ADD_N ARG_MAX ARG_MIN ASSIGN_VARIABLE BATCH_TO_SPACE_ND BROADCAST_ARGS BROADCAST_TO CALL_ONCE CAST CEIL
    CONCATENATION COS DEPTH_TO_SPACE DEQUANTIZE DIV DYNAMIC_UPDATE_SLICE ELU EMBEDDING_LOOKUP EQUAL EXP EXPAND_DIMS
    FILL FLOOR FLOOR_DIV FLOOR_MOD FULLY_CONNECTED GATHER GATHER_ND GREATER GREATER_EQUAL HARD_SWISH IF
    L2_NORMALIZATION LEAKY_RELU LESS LESS_EQUAL LOG LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC LOG_SOFTMAX MAXIMUM
    MEAN MINIMUM MIRROR_PAD MUL NEG NOT_EQUAL PACK PAD PRELU QUANTIZE READ_VARIABLE REDUCE_ALL REDUCE_MAX REDUCE_MIN
    RELU RELU6 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR REVERSE_V2 ROUND RSQRT SELECT_V2 SHAPE SIN SLICE SOFTMAX
    SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM SVDF
    TANH TRANSPOSE TRANSPOSE_CONV UNPACK VAR_HANDLE WHILE ZEROS_LIKE
"""
_IRREGULAR = {
    "AVERAGE_POOL_2D": "AveragePool2D",
    "BATCH_MATMUL": "BatchMatMul",
    "CONV_2D": "Conv2D",
    "CUMSUM": "CumSum",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2D",
    "L2_POOL_2D": "L2Pool2D",
    "MAX_POOL_2D": "MaxPool2D",
    "PADV2": "PadV2",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTM",
}
METHODS: dict[str, str] = {
    **{kind: "Add" + "".join(word.capitalize() for word in kind.split("_")) for kind in _REGULAR.split()},
    **{kind: f"Add{name}" for kind, name in _IRREGULAR.items()},
}
"""Builtin operation -> method. Source: tflite-micro, micro_mutable_op_resolver.h of 20 August 2026."""
CUSTOM: dict[str, str] = {
    "CIRCULAR_BUFFER": "AddCircularBuffer",
    "SignalDelay": "AddDelay",
    "SignalEnergy": "AddEnergy",
    "SignalFftAutoScale": "AddFftAutoScale",
    "SignalFilterBank": "AddFilterBank",
    "SignalFilterBankLog": "AddFilterBankLog",
    "SignalFilterBankSpectralSubtraction": "AddFilterBankSpectralSubtraction",
    "SignalFilterBankSquareRoot": "AddFilterBankSquareRoot",
    "SignalFramer": "AddFramer",
    "SignalIrfft": "AddIrfft",
    "SignalOverlapAdd": "AddOverlapAdd",
    "SignalPCAN": "AddPCAN",
    "SignalRfft": "AddRfft",
    "SignalStacker": "AddStacker",
    "SignalWindow": "AddWindow",
    "TFLM_DECODE": "AddDecode",
    "TFLite_Detection_PostProcess": "AddDetectionPostprocess",
    "ethos-u": "AddEthosU",
}
"""Custom operation of tflite-micro's own -> method; same source."""


@dataclass(frozen=True)
class Methods:
    """Methods that a resolver may be asked for.

    Attributes:
        builtin: builtin operation -> method.
        custom: custom operation -> method.
        where: how messages call the version of tflite-micro that they are of.
    """

    builtin: dict[str, str]
    custom: dict[str, str]
    where: str


KNOWN = Methods(METHODS, CUSTOM, "tflite-micro of August 2026")


def methods_of(checkout: _DIRECTORY) -> Methods:
    """The methods that a checkout of tflite-micro has, read from its header.

    Args:
        checkout: its folder, the one that holds `tensorflow/lite/micro`.

    Raises:
        ValueError: the folder is no checkout of tflite-micro.
    """
    header = Path(checkout) / HEADER
    if not header.is_file():
        raise ValueError(
            f"`tflm` must be a checkout of tflite-micro, a folder with {HEADER.as_posix()} "
            f"(git clone https://github.com/tensorflow/tflite-micro). Received: tflm={os.fspath(checkout)!r}"
        )
    builtin, custom = {}, {"ethos-u": "AddEthosU"}  # its name is behind a function
    for part in re.split(r"TfLiteStatus (?=Add\w+\()", header.read_text("utf-8", "replace"))[1:]:
        method = part.partition("(")[0]
        if kind := re.search(r"AddBuiltin\(\s*BuiltinOperator_(\w+)", part):
            builtin[kind.group(1)] = method
        elif name := re.search(r'AddCustom\(\s*"([^"]+)"', part):
            custom[name.group(1)] = method
    if not builtin:
        raise ValueError(f"`tflm`: {header} holds no resolver this version can read. Received: tflm={str(checkout)!r}")
    return Methods(builtin, custom, f"the checkout {os.fspath(checkout)!r}")


def resolver_of(model: Model, methods: Methods = KNOWN) -> tuple[str, ...]:
    """Methods that register exactly the operations of a file, sorted, each once.

    Args:
        model: all its subgraphs count, since control flow calls them.
        methods: those there are.

    Returns:
        Such as ("AddConv2D", "AddFullyConnected", "AddSoftmax").

    Raises:
        ExportError: an operation has no method; the message names it and the first outputs it computes.
    """
    found: set[str] = set()
    missing: dict[str, list[str]] = {}
    for graph in model.subgraphs:
        for op in graph.operators:
            method = (methods.custom if op.is_custom else methods.builtin).get(op.kind)
            if method is not None:
                found.add(method)
                continue
            name = graph.tensors[op.outputs[0]].name if op.outputs else f"operation {op.index}"
            missing.setdefault(f"custom operation {op.kind!r}" if op.is_custom else op.kind, []).append(name)
    if missing:
        listed = "; ".join(f"{kind} (for {', '.join(map(repr, names[:3]))})" for kind, names in missing.items())
        raise ExportError(f"{methods.where} has no kernel for {listed}.")
    return tuple(sorted(found))
