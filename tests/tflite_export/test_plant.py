"""The model's own integers in the file."""

import numpy as np
import pytest
import tensorflow as tf

from tflite_export import integers
from tflite_export.draft import Draft
from tflite_export.exporter import export
from tflite_export.plant import nibbles

keras, layers = tf.keras, tf.keras.layers
KERNELS = {
    "CONV_2D": (lambda q: q.transpose(3, 0, 1, 2), 0),
    "DEPTHWISE_CONV_2D": (lambda q: q.reshape(1, *q.shape[:2], -1), 3),
    "FULLY_CONNECTED": (lambda q: q.T, 0),
}


def on_grid(model, bits, seed=0):
    """Puts every kernel on a grid; returns [(codes, scale of each channel)] in the order of the layers."""
    rng, top, found = np.random.default_rng(seed), 2 ** (bits - 1) - 1, []
    for layer in model.layers:
        for weight in layer.weights:
            shape = tuple(weight.shape)
            if len(shape) < 2:
                weight.assign(
                    rng.uniform(0.3, 1.5, shape) * (rng.choice([-1, 1], shape) if "gamma" in weight.name else 1)
                )
                continue
            axis = 2 if isinstance(layer, layers.DepthwiseConv2D) else len(shape) - 1
            codes = rng.integers(-top, top + 1, shape)
            np.moveaxis(codes, axis, -1).reshape(-1, shape[axis])[0] = top
            scale = rng.uniform(0.01, 0.1, shape[axis])
            along = scale.reshape([-1 if a == axis else 1 for a in range(len(shape))])
            weight.assign(codes * along)
            found.append((codes, scale))
    return found


def network():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, padding="same", use_bias=False)(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, padding="same")(x)
    x = layers.Conv2D(5, 1, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))


@pytest.fixture(scope="module")
def data():
    return np.random.default_rng(1).normal(size=(20, 8, 8, 3)).astype("float32")


def kernels_of(draft):
    return [(op, *KERNELS[draft.kind(op)]) for op in draft.operators if draft.kind(op) in KERNELS]


@pytest.mark.parametrize("bits", [2, 4, 5, 8])
def test_every_integer_of_the_model_is_in_the_file(bits, data):
    model = network()
    own = on_grid(model, bits)
    draft = Draft(export(model, "int8", calibration=data, int4="unpacked").content)
    norm = next(layer for layer in model.layers if isinstance(layer, layers.BatchNormalization))
    gamma, _, _, variance = (np.asarray(w) for w in norm.weights)
    folded = gamma / np.sqrt(variance + norm.epsilon)
    found = kernels_of(draft)
    assert len(found) == len(own) == 4
    for number, ((op, turn, axis), (codes, scale)) in enumerate(zip(found, own, strict=True)):
        factor = folded if number == 0 else np.ones_like(scale)
        sign = np.sign(factor).reshape([-1 if a == axis else 1 for a in range(turn(codes).ndim)])
        np.testing.assert_array_equal(draft.value(op.inputs[1]), turn(codes) * sign)
        np.testing.assert_allclose(draft.grid(op.inputs[1]).scale, np.abs(factor) * scale, rtol=1e-5)


def test_biases_are_rounded_to_the_accumulators_grid(data, monkeypatch):
    monkeypatch.setattr(integers, "correct", lambda *arguments: [])
    model = network()
    on_grid(model, 4)
    draft = Draft(export(model, "int8", calibration=data).content)
    biases = [np.asarray(layer.bias) for layer in model.layers[-4:] if getattr(layer, "bias", None) is not None]
    ops = [op for op, _, _ in kernels_of(draft)][1:]
    assert len(biases) == len(ops) == 3
    for op, bias in zip(ops, biases, strict=True):
        grid = draft.grid(op.inputs[2])
        step = np.float64(draft.grid(op.inputs[0]).scale[0]) * np.broadcast_to(
            draft.grid(op.inputs[1]).scale, bias.shape
        )
        np.testing.assert_allclose(np.broadcast_to(grid.scale, bias.shape), step, rtol=1e-6)
        np.testing.assert_array_equal(draft.value(op.inputs[2]), np.round(bias / step))


def test_float_kernels_get_the_converters_8_bits(data):
    model = network()
    rng = np.random.default_rng(3)
    for weight in model.weights:
        weight.assign(rng.uniform(0.1, 1, weight.shape))
    draft = Draft(export(model, "int8", calibration=data).content)
    op, turn, _ = kernels_of(draft)[-1]
    kernel = np.asarray(model.layers[-1].kernel)
    scale = np.abs(kernel).max(0) / 127
    np.testing.assert_array_equal(draft.value(op.inputs[1]), turn(np.round(kernel / scale)))


def test_a_dense_kernel_of_one_scale_has_one_in_the_file(data):
    model = network()
    on_grid(model, 4)
    kernel = model.layers[-1].kernel
    codes = np.random.default_rng(5).integers(-7, 8, tuple(kernel.shape))
    codes[0] = 7
    kernel.assign(codes * 0.05)
    draft = Draft(export(model, "int8", calibration=data).content)
    op = kernels_of(draft)[-1][0]
    assert draft.grid(op.inputs[1]).scale.tolist() == [np.float32(0.05)]
    assert draft.type(op.inputs[1]) == "INT4"  # one scale: packed, every kernel set runs it


def interpreter_outputs(content, resolver, integers):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    place, end = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    found = []
    for row in integers:
        interpreter.set_tensor(place, row[None])
        interpreter.invoke()
        found.append(interpreter.get_tensor(end).copy())
    return np.concatenate(found)


def micro_outputs(content, integers):
    pytest.importorskip("tflite_micro")
    from tflite_micro import runtime

    interpreter = runtime.Interpreter.from_bytes(content, arena_size=200_000)
    found = []
    for row in integers:
        interpreter.set_input(row[None], 0)
        interpreter.invoke()
        found.append(interpreter.get_output(0).copy())
    return np.concatenate(found)


def test_packed_files_are_smaller_and_compute_the_same(data):
    from ai_edge_litert.interpreter import OpResolverType

    model = network()
    on_grid(model, 4)
    packed, unpacked = (
        export(model, "int8", calibration=data, inputs="int8", outputs="int8", int4=how).content
        for how in ("packed", "unpacked")
    )
    integers = np.random.default_rng(2).integers(-128, 128, data.shape).astype("int8")
    for resolver in (OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES, OpResolverType.BUILTIN_REF):
        a, b = (interpreter_outputs(content, resolver, integers) for content in (packed, unpacked))
        assert len(np.unique(a)) > 5
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(micro_outputs(packed, integers), micro_outputs(unpacked, integers))
    small, large = Draft(packed), Draft(unpacked)
    sizes = [
        sum(len(d.model.buffers[d.tensors[op.inputs[1]].buffer].data) for op, _, _ in kernels_of(d)[:3])
        for d in (small, large)
    ]
    assert sizes[0] <= 0.52 * sizes[1]


def test_a_dense_kernel_of_many_scales_is_not_packed_and_the_report_says_so(data):
    model = network()
    on_grid(model, 4)
    exported = export(model, "int8", calibration=data)
    draft = Draft(exported.content)
    types = [draft.type(op.inputs[1]) for op, _, _ in kernels_of(draft)]
    assert types == ["INT4", "INT4", "INT4", "INT8"]
    assert any("stays one integer to a byte" in note for note in exported.report.notes)


def test_nibbles():
    # low half first: 1 -> 0x1, -1 -> 0xf, 7 -> 0x7, -8 -> 0x8
    assert nibbles(np.array([1, -1, 7, -8], "int8")).tolist() == [0xF1, 0x87]
    assert nibbles(np.array([-2], "int8")).tolist() == [0x0E]


def test_an_embedding_table_has_one_scale():
    inputs = keras.Input((6,), dtype="int32")
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(layers.Embedding(20, 4)(inputs))))
    codes = np.random.default_rng(0).integers(-7, 8, (20, 4))
    codes[0, 0] = 7
    model.layers[1].embeddings.assign(codes * 0.04)
    ids = np.random.default_rng(1).integers(0, 20, (8, 6)).astype("int32")
    draft = Draft(export(model, "int8", calibration=ids).content)
    op = next(op for op in draft.operators if draft.kind(op) == "GATHER")
    np.testing.assert_array_equal(draft.value(op.inputs[0]), codes)
    np.testing.assert_allclose(draft.grid(op.inputs[0]).scale, [0.04], rtol=1e-6)
    np.testing.assert_allclose(draft.grid(op.outputs[0]).scale, [0.04], rtol=1e-6)
