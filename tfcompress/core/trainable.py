"""Whether layers learn, at every depth: Keras' own setter stops where it finds what it would set."""

from typing import Any

from tfcompress.core import flavor


def set_trainable(layer: Any, value: bool) -> None:
    """Let a layer and all that it holds learn, or none of it.

    `layer.trainable = True` does nothing in Keras 3 where the layer says so already, whatever the layers inside say:
    those of a wrapper or composite made from its config need not agree with it.

    >>> model = flavor.keras.Sequential([flavor.keras.Input((2,)), flavor.keras.layers.Dense(2)])
    >>> model.layers[0].trainable = False
    >>> set_trainable(model, True)
    >>> model.layers[0].trainable
    True
    """
    for part in (layer, *flavor.sublayers(layer, recursive=True)):  # outer layers come first: they set those inside
        part.trainable = value


def settle_frozen(layer: Any) -> None:
    """Freeze what is inside frozen layers, as it was before they were saved.

    A layer made from its config makes those inside itself (the cell of a ConvLSTM, the parts of a user's composite),
    and they do not hear of its `trainable`: in Keras 3 the model around would train them.
    """
    for part in (layer, *flavor.sublayers(layer, recursive=True)):
        if not part.trainable:
            set_trainable(part, False)
