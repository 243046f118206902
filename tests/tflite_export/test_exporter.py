"""Export as its users call it."""

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

import tfcompress as tfc
import tflite_export
from tests.zoo import ZOO, answers
from tflite_export.description import describe
from tflite_export.draft import Draft
from tflite_export.errors import ExportError
from tflite_export.exporter import export
from tflite_export.runner import Runner

keras, layers = tf.keras, tf.keras.layers


def run(content, inputs):
    """Outputs by name, rows one after the other; `inputs` by name."""
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner("serving_default")
    found = []
    for row in range(len(next(iter(inputs.values())))):
        interpreter.reset_all_variables()
        found.append(dict(runner(**{name: values[row : row + 1] for name, values in inputs.items()})))
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]}


def named(model, x):
    """A zoo entry's data by the names of its inputs."""
    if isinstance(x, dict):
        return x
    return dict(zip([t.name for t in model.inputs], x if isinstance(x, list) else [x], strict=True))


def random(shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def input_names(content):
    return [entry.name.decode() for entry in Draft(content).model.signatureDefs[0].inputs]


@pytest.mark.parametrize("name", ["residual", "shared", "two_headed", "nested", "text", "operations"])
def test_the_float_file_equals_keras(name):
    model, x = ZOO[name]()
    found, expected = run(export(model).content, named(model, x)), answers(model, x)
    if not isinstance(expected, dict):
        (output,) = found
        found, expected = {"y": found[output]}, {"y": expected}
    assert set(found) == set(expected)
    for output, values in expected.items():
        np.testing.assert_allclose(found[output], values, atol=1e-5)


@pytest.mark.parametrize("name", ["residual", "text", "two_headed", "subclassed", "masked_text"])
def test_the_integer_file_follows_keras(name):
    model, x = ZOO[name]()
    exported = export(model, "int8", calibration=x)
    assert exported.report.float_operations == ()
    inputs = named(model, x) if isinstance(x, list) else dict.fromkeys(input_names(exported.content), x)
    found, expected = run(exported.content, inputs), answers(model, x)
    pairs = zip(found.values(), [expected[k] for k in found] if isinstance(expected, dict) else [expected], strict=True)
    for values, truth in pairs:
        assert np.corrcoef(values.ravel(), truth.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("precision", ["float32", "float16", "dynamic", "int8", "int16x8"])
def test_names_are_the_models_in_every_precision(precision):
    model, x = ZOO["two_headed"]()
    content = export(model, precision, calibration=x if "int" in precision else None).content
    signature = Interpreter(model_content=content).get_signature_list()["serving_default"]
    assert sorted(signature["inputs"]) == ["numbers", "picture"] and sorted(signature["outputs"]) == ["box", "kind"]
    draft = Draft(content)
    assert {draft.name(i) for i in draft.inputs} == {"numbers", "picture"}
    assert {draft.name(i) for i in draft.outputs} == {"box", "kind"}


def test_inputs_of_a_dict_are_not_swapped():
    model, x = ZOO["shared"]()
    content = export(model).content
    swapped = {"left": x["right"], "right": x["left"]}
    (one,), (two,) = (list(run(content, data).values()) for data in (x, swapped))
    np.testing.assert_allclose(two, answers(model, swapped), atol=1e-5)
    assert np.abs(one - two).max() > 1e-3


def test_16_bits_are_much_closer_than_8():
    model, x = ZOO["residual"]()
    for weight in model.weights:  # on the grid of 8-bit kernels, so that activations alone make the difference
        value = np.asarray(weight)
        if value.ndim > 1:
            scale = np.abs(value).max(tuple(range(value.ndim - 1)), keepdims=True) / 127
            weight.assign(np.round(value / scale) * scale)
    expected = answers(model, x)
    errors = {}
    for precision in ("int8", "int16x8"):
        (y,) = run(export(model, precision, calibration=x).content, {"image": x}).values()
        errors[precision] = np.abs(y - expected).mean()
    assert errors["int16x8"] < errors["int8"] / 10


def test_16_bit_files_have_symmetric_activations_and_64_bit_biases():
    model, x = ZOO["residual"]()
    draft = Draft(export(model, "int16x8", calibration=x, inputs="int16", outputs="int16").content)
    assert draft.type(draft.inputs[0]) == draft.type(draft.outputs[0]) == "INT16"
    for op in draft.operators:
        assert draft.grid(op.outputs[0]).zeroPoint.tolist() == [0]
        if draft.kind(op) in ("CONV_2D", "FULLY_CONNECTED"):
            assert (draft.type(op.inputs[1]), draft.type(op.inputs[2])) == ("INT8", "INT64")


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_integers_at_the_boundary(kind):
    model, x = ZOO["residual"]()
    content = export(model, "int8", calibration=x, inputs=kind, outputs=kind).content
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    place, end = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    assert place["dtype"] == end["dtype"] == np.dtype(kind)
    floats = next(iter(run(export(model, "int8", calibration=x).content, {"image": x}).values()))
    scale, zero = place["quantization"]
    for row, expected in zip(x, floats, strict=True):
        interpreter.set_tensor(place["index"], np.round(row[None] / scale + zero).astype(kind))
        interpreter.invoke()
        real = (interpreter.get_tensor(end["index"])[0].astype(float) - end["quantization"][1]) * end["quantization"][0]
        np.testing.assert_allclose(real, expected, atol=1.01 / 256)


def test_token_numbers_stay_integers():
    model, x = ZOO["text"]()
    draft = Draft(export(model, "int8", calibration=x, inputs="int8", outputs="int8").content)
    assert draft.type(draft.inputs[0]) == "INT32" and draft.type(draft.outputs[0]) == "INT8"


def test_the_batch_is_fixed():
    model, x = ZOO["residual"]()
    draft = Draft(export(model, "int8", calibration=x, batch_size=4).content)
    assert draft.tensors[draft.inputs[0]].shape == [4, 16, 16, 3]
    assert not {"SHAPE", "PACK", "STRIDED_SLICE"} & {draft.kind(op) for op in draft.operators}


def test_learned_ranges_reach_the_file_to_the_digit():
    fake_quant = tf.quantization.fake_quant_with_min_max_vars
    inputs = keras.Input((6, 6, 2), name="x")
    x = layers.Lambda(lambda t: fake_quant(t, -1.27, 1.28), name="a")(inputs)
    x = layers.Lambda(lambda t: fake_quant(t, 0.0, 5.1), name="b")(layers.Conv2D(3, 3, activation="relu")(x))
    x = layers.Lambda(lambda t: fake_quant(t, -2.0, 3.1), name="c")(layers.Dense(4)(layers.Flatten()(x)))
    model = keras.Model(inputs, x)
    draft = Draft(export(model, "int8", inputs="int8", outputs="int8").content)  # and needs no calibration
    grids = [draft.grid(i) for i in (draft.inputs[0], draft.operators[0].outputs[0], draft.outputs[0])]
    np.testing.assert_allclose([g.scale[0] for g in grids], [2.55 / 255, 5.1 / 255, 5.1 / 255], rtol=1e-6)
    # -128 + 1.27 / 0.01 rounds to -1; 0 is the lowest; -128 + 2 / 0.02 = -28
    assert [int(g.zeroPoint[0]) for g in grids] == [-1, -128, -28]


def test_inner_tensors_are_measured_on_generated_samples_and_the_report_says_so():
    fake_quant = tf.quantization.fake_quant_with_min_max_vars
    inputs = keras.Input((6,))
    x = layers.Lambda(lambda t: fake_quant(t, -1.0, 1.0))(inputs)
    model = keras.Model(inputs, layers.Dense(4)(layers.Dense(5, "relu")(x)))
    exported = export(model, "int8")
    assert any("generated samples" in note for note in exported.report.notes)


def test_a_float_model_without_calibration_names_what_needs_it():
    model, _ = ZOO["residual"]()
    with pytest.raises(ValueError, match=r"`calibration` is needed.*'image', 'activation"):
        export(model, "int8")


@keras.utils.register_keras_serializable("test_exporter")
class Angle(layers.Layer):
    def call(self, x):
        return tf.math.atan2(x, x + 2.0)


def test_a_float_operation_is_refused_or_listed():
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(4)(Angle(name="turn")(layers.Dense(5)(inputs))))
    x = np.random.default_rng(0).normal(size=(9, 6)).astype("float32")
    with pytest.raises(ExportError, match=r"ATAN2 in 'turn'.*allow_float=True"):
        export(model, "int8", calibration=x)
    exported = export(model, "int8", calibration=x, allow_float=True)
    assert any("ATAN2 in 'turn'" in text for text in exported.report.float_operations)


class Strange(layers.Layer):
    def call(self, x):
        return tf.raw_ops.Igamma(a=x, x=x)


def test_an_operation_that_no_runtime_has_is_named():
    inputs = keras.Input((6,))
    with pytest.raises(ExportError, match="no such operation: Igamma in 'strange'"):
        export(keras.Model(inputs, Strange(name="strange")(inputs)))


def test_weights_that_are_not_finite_are_named():
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(4, name="broken")(inputs))
    model.layers[-1].kernel.assign(np.full((6, 4), np.nan))
    with pytest.raises(ValueError, match=r"broken/kernel.*24 NaN"):
        export(model)


@pytest.mark.parametrize(
    "model, error",
    [(lambda x: x, TypeError), (keras.Sequential([layers.Dense(3)]), ValueError)],
    ids=["function", "unbuilt"],
)
def test_what_is_no_built_model_is_refused(model, error):
    with pytest.raises(error, match="`model`"):
        export(model)


def test_open_sizes_are_given_by_name():
    inputs = keras.Input((None,), dtype="int32", name="tokens")
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling1D()(layers.Embedding(9, 4)(inputs))))
    with pytest.raises(ValueError, match=r"'tokens' has the open shape.*shapes="):
        export(model)
    draft = Draft(export(model, shapes={"tokens": (7,)}).content)
    assert draft.tensors[draft.inputs[0]].shape == [1, 7]


def test_the_model_is_not_changed_and_a_second_export_is_equal():
    model, x = ZOO["residual"]()
    before = [np.asarray(w).copy() for w in model.weights]
    first, second = (tflite_export.export(model, "int8", calibration=x).content for _ in range(2))
    assert first == second
    for old, new in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, np.asarray(new))


def test_nothing_is_printed(capfd):
    model, x = ZOO["residual"]()
    export(model, "int8", calibration=x)
    captured = capfd.readouterr()
    assert captured.out == "" and "fully_quantize" not in captured.err and "trackable_obj" not in captured.err


@pytest.mark.parametrize("method", ["percentile", "mse", "entropy"])
def test_every_method_gives_a_file_that_follows_keras(method):
    model, x = ZOO["two_headed"]()
    content = export(model, "int8", calibration=x, range_method=method).content
    found, expected = run(content, named(model, x)), answers(model, x)
    for output, values in expected.items():
        assert np.corrcoef(found[output].ravel(), values.ravel())[0, 1] > 0.95


def test_an_output_may_be_an_input():
    a, b = keras.Input((8,), name="a"), keras.Input((8,), name="b")
    total = keras.layers.Add(name="total")([keras.layers.Dense(4)(a), keras.layers.Dense(4)(b)])
    model, data = keras.Model([a, b], [total, a]), [random((32, 8)), random((32, 8))]
    exported = export(tfc.calibrate(tfc.quantize_model(model), data), "int8", calibration=data)
    outputs = list(Runner(exported)(data).values())
    np.testing.assert_allclose(outputs[0], answers(model, data)[0], atol=0.15)
    np.testing.assert_allclose(outputs[1], data[0], atol=0.02)


def test_a_finalized_model_keeps_its_4_bit_kernels():
    layers = [keras.layers.Dense(16, activation="relu"), keras.layers.Flatten(), keras.layers.Dense(2)]
    model, data = keras.Sequential([keras.Input((6, 8)), *layers]), random((32, 6, 8))
    quantized = tfc.calibrate(tfc.quantize_model(model, "w4a8"), data)
    learned, plain = (export(one, "int8") for one in (quantized, tfc.finalize(quantized)))
    kernels = [[(k.type, k.distinct) for k in describe(file).kernels] for file in (learned, plain)]
    assert kernels[0] == kernels[1] and all(distinct <= 15 for _, distinct in kernels[0])
    np.testing.assert_array_equal(Runner(learned).integers(data), Runner(plain).integers(data))


def test_images_of_whole_numbers():
    image = keras.Input((6, 6, 3), dtype="uint8", name="image")
    real = keras.layers.Conv2D(4, 3)(keras.layers.Rescaling(1 / 255)(image))
    model = keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(real)))
    data = np.random.default_rng(0).integers(0, 256, (32, 6, 6, 3)).astype("uint8")
    exported = export(model, "int8", calibration=data)
    assert Runner(exported).inputs["image"].tensor.type == "UINT8" and not describe(exported).float_operations()
    expected = answers(model, data)
    assert np.corrcoef(Runner(exported)(data).ravel(), expected.ravel())[0, 1] > 0.999


def test_inputs_have_the_keys_of_a_dict():
    one, other = keras.Input((8,), name="img"), keras.Input((4,), name="meta")
    joined = keras.layers.Concatenate()([one, other])
    model = keras.Model({"x_img": one, "x_meta": other}, {"y": keras.layers.Dense(2)(joined)})
    data = {"x_img": random((16, 8)), "x_meta": random((16, 4))}
    exported = export(model, "int8", calibration=data)
    assert list(Runner(exported).inputs) == ["x_img", "x_meta"]
    np.testing.assert_allclose(Runner(exported)(data), answers(model, data)["y"], atol=0.1)


def test_an_output_that_saw_nothing_yet_has_its_layers_name():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(5), keras.layers.Dense(3, name="head")])
    exported = export(tfc.quantize_model(model), "int8", calibration=random((16, 8)))
    assert list(Runner(exported).outputs) == ["head"]


def test_numbers_of_64_bits_are_refused():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, dtype="float64")])
    with pytest.raises(ValueError, match=r"must compute in float32.*kernel.* of float64"):
        export(model)
    with pytest.raises(ValueError, match="must compute in float32"):
        tfc.quantize_model(model)
