"""A program for `test_distribution`: prunes on two virtual devices and in half precision, and prints JSON.

Devices can be split only before TensorFlow starts, so it runs in a process of its own: `python replicas.py`.
"""

import json

import numpy as np
import tensorflow as tf

keras = tf.keras


def parts(variable):
    """Share of zeros of a variable on each device."""
    variable = getattr(variable, "_value", getattr(variable, "_variable", variable))
    return [float(np.mean(v.numpy() == 0)) for v in getattr(variable, "values", [variable])]


def run(strategy, score, **how):
    from tests.prune.small import X, compiled, fit, network
    from tfcompress.prune import OBS, PolynomialDecay, Pruning

    with strategy.scope():
        model = compiled(network(), **{"run_eagerly": False, **how})
    score = OBS(X) if score == "data, refitted" else score
    pruning = Pruning(PolynomialDecay(0.0, 0.75, 0, 6, frequency=2), score=score)
    if hasattr(pruning.score, "batches"):
        pruning.score.batches = 2
    fit(model, pruning)
    during = [parts(target.variable) for target in pruning.targets]
    fit(model)
    return {"during": during, "after": [parts(target.variable) for target in pruning.targets]}


def main():
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )
    one, two = tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    found = {"two, wanda": run(two, "wanda")}
    found["two, from data, refitted"] = run(two, "data, refitted")
    keras.mixed_precision.set_global_policy("mixed_float16")
    found["half, compiled, wanda"] = run(one, "wanda", jit_compile=True)
    found["half, two, taylor"] = run(two, "taylor")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
