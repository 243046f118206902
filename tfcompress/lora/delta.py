"""The transform that adapters are: a frozen weight with its adapters by name, of which one is in force."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.transformed import Transform, Transformed
from tfcompress.lora.adapter import Adapter
from tfcompress.lora.zeros import Zeros, zeros_of


@flavor.register
class Delta(Transform):
    """The weight as the adapter in force makes it; the weight itself where none of that name is here.

    Zeros that pruning holds on the weight are held on the result as well.

    Args:
        adapters: by name the configuration of an `Adapter`, or the adapter.
        active: the name of the one in force, or None. Only that one is trained.
        zeros: the configuration of the zeros that are held; None: those that pruning holds on the variable.
    """

    def __init__(self, adapters: Mapping[str, Any], active: str | None, zeros: Mapping[str, Any] | None = None) -> None:
        self.adapters = {name: one if isinstance(one, Adapter) else Adapter(**one) for name, one in adapters.items()}
        self.active = active
        self.zeros = None if zeros is None else Zeros(**zeros)

    def build(self, wrapper: Transformed, name: str, variable: Any) -> None:
        self.zeros = zeros_of(wrapper, name, variable, self.zeros)
        for title, adapter in self.adapters.items():
            self._hold(wrapper, name, title, adapter)
        self.activate(self.active)

    def add(self, wrapper: Transformed, weight: str, name: str, adapter: Adapter) -> None:
        """One more adapter of the weight; it begins where the frozen weight is."""
        self.adapters[name] = adapter
        self._hold(wrapper, weight, name, adapter)
        adapter.begin(wrapper.trained(weight))

    def _hold(self, wrapper: Transformed, weight: str, name: str, adapter: Adapter) -> None:
        """The wrapper saves, loads and trains the adapter."""
        adapter.build()
        setattr(wrapper, f"adapter_{weight}_{name}", adapter)

    def activate(self, name: str | None) -> None:
        """Let the adapter of this name be in force, and it alone be trained."""
        self.active = name
        for title, adapter in self.adapters.items():
            adapter.trainable = title == name

    @property
    def adapter(self) -> Adapter | None:
        """The adapter in force."""
        return None if self.active is None else self.adapters.get(self.active)

    def __call__(self, value: tf.Tensor) -> tf.Tensor:
        if self.adapter is None:
            return value
        value = self.adapter.applied(value)
        return value if self.zeros is None else self.zeros.applied(value)

    def describe(self) -> str:
        others = [name for name in self.adapters if name != self.active]
        words = [f"adapter {self.active!r} ({self.adapter.describe()})"] if self.adapter is not None else []
        words += [f"not in force: {', '.join(map(repr, others))}"] if others else []
        return ", ".join(words)

    def get_config(self) -> dict[str, Any]:
        keys = ("shape", "rank", "alpha", "folding")
        configs = {name: adapter.get_config() for name, adapter in self.adapters.items()}
        return {"adapters": {name: {k: c[k] for k in keys} for name, c in configs.items()}, "active": self.active,
                "zeros": None if self.zeros is None else self.zeros.own_config()}  # fmt: skip


def delta_of(wrapper: Transformed, weight: str) -> Delta | None:
    """The adapters of one weight, or None."""
    return next((step for step in wrapper.transforms.get(weight, ()) if isinstance(step, Delta)), None)
