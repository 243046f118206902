"""A MobileNet-like float network with 80 % zeros in its 1x1 convolutions, dense and sparse, on real runtimes, by turns.

    python benchmarks/sparse_execution.py [--flavor keras3|tf_keras|both] [--size 224] [--zeros 0.8] [--modules FOLDER]

The WebAssembly runtimes under Node run the sparse kernels; this machine's own runtime stands beside them: XNNPACK turns
them off on processors with AVX.
"""

import argparse
from typing import Any

import numpy as np
import tensorflow as tf
from flavors import add_flavor, current, each
from rich.console import Console
from rich.table import Table

import tfcompress as tfc
import tflite_export

keras = tf.keras
layers = keras.layers
BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))


def network(size: int) -> Any:
    """MobileNetV1 with explicit padding, a GlobalAveragePooling2D and a Dense head that returns logits.

    Untrained, so its weights are drawn such that activations keep their size through all layers, zeros and all.
    """
    deep = keras.initializers.RandomNormal(stddev=(2 / 9) ** 0.5)
    wide = keras.initializers.VarianceScaling(4.0, "fan_in", "normal")

    def padded(x: Any, layer: Any) -> Any:
        return layers.ReLU(6.0)(layers.BatchNormalization()(layer(layers.ZeroPadding2D(1)(x))))

    inputs = keras.Input((size, size, 3))
    x = padded(inputs, layers.Conv2D(32, 3, strides=2, use_bias=False, kernel_initializer="he_normal"))
    for filters, strides in BLOCKS:
        x = padded(x, layers.DepthwiseConv2D(3, strides=strides, use_bias=False, depthwise_initializer=deep))
        x = layers.ReLU(6.0)(
            layers.BatchNormalization()(layers.Conv2D(filters, 1, use_bias=False, kernel_initializer=wide)(x))
        )
    return keras.Model(inputs, layers.Dense(1000)(layers.GlobalAveragePooling2D()(x)))


def pruned(model: Any, zeros: float) -> Any:
    """The model with this share of the smallest weights of each 1x1 convolution at zero."""
    pointwise = [layer for layer in model.layers if isinstance(layer, layers.Conv2D) and layer.kernel_size == (1, 1)]
    pruning = tfc.prune.Pruning(tfc.prune.OneShot(zeros), select=pointwise)
    pruning.attach(model)
    pruning.step(0)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flavor(parser)
    parser.add_argument("--size", type=int, default=224, help="of the image (%(default)s)")
    parser.add_argument("--zeros", type=float, default=0.8, help="share in the 1x1 convolutions (%(default)s)")
    parser.add_argument("--runs", type=int, default=20, help="timed inferences of each file (%(default)s)")
    parser.add_argument("--modules", help="folder that holds node_modules with the WebAssembly runtimes")
    options = parser.parse_args()
    each(options.flavor)
    keras.utils.set_random_seed(0)
    model = pruned(network(options.size), options.zeros)
    files = {"dense": tflite_export.export(model), "sparse": tflite_export.export(model, sparse=True)}
    print(files["sparse"].report)
    images = np.random.default_rng(0).random((8, options.size, options.size, 3)).astype("float32")
    logits = tflite_export.Runner(files["dense"])(images)
    print(f"outputs between {logits.min():.2f} and {logits.max():.2f}")
    same = np.abs(tflite_export.Runner(files["sparse"])(images) - logits).max()
    where = {"modules": options.modules} if options.modules else {}
    table = Table(title=f"{options.zeros:.0%} zeros, {options.size} x {options.size}, {current()}: {options.runs} runs")
    for heading in ("runtime", "dense ms", "sparse ms", "faster", "largest difference to the reference kernels"):
        table.add_column(heading, justify="right")
    ratios, differences = {}, {}
    for name, target, extra in (
        ("LiteRT.js", "web", {"accelerator": "litert.js", **where}),
        ("tfjs-tflite", "web", {"accelerator": "tfjs-tflite", **where}),
        ("this machine", "host", {}),
    ):
        contents = {key: file.content for key, file in files.items()}
        results = tflite_export.benchmark(contents, target, runs=options.runs, samples=images, **extra)
        if any(result.status != "ok" for result in results):
            table.add_row(name, *(result.reason or "-" for result in results), "", "")
            continue
        dense, sparse = results
        ratios[name] = 1 / sparse.ratio if sparse.ratio else dense.median / sparse.median
        differences[name] = sparse.agreement.largest
        row = f"{dense.median:.1f}", f"{sparse.median:.1f}", f"{ratios[name]:.2f}", f"{differences[name]:.1e}"
        table.add_row(name, *row)
    Console(width=120).print(table)
    sizes = " -> ".join(f"{len(file):,}" for file in files.values())
    wasm = {name: ratio for name, ratio in ratios.items() if name != "this machine"}
    faster = ", ".join(f"{name} {ratio:.2f}" for name, ratio in wasm.items()) or "not measured"
    print(f"bar 4, {current()}: sparse over dense {faster} times as fast (wanted 2), largest difference of outputs "
          f"{max([same, *differences.values()]):.1e} (allowed 1e-4), bytes {sizes}")  # fmt: skip


if __name__ == "__main__":
    main()
