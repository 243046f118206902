"""What the summary counts, worked by hand, and what it says of each layer."""

import numpy as np
import pytest

import tfcompress
from tests.core.composites import chain, composite, floats, mean
from tests.zoo import keras, layers
from tfcompress.core.summary import Cost, Row, summary
from tfcompress.quantize import Scheme


def model_of():
    inputs = keras.Input((6, 6, 2), name="image")
    x = layers.Conv2D(4, 3, use_bias=False, name="conv")(inputs)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(x))
    x = layers.Dense(3, name="head")(layers.Flatten(name="flat")(x))
    return keras.Model(inputs, x, name="small")


def rows(model):
    return {row.name: row for row in summary(model).rows}


def test_a_float_model_by_hand():
    model = model_of()
    kernel = np.zeros((3, 3, 2, 4), "float32")
    kernel[0, 0, 0] = [1, 2, 3, 4]
    model.get_layer("conv").set_weights([kernel])
    found = rows(model)
    assert list(found) == ["conv", "norm", "relu", "flat", "head"]
    # 3 * 3 * 2 * 4 numbers of 4 bytes at 4 * 4 positions; 68 of 72 are zero; values 0 to 4
    cost = Cost(288, pytest.approx(68 / 72), 5)
    assert found["conv"] == Row("conv", "Conv2D", "", 72, 1152, cost, cost)
    assert (found["norm"].parameters, found["norm"].macs, found["norm"].before.bytes) == (16, 0, 64)  # 4 vectors of 4
    # 4 * 4 * 4 inputs to 3 units: 192 weights and 3 biases
    assert (found["head"].parameters, found["head"].macs, found["head"].before.bytes) == (195, 192, 780)
    assert found["norm"].before.distinct == 0  # no kernel


def test_totals_are_sums_of_the_rows():
    found = summary(model_of())
    assert (found.parameters, found.macs) == (72 + 16 + 195, 1152 + 192)
    assert found.bytes_before == found.bytes_after == 4 * 283


@pytest.mark.parametrize(
    ("scheme", "conv", "head"),
    [
        ("int8", 72 + 4 * 4, 192 + 3 * 4 + 3 * 4),  # a byte a weight, 4 a scale, 4 a bias
        ("w4a8", 36 + 4 * 4, 96 + 4 + 3 * 4),  # a matrix of four bits has one scale
        ("int8_per_tensor", 72 + 4 + 4 * 4, 192 + 4 + 3 * 4),  # normalization became a bias of 4
    ],
)
def test_bytes_after_quantization_by_hand(scheme, conv, head):
    found = rows(tfcompress.quantize_model(model_of(), scheme))
    assert (found["conv"].after.bytes, found["head"].after.bytes) == (conv, head)
    assert found["head"].before.bytes == 780
    assert found["head"].after.distinct <= 3 * (15 if scheme == "w4a8" else 255)  # three channels of 2**bits - 1
    assert found["conv"].layer == "Conv2D" and found["conv"].macs == 1152


def test_four_bits_round_some_weights_to_zero_and_the_row_says_so():
    model = model_of()
    kernel = np.tile(np.linspace(-7.0, 7.0, 64, dtype="float32")[:, None], (1, 3))  # steps of 1: zero below .5
    model.get_layer("head").set_weights([kernel, np.zeros(3, "float32")])
    row = rows(tfcompress.quantize_model(model, "w4a8"))["head"]
    small = np.mean(np.abs(np.linspace(-7.0, 7.0, 64)) < 0.5)
    assert (row.before.zeros, row.after.zeros) == (0.0, pytest.approx(small))
    assert (row.before.distinct, row.after.distinct) == (64, 15)


def test_what_was_done_and_why_not():
    scheme = Scheme.named("int8").override("relu", activations=None)
    found = rows(tfcompress.quantize_model(model_of(), scheme))
    assert found["conv"].done == "kernel int8 per channel; computed together with norm"
    assert found["norm"].done == "computed together with relu"
    assert found["relu"].done == "its range is measured when the file is made"
    assert found["flat"].done == "keeps the range of its input"
    assert found["head"].done == "kernel int8 per channel; int8 output, moving average, nothing seen yet"
    left = rows(tfcompress.quantize_model(model_of(), select="conv"))
    assert left["head"].done == "not selected"


def test_what_a_quantizer_saw_is_said():
    quantized = tfcompress.quantize_model(model_of(), ranges="lsq")
    quantized(np.random.default_rng(0).normal(size=(2, 6, 6, 2)).astype("float32"), training=True)
    assert rows(quantized)["head"].done == "kernel int8 per channel; int8 output, learned step"


def test_a_shared_layer_counts_its_weights_once_and_its_work_twice():
    again = layers.Dense(4, name="again")
    inputs = keras.Input((4,))
    found = summary(keras.Model(inputs, again(again(inputs))))
    assert [(r.name, r.parameters, r.macs) for r in found.rows] == [("again", 20, 32)]


def test_composites_are_opened_and_unknown_work_is_left_empty():
    inputs = keras.Input((None, 4))
    block = keras.Sequential([keras.Input((None, 4)), layers.LSTM(3, name="lstm")], name="block")
    (row,) = summary(keras.Model(inputs, block(inputs))).rows
    assert row.name.endswith("lstm") and row.macs is None
    assert summary(keras.Model(inputs, block(inputs))).macs == 0


def call_closed(self, x):
    self.add_loss(mean(x))
    return self.pair[1](self.pair[0](x))


Closed = composite(
    "Closed", lambda self: {"pair": (layers.Dense(6, name="up"), layers.Dense(4, name="down"))}, call_closed
)


def test_a_closed_composite_says_its_class_its_weights_its_work_and_the_whole_reason():
    model, _ = chain(floats(5, 4), Closed(name="it"), layers.Dense(2))
    row = rows(tfcompress.quantize_model(model))["it"]
    assert row.layer == "Closed, closed"
    assert row.done.startswith("up/kernel, down/kernel int8 per channel; int8 output")
    assert "not opened (adds a loss in its call): ranges inside are measured when the file is made" in row.done
    assert row.macs == 5 * (4 * 6 + 6 * 4)
    assert row.parameters == 4 * 6 + 6 + 6 * 4 + 4


def test_it_prints_as_a_table_with_a_change_where_there_is_one():
    text = str(summary(tfcompress.quantize_model(model_of())))
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert "780 → 216" in lines["head"] and "1,152" in lines["conv"]
    assert "283" in lines["total"] and lines["small"].strip() == "small"
    # 288 + 64 + 780 before; 88 + 64 + 216 after
    assert "1,132 → 368" in lines["total"]
    assert max(map(len, text.splitlines())) <= 160


def test_a_name_in_brackets_is_printed_as_it_is():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2, name="head")(inputs), name="net[bold]")
    assert "net" in str(summary(model))


def test_only_built_models_have_a_summary():
    with pytest.raises(TypeError, match=r"must be a keras\.Model"):
        summary("model")
    with pytest.raises(ValueError, match="must be built"):
        summary(keras.Sequential([layers.Dense(2)]))
