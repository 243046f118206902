"""How much the answers of a model change when one of its layers has a lower rank."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.factorize.ranks import Option
from tfcompress.factorize.spectrum import Spectrum
from tfcompress.factorize.target import Target

_SAMPLES = 128
_FAR = 1e12  # the change of a model whose answers are no numbers any more
_PROBES = (0.1, 0.3, 0.6)  # relative errors at which a layer is tried, or what it has nearest to them


class Sensitivity:
    """Measures on data; the model's weights are changed while it measures, and are as before afterwards.

        change = mean KL(p || p')              of outputs that are shares of one
                 mean_c mean (y - y')^2 / var(y)   of others, c the channels of which var(y) is finite and not 0

    Args:
        flat: a flat graph.
        data: batches of its inputs, as of `Samples`; the first 128 rows are used.
    """

    def __init__(self, flat: Any, data: Iterable[list[np.ndarray]]) -> None:
        self._batches, rows = [], 0
        for arrays in data:
            tensors = [tf.convert_to_tensor(array[: _SAMPLES - rows]) for array in arrays]
            self._batches.append(flavor.pack_like(flavor.graph_inputs(flat), tensors))
            rows += len(arrays[0])
            if rows >= _SAMPLES:
                break
        sizes = [tuple(output.shape) for output in flavor.flatten(flavor.graph_outputs(flat))]
        # An open last axis is one of places, of another length in each batch: its numbers are of one channel.
        self._channels = [size[-1] if len(size) > 1 and size[-1] else 1 for size in sizes]
        self._run = tf.function(lambda given: flavor.flatten(flat(given, training=False)), reduce_retracing=True)
        self._before = self._outputs()

    def changes(self, target: Target, spectra: Sequence[Spectrum], options: Sequence[Option]) -> np.ndarray:
        """The change by each option, from those at a few of them: log change is linear in log error between these.

        Beyond the measured ones the change is proportional to the squared error.
        """
        errors = np.array([max(option.error, 1e-9) for option in options])
        by_method = {spectrum.method: spectrum for spectrum in spectra}
        chosen = sorted({int(np.argmin(np.abs(np.log(errors / probe)))) for probe in _PROBES}, key=lambda n: errors[n])
        seen = [self.change(target, by_method[options[n].method].approximation(options[n].ranks)) for n in chosen]
        x = np.log(errors[chosen])
        y = np.log(np.maximum.accumulate(np.maximum(seen, 1e-12)))
        return np.exp(np.interp(np.log(errors), x, y) + 2 * np.minimum(np.log(errors) - x[0], 0)
                      + 2 * np.maximum(np.log(errors) - x[-1], 0))  # fmt: skip

    def change(self, target: Target, kernel: np.ndarray) -> float:
        """The change of the outputs when the layer has another kernel."""
        before = np.asarray(flavor.read(target.variable))
        target.assign(kernel)
        try:
            after = self._outputs()
        finally:
            target.variable.assign(before)
        return sum(_distance(p, q) for p, q in zip(self._before, after, strict=True))

    def _outputs(self) -> list[np.ndarray]:
        """[rows, channels] of each output."""
        found = [[np.asarray(output, "float64") for output in self._run(given)] for given in self._batches]
        return [np.concatenate([part.reshape(-1, channels) for part in parts])
                for parts, channels in zip(zip(*found, strict=True), self._channels, strict=True)]  # fmt: skip


def _distance(before: np.ndarray, after: np.ndarray) -> float:
    """How far outputs [rows, channels] have moved; what is not finite afterwards has moved very far."""
    if before.shape[-1] > 1 and before.min() >= 0 and (np.abs(before.sum(-1) - 1) < 1e-3).all():
        p, q = np.maximum(before, 1e-9), np.maximum(after, 1e-9)
        moved = float(np.mean(np.sum(p * np.log(p / q), -1)))
    else:
        # A masked logit (-1e9, -inf) is the same in every row: it would drown the others or make them NaN.
        known = np.isfinite(before).all(0)
        spread = np.var(before[:, known], 0)
        varies = spread > 1e-12 * np.mean(before[:, known] ** 2, 0)
        if not varies.any():
            return 0.0
        changes = np.mean((before[:, known] - after[:, known]) ** 2, 0)
        moved = float(np.mean(changes[varies] / spread[varies]))
    return moved if np.isfinite(moved) else _FAR
