"""Schedules of quantization-aware training, as Keras callbacks."""

from typing import Any

from tfcompress.core import flavor
from tfcompress.core.flavor import keras
from tfcompress.core.trainers import product_layers
from tfcompress.quantize.quantizer import quantizers


class _AfterSteps(keras.callbacks.Callback):
    """Does something once, when a number of optimizer steps is done."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        if not isinstance(steps, int) or steps < 0:
            raise ValueError(f"`steps` must be a whole number from 0 on. Received: steps={steps!r}")
        self.steps = steps
        self._done = False

    def on_train_begin(self, logs: Any = None) -> None:
        self._done = False
        self._check()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._check()

    def _check(self) -> None:
        if not self._done and flavor.steps_done(self.model.optimizer) >= self.steps:
            self._done = True
            self._act()

    def _act(self) -> None:
        raise TypeError(f"{type(self).__name__} must define _act")


class FreezeRanges(_AfterSteps):
    """Activation ranges stand still from an optimizer step on, so that weights settle on a grid that no longer moves.

    Under `steps_per_execution=n` it acts at the first multiple of n that is not before `steps`. The state is a
    variable of each quantizer: it is saved with the model, and training that goes on keeps it.

    Args:
        steps: optimizer steps (`optimizer.iterations`) after which ranges are frozen, from 0 on.

    Raises:
        ValueError: `steps` is not a whole number from 0 on; the model has no quantizer.

    Source: Krishnamoorthi 2018, arXiv:1806.08342, section 4 (freeze after convergence).

    >>> FreezeRanges(500).steps
    500
    """

    def _act(self) -> None:
        found = quantizers(self.model)
        if not found:
            raise ValueError(f"`FreezeRanges` needs a quantized model. Received: {self.model.name!r}, not quantized")
        for quantizer in found:
            quantizer.freeze()


class FreezeBatchNorm(_AfterSteps):
    """BatchNormalization uses its moving statistics, and stops updating them, from an optimizer step on.

    The runtime folds those statistics into the kernels; training on what the runtime uses removes the difference.
    The layers become untrainable as Keras means it (`layer.trainable = False`), so gamma and beta stand still too.

    Args:
        steps: optimizer steps after which statistics are frozen, from 0 on.

    Raises:
        ValueError: `steps` is not a whole number from 0 on; the model has no BatchNormalization.

    Source: Krishnamoorthi 2018, arXiv:1806.08342, section 3.2.2.

    >>> FreezeBatchNorm(1000).steps
    1000
    """

    def _act(self) -> None:
        layers = product_layers(self.model, recursive=True)
        found = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
        if not found:
            raise ValueError(f"`FreezeBatchNorm` found no BatchNormalization in {self.model.name!r}")
        for layer in found:
            layer.trainable = False
        self.model.make_train_function(force=True)  # what became untrainable is left out of the steps from now on
