"""Layers made anew from their config: whether that works, and a short reason where it does not."""

from typing import Any

from tfcompress.core import flavor
from tfcompress.core.errors import CompressionError

_OWN = ("keras", "tf_keras", "tfcompress")


def rebuilds(layer: Any) -> bool:
    """Whether a layer's class can be made from the layer's config; a stranger's constructor may not take it.

    >>> rebuilds(flavor.keras.layers.Dense(2))
    True
    """
    kind = type(layer)
    if kind.__module__.split(".")[0] in _OWN:
        return True
    try:
        kind.from_config(layer.get_config())
    except Exception:  # whatever a stranger's constructor does
        return False
    return True


def rebuilt(config: dict[str, Any], custom_objects: Any = None) -> Any:
    """The layer that a saved model holds inside another one.

    Args:
        config: what `serialize_keras_object` made of the layer.
        custom_objects: classes by name that Keras does not know.

    Raises:
        CompressionError: the class is not known or does not take its config; one line says what to do. Keras would
            repeat the config of the whole model, once for each layer around.
    """
    try:
        layer = flavor.saving.deserialize_keras_object(config, custom_objects=custom_objects)
        flavor.settle_build_shapes(layer, config)
        return layer
    except CompressionError:
        raise
    except Exception as error:
        name, inner = config["class_name"], config.get("config", {})
        called = inner.get("name", name) if isinstance(inner, dict) else name
        said = str(error)
        if "Could not locate" in said or "Unknown layer" in said or "Unable to find" in said:
            raise CompressionError(
                f"Keras does not know the class {name!r} of layer {called!r}: decorate it with "
                f"@keras.saving.register_keras_serializable() before the model is saved, and import it before the "
                f"model is loaded; or pass custom_objects={{{name!r}: {name}}} to load_model"
            ) from error
        last = said.strip().splitlines()[-1].strip() if said.strip() else ""
        raise CompressionError(
            f"The class {name!r} of layer {called!r} cannot be made from its own config: its get_config must return "
            f"what its constructor takes ({type(error).__name__}: {last.removeprefix('Exception encountered: ')})"
        ) from error
