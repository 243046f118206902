"""A model that computes in integers behaves as any other: predicted, trained, saved, honest about what it is not."""

import numpy as np
import pytest
import tensorflow as tf

import tfcompress
import tflite_export
from tests.quantize.faithful import small
from tests.zoo import keras, layers


def test_every_way_to_call_gives_the_same_integers(tmp_path):
    model, file, x = small.made("block")
    expected = small.of_runtime(file, x, "xnnpack")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.evaluator.kernels == "xnnpack" and loaded.notes == model.notes
    compiled = tf.function(lambda t: model(t, training=False), jit_compile=True)
    ways = {
        "call": model(x, training=False),
        "predict": model.predict(x, verbose=0, batch_size=5),
        "jit": compiled(tf.constant(x)),
        "loaded": loaded(x, training=False),
    }
    for way, outputs in ways.items():
        for key, value in small.by_name(outputs).items():
            np.testing.assert_array_equal(value, expected[key], err_msg=f"{way}: {key}")


def test_before_a_range_was_seen_inference_is_that_of_the_float_graph():
    keras.utils.set_random_seed(2)
    inputs, outputs = small.NETWORKS["block"]()
    model = small.lively(keras.Model(inputs, outputs))
    faithful, plain = (tfcompress.quantize_model(model, kernels=kernels) for kernels in ("xnnpack", None))
    x = small.rows(model, 4, seed=3)
    for key, value in plain(x, training=False).items():
        np.testing.assert_array_equal(np.asarray(faithful(x, training=False)[key]), np.asarray(value))


def test_validation_in_fit_is_the_accuracy_of_the_file(digits):
    images, labels = digits
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False)(inputs)
    x = layers.MaxPooling2D()(layers.ReLU()(layers.BatchNormalization(momentum=0.5)(x)))
    x = layers.Dense(10, activation="softmax")(layers.Flatten()(x))
    model = tfcompress.quantize_model(keras.Model(inputs, x), kernels="reference")
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    before = [np.array(w) for w in model.trainable_weights]
    data = images[800:1111], labels[800:1111]
    history = model.fit(images[:800], labels[:800], batch_size=50, epochs=2, verbose=0, validation_data=data).history
    assert all(np.any(np.array(w) != old) for w, old in zip(model.trainable_weights, before, strict=True))
    assert history["loss"][1] < history["loss"][0]
    answers = np.asarray(tflite_export.Runner(tflite_export.export(model, "int8"), "reference")(data[0]))
    right = float(np.mean(answers.argmax(-1) == data[1]))
    assert right > 0.5 and np.float32(history["val_accuracy"][-1]) == np.float32(right)


def test_what_has_no_formula_is_listed_and_stays_close():
    inputs = small.image(6)
    x = layers.LayerNormalization(name="normal")(layers.Conv2D(6, 3)(inputs))
    model = small.lively(keras.Model(inputs, layers.Conv2D(3, 1)(x)))
    quantized, file, x = small.prepared(model)
    assert "no exact formula for this LayerNormalization on xnnpack kernels" in quantized.notes["normal"]
    expected, found = small.of_runtime(file, x, "xnnpack"), small.of_keras(quantized, x, "xnnpack")
    one, other = (next(iter(values.values())) for values in (expected, found))
    assert np.mean(np.abs(one - other)) < 0.01 * np.ptp(one)


def test_only_three_kernel_sets_are_known():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    with pytest.raises(ValueError, match="`kernels` must be one of xnnpack, reference, tflm"):
        tfcompress.quantize_model(model, kernels="x")
