"""A penalty that takes kernels towards low rank while a model trains."""

import functools
from collections.abc import Callable
from typing import Any, cast

import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.penalties import Regularizer
from tfcompress.core.select import matcher
from tfcompress.core.trainers import product_layers
from tfcompress.core.transformed import Transformed, transformed_layers
from tfcompress.factorize.candidates import has_kernel, target_of
from tfcompress.factorize.decompose import methods_of
from tfcompress.factorize.target import Target
from tfcompress.factorize.weighting import arrangement

_METHODS = ("tucker2", "svd", "channel", "spatial")


class NuclearNorm(Regularizer):
    """strength * sum over kernels of the sum of their singular values: the small ones go to zero.

    As a callback of `fit` it holds for that fit; `attach` and `detach` are for loops of one's own, in which the
    penalties are among `model.losses`. `factorize_model(model, {"energy": 0.99})` then finds what is left. The layers'
    configuration stays as it is, and so does the model's file. Of a `Distiller` it is on the student alone.

    Args:
        strength: factor of the penalty in the loss, > 0.
        select: which layers: a layer class, a name pattern, a layer, a predicate, or a list of these. Default: all that
            `factorize_model` knows. Layers with transformed weights (quantized, with adapters) are none of them.
        method: the form that convolutions are to take, which says what their matrices are: "svd" [window * inputs,
            outputs], "channel" [inputs, window * outputs], "spatial" [height * inputs, width * outputs], "tucker2" the
            first two, half each.

    Raises:
        ValueError: `strength` is not above 0; the method is unknown; when it is attached: there is nothing to penalize,
            or a selected layer with a kernel has no low-rank form.

    Source: Fazel 2002, "Matrix rank minimization with applications"; for tensors the overlapped norm of Tomioka et al.
        2010, arXiv:1010.0789.

    >>> keras = tf.keras
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, kernel_initializer="identity")])
    >>> penalty = NuclearNorm(0.25)
    >>> penalty.attach(model)
    >>> [round(float(loss), 4) for loss in model.losses]
    [1.0]
    >>> penalty.detach()
    >>> model.losses
    []
    """

    def __init__(self, strength: float, select: Any = None, method: str = "tucker2") -> None:
        super().__init__(strength, select)
        if method not in _METHODS:
            raise ValueError(f"`method` must be one of {', '.join(_METHODS)}. Received: method={method!r}")
        self.method = method

    def found(self, model: Any) -> list[tuple[Any, Any]]:
        matches = matcher(self.select, model)
        wrapped = {id(inner) for wrapper in transformed_layers(model)
                   for inner in flavor.sublayers(wrapper, recursive=True)}  # fmt: skip
        targets, reasons = [], []
        for layer in product_layers(model, recursive=True):
            if id(layer) in wrapped or not layer.built or not matches(layer):
                continue
            target, reason = target_of(layer)
            if target is not None:
                targets.append(target)
            elif isinstance(layer, Transformed) or (self.select is not None and has_kernel(layer)):
                reasons.append(f"{layer.name!r}: {reason}")
        if not targets or (self.select is not None and reasons):
            raise ValueError(
                f"`select` of NuclearNorm needs kernels with a low-rank form. Received: {model.name!r}"
                + (f" with {'; '.join(reasons[:10])}" if reasons else "")
            )
        return [(target.layer, target.variable) for target in targets]

    def penalty(self, layer: Any, variable: Any) -> Callable[[tf.Tensor], tf.Tensor]:
        return functools.partial(self._norm, cast(Target, target_of(layer)[0]))

    def _norm(self, target: Target, tensor: tf.Tensor) -> tf.Tensor:
        kernel = target.arranged(tensor)
        method = self.method if self.method in methods_of(target.shape) else "svd"
        ways = ("channel", "svd") if method == "tucker2" else (method,)
        norms = []
        for way in ways:
            order, sizes = arrangement(target.shape, way)
            norms.append(nuclear_norm(tf.reshape(tf.transpose(kernel, order), sizes)))
        return tf.add_n(norms) / len(norms)


@tf.custom_gradient
def nuclear_norm(matrix: tf.Tensor) -> Any:
    """The sum of singular values of a matrix, by the eigenvalues of its smaller Gram matrix; gradient U V'.

    >>> float(nuclear_norm(tf.constant([[3.0, 0.0], [0.0, -4.0]])))
    7.0
    """
    wide = matrix.shape[0] < matrix.shape[1]
    tall = tf.transpose(matrix) if wide else matrix
    values, vectors = tf.linalg.eigh(tf.matmul(tall, tall, transpose_a=True))
    values = tf.sqrt(tf.maximum(values, 0.0))
    # Below the precision of the Gram matrix a direction is noise: it has no gradient.
    inverse = tf.where(values > 1e-3 * tf.reduce_max(values), 1.0 / tf.maximum(values, 1e-30), 0.0)

    def gradient(upstream: tf.Tensor) -> tf.Tensor:
        sign = tf.matmul(tall, tf.matmul(vectors * inverse, vectors, transpose_b=True))
        return upstream * (tf.transpose(sign) if wide else sign)

    return tf.reduce_sum(values), gradient
