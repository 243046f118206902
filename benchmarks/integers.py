"""Are the integers in a file those of the model's own grid? Asked of the bytes alone, whatever names they carry."""

import itertools
from collections.abc import Iterable

import numpy as np

from tflite_export.flatbuffer import read

# operation -> (input that holds the kernel, axis of its output channels)
KERNELS = {
    "CONV_2D": (1, 0),
    "DEPTHWISE_CONV_2D": (1, -1),
    "FULLY_CONNECTED": (1, 0),
    "CONV_3D": (1, -1),
    "TRANSPOSE_CONV": (1, 0),
}


def kernels(content: bytes) -> dict[str, tuple[np.ndarray, int]]:
    """Constant integer kernels of a file: name -> (integers, axis of the output channels)."""
    found = {}
    for graph in read(content).subgraphs:
        for operation in graph.operators:
            if operation.kind not in KERNELS:
                continue
            position, axis = KERNELS[operation.kind]
            tensor = graph.tensors[operation.inputs[position]]
            if tensor.data is not None and tensor.type in ("INT8", "INT4"):
                found[f"{tensor.index}:{tensor.name}"] = (np.asarray(tensor.values()).astype(int), axis)
    return found


def matched(content: bytes, grid: Iterable[np.ndarray]) -> tuple[int, int, list[str]]:
    """How many kernels of a file are one of the model's integer weights.

    A kernel equals a weight when some order of the weight's axes gives the kernel, each output channel as it is or
    negated (a batch normalization with a negative factor turns the sign of its channel around). Of a 3-D convolution's
    weight each slice along the depth may be a kernel of its own: it runs as a sum of 2-D convolutions.

    Returns:
        (kernels that were found in the model, kernels of the file, names of the others).
    """
    weights = [np.asarray(codes).astype(int) for codes in grid]
    weights += [part for codes in weights if codes.ndim == 5 for part in codes]
    sorted_weights = [np.sort(np.abs(codes), axis=None) for codes in weights]
    found, missing = 0, []
    in_file = kernels(content)
    for name, (integers, axis) in in_file.items():
        shape = np.sort(np.abs(integers), axis=None)
        alike = (w for w, s in zip(weights, sorted_weights, strict=True) if s.size == shape.size and (s == shape).all())
        if any(_equal(weight, integers, axis) for weight in alike):
            found += 1
        else:
            missing.append(name)
    return found, len(in_file), missing


def _equal(weight: np.ndarray, integers: np.ndarray, axis: int) -> bool:
    for order in itertools.permutations(range(weight.ndim)):
        candidate = weight.transpose(order).reshape(integers.shape)
        rows = np.moveaxis(candidate, axis, 0).reshape(integers.shape[axis], -1)
        own = np.moveaxis(integers, axis, 0).reshape(integers.shape[axis], -1)
        if ((rows == own).all(1) | (rows == -own).all(1)).all():
            return True
    return False
