"""A Keras model becomes a `.tflite` file: converted, its ranges measured, its integers planted."""

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tflite_export import boundary, calibration, states
from tflite_export.collapse import Collapse, by_training, collapses, shown
from tflite_export.draft import Draft
from tflite_export.errors import ExportError
from tflite_export.exported import Exported, Report, ReportRow
from tflite_export.integers import measure, quantize
from tflite_export.leftovers import float_operations
from tflite_export.original import floating
from tflite_export.pairs import reference
from tflite_export.signatures import Shapes, by_signature, merged, planned
from tflite_export.source import Source, source_of
from tflite_export.sparse_file import sparse_notes, sparse_rows
from tflite_export.spec import ExportSpec


def export(
    model: Any,
    precision: str = "float32",
    *,
    calibration: Any = None,
    inputs: str = "float32",
    outputs: str = "float32",
    batch_size: int = 1,
    allow_float: bool = False,
    allow_collapse: bool = False,
    range_method: str = "minmax",
    int4: str = "packed",
    normalizations: str = "int16",
    sparse: bool = False,
    signature: str = "serving_default",
    shapes: Mapping[str, Sequence[int]] | None = None,
    signatures: Mapping[str, Shapes] | None = None,
) -> Exported:
    """Converts a Keras model to a `.tflite` file.

    Ranges that a quantized model has learned reach an integer file to the digit, and so do the integers of its weights.
    Every other range is the true one of that tensor over the calibration data.

    Args:
        model: a built Keras model, float or quantized by `tfcompress`; it is not changed.
        precision: "float32"; "float16" (constants in half precision); "dynamic" (kernels in 8 bits, the rest float);
            "int8" (everything in 8 bits); "int16x8" (activations in 16 bits, kernels in 8).
        calibration: representative data for integer files: an array [N, ...], a list or dict of arrays for several
            inputs, a `tf.data.Dataset`, a generator of batches, or a function that returns one. At most 512 rows are
            used. Not needed where every range was learned.
        inputs: "float32", or the integers themselves: "int8" or "uint8" for int8, "int16" for int16x8.
        outputs: likewise.
        batch_size: rows in one run of the file; fixed.
        allow_float: accept operations that have no integer form; they are listed in the report.
        allow_collapse: accept tensors that do not hold in integers what they hold in float (almost no different value
            is left, they are stuck at the ends of their range, a softmax does not follow), as 16 rows of `calibration`
            show; they are listed in the report. Where all of it follows from a range that training has learned and no
            softmax is lost, it is a warning.
        range_method: how a measured range is chosen: "minmax", "percentile", "mse" or "entropy".
        int4: "packed" stores kernels of at most 4 bits two to a byte where the operation runs that, "unpacked" one to
            a byte, the same integers.
        normalizations: what layer, group, RMS and unit normalization compute in between their rows and their result, in
            an int8 file: "int16" follows the model, "int8" rounds every step in between and is several times as fast
            on XNNPACK, which has no 16-bit kernels.
        sparse: store kernels of a float32 file without their zeros, where there are many. ARM and WebAssembly run 1x1
            convolutions of some networks so, and faster; the report says for each whether they do and why not. The
            outputs are compared on the WebAssembly runtime where that is installed (`tflite-export doctor`).
        signature: key of the file's signature; its names are those of the Keras inputs and outputs.
        shapes: shape without batch of inputs that the model leaves open, by name, such as {"tokens": (64,)}.
        signatures: several signatures of the model in one file, each with shapes of its own beside those of `shapes`:
            {"prefill": {"tokens": (64,)}, "decode": {"tokens": (1,)}}. Weights are stored once, and `calibration` is a
            dict by signature. An output that has the name of an input and rows of its size is a state: it has
            the same grid as output and as input, in every signature, so that its integers can be handed on.

    Returns:
        The file and a report of where its numbers come from.

    Raises:
        ValueError: a wrong argument; ranges to measure and no `calibration`; weights that are not finite.
        TypeError: no Keras model, or one of the other flavor.
        ExportError: the converter refuses, or a float operation would be left, or tensors collapse; the message names
            them and their layers. Or a runtime that runs the sparse kernels computes something else than the file says.

    >>> from tfcompress.core.flavor import keras
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> export(model, "int8", calibration=np.random.default_rng(0).normal(size=(8, 4))).report.precision
    'int8'
    """
    begin = time.perf_counter()
    spec = ExportSpec(
        precision, inputs, outputs, batch_size, allow_float, allow_collapse, range_method, int4, signature, sparse,
        normalizations,
    )  # fmt: skip
    plan = planned(signature, signatures, shapes)
    data = [calibration] if signatures is None else by_signature(calibration, list(plan))
    parts = [_converted(model, spec, key, own) for key, own in plan.items()]
    if spec.is_integer:
        _quantize(parts, data, spec)
    leftover = list(dict.fromkeys(left for part in parts for left in part.leftover))
    if leftover and not allow_float:
        raise ExportError(
            f"The {precision} file would compute in float: {'; '.join(leftover)}. Pass allow_float=True to accept it"
        )
    lost = list(dict.fromkeys(one for part in parts for one in part.lost))
    if lost and not allow_collapse:
        if any(part.refused for part in parts):
            raise ExportError(f"{shown(precision, lost)}. Pass allow_collapse=True to accept it")
        warnings.warn(shown(precision, lost), stacklevel=2)
    if spec.sparse:
        for part in parts:
            part.rows += sparse_rows(part.draft)
    for part in parts:
        part.finish(spec)
    many = len(parts) > 1
    report = Report(
        precision=precision,
        inputs=tuple(text for part in parts for text in part.described(part.draft.inputs, many)),
        outputs=tuple(text for part in parts for text in part.described(part.draft.outputs, many)),
        rows=tuple(dict.fromkeys(row for part in parts for row in part.rows)),
        float_operations=tuple(leftover),
        collapsed=tuple(f"{one}; {one.advice}" for one in lost),
        notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
        seconds=time.perf_counter() - begin,
    )
    content = merged([part.draft for part in parts])
    if spec.sparse:
        report = replace(report, notes=(*report.notes, *sparse_notes(content)), seconds=time.perf_counter() - begin)
    return Exported(content, report)


@dataclass
class _Part:
    """One signature on its way.

    Attributes:
        key: of the signature.
        source: what is converted.
        draft: the file so far.
        rows: the source of ranges, kernels and forms.
        notes: what the user should know.
        leftover: operations of an integer file that compute in float.
        lost: tensors of an integer file that do not hold what they hold in float.
        refused: whether they are a reason to refuse the file.
    """

    key: str
    source: Source
    draft: Draft
    rows: list[ReportRow]
    notes: list[str] = field(default_factory=list)
    leftover: list[str] = field(default_factory=list)
    lost: list[Collapse] = field(default_factory=list)
    refused: bool = False

    @property
    def names(self) -> tuple[list[str], list[str]]:
        return [one.name for one in self.source.inputs], self.source.outputs

    def finish(self, spec: ExportSpec) -> None:
        """The file as its user meets it: types, names and signature."""
        if spec.inputs != "float32":
            boundary.integer_inputs(self.draft, spec.inputs)
        if spec.outputs != "float32":
            boundary.integer_outputs(self.draft, spec.outputs)
        boundary.separate(self.draft)
        self.draft.tidy_names()
        boundary.name_ends(self.draft, *self.names, self.key)

    def described(self, ends: Sequence[int], many: bool) -> list[str]:
        return [f"{self.key}: {text}" if many else text for text in boundary.described(self.draft, ends)]


def _converted(model: Any, spec: ExportSpec, key: str, shapes: Shapes) -> _Part:
    """The model as a float file."""
    source = source_of(model, spec, shapes)
    return _Part(
        key, source, floating(source, spec, key), [ReportRow(layer, "form", form) for layer, form in source.forms]
    )


def _quantize(parts: Sequence[_Part], data: Sequence[Any], spec: ExportSpec) -> None:
    """Makes the files of all signatures compute in integers, on the same ranges."""
    originals = [reference(part.draft) for part in parts]
    measured = [
        measure(part.draft, part.source, _samples(one, part.source, spec), spec)
        for part, one in zip(parts, data, strict=True)
    ]
    states.join(measured)
    for part, original, ready, given in zip(parts, originals, measured, data, strict=True):
        learned = ready.learned
        alone = given is not None and len(parts) == 1  # several signatures share their biases
        part.draft, made, part.notes = quantize(ready, spec, original if alone else None)
        part.rows += made
        part.leftover = float_operations(part.draft)
        found = collapses(original, part.draft, ready.samples)
        if given is None:  # generated samples may be unlike any real one, and larger: they are no reason to refuse
            part.notes += [
                f"on generated samples, {one}; pass calibration= with real ones"
                for one in found
                if one.kind != "saturated"
            ]
        else:
            part.lost, part.refused = found, bool(found) and not by_training(found, learned)
    states.check([(part.draft, *part.names) for part in parts])


def _samples(data: Any, source: Source, spec: ExportSpec) -> list[list[np.ndarray]] | None:
    if data is None:
        return None
    return calibration.batches(calibration.rows(data, source.inputs), spec.batch_size)
