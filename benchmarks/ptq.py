"""INT8 without training: the converter's own path, AI Edge Quantizer and ours on the same float models and samples."""

import argparse
import time
from collections.abc import Callable
from typing import Any

import fashion
import networks
import numpy as np
import tensorflow as tf
from flavors import add_flavor, current, each
from rich.console import Console
from rich.table import Table
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

import tfcompress as tfc
import tflite_export


def converter(model: Any, samples: np.ndarray) -> bytes:
    """TFLiteConverter's post-training quantization, from a frozen graph of batch 1."""
    spec = tf.TensorSpec((1, *model.input_shape[1:]), model.inputs[0].dtype)
    function = tf.function(lambda x: model(x, training=False)).get_concrete_function(spec)
    path = tf.lite.TFLiteConverter.from_concrete_functions([convert_variables_to_constants_v2(function)])
    path.optimizations = [tf.lite.Optimize.DEFAULT]
    path.representative_dataset = lambda: ([sample[None]] for sample in samples)
    return path.convert()


def edge_quantizer(model: Any, samples: np.ndarray) -> bytes:
    """AI Edge Quantizer's static recipe on our float file, which has the signature that it asks for."""
    from ai_edge_quantizer import quantizer, recipe

    content = tflite_export.export(model, "float32").content
    (name,) = tflite_export.Runner(content).inputs
    path = quantizer.Quantizer(content)
    path.load_quantization_recipe(recipe.static_wi8_ai8())
    calibration = path.calibrate({"serving_default": [{name: sample[None]} for sample in samples]}, num_threads=2)
    return bytes(path.quantize(calibration).quantized_model)


def ours(model: Any, samples: np.ndarray) -> bytes:
    ready = tfc.calibrate(tfc.quantize_model(model), samples, "mse")
    return tflite_export.export(ready, "int8", calibration=samples, range_method="mse").content


def measured(model: Any, samples: np.ndarray) -> bytes:
    """Ours on the float model as it is: every range measured on the float file."""
    return tflite_export.export(model, "int8", calibration=samples, range_method="mse").content


PATHS: dict[str, Callable[[Any, np.ndarray], bytes]] = {
    "converter": converter,
    "AI Edge Quantizer": edge_quantizer,
    "tfcompress": ours,
    "tflite_export alone": measured,
}


def decibels(expected: np.ndarray, received: np.ndarray) -> float:
    """Power of the expected probabilities about their mean over the power of the differences."""
    noise = np.mean((expected - received) ** 2)
    return float(10 * np.log10(np.mean((expected - expected.mean()) ** 2) / max(noise, 1e-30)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_flavor(parser)
    fashion.add_data(parser)
    parser.add_argument("--only", choices=sorted(networks.NETWORKS), help="this network")
    parser.add_argument("--epochs", type=int, default=3, help="of float training (%(default)s)")
    parser.add_argument("--samples", type=int, default=300, help="calibration images (%(default)s)")
    parser.add_argument("--train", type=int, default=60_000, help="images to train on (%(default)s)")
    options = parser.parse_args()
    each(options.flavor)
    x, y, x_test, y_test = fashion.load(options.data, train=options.train)
    table = Table(title=f"INT8 without training, {current()}, {len(x_test):,} test images, {options.samples} samples")
    for heading in ("network", "path", "accuracy", "to float", "dB to float", "float ops", "bytes", "s"):
        table.add_column(heading, justify="left" if heading in ("network", "path") else "right", no_wrap=True)
    failures: list[str] = []
    figures: dict[tuple[str, str], tuple[float, float]] = {}
    for name in [options.only] if options.only else networks.NETWORKS:
        networks.keras.utils.set_random_seed(0)
        model = networks.train(networks.NETWORKS[name](), x, y, epochs=options.epochs)
        in_float = model.predict(x_test, verbose=0)
        share = networks.accuracy(in_float, y_test)
        table.add_row(name, "float, Keras", f"{share:.2%}", "", "", "", "", "", style="dim")
        for path, quantize in PATHS.items():
            start = time.perf_counter()
            try:
                content = quantize(model, x[: options.samples])
                seconds = time.perf_counter() - start
                received = np.asarray(tflite_export.Runner(content, process=True)(x_test))
            except (RuntimeError, ValueError, tflite_export.ExportError) as error:
                failures.append(f"{name}, {path}: {type(error).__name__}: {str(error).strip()[:300]}")
                table.add_row("", path, "failed")
                continue
            accuracy = networks.accuracy(received, y_test)
            figures[name, path] = decibels(in_float, received), accuracy - share
            left = len(tflite_export.describe(content).float_operations())
            table.add_row(
                "", path, f"{accuracy:.2%}", f"{100 * (accuracy - share):+.2f}", f"{figures[name, path][0]:.1f}",
                str(left), f"{len(content):,}", f"{seconds:.1f}",
            )  # fmt: skip
    Console(width=120).print(table)
    print(*failures, sep="\n")
    for name in dict.fromkeys(name for name, _ in figures):
        own = figures.get((name, "tfcompress"))
        if own is None:
            print(f"bar 6, {current()}, {name}: no file")
            continue
        for path in list(PATHS)[2:]:
            own = figures[name, path]
            peers = [f"{own[0] - figures[name, p][0]:+.1f} dB to {p}" for p in list(PATHS)[:2] if (name, p) in figures]
            points = f"{own[1] * 100:+.2f} points to float (allowed -0.30)"
            print(f"bar 6, {current()}, {name}, {path}: {points}, {', '.join(peers)}")


if __name__ == "__main__":
    main()
