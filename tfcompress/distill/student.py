"""A shallower student that starts with the weights of its teacher: some of the repeated blocks, the others skipped."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfcompress.core import flavor
from tfcompress.core.copy import Memo, copy_layer
from tfcompress.core.flavor import keras
from tfcompress.core.replay import Call, calls, run
from tfcompress.core.trace import trace


@dataclass(frozen=True)
class Block:
    """Calls between two tensors through which all features flow.

    Invariants: `given` and `made` have one shape; no float tensor made within the block is used behind it but `made`.
    """

    steps: tuple[int, ...]
    """Places of its calls in the graph."""
    given: Any
    """The symbolic tensor in front."""
    made: Any
    """The symbolic tensor behind."""
    names: tuple[str, ...]
    """Its layers."""
    run: int
    """Which run of equal blocks it belongs to."""


def student_from(teacher: Any, keep: float | int | Sequence[int] = 0.5) -> Any:
    """A shallower model out of a teacher's own layers: of the blocks that repeat, some are kept with their weights.

    A block is what repeats: an encoder layer, the two residual halves of one written out, the identity blocks of a
    stage of a ResNet, a hidden layer as wide as the one before it. The blocks that are left out hand their input on.
    A narrower student as well: `tfcompress.prune_channels(student_from(teacher), 0.5)`.

    Args:
        teacher: a built Keras model. It is not changed; subclassed and nested models are opened where no blocks are
            found in the outermost graph.
        keep: the share of each run of equal blocks in (0, 1), at least one of each; how many of all; or which, counted
            from 0 as in `blocks`. Shares and numbers are spread evenly, the first and the last among them: 6 of 12 are
            0, 2, 4, 7, 9, 11.

    Returns:
        A new, uncompiled Functional model whose layers have the names of the teacher's and copies of their weights.

    Raises:
        TypeError: not a Keras model, or not such a `keep`.
        ValueError: the model is not built, nothing repeats in it, or `keep` names no blocks or others than there are.

    Source: Sanh et al. 2019 (DistilBERT), arXiv:1910.01108, section 2.

    >>> hidden = [keras.layers.Dense(8, "relu", name=f"hidden_{number}") for number in range(5)]
    >>> teacher = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), *hidden, keras.layers.Dense(2)])
    >>> [layer.name for layer in student_from(teacher, 3).layers if "hidden" in layer.name]
    ['hidden_0', 'hidden_2', 'hidden_4']
    """
    flavor.check_model(teacher, "teacher")
    graph, found = _opened(teacher)
    kept = _kept(found, keep)
    left_out = {step: block for place, block in enumerate(found) if place not in kept for step in block.steps}
    inputs = flavor.map_structure(flavor.input_like, flavor.graph_inputs(graph))
    old = flavor.flatten(flavor.graph_inputs(graph))
    values = {id(one): new for one, new in zip(old, flavor.flatten(inputs), strict=True)}
    memo: Memo = {}
    for place, step in enumerate(calls(graph)):
        if place not in left_out:
            run([step], values, lambda call, args, kwargs: copy_layer(call.operation, memo)(*args, **kwargs))
        elif place == left_out[place].steps[-1]:
            values[id(left_out[place].made)] = values[id(left_out[place].given)]
    outputs = flavor.map_structure(lambda tensor: values[id(tensor)], flavor.graph_outputs(graph))
    return keras.Model(inputs, outputs, name=f"{teacher.name}_student")


def blocks(teacher: Any) -> list[tuple[str, ...]]:
    """The names of the layers of each block that `student_from` can keep or leave out, in order.

    Args:
        teacher: a built Keras model.

    Raises:
        ValueError: nothing repeats in it.

    >>> hidden = [keras.layers.Dense(8, name=f"hidden_{number}") for number in range(3)]
    >>> blocks(keras.Sequential([keras.Input((8,)), *hidden, keras.layers.Dense(2)]))
    [('hidden_0',), ('hidden_1',), ('hidden_2',)]
    """
    flavor.check_model(teacher, "teacher")
    return [block.names for block in _opened(teacher)[1]]


def _opened(teacher: Any) -> tuple[Any, list[Block]]:
    """The outermost graph in which blocks repeat, and these."""
    plain = flavor.is_graph(teacher) and not flavor.overrides_call(teacher)
    for graph in ([teacher] if plain else []) + [None]:
        graph = trace(teacher) if graph is None else graph
        found = _blocks(graph)
        if found:
            return graph, found
    raise ValueError(
        f"`teacher` must have blocks that repeat, of which the input and the output have one shape. Received: "
        f"{teacher.name!r}, in which none do"
    )


def _kept(found: list[Block], keep: Any) -> set[int]:
    """The places of the blocks that stay."""
    if isinstance(keep, (float, np.floating)):
        if not 0 < keep < 1:
            raise ValueError(f"`keep` must be a share between 0 and 1, a number, or numbers. Received: keep={keep!r}")
        kept: set[int] = set()
        for number in {block.run for block in found}:
            mine = [place for place, block in enumerate(found) if block.run == number]
            kept |= {mine[place] for place in _spread(len(mine), max(1, round(float(keep) * len(mine))))}
        return kept
    if isinstance(keep, (int, np.integer)) and not isinstance(keep, bool):
        if not 0 < keep <= len(found):
            raise ValueError(f"`keep` must be from 1 to the {len(found)} blocks. Received: keep={keep!r}")
        return set(_spread(len(found), int(keep)))
    if not isinstance(keep, (list, tuple, range, np.ndarray)):
        raise TypeError(f"`keep` must be a share, a number of blocks, or their places. Received: keep={keep!r}")
    wanted = list(keep)
    if not all(isinstance(place, (int, np.integer)) and not isinstance(place, bool) for place in wanted):
        raise TypeError(f"`keep` must hold whole numbers, the places of the blocks. Received: keep={keep!r}")
    if not wanted or not all(-len(found) <= place < len(found) for place in wanted):
        shown = ", ".join(f"{place}: {block.names[0]}" for place, block in enumerate(found))
        raise ValueError(f"`keep` must name at least one of the blocks ({shown}). Received: keep={keep!r}")
    return {int(place) % len(found) for place in wanted}


def _spread(count: int, kept: int) -> list[int]:
    return [round(float(place)) for place in np.linspace(0, count - 1, kept)]


def _is_float(tensor: Any) -> bool:
    return "float" in str(getattr(tensor.dtype, "name", tensor.dtype))


def _cuts(steps: list[Call], graph: Any) -> tuple[list[tuple[int, Any]], list[bool]]:
    """(calls before, tensor) wherever one tensor is all that features flow through; and which calls make features.

    Features are float tensors that weights made, or a model's only input. Masks and what else is made of tokens alone
    may be used on both sides.
    """
    last = {id(tensor): place for place, step in enumerate(steps) for tensor in step.inputs}
    last |= {id(tensor): len(steps) for tensor in flavor.flatten(flavor.graph_outputs(graph))}
    inputs = flavor.flatten(flavor.graph_inputs(graph))
    cuts = [(0, inputs[0])] if len(inputs) == 1 and _is_float(inputs[0]) else []
    alive = {id(tensor): tensor for _, tensor in cuts}
    features, making = set(alive), []
    for place, step in enumerate(steps):
        making.append(bool(getattr(step.operation, "weights", ())) or any(id(t) in features for t in step.inputs))
        if making[-1]:
            made = {id(tensor): tensor for tensor in step.outputs if _is_float(tensor)}
            features |= set(made)
            alive |= made
        alive = {key: tensor for key, tensor in alive.items() if last.get(key, -1) > place}
        if len(alive) == 1 and len(step.outputs) == 1 and id(step.outputs[0]) in alive:
            cuts.append((place + 1, step.outputs[0]))
    return cuts, making


def _blocks(graph: Any) -> list[Block]:
    """What repeats between the cuts of a graph: runs of equal segments, those with most weights first."""
    steps = calls(graph)
    cuts, making = _cuts(steps, graph)
    segments = [[place for place in range(a, b) if making[place]] for (a, _), (b, _) in itertools.pairwise(cuts)]
    signs = [
        (tuple(_sign(steps[place]) for place in places), tuple(given.shape), tuple(made.shape))
        for places, ((_, given), (_, made)) in zip(segments, itertools.pairwise(cuts), strict=True)
    ]
    sizes = [sum(_size(steps[place]) for place in places) for places in segments]
    taken = [False] * len(signs)
    found: list[Block] = []
    while (best := _longest(signs, sizes, taken)) is not None:
        start, period, count = best
        for place in range(start, start + period * count, period):
            taken[place : place + period] = [True] * period
            mine = [step for segment in segments[place : place + period] for step in segment]
            names = tuple(dict.fromkeys(steps[step].name for step in mine))
            found.append(Block(tuple(mine), cuts[place][1], cuts[place + period][1], names, start))
    return sorted(found, key=lambda block: block.steps[0])


def _sign(step: Call) -> tuple:
    weights = getattr(step.operation, "weights", ())
    return type(step.operation).__name__, tuple(tuple(weight.shape) for weight in weights)


def _size(step: Call) -> int:
    return sum(int(np.prod(weight.shape)) for weight in getattr(step.operation, "weights", ()))


def _longest(signs: list[tuple], sizes: list[int], taken: list[bool]) -> tuple[int, int, int] | None:
    """(first segment, segments of a block, blocks) of the run with most weights; of equals that with most blocks."""
    best, score = None, (0, 0)
    for period in range(1, len(signs) // 2 + 1):
        for start in range(len(signs) - 2 * period + 1):
            if signs[start][1] != signs[start + period - 1][2]:
                continue
            end = start + period
            while end < len(signs) and signs[end] == signs[end - period]:
                end += 1
            count = (end - start) // period
            end = start + count * period
            if count < 2 or any(taken[start:end]):
                continue
            found = sum(sizes[start:end]), count
            if found > score:
                best, score = (start, period, count), found
    return best
