"""Shares of zeros over steps: as data, and for TensorBoard."""

import os
from collections import Counter
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.flavor import keras
from tfcompress.core.projected import Mask, mask_of
from tfcompress.prune.targets import kernels


class PruningSummaries(keras.callbacks.Callback):
    """Records how many zeros the kernels hold: at each decision of `Pruning`, and at the end of each epoch.

    `tfcompress.summary` shows the decisions as well; they are kept with the masks. In the list of callbacks it stands
    behind `Pruning`, so that it also sees the decision with which that one ends.

    Args:
        log_dir: folder for TensorBoard, where the shares are scalars "sparsity/layer/kernel" and, over all kernels,
            "sparsity" over optimizer steps; None: `rows` alone.
        select: which layers, as of `Pruning`. Default: every kernel but those of depthwise convolutions.

    Attributes:
        rows: (optimizer step, kernel, share of zeros) in the order in which they were found; the kernel is "" for all
            kernels together. Of two kernels by one name the second has "_1" behind it.

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, kernel_initializer="identity", name="a")])
    >>> model.compile("sgd", "mse")
    >>> seen = PruningSummaries()
    >>> _ = model.fit(np.zeros((2, 2)), np.zeros((2, 2)), verbose=0, callbacks=[seen])
    >>> seen.rows
    [(1, 'a/kernel', 0.5), (1, '', 0.5)]
    """

    def __init__(self, log_dir: str | os.PathLike[str] | None = None, *, select: Any = None) -> None:
        super().__init__()
        self.log_dir, self.select = log_dir, select
        self.rows: list[tuple[int, str, float]] = []
        self._writer: Any = None
        self._known: WeakKeyDictionary[Mask, int] = WeakKeyDictionary()  # decisions that are in `rows`

    def on_train_begin(self, logs: Any = None) -> None:
        if self.log_dir is not None and self._writer is None:
            self._writer = tf.summary.create_file_writer(os.fspath(self.log_dir))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        step = flavor.steps_done(self.model.optimizer)
        self._decisions()
        zeros, size = 0, 0
        for name, variable in self._kernels():
            value = np.asarray(flavor.read(variable))
            zeros, size = zeros + int(np.sum(value == 0)), size + value.size
            self._add(step, name, float(np.mean(value == 0)))
        self._add(step, "", zeros / size)

    def on_train_end(self, logs: Any = None) -> None:
        self._decisions()
        if self._writer is not None:
            self._writer.flush()

    def _kernels(self) -> list[tuple[str, Any]]:
        named, seen = [], Counter[str]()
        for layer, variable in kernels(self.model, self.select):
            name = f"{layer.name}/{flavor.variable_name(variable)}"
            named.append((f"{name}_{seen[name]}" if seen[name] else name, variable))
            seen[name] += 1
        return named

    def _decisions(self) -> None:
        """What masks have decided since the last look."""
        for name, variable in self._kernels():
            mask = mask_of(variable)
            if mask is not None:
                for step, share in mask.history[self._known.get(mask, 0) :]:
                    self._add(step, name, share)
                self._known[mask] = len(mask.history)

    def _add(self, step: int, name: str, share: float) -> None:
        self.rows.append((step, name, share))
        if self._writer is not None:
            with self._writer.as_default():
                tf.summary.write(f"sparsity/{name}" if name else "sparsity", np.float32(share), step, _scalar())


def _scalar() -> Any:
    """What tells TensorBoard that a tensor is a scalar over steps; `tf.summary.scalar` needs TensorBoard installed."""
    metadata = tf.compat.v1.SummaryMetadata(data_class="DATA_CLASS_SCALAR")
    metadata.plugin_data.plugin_name = "scalars"
    return metadata
