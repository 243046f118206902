"""Kernels of a file matched by value with the integers that a model was trained with."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tfcompress.core.grid import IntegerWeight

# Largest distance, in parts of the channel's largest number, between a kernel and the integers that stand for it.
TOLERANCE = 1e-5
# Operations with a kernel, a bias and a scale for each channel -> the axis of the channels.
CHANNEL_AXES = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0}
_FEW = 8


@dataclass(frozen=True)
class Codes:
    """The integers of a kernel in the file's layout: kernel = codes * scale.

    Attributes:
        codes: int8, in the kernel's shape.
        scale: float32 [C] along the channel axis, or [1].
        bits: of the grid.
        source: where the integers come from: "layer/weight", or "values" when the kernel's own numbers lie on a grid.
    """

    codes: np.ndarray
    scale: np.ndarray
    bits: int
    source: str


class Integers:
    """The integer weights of a model, to be found again in a file by their values.

    A kernel of the file is a weight of the model in another layout, each channel times a number (a folded normalization
    scales a channel, also by a negative number). So the layout is found by trying, and the scale of a channel is

        scale = (v . q) / (q . q)

    for its numbers v and codes q; it holds when |v - scale q| <= 1e-5 max|v| in every channel.
    """

    def __init__(self, weights: Sequence[IntegerWeight]) -> None:
        self._weights = list(weights)
        self._found: set[int] = set()

    def match(self, kernel: np.ndarray, axis: int | None) -> Codes | None:
        """The codes of a kernel, None when it is none of the model's and lies on no grid of 2 to 7 bits.

        Args:
            kernel: float constant of the file.
            axis: its channel axis; None where the file allows one scale only.
        """
        rows = rows_of(kernel, axis).astype(np.float64)
        for number, weight in enumerate(self._weights):
            for codes in _views(weight.codes, *rows.shape):
                scale = _scale(rows, codes, axis is None)
                if scale is not None:
                    self._found.add(number)
                    return _codes(kernel, axis, codes, scale, weight.bits, f"{weight.layer}/{weight.weight}")
        return _inferred(kernel, axis, rows)

    def lost(self) -> list[str]:
        """Weights that no kernel of the file has matched so far."""
        return [f"{w.layer}/{w.weight}" for i, w in enumerate(self._weights) if i not in self._found]


def rows_of(kernel: np.ndarray, axis: int | None) -> np.ndarray:
    """[channels, numbers of a channel]."""
    if axis is None:
        return kernel.reshape(kernel.shape[0] if kernel.ndim else 1, -1)
    return np.moveaxis(kernel, axis, 0).reshape(kernel.shape[axis], -1)


def _views(codes: np.ndarray, channels: int, size: int) -> Iterator[np.ndarray]:
    """[channels, size] arrays that a converter may have made of a weight, or of a part of it."""
    if codes.size == channels * size:
        if codes.ndim and _trails(codes.shape, channels):
            yield codes.reshape(size, channels).T  # the channel is last, as Keras has it
        for axis in range(codes.ndim - 1):  # transposed convolutions, tables, and what is already turned
            if codes.shape[axis] == channels:
                yield np.moveaxis(codes, axis, 0).reshape(channels, size)
        yield codes.reshape(channels, size)
        if codes.ndim == 3:  # experts' kernels in an einsum
            for order in itertools.permutations(range(3)):
                yield codes.transpose(order).reshape(channels, size)
    elif codes.ndim > 1 and codes.size % (channels * size) == 0:
        parts = codes.size // (channels * size)
        for axis in (codes.ndim - 1, 0):  # gates and groups lie side by side, slices of depth one after the other
            if codes.shape[axis] % parts == 0:
                for part in np.split(codes, parts, axis):
                    yield from _views(
                        part.reshape(part.shape[1:]) if part.shape[axis] == 1 and axis == 0 else part, channels, size
                    )


def _trails(shape: tuple[int, ...], channels: int) -> bool:
    """Whether the last axes hold exactly `channels` numbers."""
    product = 1
    for size in reversed(shape):
        product *= size
        if product >= channels:
            break
    return product == channels


def _scale(rows: np.ndarray, codes: np.ndarray, single: bool) -> np.ndarray | None:
    """The scale of each row, float64 [C] or [1]; None when a row is no multiple of its codes."""
    probe = int(np.argmax(np.abs(rows).max(1))) if rows.size else 0
    chosen = slice(None) if single else slice(probe, probe + 1)
    for part in (chosen, slice(None)):  # one row tells most strangers apart
        v, q = rows[part], codes[part].astype(np.float64)
        square = np.sum(q * q) if single else np.sum(q * q, 1)
        scale = np.atleast_1d((np.sum(v * q) if single else np.sum(v * q, 1)) / np.maximum(square, 1))
        largest = np.abs(v).max(1, initial=0) if not single else np.abs(v).max(initial=0)
        if np.any(np.abs(v - scale[:, None] * q) > TOLERANCE * np.atleast_1d(largest)[:, None]):
            return None
    return scale


def _codes(kernel: np.ndarray, axis: int | None, rows: np.ndarray, scale: np.ndarray, bits: int, source: str) -> Codes:
    """In the file's layout: negative scales become negative codes, an all-zero channel gets its neighbours' scale."""
    codes = rows * np.where(scale < 0, -1, 1)[:, None]
    scale = np.abs(scale)
    alive = scale > 0
    codes = codes * alive[:, None]
    scale = np.where(alive, scale, scale[alive].mean() if alive.any() else 1.0)
    if np.ptp(scale) <= 1e-6 * scale.max():
        scale = scale[:1]
    if axis is None:
        layout = codes.reshape(kernel.shape)
    else:
        moved = np.moveaxis(kernel, axis, 0).shape
        layout = np.moveaxis(codes.reshape(moved), 0, axis)
    return Codes(np.ascontiguousarray(layout).astype(np.int8), scale.astype(np.float32), bits, source)


def _inferred(kernel: np.ndarray, axis: int | None, rows: np.ndarray) -> Codes | None:
    """Codes of a kernel whose own numbers lie on a symmetric grid: v / max|v| * Q is whole, max|v| that of each channel
    or of the kernel.

    Grids of 8 bits are left to the converter, which finds them again by the same rule. Too few numbers would lie on
    some grid by chance.
    """
    whole = np.abs(rows).max(keepdims=True)
    for largest in (whole,) if axis is None else (np.abs(rows).max(1, keepdims=True), whole):
        if rows.size - largest.size < _FEW or not largest.any():
            continue
        for bits in range(2, 8):
            steps = rows / np.maximum(largest, 1e-30) * (2 ** (bits - 1) - 1)
            codes = np.round(steps)
            scale = _scale(rows, codes, axis is None) if np.abs(steps - codes).max() <= 1e-3 else None
            if scale is not None:
                return _codes(kernel, axis, codes, scale, bits, "values")
    return None
