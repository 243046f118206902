"""Operations without weights, understood by experiment: run on numbers, with channels and without them.

An operation is taken for what it does to numbers, whatever its name: it treats channels alike (without some of them it
gives the same, without some), it moves them (each number of its output is one of its input), it sums them up (without
some of them it gives what it gives when they are zero), or it does something else.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.flavor import keras
from tfcompress.core.replay import Call, again, calls, run

_BATCH, _LENGTH, _BASE = 2, 16, 1024
#: Removes positions of an axis: the kept ones by (number of the tensor, axis).
Kept = dict[tuple[int, int], np.ndarray]
#: Answers a call on new tensors: (args, kwargs) -> outputs.
Answer = Callable[[tuple, dict[str, Any]], Any]


class Failed(Exception):
    """The operation does not run on such numbers."""


@dataclass(frozen=True)
class Sizes:
    """What is known of the tensors of a graph, by their ids.

    Attributes:
        shapes: of each tensor, with numbers for lengths that are not known.
        numbers: the values of small tensors of whole numbers, such as lengths that the graph asks for.
    """

    shapes: dict[int, tuple[int, ...]]
    numbers: dict[int, np.ndarray]


def sizes_of(model: Any) -> Sizes:
    """The sizes of the tensors of a flat graph.

    Where they are not known, or asked for, the graph is run on zeros, so that lengths that belong together are equal.
    """
    inputs = flavor.flatten(flavor.graph_inputs(model))
    steps = calls(model)
    tensors = {id(t): t for t in (*inputs, *(t for step in steps for t in step.outputs))}
    guessed = {key: _guessed(t) for key, t in tensors.items()}
    small = [id(t) for step in steps for t in step.outputs if _is_small(t)]
    if not small and all(None not in tuple(t.shape)[1:] for t in tensors.values()):
        return Sizes(guessed, {})
    values = {id(t): tf.zeros(_guessed(t), t.dtype) for t in inputs}
    try:
        run(steps, values, again)
    except Exception:  # lengths that do not fit: each call will be tried on lengths of its own
        return Sizes(guessed, {})
    shapes = {key: tuple(int(d) for d in value.shape) for key, value in values.items()}
    return Sizes(shapes, {key: np.asarray(values[key]) for key in small})


def _is_small(tensor: Any) -> bool:
    """Whether a tensor holds a few whole numbers."""
    return tf.as_dtype(tensor.dtype).is_integer and len(tensor.shape) <= 1 and None not in tuple(tensor.shape)


def _guessed(tensor: Any) -> tuple[int, ...]:
    return tuple((_BATCH if i == 0 else _LENGTH) if d is None else int(d) for i, d in enumerate(tensor.shape))


class Experiment:
    """One call, made on numbers as often as wanted.

    Args:
        call: the call.
        sizes: of the graph's tensors.
        labelled: for each different input whether it holds labels; others have the numbers that are known of them.

    Attributes:
        inputs: the different tensors that it takes.
        shapes: theirs, with numbers for what is not known.
        constants: the arrays among its arguments, by their place in the flattened arguments.
    """

    def __init__(self, call: Call, sizes: Sizes, labelled: Sequence[bool] = ()) -> None:
        self.call = call
        self.inputs = list({id(t): t for t in call.inputs}.values())
        self.shapes = [sizes.shapes[id(t)] for t in self.inputs]
        free = [*labelled, *[False] * len(self.inputs)]
        self._numbers = [None if free[n] else sizes.numbers.get(id(t)) for n, t in enumerate(self.inputs)]
        leaves = enumerate(flavor.flatten((call.args, call.kwargs)))
        self.constants = {place: np.asarray(leaf) for place, leaf in leaves if _is_array(leaf) and np.ndim(leaf)}
        self.outputs = self.run(self._known([np.zeros(shape) for shape in self.shapes]))

    def run(self, values: Sequence[np.ndarray], answer: Answer | None = None, kept: Kept | None = None) -> list:
        """The outputs as arrays, for an array for each input; `kept` slices constants (numbered from -1 down).

        Raises:
            Failed: the operation refuses them.
        """
        known = {id(t): tf.constant(v, _type(t)) for t, v in zip(self.inputs, values, strict=True)}
        try:
            args, kwargs = filled(self.call, known, kept or {})
            outputs = answer(args, kwargs) if answer else self.call.operation(*args, **kwargs)
            return [np.asarray(output) for output in flavor.flatten(outputs)]
        except Exception as error:  # whatever an operation says to a shape that it does not take
            raise Failed(type(error).__name__) from error

    def draws(self) -> Iterator[list[np.ndarray]]:
        """Random numbers for the inputs: of both signs, negative ones, positive ones."""
        rng = np.random.default_rng(5)
        for signs in ((-1, 1), (-1,), (1,)):
            drawn = [_random(rng, s, _type(t), signs) for t, s in zip(self.inputs, self.shapes, strict=True)]
            yield self._known(drawn)

    def _known(self, values: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The values, but for tensors whose numbers are known."""
        return [value if number is None else number for value, number in zip(values, self._numbers, strict=True)]

    def channelwise(self, axes: Sequence[tuple[int, int]], size: int) -> list[int] | None:
        """Whether the call treats the positions of these axes alike and apart.

        Args:
            axes: (tensor or constant, axis) to slice together.
            size: their length.

        Returns:
            For each output the axis at which those positions are; None when it does something else.
        """
        found: list[int] | None = None
        for values, chosen in zip(self.draws(), _subsets(size), strict=True):
            kept = dict.fromkeys(axes, chosen)
            try:
                whole, part = self.run(values), self.run(_sliced(values, kept), kept=kept)
            except Failed:
                return None
            where = [_axis(a, b, chosen, size, found[n] if found else None)
                     for n, (a, b) in enumerate(zip(whole, part, strict=True))]  # fmt: skip
            if any(axis is None for axis in where):
                return None
            found = [axis for axis in where if axis is not None]
        return found

    def axes_at(self, place: int, size: int) -> list[tuple[int, int]]:
        """The tensors' and constants' axes at a place from the right that have this length."""
        tensors = list(enumerate(self.shapes))
        arrays = [(-1 - n, c.shape) for n, c in self.constants.items()]
        return [(n, len(s) + place) for n, s in (*tensors, *arrays) if len(s) >= -place and s[place] == size]

    def sums(self, axes: Sequence[tuple[int, int]], size: int) -> bool:
        """Whether the call gives the same without positions of these axes as with zeros there."""
        for values, chosen in zip(self.draws(), _subsets(size), strict=True):
            zeroed = [v.copy() for v in values]
            for n, axis in axes:
                gone = np.setdiff1d(np.arange(size), chosen)
                np.moveaxis(zeroed[n], axis, 0)[gone] = 0
            kept = dict.fromkeys(axes, chosen)
            try:
                whole, part = self.run(zeroed), self.run(_sliced(values, kept), kept=kept)
            except Failed:
                return False
            if not all(a.shape == b.shape and _equal(a, b) for a, b in zip(whole, part, strict=True)):
                return False
        return True

    def sources(self) -> list[np.ndarray] | None:
        """For each number of each output the place in the inputs (laid end to end) that it is from, -1 for none.

        None when an output holds other numbers than those of its inputs.
        """
        if any(not np.issubdtype(_type(t), np.number) for t in self.inputs):
            return None
        sizes = [int(np.prod(s)) for s in self.shapes]
        starts = np.cumsum([0, *sizes])
        places = [np.arange(a, b).reshape(s) for a, b, s in zip(starts, starts[1:], self.shapes, strict=False)]
        digits = max(1, int(np.ceil(np.log(max(int(starts[-1]), 2)) / np.log(_BASE))))
        try:
            codes = [self.run(self._known([p // _BASE**d % _BASE + 1 for p in places])) for d in range(digits)]
            checks = [(draw, self.run(draw)) for draw in itertools.islice(self.draws(), 2)]
        except Failed:
            return None
        found = []
        for n in range(len(self.outputs)):
            if len({code[n].shape for code in (*codes, *(out for _, out in checks))}) > 1:
                return None
            (first, a), (second, b) = ((np.concatenate([np.ravel(v) for v in draw]), out[n]) for draw, out in checks)
            source = sum((np.rint(np.asarray(c[n], "float64")).astype(np.int64) - 1) * _BASE**d
                         for d, c in enumerate(codes))  # fmt: skip
            source = np.where((source >= 0) & (source < starts[-1]), source, 0)
            moved = (first[source] == a) & (second[source] == b)
            if not np.all(moved | (a == b)):
                return None
            found.append(np.where(moved, source, -1))
        return found


def filled(call: Call, values: dict[int, Any], kept: Kept) -> tuple[tuple, dict[str, Any]]:
    """The call's arguments with other tensors, and constants of which only some positions are kept."""
    number = -1

    def fill(leaf: Any) -> Any:
        nonlocal number
        number += 1
        if flavor.is_symbolic(leaf):
            return values[id(leaf)]
        mine = [(axis, chosen) for (n, axis), chosen in kept.items() if n == -1 - number]
        if not mine:
            return leaf
        array = np.asarray(leaf)
        for axis, chosen in mine:
            array = np.take(array, chosen, axis)
        return array if isinstance(leaf, np.ndarray) else tf.constant(array)

    return flavor.map_structure(fill, (call.args, call.kwargs))


def _is_array(value: Any) -> bool:
    return isinstance(value, (np.ndarray, tf.Tensor)) and not flavor.is_symbolic(value)


def _type(tensor: Any) -> Any:
    return tf.as_dtype(tensor.dtype).as_numpy_dtype


def _random(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any, signs: Sequence[int]) -> np.ndarray:
    """Numbers that float16 holds, few of them equal; small whole numbers; truths."""
    if dtype is np.bool_:
        return rng.integers(0, 2, shape).astype(bool)
    if np.issubdtype(dtype, np.integer):
        return rng.integers(0, 2, shape).astype(dtype)
    return (rng.integers(1, 2048, shape) / 512 * rng.choice(signs, shape)).astype(dtype)


def _subsets(size: int) -> list[np.ndarray]:
    """Three choices of positions, not all of them."""
    rng = np.random.default_rng(size)
    return [np.sort(rng.choice(size, max(1, share), replace=False)) for share in (size // 2, size - 1, size // 2)]


def _sliced(values: Sequence[np.ndarray], kept: Kept) -> list[np.ndarray]:
    result = list(values)
    for (n, axis), chosen in kept.items():
        if n >= 0:
            result[n] = np.take(result[n], chosen, axis)
    return result


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    if a.dtype.kind not in "fV":
        return np.array_equal(a, b)
    coarse = a.dtype.itemsize < 4
    a, b = a.astype("float64"), b.astype("float64")
    scale = np.max(np.abs(a[np.isfinite(a)]), initial=1e-6)
    return np.allclose(a, b, rtol=2e-2 if coarse else 1e-4, atol=(2e-2 if coarse else 1e-5) * scale, equal_nan=True)


def _axis(whole: np.ndarray, part: np.ndarray, chosen: np.ndarray, size: int, before: int | None) -> int | None:
    """The axis along which `part` is `whole` at the chosen positions."""
    for axis in range(whole.ndim - 1, -1, -1):
        if before not in (None, axis) or whole.shape[axis] != size:
            continue
        expected = np.take(whole, chosen, axis)
        if expected.shape == part.shape and _equal(expected, part):
            return axis
    return None


def reconfigured(layer: Any, changes: dict[str, Any]) -> Any:
    """A new layer of the same class and configuration, but for some arguments.

    Functions and objects that Keras would have to look up by name are handed over as they are.
    """
    config = dict(layer.get_config())
    for name in config:
        value = getattr(layer, name, None)
        if callable(value) and not isinstance(value, (type, keras.layers.Layer)) and not _is_own(value):
            config[name] = value
    return type(layer).from_config({**config, **changes})


def _is_own(value: Any) -> bool:
    """Whether a function or object is Keras' own, which it makes anew from its configuration."""
    module = getattr(value, "__module__", None) or type(value).__module__
    return module.split(".")[0] in ("keras", "tf_keras")
