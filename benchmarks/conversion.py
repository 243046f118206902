"""How long a quantized network takes to become an INT8 file: ours and tfmot's way by turns."""

import argparse
import time
from collections.abc import Callable

import fashion
import networks
import numpy as np
import tfmot_path
from flavors import add_flavor, current, each
from rich.console import Console
from rich.table import Table

import tfcompress as tfc
import tflite_export


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_flavor(parser)
    fashion.add_data(parser)
    parser.add_argument("--rounds", type=int, default=5, help="conversions of each (%(default)s)")
    options = parser.parse_args()
    each(options.flavor)
    x, y, _, _ = fashion.load(options.data, train=1_280, test=10)
    model = networks.residual()
    quantized = networks.train(tfc.quantize_model(model), x, y)
    ways: dict[str, Callable[[], bytes]] = {"tfcompress": lambda: tflite_export.export(quantized, "int8").content}
    if current() == "tf_keras":
        peer = networks.train(tfmot_path.quantize(model), x, y)
        ways["tfmot"] = lambda: tfmot_path.convert(peer)
    times: dict[str, list[float]] = {name: [] for name in ways}
    sizes = {}
    for _ in range(options.rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            sizes[name] = len(way())
            times[name].append(time.perf_counter() - start)
    table = Table(title=f"conversion of the residual network, {current()}: {options.rounds} turns")
    for heading in ("", "median s", "first s", "bytes"):
        table.add_column(heading, justify="right")
    for name in ways:
        table.add_row(name, f"{np.median(times[name]):.2f}", f"{times[name][0]:.2f}", f"{sizes[name]:,}")
    Console(width=120).print(table)
    seconds = float(np.median(times["tfcompress"]))
    if "tfmot" in times:
        ratio = float(np.median(np.divide(times["tfcompress"], times["tfmot"])))
        print(f"bar 5, {current()}: conversion takes {seconds:.2f} s, {ratio:.2f} of tfmot's (allowed 0.33)")
    else:
        print(f"bar 5, {current()}: conversion takes {seconds:.2f} s; tfmot does not exist here")


if __name__ == "__main__":
    main()
