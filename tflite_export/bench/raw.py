"""Outputs that come back from a device as bytes."""

from collections.abc import Mapping

import numpy as np

from tflite_export.flatbuffer import read
from tflite_export.port import ports


def outputs_of(content: bytes, raw: Mapping[str, bytes]) -> dict[str, np.ndarray] | None:
    """Arrays of one inference.

    Args:
        content: of the file that was run.
        raw: output's name -> its values, little-endian and in the file's type.

    Returns:
        name -> [1, ...] for every output of the file's first signature; None when one is missing or its bytes do not
        fit its shape.
    """
    model = read(content)
    found = {}
    for port in ports(model, model.signature(), "outputs"):
        dtype, shape = port.tensor.dtype, port.tensor.shape
        values = raw.get(port.name)
        if dtype is None or values is None or len(values) != int(np.prod(shape)) * dtype.itemsize:
            return None
        found[port.name] = np.frombuffer(values, dtype).reshape(1, *shape)
    return found
