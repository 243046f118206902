"""From a model to one that learns through adapters on its frozen weights."""

from collections.abc import Callable, Collection, Mapping
from numbers import Integral, Real
from typing import Any

from tfcompress.core import flavor
from tfcompress.core.compressed import noted
from tfcompress.core.finite import check_finite
from tfcompress.core.flavor import keras
from tfcompress.core.replay import Call, replay
from tfcompress.core.select import matcher
from tfcompress.core.trace import trace
from tfcompress.core.transformed import Transform, Transformed, named_weights, transformed_layers, weight_shapes
from tfcompress.lora.adapter import Adapter
from tfcompress.lora.base import TABLES, Packed, why_not
from tfcompress.lora.delta import Delta, delta_of
from tfcompress.lora.folding import foldings, learned_weights
from tfcompress.lora.names import activate, adapters, check_name
from tfcompress.lora.notes import ALONE, FROZEN, TRAINED, UNPACKED, rewritten, says

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
        count: weights that have got an adapter.
    """

    def __init__(self, model: Any, base: str | None, name: str) -> None:
        self.model, self.base, self.name = model, base, name
        self.flat = trace(model)
        self.known = adapters(model)
        self.notes = dict(getattr(model, "notes", {}))
        self.reasons: dict[str, list[str]] = {}
        self.count = 0
        self._made: dict[int, Any] = {}

    def made(self, plan: Plan) -> Any:
        """The adapted model."""

        def call(old: Call, args: tuple, kwargs: dict[str, Any]) -> Any:
            operation = old.operation
            if id(operation) not in self._made:
                self._made[id(operation)] = self._layer(operation, plan)
            return self._made[id(operation)](*args, **kwargs)

        adapted = replay(self.flat, call)
        result = noted(adapted, {})
        object.__setattr__(result, "notes", rewritten(self.notes, self.reasons))
        return result

    def _layer(self, operation: Any, plan: Plan) -> Any:
        if not isinstance(operation, keras.layers.Layer) or flavor.is_operation(operation):
            return operation
        inner = operation.layer if isinstance(operation, Transformed) else operation
        frozen = says(self.notes, operation.name, FROZEN) or (not self.known and not inner.trainable)
        trained = says(self.notes, operation.name, TRAINED)
        inner.trainable = False
        if not named_weights(inner):
            return operation
        found, reason = plan(operation)
        said = self.reasons.setdefault(operation.name, [])
        said += [FROZEN] if frozen else []
        said += [TRAINED] if trained or found is None else []
        if found is None:
            inner.trainable = True
            return operation
        packed = self._packed(operation, found)
        said += [f"{ALONE}{reason}"] if reason else []
        self.count += len(found)
        return self._wrapped(operation, found, packed) if found or packed else operation

    def _packed(self, operation: Any, found: Mapping[str, Adapter]) -> Collection[str]:
        """The weights of a layer that are to be held in few bits: none of a layer that is trained whole."""
        names = list(foldings(operation)) if self.base is not None and not self.known else []
        if not names or any(adapter.rank is None for adapter in found.values()):
            return ()
        reason = why_not(operation)
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


def add_lora(
    model: Any,
    rank: int,
    alpha: float | None = None,
    *,
    select: Any = None,
    base: str | None = None,
    train: Any = (),
    name: str = "default",
) -> Any:
    """The model, frozen, with adapters of low rank that learn in its place.

        W  <-  W + alpha / rank * A B,   A [m, rank], B [rank, n]

    for each matrix W [m, n]: the kernels of Dense, EinsumDense, convolutions (also transposed, depthwise and separable)
    and recurrent layers, tables of Embedding, projections of attention, and learned matrices of a user's own layers, at
    any depth. The update is zero at first. Everything else is frozen; batch normalization computes as in inference.
    Each step makes the updated weights once, whatever the batch, at a cost of rank * m * n multiplications a matrix.

    A model that has adapters gets one more, which is in force from then on; `tfcompress.lora.activate` switches.

    Args:
        model: a built model of the current Keras flavor: Functional, Sequential or subclassed. It is not changed.
        rank: of the updates, >= 1. A matrix for which rank * (m + n) >= m * n is left alone.
        alpha: the update's scale is alpha / rank; None: alpha = rank.
        select: which layers: a layer class, a name pattern ("head/*"), a layer, a predicate, or a list of these.
            Default: all.
        base: how frozen matrices are held, those of layers that are not selected as well: None (as they are), "int8"
            (8.13 bits a number), "int4" or "nf4" (4.13 bits). Dequantized whenever the layer computes.
        train: layers that are trained whole (a new head), selected in the same way; the adapter keeps them as copies,
            but a layer with statistics (BatchNormalization) is itself trained.
        name: of the adapter: letters, digits, - and _.

    Returns:
        A new, uncompiled Functional model with the weights of `model`. `tfcompress.summary` lists each layer's adapter,
        or why it has none.

    Raises:
        TypeError: not a model, or one of the other Keras flavor.
        ValueError: an argument is outside its range; the model is not built, is quantized, or has an adapter of this
            name or another base; a selection matches nothing, or nothing that an adapter of this rank pays for.

    Source: Hu et al. 2021, arXiv:2106.09685; Dettmers et al. 2023, arXiv:2305.14314 (bases in few bits).

    >>> model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(32, name="body"), keras.layers.Dense(2)])
    >>> adapted = add_lora(model, rank=2, train="dense*", select="body")
    >>> [tuple(w.shape) for w in adapted.trainable_weights]
    [(16, 2), (2, 32), (32, 2), (2,)]
    """
    check_model(model, base, name)
    _check_numbers(rank, alpha)
    work = Adapted(model, base, name)
    if name in work.known:
        raise ValueError(f"`name` must be new: {model.name!r} has adapters {work.known}. Received: name={name!r}")
    chosen = matcher(select, work.flat)
    whole = matcher(train, work.flat, "train") if _names_some(train) else lambda layer: False

    def plan(operation: Any) -> tuple[dict[str, Adapter] | None, str | None]:
        inner = operation.layer if isinstance(operation, Transformed) else operation
        if whole(inner):
            return _whole(operation, work.known)
        if not chosen(inner):
            return {}, "not selected"
        return _low_rank(operation, int(rank), float(rank if alpha is None else alpha))

    adapted = work.made(plan)
    if not work.count:
        said = "; ".join(f"{layer}: {', '.join(words)}" for layer, words in list(work.reasons.items())[:10])
        raise ValueError(f"`model` must hold a matrix for an adapter. Received: {model.name!r}, rank={rank}; {said}")
    activate(adapted, name)
    return adapted


def _whole(operation: Any, known: list[str]) -> tuple[dict[str, Adapter] | None, None]:
    """A copy of each weight; a layer with statistics has none, because its own call changes them."""
    shapes = shapes_of(operation)
    learned = 0 if isinstance(operation, Transformed) else len(learned_weights(operation))
    if isinstance(operation, Transformed) or learned == len(shapes):
        return {name: Adapter(shape, None) for name, shape in shapes.items()}, None
    if known:
        raise ValueError(
            f"`train` must not select {operation.name!r} in a model that has adapters ({', '.join(known)}): it keeps "
            f"statistics, so that it has one state for all of them. Received: {type(operation).__name__}"
        )
    return None, None


def _low_rank(operation: Any, rank: int, alpha: float) -> tuple[dict[str, Adapter], str | None]:
    """An adapter for each matrix for which it pays, else the reason."""
    shapes, found, reasons = shapes_of(operation), {}, []
    for name, folding in foldings(operation).items():
        _, m, n = folding.sizes(shapes[name])
        if rank * (m + n) < m * n:
            found[name] = Adapter(shapes[name], rank, alpha, folding)
        else:
            reasons.append(f"rank {rank} does not pay for {name} ({m} x {n})")
    if not found and not reasons:
        reasons = ["has no matrix"]
    return found, ", ".join(reasons) or None


def shapes_of(operation: Any) -> dict[str, tuple[int, ...]]:
    """The shapes of a layer's weights, by name."""
    inner = operation.layer if isinstance(operation, Transformed) else operation
    return dict(zip(named_weights(inner), (shape for _, shape in weight_shapes(operation)), strict=True))


def _names_some(train: Any) -> bool:
    return train is not None and not (isinstance(train, (list, tuple, set, frozenset)) and not train)


def _check_numbers(rank: Any, alpha: Any) -> None:
    if isinstance(rank, bool) or not isinstance(rank, Integral) or rank < 1:
        raise ValueError(f"`rank` must be a whole number >= 1. Received: rank={rank!r}")
    if alpha is not None and (isinstance(alpha, bool) or not isinstance(alpha, Real) or not alpha > 0):
        raise ValueError(f"`alpha` must be a number > 0, or None for alpha = rank. Received: alpha={alpha!r}")


def check_model(model: Any, base: Any, name: Any) -> None:
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
