"""Several signatures in one file: weights once, states on one grid, text as Keras writes it."""

import functools

import numpy as np
import pytest
import tensorflow as tf

import tfcompress as tfc
from tests.zoo import answers
from tflite_export.draft import Draft
from tflite_export.errors import ExportError
from tflite_export.exporter import export
from tflite_export.flatbuffer import read
from tflite_export.runner import Runner
from tflite_export.signatures import by_signature, planned

keras, layers = tf.keras, tf.keras.layers
ops = getattr(keras, "ops", tf)  # what is used of them has the same name in both flavors
WORDS, WIDTH, CACHE, PROMPT = 11, 8, 12, 5
SIGNATURES = {"prefill": {"tokens": (PROMPT,)}, "decode": {"tokens": (1,)}}


@keras.utils.register_keras_serializable("test_signatures")
class Table(layers.Embedding):
    """Rows, or the product with the table."""

    def call(self, inputs, reverse=False):
        return ops.matmul(inputs, ops.transpose(self.embeddings)) if reverse else super().call(inputs)

    def compute_output_spec(self, inputs, reverse=False):
        shape = (*inputs.shape[:-1], self.input_dim) if reverse else (*inputs.shape, self.output_dim)
        return keras.KerasTensor(shape, dtype=self.compute_dtype)


def attention():
    """tokens [B, T], past [B, 12, 8] -> logits [B, T, 11] by a table that is also the input's, and the next past."""
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    past = keras.Input((CACHE, WIDTH), name="past")
    table = Table(WORDS, WIDTH, embeddings_initializer="random_normal", name="table")
    x = table(tokens)
    both = layers.Concatenate(axis=1)([past, layers.Dense(WIDTH, name="keys")(x)])
    shares = layers.Softmax()(ops.matmul(x, ops.transpose(both, (0, 2, 1))))
    y = x + layers.Dense(WIDTH, name="mixed")(ops.matmul(shares, both))
    outputs = {"logits": table(y, reverse=True), "past": both[:, -CACHE:]}
    model = keras.Model({"tokens": tokens, "past": past}, outputs)
    rng = np.random.default_rng(3)
    model.set_weights([8.0 * w if w.ndim > 1 else rng.normal(size=w.shape) for w in model.get_weights()])
    return model


def data(rows=24, seed=0):
    """Prompts with an empty cache, and single tokens with the cache that Keras makes of the prompts."""
    rng = np.random.default_rng(seed)
    prompts = {"tokens": rng.integers(0, WORDS, (rows, PROMPT)).astype("int32"),
               "past": np.zeros((rows, CACHE, WIDTH), "float32")}  # fmt: skip
    return prompts, rng.integers(0, WORDS, (rows, 1)).astype("int32")


def samples(model):
    prompts, tokens = data()
    return {"prefill": prompts, "decode": {"tokens": tokens, "past": answers(model, prompts)["past"]}}


def greedy(prefill, decode, rows=6, count=10):
    prompts, _ = data(rows, seed=1)
    given, run, text = prompts, prefill, []
    for _ in range(count):
        outputs = run(given)
        text.append(np.asarray(outputs["logits"])[:, -1].argmax(-1).astype("int32"))
        given, run = {"tokens": text[-1][:, None], "past": outputs["past"]}, decode
    return np.stack(text, 1)


def test_each_signature_of_a_float_file_equals_keras_and_weights_stand_in_it_once():
    model = attention()
    content = export(model, signatures=SIGNATURES).content
    assert [signature.key for signature in read(content).signatures] == ["prefill", "decode"]
    for key, given in samples(model).items():
        found, expected = Runner(content, signature=key)(given), answers(model, given)
        assert set(found) == {"logits", "past"}
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, atol=1e-4)
    for name, weight in (("table", 0), ("mixed", 0)):
        kernel = np.asarray(model.get_layer(name).get_weights()[weight], "float32")
        stored = kernel if name == "table" else kernel.T  # FULLY_CONNECTED holds the units first
        assert content.count(np.ascontiguousarray(stored).tobytes()) == 1


def test_the_first_signature_is_what_runs_unasked():
    content = export(attention(), signatures=SIGNATURES).content
    assert Runner(content).inputs["tokens"].tensor.shape == (1, PROMPT)


def test_the_float_file_writes_what_keras_writes():
    model = attention()
    content = export(model, signatures=SIGNATURES).content
    runners = [Runner(content, signature=key) for key in SIGNATURES]
    np.testing.assert_array_equal(greedy(*runners), greedy(model.predict_on_batch, model.predict_on_batch))


def quantized(how, model):
    return tfc.calibrate(tfc.quantize_model(model), data()[0]) if how == "learned" else model


@functools.cache
def integer_file(how):
    """(model, its INT8 file of two signatures, integers at the boundary)."""
    model = quantized(how, attention())
    return model, export(
        model, "int8", inputs="int8", outputs="int8", signatures=SIGNATURES, calibration=samples(model)
    )


def grids(content):
    """Name of a state -> all (scale, zero point) that it has in the file."""
    found = {}
    for signature in read(content).signatures:
        for side in (signature.inputs, signature.outputs):
            for name in set(signature.inputs) & set(signature.outputs):
                grid = read(content).subgraphs[signature.subgraph].tensors[side[name]].quantization
                found.setdefault(name, set()).add((float(np.float32(grid.scale[0])), int(grid.zero_point[0])))
    return found


@pytest.mark.parametrize("how", ["learned", "measured"])
def test_a_cache_has_one_grid_and_its_integers_are_handed_on(how):
    model, exported = integer_file(how)
    assert exported.report.float_operations == ()
    assert {name: len(different) for name, different in grids(exported.content).items()} == {"past": 1}
    prefill, decode = (Runner(exported, signature=key) for key in SIGNATURES)
    prompts, tokens = data(4, seed=2)
    raw = prefill.integers(prompts)["past"]
    assert raw.dtype == np.int8
    by_integers = decode.integers({"tokens": tokens, "past": raw})
    by_numbers = decode.integers({"tokens": tokens, "past": prefill(prompts)["past"]})
    for name in by_integers:
        np.testing.assert_array_equal(by_integers[name], by_numbers[name])
    expected = answers(model, {"tokens": tokens, "past": answers(model, prompts)["past"]})
    found = decode({"tokens": tokens, "past": prefill(prompts)["past"]})
    for name, values in expected.items():
        assert np.corrcoef(found[name].ravel(), values.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("how", ["learned", "measured"])
def test_an_integer_file_of_two_signatures_holds_each_kernel_and_bias_once(how):
    content = integer_file(how)[1].content
    kernels = {"table": set(), "keys": set(), "mixed": set()}
    for graph in read(content).subgraphs:
        for operator in graph.operators:
            if operator.kind in ("FULLY_CONNECTED", "BATCH_MATMUL", "GATHER"):
                constants = [graph.tensors[i] for i in operator.inputs if i >= 0 and graph.tensors[i].data is not None]
                for tensor in constants:
                    if tensor.shape in ((WORDS, WIDTH), (WIDTH, WORDS)):
                        kernels["table"].add(tensor.buffer)
                    elif tensor.shape == (WIDTH, WIDTH):
                        kernels["mixed"].add(tensor.buffer)
                    elif tensor.shape == (WIDTH,):
                        kernels["keys"].add(tensor.buffer)
    # One table for look-ups and products, two kernels, two biases.
    assert (len(kernels["table"]), len(kernels["mixed"]), len(kernels["keys"])) == (1, 2, 2)


def test_the_quantized_model_and_its_file_write_the_same():
    model, exported = integer_file("learned")
    found = greedy(*(Runner(exported, signature=key) for key in SIGNATURES))
    expected = greedy(model.predict_on_batch, model.predict_on_batch)
    assert (found == expected).mean() > 0.9


def smoothed():
    """A filter: h' = h / 2 + x, y = dense(h'). Range and grid of h' differ from those of h by themselves."""
    x, state = keras.Input((4,), name="x"), keras.Input((4,), name="h")
    new = layers.Add(name="sum")([layers.Rescaling(0.5)(state), x])
    return keras.Model({"x": x, "h": state}, {"y": layers.Dense(3, name="y")(new), "h": new})


@pytest.mark.parametrize("how", ["learned", "measured"])
def test_a_state_of_two_ranges_gets_the_one_that_holds_both(how):
    rng = np.random.default_rng(0)
    given = {"x": rng.uniform(-1, 1, (64, 4)).astype("float32"), "h": rng.uniform(-8, 1, (64, 4)).astype("float32")}
    model = smoothed()
    model = tfc.calibrate(tfc.quantize_model(model), given) if how == "learned" else model
    content = export(model, "int8", inputs="int8", outputs="int8", calibration=given).content
    ((scale, zero),) = grids(content)["h"]
    low, high = (-128 - zero) * scale, (127 - zero) * scale
    new = given["h"] / 2 + given["x"]
    expected = min(given["h"].min(), new.min()), max(given["h"].max(), new.max())
    np.testing.assert_allclose((low, high), expected, atol=2 * scale)


def test_a_state_that_a_tanh_makes_has_the_tanhs_grid_as_input():
    x, state = keras.Input((4,), name="x"), keras.Input((6,), name="h")
    new = layers.Dense(6, activation="tanh", name="cell")(layers.Concatenate()([x, state]))
    model = keras.Model({"x": x, "h": state}, {"y": layers.Dense(3, name="y")(new), "h": new})
    rng = np.random.default_rng(0)
    given = {"x": rng.normal(size=(32, 4)).astype("float32"), "h": rng.uniform(-0.3, 0.3, (32, 6)).astype("float32")}
    content = export(model, "int8", inputs="int8", outputs="int8", calibration=given).content
    assert grids(content)["h"] == {(1 / 128, 0)}


def test_16_bit_states_have_one_grid():
    model = attention()
    exported = export(
        model, "int16x8", inputs="int16", outputs="int16", signatures=SIGNATURES, calibration=samples(model)
    )
    assert {len(different) for different in grids(exported.content).values()} == {1}


def test_the_report_tells_the_signatures_apart():
    inputs = export(attention(), signatures=SIGNATURES).report.inputs
    assert [text.split(" (")[0] for text in inputs] == [
        "prefill: past float32", "prefill: tokens int32", "decode: past float32", "decode: tokens int32",
    ]  # fmt: skip


def test_subgraphs_of_loops_follow_their_signature():
    x = keras.Input((None, 3), name="x")

    class Powers(layers.Layer):  # length ** 3, the length written into the loop
        def call(self, inputs):
            factor = float(inputs.shape[1] or 1)
            return tf.while_loop(lambda i, _: i < 3, lambda i, y: (i + 1, y * factor), (0, inputs))[1]

        def compute_output_spec(self, inputs):
            return keras.KerasTensor(inputs.shape)

    model = keras.Model(x, Powers(name="loop")(x))
    content = export(model, signatures={"long": {"x": (4, 3)}, "short": {"x": (2, 3)}}).content
    for key, length in (("long", 4), ("short", 2)):
        found = Runner(content, signature=key)(np.ones((1, length, 3), "float32"))
        np.testing.assert_array_equal(found, np.full((1, length, 3), length**3))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"signatures": SIGNATURES, "signature": "other"}, ValueError, "exclude each other"),
        ({"signatures": {}}, ValueError, "must hold names"),
        ({"signatures": ["prefill"]}, TypeError, r"\{key: \{input: shape\}\}"),
        ({"signatures": {"prefill": {"tokens": (5,)}, "decode": {}}}, ValueError, "'tokens' has the open shape"),
        ({"signatures": {"decode": {"token": (1,)}}}, ValueError, r"name inputs.*Received: \['token'\]"),
        ({"shapes": {"tokens": (5, 2)}}, ValueError, r"'tokens' has the shape \(None,\)"),
        ({"shapes": {"tokens": (5,), "past": (7, 8)}}, ValueError, r"'past' has the shape \(12, 8\)"),
        ({"shapes": {"tokens": (0,)}}, ValueError, "whole numbers >= 1"),
        ({"precision": "int8", "signatures": SIGNATURES, "calibration": np.zeros((2, 3))}, ValueError, "by signature"),
        ({"precision": "int8", "signatures": SIGNATURES, "calibration": {"prefill": 1}}, ValueError, "by signature"),
    ],
)
def test_wrong_calls_are_refused_with_what_was_expected(arguments, error, message):
    with pytest.raises(error, match=message):
        export(attention(), **arguments)


def test_a_runner_refuses_a_signature_that_the_file_does_not_have():
    content = export(attention(), signatures=SIGNATURES).content
    with pytest.raises(ValueError, match=r"\['prefill', 'decode'\].*'train'"):
        Runner(content, signature="train")


def test_plans():
    assert planned("serving_default", None, {"x": (3,)}) == {"serving_default": {"x": (3,)}}
    assert planned("serving_default", {"a": {"x": (1,)}, "b": {}}, {"x": (3,)}) == {"a": {"x": (1,)}, "b": {"x": (3,)}}
    assert by_signature(None, ["a", "b"]) == [None, None]
    assert by_signature({"b": 2, "a": 1}, ["a", "b"]) == [1, 2]


def test_a_float_file_of_one_signature_holds_a_tied_table_once():
    model = attention()
    content = export(model, shapes={"tokens": (3,)}).content
    table = np.asarray(model.get_layer("table").get_weights()[0], "float32")
    both = content.count(table.tobytes()) + content.count(np.ascontiguousarray(table.T).tobytes())
    assert both == 1
    assert len(Draft(content).model.signatureDefs) == 1


def test_states_that_cannot_have_one_grid_are_named():
    from tflite_export.states import check

    x = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
    files = []
    for factor in (1.0, 3.0):
        inputs = keras.Input((4,), name="h")
        model = keras.Model({"h": inputs}, {"h": layers.Dense(4, name="cell")(inputs)})
        files.append((Draft(export(model, "int8", calibration=factor * x).content), ["h"], ["h"]))
    with pytest.raises(ExportError, match="State 'h' has no single grid"):
        check(files)


def test_an_output_of_an_inputs_name_but_another_size_is_no_state():
    x = keras.Input((4,), name="x")
    model = keras.Model({"x": x}, {"x": layers.Dense(3, kernel_initializer=keras.initializers.Constant(25.0))(x)})
    given = {"x": np.random.default_rng(0).uniform(0, 1, (32, 4)).astype("float32")}
    content = export(model, "int8", inputs="int8", outputs="int8", calibration=given).content
    assert len(grids(content)["x"]) == 2
