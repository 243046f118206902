"""A model under the hands of a plan: frozen, its matrices packed, adapters put where the plan wants them."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from tfcompress.core import flavor
from tfcompress.core.compressed import noted
from tfcompress.core.finite import check_finite
from tfcompress.core.flavor import keras
from tfcompress.core.holders import holders_of
from tfcompress.core.replay import replay_with
from tfcompress.core.trace import trace
from tfcompress.core.trainable import set_trainable
from tfcompress.core.transformed import Transform, Transformed, named_weights, transformed_layers, weight_shapes
from tfcompress.lora.adapter import Adapter
from tfcompress.lora.base import TABLES, Packed, why_not
from tfcompress.lora.delta import Delta, delta_of
from tfcompress.lora.folding import foldings
from tfcompress.lora.frozen import frozen_parts, words_of
from tfcompress.lora.names import adapters, check_name
from tfcompress.lora.notes import ALONE, FROZEN, TRAINED, UNPACKED, rewritten, said_of, says

#: Given a flat graph's layer without its wrapper: an adapter for each weight that gets one (None: the layer is trained
#: as it is), and why none where there is none.
Plan = Callable[[Any], tuple[dict[str, Adapter] | None, str | None]]


class Adapted:
    """A model under the hands of a plan: everything frozen, adapters put where the plan wants them.

    Args:
        model: the user's model; a traced copy of it is worked on.
        base: the kind of the frozen weights, or None.
        name: of the adapter.

    Attributes:
        flat: the traced copy.
        reasons: what is to be noted of layers, grows by `made`.
        known: the names of the adapters that the model has.
        trained: the names of the layers that were trained themselves.
    """

    def __init__(self, model: Any, base: str | None, name: str) -> None:
        self.model, self.base, self.name = model, base, name
        self.flat = trace(model)
        self.known = adapters(model)
        self.notes = dict(getattr(model, "notes", {}))
        self.trained = {layer for layer in self.notes if says(self.notes, layer, TRAINED)}
        self.reasons: dict[str, list[str]] = {}
        layers = [layer for layer in self.flat.layers if not flavor.is_operation(layer)]
        self._frozen = {id(layer): self._was_frozen(layer) for layer in layers}
        for layer in layers:  # all before any name of a weight is asked for: tf_keras orders weights by what is frozen
            set_trainable(inner_of(layer), False)
        self._ties = _ties(layers)

    def made(self, plan: Plan) -> Any:
        """The adapted model."""
        result = noted(replay_with(self.flat, lambda operation: self._layer(operation, plan)), {})
        object.__setattr__(result, "notes", rewritten(self.notes, self.reasons))
        return result

    def _layer(self, operation: Any, plan: Plan) -> Any:
        if not isinstance(operation, keras.layers.Layer) or flavor.is_operation(operation):
            return operation
        inner = inner_of(operation)
        if not named_weights(inner):
            return operation
        found, reason = plan(operation)
        found, tied = self._untied(operation, found)
        said = self.reasons.setdefault(operation.name, [])
        said += self._frozen[id(operation)]
        said += [TRAINED] if operation.name in self.trained or found is None else []
        if found is None:
            inner.trainable = True
            return operation
        reason = ", ".join(filter(None, [reason, tied])) or None
        packed = self._packed(operation, found)
        said += [f"{ALONE}{reason}"] if reason else []
        return self._wrapped(operation, found, packed) if found or packed else operation

    def _was_frozen(self, layer: Any) -> list[str]:
        """The note on what its user had frozen of a layer: adapters have frozen all the rest."""
        if not self.known:
            return words_of(frozen_parts(inner_of(layer)))
        said = said_of(self.notes, layer.name, FROZEN)
        return [] if said is None else [said]

    def _untied(self, operation: Any, found: dict[str, Adapter] | None) -> tuple[dict[str, Adapter] | None, str | None]:
        """The adapters without those of weights that another layer holds too, and what is to be said of these.

        One of the two would compute with the update and the other without it.
        """
        ties = self._ties[id(operation)]
        if ties and (found is None or any(adapter.rank is None for adapter in found.values())):
            raise ValueError(
                f"`train` must not select {operation.name!r}: a copy of its weights would not be tied any more. "
                f"Received: {_said(ties)}"
            )
        left_out = {} if found is None else {name: other for name, other in ties.items() if name in found}
        if found is None or not left_out:
            return found, None
        return {name: adapter for name, adapter in found.items() if name not in left_out}, _said(left_out)

    def _packed(self, operation: Any, found: Mapping[str, Adapter]) -> Collection[str]:
        """The weights of a layer that are to be held in few bits: none of a layer that is trained whole."""
        names = list(foldings(operation)) if self.base is not None and not self.known else []
        if not names or any(adapter.rank is None for adapter in found.values()):
            return ()
        ties = self._ties[id(operation)]
        reason = _said(ties) if ties else why_not(operation)
        if reason is not None:
            self.reasons[operation.name].append(f"{UNPACKED}{reason}")
            return ()
        return names

    def _wrapped(self, operation: Any, found: Mapping[str, Adapter], packed: Collection[str]) -> Transformed:
        wrapper = operation if isinstance(operation, Transformed) else Transformed(operation, {})
        steps: dict[str, list[Transform]] = {}
        for weight in named_weights(wrapper.layer):
            before = wrapper.transforms.get(weight, ())
            now = [Packed(str(self.base))] if weight in packed else []
            more = [Delta({}, None)] if weight in found and delta_of(wrapper, weight) is None else []
            if now or more:
                steps[weight] = [*now, *before, *more]
        wrapper.put(steps)
        for weight, adapter in found.items():
            delta = delta_of(wrapper, weight)
            if delta is not None:
                delta.add(wrapper, weight, self.name, adapter)
        return wrapper


def inner_of(layer: Any) -> Any:
    """A layer without its wrapper."""
    return layer.layer if isinstance(layer, Transformed) else layer


def _ties(layers: Sequence[Any]) -> dict[int, dict[str, str]]:
    """For each layer by its id the weights that others hold as well: their names, and the other layer's."""
    held = holders_of(layers)
    ties: dict[int, dict[str, str]] = {}
    for layer in layers:
        weights = named_weights(inner_of(layer))
        others = {name: [other for other in held[id(v)] if other is not layer] for name, v in weights.items()}
        ties[id(layer)] = {name: found[0].name for name, found in others.items() if found}
    return ties


def _said(ties: Mapping[str, str]) -> str:
    return ", ".join(f"{name} is tied to {other!r}" for name, other in ties.items())


def shapes_of(operation: Any) -> dict[str, tuple[int, ...]]:
    """The shapes of a layer's weights, by name."""
    return dict(zip(named_weights(inner_of(operation)), (shape for _, shape in weight_shapes(operation)), strict=True))


def shared_state(refused: str, known: Sequence[str], received: str) -> ValueError:
    """The error for a layer that would learn itself although adapters that the model has compute with it as it is.

    Args:
        refused: the argument, and what it must not do to which layer.
        known: the names of those adapters.
        received: what was given.
    """
    return ValueError(
        f"{refused} in a model that has adapters ({', '.join(known)}): it keeps statistics, so that it has one state "
        f"for all of them. Received: {received}"
    )


def check_adaptable(model: Any, base: Any, name: Any) -> None:
    """Refuse what cannot have an adapter of this name on a base of this kind.

    Raises:
        TypeError: not a model of this Keras flavor.
        ValueError: the model is not built, not finite, quantized, or has adapters on another base; the base is not
            known; the name cannot stand in a file.
    """
    flavor.check_model(model)
    check_finite(model)
    check_name(name)
    if base is not None and base not in TABLES:
        raise ValueError(f"`base` must be None, {', '.join(map(repr, TABLES))}. Received: base={base!r}")
    wrappers = transformed_layers(model)
    steps = [step for wrapper in wrappers for steps in wrapper.transforms.values() for step in steps]
    parts = flavor.sublayers(model, recursive=True)
    if any(hasattr(part, "describe_output") for part in parts) or not all(isinstance(s, Delta | Packed) for s in steps):
        raise ValueError(
            f"`model` must not be quantized yet: add adapters, train, `tfcompress.merge_lora`, then quantize. "
            f"Received: {model.name!r}"
        )
    kinds = {step.kind for step in steps if isinstance(step, Packed)}
    if base is not None and steps and kinds != {base}:
        raise ValueError(
            f"`base` must be left out in a model that has adapters already: they were trained on the base that it "
            f"has ({', '.join(sorted(kinds)) or 'float32'}). Received: base={base!r}"
        )
