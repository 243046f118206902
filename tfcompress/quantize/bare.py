"""Bare weights of opened composites that are kernels of a product: experts' matrices in an einsum, in a matmul."""

from dataclasses import replace
from typing import Any

from tfcompress.core import flavor
from tfcompress.core.grid import Grid
from tfcompress.core.opaque import Einsum, Weight
from tfcompress.core.replay import Call, calls, readers
from tfcompress.quantize.kinds import Kind, kind_of

_PRODUCTS = frozenset("matmul batchmatmul einsum dot tensordot vdot inner".split())
_ATTENTION = "dotproductattention"
_CONVOLUTIONS = frozenset("conv conv1d conv2d conv3d convolution".split())


def bare_kernels(model: Any) -> dict[int, bool]:
    """The weights of a flat graph that products alone read, at once or behind operations that only move numbers.

    Args:
        model: a flat Functional model.

    Returns:
        id of the `Weight` layer -> whether convolutions alone read it as it stands: they hold a scale for each channel,
        every other product holds one for the whole.
    """
    steps = calls(model)
    read_by = readers(steps)

    def ends(tensor: Any) -> list[tuple[Call, bool]]:
        """The calls that compute with a tensor, and whether they read it as it stands."""
        found: list[tuple[Call, bool]] = []
        for reader in read_by.get(id(tensor), []):
            moves = kind_of(reader.operation) is Kind.SAME and reader.inputs[0] is tensor
            found += [(end, False) for out in reader.outputs for end, _ in ends(out)] if moves else [(reader, True)]
        return found

    kernels: dict[int, bool] = {}
    for call in steps:  # a Weight is called once
        if isinstance(call.operation, Weight) and call.operation.learned and len(call.operation.shape) >= 2:
            found = ends(call.outputs[0])
            if found and all(_multiplies(end) for end, _ in found):
                kernels[id(call.operation)] = all(stands and _name(end) in _CONVOLUTIONS for end, stands in found)
    return kernels


def bare_grid(grid: Grid, of_convolution: bool) -> Grid:
    """The scheme's grid for a bare kernel, its axis resolved.

    >>> bare_grid(Grid(), False).axis, bare_grid(Grid(), True).axis
    (None, -1)
    """
    return replace(grid, axis=-1 if of_convolution else None) if grid.axis == "channel" else grid


def _name(call: Call) -> str:
    if isinstance(call.operation, Einsum):
        return "einsum"
    return flavor.operation_name(call.operation) or ""


def _multiplies(call: Call) -> bool:
    """Whether a call is a plain operation that multiplies two tensors as matrices, or convolves them."""
    return _name(call) in _PRODUCTS | _CONVOLUTIONS and len(call.inputs) == 2


def factors(model: Any) -> list[Any]:
    """The tensors that plain operations of a flat graph multiply as matrices, those of attention among them."""
    return [tensor for call in calls(model) if _multiplies(call) or _name(call) == _ATTENTION for tensor in call.inputs]
