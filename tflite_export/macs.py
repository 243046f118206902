"""Multiply-accumulates of an operation, and which of its inputs are kernels.

One row of `COUNTS` per operation, from the shapes of its inputs and outputs alone. What is not listed multiplies
nothing that counts: elementwise products, softmax and normalization are left out, as in the papers that quote MACs.
"""

from collections.abc import Callable, Mapping, Sequence
from math import prod

from tflite_export.graph import Operator, Subgraph

Shape = tuple[int, ...]
# (shapes of the inputs, () for one that is left out; shapes of the outputs; the operator) -> MACs
Count = Callable[[Sequence[Shape], Sequence[Shape], Operator], int]


def _conv(inputs: Sequence[Shape], outputs: Sequence[Shape], op: Operator) -> int:
    """outputs * KH * KW * (C / groups); kernel [F, KH, KW, C / groups]."""
    return prod(outputs[0]) * prod(inputs[1][1:])


def _depthwise(inputs: Sequence[Shape], outputs: Sequence[Shape], op: Operator) -> int:
    """outputs * KH * KW; kernel [1, KH, KW, F]."""
    return prod(outputs[0]) * prod(inputs[1][1:3])


def _fully_connected(inputs: Sequence[Shape], outputs: Sequence[Shape], op: Operator) -> int:
    """outputs * C; kernel [F, C]."""
    return prod(outputs[0]) * inputs[1][-1]


def _transpose_conv(inputs: Sequence[Shape], outputs: Sequence[Shape], op: Operator) -> int:
    """inputs * F * KH * KW, products that fall outside the output included; kernel [F, KH, KW, C], data is input 2."""
    return prod(inputs[2]) * prod(inputs[1][:3])


def _conv3d(inputs: Sequence[Shape], outputs: Sequence[Shape], op: Operator) -> int:
    """outputs * KD * KH * KW * C; kernel [KD, KH, KW, C, F]."""
    return prod(outputs[0]) * prod(inputs[1][:4])


def _transpose_conv3d(inputs: Sequence[Shape], outputs: Sequence[Shape], op: Operator) -> int:
    """inputs * KD * KH * KW * F, as `_transpose_conv`; kernel [KD, KH, KW, F, C], data is input 2."""
    return prod(inputs[2]) * prod(inputs[1][:4])


def _batch_matmul(inputs: Sequence[Shape], outputs: Sequence[Shape], op: Operator) -> int:
    """outputs * K; left operand [..., M, K], or [..., K, M] when it is taken transposed."""
    return prod(outputs[0]) * inputs[0][-2 if getattr(op.options, "adjX", False) else -1]


def _recurrent(kernels: Sequence[int]) -> Count:
    """rows * (values of all input, recurrent and projection kernels), with as many rows as batch * time steps."""

    def count(inputs: Sequence[Shape], outputs: Sequence[Shape], op: Operator) -> int:
        return prod(inputs[0][:-1]) * sum(prod(inputs[i]) for i in kernels if i < len(inputs) and inputs[i])

    return count


# Kernels by place: LSTM has 4 gates of the input (1-4), 4 of the state (5-8) and a projection (16); the bidirectional
# form has them once more for the other direction, and for an auxiliary input.
_LSTM = (*range(1, 9), 16)
_BIDIRECTIONAL_LSTM = (*range(1, 9), 16, *range(18, 26), 33, *range(40, 48))
_BIDIRECTIONAL_RNN = (1, 2, 5, 6, 10, 11)

COUNTS: Mapping[str, Count] = {
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _fully_connected,
    "TRANSPOSE_CONV": _transpose_conv,
    "CONV_3D": _conv3d,
    "CONV_3D_TRANSPOSE": _transpose_conv3d,
    "BATCH_MATMUL": _batch_matmul,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _recurrent(_LSTM),
    "LSTM": _recurrent(_LSTM),
    "BIDIRECTIONAL_SEQUENCE_LSTM": _recurrent(_BIDIRECTIONAL_LSTM),
    "UNIDIRECTIONAL_SEQUENCE_RNN": _recurrent((1, 2)),
    "RNN": _recurrent((1, 2)),
    "BIDIRECTIONAL_SEQUENCE_RNN": _recurrent(_BIDIRECTIONAL_RNN),
    "SVDF": _recurrent((1, 2)),
}

# Inputs that hold a kernel when they are constants of two axes or more.
KERNELS: Mapping[str, Sequence[int]] = {
    "CONV_2D": (1,),
    "DEPTHWISE_CONV_2D": (1,),
    "FULLY_CONNECTED": (1,),
    "TRANSPOSE_CONV": (1,),
    "CONV_3D": (1,),
    "CONV_3D_TRANSPOSE": (1,),
    "BATCH_MATMUL": (0, 1),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _LSTM,
    "LSTM": _LSTM,
    "BIDIRECTIONAL_SEQUENCE_LSTM": _BIDIRECTIONAL_LSTM,
    "UNIDIRECTIONAL_SEQUENCE_RNN": (1, 2),
    "RNN": (1, 2),
    "BIDIRECTIONAL_SEQUENCE_RNN": _BIDIRECTIONAL_RNN,
    "SVDF": (1, 2),
    "GATHER": (0,),
    "EMBEDDING_LOOKUP": (1,),
}


def macs(graph: Subgraph, op: Operator) -> int:
    """Multiply-accumulates of one run of an operator; 0 for an operation that is not in `COUNTS`.

    Sizes that are only known at run time count as the file's shapes say, usually 1. An operator whose shapes do not
    have the axes that its operation needs counts 0: nothing can run it.
    """
    count = COUNTS.get(op.kind)
    if count is None:
        return 0
    inputs = [graph.tensors[i].shape if i >= 0 else () for i in op.inputs]
    outputs = [graph.tensors[i].shape for i in op.outputs]
    try:
        return count(inputs, outputs, op)
    except IndexError:
        return 0


def kernels(graph: Subgraph, op: Operator) -> list[int]:
    """Tensor numbers of the constants that an operator multiplies with, resolved to where the bytes are."""
    found = []
    for place in KERNELS.get(op.kind, ()):
        constant = graph.constant(op.inputs[place]) if place < len(op.inputs) else None
        if constant is not None and len(constant.shape) >= 2:
            found.append(constant.index)
    return found
