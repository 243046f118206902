"""What a model's outputs are is found out from what makes them."""

import pytest
import tensorflow as tf

import tfcompress
from tests.distill.models import Own, X, conv, dense, keras, layers
from tfcompress.distill.output_kind import answers_kind, layer_kind, output_kind, probabilities_layer


@pytest.mark.parametrize(("activation", "kind"), [(None, "logits"), ("softmax", "softmax"), ("sigmoid", "sigmoid"),
                                                  ("relu", "logits"), (tf.nn.softmax, "softmax")])  # fmt: skip
def test_activation_of_the_last_layer(activation, kind):
    assert output_kind(dense(activation=activation)) == kind


@pytest.mark.parametrize("last", [
    lambda: layers.Softmax(), lambda: layers.Activation("softmax", dtype="float32"),
])  # fmt: skip
def test_softmax_layers(last):
    assert output_kind(keras.Sequential([dense(), last()])) == "softmax"


@pytest.mark.parametrize("behind", [
    lambda: layers.Reshape((3, 1)), lambda: layers.Activation("linear", dtype="float32"), lambda: layers.Flatten(),
])  # fmt: skip
def test_what_hands_values_on_is_passed(behind):
    assert output_kind(keras.Sequential([dense(activation="softmax"), behind()])) == "softmax"
    assert output_kind(keras.Sequential([dense(), behind()])) == "logits"


@pytest.mark.parametrize(("behind", "kind"), [
    (lambda: layers.UpSampling2D(2), "softmax"), (lambda: layers.UpSampling2D(2, interpolation="bilinear"), "softmax"),
    (lambda: layers.Permute((2, 1, 3)), "softmax"), (lambda: layers.Permute((3, 1, 2)), "logits"),
    (lambda: layers.Cropping2D(1), "softmax"), (lambda: layers.Lambda(lambda x: x * 5 - 1), "logits"),
    (lambda: layers.Dropout(0.1), "softmax"),
])  # fmt: skip
def test_what_moves_probabilities_is_passed_and_what_changes_them_is_not(behind, kind):
    start = [keras.Input((4, 4, 2)), layers.Conv2D(3, 1, activation="softmax")]
    assert output_kind(keras.Sequential([*start, behind()])) == kind
    assert output_kind(keras.Sequential([start[0], layers.Conv2D(3, 1), behind()])) == "logits"


def test_a_moved_softmax_is_not_in_front():
    softmax = layers.Softmax()
    model = keras.Sequential([keras.Input((4, 4, 2)), layers.Conv2D(3, 1), softmax, layers.UpSampling2D(2)])
    assert output_kind(model) == "softmax" and probabilities_layer(model) is None


def test_layers_inside():
    inside = [layers.Dense(3, "softmax"), layers.Dropout(0.1), layers.Dense(2), layers.Dense(2, "sigmoid")]
    model = keras.Sequential([keras.Input((4,)), *inside])
    assert [layer_kind(layer) for layer in model.layers] == ["softmax", "softmax", "logits", "sigmoid"]


@pytest.mark.parametrize(("answers", "kind"), [
    ([[0.2, 0.8], [1.0, 0.0]], "softmax"), ([[0.2, 0.7]], "logits"), ([[2.0, -1.0]], "logits"), ([[1.0]], "logits"),
    ([0.5, 0.5], "logits"), ([[[0.5, 0.5], [0.1, 0.9]]], "softmax"), ([[[0.5, 0.5], [0.9, 0.9]]], "logits"),
])  # fmt: skip
def test_answers_are_judged_where_they_tell(answers, kind):
    assert answers_kind(answers) == kind


def test_nested_and_wrapped_and_several_outputs():
    inputs = keras.Input((4, 6))
    each = layers.TimeDistributed(layers.Dense(2, "sigmoid"))(inputs)
    assert output_kind(keras.Model(inputs, each)) == "sigmoid"
    inputs = keras.Input((6,))
    model = keras.Model(inputs, [dense()(inputs), dense(activation="softmax")(inputs)])
    assert [output_kind(model, place) for place in (0, 1)] == ["logits", "softmax"]


def test_subclassed_models_are_judged_by_their_last_layer():
    model = Own()
    model(X[:1])
    assert output_kind(model) == "logits"


def test_quantized_models_keep_their_kind():
    assert output_kind(tfcompress.quantize_model(conv(activation="softmax"))) == "softmax"
    assert output_kind(tfcompress.quantize_model(conv())) == "logits"


def test_the_layer_behind_the_logits():
    softmax = layers.Softmax()
    assert probabilities_layer(keras.Sequential([dense(), softmax])) is softmax
    assert probabilities_layer(keras.Sequential([dense(), softmax, layers.Reshape((3, 1))])) is None
    assert probabilities_layer(dense(activation="softmax")) is None
    assert probabilities_layer(dense()) is None
    quantized = probabilities_layer(tfcompress.quantize_model(conv(activation="softmax")))
    assert quantized is not None and "softmax" in quantized.name
