"""Whole-number arithmetic of large tensors in one compiled pass, instead of a dozen through memory."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

# From so many elements on compiling pays: about a tenth of a second once for each size.
LARGE = 2**17


def in_one_pass(function: Callable[..., tf.Tensor], tensors: Sequence[tf.Tensor], *numbers: tf.Tensor) -> tf.Tensor:
    """function(*tensors, *numbers), element by element.

    Args:
        function: defined in a module (it is compiled once); from `tensors` and `numbers` to float32. What it computes
            must not depend on how a compiler arranges float arithmetic: whole numbers, or one product of floats that is
            rounded.
        tensors: float32, of shapes that broadcast with one another.
        numbers: small tensors of known shapes, the same for all elements.

    Returns:
        float32 of the broadcast shape.

    >>> in_one_pass(tf.add, [tf.constant([[1.0], [2.0]]), tf.constant([3.0, 4.0])]).numpy().tolist()
    [[4.0, 5.0], [5.0, 6.0]]
    """
    static = functools.reduce(tf.broadcast_static_shape, (t.shape for t in tensors))
    if static.is_fully_defined():
        count = tf.constant(math.prod(static.as_list()))
    else:
        count = tf.reduce_prod(functools.reduce(tf.broadcast_dynamic_shape, (tf.shape(t) for t in tensors)))
    operands = [*tensors, *numbers]
    kinds = tuple((tuple(operand.shape), operand.dtype) for operand in operands)
    return tf.ensure_shape(compiled_if_large(function, kinds, count, *operands), static)


def compiled_if_large(
    function: Callable[..., tf.Tensor], kinds: tuple[Any, ...], count: tf.Tensor, *operands: tf.Tensor
) -> tf.Tensor:
    """function(*operands), compiled where `count` elements are more than `LARGE`.

    Under a strategy of several replicas nothing is compiled: XLA does not run on several of a processor's.

    Args:
        function: as in `in_one_pass`.
        kinds: shape (None: a size of which there may be several) and type of each operand.
        count: how many elements are computed.
        operands: tensors.

    >>> float(compiled_if_large(tf.square, (((), tf.float32),), tf.constant(1), tf.constant(3.0)))
    9.0
    """
    if tf.distribute.get_strategy().num_replicas_in_sync > 1:
        return function(*operands)
    return either(count > LARGE, lambda: _compiled(function, kinds)(*operands), lambda: function(*operands))


@functools.cache
def _compiled(function: Callable[..., tf.Tensor], signature: tuple[Any, ...]) -> Callable[..., tf.Tensor]:
    """One trace for any size of a batch; a compilation for each size."""
    specs = [tf.TensorSpec(shape, kind) for shape, kind in signature]
    return tf.function(function, jit_compile=True, input_signature=specs)


def either(condition: tf.Tensor, first: Callable[[], tf.Tensor], second: Callable[[], tf.Tensor]) -> tf.Tensor:
    """first() where the scalar holds, else second(); decided at once where it is known already.

    >>> float(either(tf.constant(True), lambda: tf.constant(1.0), lambda: tf.constant(2.0)))
    1.0
    """
    known = tf.get_static_value(condition)
    return tf.cond(condition, first, second) if known is None else first() if known else second()
