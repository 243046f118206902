"""Keras 3: graphs, their calls, and what layers hold."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras as keras3
import tensorflow as tf

# A built Sequential keeps its graph in `_functional`; the class of plain graphs has no public name.
from keras.src.models.functional import Functional

from tfcompress.core.attributes import Spec, specs_of_shapes

keras = tf.keras
saving = keras3.saving
NAME, OTHER = "keras 3", "tf_keras"
STATIC_BATCH = True  # a symbolic batch is None, so what a `call` computes from it must be traced with a number
HONORS_TRAINING = False  # a graph's `training` replaces what is written into its calls
KerasTensor = keras3.KerasTensor
BATCHES = keras3.utils.PyDataset  # what `fit` takes batches from that are no generator
flatten = keras3.tree.flatten
map_structure = keras3.tree.map_structure


def is_symbolic(value: Any) -> bool:
    """Whether this is a tensor of a graph that is being made."""
    return isinstance(value, KerasTensor)


def is_operation(value: Any) -> bool:
    """Whether this is a node's operation that is not a layer."""
    return isinstance(value, keras3.Operation) and not isinstance(value, keras.layers.Layer)


def symbol_of(operation: Any) -> str | None:
    """None: an operation is known by its class."""
    return None


def is_whole(layer: Any) -> bool:
    """Whether the layer has sublayers but is a leaf all the same."""
    return isinstance(layer, (keras.layers.RNN, keras.layers.Bidirectional, keras.layers.TimeDistributed))


def _functional(model: Any) -> Any:
    """The graph of a model: itself, a Sequential's hidden one, or None."""
    if isinstance(model, keras.Sequential):
        return getattr(model, "_functional", None)
    return model if isinstance(model, Functional) and hasattr(model, "_nodes_by_depth") else None


def is_graph(model: Any) -> bool:
    """Whether the model holds a graph of calls (Functional, or Sequential that is built)."""
    return _functional(model) is not None


def overrides_call(model: Any) -> bool:
    """Whether a graph model computes something other than its graph."""
    call = type(model).call
    return call not in (Functional.call, keras.Sequential.call) and not getattr(call, "follows_graph", False)


def graph_inputs(model: Any) -> Any:
    """The structure of symbolic inputs, as the model was made with."""
    return _functional(model).input


def graph_outputs(model: Any) -> Any:
    """The structure of symbolic outputs, as the model was made with."""
    return _functional(model).output


def graph_nodes(model: Any) -> Iterator[tuple[Any, tuple, dict, list, Any]]:
    """(operation, args, kwargs, input tensors, outputs) of each call in order; nodes have no public name."""
    graph = _functional(model)
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        for node in graph._nodes_by_depth[depth]:
            if not node.is_input:
                outputs = node.outputs[0] if len(node.outputs) == 1 else list(node.outputs)
                yield node.operation, node.arguments.args, node.arguments.kwargs, list(node.input_tensors), outputs


def reference_inputs(model: Any, structure: Any) -> list:
    """What a call of a graph gives to each of flatten(graph_inputs(model)); by name where a dict meets a list."""
    return _functional(model)._standardize_inputs(structure)


def input_like(tensor: Any, batch: Any = "same", dtype: Any = None, shape: Sequence[int | None] | None = None) -> Any:
    """A new symbolic input like an old one; batch "same" keeps the old batch size, shape None what comes behind it."""
    layer = tensor._keras_history.operation if hasattr(tensor, "_keras_history") else None
    whole = (tensor.shape[0] if batch == "same" else batch, *(tensor.shape[1:] if shape is None else shape))
    return keras3.Input(batch_shape=whole, dtype=dtype or tensor.dtype, sparse=bool(tensor.sparse),
                        optional=getattr(layer, "optional", False), name=tensor.name)  # fmt: skip


def producer(tensor: Any) -> tuple[Any, int, Any] | None:
    """(operation, number of its call, node) that made a symbolic tensor; None for inputs."""
    history = getattr(tensor, "_keras_history", None)
    if history is None or history.operation is None:
        return None
    node = history.operation._inbound_nodes[history.node_index]
    return None if node.is_input else (history.operation, history.node_index, node)


def node_arguments(node: Any) -> tuple[Any, Any]:
    """The args and kwargs that a node was called with."""
    return node.arguments.args, node.arguments.kwargs


def forget_calls(operation: Any, keep: int = 0) -> None:
    """Forget the calls that an operation recorded, but the first `keep` of them."""
    del operation._inbound_nodes[keep:]
    operation._outbound_nodes.clear()


def settle_build_shapes(layer: Any, config: dict[str, Any]) -> None:
    """Nothing: a layer remembers the shapes that it was built with, however it was built."""


def set_name(layer: Any, name: str) -> None:
    """Rename a layer or operation."""
    layer.name = name
    if "_name" in vars(layer):
        layer._name = name


def sublayers(layer: Any, recursive: bool = False) -> list:
    """The layers that a layer holds (directly, or at any depth), each once."""
    found = layer._flatten_layers(include_self=False, recursive=recursive)
    return list({id(child): child for child in found}.values())


def holds_nothing(layer: Any) -> bool:
    """Whether a layer has neither variables nor sublayers."""
    return not layer.variables and not sublayers(layer)


def input_specs(model: Any) -> Any:
    """The shapes that a subclassed model was built with: a structure of (shape without batch, dtype or None).

    Raises:
        ValueError: the model does not remember them, or takes several tensor arguments.
    """
    if is_graph(model):
        return map_structure(lambda t: Spec(t.shape[1:], t.dtype), graph_inputs(model))
    parameters = list(inspect.signature(model.call).parameters.values())
    needed = [p.name for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    config = model.get_build_config() or {}
    if len(needed) > 1 or "shapes_dict" in config:
        raise ValueError(
            f"`model` takes several tensor arguments ({', '.join(config.get('shapes_dict', needed))}); give them to "
            f"its `call` as one list or dict. Received: model={model.name!r}"
        )
    shapes = config.get("input_shape")
    if shapes is None and model.built:
        raise ValueError(
            f"`model` can run, but not be recorded: the call of {_unrecorded(model)} does something that Keras has no "
            f"shape for. As a rule it branches on the value of a tensor with `if`: use keras.ops.where or "
            f"keras.ops.cond, or give the layer a `compute_output_shape`. Received: model={model.name!r}"
        )
    if shapes is None:
        raise ValueError(
            f"`model` does not remember its input shape: call it once on data, `model(x)`. "
            f"Received: model={model.name!r} of type {type(model).__name__}"
        )
    return specs_of_shapes(shapes)


def _unrecorded(model: Any) -> str:
    """The innermost layers with sublayers that ran although Keras cannot call them symbolically."""

    def is_one(layer: Any) -> bool:
        shapes = list((layer._build_shapes_dict or {}).values())
        if not layer.built or not sublayers(layer) or len(shapes) > 1:
            return False
        return not shapes or not any(_takes(layer, shapes[0], dtype) for dtype in (keras.backend.floatx(), "int32"))

    found = [part for part in (model, *sublayers(model, recursive=True)) if is_one(part)]
    inner = [part for part in found if not {id(p) for p in sublayers(part, recursive=True)} & {id(p) for p in found}]
    return ", ".join(repr(part.name) for part in inner)


def _takes(layer: Any, shape: Any, dtype: str) -> bool:
    """Whether a layer can be called on symbolic tensors of these shapes."""
    try:
        layer.compute_output_spec(KerasTensor(shape, dtype))
    except Exception:  # whatever a stranger's call does
        return False
    return True


def loosened_operation(operation: Any, loosen: Callable[[Any], Any]) -> Any:
    """A new operation from the constructor arguments of an old one, each passed through `loosen`.

    Only so does it save what it computes: the config of an operation is what its constructor was called with.
    """
    config = operation.get_config()
    return type(operation).from_config({k: v if k == "name" else loosen(v) for k, v in config.items()})


def operation_name(operation: Any) -> str | None:
    """The name of a plain operation without underscores and case ("getitem"); None for a layer."""
    return type(operation).__name__.replace("_", "").lower() if is_operation(operation) else None


def input_name(tensor: Any) -> str:
    """The name that a user gave an input of a model."""
    return tensor.name


def pack_like(structure: Any, flat: Sequence[Any]) -> Any:
    """Flat values in a structure like another."""
    return keras3.tree.pack_sequence_as(structure, flat)
