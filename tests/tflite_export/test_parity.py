"""A file compared with its Keras model: what agrees, where it departs, what collapsed."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from tests.tflite_export.handmade import file_of, op, packed, tensor, unpacked
from tflite_export import ExportError, compare
from tflite_export.agreement import agreement
from tflite_export.graph import Quantization

keras = tf.keras
layers = keras.layers


def convert(model, samples=None, *, integer_ends=False):
    """The converter's own float file, or with samples its own post-training int8 file."""
    specs = [tf.TensorSpec((1, *t.shape[1:]), t.dtype, name=f"input_{i}") for i, t in enumerate(model.inputs)]
    function = tf.function(lambda *x: model(list(x) if len(x) > 1 else x[0], training=False))
    frozen = convert_variables_to_constants_v2(function.get_concrete_function(*specs))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
    if samples is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.representative_dataset = lambda: ([row[None]] for row in samples)
        if integer_ends:
            converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


@pytest.fixture(scope="module")
def case():
    """A small residual network, data, its float file and its int8 file."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="first")(inputs)
    y = layers.Conv2D(8, 3, padding="same", use_bias=False, name="second")(x)
    y = layers.BatchNormalization(name="norm")(y)
    x = layers.ReLU(name="joined")(layers.Add(name="plus")([x, y]))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(inputs, layers.Dense(5, activation="softmax", name="scores")(x))
    norm, rng = model.get_layer("norm"), np.random.default_rng(1)
    norm.set_weights([rng.uniform(0.5, 2, 8), rng.normal(size=8), rng.normal(size=8), rng.uniform(0.5, 2, 8)])
    dense = model.get_layer("scores")
    dense.set_weights([dense.get_weights()[0] * 4, dense.get_weights()[1]])
    data = rng.normal(size=(40, 8, 8, 3)).astype("float32")
    return model, data, convert(model), convert(model, data)


def test_measures_of_two_arrays():
    # Steps of 0.5: expected 2, 3, 8 and got 2, 4, 4; argmax of the rows: third and second, first (a tie) and second.
    grid = Quantization(np.float32([0.5]), np.array([0]))
    found = agreement(np.float32([[1.0, 1.4, 4.0]]), np.float32([[1.0, 2.0, 2.0]]), grid, np.dtype("int8"))
    assert (found.equal, found.steps, found.argmax) == (1 / 3, 4, 0.0)
    assert found.rms == pytest.approx(np.sqrt((0 + 1 + 16) / 3))
    assert found.largest == 2.0
    assert found.snr == pytest.approx(10 * np.log10((1 + 1.96 + 16) / (0.36 + 4)))
    same = agreement(np.float32([[1.0]]), np.float32([[1.0]]))
    assert (same.equal, same.steps, same.snr, same.argmax) == (1.0, None, np.inf, None)
    with pytest.raises(ValueError, match=r"\[2\] and \[3\]"):
        agreement(np.zeros(2), np.zeros(3))


def test_a_float_file_agrees_to_the_last_digits(case):
    model, data, content, _ = case
    found = compare(model, content, data)
    (row,) = found.outputs
    assert row.step is None and row.model.snr > 100 and row.model.argmax == 1.0
    assert (found.rows, found.kernels, found.other) == (40, "xnnpack", "reference")
    assert found.first_departure is None and found.collapsed == ()
    named = [layer.layer for layer in found.layers]
    assert named == ["first", "norm", "joined", "pool", "scores"]
    assert all(layer.model.snr > 100 for layer in found.layers)


def test_an_integer_file_is_counted_in_steps_beside_the_floor(case):
    model, data, _, content = case
    found = compare(model, content, data)
    (row,) = found.outputs
    assert row.step == 1 / 256  # a softmax always has this one
    assert found.floor_rows == 40 and 0.7 < row.floor.equal < 1
    # By hand: the Keras output in steps of 1/256 beside what the interpreter gives.
    interpreter = tf.lite.Interpreter(model_content=content)
    interpreter.allocate_tensors()
    got = []
    for image in data:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
        interpreter.invoke()
        got.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0] * 256)
    steps = np.clip(np.round(np.asarray(model(data)) * 256), 0, 255)
    assert row.model.equal == pytest.approx(np.mean(steps == np.array(got)))
    assert row.model.steps == np.abs(steps - np.array(got)).max()
    assert found.first_departure is None and found.argmax == row.model.argmax and found.equal == row.model.equal
    assert all(layer.model.snr > 20 for layer in found.layers)


def kernel_of(model, place):
    """(operator, kernel tensor, its buffer) of the convolution in this place of an object form."""
    graph = model.subgraphs[0]
    convolutions = [o for o in graph.operators if model.operatorCodes[o.opcodeIndex].builtinCode == 3]
    kernel = graph.tensors[convolutions[place].inputs[1]]
    return convolutions[place], kernel, model.buffers[kernel.buffer]


def test_the_first_layer_that_departs_is_named(case):
    model, data, _, content = case
    broken = unpacked(content)
    _, _, buffer = kernel_of(broken, 1)
    buffer.data = np.roll(buffer.data, 7)  # the kernel of `second`, which holds `norm` as well
    found = compare(model, packed(broken), data)
    # One tensor for both: the converter may leave either name.
    first = found.first_departure.layer
    assert first in ("second", "norm")
    assert not found.layers[0].departs and found.layers[0].layer == "first"
    assert f"First layer that departs: {first}" in str(found)


def test_a_float_file_departs_by_its_noise(case):
    model, data, content, _ = case
    broken = unpacked(content)
    _, _, buffer = kernel_of(broken, 1)
    values = np.frombuffer(buffer.data.tobytes(), "float32")
    buffer.data = np.frombuffer((-values).tobytes(), "uint8")
    found = compare(model, packed(broken), data)
    assert found.first_departure.layer in ("second", "norm")
    assert found.first_departure.model.rms is None and not found.first_departure.collapsed


def test_a_small_shift_departs_too(case):
    model, data, _, content = case
    broken = unpacked(content)
    convolution, _, _ = kernel_of(broken, 0)
    graph = broken.subgraphs[0]
    output, bias = graph.tensors[convolution.outputs[0]], graph.tensors[convolution.inputs[2]]
    # Four steps of the output in every channel: far above rounding, though the signal-to-noise ratio stays fair.
    step = 4 * output.quantization.scale[0] / bias.quantization.scale
    values = np.frombuffer(broken.buffers[bias.buffer].data.tobytes(), "int32") + np.round(step).astype("int32")
    broken.buffers[bias.buffer].data = np.frombuffer(values.astype("int32").tobytes(), "uint8")
    found = compare(model, packed(broken), data)
    assert found.first_departure.layer == "first"
    assert found.first_departure.model.snr > 10 and not found.first_departure.collapsed


def test_a_tensor_that_lost_its_values_is_reported(case):
    model, data, _, content = case
    broken = unpacked(content)
    convolution, _, _ = kernel_of(broken, 0)
    quantization = broken.subgraphs[0].tensors[convolution.outputs[0]].quantization
    quantization.scale = quantization.scale * 200  # as when a mask of -1e9 had stretched the range
    found = compare(model, packed(broken), data)
    assert "first" in found.collapsed and found.first_departure.layer == "first"
    assert found.layers[0].distinct[0] > 1000 and found.layers[0].distinct[1] <= 2
    assert "Collapsed: first" in str(found)


def test_a_range_that_is_far_too_wide_is_reported(case):
    model, data, _, content = case
    broken = unpacked(content)
    convolution, _, _ = kernel_of(broken, 0)
    quantization = broken.subgraphs[0].tensors[convolution.outputs[0]].quantization
    quantization.scale = quantization.scale * 40  # of 256 codes 256 / 40 = 6 are left
    found = compare(model, packed(broken), data)
    assert found.layers[0].coarse and not found.layers[0].collapsed
    assert "Coarse: first" in str(found)


def test_a_range_that_is_too_narrow_is_reported(case):
    model, data, _, content = case
    broken = unpacked(content)
    convolution, _, _ = kernel_of(broken, 0)
    quantization = broken.subgraphs[0].tensors[convolution.outputs[0]].quantization
    quantization.scale = quantization.scale / 8
    found = compare(model, packed(broken), data)
    assert found.layers[0].saturates and found.layers[0].clipped > 0.1
    assert "Saturates: first" in str(found)


def test_softmax_inputs_of_one_value_are_found_without_a_layer():
    # Scores in steps of 1000: 32 rows of 4 values all become the integer 0.
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Softmax(name="soft")(inputs))
    tensors = [tensor((1, 4), name="x"), tensor((1, 4), "INT8", scale=1000.0, zero=0, name="coarse"),
               tensor((1, 4), "INT8", scale=1 / 256, zero=-128, name="p"), tensor((1, 4), name="y")]  # fmt: skip
    content = file_of(tensors, [op("QUANTIZE", (0,), (1,)), op("SOFTMAX", (1,), (2,), softmax_options()),
                                op("DEQUANTIZE", (2,), (3,))], (0,), (3,))  # fmt: skip
    found = compare(model, content, np.random.default_rng(0).normal(size=(32, 4)))
    assert found.silent == ("coarse",)
    assert set(found.collapsed) == {"coarse", "soft"}


def softmax_options():
    from ai_edge_litert import schema_py_generated as schema

    return schema.SoftmaxOptionsT(beta=1.0)


@pytest.mark.parametrize("kernels, other", [("reference", "xnnpack"), ("builtin", "reference")])
def test_kernel_sets_are_named(case, kernels, other):
    model, data, _, content = case
    found = compare(model, content, data[:8], kernels=kernels)
    assert (found.kernels, found.other, found.rows) == (kernels, other, 8)
    assert f"The file on {kernels} kernels" in str(found) and f"{other} kernels" in str(found)


def test_raw_integer_ends_agree_as_real_ones_do(case):
    model, data, _, content = case
    raw = compare(model, convert(model, data, integer_ends=True), data)
    real = compare(model, content, data)
    assert raw.outputs[0].step == real.outputs[0].step == 1 / 256
    assert abs(raw.outputs[0].model.equal - real.outputs[0].model.equal) < 0.05


def test_several_inputs_and_outputs_in_dicts():
    keras.utils.set_random_seed(2)
    left, right = keras.Input((3,), name="left"), keras.Input((4,), name="right")
    joined = layers.Concatenate()([layers.Dense(6, name="a")(left), layers.Dense(6, name="b")(right)])
    outputs = {"wide": layers.Dense(7, name="wide")(joined), "narrow": layers.Dense(2, name="narrow")(joined)}
    model = keras.Model({"left": left, "right": right}, outputs)
    names = [t.name for t in model.inputs]
    specs = [tf.TensorSpec((1, *t.shape[1:]), t.dtype, name=name) for t, name in zip(model.inputs, names, strict=True)]
    function = tf.function(lambda *x: list(model(dict(zip(names, x, strict=True))).values()))
    frozen = convert_variables_to_constants_v2(function.get_concrete_function(*specs))
    content = tf.lite.TFLiteConverter.from_concrete_functions([frozen]).convert()
    rng = np.random.default_rng(0)
    data = {"left": rng.normal(size=(9, 3)), "right": rng.normal(size=(9, 4))}
    found = compare(model, content, data)
    # The outputs have different shapes, so each is found whatever its name in the file.
    assert sorted(row.model.snr > 100 for row in found.outputs) == [True, True]
    assert found.first_departure is None
    with pytest.raises(ValueError, match=r"right"):
        compare(model, content, {"left": data["left"]})


def test_another_models_file_is_refused(case):
    model, data, _, _ = case
    other = keras.Sequential([keras.Input((8, 8, 3)), layers.Flatten(), layers.Dense(2)])
    with pytest.raises(ValueError, match=r"outputs have the shapes \[\(40, 5\)\], the file's \[\(40, 2\)\]"):
        compare(model, convert(other), data)
    two = keras.Input((2,)), keras.Input((2,))
    with pytest.raises(ValueError, match=r"takes 1 inputs.*the file"):
        compare(model, convert(keras.Model(two, layers.Add()(two))), data)
    with pytest.raises(TypeError, match="Received"):
        compare("model", convert(other), data)
    with pytest.raises(ExportError, match="unresolved custom op"):
        compare(model, file_of([tensor((1, 8, 8, 3)), tensor((1, 5))], [op("strange", (0,), (1,))], (0,), (1,)), data)
