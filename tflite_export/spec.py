"""What to export: precision, types at the boundary, batch size. Valid once it is made."""

from dataclasses import dataclass

PRECISIONS = ("float32", "float16", "dynamic", "int8", "int16x8")
METHODS = ("minmax", "percentile", "mse", "entropy")
INTEGERS = {"int8": ("int8", "uint8"), "int16x8": ("int16",)}


@dataclass(frozen=True)
class ExportSpec:
    """What a file shall be.

    Attributes:
        precision: "float32"; "float16" (constants stored in half precision); "dynamic" (kernels in 8 bits, activations
            float); "int8" (everything in 8 bits); "int16x8" (activations in 16 bits, kernels in 8).
        inputs: type of the float inputs in the file: "float32", or the integers themselves: "int8" or "uint8" for
            int8, "int16" for int16x8. Inputs that hold integers in Keras (token numbers) keep their type.
        outputs: type of the outputs, likewise.
        batch_size: rows in one run of the file, >= 1; fixed, so that a microcontroller can plan its memory.
        allow_float: whether an integer file may hold operations that compute in float.
        allow_collapse: whether tensors of an integer file may hold almost nothing of what they hold in float.
        range_method: how the range of a tensor follows from its measured values: "minmax", "percentile", "mse" or
            "entropy".
        int4: how kernels of 4 and less bits are stored: "packed" (two in a byte, where the operation runs that) or
            "unpacked" (one in a byte, the same integers).
        normalizations: what layer, group, RMS and unit normalization compute in between their rows and their result, in
            an int8 file: "int16" or "int8".
        signature: key of the file's signature.
        sparse: whether kernels with many zeros are stored without them (float32).

    Raises:
        ValueError: an attribute is none of the allowed values, or two do not go together.
    """

    precision: str = "float32"
    inputs: str = "float32"
    outputs: str = "float32"
    batch_size: int = 1
    allow_float: bool = False
    allow_collapse: bool = False
    range_method: str = "minmax"
    int4: str = "packed"
    signature: str = "serving_default"
    sparse: bool = False
    normalizations: str = "int16"

    def __post_init__(self) -> None:
        _one_of("precision", self.precision, PRECISIONS)
        allowed = ("float32", *INTEGERS.get(self.precision, ()))
        for side, value in (("inputs", self.inputs), ("outputs", self.outputs)):
            if value not in allowed:
                raise ValueError(
                    f"`{side}` must be one of {list(allowed)} for precision {self.precision!r}. "
                    f"Received: {side}={value!r}"
                )
        if isinstance(self.batch_size, bool) or not isinstance(self.batch_size, int) or self.batch_size < 1:
            raise ValueError(f"`batch_size` must be a whole number >= 1. Received: batch_size={self.batch_size!r}")
        _one_of("range_method", self.range_method, METHODS)
        _one_of("int4", self.int4, ("packed", "unpacked"))
        _one_of("normalizations", self.normalizations, ("int16", "int8"))
        if self.sparse and self.precision != "float32":
            raise ValueError(
                f"`sparse` needs precision 'float32': the kernels that leave zeros out compute in it. "
                f"Received: precision={self.precision!r}"
            )
        if not isinstance(self.signature, str) or not self.signature:
            raise ValueError(f"`signature` must be a name. Received: signature={self.signature!r}")

    @property
    def is_integer(self) -> bool:
        """Whether the file computes in integers."""
        return self.precision in INTEGERS


def _one_of(argument: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"`{argument}` must be one of {list(allowed)}. Received: {argument}={value!r}")
