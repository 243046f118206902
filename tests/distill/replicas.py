"""A program for `test_replicas`: distills on one and on two virtual devices and prints what came out, as JSON.

Devices can be split only before TensorFlow starts, so it runs in a process of its own:

    python replicas.py FOLDER
"""

import json
import sys

import numpy as np
import tensorflow as tf

keras = tf.keras
layers = keras.layers
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(32, 4, 4, 1)).astype("float32"), RNG.integers(0, 3, 32)


def net(width, seed, normalized=True):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((4, 4, 1))
    x = layers.Conv2D(width, 3, name="conv", kernel_regularizer=keras.regularizers.L2(0.01))(inputs)
    x = layers.BatchNormalization(name="norm", momentum=0.5)(x) if normalized else x
    return keras.Model(inputs, layers.Dense(3, name="out")(layers.GlobalAveragePooling2D()(layers.ReLU()(x))))


def train(strategy, folder):
    """Two epochs with a live teacher, one with stored answers: what was trained, and what was left behind."""
    from tfcompress.distill import Distiller, Features, Logits, cache_teacher

    with strategy.scope():
        teacher, student = net(5, 1), net(3, 2)
        losses = [Logits(2.0), Features("conv", "conv")]
        keras.utils.set_random_seed(3)
        distiller = Distiller(teacher, student, losses, None, 0.5)
        distiller.compile(keras.optimizers.SGD(0.05), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = [w.copy() for w in teacher.get_weights()]
    history = distiller.fit(X, Y, batch_size=16, epochs=2, shuffle=False, verbose=0).history
    same = all(np.array_equal(a, b) for a, b in zip(before, teacher.get_weights(), strict=True))
    stored = cache_teacher(teacher, X, folder, verbose=0)
    with strategy.scope():
        again = Distiller(stored, net(3, 2), Logits(2.0))
        again.compile(keras.optimizers.SGD(0.05), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    left = again.fit(X, Y, batch_size=16, shuffle=False, verbose=0).history
    with strategy.scope():
        plain = net(3, 4, normalized=False)
        exact = Distiller(net(5, 1, normalized=False), plain, losses, None, 0.25)
        exact.compile(keras.optimizers.SGD(0.2), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        exact.projections[1].set_weights([np.linspace(-1, 1, 15, dtype="float32").reshape(3, 5)])
    told = exact.fit(X, Y, batch_size=16, epochs=2, shuffle=False, verbose=0).history
    return {
        "exact": {**told, "weights": np.concatenate([w.ravel() for w in plain.get_weights()]).tolist()},
        "history": history, "stored": left, "teacher": same,
        "kernel": student.get_layer("out").get_weights()[0].tolist(),
        "patched": any("call" in vars(m.get_layer("conv")) for m in (teacher, student)),
    }  # fmt: skip


def together(strategy):
    """Peers, and a model with a head, each evaluated before anything else and then trained for two epochs."""
    from tfcompress.distill import Logits, MutualLearning, SelfDistiller

    made = {
        "peers": lambda one, other: MutualLearning([one, other], Logits(2.0), weight=0.5),
        "head": lambda one, other: SelfDistiller(one, ["conv"], Logits(2.0), hidden=0),
    }
    found = {}
    given = {"sample_weight": np.linspace(0, 2, 32).astype("float32"), "batch_size": 16, "verbose": 0}
    for name, function in made.items():
        with strategy.scope():
            nets = net(5, 1, normalized=False), net(3, 2, normalized=False)
            keras.utils.set_random_seed(3)
            model = function(*nets)
        for doing in ("evaluated", "fitted"):
            with strategy.scope():
                loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
                model.compile(keras.optimizers.SGD(0.2), loss, metrics=["accuracy"])
            if doing == "evaluated":
                found[f"{name} {doing}"] = model.evaluate(X, Y, return_dict=True, **given)
            else:
                found[f"{name} {doing}"] = model.fit(X, Y, epochs=2, shuffle=False, **given).history
        weights = [w.numpy().ravel() for w in model.trainable_weights]
        found[f"{name} fitted"]["weights"] = np.concatenate(weights).tolist()
    return found


def main(folder):
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )
    one, two = tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    runs = {"one": one, "two": two}.items()
    print(json.dumps({name: {**train(run, f"{folder}/{name}"), "together": together(run)} for name, run in runs}))


if __name__ == "__main__":
    main(sys.argv[1])
