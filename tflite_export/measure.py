"""True ranges: the values of every tensor of a float file, seen by running it."""

import warnings
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from tfcompress.core.histogram import Histogram
from tflite_export.draft import Draft
from tflite_export.errors import ExportError


def runs(draft: Draft, samples: Iterable[Sequence[np.ndarray]], tensors: Sequence[int]) -> Iterator[list[np.ndarray]]:
    """For each sample the values of the given tensors.

    Args:
        draft: a file that can run.
        samples: each a list of arrays in the order of the file's inputs.
        tensors: indices of tensors; they must not be constants.

    Yields:
        One list of arrays per sample.

    Raises:
        ExportError: the runtime refuses the file.
    """
    try:
        # Optimized kernels: the reference ones would take twenty times as long.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that keeping all tensors takes memory is what is wanted here
            interpreter = Interpreter(
                model_content=draft.content(), experimental_preserve_all_tensors=True, num_threads=2
            )
        interpreter.allocate_tensors()
        for sample in samples:
            for index, value in zip(draft.inputs, sample, strict=True):
                interpreter.set_tensor(index, value)
            interpreter.reset_all_variables()
            interpreter.invoke()
            yield [interpreter.get_tensor(index) for index in tensors]
    except (RuntimeError, ValueError) as error:
        raise ExportError(f"The runtime refuses the file: {error}") from error


def try_out(draft: Draft, samples: Sequence[Sequence[np.ndarray]]) -> None:
    """Prepares a file and runs it on samples; without any it is only prepared.

    Raises:
        ExportError: the runtime refuses it.
    """
    for _ in runs(draft, samples, []):
        pass


def ends(
    draft: Draft, samples: Sequence[Sequence[np.ndarray]], tensors: Sequence[int]
) -> dict[int, tuple[float, float]]:
    """Smallest and largest value of each tensor over all samples.

    Raises:
        ExportError: a tensor holds NaN or infinity; the message names the layer.
    """
    low, high = np.full(len(tensors), np.inf), np.full(len(tensors), -np.inf)
    for number, values in enumerate(runs(draft, samples, tensors)):
        low = np.minimum(low, [v.min() if v.size else 0.0 for v in values])
        high = np.maximum(high, [v.max() if v.size else 0.0 for v in values])
        wrong = np.flatnonzero(~np.isfinite(low + high))
        if wrong.size:
            raise ExportError(
                f"Tensor {draft.name(tensors[wrong[0]])!r} holds NaN or infinity on the calibration data, first in run "
                f"{number} (counted from 0): the model overflows on it, or divides by zero, as the mean of a row does "
                "that a mask hides whole"
            )
    return {t: (float(a), float(b)) for t, a, b in zip(tensors, low, high, strict=True)}


def ranges(
    draft: Draft, samples: Sequence[Sequence[np.ndarray]], tensors: Sequence[int], method: str = "minmax", bits: int = 8
) -> dict[int, tuple[float, float]]:
    """The range to quantize each tensor to, zero inside.

    Args:
        draft: the float file.
        samples: each a list of arrays in the order of the file's inputs.
        tensors: float tensors that are not constants.
        method: see `tfcompress.core.histogram.Histogram.range`.
        bits: of the integers to come.

    Raises:
        ExportError: the runtime refuses the file, or a tensor is not finite.
    """
    true = ends(draft, samples, tensors)
    if method == "minmax":
        return {t: _usable(low, high) for t, (low, high) in true.items()}
    histograms = [Histogram(*true[t]) for t in tensors]
    for values in runs(draft, samples, tensors):
        for histogram, value in zip(histograms, values, strict=True):
            histogram.add(value)
    return {t: _usable(*histogram.range(method, bits)) for t, histogram in zip(tensors, histograms, strict=True)}


def _usable(low: float, high: float) -> tuple[float, float]:
    """The range with zero inside. A tensor that is always zero gets [0, 1]: on a grid of no width the factor from one
    tensor's scale to the next would be too large for the kernels."""
    low, high = min(low, 0.0), max(high, 0.0)
    return (low, high) if high > low else (0.0, 1.0)
