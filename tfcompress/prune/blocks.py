"""Whole residual branches taken out: a model with fewer layers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.budgets import cost_of_calls, is_budget, limits_of
from tfcompress.core.compressed import noted
from tfcompress.core.finite import check_finite
from tfcompress.core.flavor import keras
from tfcompress.core.replay import Call, calls, replay
from tfcompress.core.samples import Samples, inputs_of
from tfcompress.core.scalars import is_whole
from tfcompress.core.select import matcher
from tfcompress.core.trace import trace
from tfcompress.prune.channels import check_plain
from tfcompress.prune.experiments import Experiment, Failed, Sizes, sizes_of
from tfcompress.prune.gates import Gate
from tfcompress.prune.objective import examples, objective

_NAMES = ("l1", "l2", "influence", "taylor", "random")


@dataclass(frozen=True)
class Branch:
    """A residual branch: `join` returns `kept` when the branch is zero.

    Attributes:
        join: the call that adds the branch.
        kept: the tensor that goes around the branch.
        branch: the tensor that the branch ends in.
        inside: the calls that only the branch needs.
    """

    join: Call
    kept: Any
    branch: Any
    inside: tuple[Call, ...]


def prune_layers(model: Any, amount: Any, *, importance: str = "l1", data: Any = None, select: Any = None) -> Any:
    """A model without its least important residual branches: it computes what `model` does with these at zero.

    A branch is what is added to a tensor that it was computed from: a residual block, an attention or a feed-forward
    part of a transformer. Composite layers and subclassed models are opened first.

    Args:
        model: a built model of the current Keras flavor, not quantized. It is not changed.
        amount: how many branches go (a whole number of at least 1), or the ratio of them in (0, 1), or a budget
            {"macs": ..., "params": ..., "bytes": ...} as of `prune_channels`.
        importance: "l1", "l2" (mean magnitude of the branch's kernels), "influence" (1 - cosine between what goes
            around and the sum, mean over samples and positions; `data` is x), "taylor" (change of the loss; `data` is
            (x, y)), or "random".
        data: samples, as of `prune_channels`.
        select: which layers. A branch may go when all its layers with weights are selected.

    Returns:
        A new, uncompiled Functional model.

    Raises:
        TypeError: not a model, or one of the other Keras flavor.
        ValueError: there are no branches, or not as many; the budget cannot be held; an argument is out of range.

    Source: Men et al. 2024 (ShortGPT), arXiv:2403.03853, eq. 1 (influence); Kim et al. 2024, arXiv:2402.02834
    (magnitude, Taylor).

    >>> inputs = keras.Input((4,))
    >>> x = keras.layers.Dense(8)(inputs)
    >>> x = keras.layers.Add()([x, keras.layers.Dense(8)(x)])
    >>> model = keras.Model(inputs, keras.layers.Dense(2)(x))
    >>> prune_layers(model, 1).count_params(), model.count_params()
    (58, 130)
    """
    flavor.check_model(model)
    check_finite(model)
    flat = trace(model)
    check_plain(flat)
    found = _selected(blocks(flat), select, flat)
    if importance not in _NAMES:
        raise ValueError(f"`importance` must be one of {', '.join(_NAMES)}. Received: importance={importance!r}")
    if importance in ("influence", "taylor") and data is None:
        raise ValueError(f"`data` must be given for importance={importance!r}. Received: data=None")
    _check_amount(amount, len(found), flat)
    scores = _scores(flat, found, importance, data, model)
    order = [found[i] for i in np.argsort(scores, kind="stable")]
    chosen = order[: _count(flat, order, amount)]
    return noted(_without(flat, chosen), {**getattr(model, "notes", {}), **_notes(chosen)})


def blocks(flat: Any) -> list[Branch]:
    """The residual branches of a flat graph, in its order."""
    steps, sizes = calls(flat), sizes_of(flat)
    made = {id(t): step for step in steps for t in step.outputs}
    found = []
    for step in steps:
        tensors = list({id(t): t for t in step.inputs}.values())
        if len(tensors) != 2 or len(step.outputs) != 1 or getattr(step.operation, "weights", None):
            continue
        for kept, branch in (tensors, tensors[::-1]):
            if tuple(kept.shape) != tuple(step.outputs[0].shape) or not _behind(branch, kept, made):
                continue
            if _is_neutral(step, sizes, 1 if branch is tensors[1] else 0):
                without = {id(t) for t in _needed(flat, steps, {id(step.outputs[0]): kept})}
                inside = [s for s in steps if s is not step and not any(id(t) in without for t in s.outputs)]
                if any(getattr(s.operation, "weights", None) for s in inside):
                    found.append(Branch(step, kept, branch, tuple(inside)))
    return found


def _behind(tensor: Any, origin: Any, made: Mapping[int, Call]) -> bool:
    """Whether a tensor is computed from another one."""
    todo, seen = [tensor], set()
    while todo:
        current = todo.pop()
        if current is origin:
            return True
        if id(current) not in seen and id(current) in made:
            seen.add(id(current))
            todo.extend(made[id(current)].inputs)
    return False


def _is_neutral(step: Call, sizes: Sizes, branch: int) -> bool:
    """Whether the call returns its other input when the branch is zero, seen on numbers."""
    try:
        experiment = Experiment(step, sizes)
        for values in experiment.draws():
            values[branch] = np.zeros_like(values[branch])
            if not np.array_equal(experiment.run(values)[0], values[1 - branch]):
                return False
    except Failed:
        return False
    return True


def _needed(flat: Any, steps: Sequence[Call], others: Mapping[int, Any]) -> list[Any]:
    """The tensors that the outputs need when some tensors are replaced by others."""
    wanted: dict[int, Any] = {}

    def want(tensor: Any) -> None:
        while id(tensor) in others:
            tensor = others[id(tensor)]
        wanted[id(tensor)] = tensor

    for tensor in flavor.flatten(flavor.graph_outputs(flat)):
        want(tensor)
    for step in reversed(steps):
        if any(id(t) in wanted for t in step.outputs):
            for tensor in step.inputs:
                want(tensor)
    return list(wanted.values())


def _selected(found: list[Branch], select: Any, flat: Any) -> list[Branch]:
    matches = matcher(select, flat)
    chosen = [block for block in found
              if all(matches(s.operation) for s in block.inside if getattr(s.operation, "weights", None))]  # fmt: skip
    if not chosen:
        raise ValueError(
            f"`model` must have residual branches{'' if select is None else ' in `select`'}: tensors that are added to "
            f"what they were computed from. Received: {flat.name!r}"
        )
    return chosen


def _check_amount(amount: Any, branches: int, flat: Any) -> None:
    """Refuse what is neither a number of branches, nor a ratio of them, nor a budget."""
    if is_budget(amount):
        limits_of(amount, flat, "amount")
        return
    ratio = isinstance(amount, (int, float, np.number)) and 0 < amount < 1
    whole = is_whole(amount)
    if not ratio and not whole:
        raise ValueError(
            f"`amount` must be a whole number of branches, a ratio of them in (0, 1) or a budget. "
            f"Received: amount={amount!r}"
        )
    if whole and amount > branches:
        raise ValueError(f"`amount` must be at most the {branches} branches that may go. Received: amount={amount!r}")


def _count(flat: Any, order: Sequence[Branch], amount: Any) -> int:
    """How many of the branches go, the least important first."""
    if not is_budget(amount):
        return max(1, round(amount * len(order))) if amount < 1 else int(amount)
    steps = calls(flat)
    limits = limits_of(amount, flat, "amount")
    for count in range(len(order) + 1):
        cost = cost_of_calls(_alive(flat, steps, order[:count]))
        if all(cost[kind] <= limit for kind, limit in limits.items()):
            return count
    raise ValueError(f"`amount` {dict(amount)!r} cannot be held: without all branches the model has {cost}")


def _alive(flat: Any, steps: Sequence[Call], gone: Sequence[Branch]) -> list[Call]:
    """The calls that the outputs need without some branches."""
    needed = {id(t) for t in _needed(flat, steps, {id(b.join.outputs[0]): b.kept for b in gone})}
    return [step for step in steps if any(id(t) in needed for t in step.outputs)]


def _without(flat: Any, gone: Sequence[Branch]) -> Any:
    around = {id(block.join.outputs[0]): block for block in gone}

    def call(old: Call, args: tuple, kwargs: dict[str, Any]) -> Any:
        block = around.get(id(old.outputs[0]))
        if block is None:
            return old.operation(*args, **kwargs)
        pairs = zip(flavor.flatten((old.args, old.kwargs)), flavor.flatten((args, kwargs)), strict=True)
        return next(new for leaf, new in pairs if leaf is block.kept)

    return replay(flat, call)


def _notes(gone: Sequence[Branch]) -> dict[str, str]:
    notes: dict[str, str] = {}
    for block in gone:
        made = flavor.producer(block.kept)
        if made is not None:
            notes[made[0].name] = f"the branch that {block.join.name} added after it is gone"
    return notes


def _scores(flat: Any, found: Sequence[Branch], name: str, data: Any, model: Any) -> np.ndarray:
    if name == "random":
        return np.random.default_rng(int(np.random.randint(2**31))).uniform(size=len(found))
    if name == "taylor":
        return _taylor(flat, found, data, model)
    if name == "influence":
        return _influence(flat, found, data)
    order = 1 if name == "l1" else 2
    sizes = []
    for block in found:
        kernels = {id(v): np.asarray(flavor.read(v)) for s in block.inside for v in getattr(s.operation, "weights", ())
                   if len(v.shape) > 1}  # fmt: skip
        numbers = np.concatenate([np.ravel(k) for k in kernels.values()] or [np.zeros(1)])
        sizes.append(float(np.mean(np.abs(numbers) ** order) ** (1 / order)))
    return np.array(sizes)


def _taylor(flat: Any, found: Sequence[Branch], data: Any, model: Any) -> np.ndarray:
    """The squared derivative of the loss by a gate on each branch, mean over batches."""
    gates = tf.Variable(tf.ones(len(found)))
    numbers = {id(block.join.outputs[0]): (n, block) for n, block in enumerate(found)}

    def call(old: Call, args: tuple, kwargs: dict[str, Any]) -> Any:
        if id(old.outputs[0]) in numbers:
            n, block = numbers[id(old.outputs[0])]
            rank = len(block.branch.shape)
            leaves = zip(flavor.flatten((old.args, old.kwargs)), flavor.flatten((args, kwargs)), strict=True)
            new = [Gate((gates,), np.array([n]), rank - 1, rank)(leaf) if was is block.branch else leaf
                   for was, leaf in leaves]  # fmt: skip
            args, kwargs = flavor.pack_like((old.args, old.kwargs), new)
        return old.operation(*args, **kwargs)

    gated, loss = replay(flat, call), objective(model)
    total, count = np.zeros(len(found)), 0
    for arrays, labels, weights in examples(data, gated):
        given = flavor.pack_like(flavor.graph_inputs(gated), [tf.convert_to_tensor(a) for a in arrays])
        with tf.GradientTape() as tape:
            value = loss(labels, gated(given, training=False), weights)
        total += np.asarray(tf.convert_to_tensor(tape.gradient(value, gates))) ** 2
        count += 1
    return total / max(count, 1)


def _influence(flat: Any, found: Sequence[Branch], data: Any) -> np.ndarray:
    """1 - mean cosine, over samples and positions, of what goes around a branch and what comes out behind it."""
    taps = keras.Model(flavor.graph_inputs(flat), [t for b in found for t in (b.kept, b.join.outputs[0])])
    total, count = np.zeros(len(found)), np.zeros(len(found))
    for arrays in Samples(data, inputs_of(flat)):
        given = flavor.pack_like(flavor.graph_inputs(flat), [tf.convert_to_tensor(a) for a in arrays])
        outputs = flavor.flatten(taps(given, training=False))
        values = [np.asarray(v, "float64").reshape(-1, v.shape[-1]) for v in outputs]
        for n in range(len(found)):
            a, b = values[2 * n], values[2 * n + 1]
            norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
            cosines = np.where((a == b).all(1), 1.0, np.sum(a * b, 1) / np.maximum(norms, 1e-30))
            total[n] += np.sum(1 - cosines)
            count[n] += len(a)
    return total / np.maximum(count, 1)
