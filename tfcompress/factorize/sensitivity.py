"""How much the answers of a model change when one of its layers has a lower rank."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.samples import Samples, inputs_of
from tfcompress.factorize.ranks import Option
from tfcompress.factorize.spectrum import Spectrum
from tfcompress.factorize.target import Target

_SAMPLES = 128
_PROBES = (0.1, 0.3, 0.6)  # relative errors at which a layer is tried, or what it has nearest to them


class Sensitivity:
    """Measures on data; the model's weights are changed while it measures, and are as before afterwards.

        change = mean KL(p || p')           of outputs that are shares of one
                 mean (y - y')^2 / var(y)   of others

    Args:
        flat: a flat graph.
        data: samples of its inputs; the first 128 are used.
    """

    def __init__(self, flat: Any, data: Any) -> None:
        self._flat = flat
        columns = Samples(data, inputs_of(flat), limit=_SAMPLES).columns()
        self._given = flavor.pack_like(flavor.graph_inputs(flat), [tf.convert_to_tensor(a) for a in columns])
        self._run = tf.function(lambda given: flavor.flatten(flat(given, training=False)))
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
        return [np.asarray(output, "float64") for output in self._run(self._given)]


def _distance(before: np.ndarray, after: np.ndarray) -> float:
    shares = before.ndim > 1 and before.shape[-1] > 1 and before.min() >= 0 and (
        np.abs(before.sum(-1) - 1) < 1e-3).all()  # fmt: skip
    if shares:
        p, q = np.maximum(before, 1e-9), np.maximum(after, 1e-9)
        return float(np.mean(np.sum(p * np.log(p / q), -1)))
    return float(np.mean((before - after) ** 2) / max(float(np.var(before)), 1e-12))
