"""Weights that are computed: one wrapper layer that lets any layer compute with t_n(...t_1(w)) in place of w."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.compressed import noted
from tfcompress.core.copy import copy_layer
from tfcompress.core.flavor import keras
from tfcompress.core.grid import IntegerWeight
from tfcompress.core.projected import carry
from tfcompress.core.rebuild import rebuilt
from tfcompress.core.replay import replay_with
from tfcompress.core.trainable import settle_frozen


class Transform:
    """What is done to one weight before its layer computes with it. Subclasses are registered with Keras.

    A transform may own variables: it makes them in `build`, through the wrapper. A copy of the wrapper has copies of
    its transforms, and a wrapper made of those builds them once more.

    Attributes:
        held_shape: the weight's shape where its variable holds something else (packed codes) that this transform, the
            weight's first, turns into the weight; None where the variable holds the weight.
    """

    holds_state = True  # copied with the wrapper
    held_shape: tuple[int, ...] | None = None

    def build(self, wrapper: "Transformed", name: str, variable: Any) -> None:
        """Make the transform's variables. `name` is the weight's name within its layer."""

    def __call__(self, value: tf.Tensor) -> tf.Tensor:
        """The weight that the layer computes with; `value` is the trained one, of the same shape."""
        raise TypeError(f"{type(self).__name__} must define __call__")

    def integers(self, value: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, int] | None:
        """Codes, scale and bits when the result lies on an integer grid (result = codes * scale), else None."""
        return None

    def held_bytes(self, variable: Any) -> int:
        """What the weight takes as it is held; asked of transforms that have a `held_shape`."""
        raise TypeError(f"{type(self).__name__} must define held_bytes")

    def describe(self) -> str:
        """A few words for the summary: "int8 per channel"."""
        return type(self).__name__

    def get_config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Transform":
        return cls(**config)


def named_weights(layer: Any) -> dict[str, Any]:
    """The variables of a layer, at any depth, by a name that is unique within it and survives saving and copying.

    The name is the variable's own ("kernel"); where several share one, all but the first get a number ("kernel_1").
    """
    found: dict[str, Any] = {}
    for variable in layer.weights:
        base = name = flavor.variable_name(variable)
        number = 0
        while name in found:
            number += 1
            name = f"{base}_{number}"
        found[name] = variable
    return found


def readable_names(layer: Any) -> dict[str, str]:
    """For each name in `named_weights` one that a reader knows: with the layers inside where a name is not unique.

    >>> lstm = keras.layers.LSTM(2)
    >>> _ = lstm(keras.Input((3, 4)))
    >>> list(readable_names(lstm).values())
    ['kernel', 'recurrent_kernel', 'bias']
    """
    paths: dict[int, str] = {}

    def visit(part: Any, path: tuple[str, ...]) -> None:
        for child in flavor.sublayers(part):
            visit(child, path if child.name == part.name else (*path, child.name))
        for variable in part.weights:
            paths.setdefault(id(variable), "/".join((*path, flavor.variable_name(variable))))

    visit(layer, ())
    names = named_weights(layer)
    own = [flavor.variable_name(variable) for variable in names.values()]
    unique = len(set(own)) == len(own)
    return {name: name if unique else paths[id(variable)] for name, variable in names.items()}


@flavor.register
class Transformed(keras.layers.Layer):
    """Computes what `layer` computes, with some of its weights transformed.

    The layer keeps its variables and trains them: gradients reach them through the transforms. The wrapper has the
    layer's name, call signature, masks and losses.

    Args:
        layer: a built layer.
        transforms: for each weight (by its name in `named_weights`) the transforms, first applied first.

    Raises:
        ValueError: the layer is not built, or has no weight of a given name.

    >>> dense = keras.layers.Dense(2)
    >>> _ = dense.build((None, 3))
    >>> [w.shape.as_list() for w in Transformed(dense, {"kernel": []}).weights]
    [[3, 2], [2]]
    """

    stays_whole = True  # tracing does not open it

    def __init__(self, layer: Any, transforms: Mapping[str, Sequence[Transform]], **kwargs: Any) -> None:
        if not layer.built:
            raise ValueError(f"`layer` must be built before its weights can be transformed. Received: {layer.name!r}")
        call = functools.partial(_compute, self)
        # Keras passes masks and `training` by the names in here.
        call.__signature__ = inspect.signature(layer.call)  # type: ignore[attr-defined]
        object.__setattr__(self, "call", call)
        super().__init__(**{"name": layer.name, "dtype": flavor.dtype_policy(layer), **kwargs})
        # What the layer does not pass on ends here: a traced graph hands masks on by itself.
        self.supports_masking, self.built = True, True
        self.layer = layer
        weights = named_weights(layer)
        unknown = sorted(set(transforms) - set(weights))
        if unknown:
            raise ValueError(f"`transforms` must name weights of {layer.name!r}: {list(weights)}. Received: {unknown}")
        object.__setattr__(self, "_transforms", dict.fromkeys(transforms, ()))
        self.put(transforms)

    def put(self, transforms: Mapping[str, Sequence[Transform]]) -> None:
        """Have other transforms of some weights; those that a weight did not have are built.

        Args:
            transforms: for each weight all of its transforms from now on, first applied first; none: it is plain.
        """
        weights = named_weights(self.layer)
        before = self.transforms
        after = {**before, **{name: tuple(steps) for name, steps in transforms.items()}}
        # Held beside Keras' tracking, which would wrap the dictionary: the transforms are no layers.
        object.__setattr__(self, "_transforms", after)
        for name, steps in transforms.items():
            for step in steps:
                if not any(step is old for old in before.get(name, ())):
                    step.build(self, name, weights[name])

    @property
    def transforms(self) -> dict[str, tuple[Transform, ...]]:
        """The transforms by weight, first applied first."""
        return dict(self._transforms)

    def held(self, name: str) -> Transform | None:
        """The transform that turns what the variable of this name holds into the weight; None: it holds the weight."""
        first = next(iter(self._transforms.get(name, ())), None)
        return first if first is not None and first.held_shape is not None else None

    def packed_shapes(self) -> dict[int, tuple[int, ...]]:
        """The shapes of the weights whose variables hold codes, by the `id` of the variable."""
        held = {id(variable): self.held(name) for name, variable in named_weights(self.layer).items()}
        return {key: step.held_shape for key, step in held.items() if step is not None and step.held_shape is not None}

    def trained(self, name: str) -> tf.Tensor:
        """The weight of this name before its transforms."""
        held, value = self.held(name), flavor.read(named_weights(self.layer)[name])
        return value if held is None else held(value)

    def value(self, name: str) -> tf.Tensor:
        """The transformed weight of this name."""
        value = flavor.read(named_weights(self.layer)[name])
        for step in self._transforms.get(name, ()):
            value = step(value)
        return value

    def on_grid(self, name: str) -> tuple[tf.Tensor, tf.Tensor, int] | None:
        """Codes, scale and bits of the weight of this name when its last transform puts it on a grid, else None."""
        *before, last = self._transforms.get(name) or (None,)
        value = flavor.read(named_weights(self.layer)[name])
        for step in before:
            value = step(value)
        return None if last is None else last.integers(value)

    def integers(self) -> list[IntegerWeight]:
        """The integers of every weight whose last transform puts it on a grid."""
        found = []
        for name in self._transforms:
            on_grid = self.on_grid(name)
            if on_grid is not None:
                codes, scale, bits = on_grid
                found.append(IntegerWeight(self.name, name, codes.numpy().astype("int32"), scale.numpy(), bits))
        return found

    def baked(self) -> Any:
        """A copy of the layer whose weights are the transformed ones."""
        layer = self.unpacked()
        weights = named_weights(layer)
        for name in self._transforms:
            weights[name].assign(self.value(name))
        return layer

    def unpacked(self) -> Any:
        """A copy of the layer whose variables hold its weights, those before their transforms."""
        packed = [name for name in self._transforms if self.held(name) is not None]
        if not packed:
            return copy_layer(self.layer)
        layer = rebuilt(flavor.saving.serialize_keras_object(self.layer))
        weights = named_weights(layer)
        for name, variable in named_weights(self.layer).items():
            weights[name].assign(self.trained(name))
            if name not in packed:
                carry(variable, weights[name])
        return layer

    def describe(self) -> str:
        """What was done to which weights: "up/kernel, down/kernel int8 per channel"."""
        names = readable_names(self.layer)
        done: dict[str, list[str]] = {}
        for name, steps in self._transforms.items():
            done.setdefault(" then ".join(step.describe() for step in steps), []).append(names[name])
        return "; ".join(f"{', '.join(weights)} {words}" for words, weights in done.items())

    def compute_mask(self, *args: Any, **kwargs: Any) -> Any:
        if not self.layer.supports_masking:
            return None
        parts = (self.layer, *flavor.sublayers(self.layer, recursive=True))
        if not any(isinstance(part, keras.Model) for part in parts):
            return self.layer.compute_mask(*args, **kwargs)
        # The masks of a model come from running it (tf_keras), so it must read the weights that it computes with.
        return _with_weights(self, lambda: self.layer.compute_mask(*args, **kwargs))

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        outputs = self.layer.compute_output_spec(*args, **kwargs)
        flavor.settle_shapes(self.layer, args, kwargs, outputs)
        return outputs

    def __getattr__(self, name: str) -> Any:
        """What a composite reads of its children; a weight is read transformed."""
        if name.startswith("_") or "_transforms" not in vars(self):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        value = getattr(self.layer, name)
        for weight, variable in named_weights(self.layer).items():
            if value is variable and weight in self._transforms:
                return self.value(weight)
        return value

    def get_config(self) -> dict[str, Any]:
        save = flavor.saving.serialize_keras_object
        transforms = {name: [save(step) for step in steps] for name, steps in self._transforms.items()}
        return {**super().get_config(), "layer": save(self.layer), "transforms": transforms}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Transformed":
        load = flavor.saving.deserialize_keras_object
        config = dict(config)
        config["layer"] = rebuilt(config["layer"])
        settle_frozen(config["layer"])
        config["transforms"] = {name: [load(step) for step in steps] for name, steps in config["transforms"].items()}
        return cls(**config)


def weight_shapes(layer: Any) -> list[tuple[Any, tuple[int, ...]]]:
    """The variables of a layer, transformed or not, each with the shape of the weight that it holds or stands for."""
    if not isinstance(layer, Transformed):
        return [(variable, tuple(variable.shape)) for variable in named_weights(layer).values()]
    pairs = []
    for name, variable in named_weights(layer.layer).items():
        held = layer.held(name)
        pairs.append((variable, tuple(variable.shape) if held is None or held.held_shape is None else held.held_shape))
    return pairs


@tf.autograph.experimental.do_not_convert
def _compute(wrapper: Transformed, *args: Any, **kwargs: Any) -> Any:
    with flavor.masks_may_end(), flavor.branches_recorded():
        return _with_weights(wrapper, lambda: wrapper.layer(*args, **kwargs))


def _with_weights(wrapper: Transformed, call: Callable[[], Any]) -> Any:
    """What `call` returns while the wrapped layer reads its transformed weights."""
    variables = named_weights(wrapper.layer)
    replacements = [(variables[name], wrapper.value(name)) for name in wrapper.transforms]
    return flavor.replaced(wrapper.layer, replacements, call)


def transformed_layers(layer: Any) -> list[Transformed]:
    """The wrappers in a layer or model, at any depth."""
    found = [layer] if isinstance(layer, Transformed) else []
    return found + [inner for inner in flavor.sublayers(layer, recursive=True) if isinstance(inner, Transformed)]


def integer_weights(model: Any) -> list[IntegerWeight]:
    """The integers of every weight of the model that lies on a grid, in the order of its layers."""
    return [weight for layer in transformed_layers(model) for weight in layer.integers()]


def bake(model: Any, *, inference: bool = False) -> Any:
    """A copy of a Functional model in which transformed weights are plain weights of the layers that own them.

    Args:
        model: a Functional model, not changed.
        inference: also let every layer that has a `for_inference()` take the form it has once training is over
            (a range that was learned becomes a constant), and compute in float32 what was trained in less.

    Returns:
        A new model that computes the same and shares nothing with the old one.
    """
    flavor.check_model(model)
    memo: dict[int, Any] = {}

    def fresh(operation: Any) -> Any:
        if isinstance(operation, Transformed):
            return operation.baked()
        if inference and hasattr(operation, "for_inference"):
            return operation.for_inference()
        return copy_layer(operation, memo) if isinstance(operation, keras.layers.Layer) else operation

    def made(operation: Any) -> Any:
        layer = fresh(operation)
        if inference and isinstance(operation, keras.layers.Layer):
            flavor.compute_in_float32(layer)
        return layer

    return noted(replay_with(model, made), getattr(model, "notes", {}))


def finalize(model: Any) -> Any:
    """The same model with its transforms applied for good: plain layers that hold the transformed weights.

    After it, a quantized kernel holds at most 2**bits - 1 distinct values a channel, and the model can be saved,
    exported or trained on as any other. Quantizers of activations stay where they are. The integers of a kernel set
    (`quantize_model(kernels=)`) are computed from the transforms, so a finalized model only rounds to its grids: to
    compare a file with it to the last bit, export and keep the model itself.

    Args:
        model: a model that `tfcompress` has made; it is not changed.

    Returns:
        A new, uncompiled model. It computes what `model` computes.

    Raises:
        TypeError: `model` is not a model of this Keras flavor.
    """
    return bake(model)
