"""The float file of a model: what every file begins as, and what an integer file is compared with."""

from collections.abc import Mapping, Sequence
from typing import Any

from tflite_export import boundary, convert
from tflite_export.draft import Draft
from tflite_export.errors import ExportError
from tflite_export.handwritten import gelus
from tflite_export.learned import heal
from tflite_export.leftovers import unknown_operations
from tflite_export.lookups import without_selects
from tflite_export.pairs import reference
from tflite_export.recurrent import fuse
from tflite_export.source import Source, source_of
from tflite_export.spec import ExportSpec


def floating(source: Source, spec: ExportSpec, key: str) -> Draft:
    """A model as a float file of operations that the runtime has, learned ranges as pairs of QUANTIZE and DEQUANTIZE.

    Args:
        source: what is converted.
        spec: precision and options.
        key: of the signature.

    Raises:
        ExportError: the converter refuses it, or the runtime lacks an operation; the message names it.
    """
    precision = "float32" if spec.is_integer else spec.precision
    draft = Draft(convert.float_file(source.function, precision, sparse=spec.sparse))
    boundary.order_inputs(draft, len(source.inputs))
    boundary.name_ends(draft, [one.name for one in source.inputs], source.outputs, key)
    fuse(draft)
    without_selects(draft)
    gelus(draft)
    unknown = unknown_operations(draft)
    if unknown:
        raise ExportError(f"The runtime has no such operation: {'; '.join(unknown)}")
    heal(draft)
    boundary.separate(draft)  # the quantizer dies of an output that is an input
    return draft


def original(model: Any, precision: str, batch_size: int, shapes: Mapping[str, Sequence[int]]) -> Draft:
    """A model as a float file without any quantizer, its tensors named as `export` names them.

    Args:
        model: a built Keras model, also a quantized one.
        precision: of the integer file: some layers have other forms in 16 bits.
        batch_size: rows of a run.
        shapes: shape without batch of inputs that the model leaves open, by name.

    Raises:
        TypeError, ValueError: not a model that can be exported.
        ExportError: the converter refuses it, or the runtime lacks an operation.
    """
    spec = ExportSpec(precision, batch_size=batch_size)
    return reference(floating(source_of(model, spec, shapes), spec, spec.signature))
