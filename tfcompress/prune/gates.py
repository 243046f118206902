"""A model with a gate on every channel, at the places where channels are read."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.flavor import keras
from tfcompress.core.replay import Call, replay
from tfcompress.core.samples import Samples, inputs_of
from tfcompress.prune.dependencies import Group
from tfcompress.prune.flow import Flow, Step
from tfcompress.prune.labels import Vector
from tfcompress.prune.objective import Objective, examples


class Gate(keras.layers.Layer):
    """Multiplies the positions of an axis by gates that several layers share."""

    def __init__(self, gates: Any, places: np.ndarray, axis: int, rank: int) -> None:
        super().__init__()
        self.places, self.form = places, [-1 if i == axis else 1 for i in range(rank)]
        object.__setattr__(self, "gates", gates)
        self.built = True

    def call(self, x: Any) -> Any:
        return x * tf.cast(tf.reshape(tf.gather(self.gates[0], self.places), self.form), x.dtype)

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


def class_numbers(groups: Sequence[Group]) -> tuple[dict[int, int], int]:
    """A number from 0 for each class of channels in the groups, and how many there are."""
    numbers = {int(label): n for n, label in enumerate(np.concatenate([group.labels for group in groups]))}
    return numbers, len(numbers)


def places_of(flow: Flow, vector: Vector, numbers: dict[int, int]) -> np.ndarray:
    """The number of the class at each position; the one after the last where there is none."""
    return np.array([numbers.get(int(root), len(numbers)) for root in flow.labels.roots(vector)])


def reads(flow: Flow, numbers: dict[int, int]) -> Iterator[tuple[Step, int, int, np.ndarray]]:
    """Every place where channels are summed over: (step, input, axis, class at each position)."""
    for step in flow.steps:
        for n, axis in step.reads:
            vector = step.given[n][axis]
            places = np.array([]) if vector is None else places_of(flow, vector, numbers)
            if places.size and places.min() < len(numbers):
                yield step, n, axis, places


def sensitivities(flow: Flow, groups: Sequence[Group], data: Any, loss: Objective) -> np.ndarray:
    """For each class of channels the mean over batches of the squared derivative of the loss by its gate.

    A gate multiplies its channels wherever a layer sums over them, so to close it is to prune them; the derivative is
    the change of the loss to first order.

    Source: Molchanov et al. 2019, arXiv:1906.10771, eq. 8 with a gate for each group.
    """
    numbers, count = class_numbers(groups)
    gates = tf.Variable(tf.ones(count + 1), trainable=True)
    first: dict[int, list[tuple[int, int, np.ndarray]]] = {}
    for step, n, axis, places in reads(flow, numbers):
        first.setdefault(id(step), []).append((n, axis, places))
    steps = iter(flow.steps)

    def call(old: Call, args: tuple, kwargs: dict[str, Any]) -> Any:
        step = next(steps)
        gated: dict[int, Any] = {}
        for n, axis, places in first.get(id(step), ()):
            tensor = step.inputs[n]
            place = next(i for i, t in enumerate(flavor.flatten((old.args, old.kwargs))) if t is tensor)
            given = gated.get(id(tensor), flavor.flatten((args, kwargs))[place])
            gated[id(tensor)] = Gate((gates,), places, axis, len(tensor.shape))(given)
        new = [gated.get(id(old_leaf), leaf) for old_leaf, leaf in zip(
            flavor.flatten((old.args, old.kwargs)), flavor.flatten((args, kwargs)), strict=True)]  # fmt: skip
        args, kwargs = flavor.pack_like((old.args, old.kwargs), new)
        return old.operation(*args, **kwargs)

    model = replay(flow.model, call)
    total, batches = np.zeros(count + 1), 0
    for arrays, labels, weights in examples(data, model):
        tensors = [tf.convert_to_tensor(a) for a in arrays]
        with tf.GradientTape() as tape:
            outputs = model(flavor.pack_like(flavor.graph_inputs(model), tensors), training=False)
            value = loss(labels, outputs, weights)
        total += np.asarray(tf.convert_to_tensor(tape.gradient(value, gates))) ** 2
        batches += 1
    return total[:count] / max(batches, 1)


def activations(flow: Flow, groups: Sequence[Group], data: Any) -> np.ndarray:
    """For each class of channels the mean magnitude of its numbers at the places where they are read.

    Source: Molchanov et al. 2017, arXiv:1611.06440, section 2.2 ("activation").
    """
    numbers, count = class_numbers(groups)
    found = list(reads(flow, numbers))
    taps = keras.Model(flavor.graph_inputs(flow.model), [step.inputs[n] for step, n, *_ in found])
    total, weights = np.zeros(count + 1), np.zeros(count + 1)
    for arrays in Samples(data, inputs_of(flow.model)):
        given = flavor.pack_like(flavor.graph_inputs(flow.model), [tf.convert_to_tensor(a) for a in arrays])
        for (_, _, axis, places), value in zip(found, flavor.flatten(taps(given, training=False)), strict=True):
            size = np.abs(np.moveaxis(np.asarray(value, "float64"), axis, 0)).reshape(places.size, -1).mean(1)
            np.add.at(total, places, size * len(arrays[0]))
            np.add.at(weights, places, len(arrays[0]))
    return total[:count] / np.maximum(weights[:count], 1)
