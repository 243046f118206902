"""From a model to one that learns through adapters on its frozen weights."""

from typing import Any

from tfcompress.core.scalars import is_finite, is_whole
from tfcompress.core.select import matcher
from tfcompress.core.transformed import Transformed
from tfcompress.lora.adapted import Adapted, check_adaptable, inner_of, shapes_of, shared_state
from tfcompress.lora.adapter import Adapter
from tfcompress.lora.folding import foldings, learned_weights
from tfcompress.lora.names import activate, members


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
    any depth. The update is zero at first. A weight that two layers hold (a tied table) has none. Everything else is
    frozen; batch normalization computes as in inference. Each step makes the updated weights once, whatever the batch,
    at a cost of rank * m * n multiplications a matrix.

    A model that has adapters gets one more, which is in force from then on; `tfcompress.lora.activate` switches.

    Args:
        model: a built model of the current Keras flavor: Functional, Sequential or subclassed. It is not changed.
        rank: of the updates, >= 1. A matrix for which rank * (m + n) >= m * n is left alone.
        alpha: the update's scale is alpha / rank; None: alpha = rank.
        select: which layers: a layer class, a name pattern ("head/*"), a layer, a predicate, or a list of these.
            Default: all.
        base: how frozen matrices are held, those of layers that are not selected as well: None (as they are), "int8"
            (8.13 bits a number), "int4" or "nf4" (4.13 bits), and one bit more where pruning holds zeros. Dequantized
            whenever the layer computes.
        train: layers that are trained whole (a new head), selected in the same way; the adapter keeps them as copies,
            but a layer with statistics (BatchNormalization) is itself trained. Constraints and regularizers of their
            weights do not hold for copies.
        name: of the adapter: letters, digits, - and _.

    Returns:
        A new, uncompiled Functional model with the weights of `model`. `tfcompress.summary` lists each layer's adapter,
        or why it has none.

    Raises:
        TypeError: not a model, or one of the other Keras flavor.
        ValueError: an argument is outside its range; the model is not built, is quantized, or has an adapter of this
            name or another base; a selection matches nothing, or nothing that an adapter of this rank pays for; `train`
            selects a layer with a weight that another one holds too, or one with statistics in a model that has
            adapters.

    Source: Hu et al. 2021, arXiv:2106.09685; Dettmers et al. 2023, arXiv:2305.14314 (bases in few bits).

    >>> from tfcompress.core.flavor import keras
    >>> model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(32, name="body"), keras.layers.Dense(2)])
    >>> adapted = add_lora(model, rank=2, train="dense*", select="body")
    >>> [tuple(w.shape) for w in adapted.trainable_weights]
    [(16, 2), (2, 32), (32, 2), (2,)]
    """
    check_adaptable(model, base, name)
    _check_numbers(rank, alpha)
    work = Adapted(model, base, name)
    if name in work.known:
        raise ValueError(f"`name` must be new: {model.name!r} has adapters {work.known}. Received: name={name!r}")
    chosen = matcher(select, work.flat)
    whole = matcher(train, work.flat, "train") if _names_some(train) else lambda layer: False

    def plan(operation: Any) -> tuple[dict[str, Adapter] | None, str | None]:
        inner = inner_of(operation)
        if whole(inner):
            return _whole(operation, work.known)
        if not chosen(inner):
            return {}, "not selected"
        return _low_rank(operation, int(rank), float(rank if alpha is None else alpha))

    adapted = work.made(plan)
    if all(adapter.rank is None for _, _, adapter in members(adapted, name)):
        said = "; ".join(f"{layer}: {', '.join(words)}" for layer, words in list(work.reasons.items())[:10] if words)
        raise ValueError(
            f"`select` and `rank` must leave a matrix for an adapter of low rank. Received: {model.name!r}, "
            f"select={select!r}, rank={rank}; {said}"
        )
    activate(adapted, name)
    return adapted


def _whole(operation: Any, known: list[str]) -> tuple[dict[str, Adapter] | None, None]:
    """A copy of each weight; a layer with statistics has none, because its own call changes them."""
    shapes, inner = shapes_of(operation), inner_of(operation)
    packed = [name for name in shapes if isinstance(operation, Transformed) and operation.held(name) is not None]
    if len(learned_weights(inner)) + len(packed) == len(shapes):
        return {name: Adapter(shape, None) for name, shape in shapes.items()}, None
    if known:
        raise shared_state(f"`train` must not select {inner.name!r}", known, type(inner).__name__)
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


def _names_some(train: Any) -> bool:
    return train is not None and not (isinstance(train, (list, tuple, set, frozenset)) and not train)


def _check_numbers(rank: Any, alpha: Any) -> None:
    if not is_whole(rank):
        raise ValueError(f"`rank` must be a whole number >= 1. Received: rank={rank!r}")
    if alpha is not None and not (is_finite(alpha) and alpha > 0):
        raise ValueError(f"`alpha` must be a finite number > 0, or None for alpha = rank. Received: alpha={alpha!r}")
