"""Layers that the runtime executes as several operations, taken apart: each tensor between them is a tensor here.

- An activation that no kernel fuses (anything but a ReLU) becomes a layer of its own behind its layer.
- A hard sigmoid becomes relu6(x + 3) * (1/6), as it stands in the file.
- A separable convolution becomes a depthwise and a pointwise one.
- Attention and softmaxes with a mask become scores, mask, softmax and product.
- Where one scale serves a whole kernel, BatchNormalization is folded into the kernel before it.
"""

from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.flavor import keras
from tfcompress.core.grid import Grid
from tfcompress.core.projected import carry
from tfcompress.core.replay import Call, calls, readers, replay
from tfcompress.quantize.kinds import Kind, activation_name, kind_of
from tfcompress.quantize.layouts import kernel_grids
from tfcompress.quantize.masked_attention import Opener

_LAYERS = keras.layers
_SEPARABLE = {_LAYERS.SeparableConv1D: (_LAYERS.DepthwiseConv1D, _LAYERS.Conv1D),
              _LAYERS.SeparableConv2D: (_LAYERS.DepthwiseConv2D, _LAYERS.Conv2D)}  # fmt: skip
_FUSED = ("linear", "relu", "relu6")


def _activation_layer(layer: Any) -> Any:
    """Takes the activation off a layer and returns it as a layer; None where the runtime fuses it."""
    name = activation_name(layer)
    if name in _FUSED or kind_of(layer) is not Kind.PRODUCT:
        return None
    activation, layer.activation = layer.activation, keras.activations.linear
    if isinstance(activation, _LAYERS.Layer):
        return activation
    return _LAYERS.Activation(activation, name=f"{layer.name}_{name or 'activation'}", dtype=flavor.dtype_policy(layer))


def _hard_sigmoid(layer: Any) -> list[Any] | None:
    """relu6(x + 3) * (1/6) in place of an activation layer, where that is what Keras computes (tf_keras does not)."""
    hard = getattr(keras.activations, "hard_sigmoid", None)
    if not isinstance(layer, _LAYERS.Activation) or layer.activation is not hard:
        return None
    if abs(float(hard(tf.constant(1.0))) - 4 / 6) > 1e-6:
        return None
    name, dtype = layer.name, flavor.dtype_policy(layer)
    return [
        _LAYERS.Rescaling(1.0, offset=3.0, name=f"{name}_shifted", dtype=dtype),
        _LAYERS.ReLU(6.0, name=f"{name}_relu6", dtype=dtype),
        _LAYERS.Rescaling(1 / 6, name=name, dtype=dtype),
    ]


def _separated(layer: Any) -> tuple[Any, Any] | None:
    """The depthwise and the pointwise layer of a separable convolution, with its weights."""
    kinds = next((pair for cls, pair in _SEPARABLE.items() if type(layer) is cls), None)
    if kinds is None:
        return None
    config, size = layer.get_config(), len(layer.kernel_size)
    shared = {"trainable": layer.trainable, "dtype": flavor.dtype_policy(layer), "data_format": config["data_format"]}
    depthwise = kinds[0](
        config["kernel_size"], strides=config["strides"], padding=config["padding"],
        dilation_rate=config["dilation_rate"], depth_multiplier=config["depth_multiplier"], use_bias=False,
        depthwise_regularizer=config["depthwise_regularizer"], depthwise_constraint=config["depthwise_constraint"],
        name=f"{layer.name}_depthwise", **shared,
    )  # fmt: skip
    pointwise = kinds[1](
        config["filters"], 1, activation=layer.activation, use_bias=config["use_bias"],
        kernel_regularizer=config["pointwise_regularizer"], kernel_constraint=config["pointwise_constraint"],
        bias_regularizer=config["bias_regularizer"], bias_constraint=config["bias_constraint"],
        name=layer.name, **shared,
    )  # fmt: skip
    first, second, *bias = layer.get_weights()
    channels = [None] * size
    last = config["data_format"] == "channels_last"
    depthwise.build((None, *channels, first.shape[-2]) if last else (None, first.shape[-2], *channels))
    pointwise.build((None, *channels, second.shape[-2]) if last else (None, second.shape[-2], *channels))
    depthwise.set_weights([first])
    pointwise.set_weights([second, *bias])
    for old, new in zip(layer.weights, (*depthwise.weights, *pointwise.weights), strict=True):
        carry(old, new)
    return depthwise, pointwise


def expand(model: Any) -> Any:
    """The flat model with inner boundaries visible. Its layers are changed in place: pass a traced copy."""
    parts: dict[int, list[Any]] = {}
    opened = Opener({layer.name for layer in model.layers} | {c.operation.name for c in calls(model)})

    def split(operation: Any) -> list[Any]:
        if not isinstance(operation, _LAYERS.Layer):
            return [operation]
        layers = list(_separated(operation) or (operation,))
        activation = _activation_layer(layers[-1])
        layers += [] if activation is None else [activation]
        return [part for layer in layers for part in _hard_sigmoid(layer) or [layer]]

    def call(old: Call, args: Any, kwargs: Any) -> Any:
        apart = opened(old, args, kwargs)
        if apart is not None:
            return apart
        first, *rest = parts.setdefault(id(old.operation), split(old.operation))
        outputs = first(*args, **kwargs)
        for layer in rest:
            outputs = layer(outputs)
        return outputs

    return replay(model, call)


def _with_folded(layer: Any, norm: Any, input_shape: Any) -> Any:
    """A copy of a layer with a kernel in which the BatchNormalization behind it is folded.

    w' = w * f,  b' = (b - mean) * f + beta,   f = gamma / sqrt(variance + epsilon)
    """
    variance, mean = (np.array(tf.convert_to_tensor(v), "float64") for v in (norm.moving_variance, norm.moving_mean))
    factor = 1.0 / np.sqrt(variance + norm.epsilon)
    factor = factor * np.array(norm.gamma) if norm.scale else factor
    kernel, *bias = layer.get_weights()
    folded = type(layer).from_config({**layer.get_config(), "use_bias": True, "activation": "linear"})
    folded.build(input_shape)
    axes = next(iter(kernel_grids(layer, Grid()).values())).kept(kernel.ndim)
    shape = [kernel.shape[a] if a in axes else 1 for a in range(kernel.ndim)]
    old_bias = bias[0] if bias else np.zeros(factor.shape)
    new_bias = (old_bias - mean) * factor + (np.array(norm.beta) if norm.center else 0.0)
    folded.set_weights([kernel * factor.reshape(shape), new_bias])
    carry(layer.weights[0], folded.weights[0])
    return folded


def fold_batch_norm(model: Any) -> Any:
    """The flat model with each BatchNormalization that alone reads a convolution or Dense folded into it."""
    all_calls = calls(model)
    times: dict[int, int] = {}
    for c in all_calls:
        times[id(c.operation)] = times.get(id(c.operation), 0) + 1
    read_by = readers(all_calls)
    outputs = {id(t) for t in model.outputs}
    folded: dict[int, Any] = {}
    gone: set[int] = set()
    for c in all_calls:
        after = read_by.get(id(c.outputs[0]), [])
        foldable = kind_of(c.operation) is Kind.PRODUCT and not isinstance(c.operation, _LAYERS.EinsumDense)
        if not foldable or activation_name(c.operation) != "linear" or len(after) != 1 or id(c.outputs[0]) in outputs:
            continue
        norm = after[0].operation
        if kind_of(norm) is Kind.NORM and times[id(norm)] == 1 and times[id(c.operation)] == 1:
            folded[id(c.operation)] = _with_folded(c.operation, norm, c.inputs[0].shape)
            gone.add(id(norm))

    def call(old: Call, args: Any, kwargs: Any) -> Any:
        if id(old.operation) in gone:
            return args[0]
        return folded.get(id(old.operation), old.operation)(*args, **kwargs)

    return replay(model, call)
