"""Which layers of a flat graph may become several, and why the others may not."""

from collections.abc import Mapping, Sequence
from typing import Any

from tfcompress.core import flavor
from tfcompress.core.flavor import keras
from tfcompress.core.holders import holders_of
from tfcompress.core.opaque import Opaque
from tfcompress.core.projected import projections
from tfcompress.core.replay import Call, calls
from tfcompress.core.select import matcher
from tfcompress.core.transformed import Transformed
from tfcompress.factorize.convolutions import ConvTarget
from tfcompress.factorize.dense import DenseTarget, EinsumTarget, EmbeddingTarget
from tfcompress.factorize.ranks import Rule
from tfcompress.factorize.separable import SeparableTarget
from tfcompress.factorize.target import Target

_LAYERS = keras.layers
#: The layers that have a low-rank form.
TARGETS: dict[type, type[Target]] = {
    _LAYERS.Dense: DenseTarget, _LAYERS.EinsumDense: EinsumTarget, _LAYERS.Embedding: EmbeddingTarget,
    _LAYERS.Conv1D: ConvTarget, _LAYERS.Conv2D: ConvTarget, _LAYERS.SeparableConv1D: SeparableTarget,
    _LAYERS.SeparableConv2D: SeparableTarget,
}  # fmt: skip


def candidates(flat: Any, select: Any, rules: Mapping[str, Rule] | None = None) -> tuple[list[Target], dict[str, str]]:
    """The layers that may change, in the order of the graph, and for others with kernels the reason why not.

    Args:
        flat: a flat graph.
        select: which layers, as of `matcher`.
        rules: ranks by name patterns; a layer that none names stays. The first that fits is the target's `rule`.

    Raises:
        ValueError: a selection or a name matches nothing.
    """
    chosen = matcher(select, flat)
    named = [(matcher(name, flat, "rank"), rule) for name, rule in (rules or {}).items()]
    found: list[Target] = []
    notes: dict[str, str] = {}
    uses: dict[int, list[Call]] = {}
    for call in calls(flat):
        uses.setdefault(id(call.operation), []).append(call)
    held = holders_of(group[0].operation for group in uses.values())
    for group in uses.values():
        layer = group[0].operation
        if not isinstance(layer, keras.layers.Layer) or not has_kernel(layer):
            continue
        target: Target | None = None
        reason = "not selected"
        if chosen(layer):
            target, reason = target_of(layer, group)
        rule = next((rule for fits, rule in named if fits(layer)), None)
        if target is not None:
            others = [repr(other.name) for other in held[id(target.variable)] if other is not layer]
            if others:
                reason = f"its {target.weight} is also that of {', '.join(others)}"
                target = None
        if target is not None and rules is not None:
            target, reason = (target, "") if rule else (None, "`rank` does not name it")
        if target is None:
            notes[layer.name] = f"full rank kept: {reason}"
            continue
        target.rule = rule
        found.append(target)
    return found, notes


def target_of(layer: Any, group: Sequence[Call] = ()) -> tuple[Target | None, str]:
    """A layer as one that may change, or None and the reason."""
    if isinstance(layer, Transformed):
        return None, "its weights are transformed: `tfcompress.finalize` or `merge_lora` first"
    if isinstance(layer, Opaque):
        return None, f"not opened ({layer.reason})"
    kind = TARGETS.get(type(layer))
    if kind is None:
        return None, f"{type(layer).__name__} has no low-rank form here"
    if getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None):
        return None, "Keras' own adapters or integers are in it"
    target = kind(layer, group)
    held = projections(target.variable)
    if held:
        return None, f"its {target.weight} is held ({held[0].describe()}): factorize before pruning"
    problem = target.problem()
    return (None, problem) if problem else (target, "")


def has_kernel(layer: Any) -> bool:
    """Whether a layer has a weight that is more than a vector."""
    names = [(flavor.variable_name(v), len(v.shape)) for v in layer.weights]
    return any(rank > 1 and name != "bias" for name, rank in names)
