"""Keras 3: everything that tf_keras does differently. Its sibling `legacy` has the same public names."""

import contextlib
import inspect
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras as keras3
import tensorflow as tf

# StatelessScope reads the scope around it (nested replacements must see each other); no public name exists.
from keras.src.backend.common.stateless_scope import get_stateless_scope

# Without it a variable read inside a layer has the layer's dtype; no public name exists.
from keras.src.backend.common.variables import AutocastScope

# A built Sequential keeps its graph in `_functional`; the class of plain graphs has no public name.
from keras.src.models.functional import Functional

from tfcompress.core.attributes import Spec, exchanging, owned, specs_of_shapes

keras = tf.keras
saving = keras3.saving
NAME, OTHER = "keras 3", "tf_keras"
STATIC_BATCH = True  # a symbolic batch is None, so what a `call` computes from it must be traced with a number
HONORS_TRAINING = False  # a graph's `training` replaces what is written into its calls
KerasTensor = keras3.KerasTensor
VARIABLES = (tf.Variable,)
_Tracker = type(keras.layers.Dropout(0.5)._tracker)  # no public name
COPIED = (keras3.Operation, keras3.metrics.Metric, keras3.Variable, keras3.random.SeedGenerator, _Tracker,
          tf.Variable)  # fmt: skip
flatten = keras3.tree.flatten
map_structure = keras3.tree.map_structure


def is_symbolic(value: Any) -> bool:
    """Whether this is a tensor of a graph that is being made."""
    return isinstance(value, KerasTensor)


def is_variable(value: Any) -> bool:
    """Whether this is a weight."""
    return isinstance(value, keras3.Variable)


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
    return type(model).call not in (Functional.call, keras.Sequential.call)


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


def own_variables(layer: Any) -> dict[str, Any]:
    """The variables that a layer owns itself, by attribute or path inside one ("token", "tables.0")."""
    return owned(layer, [*layer._trainable_variables, *layer._non_trainable_variables], is_variable, variable_name)


def variable_name(variable: Any) -> str:
    """The variable's own name: "kernel"."""
    return variable.name


def variable_path(variable: Any) -> str:
    """The variable's name with its layer's: "dense/kernel"."""
    return variable.path


def regularizer_of(layer: Any, variable: Any) -> Any:
    """The regularizer of one of the layer's variables, or None."""
    return variable.regularizer


def constraint_of(variable: Any) -> Any:
    """What is applied to a variable after each optimizer step, or None."""
    return getattr(variable, "constraint", None)


def constrain(variable: Any, constraint: Any) -> None:
    """Have something applied to a variable after each optimizer step; None ends it."""
    variable.constraint = constraint


def add_penalty(layer: Any, variable: Any, penalty: Callable[[Any], Any]) -> Callable[[], None]:
    """Add a penalty of one of the layer's variables to its losses; what is returned takes it away again."""
    before = variable.regularizer
    variable.regularizer = penalty if before is None else lambda value: before(value) + penalty(value)

    def undo() -> None:
        variable.regularizer = before

    return undo


def swap_variable(layer: Any, attribute: str, shape: Sequence[int], dtype: str) -> Any:
    """A new variable, not trained, in place of the one in an attribute of a built layer; the old one is forgotten."""
    old = getattr(layer, attribute)
    locked = layer._tracker.locked
    layer._tracker.unlock()
    layer._untrack_variable(old)
    new = layer.add_weight(name=old.name, shape=tuple(shape), dtype=dtype, initializer="zeros", trainable=False)
    setattr(layer, attribute, new)
    if locked:
        layer._tracker.lock()
    return new


def watch_gradients(optimizer: Any, seen: Callable[[list], None]) -> Callable[[], None]:
    """Show `seen` the (gradient, variable) pairs of each step before they are applied; what is returned ends it."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)  # behind the one that scales losses
    original = inner.apply

    def apply(grads: Any, trainable_variables: Any = None) -> Any:
        variables = inner._trainable_variables if trainable_variables is None else trainable_variables
        grads, variables = list(grads), list(variables)
        seen(list(zip(grads, variables, strict=True)))
        return original(grads, trainable_variables if trainable_variables is None else variables)

    vars(inner)["apply"] = apply
    return lambda: vars(inner).pop("apply", None)


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


class _Scope(keras3.StatelessScope):
    """A scope that knows which variables were assigned to in it; a layer does not list the states that it keeps."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.updated: dict[int, Any] = {}

    def add_update(self, update: tuple[Any, Any]) -> None:
        super().add_update(update)
        self.updated[id(update[0])] = update[0]


def _holds_codes(variable: Any) -> bool:
    return not tf.as_dtype(variable.dtype).is_floating


def replaced(layer: Any, replacements: Sequence[tuple[Any, Any]], call: Callable[[], Any]) -> Any:
    """The outputs of `call()`, for which variables of `layer` (at any depth) read as the given tensors.

    Args:
        layer: the layer whose call happens inside `call`.
        replacements: (variable, tensor) pairs; the tensor is of the variable's shape unless that holds whole numbers.
        call: computes the outputs.

    Returns:
        What `call` returns. What it assigned to other variables is assigned, what it added as losses is added.
    """
    around = get_stateless_scope()
    like = [(v, t) for v, t in replacements if not _holds_codes(v)]
    codes = [(v, t) for v, t in replacements if _holds_codes(v)]  # a scope takes only tensors like the variable
    parts = (layer, *sublayers(layer, recursive=True)) if codes else ()
    pairs = [(part, {id(v): tf.cast(t, part.compute_dtype) for v, t in codes}) for part in parts]
    scope = _Scope(state_mapping=like, collect_losses=True)
    if around is not None:
        scope.state_mapping = {**around.state_mapping, **scope.state_mapping}
    with scope, exchanging(pairs):
        outputs = call()
    hidden = {id(variable) for variable, _ in replacements}
    for variable in scope.updated.values():
        if id(variable) not in hidden:
            variable.assign(scope.get_current_value(variable))
    for loss in scope.losses:
        layer.add_loss(loss)
    return outputs


def cast_inputs(layer: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """The arguments as `layer.__call__` would hand them to `layer.call`."""
    if not layer._convert_input_args:
        return args, kwargs

    def convert(value: Any) -> Any:
        converted = layer.dtype_policy.convert_input(value, layer.autocast, layer.input_dtype)
        if converted is not value and mask_of(value) is not None:
            set_mask(converted, mask_of(value))
        return converted

    return map_structure(convert, args), map_structure(convert, kwargs)


def mask_of(tensor: Any) -> Any:
    """The mask that Keras passes along behind a tensor, or None."""
    return getattr(tensor, "_keras_mask", None)


def set_mask(tensor: Any, mask: Any) -> None:
    """Pass a mask along behind a tensor."""
    tensor._keras_mask = mask


def accepts_training(layer: Any) -> bool:
    """Whether a layer's call takes `training`."""
    return "training" in inspect.signature(layer.call).parameters


def _bound(layer: Any, args: tuple, kwargs: dict) -> dict[str, Any]:
    """The call's arguments by name, defaults left out."""
    names = {k: v for k, v in kwargs.items() if k != "training" or accepts_training(layer)}
    return dict(inspect.signature(layer.call).bind(*args, **names).arguments)


def mask_arguments(layer: Any, args: tuple, kwargs: dict) -> dict[str, Any]:
    """The masks that Keras would hand to `call` behind the tensors, as keyword arguments."""
    parameters = inspect.signature(layer.call).parameters
    given = _bound(layer, args, kwargs)
    tensors = {k: v for k, v in given.items() if any(map(is_symbolic, flatten(v))) and not k.endswith("mask")}
    names = {k: "mask" if len(tensors) == 1 else f"{k}_mask" for k in tensors}
    masks = {names[k]: map_structure(mask_of, v) for k, v in tensors.items()}
    return {k: m for k, m in masks.items()
            if k in parameters and given.get(k) is None and any(t is not None for t in flatten(m))}  # fmt: skip


def settle_masks(layer: Any, args: tuple, kwargs: dict, outputs: Any, opened: bool) -> None:
    """Hand the masks on to the outputs, as `layer.__call__` does. A leaf's own `__call__` has done it."""
    if not opened or not layer.supports_masking:
        return
    given = _bound(layer, args, kwargs)
    first = next(iter(given.values()), None)
    previous = given["mask"] if given.get("mask") is not None else map_structure(mask_of, first)
    tensors = flatten(outputs)
    if all(mask_of(t) is not None for t in tensors):
        return
    masks = layer.compute_mask(first, previous)
    for tensor, mask in zip(tensors, [] if masks is None else flatten(masks), strict=False):
        if mask is not None and mask_of(tensor) is None:
            set_mask(tensor, mask)


def settle_shapes(layer: Any, args: tuple, kwargs: dict, outputs: Any) -> None:
    """Give what an EinsumDense returns the lengths of its input; Keras reads them off `output_shape`, None for any."""
    if not isinstance(layer, keras.layers.EinsumDense) or "..." in layer.equation:
        return
    operands, result = layer.equation.replace(" ", "").split("->")
    sizes = dict(zip(operands.split(",")[0], flatten((args, kwargs))[0].shape, strict=True))
    known = (sizes.get(letter) if size is None else size for letter, size in zip(result, outputs.shape, strict=True))
    outputs._shape = tuple(known)  # no public way


def masked_softmax(layer: Any, inputs: Any, mask: Any) -> Any:
    """What a Softmax layer makes of a mask, as operations of a graph; its own call takes no symbolic mask."""
    ops, axis = keras3.ops, layer.axis
    kept = mask if mask.dtype == "bool" else ops.greater(mask, 0.5)
    scores = ops.where(kept, inputs, -6e4 if inputs.dtype == "float16" else -1e9)
    return ops.softmax(scores, axis=axis if isinstance(axis, int) else tuple(axis))


def copy_variable(variable: Any) -> Any:
    """A new tf.Variable equal to an old one; a Keras variable is an object like others, around such a one."""
    return tf.Variable(variable, trainable=variable.trainable, name=variable.name.split(":")[0], dtype=variable.dtype,
                       shape=variable.shape, aggregation=variable.aggregation,
                       synchronization=variable.synchronization)  # fmt: skip


def blank_copy(old: Any) -> tuple[Any, set[str]]:
    """A new object of the class of `old` with no attributes of its own, and those to leave as they are in it."""
    if isinstance(old, keras.layers.Layer):  # Layer.__new__ closes `build` and `quantize` over the new object
        kind: Any = type(old)
        return kind.__new__(kind), {"build", "quantize"}
    return object.__new__(type(old)), set()


def finish_copy(new: Any) -> None:
    """A tracker knows its members by their ids."""
    if isinstance(new, _Tracker):
        new.stored_ids = {name: {id(v) for v in store} for name, (_, store) in new.config.items()}


def is_tracked_container(value: Any) -> bool:
    """Whether this is a list, dict or set that reports its members to a layer: Keras' own, or TensorFlow's."""
    return isinstance(value, (list, dict, set)) and (hasattr(value, "tracker") or _is_wrapper(value))


def _is_wrapper(value: Any) -> bool:
    """Whether this is TensorFlow's container, which holds the states of recurrent layers; its class is not public."""
    return type(value).__name__ in ("ListWrapper", "_DictWrapper")


def copy_container(old: Any, again: Callable[[Any], Any], keep: Callable[[Any], Any]) -> Any:
    """A copy of a tracked list, dict or set; Keras' own is filled past its tracker, which is copied itself."""
    if _is_wrapper(old):
        return keep(tf.__internal__.tracking.wrap(again(list(old) if isinstance(old, list) else dict(old))))
    new = keep(type(old)())
    if isinstance(old, dict):
        dict.update(new, {again(k): again(v) for k, v in old.items()})
    elif isinstance(old, list):
        list.extend(new, [again(v) for v in old])
    else:
        set.update(new, [again(v) for v in old])
    new.tracker = again(old.tracker)
    return new


def loosened_operation(operation: Any, loosen: Callable[[Any], Any]) -> Any:
    """A new operation from the constructor arguments of an old one, each passed through `loosen`.

    Only so does it save what it computes: the config of an operation is what its constructor was called with.
    """
    config = operation.get_config()
    return type(operation).from_config({k: v if k == "name" else loosen(v) for k, v in config.items()})


def read(variable: Any) -> tf.Tensor:
    """A variable as a tensor of its own dtype, whatever the layer around computes in."""
    with AutocastScope(None):
        return tf.convert_to_tensor(variable.value)


def dtype_policy(layer: Any) -> Any:
    """The dtypes that a layer computes in and keeps its weights in."""
    return layer.dtype_policy


def mean_over_replicas() -> dict[str, Any]:
    """Arguments of `add_weight` for a variable whose replicas agree on the mean of what each assigns."""
    return {"aggregation": "mean"}


def operation_name(operation: Any) -> str | None:
    """The name of a plain operation without underscores and case ("getitem"); None for a layer."""
    return type(operation).__name__.replace("_", "").lower() if is_operation(operation) else None


def input_name(tensor: Any) -> str:
    """The name that a user gave an input of a model."""
    return tensor.name


def pack_like(structure: Any, flat: Sequence[Any]) -> Any:
    """Flat values in a structure like another."""
    return keras3.tree.pack_sequence_as(structure, flat)


@contextlib.contextmanager
def masks_may_end() -> Iterator[None]:
    """No warning of layers that drop a mask: in a traced graph masks are arguments, Keras' own copies may end."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Layer .* was passed an input with a mask attached to it")
        yield


def branches_recorded() -> contextlib.AbstractContextManager[None]:
    """Nothing: in this flavor no layer may branch on the value of a tensor in a graph."""
    return contextlib.nullcontext()


def compute_in_float32(layer: Any) -> None:
    """Let a layer whose dtype policy is a mixed one compute in the type of its variables."""
    for part in (layer, *sublayers(layer, recursive=True)):
        if part.dtype != part.compute_dtype:
            part.dtype_policy = "float32"


def compiled_loss(model: Any, y: Any, y_pred: Any, sample_weight: Any) -> Any:
    """The loss that a model was compiled with, without those of its layers."""
    return model._compile_loss(y, y_pred, sample_weight)


def distribution_problem(model: Any) -> str | None:
    """Why TensorFlow cannot train the model as it was compiled, on several CPU replicas; None when it can."""
    strategy = model.distribute_strategy
    if strategy.num_replicas_in_sync < 2 or any("CPU" not in device for device in strategy.extended.worker_devices):
        return None
    if model.jit_compile is True:
        return "`jit_compile` must be False under a strategy of several CPU replicas: XLA does not run there"
    if model.steps_per_execution > 1:
        return "`steps_per_execution` must be 1 under a strategy of several CPU replicas: Keras 3 cannot run more there"
    return None
