"""A Functional model that remembers what was done to its layers, through saving and loading."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.flavor import keras
from tfcompress.core.trainable import settle_frozen


@flavor.register
class Compressed(keras.Model):
    """A Functional model with notes: for layers that were left alone, the reason.

    It is made, called, compiled, saved and loaded as any Functional model; `notes` is JSON data in its config. In
    inference an `evaluator`, if there is one, computes the graph: `evaluator(model, inputs, graph)`, where `graph()`
    computes it as its layers do; so they do where a mask is given from outside, or `training` is a tensor.
    """

    notes: dict[str, str] = {}
    evaluator: Any = None

    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        def graph() -> Any:
            return super(Compressed, self).call(inputs, training=training, mask=mask)

        in_training = tf.is_tensor(training) or bool(training)
        if self.evaluator is None or in_training or mask is not None:
            return graph()
        return self.evaluator(self, inputs, graph)

    call.follows_graph = True  # type: ignore[attr-defined]

    def make_train_function(self, force: bool = False) -> Any:
        """As Keras makes it; refuses what TensorFlow cannot run on several CPU replicas, before it fails obscurely."""
        problem = flavor.distribution_problem(self)
        if problem is not None:
            raise ValueError(f"{problem}, with a float model as well. Received: {self.name!r}")
        return super().make_train_function(force=force)

    def get_config(self) -> dict[str, Any]:
        save = flavor.saving.serialize_keras_object
        evaluator = {} if self.evaluator is None else {"evaluator": save(self.evaluator)}
        return {**super().get_config(), "notes": dict(self.notes), **evaluator}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "Compressed":
        config = dict(config)
        notes, evaluator = config.pop("notes", {}), config.pop("evaluator", None)
        model = super().from_config(config, custom_objects=custom_objects)
        for layer in flavor.sublayers(model):
            settle_frozen(layer)
        object.__setattr__(model, "notes", dict(notes))
        if evaluator is not None:
            object.__setattr__(model, "evaluator", flavor.saving.deserialize_keras_object(evaluator))
        return model


def noted(model: Any, notes: Mapping[str, str], evaluator: Any = None) -> Compressed:
    """The same graph and layers as a model that carries these notes beside those of `model`.

    Args:
        model: a Functional model.
        notes: the reason for each layer that was left alone, by its name.
        evaluator: what computes the graph in inference; None: that of `model`, if it has one.
    """
    result = Compressed(flavor.graph_inputs(model), flavor.graph_outputs(model), name=model.name)
    object.__setattr__(result, "notes", {**getattr(model, "notes", {}), **notes})
    object.__setattr__(result, "evaluator", evaluator or getattr(model, "evaluator", None))
    return result
