"""Where the integer runtime has a tensor boundary: after which calls of a flat graph a quantizer stands."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from tfcompress.core.flavor import keras
from tfcompress.core.replay import Call, calls, readers
from tfcompress.quantize.bare import factors
from tfcompress.quantize.kinds import Kind, activation_name, fixed_range, kind_of, relu_of
from tfcompress.quantize.masks import Masks
from tfcompress.quantize.ranges import MaskedScores

_FUSES = {Kind.NORM: {Kind.PRODUCT}, Kind.RELU: {Kind.PRODUCT, Kind.JOIN, Kind.NORM}}
_NO_BOUNDARY = {
    Kind.SAME: "keeps the range of its input",
    Kind.TRANSPARENT: "does nothing at inference",
    Kind.TABLE: "rows have the scale of the weight",
}


@dataclass(frozen=True)
class Boundary:
    """A quantizer to be placed.

    Attributes:
        operation: the layer or operation whose output it is.
        is_fixed: the runtime prescribes the range.
        relu: "relu" or "relu6" when the operation ends in one: the quantizer can compute it.
        ranges: how the range is found, where a mask decides it.
        balanced: whether it is a factor of a product of activations, which is fast with the zero point 0.
    """

    operation: Any
    is_fixed: bool = False
    relu: str | None = None
    ranges: MaskedScores | None = None
    balanced: bool = False

    def fixed(self, bits: int) -> tuple[float, float] | None:
        return fixed_range(self.operation, bits) if self.is_fixed else None


def is_float(tensor: Any) -> bool:
    """Whether a symbolic tensor holds real numbers."""
    return "float" in str(getattr(tensor.dtype, "name", tensor.dtype))


def _kind_of(call: Call) -> Kind:
    """The kind of the operation in this call: a table can also be the matrix of a product (a tied head)."""
    kind = kind_of(call.operation)
    if kind is Kind.TABLE and call.inputs and len(call.outputs[0].shape) == len(call.inputs[0].shape):
        return Kind.PRODUCT
    return kind


def _is_whole(call: Call, kind: Kind) -> bool:
    """Whether a call moves whole numbers about; Keras 3 says of some such results that they were real ones."""
    moves = kind in (Kind.SAME, Kind.CONCAT, Kind.TRANSPARENT) and call.inputs
    return bool(moves) and not any(is_float(tensor) for tensor in call.inputs)


class Placement:
    """The boundaries of a flat graph.

    Args:
        model: a flat Functional model, activations that are not fused taken apart.
    """

    def __init__(self, model: Any) -> None:
        self._outputs = {id(t) for t in model.outputs}
        self._readers = readers(calls(model))
        self._masks = Masks(model)
        self._factors = self._found_factors(model)
        self._times = Counter(id(call.operation) for call in calls(model))
        self._after = {self._key(call): self._boundary(call) for call in calls(model)}
        self.inputs = {id(t): self._has_own_range(t) for t in model.inputs}

    @staticmethod
    def _key(call: Call) -> int:
        return id(call.outputs[0]) if call.outputs else 0

    def of(self, call: Call) -> Boundary | str:
        """The boundary behind a call, or the reason why there is none."""
        return self._after[self._key(call)]

    def called_once(self, call: Call) -> bool:
        """Whether the layer serves only this call."""
        return self._times[id(call.operation)] == 1

    def _has_own_range(self, tensor: Any) -> bool:
        """Whether an input of the model is real numbers, not indices in a float's clothes, on a grid of its own.

        One that only goes to a concatenation has that one's grid: it may be a cache that grows by what is joined to it.
        """
        if id(tensor) in self._outputs or not is_float(tensor):
            return is_float(tensor)
        after = self._readers.get(id(tensor), [])
        if len(after) == 1 and kind_of(after[0].operation) is Kind.CONCAT:
            return id(after[0].outputs[0]) in self._masks.carried
        return not all(isinstance(c.operation, keras.layers.Embedding) for c in after)

    def _only_reader(self, call: Call) -> Call | None:
        """The call that alone reads this one's output, seen through what does nothing at inference."""
        if len(call.outputs) != 1 or id(call.outputs[0]) in self._outputs:
            return None
        after = self._readers.get(id(call.outputs[0]), [])
        if len(after) != 1:
            return None
        return self._only_reader(after[0]) if kind_of(after[0].operation) is Kind.TRANSPARENT else after[0]

    def _boundary(self, call: Call) -> Boundary | str:
        kind = _kind_of(call)
        masked = self._masks.ends.get(self._key(call))
        if masked is not None:
            return Boundary(call.operation, ranges=masked)
        if kind in _NO_BOUNDARY:
            return _NO_BOUNDARY[kind]
        if not call.outputs or not is_float(call.outputs[0]) or _is_whole(call, kind):
            return "its output is no real number"
        if id(call.outputs[0]) in self._masks.carried:
            return "carries a mask: its range is measured when the file is made"
        if id(call.outputs[0]) in self._masks.parts:
            return "becomes a mask: its range is measured when the file is made"
        reader = self._only_reader(call)
        if reader is not None:
            after = kind_of(reader.operation)
            if kind in _FUSES.get(after, ()) and activation_name(call.operation) in ("linear", ""):
                return f"computed together with {reader.name}"
            if after is Kind.CONCAT and kind is not Kind.FIXED and id(reader.outputs[0]) not in self._masks.carried:
                return f"shares the range of {reader.name}"
        relu = relu_of(call.operation) if kind in (Kind.RELU, Kind.PRODUCT) else None
        return Boundary(call.operation, kind is Kind.FIXED, relu, balanced=self._key(call) in self._factors)

    def _found_factors(self, model: Any) -> set[int]:
        """The calls whose results are factors of a product of two activations, at once or behind moves of numbers."""
        makers = {id(tensor): call for call in calls(model) for tensor in call.outputs}
        found = set()
        for tensor in factors(model):
            maker = makers.get(id(tensor))
            while maker is not None and kind_of(maker.operation) in (Kind.SAME, Kind.TRANSPARENT) and maker.inputs:
                maker = makers.get(id(maker.inputs[0]))
            if maker is not None:
                found.add(self._key(maker))
        return found
