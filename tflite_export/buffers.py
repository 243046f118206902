"""The constants of a file: what nothing uses is left out, what is equal is stored once."""

from typing import Any


def drop_unused(model: Any) -> None:
    """Empties every buffer that neither an operator, nor an input, an output or the metadata use.

    Args:
        model: the schema's ModelT, changed in place.
    """
    used = {0} | {entry.buffer for entry in model.metadata or []}
    for graph in model.subgraphs:
        seen = {int(i) for i in [*graph.inputs, *graph.outputs]}
        for op in graph.operators:
            ends = [*op.inputs, *op.outputs, *([] if op.intermediates is None else op.intermediates)]
            seen.update(int(i) for i in ends)
        used.update(tensor.buffer for i, tensor in enumerate(graph.tensors) if i in seen)
    for number, buffer in enumerate(model.buffers):
        if number not in used:
            buffer.data = None


def share(model: Any) -> None:
    """Lets constants of equal bytes share one buffer, and numbers the buffers anew without those that hold nothing.

    Type, shape and grid belong to the tensor and not to the buffer: a table that is looked up and the same table as the
    matrix of a product are one buffer, and so is a kernel that two subgraphs use.

    Args:
        model: the schema's ModelT, changed in place.
    """
    tensors = [tensor for graph in model.subgraphs for tensor in graph.tensors]
    variables = {tensor.buffer for tensor in tensors if tensor.isVariable}
    kept, first, renumbered = [model.buffers[0]], {}, {0: 0}
    for number, buffer in enumerate(model.buffers[1:], start=1):
        if buffer.data is None and not buffer.size and number not in variables:
            renumbered[number] = 0
            continue
        data = b"" if buffer.data is None else bytes(bytearray(buffer.data))
        if not data or number in variables or data not in first:
            kept.append(buffer)
            renumbered[number] = len(kept) - 1
            if number not in variables:
                first[data] = len(kept) - 1
        else:
            renumbered[number] = first[data]
    for holder in [*tensors, *(model.metadata or [])]:
        holder.buffer = renumbered[holder.buffer]
    model.buffers = kept
