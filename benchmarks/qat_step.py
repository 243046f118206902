"""What quantization costs a training step: float, ours and (tf_keras) tfmot's by turns, medians and their ratio."""

import argparse
import time
from typing import Any

import fashion
import networks
import numpy as np
import tensorflow as tf
import tfmot_path
from flavors import add_flavor, current, each
from rich.console import Console
from rich.table import Table

import tfcompress as tfc

# Attention has many small tensors, each with a range to be looked after.
ALLOWED = {"encoder": 1.25}


class Steps:
    """One model's training function and its endless data."""

    def __init__(self, model: Any, x: np.ndarray, y: np.ndarray, batch: int) -> None:
        model.compile(networks.keras.optimizers.Adam(1e-4), "sparse_categorical_crossentropy", metrics=["accuracy"])
        model.fit(x[:batch], y[:batch], batch_size=batch, verbose=0)  # builds the optimizer, compiles the step
        data = tf.data.Dataset.from_tensor_slices((x, y)).batch(batch, drop_remainder=True).cache().repeat().prefetch(2)
        self.iterator = iter(data)
        self.function = model.make_train_function() or model.train_function

    def run(self, count: int) -> tuple[float, float]:
        """Seconds of one step, over `count` steps: by the clock, and of the cores together."""
        start, cores = time.perf_counter(), time.process_time()
        for _ in range(count):
            logs = self.function(self.iterator)
        np.asarray(next(iter(logs.values())))
        return (time.perf_counter() - start) / count, (time.process_time() - cores) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_flavor(parser)
    fashion.add_data(parser)
    parser.add_argument("--rounds", type=int, default=40, help="turns of each model (%(default)s)")
    parser.add_argument("--steps", type=int, default=4, help="steps in one turn (%(default)s)")
    parser.add_argument("--batch", type=int, default=64, help="images in a step (%(default)s)")
    parser.add_argument("--network", choices=sorted(networks.NETWORKS), default="residual")
    options = parser.parse_args()
    each(options.flavor)
    x, y, _, _ = fashion.load(options.data, train=3_200)
    build = networks.NETWORKS[options.network]
    models = {"float": build(), "tfcompress": tfc.quantize_model(build())}
    if current() == "tf_keras":
        try:
            models["tfmot"] = tfmot_path.quantize(build())
        except (RuntimeError, ValueError) as error:
            print(f"tfmot refuses the {options.network} network: {str(error)[:150]}")
    steps = {name: Steps(model, x, y, options.batch) for name, model in models.items()}
    for step in steps.values():
        step.run(3)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    order = list(steps)
    for turn in range(options.rounds):
        for name in order if turn % 2 else order[::-1]:
            times[name].append(steps[name].run(options.steps))
    table = Table(
        title=f"step of the {options.network} network, {current()}: {options.rounds} turns, batch {options.batch}"
    )
    for heading in ("", "median ms", "over float, paired", "p10", "p90", "cores' time over float"):
        table.add_column(heading, justify="right")
    ratios = {}
    for name in order:
        clock, cores = np.divide(times[name], times["float"]).T
        ratios[name] = float(np.median(clock))
        low, high = np.percentile(clock, [10, 90])
        milliseconds = 1e3 * np.median([by_clock for by_clock, _ in times[name]])
        row = f"{milliseconds:.2f}", f"{ratios[name]:.3f}", f"{low:.3f}", f"{high:.3f}", f"{np.median(cores):.3f}"
        table.add_row(name, *row)
    Console(width=120).print(table)
    beside = f", tfmot's is {ratios['tfmot']:.3f}" if "tfmot" in ratios else ""
    allowed = ALLOWED.get(options.network, 1.15)
    took = f"a QAT step of the {options.network} network takes {ratios['tfcompress']:.3f} of a float step"
    print(f"bar 4, {current()}: {took} (allowed {allowed:.3f}){beside}")


if __name__ == "__main__":
    main()
