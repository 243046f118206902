"""What the runtime has an operation for, written by hand: softmax, unit length, GELU.

exp(x - m) / sum(exp(x - m))          SOFTMAX(x), whatever m is
exp(x - logsumexp(x))                 SOFTMAX(x)
x - logsumexp(x)                      LOG_SOFTMAX(x)
x * rsqrt(sum(x x))                   L2_NORMALIZATION(x)
x * (1 + erf(x / sqrt(2)))            2 GELU(x)
"""

import math
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.along_axis import along, reduced_axes
from tflite_export.draft import Draft
from tflite_export.patterns import activation, behind_pairs, maker, scalar, swapped, sweep

# The 8-bit result of L2_NORMALIZATION has the step 1 / 128: too coarse for a row of more elements.
_LONGEST_UNIT = 128
_TINY = 1e-5


def recognize(draft: Draft) -> None:
    """Puts the runtime's operation where a file spells it out.

    Args:
        draft: a float file, changed in place; it computes the same.
    """
    for op in list(draft.operators):
        for found in (_softmax, _log_softmax, _unit):
            if found(draft, op):
                break
    sweep(draft)
    for op in list(draft.operators):
        _exp_of_log_softmax(draft, op)
    sweep(draft)


def _softmax(draft: Draft, op: Any) -> bool:
    """exp(x - m) / sum(exp(x - m))"""
    if draft.kind(op) != "DIV" or activation(op):
        return False
    makers = draft.makers()
    exp, total = maker(draft, op.inputs[0], makers, "EXP"), maker(draft, op.inputs[1], makers, "SUM")
    if exp is None or total is None or behind_pairs(draft, total.inputs[0], makers) != exp.outputs[0]:
        return False
    axes = reduced_axes(draft, total)
    if not axes or not _keeps(draft, total):
        return False
    along(draft, op, _shifted(draft, exp, axes), axes, "SOFTMAX", lambda: schema.SoftmaxOptionsT(beta=1.0))
    return True


def _shifted(draft: Draft, exp: Any, axes: list[int]) -> int:
    """x of exp(x - m) where m is one number for all that is summed; else x - m."""
    makers = draft.makers()
    shift = maker(draft, exp.inputs[0], makers, "SUB")
    if shift is None or activation(shift):
        return exp.inputs[0]
    x, m = shift.inputs
    shape = [1] * len(draft.tensors[x].shape)
    known = draft.tensors[m].shape
    if known:
        shape[-len(known) :] = known
    fits = len(known) <= len(shape) and all(shape[axis] == 1 for axis in axes)
    return x if fits and draft.tensors[x].shape == draft.tensors[exp.inputs[0]].shape else exp.inputs[0]


def _keeps(draft: Draft, op: Any) -> bool:
    """Whether a sum keeps its axes with size 1."""
    return len(draft.tensors[op.inputs[0]].shape) == len(draft.tensors[op.outputs[0]].shape)


def _log_softmax(draft: Draft, op: Any) -> bool:
    """x - (log(sum(exp(x - m))) + m)"""
    if draft.kind(op) != "SUB" or activation(op):
        return False
    makers = draft.makers()
    total = maker(draft, op.inputs[1], makers, "ADD")
    for part, m in swapped(total) if total is not None and not activation(total) else ():
        log = maker(draft, part, makers, "LOG")
        summed = None if log is None else maker(draft, log.inputs[0], makers, "SUM")
        exp = None if summed is None else maker(draft, summed.inputs[0], makers, "EXP")
        shift = None if exp is None else maker(draft, exp.inputs[0], makers, "SUB")
        if shift is None or not _keeps(draft, summed):
            continue
        x, other = (behind_pairs(draft, i, makers) for i in shift.inputs)
        axes = reduced_axes(draft, summed)
        if x == behind_pairs(draft, op.inputs[0], makers) and other == behind_pairs(draft, m, makers) and axes:
            along(draft, op, op.inputs[0], axes, "LOG_SOFTMAX", schema.LogSoftmaxOptionsT)
            return True
    return False


def _exp_of_log_softmax(draft: Draft, op: Any) -> None:
    """exp(log_softmax(x)), also behind the operations that lay axes around."""
    if draft.kind(op) != "EXP":
        return
    makers = draft.makers()
    passed, inner = [], makers.get(behind_pairs(draft, op.inputs[0], makers))
    while inner is not None and draft.kind(inner) in ("TRANSPOSE", "RESHAPE"):
        passed.append(inner)
        inner = makers.get(behind_pairs(draft, inner.inputs[0], makers))
    if inner is None or draft.kind(inner) != "LOG_SOFTMAX":
        return
    options = schema.SoftmaxOptionsT(beta=1.0)
    if not passed:
        draft.become(op, "SOFTMAX", [inner.inputs[0]], options)
        return
    value = draft.add_tensor(draft.tensors[inner.outputs[0]].shape, "FLOAT32", draft.name(op.outputs[0]) + "/softmax")
    draft.insert(draft.place(op), "SOFTMAX", [inner.inputs[0]], [value], options)
    for step in reversed(passed[1:]):
        result = draft.add_tensor(draft.tensors[step.outputs[0]].shape, "FLOAT32", draft.name(value) + "_moved")
        draft.insert(draft.place(op), draft.kind(step), [value, step.inputs[1]], [result], step.builtinOptions)
        value = result
    draft.become(op, draft.kind(passed[0]), [value, passed[0].inputs[1]], passed[0].builtinOptions)


def _unit(draft: Draft, op: Any) -> bool:
    """x * rsqrt(sum(x x)), a tiny number added to the sum or not"""
    if draft.kind(op) != "MUL" or activation(op):
        return False
    makers = draft.makers()
    for x, factor in swapped(op):
        root = _past_limit(draft, factor, makers, "MINIMUM", 1 / _TINY)
        root = None if root is None else maker(draft, root, makers, "RSQRT")
        inner = None if root is None else _past_limit(draft, root.inputs[0], makers, "MAXIMUM ADD", _TINY)
        total = None if inner is None else maker(draft, inner, makers, "SUM")
        square = None if total is None else maker(draft, total.inputs[0], makers, "SQUARE", "MUL")
        if square is None or square.inputs[0] != square.inputs[-1] or not _keeps(draft, total):
            continue
        axes, shape = reduced_axes(draft, total), draft.tensors[x].shape
        same = behind_pairs(draft, square.inputs[0], makers) == behind_pairs(draft, x, makers)
        if same and axes and int(np.prod([shape[axis] for axis in axes])) <= _LONGEST_UNIT:
            along(draft, op, x, axes, "L2_NORMALIZATION", schema.L2NormOptionsT)
            return True
    return False


def _past_limit(draft: Draft, index: int, makers: dict[int, Any], kinds: str, limit: float) -> int | None:
    """The operand of a bound that guards against division by zero only; the tensor itself where there is no bound."""
    op = maker(draft, index, makers, *kinds.split())
    if op is None or activation(op):
        return index
    for x, other in swapped(op):
        bound = scalar(draft, other)
        if bound is not None:
            harmless = bound >= limit if kinds == "MINIMUM" else 0 <= bound <= limit
            return x if harmless else None
    return index


def gelus(draft: Draft) -> None:
    """x * (1 + erf(x / sqrt(2))) by hand as GELU: the runtime has no error function.

    Args:
        draft: a float file with custom operations for what the runtime does not have; changed in place.
    """
    for op in list(draft.operators):
        if draft.kind(op) == "Erf":
            _gelu(draft, op)
    sweep(draft)


def _gelu(draft: Draft, erf: Any) -> None:
    makers, users = draft.makers(), draft.users()
    x = _scaled(draft, erf.inputs[0], makers, math.sqrt(0.5))
    adds = [op for op in _readers(draft, erf.outputs[0], users) if draft.kind(op) == "ADD" and not activation(op)]
    if x is None or len(adds) != 1 or all(scalar(draft, i) != 1.0 for i in adds[0].inputs):
        return
    value, factor = adds[0].outputs[0], 1.0
    for _ in range(2):
        readers = _readers(draft, value, users)
        if len(readers) != 1 or draft.kind(readers[0]) != "MUL" or activation(readers[0]):
            return
        product = readers[0]
        other = product.inputs[1] if behind_pairs(draft, product.inputs[0], makers) == value else product.inputs[0]
        number = scalar(draft, other)
        if number is None:
            break
        value, factor = product.outputs[0], factor * number
    half = maker(draft, other, makers, "MUL")
    if behind_pairs(draft, other, makers) != x:
        numbers = [(scalar(draft, b), a) for a, b in swapped(half)] if half is not None else []
        found = [number for number, a in numbers if number is not None and behind_pairs(draft, a, makers) == x]
        if not found:
            return
        factor *= found[0]
    name = draft.name(product.outputs[0])
    options = schema.GeluOptionsT(approximate=False)
    if abs(2 * factor - 1) < 1e-6:
        draft.become(product, "GELU", [x], options)
        return
    result = draft.add_tensor(draft.tensors[x].shape, "FLOAT32", f"{name}/gelu")
    draft.insert(draft.place(product), "GELU", [x], [result], options)
    constant = draft.add_constant(np.float32(2 * factor), f"{name}/factor")
    draft.become(product, "MUL", [result, constant], schema.MulOptionsT())


def _scaled(draft: Draft, index: int, makers: dict[int, Any], factor: float) -> int | None:
    """x of x * factor, or of x / (1 / factor)."""
    op = maker(draft, index, makers, "MUL", "DIV")
    for x, other in swapped(op) if op is not None else ():
        number = scalar(draft, other)
        if number is not None and (draft.kind(op) == "MUL" or x == op.inputs[0]):
            number = number if draft.kind(op) == "MUL" else 1 / number
            return behind_pairs(draft, x, makers) if abs(number - factor) < 1e-5 else None
    return None


def _readers(draft: Draft, index: int, users: dict[int, list[Any]]) -> list[Any]:
    """Operations that read a tensor, at once or behind learned ranges."""
    found = []
    for op in users.get(index, []):
        pair = draft.kind(op) in ("QUANTIZE", "DEQUANTIZE")
        found += _readers(draft, op.outputs[0], users) if pair else [op]
    return found
