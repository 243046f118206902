"""The quantizer of a tensor boundary: how its range moves, what it computes, what its gradient is."""

import numpy as np
import pytest
import tensorflow as tf

from tests.zoo import keras
from tfcompress.quantize.quantizer import Quantizer
from tfcompress.quantize.ranges import LearnedStep, MovingAverage, Percentile

RNG = np.random.default_rng(5)
X = RNG.normal(size=(8, 3)).astype("float32")


def theirs(x, low, high, bits=8):
    """TensorFlow's own fake quantization."""
    return tf.quantization.fake_quant_with_min_max_vars(x, low, high, num_bits=bits).numpy()


def built(ranges="ema", **arguments):
    layer = Quantizer(ranges, **arguments)
    layer.build((None, 3))
    return layer


def ranged(low, high, ranges="ema", **arguments):
    layer = built(ranges, **arguments)
    layer.set_range(low, high)
    return layer


def gradient(function, x):
    x = tf.constant(x, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        weights = tf.reshape(tf.range(1.0, x.shape.num_elements() + 1.0), tf.shape(x))
        out = tf.reduce_sum(function(x) * weights)
    return tape.gradient(out, x).numpy()


def observed(layer):
    return np.asarray(layer.observed)


def test_the_moving_average_by_hand():
    layer = built(MovingAverage(momentum=0.75))
    for batch, low, high in (
        ([-1.0, 3.0], -1.0, 3.0),  # the first is taken as it is
        ([-3.0, 1.0], -1.5, 2.5),  # .75 * -1 + .25 * -3,   .75 * 3 + .25 * 1
        ([0.5, 4.5], -1.125, 3.0),  # zero belongs to a batch's range: .75 * -1.5 + .25 * 0,   .75 * 2.5 + .25 * 4.5
    ):
        layer(tf.constant(batch), training=True)
        np.testing.assert_array_equal(observed(layer), [low, high, 1.0])


def test_inference_and_a_frozen_range_stand_still_and_go_on_when_let_go():
    layer = built(MovingAverage(momentum=0.5))
    layer(tf.constant([-1.0, 1.0]), training=True)
    layer(tf.constant([-9.0, 9.0]), training=False)
    np.testing.assert_array_equal(observed(layer), [-1.0, 1.0, 1.0])
    layer.freeze()
    layer(tf.constant([-9.0, 9.0]), training=True)
    np.testing.assert_array_equal(observed(layer), [-1.0, 1.0, 1.0])
    layer.freeze(False)
    layer(tf.constant([-9.0, 9.0]), training=True)
    np.testing.assert_array_equal(observed(layer), [-5.0, 5.0, 1.0])


def test_a_range_that_was_frozen_before_anything_was_seen_takes_the_first_batch():
    layer = built()
    layer.freeze()
    layer(tf.constant([-1.0, 1.0]), training=True)
    layer(tf.constant([-9.0, 9.0]), training=True)
    np.testing.assert_array_equal(observed(layer), [-1.0, 1.0, 1.0])


def test_percentile_ranges_are_numpys():
    layer = built(Percentile(90.0, momentum=0.5))
    first, second = RNG.normal(size=(2, 50, 3)).astype("float32")
    layer(tf.constant(first), training=True)
    layer(tf.constant(second), training=True)
    ends = [[np.percentile(b, p, method="nearest") for p in (10, 90)] for b in (first, second)]
    np.testing.assert_allclose(observed(layer)[:2], np.mean(ends, 0), rtol=1e-6)


@pytest.mark.parametrize("ranges", ["ema", "percentile", "lsq"])
@pytest.mark.parametrize("activation", [None, "relu"])
def test_before_anything_was_seen_inference_passes_through(ranges, activation):
    layer = built(ranges, activation=activation)
    np.testing.assert_array_equal(layer(tf.constant(X)), np.maximum(X, 0) if activation else X)
    assert layer.limits() is None and not layer.learned


@pytest.mark.parametrize(
    ("low", "high", "ends"),
    [
        (-1.004, 1.546, (-1.0, 1.55)),  # step .01: 100.4 steps below zero become 100
        (0.0, 2.55, (0.0, 2.55)),
        (-2.0, 0.0, (-2.0, 0.0)),
    ],
)
def test_it_computes_tensorflows_fake_quant_on_the_nudged_range(low, high, ends):
    layer = ranged(low, high)
    x = np.linspace(-3, 3, 301).astype("float32")
    np.testing.assert_allclose(layer.limits(), ends, atol=1e-6)
    np.testing.assert_array_equal(layer(tf.constant(x)), theirs(x, *layer.limits()))
    step = (ends[1] - ends[0]) / 255
    inside = (x >= ends[0]) & (x <= ends[1])
    by_hand = np.clip(np.round(x / step) * step, *ends)
    assert np.abs(layer(tf.constant(x)).numpy() - by_hand)[inside].max() < step * 1.001  # a tie may fall either way
    assert np.median(np.abs(layer(tf.constant(x)).numpy() - by_hand)) < 1e-6
    assert 0.0 in layer(tf.constant([0.0])).numpy()


@pytest.mark.parametrize("activation", [None, "relu", "relu6"])
def test_training_computes_what_inference_computes_on_the_range_it_left(activation):
    layer = built(activation=activation)
    x = X * 5
    trained = layer(tf.constant(x), training=True).numpy()
    np.testing.assert_allclose(trained, layer(tf.constant(x), training=False), atol=1e-5)


@pytest.mark.parametrize("ranges", ["ema", "percentile", "lsq"])
@pytest.mark.parametrize(("activation", "function"), [("relu", tf.nn.relu), ("relu6", tf.nn.relu6)])
def test_a_relu_inside_is_a_relu_before_in_forward_and_in_gradient(ranges, activation, function):
    x = np.concatenate([X * 4, [[-6.5, 0.25, 6.5]]]).astype("float32")
    inside, plain = built(ranges, activation=activation), built(ranges)
    for _ in range(2):
        np.testing.assert_allclose(
            inside(tf.constant(x), training=True), plain(function(tf.constant(x)), training=True), atol=1e-5
        )
        np.testing.assert_allclose(inside.limits(), plain.limits(), rtol=1e-6)
    np.testing.assert_allclose(inside(tf.constant(x)), plain(function(tf.constant(x))), atol=1e-5)
    kept = x < np.max(function(x)) * 0.999  # at its very end a grid may count a value as in or out
    found, expected = (gradient(lambda t, f=f: f(t), x) for f in (
        lambda t: inside(t, training=True), lambda t: plain(function(t), training=True)))  # fmt: skip
    np.testing.assert_allclose(found[kept], expected[kept], atol=1e-5)
    assert not found[x <= 0].any() and found[(x > 0.1) & kept].all()


def test_the_gradient_is_exactly_one_inside_the_range_and_outside():
    layer = ranged(-0.5, 0.5)
    layer.freeze()
    found = gradient(lambda t: layer(t, training=True), X)
    np.testing.assert_array_equal(found, 1.0 + np.arange(X.size).reshape(X.shape))


@pytest.mark.parametrize("bits", [8, 16])
def test_lsq_starts_from_the_papers_step_but_not_wider_than_the_values(bits):
    x = np.array([[0.5, -1.0, 0.1, 0.4]], "float32")  # mean |x| = .5, largest 1
    layer = built("lsq", bits=bits)
    layer(tf.constant(x), training=True)
    last = 2 ** (bits - 1) - 1
    expected = min(2 * 0.5 / last**0.5, 1.0 / last)
    assert float(np.asarray(layer.step)) == pytest.approx(expected, rel=1e-6)
    assert layer.limits() == (pytest.approx(-(last + 1) * expected), pytest.approx(last * expected))
    layer(tf.constant(x * 9), training=True)
    assert float(np.asarray(layer.step)) == pytest.approx(expected, rel=1e-6)  # the optimizer moves it from here on


def test_lsq_of_positive_values_uses_all_256_codes_above_zero():
    layer = built("lsq")
    layer(tf.constant([[0.5, 1.0, 0.0, 0.5]]), training=True)
    assert float(np.asarray(layer.step)) == pytest.approx(1 / 255, rel=1e-6)
    assert layer.limits() == (0.0, pytest.approx(1.0))


def test_the_step_of_lsq_has_the_papers_gradient_and_none_when_frozen():
    layer = ranged(-12.8, 12.7, "lsq")  # step .1, codes -128 to 127
    assert float(np.asarray(layer.step)) == pytest.approx(0.1)
    x = tf.constant([[0.24, -0.56], [13.0, -0.04]])  # 2.4, -5.6, 130, -.4
    step = layer.step.value if hasattr(layer.step, "path") else layer.step

    def found():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(x, training=True))
        return tape.gradient(loss, step)

    # Two features a sample: g = 1 / sqrt(2 * 127). (2 - 2.4) + (-6 + 5.6) + 127 + (0 + .4) = 126.6
    assert float(found()) == pytest.approx(126.6 / 254**0.5, rel=1e-4)
    layer.freeze()
    frozen = found()
    assert frozen is None or float(frozen) == 0.0


def test_sixteen_bits_are_symmetric():
    layer = ranged(-1.0, 3.2767, bits=16)  # step .0001
    np.testing.assert_allclose(layer.limits(), (-3.2768, 3.2767), rtol=1e-6)
    found = layer(tf.constant([0.12344, -0.5, 0.0, 9.0, -9.0])).numpy()
    np.testing.assert_allclose(found, [0.1234, -0.5, 0.0, 3.2767, -3.2768], atol=2e-6)


@pytest.mark.parametrize("training", [False, True])
def test_a_fixed_range_never_moves_and_owns_nothing(training):
    layer = Quantizer(fixed=(-1.0, 127 / 128))  # steps of 1/128
    found = layer(tf.constant([[0.1, -3.0, 5.0]]), training=training).numpy()
    np.testing.assert_array_equal(found, [[13 / 128, -1.0, 127 / 128]])  # .1 * 128 = 12.8
    assert layer.weights == [] and layer.limits() == (-1.0, 127 / 128)
    with pytest.raises(ValueError, match="is fixed at"):
        layer.set_range(0.0, 1.0)
    layer.freeze()


@pytest.mark.parametrize("ranges", ["ema", "percentile", "lsq"])
@pytest.mark.parametrize("activation", [None, "relu", "relu6"])
@pytest.mark.parametrize("arguments", [{}, {"bits": 16}])
def test_the_form_for_inference_computes_the_same(ranges, activation, arguments):
    layer = built(ranges, activation=activation, **arguments)
    x = tf.constant(X * 4)
    layer(x, training=True)
    final = layer.for_inference()
    np.testing.assert_array_equal(final(x * 2), layer(x * 2))
    assert final.name == layer.name and final.weights == []


@pytest.mark.parametrize("activation", [None, "relu6"])
def test_the_form_for_inference_of_one_that_saw_nothing_passes_through(activation):
    final = built(activation=activation).for_inference()
    np.testing.assert_array_equal(final(tf.constant(X * 4)), np.clip(X * 4, 0, 6) if activation else X * 4)


@pytest.mark.parametrize("ranges", ["ema", "percentile"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_batch_that_is_not_finite_does_not_poison_the_range(ranges, bad):
    layer = built(ranges)
    layer(tf.constant([-1.0, 1.0]), training=True)
    layer(tf.constant([bad] * 50), training=True)
    np.testing.assert_array_equal(observed(layer), [-1.0, 1.0, 1.0])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_first_batch_that_is_not_finite_does_not_poison_a_learned_step(bad):
    layer = built("lsq")
    layer(tf.constant([[bad, 1.0]]), training=True)
    layer(tf.constant([[-1.0, 0.5]]), training=True)
    assert np.isfinite(observed(layer)).all() and np.isfinite(np.asarray(layer.step))
    assert float(np.asarray(layer.step)) == pytest.approx(1 / 127, rel=1e-6)  # the second batch is the first seen


def test_set_range_decides_limits_and_the_step_of_lsq():
    assert ranged(-1.0, 1.55).limits() == (pytest.approx(-1.0), pytest.approx(1.55))
    assert ranged(0.0, 2.55, "lsq").limits() == (0.0, pytest.approx(2.55))  # step .01 of 255 codes
    assert ranged(-1.28, 0.5, "lsq").limits() == (pytest.approx(-1.28), pytest.approx(1.27))  # 1.28 / 128 is wider


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("training", [False, True])
def test_the_dtype_of_the_input_stays(dtype, training):
    layer = Quantizer(dtype=dtype)
    out = layer(tf.cast(X, dtype), training=training)
    assert out.dtype == dtype
    assert {tf.as_dtype(w.dtype) for w in layer.weights} == {tf.float32}


def test_a_range_of_half_precision_values_is_kept_in_single_precision():
    layer = Quantizer(MovingAverage(momentum=0.99), dtype="float16")
    layer(tf.constant([0.0, 1.0], tf.float16), training=True)
    layer(tf.constant([0.0, 1.01], tf.float16), training=True)
    expected = 0.99 + 0.01 * float(np.float16(1.01))  # 1.0001, which float16 cannot hold
    assert observed(layer)[1] == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize(
    "arguments",
    [
        {"ranges": "ema"},
        {"ranges": Percentile(95.0, 0.5, 64), "bits": 16, "activation": "relu6"},
        {"ranges": LearnedStep(rows=None), "activation": "relu"},
        {"fixed": (-1.0, 0.5), "name": "tanh_range"},
    ],
)
def test_the_config_holds_every_argument(arguments):
    first = Quantizer(**arguments)
    second = Quantizer.from_config(first.get_config())
    for name in ("ranges", "bits", "fixed", "activation", "name"):
        assert getattr(first, name) == getattr(second, name)
    whole = keras.layers.deserialize(keras.layers.serialize(first))
    assert whole.get_config() == first.get_config()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"bits": 4}, "`bits` must be 8 or 16. Received: bits=4"),
        ({"activation": "gelu"}, r"`activation` must be one of \['relu', 'relu6'\] or None"),
        ({"fixed": (1.0, 2.0)}, r"`fixed` must be \(low, high\) around 0"),
        ({"fixed": (0.0, 0.0)}, "`fixed` must be"),
        ({"fixed": (0.0,)}, "`fixed` must be"),
        ({"ranges": "max"}, "`ranges` must be one of"),
    ],
)
def test_bad_arguments_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        Quantizer(**arguments)


def test_it_describes_itself():
    layer = built("lsq")
    assert layer.describe_output() == "int8 output, learned step, nothing seen yet"
    layer.set_range(0.0, 1.0)
    assert layer.describe_output() == "int8 output, learned step"
    assert built(bits=16).describe_output() == "int16 output, moving average, nothing seen yet"
    assert Quantizer(fixed=(0.0, 1.0)).describe_output() == "int8 output, fixed range"
