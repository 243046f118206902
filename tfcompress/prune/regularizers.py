"""Penalties that make weights small while a model trains, so that they can go: attached, seen in the loss, detached."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.flavor import keras
from tfcompress.core.penalties import Regularizer
from tfcompress.core.select import matcher
from tfcompress.core.trainers import product_layers
from tfcompress.prune.targets import kernels, output_axis


class L1(Regularizer):
    """strength * sum |w| over the kernels: single weights go to zero.

    Args: see `Regularizer`. Default of `select`: every kernel but those of depthwise convolutions.

    Source: Tibshirani 1996, "Regression shrinkage and selection via the lasso".

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_initializer="ones")])
    >>> penalty = L1(0.25)
    >>> penalty.attach(model)
    >>> [float(loss) for loss in model.losses]
    [0.5]
    >>> penalty.detach()
    >>> model.losses
    []
    """

    def found(self, model: Any) -> list[tuple[Any, Any]]:
        return kernels(model, self.select)

    def penalty(self, layer: Any, variable: Any) -> Callable[[tf.Tensor], tf.Tensor]:
        return lambda value: tf.reduce_sum(tf.abs(value))


class GroupLasso(Regularizer):
    """strength * sum over output channels c of sqrt(n) * ||w_c||: whole channels of n weights go to zero.

    Args: see `Regularizer`. Default of `select`: every kernel but those of depthwise convolutions.

    Source: Yuan & Lin 2006, "Model selection and estimation in regression with grouped variables"; for channels Wen et
        al. 2016, arXiv:1608.03665, eq. 2.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, kernel_initializer="ones")])
    >>> penalty = GroupLasso(0.25)
    >>> penalty.attach(model)
    >>> [round(float(loss), 4) for loss in model.losses]  # 0.25 * sqrt(4) * sqrt(1 + 1 + 1 + 1)
    [1.0]
    """

    def found(self, model: Any) -> list[tuple[Any, Any]]:
        return kernels(model, self.select)

    def penalty(self, layer: Any, variable: Any) -> Callable[[tf.Tensor], tf.Tensor]:
        axis = output_axis(layer, variable)
        others = [a for a in range(len(variable.shape)) if a != axis]
        size = 1
        for a in others:
            size *= int(variable.shape[a])
        # The gradient of a norm at 0 has no value: what is added keeps it finite for channels that are zero.
        return lambda value: size**0.5 * tf.reduce_sum(tf.sqrt(tf.reduce_sum(tf.square(value), others) + 1e-12))


class Slimming(Regularizer):
    """strength * sum |gamma| over BatchNormalization: channels whose scale goes to zero can be taken out.

    Args: see `Regularizer`. Default of `select`: every BatchNormalization that has a scale.

    Source: Liu et al. 2017, arXiv:1708.06519, eq. 1.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization()])
    >>> penalty = Slimming(0.5)
    >>> penalty.attach(model)
    >>> [float(loss) for loss in model.losses]
    [2.0]
    """

    def found(self, model: Any) -> list[tuple[Any, Any]]:
        matches = matcher(self.select, model)
        layers = product_layers(model, recursive=True)
        chosen = {id(part) for layer in layers if matches(layer)
                  for part in (layer, *flavor.sublayers(layer, recursive=True))}  # fmt: skip
        kind = keras.layers.BatchNormalization
        norms = [layer for layer in layers if id(layer) in chosen and isinstance(layer, kind) and layer.scale]
        if not norms:
            raise ValueError(f"`Slimming` needs a BatchNormalization with a scale. Received: {model.name!r}")
        return [(layer, layer.gamma) for layer in norms]

    def penalty(self, layer: Any, variable: Any) -> Callable[[tf.Tensor], tf.Tensor]:
        return lambda value: tf.reduce_sum(tf.abs(value))
