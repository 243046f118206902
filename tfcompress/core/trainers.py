"""Models that train others: what of their layers is a product, and what exists for training only."""

from abc import abstractmethod
from typing import Any

from tfcompress.core import flavor


class Trainer:
    """What a model derives from that trains others; all that it holds beside them exists for training only."""

    @property
    @abstractmethod
    def products(self) -> list[Any]:
        """The models that are kept."""


def product_layers(model: Any, recursive: bool = False) -> list[Any]:
    """The layers that a model holds, without those for training only: of a `Trainer` its products and theirs.

    Args:
        model: a layer or model; any other than a trainer gives what `flavor.sublayers` does.
        recursive: at any depth.

    Returns:
        Each layer once.

    >>> from tfcompress.core.flavor import keras
    >>> class Taught(Trainer, keras.Model):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.student, self.head = (keras.Sequential([keras.layers.Dense(2, name=n)]) for n in ("kept", "spare"))
    ...
    ...     @property
    ...     def products(self):
    ...         return [self.student]
    >>> taught = Taught()
    >>> product_layers(taught) == [taught.student], [layer.name for layer in product_layers(taught, recursive=True)][1:]
    (True, ['kept'])
    """
    if not isinstance(model, Trainer):
        return flavor.sublayers(model, recursive)
    inside = [(product, *(product_layers(product, True) if recursive else ())) for product in model.products]
    return list({id(layer): layer for layers in inside for layer in layers}.values())
