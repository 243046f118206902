"""Weights that are numbers, of a type that a runtime has."""

from typing import Any

import numpy as np

from tfcompress.core import flavor


def check_finite(model: Any) -> None:
    """Refuses a model one of whose weights holds NaN or infinity, or 64-bit numbers that it computes with.

    Raises:
        ValueError: naming the weight and its layer.
    """
    for variable in model.weights:
        value = np.asarray(flavor.read(variable))
        if value.dtype == np.float64:
            raise ValueError(
                f"`model` must compute in float32, which is what runtimes have: build it with "
                f"keras.backend.set_floatx('float32'). Received: {flavor.variable_path(variable)!r} of float64"
            )
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise ValueError(
                f"`model` has weights that are not finite: {flavor.variable_path(variable)!r} holds "
                f"{int((~np.isfinite(value)).sum())} NaN or infinite values of {value.size}"
            )
