"""Zeros that a model has already, held while it trains on."""

from typing import Any

import numpy as np

from tfcompress.core import flavor
from tfcompress.core.flavor import keras
from tfcompress.core.projected import attach, mask_of, project
from tfcompress.core.remake import remake
from tfcompress.prune.targets import kernels, made, project_last


class KeepZeros(keras.callbacks.Callback):
    """Holds the zeros of a model's kernels while it trains, such as one that was pruned and loaded from a file.

    Which weights are zero is not decided anew. The zeros hold beyond the callback, as those of `Pruning` do. A kernel
    of nothing but zeros is not held unless `select` names it: it may be one that was never trained.

    In a loop of one's own: `KeepZeros().attach(model)` before the step is traced.

    Args:
        select: which layers: a layer class, a name pattern, a layer, a predicate, or a list of these. Default: all.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> model.set_weights([np.array([[1, 0], [0, 1], [1, 1], [0, 0]]), np.zeros(2)])
    >>> model.compile("sgd", "mse")
    >>> _ = model.fit(np.ones((2, 4)), np.ones((2, 2)), verbose=0, callbacks=[KeepZeros()])
    >>> (model.get_weights()[0] == 0).astype(int).tolist()
    [[0, 1], [1, 0], [0, 0], [1, 1]]
    """

    def __init__(self, select: Any = None) -> None:
        super().__init__()
        self.select = select

    def attach(self, model: Any) -> bool:
        """Hold the zeros of a model from now on. Returns whether there are any that were not held before.

        Raises:
            ValueError: the selection matches nothing, or the model has no kernel.
        """
        found = False
        every = keras.layers.Layer if self.select is None else self.select
        for _, variable in kernels(model, every):
            kept = np.asarray(flavor.read(variable)) != 0
            if kept.all() or mask_of(variable) is not None or not (kept.any() or self.select is not None):
                continue
            attach(variable, made(kept, getattr(model, "distribute_strategy", None)))
            found = True
        return found

    def on_train_begin(self, logs: Any = None) -> None:
        if self.attach(self.model):
            remake(self.model)

    def on_train_end(self, logs: Any = None) -> None:
        held = [v for _, v in kernels(self.model, keras.layers.Layer if self.select is None else self.select)]
        for variable in held:
            project(variable)
        project_last(self.model, held)
