"""Does Keras compute what the file computes? Networks made with `kernels=` beside their files, for each kernel set.

Each network is trained, trained on with quantization (validation by the integers of XNNPACK), and exported. The same
weights in a model of each kernel set are compared with the file on these kernels: the share of outputs that are equal,
of decisions that are, and both accuracies. Beside it stand plain rounding (no `kernels=`) and under tf_keras tfmot,
each against its own file on XNNPACK. Bars: outputs >= 99.9 % equal, all decisions; both flavors of Keras give the same
integers for the same weights; the `val_accuracy` of the last epoch is the file's accuracy to the last digit; a
prediction takes at most twice as long as the float model's.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import fashion
import networks
import numpy as np
import speech
import tfmot_path
import vgg_filters
from flavors import add_flavor, current, each
from rich.console import Console
from rich.table import Table

import tfcompress as tfc
import tflite_export

keras = networks.keras
layers = networks.layers
KERNELS = ("xnnpack", "reference", "tflm")
CODES = "BENCHMARK_CODES"  # the folder in which one flavor leaves weights and outputs for the other
EQUAL, SLOWER = 0.999, 2.0
STEP = 1 / 256  # of a softmax, in which every network here ends


def spoken() -> Any:
    """DS-CNN: a convolution over the spectrogram, then depthwise and pointwise ones by turns."""

    def active(x: Any) -> Any:
        return layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))

    inputs = keras.Input((61, 32, 1))
    x = active(layers.Conv2D(32, (10, 4), strides=2, padding="same", use_bias=False)(inputs))
    for _ in range(4):
        x = active(layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x))
        x = active(layers.Conv2D(32, 1, use_bias=False)(x))
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(layers.GlobalAveragePooling2D()(x)))


NETWORKS = {
    "residual": networks.residual,
    "inverted residual": networks.inverted_residual,
    "hard-swish": networks.hard_swish,
    "VGG-like": lambda: vgg_filters.network(8),
    "DS-CNN": spoken,
}


def compared(name: str, way: str, outputs: np.ndarray, file: Any, kernels: str, x: Any, y: Any) -> dict[str, Any]:
    """A row of the table: outputs of Keras beside those of a file, equal where they round to the same step of it."""
    answers = np.asarray(tflite_export.Runner(file, kernels)(x))
    return {
        "network": name,
        "way": way,
        "rows": len(x),
        "equal": float(np.mean(np.abs(answers - outputs) < STEP / 2)),
        "argmax": float(np.mean(answers.argmax(-1) == outputs.argmax(-1))),
        "keras": networks.accuracy(outputs, y),
        "file": networks.accuracy(answers, y),
    }


def with_weights(model: Any, quantized: Any, kernels: str | None) -> Any:
    """The quantized model again, for another kernel set."""
    made = tfc.quantize_model(model, kernels=kernels)
    made.set_weights(quantized.get_weights())
    return made


def slowness(model: Any, quantized: Any, x: np.ndarray, turns: int) -> float:
    """Median of the paired ratios of prediction times."""
    ratios = []
    for turn in range(turns + 1):
        seconds = {}
        for one in (model, quantized) if turn % 2 else (quantized, model):
            start = time.perf_counter()
            one.predict(x, batch_size=64, verbose=0)
            seconds[id(one)] = time.perf_counter() - start
        ratios.append(seconds[id(quantized)] / seconds[id(model)])
    return float(np.median(ratios[1:]))  # the first turn traces


def run(name: str, data: tuple, options: argparse.Namespace) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows of a network, and its lines on the other bars."""
    x, y, x_test, y_test = data
    keras.utils.set_random_seed(0)
    model = networks.train(NETWORKS[name](), x, y, epochs=options.epochs)
    quantized = tfc.quantize_model(model, kernels="xnnpack")
    quantized.compile(keras.optimizers.Adam(2e-4), "sparse_categorical_crossentropy", metrics=["accuracy"])
    history = quantized.fit(x, y, batch_size=64, verbose=0, validation_data=(x_test, y_test)).history
    file = tflite_export.export(quantized, "int8")
    rows = []
    for kernels in KERNELS:
        count = options.tflm if kernels == "tflm" else len(x_test)
        made = quantized if kernels == "xnnpack" else with_weights(model, quantized, kernels)
        some, labels = x_test[:count], y_test[:count]
        rows.append(compared(name, kernels, made.predict(some, verbose=0), file, kernels, some, labels))
    lines = [f"{name}: {layer} is approximate: {why}" for layer, why in quantized.notes.items() if "exact" in why]
    printed, accuracy = np.float32(history["val_accuracy"][-1]), np.float32(rows[0]["file"])
    lines.append(f"bar 4, {current()}, {name}: val_accuracy {printed:.8f}, the file's {accuracy:.8f}: "
                 f"{_said(printed == accuracy)}")  # fmt: skip
    ratio = slowness(model, quantized, x_test[: options.timed], options.turns)
    lines.append(f"speed, {current()}, {name}: {ratio:.2f} of the float model's (allowed {SLOWER}): "
                 f"{_said(ratio <= SLOWER)}")  # fmt: skip
    plain = with_weights(model, quantized, None).predict(x_test, verbose=0)
    rows.append(compared(name, "plain rounding", plain, file, "xnnpack", x_test, y_test))
    if current() == "tf_keras":
        rows += peer(name, model, data)
    return rows, lines


def peer(name: str, model: Any, data: tuple) -> list[dict[str, Any]]:
    """tfmot's row; none where it refuses the network."""
    x, y, x_test, y_test = data
    try:
        quantized = tfmot_path.quantize(model)
    except (RuntimeError, ValueError) as error:
        print(f"tfmot refuses the {name} network: {str(error)[:150]}")
        return []
    networks.train(quantized, x, y, learning_rate=2e-4)
    outputs = quantized.predict(x_test, verbose=0)
    return [compared(name, "tfmot", outputs, tfmot_path.convert(quantized), "xnnpack", x_test, y_test)]


def _said(passed: Any) -> str:
    return "pass" if passed else "FAIL"


def shown(rows: list[dict[str, Any]]) -> None:
    """The table, and a line for each bar of equality."""
    table = Table(title=f"Keras beside the file, {current()}")
    for heading in ("network", "arithmetic", "rows", "equal outputs", "equal argmax", "Keras", "file"):
        table.add_column(heading, justify="left" if heading in ("network", "arithmetic") else "right")
    for row in rows:
        shares = (f"{row[key]:.3%}" for key in ("equal", "argmax", "keras", "file"))
        table.add_row(row["network"], row["way"], f"{row['rows']:,}", *shares)
    Console(width=120).print(table)
    for row in rows:
        if row["way"] in KERNELS:
            passed = row["equal"] >= EQUAL and row["argmax"] == 1
            print(f"bar 2, {current()}, {row['network']}, {row['way']}: {row['equal']:.4%} equal "
                  f"(asked for {EQUAL:.1%}), argmax {row['argmax']:.4%} (100 %): {_said(passed)}")  # fmt: skip


def keyed(model: Any) -> dict[str, Any]:
    """Layers with weights by a name that both flavors give; that of the input's range, the first one, is theirs."""
    first, *others = [layer for layer in model.layers if layer.weights]
    return {"input": first} | {layer.name: layer for layer in others}


def leave(name: str, x: np.ndarray, folder: Path) -> None:
    """Weights of a network and what each kernel set computes with them, in a file; weights are the first flavor's."""
    keras.backend.clear_session()  # names of layers count from the beginning
    keras.utils.set_random_seed(1)
    model = NETWORKS[name]()
    quantized = tfc.quantize_model(model)
    place = folder / f"{name} weights.npz"
    if place.exists():
        with np.load(place) as held:
            for key, layer in keyed(quantized).items():
                layer.set_weights([held[f"{key}/{n}"] for n in range(len(layer.weights))])
    else:
        rng = np.random.default_rng(1)
        for layer in model.layers:
            moved = [w + np.abs(rng.normal(0, 0.2, w.shape)) if w.ndim == 1 else w for w in layer.get_weights()]
            layer.set_weights(moved)
        quantized = tfc.calibrate(tfc.quantize_model(model), x[:128])
        kept = {f"{key}/{n}": w for key, layer in keyed(quantized).items() for n, w in enumerate(layer.get_weights())}
        np.savez(place, **kept)
    outputs = {kernels: with_weights(model, quantized, kernels).predict(x, verbose=0) for kernels in KERNELS}
    np.savez(folder / f"{name} {current()}.npz", **outputs)


def compare(folder: Path) -> None:
    """A line for each network that both flavors have computed."""
    for name in NETWORKS:
        made = [folder / f"{name} {flavor}.npz" for flavor in ("keras3", "tf_keras")]
        if not all(path.exists() for path in made):
            continue
        with np.load(made[0]) as first, np.load(made[1]) as second:
            equal = {kernels: float(np.mean(first[kernels] == second[kernels])) for kernels in KERNELS}
        shares = ", ".join(f"{kernels} {share:.3%}" for kernels, share in equal.items())
        print(f"bar 3, {name}: integers of both flavors equal: {shares} (100 %): {_said(min(equal.values()) == 1)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flavor(parser)
    fashion.add_data(parser)
    speech.add_speech(parser)
    parser.add_argument("--only", nargs="+", choices=list(NETWORKS), default=list(NETWORKS), metavar="NETWORK")
    parser.add_argument("--train", type=int, default=12_000, help="images (%(default)s)")
    parser.add_argument("--test", type=int, default=10_000, help="images (%(default)s)")
    parser.add_argument("--epochs", type=int, default=2, help="before quantization (%(default)s)")
    parser.add_argument("--tflm", type=int, default=500, help="images for tflite-micro (%(default)s)")
    parser.add_argument("--timed", type=int, default=2_000, help="images of one timed prediction (%(default)s)")
    parser.add_argument("--turns", type=int, default=9, help="timed predictions of each model (%(default)s)")
    options = parser.parse_args()
    if CODES not in os.environ:
        with tempfile.TemporaryDirectory() as folder:
            os.environ[CODES] = folder
            try:
                each(options.flavor)  # ends the process
            finally:
                compare(Path(folder))
    images = fashion.load(options.data, train=options.train, test=options.test)
    rows: list[dict[str, Any]] = []
    for name in options.only:
        data = images
        if name == "DS-CNN":
            x, y, x_test, y_test = speech.load(options.speech)
            data = x[: options.train], y[: options.train], x_test[: options.test], y_test[: options.test]
        made, said = run(name, data, options)
        rows += made
        print("\n".join(said), flush=True)
        leave(name, data[2][:500], Path(os.environ[CODES]))
    shown(rows)


if __name__ == "__main__":
    main()
