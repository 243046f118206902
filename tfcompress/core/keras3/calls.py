"""Keras 3: what a call does besides computing: casts, masks, shapes, losses."""

import contextlib
import inspect
import warnings
from collections.abc import Iterator
from typing import Any

import keras as keras3

from tfcompress.core.einsum import Equation
from tfcompress.core.keras3.graph import flatten, is_symbolic, keras, map_structure, operation_name


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
    """Give what an EinsumDense returns the lengths of its input, which Keras reads off `output_shape` (None for any).

    Of attention as one operation Keras says that the output is as wide as the queries; it is as wide as the values.
    """
    if operation_name(layer) == "dotproductattention":
        outputs._shape = (*outputs.shape[:-1], flatten((args, kwargs))[2].shape[-1])  # no public way
        return
    if not isinstance(layer, keras.layers.EinsumDense) or "..." in layer.equation:
        return
    equation = Equation.of(layer.equation)
    sizes = dict(zip(equation.given, flatten((args, kwargs))[0].shape, strict=True))
    known = (sizes.get(c) if size is None else size for c, size in zip(equation.made, outputs.shape, strict=True))
    outputs._shape = tuple(known)  # no public way


def masked_softmax(layer: Any, inputs: Any, mask: Any) -> Any:
    """What a Softmax layer makes of a mask, as operations of a graph; its own call takes no symbolic mask."""
    ops, axis = keras3.ops, layer.axis
    kept = mask if mask.dtype == "bool" else ops.greater(mask, 0.5)
    scores = ops.where(kept, inputs, -6e4 if inputs.dtype == "float16" else -1e9)
    return ops.softmax(scores, axis=axis if isinstance(axis, int) else tuple(axis))


@contextlib.contextmanager
def masks_may_end() -> Iterator[None]:
    """No warning of layers that drop a mask: in a traced graph masks are arguments, Keras' own copies may end."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Layer .* was passed an input with a mask attached to it")
        yield


def drawn(operation: Any) -> contextlib.AbstractContextManager[None]:
    """Nothing: a symbolic call of this flavor builds no kernel that nobody runs."""
    return contextlib.nullcontext()


def branches_recorded() -> contextlib.AbstractContextManager[None]:
    """Nothing: in this flavor no layer may branch on the value of a tensor in a graph."""
    return contextlib.nullcontext()


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
