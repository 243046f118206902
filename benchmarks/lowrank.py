"""Half the multiply-accumulates by low rank, by every method: accuracy after one epoch, files, latency; VBMF's ranks.

    python benchmarks/lowrank.py [--flavor keras3|tf_keras|both] [--train 12000] [--epochs 4] [--only NETWORK]

The VGG16-like network of `vgg_filters.py` and the residual one of `networks.py` are trained on Fashion-MNIST, written
as products within the budget and trained for one more epoch. Latencies of all files of a network are of one run, over
the original's.
"""

import argparse
import time
from typing import Any

import fashion
import networks
import numpy as np
import vgg_filters
from flavors import add_flavor, current, each
from networks import accuracy, keras, train
from rich.console import Console
from rich.table import Table

import tfcompress as tfc
import tflite_export

METHODS = ("auto", "tucker2", "svd", "channel", "spatial", "depthwise", "cp")
PLANTED = ((0, 0.3), (1, 0.3), (5, 0.3), (10, 0.1), (20, 0.5))
SIZES = ((60, 80), (128, 128), (64, 576))


def budgeted(model: Any, share: float, method: str, data: Any) -> tuple[Any, float]:
    """The model within the budget, or within the least that the method reaches; and the share that was asked for."""
    while True:
        try:
            return tfc.factorize_model(model, {"macs": share}, method=method, data=data), share
        except ValueError as error:
            if "cannot be held" not in str(error) or share >= 0.95:
                raise
            share = round(share + 0.05, 2)


def planted() -> bool:
    """Whether VBMF finds every planted rank."""
    right = []
    for rank, noise in PLANTED:
        for rows, columns in SIZES:
            rng = np.random.default_rng(rank)
            matrix = rng.normal(size=(rows, rank)) @ rng.normal(size=(rank, columns))
            right.append(tfc.factorize.vbmf_rank(matrix + noise * rng.normal(size=matrix.shape)) == rank)
    print(f"VBMF: {sum(right)} of {len(right)} planted ranks found", flush=True)
    return all(right)


def measure(name: str, model: Any, options: argparse.Namespace, data: Any) -> None:
    """One network: the table of all methods and its bar."""
    x, y, x_test, y_test = data
    begin, console = time.perf_counter(), Console(width=130)
    train(model, x, y, epochs=options.epochs)
    before = accuracy(model.predict(x_test, batch_size=500, verbose=0), y_test)
    console.print(f"{time.perf_counter() - begin:5.0f} s  {name}: {before:.4f}", highlight=False)

    def file(network: Any, int8: bool) -> Any:
        if not int8:
            return tflite_export.export(network)
        return tflite_export.export(tfc.calibrate(tfc.quantize_model(network), x[:300]), "int8")

    files = {"original": file(model, False), "original, int8": file(model, True)}
    whole = accuracy(tflite_export.Runner(files["original, int8"])(x_test), y_test)
    found = {}
    for method in options.method or METHODS:
        small, share = budgeted(model, options.macs, method, x[:512])
        cut = accuracy(small.predict(x_test, batch_size=500, verbose=0), y_test)
        train(small, x, y, epochs=options.tune, learning_rate=1e-3)
        tuned = accuracy(small.predict(x_test, batch_size=500, verbose=0), y_test)
        files |= {method: file(small, False), f"{method}, int8": file(small, True)}
        integers = accuracy(tflite_export.Runner(files[f"{method}, int8"])(x_test), y_test)
        sizes = [tflite_export.describe(files[n]).macs() for n in ("original", method)]
        found[method] = cut, tuned, integers, sizes[1] / sizes[0], small.count_params() / model.count_params(), share
        console.print(f"{time.perf_counter() - begin:5.0f} s  {method}: {tuned:.4f}", highlight=False)
    timed = {result.name: result for result in tflite_export.benchmark(files, runs=options.runs)}
    table = Table(title=f"{current()}, {name}: {before:.4f}, {options.macs} of the MACs or the least a method reaches")
    for heading in ("method", "budget", "cut", "one epoch", "INT8 file", "MACs", "parameters", "float32 ms",
                    "over original", "INT8 ms", "over original INT8"):  # fmt: skip
        table.add_column(heading, justify="left" if heading == "method" else "right")
    for method in ("original", *found):
        cut, tuned, integers, macs, params, share = found.get(method, (before, before, whole, 1.0, 1.0, 1.0))
        times = []
        for suffix in ("", ", int8"):
            own, base = timed[f"{method}{suffix}"], timed[f"original{suffix}"]
            ok = own.status == base.status == "ok"
            times += [f"{own.median:.3f}", f"{own.median / base.median:.3f}"] if ok else ["-", "-"]
        accuracies = [f"{value:.4f}" for value in (cut, tuned, integers)]
        table.add_row(method, f"{share:.2f}", *accuracies, f"{macs:.3f}", f"{params:.3f}", *times)
    console.print(table)
    best = max((m for m in found if found[m][3] <= 0.5), key=lambda m: found[m][1], default=None)
    held = [m for m in found if found[m][3] <= 0.5 and found[m][1] >= before - 0.01]
    print(f"bar 2, {current()}, {name}: {len(held)} of {len(found)} methods have at most half the MACs at no more than "
          f"1 point less ({', '.join(held) or 'none'}); best "
          + (f"{best} {100 * (found[best][1] - before):+.2f} points" if best else "none"), flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flavor(parser)
    fashion.add_data(parser)
    parser.add_argument("--train", type=int, default=12_000, help="training images (%(default)s)")
    parser.add_argument("--epochs", type=int, default=4, help="of the original (%(default)s)")
    parser.add_argument("--tune", type=int, default=1, help="epochs after the cut (%(default)s)")
    parser.add_argument("--width", type=int, default=16, help="filters of VGG's first convolutions (%(default)s)")
    parser.add_argument("--macs", type=float, default=0.48, help="budget, of the original's (%(default)s)")
    parser.add_argument("--runs", type=int, default=100, help="timed inferences of each file (%(default)s)")
    parser.add_argument("--only", choices=("vgg", "residual"))
    parser.add_argument("--method", action="append", choices=METHODS)
    options = parser.parse_args()
    each(options.flavor)
    keras.utils.set_random_seed(1)
    data = fashion.load(options.data, train=options.train)
    builders = {"vgg": lambda: vgg_filters.network(options.width), "residual": networks.residual}
    for name, build in builders.items():
        if options.only in (None, name):
            measure(name, build(), options, data)
    planted()


if __name__ == "__main__":
    main()
