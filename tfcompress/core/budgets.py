"""Budgets of a whole model, and what it costs in their units."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core.macs import macs_of
from tfcompress.core.replay import calls

#: What a budget may be of.
KINDS = ("macs", "params", "bytes")


def is_budget(amount: Any) -> bool:
    """Whether an amount is a budget of the whole model and not something of single layers."""
    return isinstance(amount, Mapping) and bool(amount) and all(key in KINDS for key in amount)


def check_budget(amount: Mapping[str, Any], argument: str) -> None:
    """Refuse a budget that is none; `argument` is the name of the parameter that it was passed to.

    Raises:
        ValueError: a value is neither a fraction in (0, 1] nor a whole number above 1.
    """
    for kind, value in amount.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0 or (
                value > 1 and value != int(value)):  # fmt: skip
            raise ValueError(
                f"`{argument}[{kind!r}]` must be a fraction of the model's {kind} in (0, 1] or a whole number of them. "
                f"Received: {value!r}"
            )


def cost_of(flat: Any) -> dict[str, int]:
    """Multiply-accumulates of one sample where they are known, parameters and bytes of a flat model."""
    weights = {id(v): v for v in flat.weights}.values()
    return {
        "macs": sum(macs_of(call) or 0 for call in calls(flat)),
        "params": sum(int(np.prod(v.shape)) for v in weights),
        "bytes": sum(int(np.prod(v.shape)) * tf.as_dtype(v.dtype).size for v in weights),
    }
