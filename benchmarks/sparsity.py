"""Unstructured zeros in a VGG16-like network on Fashion-MNIST: gradual with training, at once without, by every score.

    python benchmarks/sparsity.py [--flavor keras3|tf_keras|both] [--train 12000] [--epochs 6] [--tune 3]

The network is that of `vgg_filters.py`. Accuracies of training are on all 10 000 test images, those of pruning at once
on the first 2000; scores that need data see 512 training images.
"""

import argparse
import time

import fashion
import networks
import numpy as np
from flavors import add_flavor, current, each
from rich.console import Console
from rich.table import Table
from vgg_filters import network

import tfcompress as tfc

SHARES = (0.5, 0.6, 0.7, 0.75, 0.8)
COMPENSATES = ("obs", "sparsegpt")


def scores(data):
    """Every score, new; those that need data with the same images."""
    make = tfc.prune
    return {
        "magnitude": make.Magnitude, "obs": lambda: make.OBS(data), "sparsegpt": lambda: make.SparseGPT(data),
        "wanda": lambda: make.Wanda(data), "taylor": lambda: make.Taylor(data),
        "obd": lambda: make.OBD(data, batches=128, batch_size=4), "gradient": lambda: make.Gradient(data),
        "movement": lambda: make.Movement(data), "random": make.Random,
    }  # fmt: skip


def zeros(model):
    kernels = [w for w in model.get_weights() if w.ndim > 1]
    return sum(np.sum(w == 0) for w in kernels) / sum(w.size for w in kernels)


def measured(model, x, y):
    return networks.accuracy(model.predict(x, batch_size=500, verbose=0), y)


def at_once(model, weights, score, share, budget, test):
    """Accuracy right after pruning, without a step of training."""
    model.set_weights(weights)
    pruning = tfc.prune.Pruning(tfc.prune.OneShot(share), score=score, budget=budget)
    pruning.attach(model)
    pruning.score.attach(model, pruning.targets)
    pruning.step(0)
    if abs(zeros(model) - share) > 0.005:
        raise SystemExit(f"{zeros(model):.3f} zeros where {share} were asked for")
    found = measured(model, *test)
    pruning.release()
    return found


def compiled(weights, width):
    model = network(width)
    model.set_weights(weights)
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


def gradual(model, weights, score, share, budget, epochs, data, test):
    """(accuracy, zeros) after training while zeros come over the first 60 % of the steps."""
    model.set_weights(weights)
    steps = epochs * -(-len(data[0]) // 64)
    schedule = tfc.prune.PolynomialDecay(0.0, share, begin_step=0, end_step=int(0.6 * steps), frequency=25)
    callbacks = [tfc.prune.Pruning(schedule, score=score, budget=budget)] if score is not None else []
    networks.train(model, *data, epochs=epochs, learning_rate=1e-3, callbacks=callbacks)
    found = measured(model, *test), zeros(model)
    for callback in callbacks:
        callback.release()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flavor(parser)
    fashion.add_data(parser)
    parser.add_argument("--train", type=int, default=12_000, help="training images (%(default)s)")
    parser.add_argument("--width", type=int, default=16, help="filters of the first convolutions (%(default)s)")
    parser.add_argument("--epochs", type=int, default=6, help="of the dense network (%(default)s)")
    parser.add_argument("--tune", type=int, default=3, help="epochs of pruning to 90 %% (%(default)s)")
    parser.add_argument("--each", type=int, default=1, help="epochs of pruning to 90 %% by each score (%(default)s)")
    options = parser.parse_args()
    each(options.flavor)
    networks.keras.utils.set_random_seed(1)
    begin = time.perf_counter()
    console = Console(width=120)
    x, y, x_test, y_test = fashion.load(options.data, train=options.train)
    test, few, data = (x_test, y_test), (x_test[:2000], y_test[:2000]), (x[:512], y[:512])

    def say(text):
        console.print(f"{time.perf_counter() - begin:5.0f} s  {text}", highlight=False)

    dense = networks.train(network(options.width), x, y, epochs=options.epochs)
    weights, before, size = dense.get_weights(), measured(dense, *test), dense.count_params()
    say(f"dense {before:.4f} after {options.epochs} epochs, {size:,} parameters")
    rows = at_once_by_each(weights, options.width, data, few, say)
    common = (0.9, "uniform", options.tune, (x, y), test)
    more = gradual(dense, weights, None, *common)[0]
    accuracy, share = gradual(dense, weights, "magnitude", *common)
    say(f"90 %: {accuracy:.4f} with {share:.3f} zeros after {options.tune} epochs, dense {more:.4f} after as many more")
    spread, _ = gradual(dense, weights, "magnitude", 0.9, "global", *common[2:])
    say(f"90 %, one threshold for all layers: {spread:.4f}")
    table = Table(title=f"{current()}: accuracy right after pruning by share of zeros, and at 90 % with training")
    for heading in ("score", *(f"{share:.0%}" for share in SHARES), f"90 %, {options.each} epochs"):
        table.add_column(heading, justify="right")
    for name, make in scores(data).items():
        # What compensates does so by the batches of `fit` at each decision; others look at the same images each time.
        score = name if name in COMPENSATES else make()
        arguments = (0.9, "uniform", options.each, (x, y), few)
        trained = gradual(dense, weights, score, *arguments)[0] if options.each else None
        table.add_row(name, *(f"{v:.4f}" for v in rows[name]), "-" if trained is None else f"{trained:.4f}")
        say(f"{name} trained: {trained}")
    console.print(table)
    wins = [
        min(rows[name][place] for name in COMPENSATES) - rows["magnitude"][place]
        for place, share in enumerate(SHARES)
        if share >= 0.7
    ]
    points = f"{100 * (accuracy - before):+.2f} points"
    print(f"bar 3, {current()}: 90 % zeros {accuracy:.4f}, dense {before:.4f} ({points}), as long trained {more:.4f}")
    print(f"obs and sparsegpt over magnitude at 70-80 %: at least {100 * min(wins):+.1f} points", flush=True)


def at_once_by_each(weights, width, data, test, say):
    """Accuracies at `SHARES` for each score."""
    model, rows = compiled(weights, width), {}
    for name, make in scores(data).items():
        rows[name] = [at_once(model, weights, make(), share, "uniform", test) for share in SHARES]
        say(f"{name} at once: {[round(value, 4) for value in rows[name]]}")
    return rows


if __name__ == "__main__":
    main()
