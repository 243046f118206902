"""Look-ups that every runtime takes, with the meaning that Keras gives to negative indices."""

import numpy as np
import pytest
import tensorflow as tf

from tflite_export import convert
from tflite_export.draft import Draft
from tflite_export.exporter import export
from tflite_export.lookups import without_selects
from tflite_export.measure import runs
from tflite_export.runner import Runner

keras, layers = tf.keras, tf.keras.layers
TABLE = np.arange(10, dtype="float32").reshape(5, 2)
COUNTED_FROM_THE_END = np.int32([[0, 4, -1, -5]])  # rows 0, 4, 4, 0


def drafted(dtype="int32", floor=None):
    """select(i < 0, i + 5, i) as Keras 3 writes it; behind max(i, floor) where a floor is given."""

    def call(x):
        i = x if floor is None else tf.maximum(x, tf.constant(floor, dtype))
        return tf.gather(TABLE, tf.where(i < 0, i + tf.constant(5, dtype), i))

    return Draft(convert.float_file(convert.frozen(call, [tf.TensorSpec((1, 4), dtype, name="input_0")])))


def kinds(draft):
    return [draft.kind(op) for op in draft.operators]


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_negative_indices_count_from_the_end_without_a_selection(dtype):
    draft = drafted(dtype)
    without_selects(draft)
    assert kinds(draft) == ["MINIMUM", "MAXIMUM", "MUL", "ADD", "GATHER"]
    (rows,) = next(runs(draft, [[COUNTED_FROM_THE_END.astype(dtype)]], draft.outputs))
    assert rows[0].tolist() == [[0.0, 1.0], [8.0, 9.0], [8.0, 9.0], [0.0, 1.0]]


def test_indices_that_cannot_be_negative_are_looked_up_as_they_are():
    draft = drafted(floor=0)
    without_selects(draft)
    assert kinds(draft) == ["MAXIMUM", "GATHER"]
    (rows,) = next(runs(draft, [[COUNTED_FROM_THE_END]], draft.outputs))
    assert rows[0].tolist() == [[0.0, 1.0], [8.0, 9.0], [0.0, 1.0], [0.0, 1.0]]


def test_a_floor_below_zero_is_no_reason_to_leave_the_count_out():
    draft = drafted(floor=-1)
    without_selects(draft)
    assert kinds(draft)[0] == "MAXIMUM" and kinds(draft)[-2:] == ["ADD", "GATHER"]
    (rows,) = next(runs(draft, [[COUNTED_FROM_THE_END]], draft.outputs))
    assert rows[0, 3].tolist() == [8.0, 9.0]  # -5 becomes -1, the last row


def test_another_selection_of_whole_numbers_stays():
    def call(x):
        return tf.where(x < 3, x + 5, x)

    draft = Draft(convert.float_file(convert.frozen(call, [tf.TensorSpec((1, 4), tf.int32, name="input_0")])))
    before = kinds(draft)
    without_selects(draft)
    assert kinds(draft) == before and any("SELECT" in kind for kind in before)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_an_embedding_runs_on_a_microcontroller(precision):
    micro = pytest.importorskip("tflite_micro.python.tflite_micro.runtime")
    inputs = keras.Input((6,), dtype="int32", name="tokens")
    x = layers.Dense(3)(layers.Embedding(9, 4)(inputs))
    ids = np.random.default_rng(0).integers(0, 9, (8, 6)).astype("int32")
    content = export(keras.Model(inputs, x), precision, calibration=ids, inputs=precision, outputs=precision).content
    assert not [row for row in Draft(content).operators if "SELECT" in Draft(content).kind(row)]
    interpreter = micro.Interpreter.from_bytes(content)
    interpreter.set_input(ids[:1], 0)
    interpreter.invoke()
    expected = Runner(content, "reference").integers(ids[:1])
    steps = np.abs(np.float64(interpreter.get_output(0)) - expected)
    assert steps.max() <= (1 if precision == "int8" else 1e-5)


def test_a_table_has_one_scale_and_is_looked_up_in_integers():
    inputs = keras.Input((6,), dtype="int32", name="tokens")
    model = keras.Model(inputs, layers.Dense(3)(layers.Embedding(9, 4, name="table")(inputs)))
    ids = np.random.default_rng(0).integers(0, 9, (8, 6)).astype("int32")
    draft = Draft(export(model, "int8", calibration=ids).content)
    (gather,) = [op for op in draft.operators if draft.kind(op) == "GATHER"]
    table, rows = gather.inputs[0], gather.outputs[0]
    assert draft.type(table) == draft.type(rows) == "INT8" and np.size(draft.grid(table).scale) == 1
    assert draft.grid(table).scale[0] == draft.grid(rows).scale[0]
    real = (draft.value(table) - np.float32(draft.grid(table).zeroPoint[0])) * draft.grid(table).scale[0]
    values = np.asarray(model.get_layer("table").get_weights()[0])
    assert np.abs(real - values).max() <= draft.grid(table).scale[0] * 0.51
