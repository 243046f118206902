"""Our integers in the file: kernels that lie on a grid are written as integers, 4-bit ones two to a byte."""

from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfcompress.core.grid import IntegerWeight
from tflite_export.draft import Draft, layer_of
from tflite_export.exported import ReportRow
from tflite_export.folded import Folded, exact_scale
from tflite_export.kernels import CHANNEL_AXES, Codes, Integers
from tflite_export.recurrent import FUSED, KERNELS

# Where an operation has its kernel, and the kernel's channel axis; None: the file allows one scale only.
PLACES: dict[str, tuple[tuple[int, ...], int | None]] = {
    **{kind: ((1,), axis) for kind, axis in CHANNEL_AXES.items()},
    "TRANSPOSE_CONV": ((1,), 0),
    "GATHER": ((0,), None),
    "BATCH_MATMUL": ((0, 1), None),
    FUSED: (tuple(KERNELS), None),
}


def plant(
    draft: Draft, weights: Sequence[IntegerWeight], kernels: Sequence[Folded] = ()
) -> tuple[list[ReportRow], list[str]]:
    """Writes the integers of every kernel that lies on a grid into a float file, a DEQUANTIZE behind each.

    The converter keeps an integer constant that is dequantized as it is, with its scales; every other kernel gets the
    converter's own 8-bit codes.

    Args:
        draft: the float file, changed in place.
        weights: the integers of the model's weights.
        kernels: those of its kernels whose scales the file is to hold to the last bit.

    Returns:
        (a row for each kernel, the model's weights that were not found in the file).
    """
    integers, rows, done, tied = Integers(weights), [], {}, _looked_up(draft)
    for op in list(draft.operators):
        places, axis = PLACES.get(draft.kind(op), ((), None))
        for place in places:
            index = op.inputs[place]
            if not draft.is_float(index) or not draft.is_constant(index):
                continue
            if (index, axis) not in done:
                codes = integers.match(draft.value(index), axis)
                if codes is None and draft.kind(op) in ("GATHER", "FULLY_CONNECTED"):
                    codes = tied.get(draft.value(index).tobytes())
                codes = None if codes is None else exact_scale(codes, kernels, axis)
                done[index, axis] = index if codes is None else _dequantized(draft, index, axis, codes)
                detail = (
                    "8 bits, by the converter" if codes is None else f"{codes.bits} bits of {codes.source}, planted"
                )
                rows.append(ReportRow(layer_of(draft.name(index)), "kernel", detail))
            op.inputs[place] = done[index, axis]
            if draft.kind(op) == "GATHER" and op.inputs[place] != index:
                draft.tensors[op.outputs[0]].quantization = None  # rows of a table have the table's grid
    return rows, integers.lost()


def _looked_up(draft: Draft) -> dict[bytes, Codes]:
    """Tables that are looked up and are the matrix of a product as well -> codes of one scale, so that both can share
    them: a look-up has no other, and of its own the product would get a scale for each row."""
    places = {kind: [op.inputs[PLACES[kind][0][0]] for op in draft.operators if draft.kind(op) == kind]
              for kind in ("GATHER", "FULLY_CONNECTED")}  # fmt: skip
    gathered, multiplied = (
        {draft.value(i).tobytes(): i for i in indices if draft.is_float(i) and draft.is_constant(i)}
        for indices in places.values()
    )
    found = {}
    for content in gathered.keys() & multiplied.keys():
        values = draft.value(gathered[content])
        scale = max(float(np.abs(values).max(initial=0.0)) / 127, 1e-12)
        codes = np.round(values / scale).astype(np.int8)
        found[content] = Codes(codes, np.array([scale], np.float32), 8, "the table that is looked up")
    return found


def planted(draft: Draft) -> set[int]:
    """Results of DEQUANTIZE of a constant."""
    return {
        op.outputs[0] for op in draft.operators if draft.kind(op) == "DEQUANTIZE" and draft.is_constant(op.inputs[0])
    }


def pack(draft: Draft) -> list[str]:
    """Stores kernels whose integers all fit 4 bits as INT4, two to a byte, the first in the low half.

    Only where every kernel set runs it: TFLM has no packed FULLY_CONNECTED with a scale for each channel.

    Args:
        draft: an integer file, changed in place.

    Returns:
        Layers whose 4-bit kernel stays one integer to a byte for that reason.
    """
    left = []
    readers = draft.users()
    for op in draft.operators:
        if draft.kind(op) not in CHANNEL_AXES:
            continue
        index = op.inputs[1]
        if draft.type(index) != "INT8" or not draft.is_constant(index):
            continue
        codes = draft.value(index)
        if np.abs(codes.astype(np.int16)).max(initial=0) > 7:
            continue
        if draft.kind(op) == "FULLY_CONNECTED" and np.size(draft.grid(index).scale) > 1:
            left.append(draft.layer(op))
        elif all(draft.kind(reader) in CHANNEL_AXES for reader in readers[index]):
            draft.set_bytes(index, nibbles(codes), "INT4")
    return left


def nibbles(codes: np.ndarray) -> np.ndarray:
    """4-bit integers two to a byte.

    >>> [hex(b) for b in nibbles(np.array([1, -1, 7], "int8"))]
    ['0xf1', '0x7']
    """
    flat = codes.astype(np.uint8).ravel() & 15
    flat = np.append(flat, np.zeros(flat.size % 2, np.uint8))
    return flat[0::2] | (flat[1::2] << 4)


def _dequantized(draft: Draft, index: int, axis: int | None, codes: Codes) -> int:
    """A DEQUANTIZE of the codes, in front of everything; its result stands for the kernel."""
    quantization = schema.QuantizationParametersT(
        scale=codes.scale, zeroPoint=np.zeros(codes.scale.size, np.int64), quantizedDimension=axis or 0
    )
    stored = draft.add_constant(codes.codes, draft.name(index), quantization=quantization)
    real = draft.add_tensor(codes.codes.shape, "FLOAT32", draft.name(index) + "_real")
    draft.insert(0, "DEQUANTIZE", [stored], [real], schema.DequantizeOptionsT(), version=2)
    return real
