"""Operations that the runtime computes along the last axis only, put around with any axes."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.draft import Draft


def reduced_axes(draft: Draft, op: Any) -> list[int]:
    """The axes over which a MEAN, SUM or REDUCE_MAX goes, ascending; empty when they are no constant."""
    rank = len(draft.tensors[op.inputs[0]].shape)
    if not rank or not draft.is_constant(op.inputs[1]):
        return []
    return sorted({int(axis) % rank for axis in np.ravel(draft.value(op.inputs[1]))})


def along(draft: Draft, op: Any, source: int, axes: Sequence[int], kind: str, options: Callable[[], Any]) -> None:
    """`op` becomes an operation of `kind` on `source` over `axes`, which are laid last and joined for it.

    Args:
        draft: changed in place.
        op: the operation whose result is that of the new one; it has the shape of `source`.
        source: a float tensor.
        axes: ascending.
        kind: works along the last axis, such as "SOFTMAX".
        options: makes the schema's options of it.
    """
    shape, name = draft.tensors[source].shape, draft.name(op.outputs[0])
    rank = len(shape)
    if list(axes) == [rank - 1]:
        draft.become(op, kind, [source], options())
        return
    order = [*(axis for axis in range(rank) if axis not in axes), *axes]
    moved = order != sorted(order)
    size = [shape[axis] for axis in order]
    joined = [int(np.prod(size[: rank - len(axes)], dtype=int)), int(np.prod(size[rank - len(axes) :], dtype=int))]

    def step(step_kind: str, inputs: list[int], result_shape: Sequence[int], step_options: Any) -> int:
        result = draft.add_tensor(result_shape, "FLOAT32", f"{name}/{step_kind.lower()}_{len(draft.tensors)}")
        draft.insert(draft.place(op), step_kind, inputs, [result], step_options)
        return result

    def numbers(values: Sequence[int]) -> int:
        return draft.add_constant(np.array(values, np.int32), f"{name}/numbers")

    if moved:
        source = step("TRANSPOSE", [source, numbers(order)], size, schema.TransposeOptionsT())
    flat = step("RESHAPE", [source, numbers(joined)], joined, schema.ReshapeOptionsT(newShape=joined))
    done = step(kind, [flat], joined, options())
    if moved:
        back = step("RESHAPE", [done, numbers(size)], size, schema.ReshapeOptionsT(newShape=size))
        draft.become(op, "TRANSPOSE", [back, numbers(np.argsort(order).tolist())], schema.TransposeOptionsT())
    else:
        draft.become(op, "RESHAPE", [done, numbers(size)], schema.ReshapeOptionsT(newShape=size))
