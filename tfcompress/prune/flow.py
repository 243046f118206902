"""Channel labels of a whole graph: those of every tensor and of every weight."""

from dataclasses import dataclass, field
from typing import Any

from tfcompress.core import flavor
from tfcompress.core.flavor import keras
from tfcompress.core.opaque import Opaque
from tfcompress.core.replay import Call, calls
from tfcompress.prune.experiments import sizes_of
from tfcompress.prune.labels import Axes, Labels
from tfcompress.prune.operations import Operation, blank, label_operation
from tfcompress.prune.parametric import Parametric, Weights
from tfcompress.prune.rules import rule_of


@dataclass
class Step:
    """One call with the labels of what it takes and gives.

    Attributes:
        call: the call.
        given: labels of its different inputs.
        inputs: its different inputs, in the same order.
        operation: what a call without weights does; None for a layer with weights.
        reads: (input, axis) over which the call sums: where a channel that is zero can be left out.
    """

    call: Call
    given: list[Axes]
    inputs: list[Any]
    operation: Operation | None = None
    reads: list[tuple[int, int]] = field(default_factory=list)


class Flow:
    """Labels, followed through a graph from its inputs to its outputs.

    Args:
        model: a flat Functional model, as `trace` makes it.

    Attributes:
        model: the argument.
        labels: the labels' classes.
        sizes: of its tensors.
        steps: the calls in order.
        tensors: the labels of each tensor, by its id.
        weights: what is known of the weights of each layer, by the layer's id.
        layers: the layers with weights, by id.
        unknown: name of a layer with weights of which no channels are known -> its kind, and why.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.labels = Labels()
        with flavor.masks_may_end():
            self.sizes = sizes_of(model)
        self.steps: list[Step] = []
        self.tensors: dict[int, Axes] = {id(t): tuple(blank(t)) for t in flavor.flatten(flavor.graph_inputs(model))}
        self.weights: dict[int, Weights] = {}
        self.layers: dict[int, Any] = {}
        self.unknown: dict[str, str] = {}
        with flavor.masks_may_end():
            for call in calls(model):
                self._follow(call)
        for tensor in flavor.flatten(flavor.graph_outputs(model)):
            self.labels.fix(self.tensors[id(tensor)], "it is an output of the model", above=True)
        self._fix_lengths()

    def _fix_lengths(self) -> None:
        """Axes whose lengths are computed with keep them."""
        lengths = [pair for step in self.steps if step.operation is not None for pair in step.operation.lengths]
        while used := [axis for number, axis in lengths if not self.labels.free(number) and self.labels.free(axis)]:
            self.labels.fix(used, "the model computes with how many there are")

    def _follow(self, call: Call) -> None:
        inputs = list({id(t): t for t in call.inputs}.values())
        step = Step(call, [self.tensors[id(t)] for t in inputs], inputs)
        self.steps.append(step)
        layer = call.operation
        if isinstance(layer, keras.layers.Layer) and layer.weights:
            outputs = self._layer(layer, step)
        else:
            step.operation = label_operation(call, step.given, self.labels, self.sizes)
            step.reads, outputs = step.operation.sums, step.operation.outputs
        self.tensors.update((id(t), tuple(axes)) for t, axes in zip(call.outputs, outputs, strict=True))

    def _layer(self, layer: Any, step: Step) -> list:
        self.layers[id(layer)] = layer
        weights = self.weights.setdefault(id(layer), Weights())
        done = Parametric(layer, step.call, step.given, self.labels, weights)
        rule = rule_of(layer)
        if rule is not None and rule(done, layer):
            step.reads = done.reads
            return done.outputs
        kind = type(layer.layer if isinstance(layer, Opaque) else layer).__name__
        why = f"stays closed: {layer.reason}" if isinstance(layer, Opaque) else "is of a kind that is not known"
        self.unknown[layer.name] = f"{kind} {why}"
        for axes in step.given:
            self.labels.fix(axes, f"{layer.name} ({kind}) {why}")
        return [blank(t) for t in step.call.outputs]
