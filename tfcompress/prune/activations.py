"""Sums over batches of something computed from what layers read and return."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.prune.batches import labelled, total
from tfcompress.prune.targets import Target

#: (input, output) of a layer's call -> what is summed.
Measure = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


class ActivationSums:
    """One sum for each kernel's layer, filled while the model trains or from data.

    Args:
        model: what is trained.
        targets: its kernels.
        measures: for each kernel, what is summed.
        shapes: of what is summed.
        limit: calls of each layer that count, beginning anew with each reset.
        watches: whether training fills them; else data do.
    """

    def __init__(self, model: Any, targets: Sequence[Target], measures: Sequence[Measure],
                 shapes: Sequence[tuple[int, ...]], limit: int, watches: bool) -> None:  # fmt: skip
        self._model, self._targets, self._measures, self._limit = model, list(targets), list(measures), limit
        with model.distribute_strategy.scope():
            self._sums = [total(shape, "sum" if watches else None) for shape in shapes]
            self._counts = [total((), "sum" if watches else None) for _ in shapes]
        self._watched: list[Any] = []
        self._looks = True  # read when a call is traced

    def watch(self, only: Sequence[int] | None = None) -> None:
        """Fill the sums in each call of the layers but those of `evaluate` and `predict`.

        A compiled step must be made anew for it.
        """
        for name in ("test_step", "predict_step"):
            vars(self._model)[name] = self._unseen(getattr(self._model, name))
        for place, target in enumerate(self._targets):
            if only is None or place in only:
                vars(target.layer)["call"] = self._spy(place, target.layer)
                self._watched.append(target.layer)

    def unwatch(self) -> None:
        """Let the layers go."""
        for name in ("test_step", "predict_step"):
            vars(self._model).pop(name, None)
        for layer in self._watched:
            vars(layer).pop("call", None)
        self._watched = []

    @property
    def count(self) -> int:
        """Calls of the layer that was called least."""
        return min(int(tf.convert_to_tensor(count)) for count in self._counts)

    def total(self, place: int) -> np.ndarray:
        """The sum for one kernel."""
        return np.asarray(tf.convert_to_tensor(self._sums[place]))

    def reset(self) -> None:
        """Begin anew."""
        for variable in (*self._sums, *self._counts):
            variable.assign(tf.zeros(variable.shape))

    def fill(self, data: Any, batch_size: int, only: Sequence[int] | None = None) -> None:
        """Begin anew and fill the sums from data, in inference mode.

        Args:
            data: as `labelled` takes it; labels are not looked at.
            batch_size: rows of a batch, where the data are arrays.
            only: numbers of the kernels to do this for.
        """
        self.reset()
        self.watch(only)
        try:
            for x, _, _ in labelled(data, batch_size, self._limit):
                self._model(flavor.map_structure(tf.convert_to_tensor, x), training=False)
        finally:
            self.unwatch()

    def _unseen(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """A step of which nothing is summed."""

        def unseen(*args: Any, **kwargs: Any) -> Any:
            self._looks = False
            try:
                return step(*args, **kwargs)
            finally:
                self._looks = True

        return unseen

    def _spy(self, place: int, layer: Any) -> Callable[..., Any]:
        """The layer's call, which also adds to the sum of its kernel."""
        original = layer.call
        total, count, measure = self._sums[place], self._counts[place], self._measures[place]

        @tf.autograph.experimental.do_not_convert
        def call(*args: Any, **kwargs: Any) -> Any:
            outputs = original(*args, **kwargs)
            given = args[0] if args else next(iter(kwargs.values()))
            if not self._looks or flavor.is_symbolic(given) or flavor.is_symbolic(outputs):
                return outputs

            def add() -> None:
                total.assign_add(tf.cast(measure(tf.stop_gradient(given), tf.stop_gradient(outputs)), tf.float32))
                count.assign_add(1.0)

            tf.cond(tf.convert_to_tensor(count) < self._limit, add, lambda: None)
            return outputs

        call.__signature__ = inspect.signature(original)  # type: ignore[attr-defined]
        return call
