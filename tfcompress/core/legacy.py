"""tf_keras: everything that Keras 3 does differently. Its sibling `keras3` has the same public names."""

import contextlib
import functools
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

# A plain operation in a graph is one of these layers, and a symbolic tensor this class; neither has a public name.
from tf_keras.src.engine.keras_tensor import KerasTensor
from tf_keras.src.layers.core import tf_op_layer

from tfcompress.core.attributes import Spec, exchanging, held, owned, specs_of_shapes
from tfcompress.core.errors import CompressionError

keras = tf.keras
saving = keras.saving
NAME, OTHER = "tf_keras", "keras 3"
STATIC_BATCH = False  # a symbolic batch is a tensor of the graph
HONORS_TRAINING = True  # a `training` that is written into a graph's call stands above that of the graph's own call
VARIABLES = (tf.Variable,)
_OPERATIONS = (tf_op_layer.TFOpLambda, tf_op_layer.ClassMethod, tf_op_layer.InstanceProperty)
_Functional = next(base for base in keras.Sequential.__mro__ if base.__name__ == "Functional")
_Generator = type(keras.layers.Dropout(0.5)._random_generator)  # no public name
COPIED = (keras.layers.Layer, keras.metrics.Metric, tf.random.Generator, _Generator, tf.Variable)
flatten = tf.nest.flatten
map_structure = tf.nest.map_structure


def is_symbolic(value: Any) -> bool:
    """Whether this is a tensor of a graph that is being made."""
    return isinstance(value, KerasTensor)


def is_variable(value: Any) -> bool:
    """Whether this is a weight."""
    return isinstance(value, tf.Variable)


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
    return type(model).call not in (_Functional.call, keras.Sequential.call)


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


def own_variables(layer: Any) -> dict[str, Any]:
    """The variables that a layer owns itself, by attribute or path inside one ("token", "tables.0")."""
    return owned(layer, [*layer._trainable_weights, *layer._non_trainable_weights], is_variable, variable_name)


def variable_name(variable: Any) -> str:
    """The variable's own name: "kernel"."""
    return variable_path(variable).split("/")[-1]


def variable_path(variable: Any) -> str:
    """The variable's name with its layer's: "dense/kernel"."""
    return variable.name.split(":")[0]


def regularizer_of(layer: Any, variable: Any) -> Any:
    """The regularizer of a variable, which tf_keras keeps only inside the closure of a loss."""
    for loss in layer._callable_losses:
        while isinstance(loss, functools.partial) and isinstance(loss.args[0], functools.partial):
            loss = loss.args[0]
        bound = loss.args[0] if isinstance(loss, functools.partial) else None
        if bound is variable or (bound is not None and getattr(bound, "_variable", None) is variable):
            return dict(zip(loss.func.__code__.co_freevars, loss.func.__closure__ or (), strict=True))[
                "regularizer"
            ].cell_contents
    return None


def constraint_of(variable: Any) -> Any:
    """What is applied to a variable after each optimizer step, or None."""
    return variable.constraint


def constrain(variable: Any, constraint: Any) -> None:
    """Have something applied to a variable after each optimizer step; None ends it."""
    inner = getattr(variable, "_variable", variable)  # an autocast variable stands for the real one
    for part in getattr(inner, "_values", (inner,)):  # a distributed one for one on each device
        part._constraint = constraint


def add_penalty(layer: Any, variable: Any, penalty: Callable[[Any], Any]) -> Callable[[], None]:
    """Add a penalty of one of the layer's variables to its losses; what is returned takes it away again."""

    def loss() -> Any:
        return penalty(variable)

    layer._callable_losses.append(loss)

    def undo() -> None:
        layer._callable_losses.remove(loss)

    return undo


def swap_variable(layer: Any, attribute: str, shape: Sequence[int], dtype: str) -> Any:
    """A new variable, not trained, in place of the one in an attribute of a built layer; the old one is forgotten."""
    old = getattr(layer, attribute)
    inner = getattr(old, "_variable", old)

    def bound(loss: Any) -> bool:
        while isinstance(loss, functools.partial):
            loss = loss.args[0] if loss.args else None
        return loss is old or getattr(loss, "_variable", loss) is inner

    layer._callable_losses = [loss for loss in layer._callable_losses if not bound(loss)]
    name = variable_name(old)
    delattr(layer, attribute)
    new = layer.add_weight(name=name, shape=tuple(shape), dtype=dtype, initializer="zeros", trainable=False)
    setattr(layer, attribute, new)
    return new


def watch_gradients(optimizer: Any, seen: Callable[[list], None]) -> Callable[[], None]:
    """Show `seen` the (gradient, variable) pairs of each step before they are applied; what is returned ends it."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)  # behind the one that scales losses
    original = inner.apply_gradients

    def apply_gradients(grads_and_vars: Any, *args: Any, **kwargs: Any) -> Any:
        pairs = list(grads_and_vars)
        seen(pairs)
        return original(pairs, *args, **kwargs)

    vars(inner)["apply_gradients"] = apply_gradients
    return lambda: vars(inner).pop("apply_gradients", None)


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


def replaced(layer: Any, replacements: Sequence[tuple[Any, Any]], call: Callable[[], Any]) -> Any:
    """The outputs of `call()`, for which variables of `layer` (at any depth) read as the given tensors.

    Args:
        layer: the layer whose call happens inside `call`.
        replacements: (variable, tensor) pairs; the tensor is of the variable's shape unless that holds whole numbers.
        call: computes the outputs.

    Returns:
        What `call` returns. What it assigned to other variables is assigned, what it added as losses is added.

    Raises:
        CompressionError: a variable stands in no attribute of the layer or its sublayers.
    """
    pairs: list[tuple[Any, dict[int, Any]]] = []
    seen: set[int] = set()
    for part in (layer, *sublayers(layer, recursive=True)):
        others = {}
        for _, value in held(part, is_variable):
            for variable, tensor in replacements:
                inner = getattr(variable, "_variable", variable)
                if value is variable or getattr(value, "_variable", None) is inner:
                    cast = value is not variable or hasattr(value, "_variable") or not value.dtype.is_floating
                    others[id(value)] = tf.cast(tensor, part.compute_dtype if cast else value.dtype)
                    seen.add(id(variable))
        pairs.append((part, others))
    missing = [variable_path(v) for v, _ in replacements if id(v) not in seen]
    if missing:
        raise CompressionError(
            f"layer {layer.name!r} holds {missing} in none of its attributes, so nothing can stand in for it"
        )
    with exchanging(pairs):
        return call()


def cast_inputs(layer: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """The arguments as `layer.__call__` would hand them to `layer.call`: the first one cast."""
    first, rest, kwargs = layer._call_spec.split_out_first_arg(args, kwargs)
    cast = layer._maybe_cast_inputs(first) if layer._autocast else first
    if cast is not first:
        for old, new in zip(flatten(first), flatten(cast), strict=True):
            if new is not old and mask_of(old) is not None:
                set_mask(new, mask_of(old))
    return (cast, *rest), kwargs


def mask_of(tensor: Any) -> Any:
    """The mask that Keras passes along behind a tensor, or None."""
    return getattr(tensor, "_keras_mask", None)


def set_mask(tensor: Any, mask: Any) -> None:
    """Pass a mask along behind a tensor."""
    tensor._keras_mask = mask


def accepts_training(layer: Any) -> bool:
    """Whether a layer's call takes `training`."""
    return "training" in layer._call_spec.arg_names


def mask_arguments(layer: Any, args: tuple, kwargs: dict) -> dict[str, Any]:
    """The mask that Keras would hand to `call` behind the first argument, as keyword argument."""
    spec = layer._call_spec
    if not spec.expects_mask_arg or spec.arg_was_passed("mask", args, kwargs, inputs_in_args=True):
        return {}
    first = spec.split_out_first_arg(args, dict(kwargs))[0]
    masks = map_structure(mask_of, first)
    return {"mask": masks} if any(m is not None for m in flatten(masks)) else {}


def settle_masks(layer: Any, args: tuple, kwargs: dict, outputs: Any, opened: bool) -> None:
    """Hand the masks on to the outputs, as `layer.__call__` does.

    A leaf's own `__call__` has left masks that no node of the graph makes; they are computed anew, symbolically.
    """
    tensors = flatten(outputs)
    if not layer.supports_masking or (opened and all(mask_of(t) is not None for t in tensors)):
        return
    if not opened and all(mask_of(t) is None for t in tensors):
        return
    spec = layer._call_spec
    first = spec.split_out_first_arg(args, dict(kwargs))[0]
    passed = spec.arg_was_passed("mask", args, kwargs, inputs_in_args=True)
    previous = spec.get_arg_value("mask", args, kwargs, inputs_in_args=True) if passed else None
    if previous is None:
        previous = map_structure(mask_of, first)
        previous = None if all(m is None for m in flatten(previous)) else previous
    masks = layer.compute_mask(first, previous)
    for tensor, mask in zip(tensors, [None] * len(tensors) if masks is None else flatten(masks), strict=False):
        if not opened or mask_of(tensor) is None:
            set_mask(tensor, mask)


def settle_shapes(layer: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    """Nothing: TensorFlow infers every length that can be known."""


def masked_softmax(layer: Any, inputs: Any, mask: Any) -> Any:
    """What a Softmax layer makes of a mask, as operations of a graph."""
    return layer.call(inputs, mask=mask)


def copy_variable(variable: Any) -> Any:
    """A new variable equal to an old one; None for an autocast variable, an object that holds the real one."""
    if "_variable" in vars(variable):
        return None
    return tf.Variable(variable, trainable=variable.trainable, name=variable_path(variable), dtype=variable.dtype,
                       shape=variable.shape, constraint=variable.constraint,
                       aggregation=variable.aggregation, synchronization=variable.synchronization)  # fmt: skip


def blank_copy(old: Any) -> tuple[Any, set[str]]:
    """A new object of the class of `old` with no attributes of its own, and those to leave as they are in it."""
    return object.__new__(type(old)), set()


def finish_copy(new: Any) -> None:
    """A model's checkpoint holds the model."""
    if "_checkpoint" in vars(new):
        vars(new)["_checkpoint"] = tf.train.Checkpoint(root=weakref.ref(new))


def is_tracked_container(value: Any) -> bool:
    """Whether this is a list or dict that reports its members to a layer."""
    return type(value).__name__ in ("ListWrapper", "_DictWrapper", "_TupleWrapper")


def copy_container(old: Any, again: Callable[[Any], Any], keep: Callable[[Any], Any]) -> Any:
    """A copy of TensorFlow's tracked list, dict or tuple."""
    plain = list(old) if isinstance(old, list) else tuple(old) if isinstance(old, tuple) else dict(old)
    return keep(tf.__internal__.tracking.wrap(again(plain)))


def loosened_operation(operation: Any, loosen: Callable[[Any], Any]) -> Any:
    """The operation itself: nothing in it depends on the batch it was traced with."""
    return operation


def read(variable: Any) -> tf.Tensor:
    """A variable as a tensor of its own dtype, whatever the layer around computes in."""
    return tf.convert_to_tensor(getattr(variable, "_variable", variable))


def dtype_policy(layer: Any) -> Any:
    """The dtypes that a layer computes in and keeps its weights in."""
    return layer._dtype_policy


def mean_over_replicas() -> dict[str, Any]:
    """Arguments of `add_weight` for a variable whose replicas agree on the mean of what each assigns."""
    return {"aggregation": tf.VariableAggregation.MEAN}


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


def masks_may_end() -> contextlib.AbstractContextManager[None]:
    """Nothing: this flavor says nothing of masks that are dropped."""
    return contextlib.nullcontext()


def branches_recorded() -> contextlib.AbstractContextManager[Any]:
    """While this holds, AutoGraph turns branches of a layer's call on values into the graph's, as it does outside."""
    outside = tf.__internal__.autograph.control_status_ctx()
    return type(outside)(status=type(outside.status).ENABLED)


def compute_in_float32(layer: Any) -> None:
    """Let a layer whose dtype policy is a mixed one compute in the type of its variables."""
    for part in (layer, *sublayers(layer, recursive=True)):
        if part.dtype != part.compute_dtype:
            part._set_dtype_policy("float32")


def compiled_loss(model: Any, y: Any, y_pred: Any, sample_weight: Any) -> Any:
    """The loss that a model was compiled with, without those of its layers."""
    return model.compiled_loss(y, y_pred, sample_weight)


def distribution_problem(model: Any) -> str | None:
    """Why TensorFlow cannot train the model as it was compiled, on several CPU replicas; None when it can."""
    strategy = model.distribute_strategy
    if strategy.num_replicas_in_sync < 2 or any("CPU" not in device for device in strategy.extended.worker_devices):
        return None
    if model._jit_compile:
        return "`jit_compile` must be False under a strategy of several CPU replicas: XLA does not run there"
    return None
