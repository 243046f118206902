"""A Keras model becomes a `.tflite` file: converted, its ranges measured, its integers planted."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tflite_export import boundary, calibration, convert
from tflite_export.draft import Draft
from tflite_export.errors import ExportError
from tflite_export.exported import Exported, Report, ReportRow
from tflite_export.integers import quantize
from tflite_export.leftovers import float_operations
from tflite_export.recurrent import fuse
from tflite_export.source import Source, source_of
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
    range_method: str = "minmax",
    int4: str = "packed",
    signature: str = "serving_default",
    shapes: Mapping[str, Sequence[int]] | None = None,
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
        range_method: how a measured range is chosen: "minmax", "percentile", "mse" or "entropy".
        int4: "packed" stores kernels of at most 4 bits two to a byte where the operation runs that, "unpacked" one to
            a byte, the same integers.
        signature: key of the file's signature; its names are those of the Keras inputs and outputs.
        shapes: shape without batch of inputs that the model leaves open, by name, such as {"tokens": (64,)}.

    Returns:
        The file and a report of where its numbers come from.

    Raises:
        ValueError: a wrong argument; ranges to measure and no `calibration`; weights that are not finite.
        TypeError: no Keras model, or one of the other flavor.
        ExportError: the converter refuses, or a float operation would be left; the message names it and its layer.

    >>> from tfcompress.core.flavor import keras
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> export(model, "int8", calibration=np.random.default_rng(0).normal(size=(8, 4))).report.precision
    'int8'
    """
    begin = time.perf_counter()
    spec = ExportSpec(precision, inputs, outputs, batch_size, allow_float, range_method, int4, signature)
    source = source_of(model, spec, shapes)
    rows = [ReportRow(layer, "form", form) for layer, form in source.forms]
    notes: list[str] = []
    draft = Draft(convert.float_file(source.function, "float32" if spec.is_integer else precision))
    boundary.order_inputs(draft, len(source.inputs))
    names = [spec.name for spec in source.inputs], source.outputs
    boundary.name_ends(draft, *names, signature)
    fuse(draft)
    _refuse_unknown(draft)
    if spec.is_integer:
        samples = _samples(calibration, source, spec)
        draft, made, notes = quantize(draft, source, samples, spec)
        rows += made
    leftover = float_operations(draft) if spec.is_integer else []
    if leftover and not allow_float:
        raise ExportError(
            f"The {precision} file would compute in float: {'; '.join(leftover)}. Pass allow_float=True to accept it"
        )
    if spec.is_integer:
        if inputs != "float32":
            boundary.integer_inputs(draft, inputs)
        if outputs != "float32":
            boundary.integer_outputs(draft, outputs)
    boundary.separate(draft)
    draft.tidy_names()
    boundary.name_ends(draft, *names, signature)
    report = Report(
        precision=precision,
        inputs=tuple(boundary.described(draft, draft.inputs)),
        outputs=tuple(boundary.described(draft, draft.outputs)),
        rows=tuple(rows),
        float_operations=tuple(leftover),
        notes=tuple(notes),
        seconds=time.perf_counter() - begin,
    )
    return Exported(draft.content(), report)


def _samples(data: Any, source: Source, spec: ExportSpec) -> list[list[np.ndarray]] | None:
    if data is None:
        return None
    return calibration.batches(calibration.rows(data, source.inputs), spec.batch_size)


def _refuse_unknown(draft: Draft) -> None:
    """Operations that the runtime does not have came through as custom ones."""
    unknown = [
        f"{draft.kind(op)} in {draft.layer(op)!r}"
        for op in draft.operators
        if draft.model.operatorCodes[op.opcodeIndex].customCode is not None
    ]
    if unknown:
        raise ExportError(f"The runtime has no such operation: {'; '.join(dict.fromkeys(unknown))}")
