"""What a stranger's layer does with its weights: which are factors of a product, which are tables to look up."""

from dataclasses import replace
from typing import Any

import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.grid import Grid
from tfcompress.core.replay import Call
from tfcompress.core.transformed import named_weights

_KNOWN = ("keras", "tf_keras", "tfcompress")
_MOVES = frozenset(
    "Identity Cast Reshape Transpose ExpandDims Squeeze StridedSlice Slice BroadcastTo Tile Pack Unpack ConcatV2 Split "
    "SplitV ReverseV2 StopGradient".split()
)
_PRODUCTS = frozenset(
    "MatMul BatchMatMul BatchMatMulV2 BatchMatMulV3 Einsum Conv2D Conv3D DepthwiseConv2dNative Conv2DBackpropInput "
    "Conv3DBackpropInputV2".split()
)
_TABLES = frozenset(("GatherV2", "Gather", "GatherNd"))


def uses(call: Call) -> dict[str, str] | None:
    """How a leaf of a class that is not Keras' own uses its weights of two and more axes.

    Args:
        call: a call of the layer in a flat graph.

    Returns:
        "product", "turned" (a product with the transposed weight), "table" or "other" by the weight's name in
        `named_weights`; None for Keras' own layers, for those with layers inside, and where the call cannot be looked
        into.
    """
    layer = call.operation
    if type(layer).__module__.split(".")[0] in _KNOWN or flavor.sublayers(layer):
        return None
    weights = {name: v for name, v in named_weights(layer).items() if len(v.shape) >= 2}
    symbols = [t for t in flavor.flatten((call.args, call.kwargs)) if flavor.is_symbolic(t)]

    def compute(values: list[tf.Tensor], tensors: list[tf.Tensor]) -> Any:
        at = {id(symbol): tensor for symbol, tensor in zip(symbols, tensors, strict=True)}
        args, kwargs = flavor.map_structure(lambda value: at.get(id(value), value), (call.args, call.kwargs))
        pairs = list(zip(weights.values(), values, strict=True))
        return flavor.replaced(layer, pairs, lambda: layer.call(*args, **kwargs))

    specs = [tf.TensorSpec(v.shape, v.dtype) for v in weights.values()]
    given = [tf.TensorSpec(tuple(t.shape), tf.as_dtype(t.dtype)) for t in symbols]
    try:
        graph = tf.function(compute, autograph=False).get_concrete_function(specs, given).graph
    except Exception:  # whatever a stranger's call does
        return None
    found = {name: _ends(tensor) for name, tensor in zip(weights, graph.inputs, strict=False)}
    return {name: ends.pop() if len(ends) == 1 else "other" for name, ends in found.items()}


def used_grids(call: Call, grids: dict[str, Grid]) -> dict[str, Grid]:
    """The grids of a layer's kernels, as far as they are kernels by what a stranger's layer does with them.

    A table that is looked up has one scale, and so has a matrix whose columns are no output channels; what is added or
    multiplied number by number is converted with the file.
    """
    found = uses(call) if grids else None
    if found is None:
        return grids
    kept = {name: grid for name, grid in grids.items() if found.get(name, "product") != "other"}
    single = ("table", "turned")
    return {name: replace(grid, axis=None) if found.get(name) in single else grid for name, grid in kept.items()}


def _ends(tensor: tf.Tensor) -> set[str]:
    """What is computed with a tensor, at once or behind operations that only move numbers."""
    found: set[str] = set()
    for op in tensor.consumers():
        if op.type in _MOVES:
            ends = {end for output in op.outputs for end in _ends(output)}
            found |= {"turned" if end == "product" else end for end in ends} if op.type == "Transpose" else ends
        elif op.type in _PRODUCTS or "Call" in op.type:  # a function of its own is not looked into
            turns = any(name in op.node_def.attr and op.get_attr(name) for name in ("transpose_b", "adj_y"))
            found.add("turned" if turns else "product")
        else:
            found.add("table" if op.type in _TABLES and op.inputs[0] is tensor else "other")
    return found
