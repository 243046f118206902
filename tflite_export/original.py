"""The float file that an integer file was made of, made anew from the model."""

from collections.abc import Mapping, Sequence
from typing import Any

from tflite_export import boundary, convert
from tflite_export.collapse import reference
from tflite_export.draft import Draft
from tflite_export.recurrent import fuse
from tflite_export.source import source_of
from tflite_export.spec import ExportSpec


def original(model: Any, precision: str, batch_size: int, shapes: Mapping[str, Sequence[int]]) -> Draft:
    """A model as a float file without any quantizer, its tensors named as `export` names them.

    Args:
        model: a built Keras model, also a quantized one.
        precision: of the integer file: some layers have other forms in 16 bits.
        batch_size: rows of a run.
        shapes: shape without batch of inputs that the model leaves open, by name.

    Raises:
        TypeError, ValueError: not a model that can be exported.
        ExportError: the converter refuses it.
    """
    source = source_of(model, ExportSpec(precision, batch_size=batch_size), shapes)
    draft = Draft(convert.float_file(source.function))
    boundary.order_inputs(draft, len(source.inputs))
    boundary.name_ends(draft, [one.name for one in source.inputs], source.outputs, "serving_default")
    fuse(draft)
    return reference(draft)
