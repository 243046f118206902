"""Which Keras this process uses, and the names both flavors share.

`tf.keras` is Keras 3, or tf_keras when `TF_USE_LEGACY_KERAS=1` was set before TensorFlow was imported. All that differs
between the two lives in the packages `keras3` and `legacy`; every other file imports from here and never asks.
"""

from typing import Any

import tensorflow as tf

if tf.keras.Model.__module__.startswith("tf_keras"):
    from tfcompress.core import legacy as _chosen
else:
    from tfcompress.core import keras3 as _chosen  # type: ignore[no-redef]

keras = _chosen.keras
saving = _chosen.saving
register = saving.register_keras_serializable("tfcompress")
NAME = _chosen.NAME
OTHER = _chosen.OTHER
KerasTensor = _chosen.KerasTensor
BATCHES = _chosen.BATCHES
VARIABLES = _chosen.VARIABLES
COPIED = _chosen.COPIED
flatten = _chosen.flatten
map_structure = _chosen.map_structure
is_symbolic = _chosen.is_symbolic
is_variable = _chosen.is_variable
is_graph = _chosen.is_graph
is_operation = _chosen.is_operation
symbol_of = _chosen.symbol_of
is_whole = _chosen.is_whole
overrides_call = _chosen.overrides_call
graph_nodes = _chosen.graph_nodes
graph_inputs = _chosen.graph_inputs
graph_outputs = _chosen.graph_outputs
reference_inputs = _chosen.reference_inputs
input_like = _chosen.input_like
producer = _chosen.producer
node_arguments = _chosen.node_arguments
forget_calls = _chosen.forget_calls
set_name = _chosen.set_name
holds_nothing = _chosen.holds_nothing
own_variables = _chosen.own_variables
sublayers = _chosen.sublayers
variable_name = _chosen.variable_name
variable_path = _chosen.variable_path
regularizer_of = _chosen.regularizer_of
constraint_of = _chosen.constraint_of
constrain = _chosen.constrain
add_penalty = _chosen.add_penalty
swap_variable = _chosen.swap_variable
watch_gradients = _chosen.watch_gradients
input_specs = _chosen.input_specs
replaced = _chosen.replaced
cast_inputs = _chosen.cast_inputs
mask_of = _chosen.mask_of
set_mask = _chosen.set_mask
masked_softmax = _chosen.masked_softmax
mask_arguments = _chosen.mask_arguments
settle_masks = _chosen.settle_masks
settle_shapes = _chosen.settle_shapes
settle_build_shapes = _chosen.settle_build_shapes
accepts_training = _chosen.accepts_training
copy_variable = _chosen.copy_variable
blank_copy = _chosen.blank_copy
finish_copy = _chosen.finish_copy
is_tracked_container = _chosen.is_tracked_container
copy_container = _chosen.copy_container
loosened_operation = _chosen.loosened_operation
read = _chosen.read
dtype_policy = _chosen.dtype_policy
mean_over_replicas = _chosen.mean_over_replicas
operation_name = _chosen.operation_name
input_name = _chosen.input_name
pack_like = _chosen.pack_like
masks_may_end = _chosen.masks_may_end
drawn = _chosen.drawn
branches_recorded = _chosen.branches_recorded
compute_in_float32 = _chosen.compute_in_float32
compiled_loss = _chosen.compiled_loss
distribution_problem = _chosen.distribution_problem
STATIC_BATCH = _chosen.STATIC_BATCH
HONORS_TRAINING = _chosen.HONORS_TRAINING

_SWITCH = {
    "keras 3": "unset TF_USE_LEGACY_KERAS (before TensorFlow is imported)",
    "tf_keras": "set TF_USE_LEGACY_KERAS=1 (before TensorFlow is imported)",
}


def steps_done(optimizer: Any) -> int:
    """How many steps an optimizer has made."""
    steps = optimizer.iterations
    return int(read(steps) if is_variable(steps) else steps)


def check_model(model: Any, argument: str = "model") -> None:
    """Refuse what is not a built model of this process's Keras.

    Args:
        model: what a user passed.
        argument: the name of the parameter it was passed to.

    Raises:
        TypeError: not a Keras model, or a model of the other flavor.
        ValueError: a model that has no weights yet because it has never seen an input shape.
    """
    check_flavor(model, argument)
    if not is_graph(model) and not model.built:
        raise ValueError(
            f"`{argument}` must be built, so that its weights exist: call it once on data, or give its first layer an "
            f"input shape (keras.Input). Received: {argument}={model.name!r}, an unbuilt {type(model).__name__}"
        )


def check_flavor(model: Any, argument: str = "model") -> None:
    """Refuse what is not a model of this process's Keras; it need not be built.

    Args:
        model: what a user passed.
        argument: the name of the parameter it was passed to.

    Raises:
        TypeError: not a Keras model, or a model of the other flavor.
    """
    if not isinstance(model, keras.Model):
        other = {"tf_keras": "tf_keras", "keras 3": "keras"}[OTHER]
        if any(base.__module__.split(".")[0] == other and base.__name__ == "Model" for base in type(model).__mro__):
            raise TypeError(
                f"`{argument}` is a model of {OTHER}, but `tf.keras` is {NAME} in this process: {_SWITCH[OTHER]}, "
                f"or build the model with `tf.keras`. Received: {argument}={model!r}"
            )
        raise TypeError(f"`{argument}` must be a keras.Model. Received: {argument}={model!r} of type {type(model)}")
