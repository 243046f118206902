"""tf_keras: graphs, their calls, and what layers hold."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

# A plain operation in a graph is one of these layers, and a symbolic tensor this class; neither has a public name.
from tf_keras.src.engine.keras_tensor import KerasTensor
from tf_keras.src.layers.core import tf_op_layer

from tfcompress.core.attributes import Spec, held, specs_of_shapes

keras = tf.keras
saving = keras.saving
NAME, OTHER = "tf_keras", "keras 3"
STATIC_BATCH = False  # a symbolic batch is a tensor of the graph
HONORS_TRAINING = True  # a `training` that is written into a graph's call stands above that of the graph's own call
BATCHES = object  # `fit` takes batches from whatever has `__next__`
_OPERATIONS = (tf_op_layer.TFOpLambda, tf_op_layer.ClassMethod, tf_op_layer.InstanceProperty)
_Functional = next(base for base in keras.Sequential.__mro__ if base.__name__ == "Functional")
flatten = tf.nest.flatten
map_structure = tf.nest.map_structure


def is_symbolic(value: Any) -> bool:
    """Whether this is a tensor of a graph that is being made."""
    return isinstance(value, KerasTensor)


def is_operation(value: Any) -> bool:
    """Whether this is a node's operation that is not a layer in the user's sense."""
    return isinstance(value, _OPERATIONS)


def symbol_of(operation: Any) -> str | None:
    """The name of the TensorFlow function that an operation calls ("einsum", "math.add"); None for other layers."""
    return getattr(operation, "symbol", None) if is_operation(operation) else None


def is_whole(layer: Any) -> bool:
    """Whether the layer has sublayers but is a leaf all the same."""
    return isinstance(layer, (keras.layers.RNN, keras.layers.Bidirectional, keras.layers.TimeDistributed))


def is_graph(model: Any) -> bool:
    """Whether the model holds a graph of calls (Functional, or Sequential that is built)."""
    return isinstance(model, keras.Model) and model._is_graph_network and bool(getattr(model, "_nodes_by_depth", None))


def overrides_call(model: Any) -> bool:
    """Whether a graph model computes something other than its graph."""
    call = type(model).call
    return call not in (_Functional.call, keras.Sequential.call) and not getattr(call, "follows_graph", False)


def graph_inputs(model: Any) -> Any:
    """The structure of symbolic inputs, as the model was made with."""
    return model.input


def graph_outputs(model: Any) -> Any:
    """The structure of symbolic outputs, as the model was made with."""
    return model.output


def graph_nodes(model: Any) -> Iterator[tuple[Any, tuple, dict, list, Any]]:
    """(operation, args, kwargs, input tensors, outputs) of each call in order; nodes have no public name."""
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if not node.is_input:
                yield node.layer, tuple(node.call_args), dict(node.call_kwargs), list(node.keras_inputs), node.outputs


def reference_inputs(model: Any, structure: Any) -> list:
    """What a call of a graph gives to each of flatten(graph_inputs(model)); by name where a dict meets a list."""
    given = model._flatten_to_reference_inputs(structure)
    return [model._conform_to_reference_input(t, ref_input=r) for t, r in zip(given, model.inputs, strict=True)]


def input_like(tensor: Any, batch: Any = "same", dtype: Any = None, shape: Sequence[int | None] | None = None) -> Any:
    """A new symbolic input like an old one; batch "same" keeps the old batch size, shape None what comes behind it."""
    spec = tensor.type_spec
    return keras.Input(
        shape=tuple(tensor.shape[1:] if shape is None else shape),
        batch_size=tensor.shape[0] if batch == "same" else batch,
        dtype=dtype or tensor.dtype, name=tensor._keras_history.layer.name,
        sparse=isinstance(spec, tf.SparseTensorSpec), ragged=isinstance(spec, tf.RaggedTensorSpec))  # fmt: skip


def producer(tensor: Any) -> tuple[Any, int, Any] | None:
    """(operation, number of its call, node) that made a symbolic tensor; None for inputs."""
    history = getattr(tensor, "_keras_history", None)
    if history is None or history.layer is None:
        return None
    node = history.layer._inbound_nodes[history.node_index]
    return None if node.is_input else (history.layer, history.node_index, node)


def node_arguments(node: Any) -> tuple[Any, Any]:
    """The args and kwargs that a node was called with."""
    return tuple(node.call_args), dict(node.call_kwargs)


def forget_calls(operation: Any, keep: int = 0) -> None:
    """Forget the calls that an operation recorded, but the first `keep` of them."""
    del operation._inbound_nodes[keep:]
    operation._outbound_nodes.clear()


def set_name(layer: Any, name: str) -> None:
    """Rename a layer or operation."""
    layer._name = name


def sublayers(layer: Any, recursive: bool = False) -> list:
    """The layers that a layer holds (directly, or at any depth), each once; those it holds untracked as well."""
    found: dict[int, Any] = {}

    def visit(parent: Any) -> None:
        tracked = parent._flatten_layers(include_self=False, recursive=False)
        untracked = () if is_graph(parent) else (child for _, child in held(parent, _is_sublayer))
        for child in (*tracked, *untracked):
            if child is not layer and id(child) not in found:
                found[id(child)] = child
                if recursive:
                    visit(child)

    visit(layer)
    return list(found.values())


def _is_sublayer(value: Any) -> bool:
    return isinstance(value, keras.layers.Layer) and not isinstance(value, keras.metrics.Metric)


def holds_nothing(layer: Any) -> bool:
    """Whether a layer has neither variables nor sublayers nor a random generator."""
    return not layer.variables and not sublayers(layer) and not hasattr(layer, "_random_generator")


def input_specs(model: Any) -> Any:
    """The shapes that a subclassed model was built with: a structure of (shape without batch, dtype or None).

    Raises:
        ValueError: the model does not remember them, or takes several tensor arguments.
    """
    if is_graph(model):
        return map_structure(lambda t: Spec(t.shape[1:], t.dtype), graph_inputs(model))
    spec = model.save_spec()
    if spec is not None:
        args, kwargs = spec
        names = [*map(str, range(len(args))), *kwargs]
        tensors = [
            n for n, v in zip(names, [*args, *kwargs.values()], strict=True) if any(s is not None for s in flatten(v))
        ]
        if len(tensors) > 1:
            raise ValueError(
                f"`model` takes several tensor arguments ({', '.join(tensors)}); give them to its `call` as one list "
                f"or dict. Received: model={model.name!r}"
            )
        return map_structure(lambda s: Spec(s.shape[1:], s.dtype), args[0])
    if model._build_input_shape is not None:
        return specs_of_shapes(map_shapes(model._build_input_shape))
    raise ValueError(
        f"`model` does not remember its input shape: call it once on data, `model(x)`. "
        f"Received: model={model.name!r} of type {type(model).__name__}"
    )


def map_shapes(shapes: Any) -> Any:
    """Plain tuples for tf.TensorShape."""
    if isinstance(shapes, tf.TensorShape):
        return tuple(shapes)
    if isinstance(shapes, dict):
        return {name: map_shapes(shape) for name, shape in shapes.items()}
    if all(d is None or isinstance(d, int) for d in shapes):
        return tuple(shapes)
    return [map_shapes(shape) for shape in shapes]


def settle_build_shapes(layer: Any, config: dict[str, Any]) -> None:
    """Let a layer made of its config remember the shapes that it was built with, and the layers in it theirs.

    A wrapper built of its config (TimeDistributed) remembers the shape of the layer inside: saved with that it would
    not load.
    """
    known: dict[tuple[str, Any], list[Any]] = {}

    def visit(part: Any) -> None:
        if isinstance(part, dict):
            built, own = part.get("build_config"), part.get("config")
            if isinstance(own, dict) and isinstance(built, dict) and built.get("input_shape") is not None:
                known.setdefault((part["class_name"], own.get("name")), []).append(built["input_shape"])
            for child in part.values():
                visit(child)
        elif isinstance(part, (list, tuple)):
            for child in part:
                visit(child)

    visit(config)
    for part in (layer, *sublayers(layer, recursive=True)):
        shapes = known.get((type(part).__name__, part.name), [])
        if shapes and all(shape == shapes[0] for shape in shapes) and not isinstance(part, keras.Model):
            part._build_input_shape = _tensor_shapes(shapes[0])


def _tensor_shapes(shapes: Any) -> Any:
    """tf.TensorShape for plain lists and tuples."""
    if isinstance(shapes, dict):
        return {name: _tensor_shapes(shape) for name, shape in shapes.items()}
    if isinstance(shapes, (list, tuple)) and not all(d is None or isinstance(d, int) for d in shapes):
        return [_tensor_shapes(shape) for shape in shapes]
    return tf.TensorShape(shapes)


def loosened_operation(operation: Any, loosen: Callable[[Any], Any]) -> Any:
    """The operation itself: nothing in it depends on the batch it was traced with."""
    return operation


def operation_name(operation: Any) -> str | None:
    """The name of a plain operation without underscores and case ("getitem"); None for a layer."""
    symbol = getattr(operation, "symbol", "") if is_operation(operation) else ""
    return symbol.split(".")[-1].replace("_", "").lower() or None


def input_name(tensor: Any) -> str:
    """The name that a user gave an input of a model."""
    return tensor._keras_history.layer.name


def pack_like(structure: Any, flat: Sequence[Any]) -> Any:
    """Flat values in a structure like another."""
    return tf.nest.pack_sequence_as(structure, flat)
