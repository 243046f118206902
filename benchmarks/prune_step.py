"""What pruning costs in a training step: the same network with and without, in turns, in one process.

    python benchmarks/prune_step.py [--flavor keras3|tf_keras|both] [--network residual]

A turn is one `fit` of some steps, callbacks and all. Decisions (one every 100 steps by default) are in it.
"""

import argparse
import time

import fashion
import networks
import numpy as np
import tensorflow as tf
import tfmot_path
from flavors import add_flavor, current, each
from rich.console import Console
from rich.table import Table

import tfcompress as tfc


class Turns:
    """One model in one `fit`: callbacks and the train function called as Keras calls them, step by step."""

    def __init__(self, model, callbacks, x, y, batch):
        model.compile(networks.keras.optimizers.Adam(1e-4), "sparse_categorical_crossentropy", metrics=["accuracy"])
        model.optimizer.build(model.trainable_variables)
        data = tf.data.Dataset.from_tensor_slices((x, y)).batch(batch, drop_remainder=True).cache().repeat().prefetch(2)
        self.iterator, self.model, self.done = iter(data), model, 0
        self.callbacks = networks.keras.callbacks.CallbackList(callbacks, model=model)
        self.callbacks.on_train_begin()
        self.callbacks.on_epoch_begin(0)
        if model.train_function is None:
            model.make_train_function()

    def run(self, count):
        """Seconds of one step, over `count` steps: by the clock, and of the cores together."""
        start, cores = time.perf_counter(), time.process_time()
        for _ in range(count):
            self.callbacks.on_train_batch_begin(self.done)
            logs = self.model.train_function(self.iterator)
            self.callbacks.on_train_batch_end(self.done, logs)
            self.done += 1
        np.asarray(next(iter(logs.values())))
        return (time.perf_counter() - start) / count, (time.process_time() - cores) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_flavor(parser)
    fashion.add_data(parser)
    parser.add_argument("--rounds", type=int, default=60, help="turns of each model (%(default)s)")
    parser.add_argument("--steps", type=int, default=5, help="steps in one turn (%(default)s)")
    parser.add_argument("--batch", type=int, default=64, help="images in a step (%(default)s)")
    parser.add_argument("--frequency", type=int, default=100, help="steps between decisions (%(default)s)")
    parser.add_argument("--network", choices=sorted(networks.NETWORKS), default="residual")
    options = parser.parse_args()
    each(options.flavor)
    x, y, _, _ = fashion.load(options.data, train=3_200)
    build = networks.NETWORKS[options.network]
    total = options.rounds * options.steps
    schedule = tfc.prune.PolynomialDecay(0.0, 0.8, 0, total, frequency=options.frequency)
    models = {
        "dense": (build(), []),
        "dense again": (build(), []),
        "tfcompress": (build(), [tfc.prune.Pruning(schedule)]),
    }
    if current() == "tf_keras":
        models["tfmot"] = tfmot_path.pruned(build(), total, options.frequency)
    turns = {name: Turns(model, callbacks, x, y, options.batch) for name, (model, callbacks) in models.items()}
    for turn in turns.values():
        turn.run(3)
    times = {name: [] for name in turns}
    names = list(turns)
    for number in range(options.rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            times[name].append(turns[name].run(options.steps))
    table = Table(
        title=f"step of the {options.network} network, {current()}: {options.rounds} turns of {options.steps}"
    )
    for heading in ("", "median ms", "over dense, paired", "p25", "p75", "cores' time over dense"):
        table.add_column(heading, justify="right")
    ratios = {}
    for name in names:
        clock, cores = np.divide(times[name], times["dense"]).T
        ratios[name] = float(np.median(clock)), float(np.median(cores))
        low, high = np.percentile(clock, [25, 75])
        middle = 1e3 * np.median([t for t, _ in times[name]])
        table.add_row(
            name, f"{middle:.2f}", f"{ratios[name][0]:.3f}", f"{low:.3f}", f"{high:.3f}", f"{ratios[name][1]:.3f}"
        )
    Console(width=120).print(table)
    others = "".join(f", {n} {ratios[n][0]:.3f}" for n in ("dense again", "tfmot") if n in ratios)
    clock, cores = ratios["tfcompress"]
    print(f"bar 5, {current()}: a step takes {clock:.3f} of a dense one by the clock, {cores:.3f} by the cores "
          f"(allowed 1.030){others}")  # fmt: skip


if __name__ == "__main__":
    main()
