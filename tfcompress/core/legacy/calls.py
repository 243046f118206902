"""tf_keras: what a call does besides computing: casts, masks, shapes, losses."""

import contextlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from tfcompress.core.legacy.graph import flatten, map_structure, sublayers


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


def masks_may_end() -> contextlib.AbstractContextManager[None]:
    """Nothing: this flavor says nothing of masks that are dropped."""
    return contextlib.nullcontext()


@contextlib.contextmanager
def drawn(operation: Any) -> Iterator[None]:
    """While this holds, LSTM and GRU in an operation build their plain kernel alone.

    Else a call with a mask builds one for each kind of device, with their gradients: that takes ten times as long, and
    nobody runs what a symbolic call builds.
    """
    layers = [operation, *sublayers(operation, recursive=True)]
    fast = [layer for layer in layers if getattr(layer, "_could_use_gpu_kernel", False)]
    try:
        for layer in fast:
            layer._could_use_gpu_kernel = False
        yield
    finally:
        for layer in fast:
            layer._could_use_gpu_kernel = True


def branches_recorded() -> contextlib.AbstractContextManager[Any]:
    """While this holds, AutoGraph turns branches of a layer's call on values into the graph's, as it does outside."""
    outside = tf.__internal__.autograph.control_status_ctx()
    return type(outside)(status=type(outside.status).ENABLED)


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
