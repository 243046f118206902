"""A Functional model that remembers what was done to its layers, through saving and loading."""

from collections.abc import Mapping
from typing import Any

from tfcompress.core import flavor
from tfcompress.core.flavor import keras


@flavor.register
class Compressed(keras.Model):
    """A Functional model with notes: for layers that were left alone, the reason.

    It is made, called, compiled, saved and loaded as any Functional model; `notes` is JSON data in its config.
    """

    notes: dict[str, str] = {}

    def make_train_function(self, force: bool = False) -> Any:
        """As Keras makes it; refuses what TensorFlow cannot run on several CPU replicas, before it fails obscurely."""
        problem = flavor.distribution_problem(self)
        if problem is not None:
            raise ValueError(f"{problem}, with a float model as well. Received: {self.name!r}")
        return super().make_train_function(force=force)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "notes": dict(self.notes)}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "Compressed":
        config = dict(config)
        notes = config.pop("notes", {})
        model = super().from_config(config, custom_objects=custom_objects)
        object.__setattr__(model, "notes", dict(notes))
        return model


def noted(model: Any, notes: Mapping[str, str]) -> Compressed:
    """The same graph and layers as a model that carries these notes beside those of `model`.

    Args:
        model: a Functional model.
        notes: the reason for each layer that was left alone, by its name.
    """
    result = Compressed(flavor.graph_inputs(model), flavor.graph_outputs(model), name=model.name)
    object.__setattr__(result, "notes", {**getattr(model, "notes", {}), **notes})
    return result
