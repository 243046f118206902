"""What still computes in float in an integer file."""

from tflite_export.draft import Draft

_FLOATS = frozenset({"FLOAT32", "FLOAT16", "FLOAT64"})


def float_operations(draft: Draft) -> list[str]:
    """Operations that read or make float values, each with the layer it came from; a QUANTIZE or DEQUANTIZE at the
    boundary of the file is none."""
    ends = {*draft.inputs, *draft.outputs}
    found = []
    for op in draft.operators:
        floats = [i for i in (*op.inputs, *op.outputs) if i >= 0 and draft.type(i) in _FLOATS]
        if floats and not (draft.kind(op) in ("QUANTIZE", "DEQUANTIZE") and ends.intersection(floats)):
            found.append(f"{draft.kind(op)} in {draft.layer(op)!r}")
    return list(dict.fromkeys(found))
