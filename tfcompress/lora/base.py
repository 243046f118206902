"""A frozen weight held in few bits: packed codes in its variable's place, dequantized when the layer computes."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.flavor import keras
from tfcompress.core.opaque import Opaque, Weight
from tfcompress.core.rebuild import rebuilds
from tfcompress.core.transformed import Transform, Transformed
from tfcompress.lora.zeros import Zeros, zeros_of

BLOCK = 64  # numbers that share a scale
GROUP = 256  # blocks whose scales share a float32
# Quantiles of a normal distribution scaled to [-1, 1], zero among them: Dettmers et al. 2023, appendix E.
NF4 = (-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
       -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
       0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023,
       1.0)  # fmt: skip
#: What each code stands for, in units of its block's scale.
TABLES = {
    "int8": np.arange(-127, 128).astype("float32") / 127,
    "int4": np.arange(-7, 8).astype("float32") / 7,
    "nf4": np.array(NF4, "float32"),
}


#: What each step of a scale stands for, in units of its group's top: 24 to an octave, down to 1/1534; 0 is a block of
#: zeros.
LEVELS = np.append(0, 2.0 ** ((np.arange(1, 256) - 255) / 24)).astype("float32")
#: Steps that are tried for a block, counted from the least that clips nothing: 11 scales from 0.79 to 1.06 of it.
_TRIED = range(-8, 3)
_FINE, _REACH = 2**14, 2  # of the grid on which errors are looked up: points in a unit, units on each side of zero


def pack(value: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes and scales of an array, in blocks of 64 numbers in the order of memory.

        scale = top * 2 ** ((step - 255) / 24),   0 for step = 0,   top = max|w| over 256 blocks
        code  = nearest of TABLES[kind] to w / scale

    Of eleven steps near the block's max|w| the one with the least squared error over the block is taken: a block may be
    better off with its largest number clipped. Dettmers et al. take max|w| itself, and hold it as an 8-bit float after
    subtracting the mean over 256 blocks; logarithmic steps need no mean, and an outlier in one block leaves the others
    as exact as they were.

    Bytes: an int8 code is one; two codes of four bits are one, the first in the low half. A code's number is its place
    in the table.

    Args:
        value: float array of any shape.
        kind: "int8", "int4" or "nf4".

    Returns:
        codes (uint8 [bytes]), steps (uint8 [blocks]), tops (float32 [groups]).

    Source: Dettmers et al. 2023, arXiv:2305.14314, section 3 (blocks, NF4, scales quantized themselves).

    >>> codes, steps, tops = pack(np.array([7.0, -3.0, 0.0]), "int4")
    >>> [hex(byte) for byte in codes], steps.tolist(), tops.tolist()  # 7 + 7 = 0xe, -3 + 7 = 4, 0 + 7 = 7
    (['0x4e', '0x77'], [255], [7.0])
    """
    flat = np.asarray(value, "float32").ravel()
    blocks = -(-flat.size // BLOCK)
    padded = np.pad(flat, (0, blocks * BLOCK - flat.size)).reshape(blocks, BLOCK)
    groups = [_packed_group(padded[i : i + GROUP], kind) for i in range(0, blocks, GROUP)]
    codes = np.concatenate([group[0].ravel() for group in groups])[: flat.size]
    steps, tops = np.concatenate([group[1] for group in groups]), np.array([group[2] for group in groups], "float32")
    if kind == "int8":
        return codes, steps, tops
    zero = int(np.argmin(np.abs(TABLES[kind])))
    pairs = np.concatenate([codes, np.full(flat.size % 2, zero, "uint8")]).reshape(-1, 2)
    return (pairs[:, 0] | (pairs[:, 1] << 4)).astype("uint8"), steps, tops


def _packed_group(blocks: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray, np.float32]:
    """Codes and steps of up to 256 blocks [blocks, 64], and their top."""
    top = np.abs(blocks).max()
    units = blocks / max(top, np.finfo("float32").tiny)
    largest = np.abs(units).max(1)
    first = np.searchsorted(LEVELS, largest)
    steps, errors = np.zeros(len(blocks), "uint8"), np.full(len(blocks), np.inf)
    for more in _TRIED:
        tried = np.clip(first + more, 1, 255)
        scale = LEVELS[tried]
        places = (units * (_FINE / scale)[:, None] + (_REACH * _FINE + 0.5)).astype("int32")
        error = _squared_errors(kind)[places].sum(1) * np.square(scale)
        better = (error < errors) & (largest > 0)
        steps[better], errors[better] = tried[better], error[better]
    scale = np.where(steps > 0, LEVELS[steps], 1)
    return np.searchsorted(_middles(kind), units / scale[:, None]).astype("uint8"), steps, top


def _middles(kind: str) -> np.ndarray:
    """The bounds between what goes to one code and to the next."""
    return (TABLES[kind][1:] + TABLES[kind][:-1]) / 2


@functools.cache
def _squared_errors(kind: str) -> np.ndarray:
    """The squared distance to the nearest number of a table, on a fine grid: looked up, for most of packing is this."""
    grid = np.arange(-_REACH * _FINE, _REACH * _FINE + 1) / _FINE
    return np.square(TABLES[kind][np.searchsorted(_middles(kind), grid)] - grid).astype("float32")


def unpack(codes: tf.Tensor, steps: tf.Tensor, tops: tf.Tensor, kind: str, shape: Sequence[int]) -> tf.Tensor:
    """The float32 array of this shape that codes and scales stand for: table[code] * LEVELS[step] * top.

    >>> codes, steps, tops = pack(np.array([[7.0, -3.0, 0.0]]), "int4")
    >>> unpack(codes, steps, tops, "int4", (1, 3)).numpy().tolist()
    [[7.0, -3.0, 0.0]]
    """
    size = math.prod(shape)
    numbers = tf.reshape(tf.convert_to_tensor(codes), [-1])
    if kind != "int8":
        halves = [tf.bitwise.bitwise_and(numbers, 15), tf.bitwise.right_shift(numbers, tf.constant(4, tf.uint8))]
        numbers = tf.reshape(tf.stack(halves, axis=1), [-1])[:size]
    if kind == "nf4":
        units = tf.gather(tf.constant(TABLES[kind]), tf.cast(numbers, tf.int32))
    else:
        top = 127.0 if kind == "int8" else 7.0
        units = (tf.cast(numbers, tf.float32) - top) / top
    blocks = -(-size // BLOCK)
    levels = tf.gather(tf.constant(LEVELS), tf.cast(steps, tf.int32))
    scales = levels * tf.gather(tops, np.arange(blocks) // GROUP)
    padded = tf.reshape(tf.pad(units, [[0, blocks * BLOCK - size]]), [blocks, BLOCK])
    return tf.reshape(tf.reshape(padded * scales[:, None], [-1])[:size], shape)


@flavor.register
class Scales(keras.layers.Layer):
    """The scales of a packed weight: a byte for each block, a float32 for each group of blocks.

    Args:
        blocks: their number.
    """

    def __init__(self, blocks: int, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", "trainable": False, **kwargs})
        self.blocks = blocks

    def build(self, *_: Any) -> None:
        if self.built:  # type: ignore[has-type]
            return
        fixed = {"initializer": "zeros", "trainable": False}
        self.steps = self.add_weight(name="steps", shape=(self.blocks,), dtype="uint8", **fixed)
        self.tops = self.add_weight(name="tops", shape=(-(-self.blocks // GROUP),), dtype="float32", **fixed)
        self.built = True

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "blocks": self.blocks}


@flavor.register
class Packed(Transform):
    """A frozen weight that its variable holds as codes; the first of its transforms.

    The variable becomes uint8 of shape [1, ..., bytes], with as many axes as the weight has. What pruning held on it is
    kept for the variable that will hold the weight again.

    Args:
        kind: "int8", "int4" or "nf4".
        shape: of the weight; None until it is packed.
        dtype: of the weight.
        zeros: the configuration of the zeros that pruning holds; None: those of the variable, when it is packed.
    """

    def __init__(
        self,
        kind: str,
        shape: Sequence[int] | None = None,
        dtype: str = "float32",
        zeros: Mapping[str, Any] | None = None,
    ) -> None:
        self.kind, self.dtype = kind, dtype
        self.held_shape = None if shape is None else tuple(shape)
        self.scales: Scales | None = None
        self.zeros = None if zeros is None else Zeros(**zeros)

    def build(self, wrapper: Transformed, name: str, variable: Any) -> None:
        self.zeros = zeros_of(wrapper, name, variable, self.zeros)
        if self.scales is None:
            value = np.asarray(flavor.read(variable))
            self.held_shape, self.dtype = value.shape, tf.as_dtype(variable.dtype).name
            codes, steps, tops = pack(value, self.kind)
            owner, attribute = _place(wrapper.layer, variable)
            new = flavor.swap_variable(owner, attribute, (*[1] * (value.ndim - 1), codes.size), "uint8")
            new.assign(codes.reshape(new.shape))
            self.scales = Scales(steps.size)
            self.scales.build()
            self.scales.set_weights([steps, tops])
        setattr(wrapper, f"base_{name}", self.scales)

    def __call__(self, value: tf.Tensor) -> tf.Tensor:
        """The weight, from its codes."""
        if self.scales is None or self.held_shape is None:
            raise ValueError("A packed weight must be built before it is computed with")
        steps, tops = flavor.read(self.scales.steps), flavor.read(self.scales.tops)
        return tf.cast(unpack(value, steps, tops, self.kind, self.held_shape), self.dtype)

    def held_bytes(self, variable: Any) -> int:
        blocks = 0 if self.scales is None else self.scales.blocks
        return math.prod(variable.shape) + blocks + 4 * -(-blocks // GROUP)

    def describe(self) -> str:
        return f"{self.kind} base"

    def get_config(self) -> dict[str, Any]:
        return {"kind": self.kind, "shape": None if self.held_shape is None else list(self.held_shape),
                "dtype": self.dtype, "zeros": None if self.zeros is None else self.zeros.own_config()}  # fmt: skip


def _place(layer: Any, variable: Any) -> tuple[Any, str]:
    """The innermost layer that holds a variable, and in which attribute.

    Raises:
        ValueError: it stands in no attribute of its own.
    """
    for part in (layer, *flavor.sublayers(layer, recursive=True)):
        for path, own in flavor.own_variables(part).items():
            if own is variable and path in vars(part):
                return part, path
    raise ValueError(f"layer {layer.name!r} holds {flavor.variable_path(variable)!r} in no attribute")


def why_not(layer: Any) -> str | None:
    """Why the weights of a layer cannot be held as codes; None when they can."""
    if isinstance(layer, Opaque):
        return "a closed composite"
    for part in (layer, *flavor.sublayers(layer, recursive=True)):
        if type(part).__module__.split(".")[0] not in ("keras", "tf_keras") and not isinstance(part, Weight):
            return f"{type(part).__name__} is no layer of Keras"
    return None if rebuilds(layer) else "its class cannot be made from its configuration"
