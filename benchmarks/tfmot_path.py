"""The way of tensorflow-model-optimization, which exists under tf_keras alone: quantize, and convert."""

from typing import Any

import tensorflow as tf


def quantize(model: Any) -> Any:
    """The model with tfmot's fake quantization; compile and fit it."""
    from tensorflow_model_optimization.quantization.keras import quantize_model

    return quantize_model(model)


def convert(model: Any) -> bytes:
    """An INT8 file as tfmot's guide makes it."""
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    return converter.convert()


def pruned(model: Any, steps: int, frequency: int) -> tuple[Any, list]:
    """A model wrapped by tfmot's magnitude pruning to 80 %, and the callbacks that it needs."""
    from tensorflow_model_optimization.sparsity import keras as sparsity

    schedule = sparsity.PolynomialDecay(0.0, 0.8, 0, steps, frequency=frequency)
    return sparsity.prune_low_magnitude(model, schedule), [sparsity.UpdatePruningStep()]
