"""Biases that take back what rounding shifted: a channel's mean in integers becomes its mean in float.

Rounded weights and activations shift the mean of a channel; over depth such shifts add up. For a channel c

    b_c <- b_c - E[ y_integer - y_float ] / (s_input * s_weight,c)

over the calibration data, layer by layer from the input on, since what a layer reads changes with those before it.

Source: Nagel et al. 2019, Data-free quantization through weight equalization and bias correction, arXiv:1906.04721,
section 4.2, in its empirical form (appendix D).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.description import describe
from tflite_export.draft import Draft
from tflite_export.exported import ReportRow
from tflite_export.kernels import CHANNEL_AXES
from tflite_export.measure import runs
from tflite_export.pairs import Pair, grid_of, matched

Samples = Sequence[Sequence[np.ndarray]]
# Calibration rows that means are taken over, fewer where that many runs take more multiply-accumulates than this (half
# a minute); and how often the integer file is run over them.
_ROWS, _FEWEST, _WORK, _PASSES = 128, 16, 4e11, 12
# A channel of a clipping activation moves its mean by this share of a bias at least.
_ACTIVE = 0.25


@dataclass(frozen=True)
class _Layer:
    """A kernel's operation in the integer file, with its bias and the pair of its result."""

    pair: Pair
    bias: int
    step: np.ndarray
    name: str


def correct(reference: Draft, integer: Draft, samples: Samples) -> list[ReportRow]:
    """Shifts the biases of an integer file until the means of its channels are those of the float file.

    Where the outputs do not come nearer to the float ones by it, the file stays as it was.

    Args:
        reference: the float file, of `pairs.reference`.
        integer: the 8-bit file, changed in place.
        samples: calibration data in the order of the inputs.

    Returns:
        A row for each layer; none where nothing was changed.

    Raises:
        ExportError: the runtime refuses a file.
    """
    macs = describe(integer.content()).macs()
    rows = int(np.clip(_WORK / (_PASSES * max(macs, 1)), _FEWEST, _ROWS))
    samples = samples[:: max(1, len(samples) // rows)][:rows]
    layers = _layers(reference, integer)
    ends = [pair for pair in matched(reference, integer) if pair.last]
    if not layers or not samples or not ends:
        return []
    expected = _expected(reference, samples, layers)
    true = list(runs(reference, samples, [pair.reference for pair in ends]))
    before = {layer.bias: integer.value(layer.bias).copy() for layer in layers}
    error = _error(integer, samples, ends, true)
    portion = -(-len(layers) // _PASSES)
    for start in range(0, len(layers), portion):
        _shift(integer, samples, layers[start : start + portion], expected)
    if _error(integer, samples, ends, true) < error:
        return [ReportRow(layer.name, "bias", "corrected by the mean of its rounding errors") for layer in layers]
    for index, value in before.items():
        integer.set_value(index, value)
    return []


def _layers(reference: Draft, integer: Draft) -> list[_Layer]:
    """Operations with a kernel whose result is in both files, in order; each has a bias of its own."""
    pairs = {pair.integer: pair for pair in matched(reference, integer)}
    readers, found = integer.users(), []
    for op in integer.operators:
        kind = integer.kind(op)
        pair = pairs.get(op.outputs[0]) if kind in CHANNEL_AXES and integer.type(op.outputs[0]) == "INT8" else None
        scales = _scales(integer, op) if pair is not None else None
        if pair is None or scales is None:
            continue
        step = float(grid_of(integer, op.inputs[0]).scale[0]) * scales  # type: ignore[union-attr]
        if len(op.inputs) < 3 or op.inputs[2] < 0:
            zeros, name = np.zeros(integer.tensors[op.outputs[0]].shape[-1], np.int32), integer.name(op.inputs[1])
            nulls = np.zeros(step.size, np.int64)
            grid = schema.QuantizationParametersT(scale=step.astype(np.float32), zeroPoint=nulls)
            op.inputs = [*op.inputs[:2], integer.add_constant(zeros, f"{name}/bias", quantization=grid)]
        bias = op.inputs[2]
        if integer.is_constant(bias) and integer.type(bias) == "INT32" and len(readers.get(bias, [op])) == 1:
            found.append(_Layer(pair, bias, step, integer.layer(op)))
    return found


def _scales(integer: Draft, op: Any) -> np.ndarray | None:
    """Steps of a constant kernel, one or one a channel; None for another kernel or an input without a grid."""
    source, kernel = op.inputs[:2]
    if grid_of(integer, source) is None or not integer.is_constant(kernel):
        return None
    grid = integer.grid(kernel) if integer.type(kernel) in ("INT8", "INT4") else None
    return None if grid is None else np.asarray(grid.scale, np.float64)


def _expected(reference: Draft, samples: Samples, layers: Sequence[_Layer]) -> dict[int, np.ndarray]:
    """Tensor of the float file -> mean of each channel."""
    tensors = [layer.pair.reference for layer in layers]
    totals = [np.float64(0)] * len(tensors)
    for values in runs(reference, samples, tensors):
        pairs = zip(totals, values, strict=True)
        totals = [total + value.reshape(-1, value.shape[-1]).mean(0) for total, value in pairs]
    return {tensor: total / len(samples) for tensor, total in zip(tensors, totals, strict=True)}


def _shift(integer: Draft, samples: Samples, layers: Sequence[_Layer], expected: dict[int, np.ndarray]) -> None:
    """Takes the mean error of some layers' channels off their biases."""
    tensors = [layer.pair.integer for layer in layers]
    means, active = [np.float64(0)] * len(tensors), [np.float64(0)] * len(tensors)
    for values in runs(integer, samples, tensors):
        for place, (tensor, codes) in enumerate(zip(tensors, values, strict=True)):
            rows = codes.reshape(-1, codes.shape[-1])
            means[place] = means[place] + grid_of(integer, tensor).real(rows).mean(0)  # type: ignore[union-attr]
            active[place] = active[place] + ((rows > rows.min()) & (rows < 127)).mean(0)
    for layer, mean, share in zip(layers, means, active, strict=True):
        error = mean / len(samples) - expected[layer.pair.reference]
        change = error / np.maximum(share / len(samples), _ACTIVE)
        value = integer.value(layer.bias).astype(np.float64) - change / layer.step
        limits = np.iinfo(np.int32)
        integer.set_value(layer.bias, np.clip(np.round(value), limits.min, limits.max).astype(np.int32))


def _error(integer: Draft, samples: Samples, ends: Sequence[Pair], true: Sequence[Sequence[np.ndarray]]) -> float:
    """Squared error of the outputs, each relative to how much it varies."""
    total = 0.0
    spread = [np.concatenate([np.ravel(values[n]) for values in true]).var() + 1e-12 for n in range(len(ends))]
    for expected, got in zip(true, runs(integer, samples, [pair.integer for pair in ends]), strict=True):
        for pair, one, other, width in zip(ends, expected, got, spread, strict=True):
            real = grid_of(integer, pair.integer).real(other)  # type: ignore[union-attr]
            total += float(np.mean((real.reshape(one.shape) - one) ** 2) / width)
    return total / len(samples)
