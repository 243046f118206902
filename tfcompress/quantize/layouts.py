"""Which weights of a layer are kernels, and which of their axes are output channels."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tfcompress.core import flavor
from tfcompress.core.einsum import Equation
from tfcompress.core.flavor import keras
from tfcompress.core.grid import Grid
from tfcompress.core.opaque import Weight
from tfcompress.core.transformed import named_weights

_LAYERS = keras.layers


def _einsum_axes(layer: Any) -> tuple[int, ...] | None:
    """The kernel's axes that reach the output and do not stand in the input: its output channels.

    None where the kernel shares an axis with both (a batch of kernels), which runtimes hold with one scale.
    """
    equation = Equation.of(layer.equation)
    if equation.shared:
        return None
    return tuple(axis - len(equation.kernel) for axis, letter in enumerate(equation.kernel) if letter in equation.made)


def _owners(layer: Any) -> dict[int, Any]:
    """For each weight (by id) the layer that computes with it: the innermost, but an RNN for its cell."""
    found: dict[int, Any] = {}
    for part in (layer, *flavor.sublayers(layer, recursive=True)):  # outer layers come first
        for variable in part.weights:
            if not isinstance(found.get(id(variable)), _LAYERS.RNN):
                found[id(variable)] = part
    return found


# The output channels of each kind of layer: the first entry that is a class of the layer decides.
CHANNELS: tuple[tuple[type | tuple[type, ...], Callable[[Any], Any]], ...] = (
    ((_LAYERS.DepthwiseConv1D, _LAYERS.DepthwiseConv2D), lambda layer: (-2, -1)),
    ((_LAYERS.Conv1DTranspose, _LAYERS.Conv2DTranspose, _LAYERS.Conv3DTranspose), lambda layer: -2),
    (_LAYERS.EinsumDense, _einsum_axes),
    (_LAYERS.Embedding, lambda layer: None),
)
# Matrices that are no factor of a product: they are converted with the file.
ELEMENTWISE = (_LAYERS.PReLU, _LAYERS.BatchNormalization, _LAYERS.LayerNormalization, Weight)


def _channel_grid(layer: Any, grid: Grid, rank: int) -> Grid:
    if isinstance(layer, _LAYERS.LSTM):
        return replace(grid, axis=-1, groups=4)  # the fused operation holds four matrices of one scale each
    if isinstance(layer, _LAYERS.Dense | _LAYERS.EinsumDense) and grid.bits <= 4:
        return replace(grid, axis=None)  # with more scales TFLM refuses the kernel of a FULLY_CONNECTED two to a byte
    for classes, axes in CHANNELS:
        if isinstance(layer, classes):
            return replace(grid, axis=axes(layer))
    known = isinstance(layer, _LAYERS.Dense | _LAYERS.Conv1D | _LAYERS.Conv2D | _LAYERS.Conv3D | _LAYERS.RNN)
    return replace(grid, axis=-1 if known or rank == 2 else None)


def kernel_grids(layer: Any, grid: Grid) -> dict[str, Grid]:
    """The kernels of a layer (its trained weights of two and more axes, biases left out) and the grid of each.

    Args:
        layer: a built layer; a composite's inner layers are looked at one by one.
        grid: the scheme's; an axis of "channel" becomes the layer's output channels, as far as the runtimes hold a
            scale for each: one scale for a 4-bit Dense kernel.

    Returns:
        Grids whose axes are resolved, by the weight's name in `named_weights`; empty when the layer has no kernel.
    """
    trained = {id(variable) for variable in layer.trainable_weights} or {id(variable) for variable in layer.weights}
    owners, grids = _owners(layer), {}
    for name, variable in named_weights(layer).items():
        owner, rank = owners[id(variable)], len(variable.shape)
        # A bias is added at the precision of the sums, also where it has two axes: a GRU's, an EinsumDense's of heads.
        is_factor = not isinstance(owner, ELEMENTWISE) and flavor.variable_name(variable) != "bias"
        if rank >= 2 and id(variable) in trained and is_factor:
            grids[name] = _channel_grid(owner, grid, rank) if grid.axis == "channel" else grid
    return grids
