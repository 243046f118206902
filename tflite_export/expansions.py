"""Operations that have no 16-bit kernel, spelt out in ones that have.

    L2_NORMALIZATION(x)       x * rsqrt(sum(x x) + tiny)
    LOG_SOFTMAX(x)            d - log(sum(exp(d))),   d = x - max(x)

All go along the last axis.
"""

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.draft import Draft

# What the runtime's kernel adds to a sum of squares.
_TINY = 1e-6


def expand(draft: Draft) -> None:
    """Spells out what integers of 16 bits have no kernel for.

    Args:
        draft: a float file, changed in place; it computes the same.
    """
    for op in list(draft.operators):
        spelling = SPELLINGS.get(draft.kind(op))
        if spelling is not None and draft.is_float(op.outputs[0]):
            spelling(draft, op)


def _l2_normalization(draft: Draft, op: Any) -> None:
    x = op.inputs[0]
    square = _step(draft, op, "MUL", [x, x], schema.MulOptionsT())
    total = _reduced(draft, op, "SUM", square)
    tiny = draft.add_constant(np.float32(_TINY), f"{draft.name(op.outputs[0])}/tiny")
    positive = _step(draft, op, "ADD", [total, tiny], schema.AddOptionsT())
    root = _step(draft, op, "RSQRT", [positive], None)
    draft.become(op, "MUL", [x, root], schema.MulOptionsT())


def _log_softmax(draft: Draft, op: Any) -> None:
    x = op.inputs[0]
    below = _step(draft, op, "SUB", [x, _reduced(draft, op, "REDUCE_MAX", x)], schema.SubOptionsT())
    exponential = _step(draft, op, "EXP", [below], schema.ExpOptionsT())
    logarithm = _step(draft, op, "LOG", [_reduced(draft, op, "SUM", exponential)], None)
    draft.become(op, "SUB", [below, logarithm], schema.SubOptionsT())


def _reduced(draft: Draft, op: Any, kind: str, source: int) -> int:
    """SUM or REDUCE_MAX over the last axis, which stays with size 1."""
    axis = draft.add_constant(np.array([-1], np.int32), f"{draft.name(op.outputs[0])}/axis")
    return _step(draft, op, kind, [source, axis], schema.ReducerOptionsT(keepDims=True))


def _step(draft: Draft, op: Any, kind: str, inputs: list[int], options: Any) -> int:
    """The result of a new operation in front of `op`."""
    shapes = [tuple(draft.tensors[i].shape) for i in inputs]
    shape = (*shapes[0][:-1], 1) if kind in ("SUM", "REDUCE_MAX") else np.broadcast_shapes(*shapes)
    result = draft.add_tensor(shape, "FLOAT32", f"{draft.name(op.outputs[0])}/{kind.lower()}_{len(draft.tensors)}")
    draft.insert(draft.place(op), kind, inputs, [result], options)
    return result


SPELLINGS = {"L2_NORMALIZATION": _l2_normalization, "LOG_SOFTMAX": _log_softmax}
