"""Post-training static quantization: activation ranges from a few hundred samples, without training."""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.compressed import noted
from tfcompress.core.flavor import keras
from tfcompress.core.histogram import Histogram, check_method
from tfcompress.core.replay import Call, replay
from tfcompress.core.samples import Samples, inputs_of
from tfcompress.core.trace import trace
from tfcompress.quantize.quantizer import Quantizer, quantizers
from tfcompress.quantize.ranges import MaskedScores, Ranges


def _taps(model: Any) -> tuple[Any, list[Quantizer]]:
    """A model of what each quantizer is given, quantizers left out, and those whose range is to be found."""
    tensors: list[Any] = []
    found: list[Quantizer] = []

    def call(old: Call, args: Any, kwargs: Any) -> Any:
        if not isinstance(old.operation, Quantizer):
            return old.operation(*args, **kwargs)
        tensor = flavor.flatten((args, kwargs))[0]
        if old.operation.activation:
            tensor = keras.layers.Activation(old.operation.activation)(tensor)
        if old.operation.fixed is None:
            tensors.append(tensor)
            found.append(old.operation)
        return tensor

    bare = replay(model, call)
    return keras.Model(list(bare.inputs), tensors), found


class _Statistics:
    """Runs the taps over the samples, once for the ends and once more for the histograms."""

    def __init__(self, model: Any, data: Any, batch_size: int) -> None:
        self.taps, self.quantizers = _taps(model)
        self._samples = Samples(data, inputs_of(model), batch_size=batch_size)
        specs = [tf.TensorSpec((None, *t.shape[1:]), t.dtype) for t in self.taps.inputs]
        self._run = tf.function(lambda *x: self.taps(list(x), training=False)).get_concrete_function(*specs)

    def _values(self) -> Iterator[tuple[int, list[np.ndarray]]]:
        """For each batch the number of rows before it, and the values at each quantizer."""
        rows = 0
        for batch in self._samples:
            outputs = self._run(*(tf.convert_to_tensor(array) for array in batch))
            yield rows, [np.asarray(t, "float32") for t in flavor.flatten(outputs)]
            rows += len(batch[0])

    def ends(self) -> list[tuple[float, float]]:
        """Smallest and largest value at each quantizer; where there is a mask, the ends of what it does not hide."""
        low, high = np.full(len(self.quantizers), np.inf), np.full(len(self.quantizers), -np.inf)
        masks = {n: q.ranges for n, q in enumerate(self.quantizers) if isinstance(q.ranges, MaskedScores)}
        silent = set(masks)
        for rows, values in self._values():
            pairs = [_ends(q.ranges, v) for q, v in zip(self.quantizers, values, strict=True)]
            self._check(rows, values, pairs)
            low, high = np.minimum(low, [a for a, _ in pairs]), np.maximum(high, [b for _, b in pairs])
            silent -= {n for n in silent if not np.all(masks[n].is_real(values[n]))}
        for n in sorted(silent):
            name = self.quantizers[n].name.removesuffix("_range")
            warnings.warn(
                f"the mask at {name!r} never fires in `data`: its range is that of unmasked values only. Give samples "
                "in which something is masked",
                stacklevel=3,
            )
        return list(zip(low.tolist(), high.tolist(), strict=True))

    def _check(self, rows: int, values: list[np.ndarray], pairs: list[tuple[float, float]]) -> None:
        """Refuse a batch behind `rows` others on which something is not finite."""
        bad = [n for n, pair in enumerate(pairs) if not np.isfinite(pair).all()]
        if bad:
            wrong = ~np.isfinite(values[bad[0]])
            row = rows + int(np.argmax(wrong.reshape(len(wrong), -1).any(axis=1)))
            names = [self.quantizers[n].name for n in bad[:5]]
            raise ValueError(
                f"Row {row} of `data` gives values that are not finite at {names}: "
                "the model overflows on it, or divides by zero, as the mean of a row does that a mask hides whole"
            )

    def histograms(self, ends: list[tuple[float, float]]) -> list[Histogram]:
        found = [Histogram(low, high) for low, high in ends]
        for _, values in self._values():
            for histogram, value in zip(found, values, strict=True):
                histogram.add(value)
        return found


def _ends(ranges: Ranges, values: np.ndarray) -> tuple[float, float]:
    """Smallest and largest value of a batch, or those that a mask leaves."""
    if not isinstance(ranges, MaskedScores):
        return float(values.min()), float(values.max())
    if np.isnan(values).any():
        return np.nan, np.nan
    low, high = ranges.ends(tf.constant(values), nonnegative=False)
    return float(low), float(high)


def calibrate(model: Any, data: Any, method: str = "minmax", *, percentile: float = 99.99, batch_size: int = 32) -> Any:
    """Ranges of all activations from representative samples: the quantized model without training.

    Weights are on their grid while the samples run; activations are not, so that no range depends on another.

    Args:
        model: what `quantize_model` returned. It is not changed.
        data: samples as `model.predict` takes them: an array, a list or dict of arrays, a `tf.data.Dataset` or a
            generator function of batches (labels are dropped). A few hundred samples do. Where the model masks
            something, so must samples among them: a mask that never fires is warned of, by its layer's name.
        method: "minmax" (smallest and largest value), "percentile" (outliers clipped), "mse" (least squared rounding
            and clipping error), "entropy" (least KL divergence). Masked scores have their own ends: `MaskedScores`.
        percentile: in (50, 100], for method="percentile".
        batch_size: samples that run at once, where `data` is arrays.

    Returns:
        A new, uncompiled model. It can be evaluated, exported, or trained on.

    Raises:
        TypeError: `model` is not a model of this Keras flavor.
        ValueError: `model` is not quantized, `data` is empty, wrongly shaped or not finite, or `method` is unknown.

    Source: Krishnamoorthi 2018, arXiv:1806.08342 (static quantization); Migacz 2017 ("entropy").

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> from tfcompress.quantize import quantize_model
    >>> ready = calibrate(quantize_model(model), np.array([[-1.0, 2.0], [0.5, 3.0]], "float32"))
    >>> [round(end, 2) for end in ready.layers[1].limits()]
    [-1.0, 3.0]
    """
    flavor.check_model(model)
    check_method(method, percentile)
    if not quantizers(model):
        raise ValueError(f"`model` must come from quantize_model. Received: {model.name!r} without quantizers")
    copied = noted(trace(model), getattr(model, "notes", {}), getattr(model, "evaluator", None))
    statistics = _Statistics(copied, data, batch_size)
    ends = statistics.ends()
    found = ends
    if method != "minmax":
        histograms = zip(statistics.quantizers, statistics.histograms(ends), ends, strict=True)
        found = [
            pair if isinstance(q.ranges, MaskedScores) else h.range(method, q.bits, percentile)
            for q, h, pair in histograms
        ]
    ranges: dict[int, tuple[float, float]] = {}
    for quantizer, (low, high) in zip(statistics.quantizers, found, strict=True):
        old = ranges.get(id(quantizer), (0.0, 0.0))  # one that is called twice covers both calls
        ranges[id(quantizer)] = min(low, old[0]), max(high, old[1])
    for quantizer in statistics.quantizers:
        quantizer.set_range(*ranges[id(quantizer)])
    return copied
