"""What the outputs of a model are: logits, or probabilities of one kind or the other."""

from typing import Any

import numpy as np

from tfcompress.core import flavor
from tfcompress.core.flavor import keras

# Hand values on as they are, or rounded, in another place or shape. A Lambda may do anything.
_MOVES = frozenset({
    "Reshape", "Flatten", "Permute", "RepeatVector", "UpSampling1D", "UpSampling2D", "UpSampling3D", "Resizing",
    "Cropping1D", "Cropping2D", "Cropping3D",
})  # fmt: skip
_PASSES = _MOVES | {"Quantizer", "Dropout", "Identity", "ActivityRegularization"}


def output_kind(model: Any, output: int = 0) -> str:
    """ "softmax" or "sigmoid" where that activation makes an output, else "logits".

    Args:
        model: a graph is searched from its output backwards; of other models the last layer is looked at.
        output: which of the outputs.

    >>> output_kind(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, activation="softmax")]))
    'softmax'
    """
    if flavor.is_graph(model):
        return _kind_of_tensor(flavor.flatten(flavor.graph_outputs(model))[output])
    layers = [layer for layer in getattr(model, "layers", []) if not isinstance(layer, keras.layers.InputLayer)]
    while len(layers) > 1 and _passes(layers[-1]):
        layers.pop()
    return _kind(layers[-1]) if layers else "logits"


def layer_kind(layer: Any) -> str:
    """As `output_kind`, of what a layer inside a model returns; what hands values on is what is in front of it.

    >>> inner = keras.layers.Dense(2, activation="sigmoid")
    >>> model = keras.Sequential([keras.Input((3,)), inner, keras.layers.Dense(2)])
    >>> layer_kind(inner)
    'sigmoid'
    """
    try:
        made = flavor.flatten(layer.output)[0] if _passes(layer) else None
    except (AttributeError, ValueError):  # it is in no graph, or called several times
        made = None
    return _kind(layer) if made is None else _kind_of_tensor(made)


def answers_kind(answers: Any) -> str:
    """ "softmax" where numbers are probabilities that sum to one along a last axis of at least two, else "logits".

    Outputs between 0 and 1 that each decide on their own cannot be told from logits, and are not guessed.

    Args:
        answers: [rows, ..., classes].

    >>> answers_kind([[0.25, 0.75]]), answers_kind([[0.25, 0.25]])
    ('softmax', 'logits')
    """
    found = np.asarray(answers, np.float64)
    if not found.size or found.ndim < 2 or found.shape[-1] < 2 or found.min() < 0 or found.max() > 1 + 1e-3:
        return "logits"
    return "softmax" if np.abs(found.sum(-1) - 1).max() < 1e-2 else "logits"


def probabilities_layer(model: Any, output: int = 0) -> Any:
    """The layer whose input are the logits of an output that are probabilities; None where no layer does that alone.

    The logarithm of a probability that was rounded to zero is lost, and so is its gradient: logits are not.

    >>> last = keras.layers.Softmax()
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), last])
    >>> probabilities_layer(model) is last
    True
    """
    made = None
    if flavor.is_graph(model):
        made = _maker(flavor.flatten(flavor.graph_outputs(model))[output], moved=False)
    inner = getattr(made, "layer", None) or made
    alone = isinstance(inner, (keras.layers.Activation, keras.layers.Softmax))
    last = getattr(inner, "axis", -1) == -1
    return made if alone and last and _kind(made) in ("softmax", "sigmoid") else None


def _kind_of_tensor(tensor: Any) -> str:
    made = _maker(tensor)
    return "logits" if made is None else _kind(made)


def _maker(tensor: Any, moved: bool = True) -> Any:
    """The operation that makes a tensor of a graph, behind those that hand values on; None for an input."""
    made = flavor.producer(tensor)
    while made is not None and _passes(made[0]) and (moved or type(made[0]).__name__ not in _MOVES):
        before = [t for t in flavor.flatten(flavor.node_arguments(made[2])) if flavor.is_symbolic(t)]
        made = flavor.producer(before[0])
    return None if made is None else made[0]


def _passes(operation: Any) -> bool:
    """Whether outputs are what they were before; `Activation("linear", dtype="float32")` ends half-precision models."""
    if isinstance(operation, keras.layers.Activation):
        return _activation(operation) == "linear"
    if isinstance(operation, keras.layers.Permute):
        return operation.dims[-1] == len(operation.dims)
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
