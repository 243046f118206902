"""Reciprocal square roots of 16-bit numbers over four decades.

The kernel draws straight lines between the values at multiples of 128, which lie above a curve that is bent as this
one: from 384 on by less than 1 %, below far above. Of the root on the grid and that on one 64 times as fine, which
stops at its last number and is too large from there on, the smaller is right:

    r = min(rsqrt(x), rsqrt(min(x, last / 64)))
"""

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.draft import Draft

_FINER = 64


def finer_roots(draft: Draft) -> None:
    """Adds the second root to every 16-bit RSQRT.

    Args:
        draft: an integer file, changed in place.
    """
    for op in list(draft.operators):
        if draft.kind(op) != "RSQRT" or draft.type(op.outputs[0]) != "INT16":
            continue
        (source,), (result,) = op.inputs, op.outputs
        shape, name, place = draft.tensors[source].shape, draft.name(result), draft.place(op)
        scale = np.array([draft.grid(source).scale[0] / _FINER], np.float32)
        grid = schema.QuantizationParametersT(scale=scale, zeroPoint=np.zeros(1, np.int64))
        fine = draft.add_tensor(shape, "INT16", f"{name}/fine", quantization=grid)
        small, large = (
            draft.add_tensor(shape, "INT16", f"{name}/{part}", quantization=draft.grid(result))
            for part in ("small", "large")
        )
        draft.insert(place, "QUANTIZE", [source], [fine], schema.QuantizeOptionsT(), version=2)
        draft.insert(place + 1, "RSQRT", [fine], [small], version=2)
        draft.insert(place + 2, "RSQRT", [source], [large], version=2)
        draft.become(op, "MINIMUM", [small, large], schema.MaximumMinimumOptionsT(), version=2)
