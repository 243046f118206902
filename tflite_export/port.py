"""An input or output of a file under its name: checks what is fed, and translates between real values and integers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tflite_export.graph import Model, Quantization, Signature, Tensor


@dataclass(frozen=True)
class Port:
    """One named input or output.

    Attributes:
        name: as the signature says.
        tensor: behind the name.
    """

    name: str
    tensor: Tensor

    @property
    def grid(self) -> Quantization | None:
        """The integer grid of its values; None when the runtime takes or gives them as they are."""
        grid = self.tensor.quantization
        integer = self.tensor.type in ("INT8", "UINT8", "INT16", "INT4")
        return grid if integer and grid is not None and grid.scale.size else None

    @property
    def batch(self) -> int:
        """Rows that one run of the file takes; 1 when the file leaves it open, or has no axes at all."""
        if not self.tensor.shape or self.tensor.dynamic[0] < 0:
            return 1
        return max(1, self.tensor.shape[0])

    @property
    def text(self) -> str:
        """Name, type and shape as messages say them."""
        return f"{self.name!r} {self.tensor.type.lower()}{list(self.tensor.dynamic)}"

    def feed(self, values: Any, *, raw: bool) -> np.ndarray:
        """What is written into the tensor, for any number of rows.

        Args:
            values: [rows, ...] real values.
            raw: take an array that already has the file's integer type as integers of its grid.

        Returns:
            [rows, ...] in the tensor's type.

        Raises:
            ValueError: the shape, the type or a value does not fit; the message says what was expected.
        """
        array = np.asarray(values)
        self._check_shape(array)
        dtype = self.tensor.dtype
        if dtype is None:
            return array
        if self.grid is not None:
            if raw and array.dtype == dtype:
                return array
            self._check_kind(array, "fiub", "real values")
            if array.dtype.kind == "f" and np.isnan(array).any():
                raise ValueError(f"Input {self.text}: the values hold NaN, which has no integer")
            return self.grid.integers(array, dtype)
        if dtype.kind == "f":
            self._check_kind(array, "fiub", "real values")
        elif dtype.kind in "iu":
            self._check_kind(array, "iub", "whole numbers in an integer type")
            limits = np.iinfo(dtype)
            if array.size and not (limits.min <= int(array.min()) and int(array.max()) <= limits.max):
                raise ValueError(f"Input {self.text}: values {array.min()} to {array.max()} do not fit the type")
        elif dtype.kind == "b":
            self._check_kind(array, "biu", "booleans")
        return array.astype(dtype, copy=False)

    def real(self, raw: np.ndarray) -> np.ndarray:
        """Real values of what was read from the tensor."""
        return raw if self.grid is None else self.grid.real(raw)

    def _check_kind(self, array: np.ndarray, kinds: str, what: str) -> None:
        if array.dtype.kind not in kinds:
            raise ValueError(f"Input {self.text} takes {what}. Received: an array of {array.dtype}")

    def _check_shape(self, array: np.ndarray) -> None:
        expected = self.tensor.dynamic
        fits = array.ndim == len(expected) and all(
            want < 0 or want == got for want, got in zip(expected[1:], array.shape[1:], strict=True)
        )
        if not fits:
            row = ", ".join("any" if size < 0 else str(size) for size in expected[1:])
            wanted = f"[rows{', ' + row if row else ''}]" if expected else "[]"
            raise ValueError(f"Input {self.text} takes an array of shape {wanted}. Received: {list(array.shape)}")


def ports(model: Model, signature: Signature, side: str) -> tuple[Port, ...]:
    """The inputs or outputs (`side`) of a signature, in the order of the subgraph's."""
    tensors = model.subgraphs[signature.subgraph].tensors
    return tuple(Port(name, tensors[index]) for name, index in getattr(signature, side).items())


def arranged(inputs: Sequence[Port], values: Any) -> list[Any]:
    """What the caller gave, one entry an input.

    Args:
        inputs: of the file.
        values: a dict by name, a list or tuple in the order of `inputs`, or the only input itself.

    Raises:
        ValueError: names or number do not match; the message lists the inputs.
    """
    names = [port.name for port in inputs]
    if isinstance(values, Mapping):
        if set(values) != set(names):
            raise ValueError(f"The inputs are {names}. Received: {list(values)}")
        return [values[name] for name in names]
    # A list of numbers or of rows is one input: only a list of as many arrays as there are inputs is several.
    if len(inputs) == 1 and not (isinstance(values, (list, tuple)) and len(values) == 1 and _is_array(values[0])):
        return [values]
    if not isinstance(values, (list, tuple)) or len(values) != len(inputs):
        got = f"{len(values)} of them" if isinstance(values, (list, tuple)) else type(values).__name__
        raise ValueError(f"The file takes {len(inputs)} inputs, {names}, as a list or by name. Received: {got}")
    return list(values)


def filled(port: Port, array: np.ndarray, times: int) -> np.ndarray:
    """Rows for `times` runs: the last one is repeated where the file's batch asks for more than there are."""
    short = times * port.batch - array.shape[0] if array.ndim else 0
    return np.concatenate([array, np.repeat(array[-1:], short, axis=0)]) if short > 0 else array


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and len(value.shape) > 0


def runs(inputs: Sequence[Port], arrays: Sequence[np.ndarray]) -> int:
    """How often the file must run to take all rows, the last time maybe not all of its batch.

    Raises:
        ValueError: there are no rows, or their numbers differ between inputs.
    """
    counts = {}
    for port, array in zip(inputs, arrays, strict=True):
        if array.ndim == 0:
            continue
        if array.shape[0] == 0:
            raise ValueError(f"Input {port.text}: no rows. Received: shape {list(array.shape)}")
        counts[port.name] = array.shape[0] / port.batch
    if len(set(counts.values())) > 1:
        rows = {port.name: array.shape[0] for port, array in zip(inputs, arrays, strict=True) if array.ndim}
        raise ValueError(f"All inputs must have the same number of rows. Received: {rows}")
    return int(np.ceil(next(iter(counts.values()), 1)))
