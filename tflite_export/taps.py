"""What a Keras model computes on data: its inputs, its outputs and the output of each layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.compressed import noted
from tfcompress.core.flavor import keras
from tfcompress.core.replay import calls
from tfcompress.core.samples import Samples, inputs_of
from tflite_export.constants import distinct

_BATCH = 128


def sample_arrays(graph: Any, data: Any) -> tuple[list[str], list[np.ndarray]]:
    """Names of a graph's inputs, and all rows of the data for each, in the order in which Keras flattens the inputs.

    Raises:
        ValueError, TypeError: the data are not what the model takes.
    """
    batches = list(Samples(data, inputs_of(graph), batch_size=_BATCH))
    joined = [np.concatenate(parts) for parts in zip(*batches, strict=True)]
    by_tensor = {id(tensor): array for tensor, array in zip(graph.inputs, joined, strict=True)}
    symbols = flavor.flatten(flavor.graph_inputs(graph))
    return [flavor.input_name(symbol) for symbol in symbols], [by_tensor[id(symbol)] for symbol in symbols]


def outputs_of(graph: Any, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The outputs of a graph in inference, in the order in which Keras flattens them, floats as float32."""
    structure = flavor.graph_inputs(graph)
    place = {id(symbol): number for number, symbol in enumerate(flavor.flatten(structure))}
    fixed = next((s.shape[0] for s in flavor.flatten(structure) if s.shape[0] is not None), None)
    step = fixed or _BATCH
    found = []
    for start in range(0, len(arrays[0]), step):
        part = [array[start : start + step] for array in arrays]
        x = flavor.map_structure(lambda symbol, part=part: tf.convert_to_tensor(part[place[id(symbol)]]), structure)
        found.append([_float32(np.asarray(value)) for value in flavor.flatten(graph(x, training=False))])
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


@dataclass(frozen=True)
class Tap:
    """What a call of a graph returned on data.

    Attributes:
        layer: name of the layer; of a quantizer that is named after what it stands behind, that one's name.
        names: under which the converter may know it; none for a layer whose quantizer stands for it.
        values: float32 [rows, ...].
        distinct: number of different values, before the quantizer where there is one.
        feeds: places, in the list of taps, of the calls that take this output.
        output: place among the model's outputs; None when it is none.
    """

    layer: str
    names: tuple[str, ...]
    values: np.ndarray
    distinct: int
    feeds: tuple[int, ...]
    output: int | None


def taps(graph: Any, arrays: Sequence[np.ndarray]) -> list[Tap]:
    """The output of each call that returns one float tensor, in the order of calls.

    A layer with a quantizer behind it has one entry: the quantizer's values under the layer's name.
    """
    steps = [call for call in calls(graph) if len(call.outputs) == 1 and _is_float(call.outputs[0])]
    if not steps:
        return []
    inner = keras.Model(flavor.graph_inputs(graph), [step.outputs[0] for step in steps])
    values = outputs_of(noted(inner, {}, getattr(graph, "evaluator", None)), arrays)
    ends = {id(tensor): place for place, tensor in enumerate(flavor.flatten(flavor.graph_outputs(graph)))}
    takers: dict[int, list[int]] = {}
    for place, step in enumerate(steps):
        for tensor in step.inputs:
            takers.setdefault(id(tensor), []).append(place)
    made = {id(step.outputs[0]): place for place, step in enumerate(steps)}
    counts = [distinct(value.reshape(-1)) for value in values]
    layers = [step.name for step in steps]
    names: list[tuple[str, ...]] = [(step.name,) for step in steps]
    for place, step in enumerate(steps):
        source = made.get(id(step.inputs[0])) if step.inputs else None
        if _is_quantizer(step.operation) and source is not None:
            behind = steps[source].name
            counts[place] = counts[source]
            layers[place] = behind if step.name.startswith(behind) else step.name
            names[place], names[source] = (step.name, *names[source]), ()
    found = []
    for place, (step, value) in enumerate(zip(steps, values, strict=True)):
        tensor = id(step.outputs[0])
        feeds = tuple(takers.get(tensor, ()))
        found.append(Tap(layers[place], names[place], value, counts[place], feeds, ends.get(tensor)))
    return found


def _is_quantizer(operation: Any) -> bool:
    """Whether a layer only rounds what another one computed: then it has something to say of that one's output."""
    return hasattr(operation, "describe_output")


def _is_float(tensor: Any) -> bool:
    return "float" in str(getattr(tensor.dtype, "name", tensor.dtype))


def _float32(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if "float" in array.dtype.name else array
