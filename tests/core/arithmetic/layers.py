"""Random integer layers: what the file holds, what a kernel set computes with it, and what the library does."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from tests.core.arithmetic import single
from tests.tflite_export import handmade
from tfcompress.core.arithmetic import convolutions, fused, matrices
from tfcompress.core.arithmetic.codes import Codes, Lattice
from tflite_export.plant import nibbles

PADDINGS = {"SAME": schema.Padding.SAME, "VALID": schema.Padding.VALID}
FUSED = {None: 0, "relu": 1, "relu_n1_to_1": 2, "relu6": 3}


@dataclass
class Layer:
    """A layer of one of four kinds; `steps` are its strides, dilations and padding."""

    kind: str
    x: np.ndarray
    grid: Lattice
    kernel: np.ndarray
    scale: np.ndarray
    bias: np.ndarray | None
    out: Lattice
    steps: dict[str, Any] = field(default_factory=dict)
    activation: str | None = None
    packed: bool = False

    def computed(self, kernels: str, values: tf.Tensor | None = None) -> Codes:
        """What the library computes."""
        x = Codes(tf.constant(self.x, tf.float32) if values is None else values, self.grid)
        low, high = fused.bounds(self.activation, self.out, kernels=kernels)
        operands = (x, tf.constant(self.kernel, tf.float32), tf.constant(self.scale),
                    None if self.bias is None else tf.constant(self.bias), self.out)  # fmt: skip
        others = {"kernels": kernels, "low": low, "high": high}
        if self.kind == "TRANSPOSE_CONV":
            return convolutions.transpose_conv(*operands, **self.steps, **others)
        others["packed"] = self.packed
        if self.kind == "FULLY_CONNECTED":
            return matrices.fully_connected(*operands, **others)
        function = convolutions.conv_2d if self.kind == "CONV_2D" else convolutions.depthwise_conv_2d
        return function(*operands, **self.steps, **others)

    def options(self) -> Any:
        rows, columns = self.steps.get("strides", (1, 1))
        down, right = self.steps.get("dilations", (1, 1))
        shared = {"strideH": rows, "strideW": columns, "padding": PADDINGS[self.steps.get("padding", "SAME")],
                  "fusedActivationFunction": FUSED[self.activation]}  # fmt: skip
        if self.kind == "CONV_2D":
            return schema.Conv2DOptionsT(**shared, dilationHFactor=down, dilationWFactor=right)
        if self.kind == "DEPTHWISE_CONV_2D":
            multiplier = self.kernel.shape[-1] // self.x.shape[-1]
            return schema.DepthwiseConv2DOptionsT(
                **shared, dilationHFactor=down, dilationWFactor=right, depthMultiplier=multiplier
            )
        if self.kind == "TRANSPOSE_CONV":
            return schema.TransposeConvOptionsT(**shared)
        return schema.FullyConnectedOptionsT(fusedActivationFunction=shared["fusedActivationFunction"])

    def run(self, kernels: str, shape: Sequence[int]) -> np.ndarray:
        """What the runtime computes; `shape` of the output."""
        axis = 3 if self.kind == "DEPTHWISE_CONV_2D" else 0
        kernel = single.constant(self.kernel, self.scale, axis=axis)
        if self.packed:
            zeros = [0] * len(self.scale)
            packed = nibbles(self.kernel)
            kernel = handmade.tensor(self.kernel.shape, "INT4", packed, list(self.scale), zeros, axis)
        steps = self.scale * np.float32(self.grid.scale)
        bias = None if self.bias is None else single.constant(self.bias, steps)
        operands = [single.activation(self.x.shape, self.grid), kernel, bias]
        if self.kind == "TRANSPOSE_CONV":
            operands = [single.constant(np.array(shape, np.int32)), kernel, operands[0], bias]
        content = single.file_of(self.kind, operands, single.activation(shape, self.out), self.options())
        return single.run(content, [self.x], kernels)


def layer(
    rng: np.random.Generator,
    kind: str,
    image: tuple[int, ...],
    kernel: tuple[int, ...],
    *,
    one_scale: bool = False,
    bits: int = 8,
    packed: bool = False,
    bias: bool = True,
    activation: str | None = None,
    **steps: Any,
) -> Layer:
    """A layer of random codes whose outputs fill the grid, some beyond its ends."""
    outputs = kernel[3] if kind == "DEPTHWISE_CONV_2D" else kernel[0]
    grid = single.random_lattice(rng, bits)
    top = 7 if packed else 127
    codes = np.clip(single.random_codes(rng, kernel), -top, top).astype(np.int8)
    scale = np.exp(rng.uniform(-9, -5, 1 if one_scale else outputs)).astype(np.float32)
    depth = int(np.prod(kernel)) / outputs
    spread = float(grid.scale) * float(np.median(scale)) * 0.5 * top * 0.6 * np.sqrt(depth)
    zero = int(rng.integers(-128, 128)) if bits == 8 else 0
    out = single.lattice(spread * rng.uniform(1.0, 2.5), zero, bits)
    around = 0.5 * top * 60 * np.sqrt(depth) * (1 if bits == 8 else 256)
    numbers = (rng.normal(size=outputs) * around).astype(np.int32 if bits == 8 else np.int64)
    return Layer(kind, single.random_codes(rng, image, bits), grid, codes, scale, numbers if bias else None, out,
                 steps, activation, packed)  # fmt: skip


def on_ties(
    rng: np.random.Generator,
    kind: str,
    factor: float,
    *,
    one_scale: bool,
    bits: int = 8,
    packed: bool = False,
    inputs: int = 8,
) -> Layer:
    """A layer whose sums lie on the boundaries between codes, and one to three beside them.

    The biases decide: sum = (code + 1/2) / m, rounded to whole numbers, so that another rounding of the sum, of m or of
    their product is seen. With a small m the sums are beyond 2**24, which float32 holds no longer.
    """
    outputs, first, last = 2048, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    grid = single.random_lattice(rng, bits)
    out = single.lattice(float(np.exp(rng.uniform(-4, 0))), int(rng.integers(-128, 128)) if bits == 8 else 0, bits)
    spread = np.exp(rng.uniform(-0.3, 0.3, 1 if one_scale else outputs))
    scale = (factor * spread * float(out.scale) / float(grid.scale)).astype(np.float32)
    m = np.broadcast_to(float(grid.scale) * scale.astype(np.float64) / float(out.scale), outputs)
    bias = np.round((rng.integers(first * 1.1, last * 1.1, outputs) + 0.5) / m) + rng.integers(-3, 4, outputs)
    images = {"FULLY_CONNECTED": (16, inputs), "DEPTHWISE_CONV_2D": (1, 4, 4, outputs)}
    kernels = {"FULLY_CONNECTED": (outputs, inputs), "DEPTHWISE_CONV_2D": (1, 1, 1, outputs)}
    image, kernel = images.get(kind, (1, 4, 4, inputs)), kernels.get(kind, (outputs, 1, 1, inputs))
    x = np.clip(int(grid.zero) + rng.integers(-2, 3, image), first, last).astype(single.TYPES[bits])
    codes = rng.integers(-1, 2, kernel).astype(np.int8)
    steps = {"size": image[1:3]} if kind == "TRANSPOSE_CONV" else {}
    return Layer(kind, x, grid, codes, scale, bias.astype(np.int32 if bits == 8 else np.int64), out, steps,
                 packed=packed)  # fmt: skip
