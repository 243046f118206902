"""A VGG16-like network on Fashion-MNIST without most of its filters: accuracy, file, multiply-accumulates, latency.

Thirteen convolutions with batch normalization and a dense layer are trained, lose filters in rounds with training in
between, of which the original is the teacher, and are quantized: `python benchmarks/vgg_filters.py [--epochs N]`.
"""

import argparse
import sys
import time
from typing import Any

import fashion
import tensorflow as tf
from flavors import add_flavor, current, each
from networks import accuracy

import tfcompress as tfc
import tflite_export

keras = tf.keras
layers = keras.layers
BLOCKS = ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))  # filters in units of the width, convolutions


def network(width: int) -> Any:
    inputs = keras.Input((28, 28, 1))
    x = inputs
    for n, (filters, count) in enumerate(BLOCKS):
        for _ in range(count):
            x = layers.Conv2D(filters * width, 3, padding="same", use_bias=False)(x)
            x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
        if n < 4:
            x = layers.MaxPooling2D(padding="same")(x)
    x = layers.Dense(8 * width, activation="relu")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(x))


def filters(model: Any) -> int:
    return sum(layer.filters for layer in model.layers if isinstance(layer, layers.Conv2D))


def trained(model: Any, x: Any, y: Any, epochs: int, teacher: Any = None) -> Any:
    """The model, trained in place; with a teacher also on that one's answers."""
    decay = keras.optimizers.schedules.CosineDecay(2e-3, max(1, epochs * len(x) // 64), alpha=0.02)
    trainer = model
    if teacher is not None:
        trainer = tfc.distill.Distiller(teacher, model, tfc.distill.Logits(temperature=4.0), student_loss_weight=0.3)
    trainer.compile(keras.optimizers.Adam(decay), "sparse_categorical_crossentropy", metrics=["accuracy"])
    start = time.perf_counter()
    history = trainer.fit(x, y, batch_size=64, epochs=epochs, verbose=0)
    print(f"trained {epochs} epochs in {time.perf_counter() - start:.0f} s, {filters(model)} filters, accuracy on the "
          f"training images {history.history['accuracy'][-1]:.4f}", file=sys.stderr, flush=True)  # fmt: skip
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flavor(parser)
    fashion.add_data(parser)
    parser.add_argument("--train", type=int, default=12_000, help="images (%(default)s)")
    parser.add_argument("--epochs", type=int, default=6, help="of the original (%(default)s)")
    parser.add_argument("--tune", type=int, default=3, help="epochs after each round but the last (%(default)s)")
    parser.add_argument("--last", type=int, default=10, help="epochs after the last round (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--width", type=int, default=24, help="filters of the first convolutions (%(default)s)")
    parser.add_argument("--macs", type=float, default=0.123, help="budget, of the original's (%(default)s)")
    parser.add_argument("--params", type=float, default=0.03, help="budget, of the original's (%(default)s)")
    parser.add_argument("--importance", default="taylor")
    options = parser.parse_args()
    each(options.flavor)
    keras.utils.set_random_seed(1)
    x, y, x_test, y_test = fashion.load(options.data, options.train)
    original = trained(network(options.width), x, y, options.epochs)
    rounds = iter([options.tune] * (options.rounds - 1) + [options.last])
    small = tfc.prune.prune_iteratively(
        original, {"macs": options.macs, "params": options.params},
        lambda model: trained(model, x, y, next(rounds), original), rounds=options.rounds, seed=1,
        importance=options.importance, data=(x[:1024], y[:1024]),
    )  # fmt: skip
    print(tfc.summary(small))
    int8 = tflite_export.export(tfc.calibrate(tfc.quantize_model(small), x[:500]), "int8")
    files = {"original": tflite_export.export(original), "pruned": tflite_export.export(small), "pruned, int8": int8}
    before = accuracy(original.predict(x_test, verbose=0), y_test)
    print(f"{'file':14}{'accuracy':>10}{'bytes':>12}{'MACs':>14}")
    measured = {}
    for name, file in files.items():
        right = accuracy(tflite_export.Runner(file)(x_test), y_test)
        measured[name] = right, len(file.content), tflite_export.describe(file).macs()
        print(f"{name:14}{right:10.4f}{measured[name][1]:12,}{measured[name][2]:14,}")
    timed = tflite_export.benchmark(files, runs=100)
    gone = 1 - filters(small) / filters(original)
    sizes = [measured["pruned"][i] / measured["original"][i] for i in (1, 2)]
    print(
        f"bar 2, {current()}: {gone:.1%} of {filters(original)} filters removed (asked for 80 %), file {sizes[0]:.3f} "
        f"of the original's (1/4), MACs {sizes[1]:.3f} (1/8), accuracy {before:.4f} -> {measured['pruned'][0]:.4f} "
        f"({100 * (measured['pruned'][0] - before):+.2f} points, allowed -1.00), INT8 {measured['pruned, int8'][0]:.4f}"
    )
    for result in timed:
        print(f"{result.name}: median {result.median:.3f} ms, {result.ratio:.3f} of the original's, {result.delegate}"
              if result.status == "ok" else f"{result.name}: {result.reason}")  # fmt: skip


if __name__ == "__main__":
    main()
