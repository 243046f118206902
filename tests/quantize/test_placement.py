"""Where quantizers stand, for small graphs whose boundaries are written down by hand."""

import numpy as np
import pytest

from tests.zoo import keras, layers, transpose
from tfcompress.core.replay import calls
from tfcompress.core.trace import trace
from tfcompress.quantize.expand import expand
from tfcompress.quantize.placement import Boundary, Placement
from tfcompress.quantize.ranges import MaskedScores

IMAGE, VECTOR = (8, 8, 3), (6,)
CASES = {}


def graph(*shapes, expect, inputs=None, dtype="float32"):
    """Registers a builder: which calls have a boundary behind them, and which inputs (default: all)."""

    def register(build):
        def make():
            tensors = [keras.Input(s, name=f"in{i}", dtype=dtype) for i, s in enumerate(shapes)]
            return keras.Model(tensors, build(*tensors))

        given = {f"in{i}" for i in range(len(shapes))} if inputs is None else set(inputs)
        CASES[build.__name__] = (make, set(expect), given)
        return build

    return register


def placed(model):
    flat = expand(trace(model))
    return flat, Placement(flat)


def conv(name, filters=4, **options):
    return layers.Conv2D(filters, 3, padding="same", name=name, **options)


@graph(IMAGE, expect={"relu"})
def convolution_norm_relu(x):
    return layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(conv("conv")(x)))


@graph(IMAGE, expect={"conv"})
def convolution_with_a_relu(x):
    return conv("conv", activation="relu")(x)


@graph(IMAGE, expect={"norm"})
def convolution_norm(x):
    return layers.BatchNormalization(name="norm")(conv("conv")(x))


@graph(IMAGE, expect={"conv", "norm"})
def a_relu_between_convolution_and_norm(x):
    return layers.BatchNormalization(name="norm")(conv("conv", activation="relu")(x))


@graph(IMAGE, expect={"conv", "act", "add"})
def a_relu_that_does_not_read_alone(x):
    y = conv("conv", 3)(x)
    return layers.Add(name="add")([y, layers.ReLU(name="act")(y)])


@graph(IMAGE, expect={"conv", "act"})
def a_convolution_that_is_an_output(x):
    y = conv("conv")(x)
    return [y, layers.ReLU(name="act")(y)]


@graph(IMAGE, expect={"conv", "act"})
def add_and_relu(x):
    return layers.ReLU(name="act")(layers.Add(name="add")([conv("conv", 3)(x), x]))


@graph(IMAGE, expect={"conv", "leaky"})
def an_activation_that_no_kernel_fuses(x):
    return layers.LeakyReLU(name="leaky")(conv("conv")(x))


@graph(VECTOR, expect={"dense", "dense_gelu"})
def an_activation_inside_a_layer(x):
    return layers.Dense(4, activation="gelu", name="dense")(x)


@graph(VECTOR, expect={"dense", "dense_softmax"})
def a_softmax(x):
    return layers.Dense(4, activation="softmax", name="dense")(x)


@graph(VECTOR, VECTOR, expect={"concat"}, inputs={"in0", "in1"})
def concatenation_shares_one(x, y):
    parts = layers.Dense(4, activation="relu", name="a")(x), layers.Dense(4, name="b")(y)
    return layers.Concatenate(name="concat")(list(parts))


@graph(VECTOR, expect={"a", "concat", "add"})
def concatenation_of_what_others_read(x):
    a, b = layers.Dense(4, name="a")(x), layers.Dense(4, name="b")(x)
    return [layers.Concatenate(name="concat")([a, b]), layers.Add(name="add")([a, a])]


@graph(VECTOR, expect={"a", "sigmoid", "concat"})
def concatenation_leaves_a_fixed_range(x):
    gate = layers.Activation("sigmoid", name="sigmoid")(layers.Dense(4, name="a")(x))
    return layers.Concatenate(name="concat")([gate, layers.Dense(4, name="b")(x)])


@graph(IMAGE, expect={"conv", "dense"})
def shapes_and_maxima_keep_their_range(x):
    y = layers.MaxPooling2D(name="pool")(conv("conv", activation="relu")(x))
    y = layers.ZeroPadding2D(name="pad")(y)
    return layers.Dense(2, name="dense")(layers.Flatten(name="flatten")(y))


@graph(IMAGE, expect={"relu", "mean", "dense"})
def dropout_is_seen_through(x):
    y = layers.ReLU(name="relu")(layers.Dropout(0.5, name="d1")(conv("conv")(x)))
    y = layers.GlobalAveragePooling2D(name="mean")(y)
    return layers.Dense(2, name="dense")(layers.Dropout(0.5, name="d2")(y))


@graph((7,), expect={"conv"}, inputs=set(), dtype="int32")
def an_embedding_has_its_weights_scale(x):
    return layers.Conv1D(3, 2, name="conv")(layers.Embedding(9, 4, name="table")(x))


@graph((7,), expect={"conv"}, inputs=set())
def indices_in_a_floats_clothes_are_no_numbers(x):
    return layers.Conv1D(3, 2, name="conv")(layers.Embedding(9, 4, name="table")(x))


@graph(VECTOR, expect={"again", "head"})
def a_shared_layer_has_a_boundary_behind_each_call(x):
    again = layers.Dense(6, name="again")
    return layers.Dense(2, name="head")(again(again(x)))


@graph((5, 6), expect={"lstm", "norm"})
def layers_with_operations_inside(x):
    return layers.LayerNormalization(name="norm")(layers.LSTM(4, return_sequences=True, name="lstm")(x))


def outcome(case):
    make, expected, inputs = CASES[case]
    flat, placement = placed(make())
    found = {call.operation.name for call in calls(flat) if isinstance(placement.of(call), Boundary)}
    read = {t_name for t_name, t in zip([i.name.split(":")[0] for i in flat.inputs], flat.inputs, strict=True)
            if placement.inputs[id(t)]}  # fmt: skip
    return found, expected, read, inputs


@pytest.mark.parametrize("case", CASES)
def test_boundaries_stand_exactly_where_the_runtime_has_them(case):
    found, expected, read, inputs = outcome(case)
    assert found == expected
    assert read == inputs


REASONS = {
    ("convolution_norm_relu", "conv"): "computed together with norm",
    ("convolution_norm_relu", "norm"): "computed together with relu",
    ("dropout_is_seen_through", "conv"): "computed together with relu",
    ("dropout_is_seen_through", "d2"): "does nothing at inference",
    ("concatenation_shares_one", "a"): "shares the range of concat",
    ("shapes_and_maxima_keep_their_range", "flatten"): "keeps the range of its input",
    ("an_embedding_has_its_weights_scale", "table"): "rows have the scale of the weight",
}


@pytest.mark.parametrize(("case", "name"), REASONS)
def test_a_call_without_a_boundary_has_a_reason(case, name):
    flat, placement = placed(CASES[case][0]())
    (reason,) = [placement.of(call) for call in calls(flat) if call.operation.name == name]
    assert reason == REASONS[case, name]


@pytest.mark.parametrize(
    ("case", "name", "relu", "fixed"),
    [
        ("convolution_norm_relu", "relu", "relu", None),
        ("convolution_with_a_relu", "conv", "relu", None),
        ("convolution_norm", "norm", None, None),
        ("a_softmax", "dense_softmax", None, (0.0, 255 / 256)),
        ("a_softmax", "dense", None, None),
        ("concatenation_leaves_a_fixed_range", "sigmoid", None, (0.0, 255 / 256)),
    ],
)
def test_what_a_boundary_knows(case, name, relu, fixed):
    flat, placement = placed(CASES[case][0]())
    (boundary,) = [placement.of(call) for call in calls(flat) if call.operation.name == name]
    assert (boundary.relu, boundary.fixed(8)) == (relu, fixed)


def test_what_a_large_constant_masks_has_a_range_in_front_of_the_softmax():
    inputs = keras.Input((4,)), keras.Input((4,))
    scores = layers.Dense(4, name="scores")(inputs[0])
    model = keras.Model(inputs, layers.Softmax(name="softmax")(scores + (1.0 - inputs[1]) * -1e9))
    flat, placement = placed(model)
    last = calls(flat)[-1]
    assert [placement.of(c).is_fixed for c in (last,)] == [True]
    reasons = [placement.of(c) for c in calls(flat) if isinstance(placement.of(c), str)]
    assert len([r for r in reasons if r.startswith("carries a mask")]) == 1  # the product with -1e9
    assert len([r for r in reasons if r.startswith("becomes a mask")]) == 1  # 1 - mask
    masked = [placement.of(c).ranges for c in calls(flat) if isinstance(placement.of(c), Boundary)]
    assert [ranges for ranges in masked if ranges] == [MaskedScores(axis=-1)]  # the sum
    assert any(c.operation.name == "scores" and isinstance(placement.of(c), Boundary) for c in calls(flat))


def test_a_constant_of_ordinary_size_is_no_mask():
    inputs = keras.Input((4,))
    flat, placement = placed(keras.Model(inputs, (inputs + 100.0) * np.float32(0.5)))
    assert all(isinstance(placement.of(c), Boundary) for c in calls(flat))


def test_an_output_of_integers_has_no_boundary():
    inputs = keras.Input((4,))
    cast = keras.ops.cast if hasattr(keras, "ops") else __import__("tensorflow").cast
    flat, placement = placed(keras.Model(inputs, cast(layers.Dense(3, name="dense")(inputs), "int32")))
    assert [isinstance(placement.of(c), Boundary) for c in calls(flat)] == [True, False]
    assert placement.of(calls(flat)[-1]) == "its output is no real number"


def test_a_layer_that_serves_several_calls_is_told_apart():
    again = layers.Dense(4, name="again")
    inputs = keras.Input((4,))
    flat, placement = placed(keras.Model(inputs, layers.Dense(2, name="once")(again(again(inputs)))))
    assert [placement.called_once(c) for c in calls(flat)] == [False, False, True]


@pytest.mark.parametrize(("reads_twice", "own"), [(False, False), (True, True)])
def test_an_input_that_only_grows_by_what_is_joined_to_it_has_the_range_of_the_whole(reads_twice, own):
    cache, new = keras.Input((5, 3), name="cache"), keras.Input((1, 3), name="new")
    both = layers.Concatenate(axis=1, name="both")([cache, layers.Dense(3, name="keys")(new)])
    outputs = [both[:, -5:], layers.Dense(2, name="other")(cache)] if reads_twice else both[:, -5:]
    flat, placement = placed(keras.Model([cache, new], outputs))
    (joined,) = [call for call in calls(flat) if call.operation.name == "both"]
    assert isinstance(placement.of(joined), Boundary)
    assert [placement.inputs[id(t)] for t in flat.inputs] == [own, True]


def test_whole_numbers_that_are_joined_have_no_boundary():
    # Keras 3 says of joined whole numbers that they were real ones.
    inputs = [keras.Input((4,), dtype="int32", name=name) for name in ("past", "now")]
    flat, placement = placed(keras.Model(inputs, layers.Concatenate(axis=1, name="both")(inputs)[:, -4:]))
    assert not any(isinstance(placement.of(call), Boundary) for call in calls(flat))


class Tied(layers.Embedding):
    """Rows of a table, or the product with it."""

    def call(self, inputs, reverse=False):
        return inputs @ transpose(self.embeddings, (1, 0)) if reverse else super().call(inputs)

    def compute_output_spec(self, inputs, reverse=False):
        shape = (*inputs.shape[:-1], self.input_dim) if reverse else (*inputs.shape, self.output_dim)
        return keras.KerasTensor(shape, dtype=self.compute_dtype)


def test_a_table_has_a_boundary_where_it_is_the_matrix_of_a_product():
    inputs, table = keras.Input((6,), dtype="int32"), Tied(9, 4, name="table")
    flat, placement = placed(keras.Model(inputs, table(layers.Dense(4, name="body")(table(inputs)), reverse=True)))
    found = [placement.of(call) for call in calls(flat) if call.operation.name == "table"]
    assert [isinstance(boundary, Boundary) for boundary in found] == [False, True]
