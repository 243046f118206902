"""A program for `test_distribution`: trains on two virtual devices and prints what came out, as JSON.

Devices can be split only before TensorFlow starts, so it runs in a process of its own:

    python replicas.py FOLDER
"""

import json
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

keras = tf.keras
layers = keras.layers
BATCH, STEPS = 8, 8
X = np.random.default_rng(0).normal(size=(BATCH * STEPS, 4, 4, 2)).astype("float32")
Y = np.random.default_rng(1).normal(size=(BATCH * STEPS, 2)).astype("float32")


def build(ranges):
    """Conv - BatchNormalization - ReLU - mean - Dense, quantized unless `ranges` is None."""
    import tfcompress

    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 4, 2), name="image")
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(3, 3, use_bias=False, name="conv")(inputs)))
    outputs = layers.Dense(2, dtype="float32", name="head")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, outputs)
    return model if ranges is None else tfcompress.quantize_model(model, ranges=ranges)


def replicas(variable):
    """The value of a variable on each device."""
    variable = getattr(variable, "_value", variable)  # Keras 3 holds TensorFlow's
    return [np.asarray(v.numpy()).tolist() for v in getattr(variable, "values", [variable])]


def train(ranges, strategy, steps_per_execution, jit_compile):
    """One epoch: (model, what came out)."""
    how = {"steps_per_execution": steps_per_execution, "jit_compile": jit_compile}
    try:
        with strategy.scope():
            model = build(ranges)
            model.compile(keras.optimizers.SGD(0.1), "mse", **how)
        before = model.get_layer("conv").get_weights()[0].copy()
        loss = model.fit(X, Y, batch_size=BATCH, shuffle=False, verbose=0).history["loss"][-1]
    except (tf.errors.InvalidArgumentError, ValueError) as error:
        return None, {"refused": str(error)[-400:]}
    moved = float(np.abs(model.get_layer("conv").get_weights()[0] - before).max())
    return model, {"loss": loss, "moved": moved, **observed(model)}


def observed(model):
    from tfcompress.quantize.quantizer import quantizers

    found = [q for q in quantizers(model) if q.fixed is None]
    return {
        "ranges": {q.name: replicas(q.observed) for q in found},
        "steps": {q.name: replicas(q.step) for q in found if hasattr(q, "step")},
    }


def main(folder):
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )
    keras.mixed_precision.set_global_policy("mixed_float16")
    one, two = tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    at_once = 8 if "tf_keras" in keras.Model.__module__ else 1  # Keras 3 runs no loop of steps on several devices
    found = {}
    model, found["two replicas"] = train("ema", two, at_once, False)
    model.save(folder / "model.keras")
    loaded = keras.models.load_model(folder / "model.keras")
    found["loaded"] = float(np.abs(loaded(X[:4]).numpy() - model(X[:4]).numpy()).max())
    found["learned steps"] = train("lsq", two, at_once, False)[1]
    found["compiled"] = train("ema", one, 8, True)[1]
    found["everything, float"] = train(None, two, 8, True)[1]
    found["everything"] = train("ema", two, 8, True)[1]
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
