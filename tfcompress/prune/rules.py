"""Which rule labels the weights of which layer."""

from collections.abc import Callable, Sequence
from typing import Any

from tfcompress.core.flavor import keras
from tfcompress.core.opaque import Weight
from tfcompress.prune.kernels import convolution, dense, depthwise, einsum, embedding, separable, transposed, weight
from tfcompress.prune.labels import Axes
from tfcompress.prune.normalizations import batch_normalization, group_normalization, layer_normalization, prelu
from tfcompress.prune.parametric import Parametric
from tfcompress.prune.recurrent import GATES, bidirectional, recurrent

#: Labels a call's weights and outputs; False when it does not know the layer after all.
Rule = Callable[[Parametric, Any], bool]
_LAYERS = keras.layers


def rule_of(layer: Any) -> Rule | None:
    """The rule for a layer of a known class; a subclass counts when it computes as its base does."""
    for kinds, rule in _RULES:
        base: Any = next((kind for kind in kinds if isinstance(layer, kind)), None)
        if base is not None:
            return rule if type(layer).call is base.call else None
    return None


def _time_distributed(p: Parametric, layer: Any) -> bool:
    """The inner layer's rule, on one time step."""
    inner, step = layer.layer, tuple(v for axis, v in enumerate(p.given[0]) if axis != 1)
    rule = rule_of(inner)
    if len(p.given) > 1 or rule not in (dense, convolution, depthwise, batch_normalization):
        return False
    outer: Sequence[Axes] = p.given
    p.given, p.layer, outputs = [step], inner, p.outputs
    p.outputs = [[v for axis, v in enumerate(outputs[0]) if axis != 1]]
    try:
        if not rule(p, inner):  # type: ignore[misc]
            return False
    finally:
        p.given, p.layer, made, p.outputs = outer, layer, p.outputs, outputs
    rest = iter(made[0])
    p.outputs[0][:] = [outputs[0][1] if axis == 1 else next(rest) for axis in range(len(outputs[0]))]
    p.reads = [(n, axis + (axis > 0)) for n, axis in p.reads]
    build = p.weights.rebuild
    p.weights.rebuild = lambda keep: type(layer)(build(keep), name=layer.name)  # type: ignore[misc]
    return True


_NORMALIZATIONS = tuple(kind for name in ("LayerNormalization", "RMSNormalization")
                        if (kind := getattr(_LAYERS, name, None)) is not None)  # fmt: skip
_RULES: tuple[tuple[tuple[type, ...], Rule], ...] = (
    ((Weight,), weight),
    ((_LAYERS.SeparableConv1D, _LAYERS.SeparableConv2D), separable),
    ((_LAYERS.DepthwiseConv1D, _LAYERS.DepthwiseConv2D), depthwise),
    ((_LAYERS.Conv1DTranspose, _LAYERS.Conv2DTranspose, _LAYERS.Conv3DTranspose), transposed),
    ((_LAYERS.Conv1D, _LAYERS.Conv2D, _LAYERS.Conv3D), convolution),
    ((_LAYERS.EinsumDense,), einsum),
    ((_LAYERS.Dense,), dense),
    ((_LAYERS.BatchNormalization,), batch_normalization),
    (_NORMALIZATIONS, layer_normalization),
    ((_LAYERS.GroupNormalization,), group_normalization),
    ((_LAYERS.PReLU,), prelu),
    ((_LAYERS.Embedding,), embedding),
    (tuple(GATES), recurrent),
    ((_LAYERS.Bidirectional,), bidirectional),
    ((_LAYERS.TimeDistributed,), _time_distributed),
)
