"""What is true of a whole file and matters to a target. Each function makes a look at one thing."""

from collections.abc import Sequence

from tflite_export.auditing.rules import Finding, Look, uses
from tflite_export.auditing.use import Use
from tflite_export.graph import FLOATS, Model, Tensor

_MOST_NAMES, _LONGEST = 4, 80


def _names(values: Sequence[str]) -> str:
    unique = list(dict.fromkeys(values))
    more = f" and {len(unique) - _MOST_NAMES} more" if len(unique) > _MOST_NAMES else ""
    return ", ".join(repr(value[:_LONGEST]) for value in unique[:_MOST_NAMES]) + more


def _called(model: Model) -> list[Tensor]:
    """Inputs and outputs of every signature."""
    found = []
    for signature in model.signatures:
        tensors = model.subgraphs[signature.subgraph].tensors
        found += [tensors[index] for side in (signature.inputs, signature.outputs) for index in side.values()]
    return found


def dynamic(text: str, way_out: str, *, stops: bool = False, slows: bool = False, batch: bool = False) -> Look:
    """Sizes that are only known at run time; the first axis counts only with `batch`."""

    def look(model: Model) -> Finding | None:
        names = [
            tensor.name
            for graph in model.subgraphs
            for tensor in graph.tensors
            if -1 in (tensor.dynamic if batch else tensor.dynamic[1:])
        ]
        return Finding(f"{text}: {_names(names)}", way_out, stops, slows) if names else None

    return look


def custom(text: str) -> Look:
    """Custom operations."""

    def look(model: Model) -> Finding | None:
        names = [use.op.kind for use in uses(model) if use.op.is_custom]
        return Finding(f"{text}: {_names(names)}") if names else None

    return look


def signatures(text: str, way_out: str) -> Look:
    """More than one signature."""

    def look(model: Model) -> Finding | None:
        keys = [signature.key for signature in model.signatures]
        return Finding(f"{text}: {_names(keys)}", way_out) if len(keys) > 1 else None

    return look


def sparse(text: str, way_out: str = "") -> Look:
    """Constants that are stored sparse."""

    def look(model: Model) -> Finding | None:
        names = [tensor.name for graph in model.subgraphs for tensor in graph.tensors if tensor.is_sparse]
        return Finding(f"{text} ({len(names)} tensors)", way_out) if names else None

    return look


def half_weights(text: str, way_out: str = "") -> Look:
    """Weights in float16."""

    def look(model: Model) -> Finding | None:
        count = sum(_spells_half(use) for use in uses(model))
        return Finding(f"{text} ({count} constants)", way_out) if count else None

    return look


def _spells_half(use: Use) -> bool:
    constant = use.constant(0)
    return use.op.kind == "DEQUANTIZE" and constant is not None and constant.type == "FLOAT16"


_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "BATCH_MATMUL", "TRANSPOSE_CONV")


def hybrid(text: str, way_out: str) -> Look:
    """Integer weights with float values (dynamic-range quantization)."""

    def look(model: Model) -> Finding | None:
        count = 0
        for use in uses(model):
            data, weights = use.input(use.data_places[0]) if use.data_places else None, use.input(1)
            if use.op.kind in _WEIGHTED and data is not None and weights is not None:
                count += data.type in FLOATS and weights.type not in FLOATS
        return Finding(f"{text} ({count} operations)", way_out) if count else None

    return look


def boundary_types(
    allowed: Sequence[str], text: str, way_out: str, *, stops: bool = False, slows: bool = False
) -> Look:
    """Inputs and outputs of the file of another type than these."""

    def look(model: Model) -> Finding | None:
        others = [f"{tensor.name} ({tensor.type})" for tensor in _called(model) if tensor.type not in allowed]
        return Finding(f"{text}: {_names(others)}", way_out, stops, slows) if others else None

    return look


def all_float(text: str, way_out: str, *, stops: bool = False) -> Look:
    """No integer arithmetic at all."""

    def look(model: Model) -> Finding | None:
        kinds = {
            tensor.type for use in uses(model) for place in use.data_places if (tensor := use.input(place)) is not None
        }
        if not kinds & FLOATS or kinds & {"INT8", "UINT8", "INT16"}:
            return None
        return Finding(text, way_out, stops)

    return look


def always(text: str) -> Look:
    """Worth knowing of every file."""
    return lambda model: Finding(text)
