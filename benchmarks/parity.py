"""Does the file decide as the Keras model does? A residual network on Fashion-MNIST after one epoch of QAT.

Beside the agreement with Keras stands the noise floor: how far the runtime's own kernel sets agree with each other.
"""

import argparse

import fashion
import networks
import numpy as np
import tfmot_path
from flavors import add_flavor, current, each
from rich.console import Console
from rich.table import Table

import tfcompress as tfc
import tflite_export


def measure(name: str, model: object, file: bytes, x: np.ndarray, y: np.ndarray, slow: int) -> dict[str, float | str]:
    """Accuracies and agreements of a Keras model and its file; the reference kernels see the first `slow` images."""
    in_keras = model.predict(x, verbose=0)
    answers = {kernels: np.asarray(tflite_export.Runner(file, kernels)(x)) for kernels in ("xnnpack", "builtin")}
    reference = np.asarray(tflite_export.Runner(file, "reference")(x[:slow]))
    best = {kernels: answer.argmax(-1) for kernels, answer in answers.items()}
    return {
        "name": name,
        "keras": networks.accuracy(in_keras, y),
        "file": networks.accuracy(answers["xnnpack"], y),
        "agreement": float((best["xnnpack"] == in_keras.argmax(-1)).mean()),
        "agreement, first": float((best["xnnpack"] == in_keras.argmax(-1))[:slow].mean()),
        "floor builtin": float((best["xnnpack"] == best["builtin"]).mean()),
        "floor reference": float((best["xnnpack"][:slow] == reference.argmax(-1)).mean()),
        "equal": float(np.isclose(answers["xnnpack"], in_keras, atol=1 / 512).mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flavor(parser)
    fashion.add_data(parser)
    parser.add_argument("--train", type=int, default=12_000, help="training images (%(default)s)")
    parser.add_argument("--reference", type=int, default=1_000, help="images for the slow kernels (%(default)s)")
    options = parser.parse_args()
    each(options.flavor)
    x, y, x_test, y_test = fashion.load(options.data, train=options.train)
    networks.keras.utils.set_random_seed(0)
    model = networks.train(networks.residual(), x, y, epochs=2)
    quantized = networks.train(tfc.quantize_model(model), x, y, learning_rate=2e-4)
    exported = tflite_export.export(quantized, "int8")
    rows = [measure("tfcompress", quantized, exported.content, x_test, y_test, options.reference)]
    if current() == "tf_keras":
        peer = networks.train(tfmot_path.quantize(model), x, y, learning_rate=2e-4)
        rows.append(measure("tfmot", peer, tfmot_path.convert(peer), x_test, y_test, options.reference))
    table = Table(title=f"parity on {len(x_test):,} images, {current()}")
    for heading in (
        "",
        "Keras",
        "file",
        "difference",
        "argmax agrees",
        "XNNPACK/builtin",
        "XNNPACK/reference",
        "equal outputs",
    ):
        table.add_column(heading, justify="right")
    for row in rows:
        shares = [row[k] for k in ("keras", "file")]
        floors = [row[k] for k in ("agreement", "floor builtin", "floor reference", "equal")]
        difference = f"{100 * (shares[1] - shares[0]):+.2f} points"
        table.add_row(row["name"], *(f"{s:.2%}" for s in shares), difference, *(f"{s:.2%}" for s in floors))
    Console(width=120).print(table)
    ours = rows[0]
    print(
        f"bar 3, {current()}: accuracy of the file {100 * (ours['file'] - ours['keras']):+.2f} points of Keras' "
        f"(allowed 0.20); argmax agreement {ours['agreement']:.2%} "
        f"(floor XNNPACK/builtin {ours['floor builtin']:.2%}); "
        f"over the first {options.reference}: {ours['agreement, first']:.2%} "
        f"(floor XNNPACK/reference {ours['floor reference']:.2%})"
    )


if __name__ == "__main__":
    main()
