"""The layers that a traced graph needs beside the user's own: a weight, a broadcast, an einsum, a closed composite."""

import inspect
from typing import Any

import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.flavor import keras, register, saving


def saveable(operation: Any, args: tuple, kwargs: dict[str, Any]) -> tuple[Any, tuple, dict[str, Any]]:
    """A call that the flavor can save and load, in place of one that it cannot."""
    if flavor.symbol_of(operation) == "einsum":
        equation, *tensors = args
        return Einsum(equation, name=operation.name), (tensors,), {}
    if flavor.is_operation(operation):  # a Python type as a dtype is saved as an object that no operation takes
        plain = lambda v: tf.as_dtype(v).name if isinstance(v, type) else v  # noqa: E731
        return operation, tuple(map(plain, args)), {k: plain(v) for k, v in kwargs.items()}
    return operation, args, kwargs


@register
class Weight(keras.layers.Layer):
    """A variable as a node of the graph: what a composite owned itself, before it was opened.

    Args:
        shape: of the variable.
        weight_name: the variable's own name.
        learned: whether the optimizer may change it.
        regularizer: as of `add_weight`.
        constraint: as of `add_weight`.
    """

    def __init__(self, shape: tuple[int, ...], weight_name: str = "weight", learned: bool = True,
                 regularizer: Any = None, constraint: Any = None, **kwargs: Any) -> None:  # fmt: skip
        super().__init__(**kwargs)
        self.shape, self.weight_name, self.learned = tuple(shape), weight_name, learned
        self.regularizer = keras.regularizers.get(regularizer)
        self.constraint = keras.constraints.get(constraint)

    def build(self, *_: Any) -> None:
        if self.built:  # type: ignore[has-type]
            return
        self.weight = self.add_weight(
            name=self.weight_name, shape=self.shape, initializer="zeros", trainable=self.learned,
            regularizer=self.regularizer, constraint=self.constraint)  # fmt: skip
        self.built = True

    def call(self, reference: Any) -> Any:
        """The variable's value; `reference` only ties the node to the graph."""
        return tf.convert_to_tensor(self.weight)

    def compute_output_shape(self, reference_shape: Any) -> tuple[int, ...]:
        return self.shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(), "shape": list(self.shape), "weight_name": self.weight_name, "learned": self.learned,
            "regularizer": keras.regularizers.serialize(self.regularizer),
            "constraint": keras.constraints.serialize(self.constraint),
        }  # fmt: skip


@register
class Expand(keras.layers.Layer):
    """Broadcast a tensor to a shape in which -1 is the batch of a reference.

    Args:
        target: the shape, -1 first.
    """

    def __init__(self, target: tuple[int, ...], **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.target = tuple(target)
        self.built = True

    def call(self, reference: Any, x: Any) -> Any:
        """Args: reference [B, ...]; x, any tensor that broadcasts to `target`. Returns [B, *target[1:]]."""
        return tf.broadcast_to(x, [tf.shape(reference)[0], *self.target[1:]])

    def compute_output_shape(self, reference_shape: Any, x_shape: Any = None) -> tuple[int | None, ...]:
        return (reference_shape[0], *self.target[1:])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "target": list(self.target)}


@register
class Einsum(keras.layers.Layer):
    """`tf.einsum` as a layer: tf_keras saves a call of the function without its tensors.

    Args:
        equation: as of `tf.einsum`.
    """

    def __init__(self, equation: str, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.equation = equation

    def call(self, inputs: list) -> Any:
        return tf.einsum(self.equation, *inputs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "equation": self.equation}


@register
class Opaque(keras.layers.Layer):
    """A composite that stays one node of a traced graph, with the reason why.

    Args:
        layer: what it computes.
        reason: why it was not opened.
        training: when not None, the layer is called with it whatever the mode.
    """

    stays_whole = True  # tracing does not open it again

    def __init__(self, layer: Any, reason: str, training: bool | None = None, **kwargs: Any) -> None:
        signature = inspect.signature(layer.call)  # Keras hands out masks and `training` by the names in it

        @tf.autograph.experimental.do_not_convert
        def call(*args: Any, **kwargs: Any) -> Any:
            return self.pass_on(args, kwargs)

        call.__signature__ = signature
        self.__dict__["call"] = call
        kwargs.setdefault("dtype", layer.dtype_policy)
        super().__init__(**kwargs)
        self.layer, self.reason, self.training = layer, reason, training
        self.supports_masking = layer.supports_masking
        self.built = True

    def pass_on(self, args: tuple, kwargs: dict[str, Any]) -> Any:
        """What the layer returns for these arguments."""
        if self.training is not None:
            kwargs = {**kwargs, "training": self.training}
        return self.layer(*args, **kwargs)

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """The layer's own symbolic call, which also builds it when a saved model is loaded."""
        known = len(self.layer._inbound_nodes)
        outputs = self.pass_on(args, kwargs)
        flavor.forget_calls(self.layer, known)
        return outputs

    def compute_output_shape(self, *args: Any, **kwargs: Any) -> Any:
        return self.layer.compute_output_shape(*args, **kwargs)

    def compute_mask(self, *args: Any, **kwargs: Any) -> Any:
        return self.layer.compute_mask(*args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        layer = saving.serialize_keras_object(self.layer)
        return {**super().get_config(), "layer": layer, "reason": self.reason, "training": self.training}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "Opaque":
        layer = saving.deserialize_keras_object(config["layer"], custom_objects=custom_objects)
        return cls(**{**config, "layer": layer})
