"""Memory that optimized kernels of a microcontroller ask for and the reference kernels do not."""

from tflite_export.graph import Model, Operator, Subgraph

# Bytes of the operator structures that optimized kernels keep beyond those of the reference kernels, an upper figure.
_PER_OPERATOR = 32
# Channels that CMSIS-NN's depthwise kernel for MVE handles at once, and rows of its matrix multiplication.
_CHANNELS, _ROWS = 124, 4


def scratch(model: Model) -> int:
    """Bytes of arena that CMSIS-NN's kernels may need on top of what the reference kernels need, from above.

    Scratch of an operation lives only while it runs: the largest counts. Sums over the rows of a kernel stay: all of
    them count. Convolutions, poolings, FULLY_CONNECTED, SVDF and LSTM are known; others take none or
    little.

    Source: CMSIS-NN, arm_*_get_buffer_sizes_*.c: the larger of its DSP (Cortex-M4, M7) and MVE (M55, M85) variants;
    tflite-micro, kernels/cmsis_nn.
    """
    largest, kept = 0, 0
    for graph in model.subgraphs:
        for op in graph.operators:
            kept += _PER_OPERATOR
            if op.kind == "FULLY_CONNECTED" and op.outputs:
                kept += 12 * _last(graph, op.outputs[0])  # a sum, a multiplier and a shift a row
            elif op.kind == "SVDF" and len(op.inputs) > 1:
                kept += 4 * graph.tensors[op.inputs[1]].shape[0]
            elif op.kind == "UNIDIRECTIONAL_SEQUENCE_LSTM" and op.outputs:
                kept += 8 * 8 * _last(graph, op.outputs[0])  # two sums for each of four gates
            elif op.inputs and op.outputs:
                largest = max(largest, _while_running(graph, op))
    return _aligned(largest, 16) + _aligned(kept, 16)


def _while_running(graph: Subgraph, op: Operator) -> int:
    item = 2 if graph.tensors[op.inputs[0]].type == "INT16" else 1
    if op.kind in ("AVERAGE_POOL_2D", "MEAN"):
        return 4 * _last(graph, op.inputs[0])
    if op.kind not in ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV") or len(op.inputs) < 2:
        return 0
    kernel = graph.tensors[op.inputs[1]].shape
    if len(kernel) != 4:
        return 0
    _, height, width, channels = kernel
    window = height * width
    if op.kind == "DEPTHWISE_CONV_2D":
        taken = _last(graph, op.inputs[0])
        if taken == 1 < channels:  # runs as a convolution of a spread-out kernel
            return _ROWS * _aligned(window, 16) + window * channels
        if taken != channels:
            return 0
        return 4 * item * window * channels + 8 if item == 2 else window * max(2 * channels, _ROWS * _CHANNELS)
    columns = _ROWS * item * _aligned(window * channels, 16)
    if op.kind == "CONV_2D":
        return columns
    output = graph.tensors[op.outputs[0]].shape
    rows = 4 * (output[2] + width) * output[-1] * (height + 1) if len(output) == 4 else 0
    return max(columns, rows)


def _last(graph: Subgraph, index: int) -> int:
    shape = graph.tensors[index].shape
    return shape[-1] if shape else 1


def _aligned(size: int, step: int) -> int:
    """
    >>> _aligned(33, 16), _aligned(32, 16)
    (48, 32)
    """
    return -(-size // step) * step
