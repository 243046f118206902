"""From a float file to an integer one: forms, masks, ranges, quantization, planting, in this order."""

from dataclasses import dataclass, field

import numpy as np

from tflite_export import convert, wide
from tflite_export.balance import balance
from tflite_export.biases import correct
from tflite_export.draft import Draft, layer_of
from tflite_export.exported import ReportRow
from tflite_export.folded import exact_biases
from tflite_export.integer_forms import around_kernels, lower, respell
from tflite_export.joins import hold, joined
from tflite_export.learned import (
    SAME_GRID,
    ahead,
    behind_parts,
    behind_pools,
    fixed,
    learned,
    pin,
    unranged,
    widen,
    without_pairs,
)
from tflite_export.masks import finite
from tflite_export.measure import ranges, runs, try_out
from tflite_export.patterns import drop_unused_codes
from tflite_export.plant import pack, plant
from tflite_export.recurrent import FUSED, settle, state_ranges
from tflite_export.roots import finer_roots
from tflite_export.source import Source
from tflite_export.spec import ExportSpec
from tflite_export.wide_normalizations import widen_normalizations
from tflite_export.wide_sums import widen_sums
from tflite_export.widening import float_constants

Samples = list[list[np.ndarray]]
Ranges = dict[int, tuple[float, float]]
_GENERATED = 64


@dataclass
class Measured:
    """A float file just before it becomes integers: operations respelt, the range of every tensor known.

    Attributes:
        draft: the float file.
        source: what it was converted from.
        samples: calibration data in the order of the file's inputs; empty where every range was learned.
        bits: of the activations.
        taught: in 16 bits the learned ranges, whose pairs were removed.
        known: learned ranges that stand in the draft.
        found: measured ranges, still to be written.
        lows: where the ranges of masked scores end below.
        pins: tensors whose grid must be that of their range, whatever reads them.
        notes: what the user should know.
    """

    draft: Draft
    source: Source
    samples: Samples
    bits: int
    taught: Ranges
    known: Ranges
    found: Ranges
    lows: dict[int, float]
    notes: list[str]
    pins: set[int] = field(default_factory=set)

    @property
    def learned(self) -> set[tuple[str, str]]:
        """Layer and operation of tensors whose range was learned, also of what only moves or chooses their numbers."""
        own = {*self.taught, *self.known}
        found = set()
        for op in self.draft.operators:
            if self.draft.kind(op) in SAME_GRID and op.inputs[0] in own:
                own.update(op.outputs)
            found |= {(layer_of(self.draft.name(i)), self.draft.kind(op)) for i in op.outputs if i in own}
        return found


def measure(draft: Draft, source: Source, samples: Samples | None, spec: ExportSpec) -> Measured:
    """Respells what has no integer form, and measures the ranges that were not learned.

    Args:
        draft: the float file; it is used up.
        source: what it was converted from.
        samples: calibration data in the order of the file's inputs; None: ranges must be learned.
        spec: precision and options.

    Raises:
        ValueError: ranges must be measured and there are no samples.
        ExportError: the runtime refuses the file.
    """
    bits = 16 if spec.precision == "int16x8" else 8
    notes = [f"the learned range of {name!r} has no width: it is [0, 1] in the file" for name in widen(draft)]
    if samples is None and (unranged(draft) or any(draft.kind(op) == FUSED for op in draft.operators)):
        samples = _generated(draft, spec.batch_size)
        notes.append(f"ranges of {len(unranged(draft))} inner tensors measured on generated samples; pass calibration=")
    taught = without_pairs(draft) if bits == 16 else {}
    respell(draft, samples, bits)
    lows, said = finite(draft, samples or [], taught)
    known = taught or {**ahead(draft), **learned(draft)}
    tensors = [index for index in unranged(draft) if index not in taught]
    found = ranges(draft, samples or [], tensors, spec.range_method, bits) if tensors else {}
    scores = [index for index in tensors if index in lows]  # a mask decides where they end, not how often it fires
    true = ranges(draft, samples or [], scores) if scores else {}
    found.update({index: (min(lows[index], 0.0), high) for index, (_, high) in true.items()})
    hold(draft, found)
    if bits == 8:
        balance(draft, found)
    return Measured(draft, source, samples or [], bits, taught, known, found, lows, notes + said)


def quantize(
    measured: Measured, spec: ExportSpec, original: Draft | None = None
) -> tuple[Draft, list[ReportRow], list[str]]:
    """Makes a file whose ranges are known compute in integers.

    Args:
        measured: of `measure`; it is used up.
        spec: precision and options.
        original: the float file, of `pairs.reference`, whose means the biases of an 8-bit file are corrected to, unless
            training has found its ranges and so its biases; None: they stay as they are.

    Returns:
        (the integer file, a row for each range and kernel, notes).

    Raises:
        ExportError: the converter or the runtime refuses the file.
    """
    draft, notes = measured.draft, list(measured.notes)
    rows = _write_ranges(measured)
    made, lost = plant(draft, measured.source.weights, measured.source.kernels)
    notes += [
        f"the integers of {weight!r} stand in no kernel of the file: the converter's own stand for it"
        for weight in lost
    ]
    make = convert.quantized_in_child if len(draft.model.subgraphs) > 1 else convert.quantized
    constants = float_constants(draft)
    result = Draft(make(draft.content(), spec.precision))
    lower(result)
    count = widen_normalizations(result, constants) if spec.normalizations == "int16" else 0
    if count:
        notes.append(f"{count} normalizations compute in 16 bits, without XNNPACK; normalizations='int8' is faster")
    widen_sums(result, constants)
    finer_roots(result)
    settle(result)
    wide.settle(result)
    exact_biases(result, measured.source.kernels)
    drop_unused_codes(result)
    if original is not None and measured.bits == 8 and not measured.learned:
        made += correct(original, result, measured.samples)
    if spec.int4 == "packed":
        notes += [
            f"4-bit kernel of {layer!r} stays one integer to a byte: TFLM runs it so only" for layer in pack(result)
        ]
    try_out(result, measured.samples[:1])
    return result, rows + made, notes


def _write_ranges(measured: Measured) -> list[ReportRow]:
    """Writes the range of every tensor that lacks one; a row for each range, learned or measured."""
    draft, bits = measured.draft, measured.bits
    pools = behind_pools(draft) if bits == 8 else {}
    pinned = behind_parts(draft) | around_kernels(draft) | set(pools) | measured.pins
    _write_states(draft, measured.samples, {**measured.known, **measured.found})
    found = {**measured.found, **measured.taught, **pools, **(joined(draft, measured.known) if bits == 8 else {})}
    if bits == 16:
        found = {**wide.joined(draft, found), **fixed(draft)}
        wide.constants(draft, found)
    for index, pair in found.items():
        if draft.is_constant(index):
            continue
        if bits == 16 or index in pinned:
            pin(draft, index, *pair, bits)
        else:
            draft.set_range(index, *pair)
    rows = [
        (layer_of(draft.name(i)), source)
        for pairs, source in ((measured.known, "learned"), (measured.found, "measured"))
        for i in pairs
    ]
    return [ReportRow(layer, "range", source) for layer, source in dict.fromkeys(rows)]


def _write_states(draft: Draft, samples: Samples, known: Ranges) -> None:
    """Writes the ranges of the states of fused LSTMs."""
    fused = [op for op in draft.operators if draft.kind(op) == FUSED]
    if fused:
        seen = list(runs(draft, samples, [op.inputs[0] for op in fused]))
        for op, sequences in zip(fused, zip(*seen, strict=True), strict=True):
            state_ranges(draft, op, sequences, known[op.outputs[0]])


def _generated(draft: Draft, batch_size: int) -> Samples:
    """Samples within the ranges that the inputs have learned: half uniform, half around the middle.

    Raises:
        ValueError: an input has no learned range, so nothing is known about it.
    """
    known = ahead(draft)
    if any(index not in known for index in draft.inputs):
        layers = list(dict.fromkeys(layer_of(draft.name(index)) for index in unranged(draft)))
        shown = ", ".join(map(repr, layers[:8])) + (f" and {len(layers) - 8} more" if len(layers) > 8 else "")
        raise ValueError(f"`calibration` is needed: the ranges of these layers' tensors were not learned: {shown}")
    rng = np.random.default_rng(0)
    samples: Samples = []
    for number in range(_GENERATED):
        sample = []
        for index in draft.inputs:
            low, high = known[index]
            shape = draft.tensors[index].shape
            if number % 2:
                values = rng.normal((low + high) / 2, (high - low) / 6, shape)
            else:
                values = rng.uniform(low, high, shape)
            sample.append(np.clip(values, low, high).astype(np.float32))
        samples.append(sample)
    return samples
