"""A Keras model as the converter wants it: one frozen function of fixed shapes, and the names its user knows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.finite import check_finite
from tfcompress.core.folding import integer_kernels
from tfcompress.core.grid import IntegerWeight
from tfcompress.core.replay import Call, again, calls, run
from tfcompress.core.samples import Input
from tfcompress.core.trace import trace
from tfcompress.core.transformed import bake, integer_weights
from tflite_export.convert import frozen
from tflite_export.draft import SCOPE_END
from tflite_export.folded import Folded, folded
from tflite_export.runtime_forms import needs_forms, runtime_forms
from tflite_export.spec import ExportSpec


@dataclass(frozen=True)
class Source:
    """What is converted.

    Attributes:
        function: frozen; its arguments are named "input_0", "input_1", ... in the order of `inputs`, and it returns a
            list in the order of `outputs`.
        inputs: name, shape without batch and type of each input.
        outputs: a name for each output, each once.
        weights: the integers of the weights that lie on a grid.
        kernels: those on a grid of their own with what is folded into them.
        forms: (layer, how it was spelt) for each layer that has another form in the file than in Keras.
    """

    function: Any
    inputs: list[Input]
    outputs: list[str]
    weights: list[IntegerWeight]
    kernels: list[Folded]
    forms: list[tuple[str, str]]


def source_of(model: Any, spec: ExportSpec, shapes: Mapping[str, Sequence[int]] | None = None) -> Source:
    """Prepares a Keras model for the converter; the model is not changed.

    Args:
        model: a built Keras model of this flavor, also a quantized one.
        spec: batch size and precision of the file.
        shapes: shape (without batch) of inputs that the model leaves open, by name.

    Raises:
        TypeError, ValueError: not a model that can be exported: of the other flavor, not built, with weights that are
            not finite, or with sizes that neither it nor `shapes` knows; or `shapes` names no input, or differs from
            what the model fixes.
    """
    flavor.check_model(model)
    check_finite(model)
    graph = model
    if not flavor.is_graph(model) or needs_forms(model, inner=True):
        graph = trace(model)
    weights, kernels = integer_weights(graph), folded(integer_kernels(graph))
    graph = bake(graph, inference=True)
    inputs = _inputs(graph, shapes or {})
    forms: list[tuple[str, str]] = []
    if needs_forms(graph):
        own = [one.shape for one in inputs]
        graph, forms = runtime_forms(graph, fused=spec.precision != "int16x8", shapes=own)
    symbols, steps = flavor.flatten(flavor.graph_inputs(graph)), calls(graph)

    def call(*tensors: tf.Tensor) -> list[tf.Tensor]:
        values = run(steps, {id(s): t for s, t in zip(symbols, tensors, strict=True)}, _scoped)
        return [tf.identity(values[id(symbol)]) for symbol in flavor.flatten(flavor.graph_outputs(graph))]

    arguments = [
        tf.TensorSpec((spec.batch_size, *one.shape), one.dtype, name=f"input_{i}") for i, one in enumerate(inputs)
    ]
    with flavor.masks_may_end():
        function = frozen(call, arguments)
    return Source(function, inputs, output_names(graph), weights, kernels, forms)


def _scoped(step: Call, args: tuple, kwargs: dict[str, Any]) -> Any:
    """One call of the graph, its tensors named for it; Keras' own scopes are numbered and do not tell the layer."""
    with tf.name_scope(step.name + SCOPE_END):
        return again(step, args, kwargs)


def output_names(graph: Any) -> list[str]:
    """A name for each output: its key where the outputs are a dict, else the name of the layer that makes it.

    In the order in which Keras flattens the outputs; a name that comes again gets a number.
    """
    labels = []
    for path, symbol in _paths(flavor.graph_outputs(graph)):
        labels.append("/".join(path) if path else _maker_name(symbol))
    names: list[str] = []
    for label in labels:
        number, name = 0, label
        while name in names:
            number += 1
            name = f"{label}_{number}"
        names.append(name)
    return names


def _maker_name(symbol: Any) -> str:
    """The layer that makes a tensor; a layer that only learns a range is passed by, its input's maker counts."""
    made = flavor.producer(symbol)
    while made is not None and hasattr(made[0], "for_inference") and not made[0].activation:
        symbol = flavor.flatten(flavor.node_arguments(made[2]))[0]
        made = flavor.producer(symbol)
    if made is None:
        return flavor.input_name(symbol)
    if isinstance(made[0], flavor.keras.layers.Activation):  # taken off its layer, or a range that saw nothing yet
        before = _maker_name(flavor.flatten(flavor.node_arguments(made[2]))[0])
        if made[0].name in (f"{before}_{getattr(made[0].activation, '__name__', '')}", f"{before}_range"):
            return before
    return made[0].name


def _paths(structure: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    """(keys, tensor) in the order in which Keras flattens; places in lists are no keys."""
    if isinstance(structure, Mapping):
        return [found for key in sorted(structure) for found in _paths(structure[key], (*path, str(key)))]
    if isinstance(structure, (list, tuple)):
        return [found for item in structure for found in _paths(item, path)]
    return [(path, structure)]


def _inputs(graph: Any, shapes: Mapping[str, Sequence[int]]) -> list[Input]:
    """The inputs of a graph in the order in which Keras flattens them, each of a fixed shape."""
    structure = flavor.graph_inputs(graph)
    symbols = flavor.flatten(structure)
    keys = {id(symbol): key for key, symbol in structure.items()} if isinstance(structure, Mapping) else {}
    names = [keys.get(id(symbol), flavor.input_name(symbol)) for symbol in symbols]
    if set(shapes) - set(names):
        raise ValueError(f"`shapes` must name inputs: {names}. Received: {sorted(set(shapes) - set(names))}")
    return [_input(symbol, name, shapes) for symbol, name in zip(symbols, names, strict=True)]


def _input(symbol: Any, name: str, shapes: Mapping[str, Sequence[int]]) -> Input:
    own = tuple(symbol.shape[1:])
    shape = tuple(shapes.get(name, own))
    if len(shape) != len(own) or any(size not in (None, chosen) for size, chosen in zip(own, shape, strict=True)):
        raise ValueError(f"`shapes`: input {name!r} has the shape {own}, without the batch. Received: {shape}")
    if any(size is None for size in shape):
        raise ValueError(
            f"Input {name!r} has the open shape {shape}: a file has fixed ones. Give it as "
            f"`shapes={{{name!r}: (...)}}`, without the batch"
        )
    if any(isinstance(size, bool) or not isinstance(size, int) or size < 1 for size in shape):
        raise ValueError(f"`shapes`: sizes of input {name!r} must be whole numbers >= 1. Received: {shape}")
    return Input(name, shape, tf.as_dtype(symbol.dtype).name, flavor.input_name(symbol))
