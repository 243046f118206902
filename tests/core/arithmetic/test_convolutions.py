"""CONV_2D, DEPTHWISE_CONV_2D and TRANSPOSE_CONV against the runtimes, element by element."""

import numpy as np
import pytest
import tensorflow as tf

from tests.core.arithmetic.layers import layer, on_ties
from tfcompress.core.arithmetic import onepass
from tfcompress.core.arithmetic.codes import KERNELS
from tfcompress.core.arithmetic.convolutions import conv_2d, depthwise_conv_2d, transpose_conv

CASES = {
    "3x3": ("CONV_2D", (2, 32, 32, 8), (16, 3, 3, 8), {}),
    "one scale": ("CONV_2D", (2, 32, 32, 8), (16, 3, 3, 8), {"one_scale": True}),
    "pointwise": ("CONV_2D", (2, 32, 32, 32), (16, 1, 1, 32), {"activation": "relu"}),
    "strided": ("CONV_2D", (2, 33, 32, 3), (24, 5, 3, 3), {"strides": (2, 2), "activation": "relu6"}),
    "other strides": ("CONV_2D", (2, 33, 32, 3), (24, 2, 3, 3), {"strides": (2, 1)}),
    "dilated": ("CONV_2D", (2, 32, 32, 4), (16, 3, 3, 4), {"dilations": (2, 3)}),
    "valid": ("CONV_2D", (2, 32, 32, 4), (16, 3, 3, 4), {"padding": "VALID"}),
    "deep": ("CONV_2D", (1, 8, 8, 700), (16, 3, 3, 700), {}),
    "grouped": ("CONV_2D", (2, 32, 32, 8), (16, 3, 3, 2), {}),
    "depthwise": ("DEPTHWISE_CONV_2D", (2, 32, 32, 16), (1, 3, 3, 16), {"activation": "relu6"}),
    "depthwise, one scale": ("DEPTHWISE_CONV_2D", (2, 32, 32, 16), (1, 3, 3, 16), {"one_scale": True}),
    "depthwise, multiplied": ("DEPTHWISE_CONV_2D", (2, 32, 32, 5), (1, 3, 3, 15), {"padding": "VALID"}),
    "depthwise, strided": ("DEPTHWISE_CONV_2D", (2, 33, 33, 16), (1, 5, 5, 16), {"strides": (2, 2)}),
    "depthwise, dilated": ("DEPTHWISE_CONV_2D", (2, 32, 32, 16), (1, 3, 3, 16), {"dilations": (2, 2)}),
    "transposed": ("TRANSPOSE_CONV", (2, 16, 16, 8), (16, 3, 3, 8), {"strides": (2, 2), "size": (32, 32)}),
    "transposed, valid": ("TRANSPOSE_CONV", (2, 16, 16, 8), (8, 3, 3, 8),
                          {"strides": (2, 2), "size": (33, 33), "padding": "VALID", "activation": "relu"}),
    "transposed, one scale": ("TRANSPOSE_CONV", (2, 16, 16, 8), (16, 4, 4, 8),
                              {"strides": (2, 2), "size": (32, 32), "one_scale": True}),
}  # fmt: skip
SIXTEEN = ("3x3", "grouped", "dilated", "depthwise, multiplied", "depthwise, one scale", "transposed")
# XNNPACK takes no packed convolution: whole eights of channels and the rest, groups, one scale.
PACKED = {
    "3x3": CASES["3x3"],
    "of few channels": ("CONV_2D", (2, 32, 32, 3), (7, 3, 3, 3), {"one_scale": True}),
    "grouped": CASES["grouped"],
    "dilated": CASES["dilated"],
    "depthwise, 13 channels": ("DEPTHWISE_CONV_2D", (2, 32, 32, 13), (1, 3, 3, 13), {}),
    "depthwise, 16 channels": CASES["depthwise, one scale"],
    "depthwise, dilated": CASES["depthwise, dilated"],
}
KINDS = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV")


def check(made, kernels):
    found = made.computed(kernels).values.numpy()
    np.testing.assert_array_equal(found, made.run(kernels, found.shape))


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("name", CASES)
def test_every_element_equals_the_runtime_s(name, kernels):
    kind, image, kernel, others = CASES[name]
    check(layer(np.random.default_rng(1), kind, image, kernel, **others), kernels)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("name", SIXTEEN)
def test_in_sixteen_bits(name, kernels):
    kind, image, kernel, others = CASES[name]
    check(layer(np.random.default_rng(2), kind, image, kernel, bits=16, **others), kernels)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("name", PACKED)
def test_packed_kernels(name, kernels):
    kind, image, kernel, others = PACKED[name]
    check(layer(np.random.default_rng(3), kind, image, kernel, packed=True, **others), kernels)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("one_scale", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_sums_on_the_boundaries_between_codes(kind, one_scale, kernels):
    rng = np.random.default_rng(4)
    for factor in (1.7, 1e-3, 1e-6):
        check(on_ties(rng, kind, factor, one_scale=one_scale), kernels)
    check(on_ties(rng, kind, 1e-3, one_scale=one_scale, bits=16), kernels)


def test_packed_sums_on_the_boundaries_between_codes():
    for kind in KINDS[:2]:
        check(on_ties(np.random.default_rng(5), kind, 1e-2, one_scale=False, packed=True), "xnnpack")


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("packed", [False, True])
def test_large_tensors_are_rounded_in_one_pass(packed, kernels):
    made = layer(np.random.default_rng(8), "DEPTHWISE_CONV_2D", (5, 64, 64, 15), (1, 1, 1, 15), packed=packed)
    assert made.x.size > onepass.LARGE
    check(made, kernels)


@pytest.mark.parametrize(
    ("name", "kernels", "jit"),
    [*(("3x3", kernels, jit) for kernels in KERNELS for jit in (False, True)), ("depthwise", "xnnpack", False),
     ("transposed", "tflm", False), ("grouped", "reference", False), ("grouped", "xnnpack", True)],
)  # fmt: skip
def test_in_a_graph_of_any_batch_size_and_compiled(name, kernels, jit):
    kind, image, kernel, others = CASES[name]
    made = layer(np.random.default_rng(6), kind, image, kernel, **others)
    signature = [tf.TensorSpec([None, *image[1:]], tf.float32)]
    function = tf.function(lambda x: made.computed(kernels, x).values, input_signature=signature, jit_compile=jit)
    found = function(tf.constant(made.x, tf.float32)).numpy()
    np.testing.assert_array_equal(found, made.run(kernels, found.shape))


def test_an_unknown_kernel_set_is_refused():
    made = layer(np.random.default_rng(7), "CONV_2D", (1, 4, 4, 2), (3, 1, 1, 2))
    operands = (*(made.computed("tflm"), tf.constant(made.kernel, tf.float32)), tf.constant(made.scale), None, made.out)
    for function, others in ((conv_2d, {}), (depthwise_conv_2d, {}), (transpose_conv, {"size": (4, 4)})):
        with pytest.raises(
            ValueError, match=r"`kernels` must be one of xnnpack, reference, tflm\. Received: kernels='m4'"
        ):
            function(*operands, kernels="m4", **others)
