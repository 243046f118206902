"""Layers in the form that the runtime has for them: fused LSTM, unrolled recurrence, 3-D convolution by 2-D ones."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.flavor import keras
from tfcompress.core.replay import Call, again, calls, replay
from tflite_export.errors import ExportError

_layers = keras.layers


def needs_forms(model: Any, inner: bool = False) -> bool:
    """Whether a layer of the model has another form in the file.

    Args:
        model: a Keras model.
        inner: look only inside of composite layers and nested models, which must be opened first.
    """
    if not inner:
        return any(_form_of(call.operation) for call in calls(model))
    whole = [layer for layer in flavor.sublayers(model) if flavor.is_whole(layer)]
    hidden = {id(part) for layer in whole for part in flavor.sublayers(layer, recursive=True)}
    top = {id(call.operation) for call in calls(model)} | hidden
    return any(_form_of(layer) for layer in flavor.sublayers(model, recursive=True) if id(layer) not in top)


def runtime_forms(
    model: Any, fused: bool = True, shapes: Sequence[Sequence[int | None]] | None = None
) -> tuple[Any, list[tuple[str, str]]]:
    """A Functional model whose layers have the runtime's forms.

    Args:
        model: a Functional model, not changed. The result shares its other layers.
        fused: whether the runtime has the fused LSTM in the precision to come.
        shapes: of the inputs in the order in which Keras flattens them, without batch; the model's own by default.

    Returns:
        (a model that computes the same, (layer, form) for each layer that has another form).

    Raises:
        ExportError: a recurrent layer whose number of steps is not known, or which keeps its state between calls.
    """
    forms: list[tuple[str, str]] = []

    def call(old: Call, args: tuple, kwargs: dict[str, Any]) -> Any:
        form = _form_of(old.operation)
        if form is None:
            return again(old, args, kwargs)
        layer = form(old.operation, [t for t in flavor.flatten((args, kwargs)) if flavor.is_symbolic(t)], fused)
        forms.append((old.name, layer.form))
        return layer(*args, **kwargs)

    return replay(model, call, shapes=shapes), list(dict.fromkeys(forms))


def _form_of(operation: Any) -> Any:
    """What makes the form of an operation: (operation, input tensors, fused) -> layer. None: it stays as it is."""
    if isinstance(operation, (_layers.RNN, _layers.Bidirectional)):
        return _recurrent
    if isinstance(operation, _layers.Conv3D) and not isinstance(operation, _layers.Conv3DTranspose):
        return lambda layer, inputs, fused: DepthSlices(layer)
    return None


def _recurrent(layer: Any, inputs: list[Any], fused: bool) -> Any:
    _check_steps(layer, inputs[0])
    _check_state(layer)
    single = len(inputs) == 1 and flavor.mask_of(inputs[0]) is None
    parts = [layer.forward_layer, layer.backward_layer] if isinstance(layer, _layers.Bidirectional) else [layer]
    if fused and single and all(map(_fusible, parts)) and not any(part.return_state for part in parts):
        return Fused(layer, parts)
    return Unrolled(layer, parts)


def _fusible(layer: Any) -> bool:
    """Whether the runtime's fused kernel computes this layer: an LSTM with the usual activations."""
    return (
        isinstance(layer, _layers.LSTM)
        and layer.activation is keras.activations.get("tanh")
        and layer.recurrent_activation is keras.activations.get("sigmoid")
    )


def _check_steps(layer: Any, sequence: Any) -> None:
    shape = tuple(sequence.shape)
    if len(shape) < 3 or shape[1] is None:
        raise ExportError(
            f"Layer {layer.name!r} runs over an unknown number of steps (input {shape}); a file has a fixed one. "
            "Give the model's input a fixed length, in the model or by `shapes`"
        )


def _check_state(layer: Any) -> None:
    if layer.stateful:
        raise ExportError(
            f"Layer {layer.name!r} keeps its state from one call to the next (stateful=True), which a file does not. "
            "Make the state an input and an output of the model: `initial_state=` and return_state=True"
        )


class Unrolled(keras.layers.Layer):
    """A recurrent layer, its steps one after the other in the graph instead of in a loop."""

    form = "unrolled"

    def __init__(self, layer: Any, parts: list[Any]) -> None:
        super().__init__(name=layer.name, dtype=layer.dtype)
        self.layer, self.parts = layer, parts
        self.built = self.supports_masking = True

    def call(self, *args: Any, **kwargs: Any) -> Any:
        kwargs.pop("training", None)
        with _unrolling(self.parts):
            return self.layer.call(*args, **kwargs)

    def compute_mask(self, *args: Any, **kwargs: Any) -> Any:
        return self.layer.compute_mask(*args, **kwargs)

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        return self.layer.compute_output_spec(*args, **kwargs)


@contextlib.contextmanager
def _unrolling(parts: list[Any]) -> Iterator[None]:
    """The layers compute step by step as long as this lasts."""
    wanted = {"unroll": True, "_could_use_gpu_kernel": False}
    before = [(part, name, getattr(part, name)) for part in parts for name in wanted if hasattr(part, name)]
    try:
        for part, name, _ in before:
            setattr(part, name, wanted[name])
        yield
    finally:
        for part, name, value in before:
            setattr(part, name, value)


class Fused(keras.layers.Layer):
    """An LSTM (or two, in both directions) as TensorFlow's block operation, which becomes the runtime's fused one."""

    form = "fused UNIDIRECTIONAL_SEQUENCE_LSTM"

    def __init__(self, layer: Any, parts: list[Any]) -> None:
        super().__init__(name=layer.name, dtype=layer.dtype)
        self.layer, self.parts = layer, parts
        self.built = True

    def call(self, inputs: Any, **_: Any) -> Any:
        results = [_block(part, inputs) for part in self.parts]
        if not isinstance(self.layer, _layers.Bidirectional):
            return results[0]
        forward, backward = results
        if self.layer.return_sequences:
            backward = tf.reverse(backward, [1])
        merged = {
            "concat": lambda: tf.concat([forward, backward], -1),
            "sum": lambda: forward + backward,
            "ave": lambda: (forward + backward) / 2,
            "mul": lambda: forward * backward,
        }
        return merged[self.layer.merge_mode]() if self.layer.merge_mode else (forward, backward)

    def compute_output_spec(self, inputs: Any, **_: Any) -> Any:
        return self.layer.compute_output_spec(inputs)


def _block(layer: Any, inputs: tf.Tensor) -> tf.Tensor:
    """[B, T, F] -> [B, T, U], or [B, U] of the last step. A layer that goes backwards returns its own order."""
    cell, units = layer.cell, layer.units
    x = tf.reverse(inputs, [1]) if layer.go_backwards else inputs
    bias = tf.convert_to_tensor(cell.bias) if cell.use_bias else tf.zeros(4 * units)
    state, peephole = tf.zeros((tf.shape(x)[0], units)), tf.zeros(units)
    weights = tf.concat([tf.convert_to_tensor(cell.kernel), tf.convert_to_tensor(cell.recurrent_kernel)], 0)
    sequence = tf.raw_ops.BlockLSTMV2(
        seq_len_max=tf.constant(x.shape[1], tf.int64), x=tf.transpose(x, [1, 0, 2]), cs_prev=state, h_prev=state,
        w=weights, wci=peephole, wcf=peephole, wco=peephole, b=bias, cell_clip=0.0, use_peephole=False,
    ).h  # fmt: skip
    return tf.transpose(sequence, [1, 0, 2]) if layer.return_sequences else sequence[-1]


class DepthSlices(keras.layers.Layer):
    """A 3-D convolution as a sum of 2-D ones: one for each slice of the kernel's depth, over all depths at once.

        y[d] = sum over k of conv2d(x[d * stride + k * dilation - pad], kernel[k])

    The runtime's 3-D convolution has no integer kernel.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__(name=layer.name, dtype=layer.dtype)
        self.layer = layer
        self.form = f"sum of {layer.kernel_size[0]} CONV_2D"
        self.built = True

    def call(self, inputs: Any, **_: Any) -> Any:
        layer = self.layer
        x = inputs if layer.data_format == "channels_last" else tf.transpose(inputs, [0, 2, 3, 4, 1])
        kernel = tf.convert_to_tensor(layer.kernel)
        size, stride, dilation = (value[0] for value in (layer.kernel_size, layer.strides, layer.dilation_rate))
        depth, reach = x.shape[1], (size - 1) * dilation + 1
        if layer.padding == "same":
            total = max((-(-depth // stride) - 1) * stride + reach - depth, 0)
            x = tf.pad(x, [[0, 0], [total // 2, total - total // 2], [0, 0], [0, 0], [0, 0]])
            depth += total
        count = (depth - reach) // stride + 1
        y: Any = 0
        for k in range(size):
            start = k * dilation
            part = x[:, start : start + (count - 1) * stride + 1 : stride]
            flat = tf.reshape(part, [-1, *x.shape[2:]])
            dilations = list(layer.dilation_rate[1:])
            y = y + tf.nn.conv2d(flat, kernel[k], list(layer.strides[1:]), layer.padding.upper(), dilations=dilations)
        y = tf.reshape(y, [-1, count, *y.shape[1:]])
        if layer.use_bias:
            y = y + tf.convert_to_tensor(layer.bias)
        y = y if layer.data_format == "channels_last" else tf.transpose(y, [0, 4, 1, 2, 3])
        return y if layer.activation is None else layer.activation(y)

    def compute_output_spec(self, inputs: Any, **_: Any) -> Any:
        return self.layer.compute_output_spec(inputs)
