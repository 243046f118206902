"""Budgets of a whole model, and what it costs in their units."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core.macs import macs_of
from tfcompress.core.replay import Call, calls
from tfcompress.core.scalars import is_finite

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
        if not is_finite(value) or value <= 0 or (value > 1 and value != int(value)):
            raise ValueError(
                f"`{argument}[{kind!r}]` must be a fraction of the model's {kind} in (0, 1] or a whole number of them. "
                f"Received: {value!r}"
            )


def limits_of(budget: Mapping[str, Any], flat: Any, argument: str) -> dict[str, float]:
    """How much there may be of each kind in a budget, for a flat model as it is now.

    Raises:
        ValueError: the budget is none, or of a kind that cannot be counted.

    >>> from tfcompress.core.flavor import keras
    >>> model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(4)])
    >>> limits_of({"macs": 0.5, "params": 30}, model, "amount")
    {'macs': 20.0, 'params': 30}
    """
    check_budget(budget, argument)
    steps = calls(flat)
    cost = cost_of_calls(steps)
    # A formula that is not known (a layer of the user's own) counts as nothing; a size that is not known would let
    # whole layers pass for nothing.
    open_ended = [step.operation.name for step in steps
                  if macs_of(step) is None and any(None in tuple(t.shape)[1:] for t in (*step.inputs, *step.outputs))]
    for kind in budget:
        if not cost[kind] or (kind == "macs" and open_ended):
            of = f", those of {', '.join(open_ended[:10])}" if kind == "macs" and open_ended else ""
            raise ValueError(
                f"`{argument}` must be of what can be counted; the model's {kind} are not known{of}, as with inputs of "
                f"any size. Received: {argument}={dict(budget)!r}"
            )
    return {kind: value * cost[kind] if value <= 1 else value for kind, value in budget.items()}


def cost_of(flat: Any) -> dict[str, int]:
    """Multiply-accumulates of one sample where they are known, parameters and bytes of a flat model."""
    return cost_of_calls(calls(flat))


def cost_of_calls(steps: Iterable[Call]) -> dict[str, int]:
    """The same of some calls of a flat model."""
    steps = list(steps)
    weights = {id(v): v for step in steps for v in getattr(step.operation, "weights", ())}.values()
    return {
        "macs": sum(macs_of(step) or 0 for step in steps),
        "params": sum(int(np.prod(v.shape)) for v in weights),
        "bytes": sum(int(np.prod(v.shape)) * tf.as_dtype(v.dtype).size for v in weights),
    }
