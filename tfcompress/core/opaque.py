"""The layers that a traced graph needs beside the user's own: a weight, a broadcast, an einsum, a closed composite."""

import inspect
import json
from typing import Any

import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.flavor import keras, register, saving
from tfcompress.core.rebuild import rebuilt


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

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Weight":
        weight = super().from_config(config)
        weight.build()  # a wrapper around it asks for its variable at once
        return weight


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
        given: JSON of the arguments that it was called with, tensors as shapes and types: layers inside that make their
            weights when they are first called have them again once the model is loaded.
    """

    stays_whole = True  # tracing does not open it again

    def __init__(
        self, layer: Any, reason: str, training: bool | None = None, given: str | None = None, **kwargs: Any
    ) -> None:
        signature = inspect.signature(layer.call)  # Keras hands out masks and `training` by the names in it

        @tf.autograph.experimental.do_not_convert
        def call(*args: Any, **kwargs: Any) -> Any:
            return self.pass_on(args, kwargs)

        call.__signature__ = signature
        self.__dict__["call"] = call
        kwargs.setdefault("dtype", layer.dtype_policy)
        super().__init__(**kwargs)
        self.layer, self.reason, self.training, self.given = layer, reason, training, given
        self.supports_masking = layer.supports_masking
        self.built = True

    def pass_on(self, args: tuple, kwargs: dict[str, Any]) -> Any:
        """What the layer returns for these arguments."""
        self.given = self.given or described(args, kwargs)
        if self.training is not None:
            kwargs = {**kwargs, "training": self.training}
        with flavor.branches_recorded():
            return self.layer(*args, **kwargs)

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """The layer's own symbolic call, which also builds it when a saved model is loaded."""
        known = len(self.layer._inbound_nodes)
        self.given = described(args, kwargs)  # anew: while tracing, a number stands where the batch is
        outputs = self.pass_on(args, kwargs)
        flavor.forget_calls(self.layer, known)
        return outputs

    def compute_output_shape(self, *args: Any, **kwargs: Any) -> Any:
        return self.layer.compute_output_shape(*args, **kwargs)

    def compute_mask(self, *args: Any, **kwargs: Any) -> Any:
        return self.layer.compute_mask(*args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        layer = saving.serialize_keras_object(self.layer)
        own = {"layer": layer, "reason": self.reason, "training": self.training, "given": self.given}
        return {**super().get_config(), **own}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "Opaque":
        layer = rebuilt(config["layer"], custom_objects)
        if config.get("given"):
            args, kwargs = symbols(json.loads(config["given"]))
            with flavor.branches_recorded():
                layer(*args, **kwargs)
            flavor.forget_calls(layer)
        return cls(**{**config, "layer": layer})


def described(args: tuple, kwargs: dict[str, Any]) -> str | None:
    """The arguments of a call as JSON, tensors as shapes and types; None where they hold something else."""

    def describe(value: Any) -> Any:
        if isinstance(value, dict):
            return {"dict": {key: describe(item) for key, item in value.items()}}
        if isinstance(value, (list, tuple)):
            return [describe(item) for item in value]
        if hasattr(value, "shape") and hasattr(value, "dtype"):
            return {"tensor": [[None if d is None else int(d) for d in value.shape], tf.as_dtype(value.dtype).name]}
        return {"value": value}

    try:
        named = {name: value for name, value in kwargs.items() if name != "training"}
        return json.dumps([describe(args), describe(named)])
    except (TypeError, ValueError):  # an object, or a tensor of unknown rank
        return None


def symbols(described: Any) -> Any:
    """The arguments again, symbolic."""
    if isinstance(described, list):
        return [symbols(item) for item in described]
    if "dict" in described:
        return {key: symbols(item) for key, item in described["dict"].items()}
    if "tensor" in described:
        shape, dtype = described["tensor"]
        return keras.Input(batch_shape=shape, dtype=dtype)
    return described["value"]
