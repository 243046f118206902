"""Unstructured zeros in a VGG16-like network on Fashion-MNIST: gradual with training, at once without, by every score.

    python benchmarks/sparsity.py [--flavor keras3|tf_keras|both] [--train 12000] [--epochs 4] [--tune 3]

Every number is the accuracy on all 10 000 test images. Scores that need data see 512 training images.
"""

import argparse
import time

import fashion
import networks
import numpy as np
from flavors import add_flavor, current, each
from rich.console import Console
from rich.table import Table
from vgg import vgg

import tfcompress as tfc

SHARES = (0.5, 0.6, 0.7, 0.75, 0.8)


def scores(data):
    """Every score, new; those that need data with the same images."""
    make = tfc.prune
    return {
        "magnitude": make.Magnitude, "random": make.Random,
        "gradient": lambda: make.Gradient(data), "taylor": lambda: make.Taylor(data),
        "movement": lambda: make.Movement(data), "wanda": lambda: make.Wanda(data),
        "obd": lambda: make.OBD(data, batches=512, batch_size=1),
        "obs": lambda: make.OBS(data), "sparsegpt": lambda: make.SparseGPT(data),
    }  # fmt: skip


def zeros(model):
    kernels = [w for w in model.get_weights() if w.ndim > 1]
    return sum(np.sum(w == 0) for w in kernels) / sum(w.size for w in kernels)


def measured(model, x, y):
    return networks.accuracy(model.predict(x, batch_size=500, verbose=0), y)


def at_once(weights, score, share, budget, test):
    """Accuracy right after pruning, without a step of training."""
    model = compiled(weights)
    pruning = tfc.prune.Pruning(tfc.prune.OneShot(share), score=score, budget=budget)
    pruning.attach(model)
    pruning.score.attach(model, pruning.targets)
    pruning.step(0)
    if abs(zeros(model) - share) > 0.005:
        raise SystemExit(f"{zeros(model):.3f} zeros where {share} were asked for")
    return measured(model, *test)


def compiled(weights):
    model = vgg()
    model.set_weights(weights)
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


def gradual(weights, score, share, budget, epochs, data, test):
    """(accuracy, zeros) after training while zeros come over the first 60 % of the steps."""
    model = vgg()
    model.set_weights(weights)
    steps = epochs * -(-len(data[0]) // 64)
    schedule = tfc.prune.PolynomialDecay(0.0, share, begin_step=0, end_step=int(0.6 * steps), frequency=25)
    callbacks = [tfc.prune.Pruning(schedule, score=score, budget=budget)] if score is not None else []
    networks.train(model, *data, epochs=epochs, learning_rate=1e-3, callbacks=callbacks)
    return measured(model, *test), zeros(model)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_flavor(parser)
    fashion.add_data(parser)
    parser.add_argument("--train", type=int, default=12_000, help="training images (%(default)s)")
    parser.add_argument("--epochs", type=int, default=4, help="of the dense network (%(default)s)")
    parser.add_argument("--tune", type=int, default=3, help="epochs of pruning to 90 %% (%(default)s)")
    parser.add_argument(
        "--tune-all", type=int, default=1, help="epochs of pruning to 90 %% by each score (%(default)s)"
    )
    options = parser.parse_args()
    each(options.flavor)
    networks.keras.utils.set_random_seed(1)
    begin = time.perf_counter()
    x, y, x_test, y_test = fashion.load(options.data, train=options.train)
    test = x_test, y_test
    dense = networks.train(vgg(), x, y, epochs=options.epochs)
    weights, before = dense.get_weights(), measured(dense, *test)
    more, _ = gradual(weights, None, 0.0, "uniform", options.tune, (x, y), test)
    console = Console(width=120)
    console.print(f"dense {before:.4f} after {options.epochs} epochs, {more:.4f} after {options.tune} more, "
                  f"{dense.count_params():,} parameters")  # fmt: skip
    best = {b: gradual(weights, "magnitude", 0.9, b, options.tune, (x, y), test) for b in ("uniform", "global")}
    for budget, (accuracy, share) in best.items():
        console.print(f"90 % zeros, {budget}: {accuracy:.4f} with {share:.3f} zeros after {options.tune} epochs")
    data = (x[:512], y[:512])
    table = Table(title=f"at once, no training, {current()}: accuracy by share of zeros (uniform)")
    table.add_column("score")
    for share in SHARES:
        table.add_column(f"{share:.0%}", justify="right")
    table.add_column(f"90 %, {options.tune_all} epoch of training", justify="right")
    rows = {}
    for name, make in scores(data).items():
        found = [at_once(weights, make(), share, "uniform", test) for share in SHARES]
        fitted = None if name in ("obs", "sparsegpt", "obd") else make()
        trained = gradual(weights, fitted or name, 0.9, "uniform", options.tune_all, (x, y), test)[0]
        rows[name] = found
        table.add_row(name, *(f"{value:.4f}" for value in found), f"{trained:.4f}")
        console.print(
            f"{name}: {[round(v, 4) for v in found]}, trained {trained:.4f}; {time.perf_counter() - begin:.0f} s"
        )
    console.print(table)
    wins = [min(rows["obs"][i], rows["sparsegpt"][i]) - rows["magnitude"][i] for i, s in enumerate(SHARES) if s >= 0.7]
    accuracy = best["uniform"][0]
    print(f"bar 3, {current()}: 90 % zeros {accuracy:.4f}, dense {before:.4f} ({100 * (accuracy - before):+.2f} points; "
          f"as long trained {more:.4f}); obs and sparsegpt over magnitude at 70-80 %: at least "
          f"{100 * min(wins):+.1f} points")  # fmt: skip


if __name__ == "__main__":
    main()
