"""Four-bit weights in eight-bit arithmetic: the bytes they save, and equal integers on every kernel set and on TFLM."""

import argparse

import fashion
import networks
import numpy as np
from flavors import add_flavor, current, each
from rich.console import Console
from rich.table import Table

import tfcompress as tfc
import tflite_export
from tflite_export.flatbuffer import read


def weight_bytes(content: bytes) -> int:
    """Bytes of the constant kernels: INT8 one each, INT4 half."""
    return sum(
        tensor.data.size
        for graph in read(content).subgraphs
        for tensor in graph.tensors
        if tensor.data is not None and tensor.type in ("INT8", "INT4") and len(tensor.shape) > 1
    )


def tflm(content: bytes, x: np.ndarray) -> np.ndarray:
    """Integers in, integers out, on tflite-micro."""
    from tflite_micro import runtime

    interpreter = runtime.Interpreter.from_bytes(content, arena_size=1_000_000)
    answers = []
    for row in x:
        interpreter.set_input(row[None], 0)
        interpreter.invoke()
        answers.append(np.array(interpreter.get_output(0))[0])
    return np.stack(answers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_flavor(parser)
    fashion.add_data(parser)
    parser.add_argument("--images", type=int, default=100, help="test images for the comparison (%(default)s)")
    options = parser.parse_args()
    each(options.flavor)
    x, y, x_test, y_test = fashion.load(options.data, train=6_000, test=2_000)
    some = x_test[: options.images]
    table = Table(title=f"four-bit weights, {current()}")
    for heading in (
        "network",
        "float",
        "int8",
        "w4a8 calibrated",
        "w4a8 trained",
        "weights' bytes",
        "packed = unpacked on",
    ):
        table.add_column(heading, justify="right")
    ratios, equal = {}, {}
    for name in ("residual", "depthwise"):
        networks.keras.utils.set_random_seed(0)
        model = networks.train(networks.NETWORKS[name](), x, y, epochs=2)
        eight = tflite_export.export(tfc.calibrate(tfc.quantize_model(model), x[:300]), "int8")
        calibrated = tflite_export.export(tfc.calibrate(tfc.quantize_model(model, "w4a8"), x[:300]), "int8")
        trained = networks.train(tfc.quantize_model(model, "w4a8"), x, y, learning_rate=5e-4)
        files = {
            form: tflite_export.export(trained, "int8", inputs="int8", outputs="int8", int4=form).content
            for form in ("packed", "unpacked")
        }
        ratios[name] = weight_bytes(files["packed"]) / weight_bytes(eight.content)
        places = {}
        for kernels in ("builtin", "reference"):
            first, second = (np.asarray(tflite_export.Runner(f, kernels).integers(some)) for f in files.values())
            places[kernels] = bool((first == second).all())
        (port,) = tflite_export.Runner(files["packed"]).inputs.values()
        integers = port.grid.integers(some, np.dtype("int8"))
        first, second = (tflm(content, integers) for content in files.values())
        places["TFLM"] = bool((first == second).all())
        equal[name] = places
        scores = [networks.accuracy(model.predict(x_test, verbose=0), y_test)]
        scores += [
            networks.accuracy(np.asarray(tflite_export.Runner(file)(x_test)), y_test)
            for file in (eight, calibrated, files["packed"])
        ]
        where = ", ".join(kernels for kernels, same in places.items() if same)
        table.add_row(name, *(f"{score:.2%}" for score in scores), f"{ratios[name]:.3f}x", where)
    Console(width=120).print(table)
    for name in ratios:
        print(
            f"bar 2, {current()}, {name}: kernels take {ratios[name]:.3f} of the int8 file's bytes (allowed 0.52); "
            f"packed and unpacked give equal integers: {equal[name]}"
        )


if __name__ == "__main__":
    main()
