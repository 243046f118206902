"""Look-ups in tables without the selection that Keras 3 puts in front of them.

Keras 3 counts negative indices from the end, select(i < 0, i + n, i), as numpy does, and tflite-micro has no SELECT of
whole numbers. The same in operations that every runtime has:

    i + n * (i < 0)  =  i + max(min(i, 0), -1) * -n
"""

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.draft import Draft

_WHOLE = {"INT32": np.int32, "INT64": np.int64}


def without_selects(draft: Draft) -> None:
    """Replaces the selection of every look-up; where indices cannot be negative, it goes without replacement.

    Args:
        draft: a converted file, changed in place.
    """
    for op in list(draft.operators):
        if draft.kind(op) in ("SELECT", "SELECT_V2") and draft.type(op.outputs[0]) in _WHOLE:
            count = _wraps(draft, op)
            if count is not None:
                _respell(draft, op, count)
    readers = draft.users()
    for op in list(reversed(draft.operators)):  # comparisons and sums that only the selections read
        unread = not any(readers.get(i) or i in draft.outputs for i in op.outputs)
        if draft.kind(op) in ("LESS", "ADD") and unread:
            draft.operators.remove(op)
            readers = draft.users()


def _wraps(draft: Draft, op: Any) -> int | None:
    """n where an operation is select(i < 0, i + n, i); else None."""
    makers = draft.makers()
    condition, chosen, index = op.inputs
    less, add = makers.get(condition), makers.get(chosen)
    if less is None or add is None or draft.kind(less) != "LESS" or draft.kind(add) != "ADD":
        return None
    zero, count = _number(draft, less.inputs[1]), _number(draft, add.inputs[1])
    same = less.inputs[0] == add.inputs[0] == index
    return count if same and zero == 0 and count is not None else None


def _number(draft: Draft, index: int) -> int | None:
    """A constant of one whole number."""
    if not draft.is_constant(index) or draft.type(index) not in _WHOLE or draft.value(index).size != 1:
        return None
    return int(draft.value(index).reshape(-1)[0])


def _respell(draft: Draft, op: Any, count: int) -> None:
    index = op.inputs[2]
    maker = draft.makers().get(index)
    bounds = [_number(draft, i) for i in maker.inputs] if maker is not None and draft.kind(maker) == "MAXIMUM" else []
    if any(bound is not None and bound >= 0 for bound in bounds):
        draft.replace_uses(op.outputs[0], index, keep=[op])
        draft.operators.remove(op)
        return
    dtype, name, shape = _WHOLE[draft.type(index)], draft.name(op.outputs[0]), draft.tensors[index].shape
    value = index
    for kind, number, options in (
        ("MINIMUM", 0, schema.MaximumMinimumOptionsT()),
        ("MAXIMUM", -1, schema.MaximumMinimumOptionsT()),
        ("MUL", -count, schema.MulOptionsT()),
    ):
        result = draft.add_tensor(shape, draft.type(index), f"{name}/{kind.lower()}")
        constant = draft.add_constant(np.array(number, dtype), f"{name}/{kind.lower()}/y")
        draft.insert(draft.place(op), kind, [value, constant], [result], options)
        value = result
    draft.become(op, "ADD", [index, value], schema.AddOptionsT())
