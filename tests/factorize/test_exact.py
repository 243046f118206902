"""At full rank a layer's parts compute what the layer does, and cost what was foreseen."""

import numpy as np
import pytest
import tensorflow as tf

from tests.factorize.exact import error, methods, one_layer, written
from tfcompress.core import flavor
from tfcompress.core.macs import macs_of
from tfcompress.core.replay import calls
from tfcompress.core.trace import trace
from tfcompress.factorize.candidates import candidates

keras = tf.keras
layers = keras.layers


def check(layer, shape, dtype="float32"):
    """Every method at full rank; returns the methods."""
    model = one_layer(layer, shape, dtype)
    rng = np.random.default_rng(0)
    size = (3, *(n or 7 for n in shape))
    x = rng.integers(0, 20, size) if dtype == "int32" else rng.normal(size=size).astype("float32")
    found = methods(model)
    for method in found:
        made, (costs,) = written(model, method)
        assert error(model, made, x) < 1e-5
        assert len(made.layers) > len(model.layers)
        if None not in shape:
            assert sum(macs_of(call) or 0 for call in calls(made)) == costs["macs"]
        bias = getattr(model.layers[-1], "bias", None)
        assert made.count_params() - (0 if bias is None else int(np.prod(bias.shape))) == costs["params"]
    return found


WINDOWS = [(1, 1), (2, 1), ((2, 1), 1), (1, 2), (1, (1, 2))]


@pytest.mark.parametrize(("strides", "dilation"), WINDOWS)
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_conv2d(strides, dilation, padding):
    for bias, activation in ((True, "relu"), (False, "softmax")):
        layer = layers.Conv2D(6, 3, strides=strides, dilation_rate=dilation, padding=padding, use_bias=bias,
                              activation=activation)  # fmt: skip
        found = check(layer, (11, 10, 4))
        assert found == ["channel", "cp", "depthwise", "spatial", "svd", "tucker2"]


@pytest.mark.parametrize(("kernel", "expected"), [
    ((3, 1), ["channel", "cp", "depthwise", "svd", "tucker2"]), (1, ["svd"]),
    ((2, 5), ["channel", "cp", "depthwise", "spatial", "svd", "tucker2"]),
])  # fmt: skip
def test_windows_of_every_shape(kernel, expected):
    assert check(layers.Conv2D(6, kernel, padding="same", activation="tanh"), (9, 8, 3)) == expected


@pytest.mark.parametrize(("strides", "dilation"), [(1, 1), (2, 1), (1, 3)])
@pytest.mark.parametrize("padding", ["same", "valid", "causal"])
def test_conv1d(strides, dilation, padding):
    layer = layers.Conv1D(6, 3, strides=strides, dilation_rate=dilation, padding=padding, activation="relu")
    assert check(layer, (12, 4)) == ["channel", "cp", "depthwise", "svd", "tucker2"]


def test_inputs_of_any_size():
    check(layers.Conv2D(6, 3, padding="same"), (None, None, 4))
    check(layers.Dense(6), (None, 4))


@pytest.mark.parametrize("activation", [None, "relu", "gelu", "softmax"])
@pytest.mark.parametrize("shape", [(5,), (4, 5), (2, 3, 5)])
def test_dense(shape, activation):
    for bias in (True, False):
        assert check(layers.Dense(7, activation=activation, use_bias=bias), shape) == ["svd"]


@pytest.mark.parametrize(("equation", "output", "bias", "shape"), [
    ("abc,cde->abde", (None, 2, 3), "de", (5, 6)), ("abcd,cde->abe", (None, 7), "e", (5, 2, 3)),
    ("...x,xy->...y", (7,), "y", (5, 6)), ("ab,bc->ac", (3,), None, (6,)), ("abc,dc->abd", (None, 7), "d", (5, 6)),
    ("abc,cde->adbe", (2, 5, 3), "de", (5, 6)),
])  # fmt: skip
def test_einsum_dense(equation, output, bias, shape):
    assert check(layers.EinsumDense(equation, output, bias_axes=bias, activation="relu"), shape) == ["svd"]


@pytest.mark.skipif(flavor.NAME == "keras 3", reason="Keras 3 refuses such a call itself")
@pytest.mark.parametrize(("equation", "output", "shapes"), [
    ("...x,xy->...y", (7,), [(4, 5, 6), (5, 6), (6,)]), ("...ax,xy->...ay", (None, 7), [(5, 6), (2, 4, 6)]),
])  # fmt: skip
def test_an_ellipsis_stands_for_axes_of_each_call(equation, output, shapes):
    inputs, both = [keras.Input(shape) for shape in shapes], layers.EinsumDense(equation, output, name="both")
    model = keras.Model(inputs, [both(x) for x in inputs])
    made, (costs,) = written(model, "svd")
    x = [np.random.default_rng(0).normal(size=(3, *shape)).astype("float32") for shape in shapes]
    for expected, received in zip(model(x), made(x), strict=True):
        np.testing.assert_allclose(received, expected, atol=1e-5)
    assert costs["macs"] == sum(int(np.prod(shape[:-1])) for shape in shapes) * (6 * 6 + 6 * 7)


def test_embedding():
    assert check(layers.Embedding(20, 6), (5,), "int32") == ["svd"]


@pytest.mark.parametrize("kind", ["self", "cross"])
def test_the_projections_of_attention(kind):
    x = keras.Input((6, 8))
    y = keras.Input((5, 8))
    attention = layers.MultiHeadAttention(2, 3, value_dim=4)
    model = keras.Model([x, y], attention(x, x if kind == "self" else y))
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=w.shape).astype("float32") for w in model.get_weights()])
    made, costs = written(model, "svd")
    assert len(costs) == 4
    given = [rng.normal(size=(3, n, 8)).astype("float32") for n in (6, 5)]
    assert error(model, made, given) < 1e-5


def test_ranks_below_compute_with_the_kernel_of_that_rank():
    model = one_layer(layers.Conv2D(6, 3, strides=2, padding="same"), (9, 8, 4))
    w, b = model.get_weights()
    u, s, v = np.linalg.svd(w.transpose(0, 2, 1, 3).reshape(12, 18), full_matrices=False)
    cut = ((u[:, :5] * s[:5]) @ v[:5]).reshape(3, 4, 3, 6).transpose(0, 2, 1, 3)
    made, _ = written(model, "spatial", [5])
    x = np.random.default_rng(0).normal(size=(3, 9, 8, 4)).astype("float32")
    model.set_weights([cut, b])
    assert error(model, made, x) < 1e-5


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(("kind", "shape"), [(layers.SeparableConv1D, (12, 4)), (layers.SeparableConv2D, (11, 10, 4))])
def test_separable_convolutions(kind, shape, padding):
    for options in ({"strides": 2}, {"dilation_rate": 2, "activation": "relu"}, {"use_bias": False}):
        model = one_layer(kind(6, 3, depth_multiplier=2, padding=padding, **options), shape)
        x = np.random.default_rng(0).normal(size=(3, *shape)).astype("float32")
        assert methods(model) == ["svd"]
        made, (costs,) = written(model, "svd")
        assert error(model, made, x) < 1e-5
        # 8 channels of windows, 8 x 6 as 8 x 6 and 6 x 6: the windows stay.
        assert [layer.count_params() for layer in made.layers[1:]] == [
            3 ** len(shape[1:]) * 8 + 8 * 6, 36 + 6 * options.get("use_bias", True)]  # fmt: skip
        assert costs["params"] == 8 * 6 + 36
        assert sum(macs_of(call) for call in calls(made)) - sum(macs_of(call) for call in calls(model)) == (
            costs["macs"] - 48 * costs["macs"] // 84)  # fmt: skip


def check_rows(layer, shape, dtype="float32"):
    """What the layer says that its kernel is multiplied with, times the kernel, is what Keras' layer makes."""
    model = one_layer(layer, shape, dtype)
    rng = np.random.default_rng(0)
    x = rng.integers(0, 20, (3, *shape)) if dtype == "int32" else rng.normal(size=(3, *shape)).astype("float32")
    (target,), _ = candidates(trace(model), None)
    rows, kernel = target.rows(x), target.kernel.reshape(-1, target.kernel.shape[-1])
    expected = np.asarray(model(x), "float64")
    received = kernel[rows] if rows.ndim == 1 else rows.astype("float64") @ kernel
    assert received.size == expected.size
    assert np.abs(received.reshape(expected.shape) - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize(("strides", "dilation"), [*WINDOWS, ((1, 3), 1)])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_rows_of_convolutions_of_two_axes(strides, dilation, padding):
    options = {"strides": strides, "dilation_rate": dilation, "padding": padding, "use_bias": False}
    for size in (3, (2, 5), 1):
        check_rows(layers.Conv2D(6, size, **options), (11, 10, 4))
        check_rows(layers.SeparableConv2D(6, size, depth_multiplier=2, **options), (11, 10, 4))


@pytest.mark.parametrize(("strides", "dilation"), [(1, 1), (2, 1), (3, 1), (1, 3)])
@pytest.mark.parametrize("padding", ["same", "valid", "causal"])
def test_rows_of_convolutions_of_one_axis(strides, dilation, padding):
    options = {"strides": strides, "dilation_rate": dilation, "padding": padding, "use_bias": False}
    check_rows(layers.Conv1D(6, 4, **options), (13, 4))
    if padding != "causal":
        check_rows(layers.SeparableConv1D(6, 4, depth_multiplier=2, **options), (13, 4))


def test_rows_of_matrices():
    check_rows(layers.Dense(6, use_bias=False), (2, 3, 5))
    for equation, output, shape in (("abc,cde->abde", (None, 2, 3), (5, 6)), ("abcd,cde->abe", (None, 7), (5, 2, 3)),
                                    ("...x,xy->...y", (7,), (5, 6)), ("abc,bde->acde", (6, 2, 3), (5, 6)),
                                    ("abcd,dbe->ace", (3, 7), (2, 3, 5))):  # fmt: skip
        check_rows(layers.EinsumDense(equation, output), shape)
    check_rows(layers.Embedding(20, 6), (5,), "int32")
