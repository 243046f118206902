"""Which variables of a model are pruned: the kernels of the selected layers."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfcompress.core import flavor
from tfcompress.core.einsum import Equation
from tfcompress.core.flavor import keras
from tfcompress.core.projected import Mask, attach, mask_of, project
from tfcompress.core.select import matcher
from tfcompress.core.trainers import Trainer, product_layers
from tfcompress.core.transformed import Transformed

_LAYERS = keras.layers
TRANSPOSED = (_LAYERS.Conv1DTranspose, _LAYERS.Conv2DTranspose, _LAYERS.Conv3DTranspose)
DEPTHWISE = (_LAYERS.DepthwiseConv1D, _LAYERS.DepthwiseConv2D)
_NO_KERNELS = (_LAYERS.BatchNormalization, _LAYERS.LayerNormalization, _LAYERS.GroupNormalization, _LAYERS.PReLU)


@dataclass(frozen=True)
class Target:
    """A kernel that is pruned.

    Attributes:
        name: "layer/kernel", for reports; layers may share names.
        layer: the layer that owns it.
        variable: the kernel, of two axes or more.
        mask: what holds its zeros.
        axis: its axis of output channels.
    """

    name: str
    layer: Any
    variable: Any
    mask: Mask
    axis: int

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(size) for size in self.variable.shape)

    @property
    def inputs(self) -> int:
        """The axis of input channels: of an EinsumDense the last one that it sums over."""
        rank = len(self.shape)
        if isinstance(self.layer, _LAYERS.EinsumDense):
            equation = Equation.of(self.layer.equation)
            if equation.read and len(equation.kernel) == rank:
                return equation.kernel.index(equation.read[-1])
        return rank - 2 if self.axis == rank - 1 else rank - 1

    def value(self) -> np.ndarray:
        """The kernel's numbers, float32 or what the variable holds."""
        return np.asarray(flavor.read(self.variable))

    def assign(self, value: np.ndarray) -> None:
        """Set the kernel, on its mask."""
        self.variable.assign(np.where(self.mask.kept, value, np.zeros((), value.dtype)))


def output_axis(layer: Any, variable: Any) -> int:
    """The axis of a kernel along which its output channels lie.

    >>> layer = keras.layers.Conv2DTranspose(2, 3)
    >>> layer.build((None, 8, 8, 5))
    >>> tuple(layer.kernel.shape)[output_axis(layer, layer.kernel)]
    2
    """
    rank = len(variable.shape)
    if isinstance(layer, TRANSPOSED) or isinstance(layer, DEPTHWISE):
        return rank - 2
    return rank - 1


def kernels(model: Any, select: Any = None) -> list[tuple[Any, Any]]:
    """(layer that owns it, kernel) of what a selection names, in the order of the model's layers, each once.

    A kernel is a trainable variable of two axes or more that is no bias and not of a normalization. With no selection,
    the small kernels of depthwise convolutions are left out; a selected layer gives all its kernels, and those of the
    layers in it. A model that trains others gives the kernels of these.

    Raises:
        ValueError: a selection matches no layer, or there is no kernel.
        TypeError: it is no model, or one of the other flavor of Keras.
    """
    flavor.check_flavor(model)
    matches = matcher(select, model)
    trainable = {id(inner(variable)) for variable in model.trainable_variables}
    found: dict[int, tuple[Any, Any]] = {}
    for layer, chosen in _layers(model, matches):
        if not chosen or isinstance(layer, Transformed) or isinstance(layer, _NO_KERNELS) or _is_quantizer(layer):
            continue
        for variable in flavor.own_variables(layer).values():
            name = flavor.variable_name(variable)
            small = select is None and "depthwise" in name
            if len(variable.shape) < 2 or name.endswith("bias") or small or id(inner(variable)) not in trainable:
                continue
            if select is None and isinstance(layer, DEPTHWISE):  # tf_keras and Keras 3 name its kernel differently
                continue
            found.setdefault(id(inner(variable)), (layer, variable))
    if not found:
        raise ValueError(f"`model` must hold trainable kernels that `select` names. Received: {model.name!r}")
    return list(found.values())


def targets(model: Any, select: Any = None) -> list[Target]:
    """The kernels of a selection, each with the mask on it; one is attached where there is none.

    A new mask holds the zeros that it finds, but in a kernel of nothing else: that was never trained.
    """
    strategy = getattr(model, "distribute_strategy", None)
    found = []
    for layer, variable in kernels(model, select):
        mask = mask_of(variable)
        if mask is None:
            kept = np.asarray(flavor.read(variable)) != 0
            mask = made(kept if kept.any() else np.ones_like(kept), strategy)
            attach(variable, mask)
        name = f"{layer.name}/{flavor.variable_name(variable)}"
        found.append(Target(name, layer, variable, mask, output_axis(layer, variable)))
    return found


def made(kept: np.ndarray, strategy: Any) -> Mask:
    """A mask on every device that a model trains on."""
    if strategy is None:
        return Mask(kept)
    with strategy.scope():
        return Mask(kept)


def project_last(model: Any, variables: Iterable[Any]) -> None:
    """Put variables onto their projections when `fit` ends, after callbacks that set weights then, wherever they stand.

    Keras calls callbacks in the order of their list, and behind them its own `History`.
    """
    history, held = getattr(model, "history", None), list(variables)
    if not isinstance(history, keras.callbacks.Callback):
        return
    before = history.on_train_end

    def on_train_end(logs: Any = None) -> None:
        vars(history).pop("on_train_end", None)
        before(logs)
        for variable in held:
            project(variable)

    vars(history)["on_train_end"] = on_train_end


def _layers(model: Any, matches: Any) -> Iterator[tuple[Any, bool]]:
    """Each layer in the model that is not for training only, and whether it or something around it is selected."""
    seen: set[tuple[int, bool]] = set()

    def visit(part: Any, inherited: bool) -> Iterator[tuple[Any, bool]]:
        for layer in product_layers(part):
            chosen = inherited or matches(layer)
            if (id(layer), chosen) not in seen:
                seen.add((id(layer), chosen))
                yield layer, chosen
                yield from visit(layer, chosen)

    if not isinstance(model, Trainer):
        yield model, matches(model) if flavor.own_variables(model) else False
    yield from visit(model, False)


def inner(variable: Any) -> Any:
    """tf_keras' autocast variable stands for the real one."""
    return getattr(variable, "_variable", variable)


def _is_quantizer(layer: Any) -> bool:
    return hasattr(layer, "describe_output")
