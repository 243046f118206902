"""Inference of a quantized model in the integers of a kernel set."""

from dataclasses import replace
from typing import Any

import tensorflow as tf

from tfcompress.core import flavor
from tfcompress.core.arithmetic import tables
from tfcompress.core.arithmetic.codes import Codes, check_kernels, clamped, codes_of
from tfcompress.core.arithmetic.fused import bounds
from tfcompress.core.arithmetic.rectifiers import relu, relu6, requantize
from tfcompress.core.arithmetic.table import ABSENT, TABLE
from tfcompress.core.replay import Call, calls, run
from tfcompress.core.transformed import Transformed
from tfcompress.quantize.faithful.operations import RULES, Step, moved, name_of
from tfcompress.quantize.faithful.patterns import hard_swishes, largest_of_windows
from tfcompress.quantize.faithful.pending import Pending
from tfcompress.quantize.faithful.products import product
from tfcompress.quantize.kinds import Kind, kind_of, relu_of
from tfcompress.quantize.quantizer import Quantizer, quantizers

_NAMES = {"gelu": "GELU", "exp": "EXP", "exponential": "EXP", "elu": "ELU", "ELU": "ELU"}  # not in every set
_RELUS = {"relu": relu, "relu6": relu6}
_REALS = {None: tf.identity, "relu": tf.nn.relu, "relu6": tf.nn.relu6}


@flavor.register
class Faithful:
    """Computes a quantized model with the arithmetic of a kernel set, once every range was seen.

    Args:
        kernels: "xnnpack", "reference" or "tflm".

    Raises:
        ValueError: another kernel set.
    """

    def __init__(self, kernels: str) -> None:
        check_kernels(kernels)
        self.kernels = kernels

    @tf.autograph.experimental.do_not_convert
    def __call__(self, model: Any, inputs: Any, graph: Any) -> Any:
        """The outputs of a model in inference.

        Args:
            model: a Functional model.
            inputs: what it was called with.
            graph: `graph()` computes the model's graph as it stands: what counts before every range was seen.
        """
        ready = self.ready(model)
        if tf.executing_eagerly():
            return self.exact(model, inputs) if bool(ready) else graph()
        return tf.cond(ready, lambda: self.exact(model, inputs), graph)

    @staticmethod
    def ready(model: Any) -> tf.Tensor:
        """Whether every range of a model was seen: a scalar."""
        seen = [flavor.read(q.observed)[2] > 0 for q in quantizers(model) if q.fixed is None]
        return tf.reduce_all(tf.stack(seen)) if seen else tf.constant(True)

    def exact(self, model: Any, inputs: Any, walk: "Walk | None" = None) -> Any:
        """The outputs in the integers of the kernel set."""
        walk = walk or Walk(self.kernels, model)
        symbols = flavor.flatten(flavor.graph_inputs(model))
        given = flavor.reference_inputs(model, inputs)
        values = run(calls(model), dict(zip(map(id, symbols), given, strict=True)), walk.call)
        return flavor.map_structure(lambda t: real(values[id(t)], t), flavor.graph_outputs(model))

    def approximate(self, model: Any) -> dict[str, str]:
        """The layers of a model that are not computed in the very integers of the kernel set, each with the reason."""
        walk = Walk(self.kernels, model)
        symbols = flavor.graph_inputs(model)
        specs = flavor.map_structure(lambda t: tf.TensorSpec((t.shape[0] or 1, *t.shape[1:]), t.dtype), symbols)
        tf.function(lambda given: self.exact(model, given, walk), autograph=False).get_concrete_function(specs)
        return dict(walk.notes)

    def get_config(self) -> dict[str, Any]:
        return {"kernels": self.kernels}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Faithful":
        return cls(**config)


def real(value: Any, like: Any = None) -> Any:
    """The real numbers of what travels through the graph."""
    found = value.real() if isinstance(value, Codes) else value
    if isinstance(value, Pending):
        found = _REALS[value.relu](value.real())
    return found if like is None else tf.cast(found, like.dtype)


class Walk:
    """Makes the calls of a graph on codes; `notes` tells what is approximate."""

    def __init__(self, kernels: str, model: Any) -> None:
        self._kernels = kernels
        self._inputs = {id(t) for t in flavor.flatten(flavor.graph_inputs(model))}
        self._swishes = hard_swishes(model)
        self._pools = largest_of_windows(model)
        self._codes: dict[int, Codes] = {}
        self.notes: dict[str, str] = {}

    def call(self, step: Call, args: tuple, kwargs: dict[str, Any]) -> Any:
        """One call of the graph; the answer to `replay.run`."""
        made = self._computed(step, args, kwargs)
        if isinstance(made, Codes):
            self._codes[id(step.outputs[0])] = made
        return made

    def _computed(self, step: Call, args: tuple, kwargs: dict[str, Any]) -> Any:
        operation = step.operation
        symbols = [t for t in flavor.flatten((step.args, step.kwargs)) if flavor.is_symbolic(t)]
        given = dict(zip(map(id, symbols), self._tensors(args, kwargs, step), strict=True))

        def apply(tensors: Any) -> Any:
            fed = dict(zip(map(id, symbols), tensors, strict=True))
            own = flavor.map_structure(lambda t: fed.get(id(t), t), (step.args, step.kwargs))
            return operation(*own[0], **own[1])

        def in_reals() -> Any:
            return apply([real(given[id(t)], t) for t in symbols])

        values = [given[id(t)] for t in symbols]
        if isinstance(operation, Quantizer):
            return self._quantized(operation, values[0], symbols[0])
        whole = self._swished(step, in_reals)
        if whole is not None:
            return whole
        made = self._made(Step(step, values, self._kernels, in_reals, apply), operation)
        if made is not None:
            return made
        if any(isinstance(v, (Codes, Pending)) for v in values):
            self.notes[operation.name] = f"no exact formula for this {name_of(operation)} on {self._kernels} kernels"
        return in_reals()

    def _swished(self, step: Call, real: Any) -> Pending | None:
        """HARD_SWISH at the end of the calls that spell it."""
        x = self._codes.get(id(self._swishes.get(id(step.outputs[0])))) if step.outputs else None
        if x is None or x.lattice.bits != 8:
            return None
        return Pending(lambda out, low, high: tables.hard_swish(x, out, kernels=self._kernels), real)

    @staticmethod
    def _tensors(args: tuple, kwargs: dict[str, Any], step: Call) -> list[Any]:
        """What stands in the arguments where the old graph had symbolic tensors."""
        old, new = flavor.flatten((step.args, step.kwargs)), flavor.flatten((args, kwargs))
        return [n for o, n in zip(old, new, strict=True) if flavor.is_symbolic(o)]

    def _made(self, step: Step, operation: Any) -> Any:
        layer = operation.layer if isinstance(operation, Transformed) else operation
        kind, first = kind_of(layer), step.values[0] if step.values else None
        if kind is Kind.TRANSPARENT:
            return first
        if kind is Kind.PRODUCT and isinstance(first, Codes) and len(step.values) == 1:
            return product(operation, first, self._kernels, step.real)
        if kind is Kind.NORM and isinstance(first, Pending) and first.folded is not None:
            return first.folded(operation, step.real)
        if kind is Kind.RELU and isinstance(first, Pending) and first.relu is None:
            return replace(first, relu=relu_of(operation), folded=None)
        if name_of(operation) in RULES:
            return None if self._absent(name_of(operation)) else RULES[name_of(operation)](step)
        return moved(step) if kind is Kind.SAME else None

    def _absent(self, name: str) -> bool:
        """Whether the kernel set does without an operation."""
        return TABLE.get(_NAMES.get(name, ""), {}).get(self._kernels) == ABSENT

    def _quantized(self, quantizer: Quantizer, value: Any, symbol: Any) -> Codes:
        lattice = quantizer.lattice()
        if isinstance(value, Pending):
            obstacle = value.obstacle(lattice.bits, quantizer.activation)
            if obstacle is None:
                return value.on(lattice, quantizer.activation, self._kernels)
            self.notes[quantizer.name] = obstacle
            value = real(value)
        elif isinstance(value, Codes) and quantizer.activation and id(symbol) in self._pools:
            ends = bounds(quantizer.activation, value.lattice, kernels=self._kernels)
            return requantize(clamped(value.values, value.lattice, *ends), lattice, kernels=self._kernels)
        if isinstance(value, Codes):
            run_it = _RELUS[quantizer.activation] if quantizer.activation else requantize
            return run_it(value, lattice, kernels=self._kernels)
        if id(symbol) not in self._inputs:
            self.notes.setdefault(quantizer.name, "what it rounds was computed in real numbers")
        return codes_of(_REALS[quantizer.activation](tf.cast(value, tf.float32)), lattice, kernels=self._kernels)
