"""Conditions that rules are made of. Each takes an operator and says what stands in the way, if anything."""

from collections.abc import Callable
from dataclasses import dataclass

from tflite_export.auditing.use import Use
from tflite_export.graph import FLOATS, PACKED, Tensor

_LONGEST = 40


@dataclass(frozen=True)
class Obstacle:
    """Why an operator does not run somewhere, in words for the one who made the model.

    Attributes:
        reason: what is in the way.
        way_out: what helps; "" when nothing is known to.
    """

    reason: str
    way_out: str = ""


Check = Callable[[Use], Obstacle | None]

_TO_INT8 = 'export "int8" from a calibrated model'
_WAYS_FROM = {
    "FLOAT32": _TO_INT8,
    "FLOAT16": 'export "float32" or "int8"',
    "UINT8": 'convert the model again as "int8": unsigned files come from the old converter',
    "INT16": 'export "int8": 16-bit activations have few kernels',
    "INT64": "cast indices to int32 in the model",
    "INT4": "keep these weights in 8 bits",
    "INT8": 'export "float32" or "float16"',
    "BOOL": "compute with numbers instead of truth values",
    "STRING": "handle text outside the model",
}


def types(*allowed: str) -> Check:
    """The values that an operation works on and its first output are of one of these types."""

    def check(use: Use) -> Obstacle | None:
        if use.op.kind in ("ARG_MAX", "ARG_MIN", *_COMPARISONS):
            tensors = [use.input(0)]
        else:
            tensors = [*(use.input(place) for place in use.data_places), use.output()]
        for tensor in tensors:
            if tensor is not None and tensor.type not in allowed:
                way = _WAYS_FROM.get(tensor.type, "")
                return Obstacle(f"it computes in {tensor.type}; there it runs in {_or(allowed)}", way)
        return None

    return check


_COMPARISONS = ("EQUAL", "NOT_EQUAL", "LESS", "LESS_EQUAL", "GREATER", "GREATER_EQUAL")


def moving_types(*allowed: str) -> Check:
    """Every input that is no constant, and every output, is of one of these types."""

    def check(use: Use) -> Obstacle | None:
        for tensor in use.moving():
            if tensor.type not in allowed:
                return _other_type(f"its {label(tensor)}", tensor.type, allowed)
        return None

    return check


def input_type(place: int, *allowed: str, what: str) -> Check:
    """One input, called `what`, is of one of these types, where it is given."""

    def check(use: Use) -> Obstacle | None:
        tensor = use.input(place)
        if tensor is None or tensor.type in allowed:
            return None
        return _other_type(f"its {what}", tensor.type, allowed)

    return check


def output_type(*allowed: str) -> Check:
    """The first output is of one of these types."""

    def check(use: Use) -> Obstacle | None:
        tensor = use.output()
        if tensor is None or tensor.type in allowed:
            return None
        return _other_type("its output", tensor.type, allowed)

    return check


def not_hybrid(place: int = 1) -> Check:
    """Float values do not meet integer weights (dynamic-range quantization)."""

    def check(use: Use) -> Obstacle | None:
        data, weights = use.input(use.data_places[0]), use.input(place)
        if data is None or weights is None or data.type not in FLOATS or weights.type in FLOATS:
            return None
        return Obstacle(f"float values meet {weights.type} weights (dynamic-range quantization)", _TO_INT8)

    return check


def rank(place: int, least: int, most: int) -> Check:
    """An input has between `least` and `most` axes."""

    def check(use: Use) -> Obstacle | None:
        tensor = use.input(place)
        if tensor is None or least <= len(tensor.shape) <= most:
            return None
        wanted = f"{least}" if least == most else f"at most {most}" if least <= 1 else f"{least} to {most}"
        return Obstacle(f"its input has {len(tensor.shape)} axes; there it takes {wanted}", "reshape in front of it")

    return check


def every_rank(most: int) -> Check:
    """No input or output has more than `most` axes."""

    def check(use: Use) -> Obstacle | None:
        longest = max((len(tensor.shape) for tensor in use.tensors()), default=0)
        if longest <= most:
            return None
        return Obstacle(f"a tensor of it has {longest} axes; there it takes at most {most}", "merge axes by a reshape")

    return check


def constant(place: int, what: str) -> Check:
    """An input is a constant of the file, or left out."""

    def check(use: Use) -> Obstacle | None:
        if use.input(place) is None or use.constant(place) is not None:
            return None
        return Obstacle(f"its {what} is computed while the model runs", f"make the {what} a constant of the model")

    return check


def number_of_inputs(least: int, most: int) -> Check:
    """Inputs that are given, constants included."""

    def check(use: Use) -> Obstacle | None:
        given = sum(index >= 0 for index in use.op.inputs)
        if least <= given <= most:
            return None
        wanted = f"{least}" if least == most else f"{least} to {most}"
        return Obstacle(f"it has {given} inputs; there it takes {wanted}", "split it into several operations")

    return check


def activation(*allowed: str) -> Check:
    """Nothing else than these is fused into the operation; none is always allowed."""

    def check(use: Use) -> Obstacle | None:
        if use.activation in ("NONE", *allowed):
            return None
        return Obstacle(f"{use.activation} is fused into it", "use an activation layer of its own behind it")

    return check


def no_slice_masks(use: Use) -> Obstacle | None:
    """A slice neither adds nor drops axes."""
    for name in ("ellipsisMask", "newAxisMask", "shrinkAxisMask"):
        if use.option(name, 0):
            return Obstacle("the slice adds or drops an axis", "slice with ranges (x[:, 0:1]) and reshape afterwards")
    return None


def packed_per_tensor(place: int, what: str) -> Check:
    """Weights below 8 bits have one scale."""

    def check(use: Use) -> Obstacle | None:
        tensor = use.input(place)
        if tensor is None or tensor.type not in PACKED or tensor.quantization is None:
            return None
        if tensor.quantization.scale.size <= 1 and tensor.quantization.scheme == "affine":
            return None
        return Obstacle(
            f"its {what} is {tensor.type} with a scale for each channel or block",
            "use one scale for these weights, or 8 bits",
        )

    return check


def affine(place: int, what: str) -> Check:
    """Weights are not quantized in blocks or another way than one scale a tensor or channel."""

    def check(use: Use) -> Obstacle | None:
        tensor = use.input(place)
        if tensor is None or tensor.quantization is None or tensor.quantization.scheme == "affine":
            return None
        return Obstacle(f"its {what} uses {tensor.quantization.scheme}", "quantize it per channel or per tensor")

    return check


def quantized(use: Use) -> Obstacle | None:
    """Every 8- or 16-bit tensor has a grid."""
    for tensor in use.tensors():
        if tensor.type in ("INT8", "UINT8", "INT16") and tensor.quantization is None:
            return Obstacle(f"its {label(tensor)} is {tensor.type} without scale and zero point", _TO_INT8)
    return None


def keeps_batch(place: int) -> Check:
    """The axes that an input names do not hold the batch axis."""

    def check(use: Use) -> Obstacle | None:
        data, axes = use.input(0), use.integers(place)
        if data is None or axes is None:
            return None
        if any(axis in (0, -len(data.shape)) for axis in axes) and data.shape and data.shape[0] != 1:
            return Obstacle("it works along the batch axis", "use a batch of 1, or another axis")
        return None

    return check


def not_sparse(use: Use) -> Obstacle | None:
    """No tensor is stored sparse."""
    if any(tensor.is_sparse for tensor in use.tensors()):
        return Obstacle("its weights are stored sparse", "export without sparse storage; zeros may stay")
    return None


def beta_is_one(use: Use) -> Obstacle | None:
    """A softmax does not sharpen its values."""
    if use.option("beta", 1.0) == 1.0:
        return None
    return Obstacle(f"its beta is {use.option('beta'):g}, not 1", "scale the values in front of it")


def reflects(use: Use) -> Obstacle | None:
    """A mirrored padding leaves the edge out."""
    if use.option("mode", 0) == 0:
        return None
    return Obstacle("it mirrors the edge, too", 'pad with mode "reflect"')


def default_weights(use: Use) -> Obstacle | None:
    """The weights of a dense layer are stored row by row."""
    return Obstacle("its weights are stored shuffled") if use.option("weightsFormat", 0) else None


def unpacks_constant(use: Use) -> bool:
    """Whether the operator only spells out a float16 or sparse constant, which most runtimes do once when opening."""
    return use.op.kind in ("DEQUANTIZE", "DENSIFY") and use.constant(0) is not None


def label(tensor: Tensor) -> str:
    """A tensor as messages call it: the first of the names that the converter joined with ";", its end if it is long.

    >>> from types import SimpleNamespace
    >>> label(SimpleNamespace(name="dense/MatMul;dense/BiasAdd"))
    "tensor 'dense/MatMul'"
    """
    first = tensor.name.split(";")[0]
    return f"tensor {first if len(first) <= _LONGEST else '...' + first[3 - _LONGEST :]!r}"


def _other_type(what: str, received: str, allowed: tuple[str, ...]) -> Obstacle:
    return Obstacle(f"{what} is {received}; there it must be {_or(allowed)}", _WAYS_FROM.get(received, ""))


def _or(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
