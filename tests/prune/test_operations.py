"""Operations without weights, understood by what they do to numbers."""

import numpy as np
import pytest
import tensorflow as tf

from tests.zoo import concatenate, mean, reshape, transpose
from tfcompress.core.trace import trace
from tfcompress.prune.flow import Flow

keras = tf.keras
layers = keras.layers
_ops = getattr(keras, "ops", None)


def flow_of(operation, *shapes):
    """Labels behind dense layers, then `operation` of their outputs, then a layer that hides what is an output."""
    inputs = [keras.Input((*shape[:-1], 3)) for shape in shapes]
    made = [layers.Dense(shape[-1])(x) for x, shape in zip(inputs, shapes, strict=True)]
    model = keras.Model(inputs, operation(*made))
    return Flow(trace(model))


def step_of(flow):
    return next(step for step in flow.steps if step.operation is not None)


def classes(flow, tensor=0):
    vector = step_of(flow).given[tensor][-1]
    return flow.labels.roots(vector).tolist()


@pytest.mark.parametrize("operation", [
    layers.ReLU(), layers.Activation("gelu"), layers.MaxPooling1D(2), layers.UpSampling1D(2), layers.ZeroPadding1D(1),
    layers.Dropout(0.5), layers.GlobalAveragePooling1D(), lambda x: x * 2.0 + 1.0, lambda x: x[:, ::2],
    lambda x: mean(x, axis=1), lambda x: x / 3.0,
])  # fmt: skip
def test_what_treats_channels_alike_keeps_their_labels(operation):
    flow = flow_of(operation, (4, 6))
    output = step_of(flow).operation.outputs[0][-1]
    assert flow.labels.roots(output).tolist() == classes(flow)
    assert step_of(flow).operation.reason is None


@pytest.mark.parametrize("operation", [
    layers.Softmax(), lambda x: mean(x, axis=-1), layers.UnitNormalization(), layers.Softmax(axis=(1, 2)),
])  # fmt: skip
def test_what_mixes_channels_fixes_them(operation):
    flow = flow_of(operation, (4, 6))
    assert "mixes" in step_of(flow).operation.reason


def test_the_largest_of_channels_is_no_sum():
    largest = (lambda x: tf.reduce_max(x, -1)) if _ops is None else (lambda x: _ops.max(x, -1))
    flow = flow_of(largest, (4, 6))
    assert "mixes" in step_of(flow).operation.reason


def test_a_sum_of_channels_ends_them():
    total = (lambda x: tf.reduce_sum(x, -1)) if _ops is None else (lambda x: _ops.sum(x, -1))
    flow = flow_of(total, (4, 6))
    assert step_of(flow).operation.sums == [(0, 2)]
    assert not any(flow.labels.reason(label) for label in classes(flow))


def test_a_product_of_matrices_ties_what_it_sums_over_and_keeps_the_rest():
    # [B, 4, 6] x [B, 6, 4]: queries and keys share 6 labels
    scores = (lambda q, k: tf.matmul(q, k, transpose_b=True)) if _ops is None else (
        lambda q, k: _ops.matmul(q, _ops.transpose(k, (0, 2, 1))))  # fmt: skip
    flow = flow_of(scores, (4, 6), (4, 6))
    groups = [flow.tensors[id(s.call.outputs[0])][-1] for s in flow.steps if s.operation is None]
    assert flow.labels.roots(groups[0]).tolist() == flow.labels.roots(groups[1]).tolist()
    assert not flow.labels.reason(groups[0][0])


def test_an_addition_ties_and_a_constant_of_channels_is_noted():
    flow = flow_of(lambda a, b: a + b, (4, 6), (4, 6))
    assert classes(flow, 0) == classes(flow, 1)
    flow = flow_of(lambda a: a * np.arange(6, dtype="float32"), (4, 6))
    (vector,) = step_of(flow).operation.constants.values()
    assert flow.labels.roots(vector).tolist() == classes(flow)
    assert flow.labels.reason(classes(flow)[0]) == "it is an output of the model"


def test_concatenation_lays_labels_end_to_end_and_a_slice_takes_some():
    flow = flow_of(lambda a, b: concatenate([a, b], -1), (4, 6), (4, 5))
    output = step_of(flow).operation.outputs[0][-1]
    assert flow.labels.roots(output).tolist() == [*classes(flow, 0), *classes(flow, 1)]
    flow = flow_of(lambda a: a[..., 1:5:2], (4, 6))
    assert flow.labels.roots(step_of(flow).operation.outputs[0][-1]).tolist() == classes(flow)[1:5:2]


def test_a_channel_shuffle_ties_the_same_places_of_its_groups():
    def shuffle(x):
        x = transpose(reshape(x, (-1, 4, 2, 3)), (0, 1, 3, 2))
        return reshape(x, (-1, 4, 6))

    flow = flow_of(shuffle, (4, 6))
    roots = classes(flow)
    assert roots == [roots[0], roots[1], roots[2]] * 2
    last = [s for s in flow.steps if s.operation is not None][-1].operation.outputs[0][-1]
    assert flow.labels.roots(last).tolist() == [roots[0], roots[0], roots[1], roots[1], roots[2], roots[2]]


def test_flatten_repeats_the_labels_of_a_map():
    flow = flow_of(layers.Flatten(), (4, 3))
    assert flow.labels.roots(step_of(flow).operation.outputs[0][-1]).tolist() == classes(flow) * 4


@pytest.mark.skipif(_ops is not None, reason="in this flavor shapes are plain numbers")
def test_channels_whose_number_is_computed_with_stay():
    inputs = keras.Input((4, 3))
    for used, reason in ((-1, "the model computes with how many there are"), (0, None)):
        x = layers.Dense(6)(inputs)
        x = layers.Dense(2)(x / tf.cast(tf.shape(x)[used], tf.float32))
        flow = Flow(trace(keras.Model(inputs, x)))
        made = flow.tensors[id(flow.steps[0].call.outputs[0])][-1]
        assert flow.labels.reason(made[0]) == reason


def test_a_users_layer_is_understood_by_what_it_does():
    class Swish(layers.Layer):
        def call(self, x):
            return x / (1.0 + 2.718281828 ** (-x))

    class Ranked(layers.Layer):
        def call(self, x):
            return tf.sort(x, axis=-1)

        def compute_output_shape(self, shape):
            return shape

    assert step_of(flow_of(Swish(), (4, 6))).operation.reason is None
    assert "mixes" in step_of(flow_of(Ranked(), (4, 6))).operation.reason
