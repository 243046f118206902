"""What the outputs of a model are: logits, or probabilities of one kind or the other."""

from typing import Any

from tfcompress.core import flavor
from tfcompress.core.flavor import keras

# Hand values on as they are, or rounded.
_RESHAPES = frozenset({"Reshape", "Flatten", "Lambda"})
_PASSES = _RESHAPES | {"Quantizer", "Dropout", "Identity"}


def output_kind(model: Any, output: int = 0) -> str:
    """ "softmax" or "sigmoid" where that activation makes an output, else "logits".

    Args:
        model: a graph is searched from its output backwards; of other models the last layer is looked at.
        output: which of the outputs.

    >>> output_kind(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, activation="softmax")]))
    'softmax'
    """
    if flavor.is_graph(model):
        made = _maker(model, output)
        return "logits" if made is None else _kind(made)
    layers = [layer for layer in getattr(model, "layers", []) if not isinstance(layer, keras.layers.InputLayer)]
    while len(layers) > 1 and _passes(layers[-1]):
        layers.pop()
    return _kind(layers[-1]) if layers else "logits"


def probabilities_layer(model: Any, output: int = 0) -> Any:
    """The layer whose input are the logits of an output that are probabilities; None where no layer does that alone.

    The logarithm of a probability that was rounded to zero is lost, and so is its gradient: logits are not.

    >>> last = keras.layers.Softmax()
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), last])
    >>> probabilities_layer(model) is last
    True
    """
    made = _maker(model, output, reshaped=False) if flavor.is_graph(model) else None
    inner = getattr(made, "layer", None) or made
    alone = isinstance(inner, (keras.layers.Activation, keras.layers.Softmax))
    last = getattr(inner, "axis", -1) == -1
    return made if alone and last and _kind(made) in ("softmax", "sigmoid") else None


def _maker(model: Any, output: int, reshaped: bool = True) -> Any:
    """The operation that makes an output of a graph, behind those that hand values on; None for an input."""
    made = flavor.producer(flavor.flatten(flavor.graph_outputs(model))[output])
    while made is not None and _passes(made[0]) and (reshaped or type(made[0]).__name__ not in _RESHAPES):
        before = [t for t in flavor.flatten(flavor.node_arguments(made[2])) if flavor.is_symbolic(t)]
        made = flavor.producer(before[0])
    return None if made is None else made[0]


def _passes(operation: Any) -> bool:
    """Whether outputs are what they were before; `Activation("linear", dtype="float32")` ends half-precision models."""
    if isinstance(operation, keras.layers.Activation):
        return _activation(operation) == "linear"
    return type(operation).__name__ in _PASSES and _activation(operation) is None


def _kind(operation: Any) -> str:
    if isinstance(operation, keras.Model):
        return output_kind(operation)
    if isinstance(operation, keras.layers.Softmax):
        return "softmax"
    name = _activation(operation) or flavor.operation_name(operation) or ""
    return name if name in ("softmax", "sigmoid") else "logits"


def _activation(operation: Any) -> str | None:
    """Name of the activation that a layer, or the layer in a wrapper, ends in."""
    inner = getattr(operation, "layer", None)
    activation = getattr(operation, "activation", None) or getattr(inner, "activation", None)
    name = activation if isinstance(activation, str) else getattr(activation, "__name__", None)
    return name and name.removesuffix("_v2")  # TensorFlow calls its own softmax so
