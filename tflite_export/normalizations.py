"""Normalizations spelt so that 8 bits compute them well: layer, group, RMS and unit normalization, by Keras or by hand.

Two things are bad in integers as the converter leaves them.

    x s + (b - m s)              of large numbers a small difference, s = r g (root, weight)   ->  ((x - m) r) g + b
    mean of d d                  squares of all but the largest d round to zero                ->  d . d / n

The product d . d of a row with itself sums in 32 bits and rounds once.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.along_axis import reduced_axes
from tflite_export.draft import Draft
from tflite_export.patterns import maker, sweep

# So many squares of 8-bit differences fit a 32-bit sum.
_LONGEST = 16384
# (m, s, b) of b - m s, b None where there is none.
Offset = tuple[int, int, int | None]


def free_means(draft: Draft) -> None:
    """Takes the grid of its operand off a mean that learned none of its own: the converter hands it on.

    A mean is much narrower than what it is made of, and on that grid as good as lost.

    Args:
        draft: a float file, changed in place.
    """
    makers = draft.makers()
    for op in list(draft.operators):
        mean = makers.get(op.inputs[0]) if draft.kind(op) == "DEQUANTIZE" else None
        stored = None if mean is None or draft.kind(mean) != "QUANTIZE" else makers.get(mean.inputs[0])
        if stored is None or draft.kind(stored) != "MEAN" or stored.inputs[0] not in makers:
            continue
        before = makers[stored.inputs[0]]
        if draft.kind(before) == "DEQUANTIZE" and _same_grid(draft, before.inputs[0], op.inputs[0]):
            draft.replace_uses(op.outputs[0], stored.outputs[0])
    sweep(draft)


def _same_grid(draft: Draft, one: int, other: int) -> bool:
    left, right = draft.grid(one), draft.grid(other)
    if left is None or right is None or not np.array_equal(left.zeroPoint, right.zeroPoint):
        return False
    return np.allclose(left.scale, right.scale, rtol=1e-6, atol=0)


def center(draft: Draft) -> None:
    """Subtracts means before scaling, where a float file does it the other way round.

    Args:
        draft: changed in place; it computes the same.
    """
    for op in list(draft.operators):
        found = _uncentered(draft, op) if draft.kind(op) in ("ADD", "SUB") else None
        if found is None:
            continue
        x, mean, factor, offset = found
        activation = op.builtinOptions.fusedActivationFunction if op.builtinOptions else 0
        parts = _parts(draft, factor)
        value, name = difference(draft, x, mean), draft.name(op.outputs[0])
        last = [parts[-1]] if offset is None else []
        for number, part in enumerate(parts[: len(parts) - len(last)]):
            shape = np.broadcast_shapes(draft.tensors[value].shape, draft.tensors[part].shape)
            result = draft.add_tensor(shape, "FLOAT32", f"{name}/scaled_{number}")
            draft.insert(draft.place(op), "MUL", [value, part], [result], schema.MulOptionsT())
            value = result
        if offset is None:
            draft.become(op, "MUL", [value, *last], schema.MulOptionsT(fusedActivationFunction=activation))
        else:
            draft.become(op, "ADD", [value, offset], schema.AddOptionsT(fusedActivationFunction=activation))
    sweep(draft)


def _uncentered(draft: Draft, op: Any) -> tuple[int, int, int, int | None] | None:
    """(x, m, s, b) of x s + b - m s, b None where there is none."""
    makers = draft.makers()
    left, right = op.inputs
    pairs = [(left, right)] if draft.kind(op) == "SUB" else [(left, right), (right, left)]
    for scaled, rest in pairs:
        product = makers.get(scaled)
        if product is None or draft.kind(product) != "MUL" or rest not in makers:
            continue
        if draft.kind(op) == "SUB":
            found: list[Offset] = [(mean, factor, None) for mean, factor in _factors(draft, makers[rest])]
        else:
            found = _negated(draft, makers[rest])
        for mean, factor, offset in found:
            others = [x for x, other in _factors(draft, product) if other == factor and x != factor]
            if others and _is_mean(draft, mean) and _fits(draft, others[0], mean):
                return others[0], mean, factor, offset
    return None


def _factors(draft: Draft, op: Any) -> list[tuple[int, int]]:
    """Both orders of the operands of a product; none when it is something else."""
    if draft.kind(op) != "MUL" or (op.builtinOptions and op.builtinOptions.fusedActivationFunction):
        return []
    return [(op.inputs[0], op.inputs[1]), (op.inputs[1], op.inputs[0])]


def _negated(draft: Draft, op: Any) -> list[Offset]:
    """What `op` may be as b - m s: all (m, s, b), b None where there is none."""
    makers = draft.makers()
    kind, inputs = draft.kind(op), op.inputs
    if kind == "MUL":
        pairs = _factors(draft, op)
        negatives = [(makers[n].inputs[0], s) for n, s in pairs if n in makers and draft.kind(makers[n]) == "NEG"]
        return [(mean, factor, None) for mean, factor in negatives]
    if kind == "SUB" and draft.is_constant(inputs[0]) and inputs[1] in makers:
        offset = inputs[0] if np.any(draft.value(inputs[0])) else None
        return [(mean, factor, offset) for mean, factor in _factors(draft, makers[inputs[1]])]
    if kind == "ADD":
        for product, offset in (inputs, inputs[::-1]):
            if draft.is_constant(offset) and product in makers and draft.kind(makers[product]) == "MUL":
                return [(mean, factor, offset) for mean, factor, _ in _negated(draft, makers[product])]
    return []


def _is_mean(draft: Draft, index: int) -> bool:
    """Whether a tensor is a mean, or a sum times a constant."""
    made = draft.makers().get(index)
    while made is not None and draft.kind(made) in ("MUL", "RESHAPE"):
        made = draft.makers().get(made.inputs[0])
    return made is not None and draft.kind(made) in ("MEAN", "SUM")


def _fits(draft: Draft, x: int, mean: int) -> bool:
    shape = tuple(draft.tensors[x].shape)
    return np.broadcast_shapes(shape, tuple(draft.tensors[mean].shape)) == shape


def _parts(draft: Draft, factor: int) -> list[int]:
    """A factor that is a root times a weight as these two, in this order."""
    made = draft.makers().get(factor)
    if made is not None and draft.kind(made) == "MUL":
        for root, weight in _factors(draft, made):
            if draft.is_constant(weight):
                return [root, weight]
    return [factor]


def difference(draft: Draft, x: int, y: int) -> int:
    """x - y: the tensor that holds it, made where there is none."""
    for op in draft.operators:
        if draft.kind(op) == "SUB" and op.inputs == [x, y] and not op.builtinOptions.fusedActivationFunction:
            return op.outputs[0]
    made = [place for place, op in enumerate(draft.operators) if {x, y} & set(op.outputs)]
    shape = np.broadcast_shapes(tuple(draft.tensors[x].shape), tuple(draft.tensors[y].shape))
    result = draft.add_tensor(shape, "FLOAT32", f"{draft.name(y)}/sub")
    draft.insert(max(made, default=-1) + 1, "SUB", [x, y], [result], schema.SubOptionsT())
    return result


def sum_squares(draft: Draft) -> None:
    """Sums and means of squares as products of rows with themselves.

    Args:
        draft: a float file, changed in place; it computes the same.
    """
    for op in list(draft.operators):
        axes = reduced_axes(draft, op) if draft.kind(op) in ("MEAN", "SUM") else []
        root = _root(draft, op.inputs[0]) if axes else None
        if root is not None and draft.tensors[root].shape == draft.tensors[op.inputs[0]].shape:
            _dot(draft, op, root, axes)
    sweep(draft)


def _root(draft: Draft, index: int) -> int | None:
    """d of d d, also where a learned range stands behind it."""
    made = maker(draft, index, draft.makers(), "SQUARE", "MUL", "SQUARED_DIFFERENCE")
    if made is None or not draft.is_float(made.outputs[0]):
        return None
    kind, inputs = draft.kind(made), made.inputs
    if kind == "SQUARE" or (kind == "MUL" and inputs[0] == inputs[1]):
        return inputs[0]
    return difference(draft, *inputs) if kind == "SQUARED_DIFFERENCE" else None


def _dot(draft: Draft, op: Any, root: int, axes: Sequence[int]) -> None:
    """`op` over `axes` of the squares of `root` becomes rows times themselves."""
    shape, name = draft.tensors[root].shape, draft.name(op.outputs[0])
    kept = [axis for axis in range(len(shape)) if axis not in axes]
    length = int(np.prod([shape[axis] for axis in axes]))
    part = max(size for size in range(1, min(length, _LONGEST) + 1) if length % size == 0)
    rows = int(np.prod([shape[axis] for axis in kept], dtype=int))

    def step(kind: str, inputs: list[int], size: Sequence[int], options: Any) -> int:
        result = draft.add_tensor(size, "FLOAT32", f"{name}/{kind.lower()}_{len(draft.tensors)}")
        draft.insert(draft.place(op), kind, inputs, [result], options)
        return result

    def reshape(index: int, size: Sequence[int]) -> int:
        target = draft.add_constant(np.array(size, np.int32), f"{name}/shape")
        return step("RESHAPE", [index, target], size, schema.ReshapeOptionsT(newShape=list(size)))

    order = [*kept, *axes]
    if order != sorted(order):
        permutation = draft.add_constant(np.array(order, np.int32), f"{name}/permutation")
        size = [shape[axis] for axis in order]
        root = step("TRANSPOSE", [root, permutation], size, schema.TransposeOptionsT())
    lines = rows * length // part
    flat = reshape(root, [lines, 1, part])
    total = step("BATCH_MATMUL", [flat, flat], [lines, 1, 1], schema.BatchMatMulOptionsT(adjX=False, adjY=True))
    count = 1.0 if draft.kind(op) == "SUM" else 1.0 / length
    if part < length:
        total = reshape(total, [rows, length // part])
        last = draft.add_constant(np.array([1], np.int32), f"{name}/axis")
        total = step("MEAN", [total, last], [rows, 1], schema.ReducerOptionsT(keepDims=True))
        count *= length // part
    total = reshape(total, draft.tensors[op.outputs[0]].shape)
    factor = draft.add_constant(np.float32(count), f"{name}/count")
    draft.become(op, "MUL", [total, factor], schema.MulOptionsT())
