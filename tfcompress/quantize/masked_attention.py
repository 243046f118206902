"""Attention and softmaxes that are given a mask, taken apart into scores, mask, softmax and product.

So the scores behind the mask have a range in training, that of what is not masked.
"""

import inspect
import itertools
import re
from typing import Any

import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.flavor import keras
from tfcompress.core.replay import Call
from tfcompress.quantize.ranges import MASK

_ATTENTION = tuple(getattr(keras.layers, name) for name in ("Attention", "AdditiveAttention"))
_HIDDEN = -1e5 * MASK


@flavor.register
class Choose(keras.layers.Layer):
    """Values where a mask holds, one number elsewhere.

    Args:
        otherwise: the number.
        causal: whether the mask also ends at the diagonal of the last two axes.
    """

    def __init__(self, otherwise: float, causal: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.otherwise, self.causal = float(otherwise), causal
        self.built = True

    def call(self, inputs: Any, keep: Any = None) -> Any:
        """Args: inputs, any shape; keep, broadcastable to it, boolean or numbers (above 0.5: it holds), or None."""
        holds = None
        if keep is not None:
            holds = keep if keep.dtype == tf.bool else tf.cast(keep, tf.float32) > 0.5
        if self.causal:
            square = tf.linalg.band_part(tf.ones(tf.shape(inputs)[-2:], tf.bool), -1, 0)
            holds = square if holds is None else tf.logical_and(holds, square)
        return inputs if holds is None else tf.where(holds, inputs, tf.cast(self.otherwise, inputs.dtype))

    def compute_output_shape(self, input_shape: Any, *_: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "otherwise": self.otherwise, "causal": self.causal}


class Opener:
    """Takes masked calls apart while a graph is replayed.

    Args:
        names: of the layers and operations that the graph has; the new ones get others.
    """

    def __init__(self, names: set[str]) -> None:
        self._names = names

    def __call__(self, old: Call, args: tuple, kwargs: dict[str, Any]) -> Any:
        """The outputs of a call of which every operation is a node of its own; None where nothing is to be opened."""
        operation = old.operation
        if flavor.operation_name(operation) == "dotproductattention":
            given = _arguments(operation, args, kwargs)
            outputs = _dot_product_attention(operation, **given) if _is_masked_product(operation, given) else None
        elif isinstance(operation, keras.layers.Softmax):
            given = _arguments(operation, args, kwargs)
            outputs = _softmax(operation, **given) if given.get("mask") is not None else None
        elif isinstance(operation, _ATTENTION):
            given = _arguments(operation, args, kwargs)
            outputs = operation.call(**{**given, "training": False}) if _is_plain_masked(operation, given) else None
        else:
            return None
        if outputs is None:
            return None
        self._name(old.name, outputs, flavor.flatten((args, kwargs)))
        return outputs

    def _name(self, prefix: str, outputs: Any, given: list[Any]) -> None:
        """The new operations are named after the one that they stand for."""
        todo, seen = flavor.flatten(outputs), {id(tensor) for tensor in given}
        found: list[Any] = []
        while todo:
            tensor = todo.pop()
            made = flavor.producer(tensor) if flavor.is_symbolic(tensor) and id(tensor) not in seen else None
            seen.add(id(tensor))
            if made is not None:
                found.append(made[0])
                todo += flavor.flatten(flavor.node_arguments(made[2]))
        for operation in reversed(list(dict.fromkeys(found))):
            base = f"{prefix}.{re.sub(r'_[0-9]+$', '', operation.name)}"
            numbered = (f"{base}_{number}" for number in itertools.count(1))
            name = next(n for n in itertools.chain([base], numbered) if n not in self._names)
            self._names.add(name)
            flavor.set_name(operation, name)


def _arguments(operation: Any, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name."""
    return dict(inspect.signature(operation.call).bind(*args, **kwargs).arguments)


def _has_sizes(*tensors: Any) -> bool:
    return all(size is not None for tensor in tensors for size in tensor.shape[1:])


def _is_plain_masked(layer: Any, given: dict[str, Any]) -> bool:
    """Whether a layer of attention has a mask and no weights, and does the same in training as in inference."""
    causal = bool(given.get("use_causal_mask"))
    masked = causal or any(mask is not None for mask in given.get("mask") or ())
    return masked and not layer.weights and not layer.dropout and (not causal or _has_sizes(*given["inputs"]))


def _is_masked_product(operation: Any, given: dict[str, Any]) -> bool:
    heads, kept = given["query"].shape[2], given["key"].shape[2]
    return (operation.is_causal or given.get("mask") is not None) and (heads == kept or kept > 1)


def _softmax(layer: Any, inputs: Any, mask: Any) -> Any:
    """The masked softmax of Keras' layer: of what the mask leaves, and 0 elsewhere where the layer makes it so."""
    dtype = flavor.dtype_policy(layer)
    hidden = _HIDDEN if inputs.dtype != "float16" else -6e4
    outputs = keras.layers.Softmax(layer.axis, dtype=dtype)(Choose(hidden, dtype=dtype)(inputs, mask))
    alone = (2,) * len(inputs.shape)
    emptied = float(tf.reduce_sum(layer(tf.ones(alone, inputs.dtype), mask=tf.zeros(alone, bool)))) == 0
    return Choose(0.0, dtype=dtype)(outputs, mask) if emptied else outputs


def _dot_product_attention(
    operation: Any, query: Any, key: Any, value: Any, bias: Any = None, mask: Any = None, scale: Any = None
) -> Any:
    """[B, T, N, H] -> [B, T, N, H]: softmax(query key^T scale + bias, where the mask holds) value.

    The query is scaled, which is smaller than the scores: its integers stay what they are.
    """
    ops = keras.ops
    heads, kept = query.shape[2], key.shape[2]
    if heads != kept:
        key, value = (ops.repeat(tensor, heads // kept, axis=2) for tensor in (key, value))
    query = ops.multiply(query, query.shape[-1] ** -0.5 if scale is None else scale)
    scores = ops.matmul(ops.transpose(query, (0, 2, 1, 3)), ops.transpose(key, (0, 2, 3, 1)))
    if bias is not None:
        scores = ops.add(scores, bias)
    hidden = _HIDDEN if scores.dtype != "float16" else -6e4
    scores = Choose(hidden, operation.is_causal, dtype=scores.dtype)(scores, mask)
    found = ops.matmul(ops.softmax(scores, axis=-1), ops.transpose(value, (0, 2, 1, 3)))
    return ops.transpose(found, (0, 2, 1, 3))
