"""Finding one's way in a float file: what made a tensor, seen through learned ranges."""

from typing import Any

from tflite_export.draft import Draft

_PAIR = ("QUANTIZE", "DEQUANTIZE")


def behind_pairs(draft: Draft, index: int, makers: dict[int, Any]) -> int:
    """The tensor in front of the QUANTIZE and DEQUANTIZE that made a tensor; itself where none did."""
    while index in makers and draft.kind(makers[index]) in _PAIR and not draft.is_constant(makers[index].inputs[0]):
        index = makers[index].inputs[0]
    return index


def maker(draft: Draft, index: int, makers: dict[int, Any], *kinds: str) -> Any:
    """The operation of one of the kinds that made a tensor, learned ranges between them or not; else None."""
    op = makers.get(behind_pairs(draft, index, makers))
    return op if op is not None and draft.kind(op) in kinds else None


def swapped(op: Any) -> list[tuple[int, int]]:
    """Both orders of the two operands."""
    return [(op.inputs[0], op.inputs[1]), (op.inputs[1], op.inputs[0])]


def activation(op: Any) -> int:
    """The number of the activation that an operation ends in, 0 for none."""
    return int(getattr(op.builtinOptions, "fusedActivationFunction", 0) or 0)


def scalar(draft: Draft, index: int) -> float | None:
    """The value of a float constant of one element, else None."""
    if not draft.is_float(index) or not draft.is_constant(index):
        return None
    value = draft.value(index)
    return float(value.ravel()[0]) if value.size == 1 else None


def sweep(draft: Draft) -> None:
    """Takes out operations whose results nothing reads."""
    while True:
        used = {*draft.outputs, *(i for op in draft.operators for i in op.inputs)}
        kept = [op for op in draft.operators if not op.outputs or used.intersection(op.outputs)]
        if len(kept) == len(draft.operators):
            return
        draft.graph.operators = kept


def drop_unused_codes(draft: Draft) -> None:
    """Takes out the operation codes that no operator has: a runtime refuses a file for one that it does not know."""
    operators = [op for graph in draft.model.subgraphs for op in graph.operators]
    used = sorted({op.opcodeIndex for op in operators})
    draft.model.operatorCodes = [draft.model.operatorCodes[index] for index in used]
    for op in operators:
        op.opcodeIndex = used.index(op.opcodeIndex)
