"""From a model to one that computes as the integer runtime will: quantization-aware training."""

from dataclasses import replace
from typing import Any

from tfcompress.core import flavor
from tfcompress.core.compressed import noted
from tfcompress.core.finite import check_finite
from tfcompress.core.flavor import keras
from tfcompress.core.opaque import Opaque
from tfcompress.core.replay import Call, replay
from tfcompress.core.select import matcher
from tfcompress.core.trace import trace
from tfcompress.core.transformed import Transform, Transformed, named_weights, transformed_layers
from tfcompress.quantize.bare import bare_grid, bare_kernels
from tfcompress.quantize.expand import expand, fold_batch_norm
from tfcompress.quantize.faithful.evaluator import Faithful
from tfcompress.quantize.fake_quant import FakeQuantWeight
from tfcompress.quantize.kinds import Kind, kind_of
from tfcompress.quantize.layouts import kernel_grids
from tfcompress.quantize.placement import Boundary, Placement
from tfcompress.quantize.quantizer import Quantizer, quantizers
from tfcompress.quantize.ranges import MovingAverage, Ranges, resolve
from tfcompress.quantize.scheme import KEEP, Scheme
from tfcompress.quantize.uses import used_grids

_STATEFUL = {Kind.NORM, Kind.TRANSPARENT}  # they update their own state: never wrapped


class _Rules:
    """The scheme and the selection, asked for one layer."""

    def __init__(self, scheme: Scheme, select: Any, model: Any) -> None:
        self._selected = matcher(select, model)
        self._scheme = scheme
        self._overrides = [(matcher(o.select, model, "override"), o) for o in scheme.overrides]

    def _grid(self, operation: Any, which: str) -> Any:
        layer = isinstance(operation, keras.layers.Layer)
        if not self.selected(operation):
            return None
        grid = getattr(self._scheme, which)
        for matches, override in self._overrides:
            if layer and getattr(override, which) is not KEEP and matches(operation):
                grid = getattr(override, which)
        return grid

    def weights(self, operation: Any) -> Any:
        return self._grid(operation, "weights")

    def activations(self, operation: Any) -> Any:
        return self._grid(operation, "activations")

    def selected(self, operation: Any) -> bool:
        return not isinstance(operation, keras.layers.Layer) or self._selected(operation)

    @property
    def inputs(self) -> Any:
        return self._scheme.activations


class _Builder:
    """Wraps layers and places quantizers while a graph is replayed."""

    def __init__(self, model: Any, rules: _Rules, ranges: Ranges) -> None:
        self._rules, self._ranges = rules, ranges
        self._placement = Placement(model)
        self._bare = bare_kernels(model)
        self._wrapped: dict[int, Any] = {}
        self._inputs: dict[int, Any] = {}
        self._names = {layer.name for layer in model.layers}
        self.notes: dict[str, str] = {}

    def _quantizer(self, base: str, grid: Any, tensor: Any, ranges: Ranges | None = None, **arguments: Any) -> Any:
        name, number = base, 0
        while name in self._names:
            number += 1
            name = f"{base}_{number}"
        self._names.add(name)
        dtype = str(getattr(tensor.dtype, "name", tensor.dtype))
        return Quantizer(ranges or self._ranges, bits=grid.bits, name=name, dtype=dtype, **arguments)(tensor)

    def _layer(self, call: Call) -> Any:
        if id(call.operation) not in self._wrapped:
            self._wrapped[id(call.operation)] = self._wrap(call)
        return self._wrapped[id(call.operation)]

    def _wrap(self, call: Call) -> Any:
        operation = call.operation
        grid = self._rules.weights(operation)
        if grid is None or not isinstance(operation, keras.layers.Layer) or kind_of(operation) in _STATEFUL:
            return operation
        layer, transforms = operation, {}
        if isinstance(operation, Transformed):
            layer, transforms = operation.layer, operation.transforms
        steps: dict[str, list[Transform]] = {name: list(old) for name, old in transforms.items()}
        grids = used_grids(call, kernel_grids(layer, grid))
        if id(layer) in self._bare:
            grids = dict.fromkeys(named_weights(layer), bare_grid(grid, self._bare[id(layer)]))
        for name, resolved in grids.items():
            steps.setdefault(name, []).append(FakeQuantWeight(resolved))
        return Transformed(layer, steps) if steps else operation

    def _quantized_input(self, old: Any, new: Any) -> Any:
        grid = self._rules.inputs
        if not self._placement.inputs.get(id(old)) or grid is None:
            return new
        if id(old) not in self._inputs:
            self._inputs[id(old)] = self._quantizer(f"{flavor.input_name(old)}_range", grid, new)
        return self._inputs[id(old)]

    def _note(self, old: Call, boundary: Boundary | str, grid: Any) -> None:
        """Why something was not done to a layer."""
        operation = old.operation
        reasons = []
        if not self._rules.selected(operation):
            reasons.append("not selected")
        elif isinstance(boundary, str):
            reasons.append(boundary)
        elif grid is None:
            reasons.append("its range is measured when the file is made")
        if isinstance(operation, Opaque):
            reasons.append(f"not opened ({operation.reason}): ranges inside are measured when the file is made")
        elif kind_of(operation) is Kind.OTHER and getattr(operation, "weights", None):
            reasons.append("ranges inside are measured when the file is made")
        if reasons:
            self.notes[operation.name] = "; ".join(reasons)

    def call(self, old: Call, args: Any, kwargs: Any) -> Any:
        before, given = flavor.flatten((old.args, old.kwargs)), (args, kwargs)
        pairs = iter([self._quantized_input(b, n) for b, n in zip(before, flavor.flatten(given), strict=True)])
        args, kwargs = flavor.map_structure(lambda _: next(pairs), given)
        boundary, grid = self._placement.of(old), self._rules.activations(old.operation)
        if id(old.operation) in self._bare and self._rules.weights(old.operation) is not None:
            boundary = "the kernel of a product: no range"
        self._note(old, boundary, grid)
        if isinstance(boundary, str) or grid is None:
            return self._layer(old)(*args, **kwargs)
        name, relu = f"{old.name}_range", boundary.relu if self._placement.called_once(old) else None
        if relu and kind_of(old.operation) is Kind.RELU:  # the quantizer computes it, under its name
            self._names.discard(old.name)
            return self._quantizer(old.name, grid, flavor.flatten((args, kwargs))[0], activation=relu)
        if relu:
            old.operation.activation = keras.activations.linear
        outputs = self._layer(old)(*args, **kwargs)
        first, *others = flavor.flatten(outputs)
        if kind_of(old.operation) is Kind.CONSTANT:
            return self._quantizer(name, grid, first, ranges=MovingAverage(momentum=0.0, rows=None))
        masked = boundary.ranges
        if masked is not None and isinstance(self._ranges, MovingAverage):
            masked = replace(masked, momentum=self._ranges.momentum)
        first = self._quantizer(
            name, grid, first, masked, fixed=boundary.fixed(grid.bits), activation=relu, balanced=boundary.balanced
        )
        return flavor.pack_like(outputs, [first, *others])


def quantize_model(
    model: Any,
    scheme: str | Scheme = "int8",
    *,
    select: Any = None,
    ranges: str | Ranges = "ema",
    kernels: str | None = None,
) -> Any:
    """The model as the integer runtime will compute it, ready for an ordinary `compile` and `fit`.

    Kernels compute on their integer grid (gradients reach the float values behind them), and a quantizer stands
    wherever the runtime has a tensor boundary. Composite layers and subclassed models are opened first. What no rule
    knows keeps a quantizer at its output; the ranges inside are measured when the file is made.

    Args:
        model: a built model of the current Keras flavor: Functional, Sequential or subclassed. It is not changed.
        scheme: "int8", "int8_per_tensor", "int16x8", "w4a8", or a `Scheme`.
        select: which layers: a layer class, a name pattern ("head/*"), a layer, a predicate, or a list of these.
            Default: all. Layers left out are neither trained nor simulated as integers; the exporter measures them.
        ranges: how activation ranges are found while training: "ema", "percentile", "lsq", or an object of
            `tfcompress.quantize` such as `MovingAverage(momentum=0.9)`.
        kernels: "xnnpack" (phones, LiteRT's default), "reference" (LiteRT's reference kernels) or "tflm"
            (microcontrollers): inference (`evaluate`, `predict`, validation in `fit`) then gives the very integers
            that these kernels give for the exported file; `tfcompress.quantize.faithful_ops()` lists the operations,
            and `tfcompress.summary` the layers that are only approximate. None: values are rounded to the same grids,
            but sums are not, so that single outputs differ by a step.

    Returns:
        A new, uncompiled Functional model with the weights of `model`.

    Raises:
        TypeError: not a model, or one of the other Keras flavor.
        ValueError: the model is not built, holds NaN or infinity, or is quantized already; the scheme is unknown; a
            selection matches nothing.

    Source: Jacob et al. 2018, arXiv:1712.05877.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="relu", name="body")])
    >>> [layer.name for layer in quantize_model(model).layers][-2:]
    ['body', 'body_range']
    """
    flavor.check_model(model)
    check_finite(model)
    if not isinstance(scheme, Scheme):
        scheme = Scheme.named(scheme)
    how, evaluator = resolve(ranges), None if kernels is None else Faithful(kernels)
    if quantizers(model) or any(_is_quantized(layer) for layer in transformed_layers(model)):
        raise ValueError(f"`model` must not be quantized yet. Received: {model.name!r}, which holds quantizers")
    flat = expand(trace(model))
    if scheme.fold_batch_norm:
        flat = fold_batch_norm(flat)
    rules = _Rules(scheme, select, flat)
    builder = _Builder(flat, rules, how)
    quantized = replay(flat, builder.call)
    if not quantizers(quantized) and not transformed_layers(quantized):
        raise ValueError(f"`model` must hold something to quantize: no kernel and no activation in {model.name!r}")
    if evaluator is None:
        return noted(quantized, builder.notes)
    return noted(quantized, builder.notes | evaluator.approximate(quantized), evaluator)


def _is_quantized(layer: Transformed) -> bool:
    return any(isinstance(step, FakeQuantWeight) for steps in layer.transforms.values() for step in steps)
