"""What a `.tflite` file holds, as plain objects: model, subgraphs, operators, tensors and their integer grids."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

# Numpy type of each TensorType that has one; the other types are packed or unknown to numpy (see `Tensor.values`).
DTYPES: dict[str, np.dtype] = {
    "FLOAT32": np.dtype("<f4"),
    "FLOAT16": np.dtype("<f2"),
    "FLOAT64": np.dtype("<f8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "BOOL": np.dtype("?"),
    "COMPLEX64": np.dtype("<c8"),
    "COMPLEX128": np.dtype("<c16"),
}
FLOATS = frozenset({"FLOAT16", "FLOAT32", "FLOAT64", "BFLOAT16", "FLOAT8_E4M3FN", "FLOAT8_E5M2"})
# Types of several values a byte: (bits, signed). The low bits of a byte are the earlier value.
PACKED = {"INT4": (4, True), "UINT4": (4, False), "INT2": (2, True)}


@dataclass(frozen=True)
class Quantization:
    """An integer grid: real = scale * (integer - zero_point).

    Attributes:
        scale: float32 [1] for the whole tensor, or [C] for each slice along `axis`; [0] when another scheme is used.
        zero_point: int64, as long as `scale`.
        axis: the axis that [C] belongs to.
        scheme: "affine", or the name of the schema's other ways ("BlockwiseQuantization", ...), which have no `scale`.
    """

    scale: np.ndarray
    zero_point: np.ndarray
    axis: int = 0
    scheme: str = "affine"

    def _along(self, values: np.ndarray, rank: int) -> np.ndarray:
        """`values` ([1] or [C]) shaped so that it broadcasts over a tensor of `rank` axes."""
        if values.size == 1:
            return values.reshape(())
        return values.reshape([-1 if axis == self.axis else 1 for axis in range(rank)])

    def real(self, integers: np.ndarray) -> np.ndarray:
        """scale * (integer - zero_point) as float32, in the shape of `integers`."""
        scale, zero = self._along(self.scale, integers.ndim), self._along(self.zero_point, integers.ndim)
        return ((integers.astype(np.int64) - zero) * scale).astype(np.float32)

    def integers(self, real: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """clip(round(real / scale) + zero_point), halves to the even integer as XNNPACK does, in the shape of `real`.

        >>> grid = Quantization(np.float32([0.5]), np.array([3]))
        >>> grid.integers(np.array([0.0, 0.25, 0.75, 1e9]), np.dtype("int8")).tolist()
        [3, 3, 5, 127]
        """
        scale, zero = self._along(self.scale, real.ndim), self._along(self.zero_point, real.ndim)
        limits = np.iinfo(dtype)
        steps = np.round(real.astype(np.float32) / scale).astype(np.float64) + zero
        return np.clip(steps, limits.min, limits.max).astype(dtype)


@dataclass(frozen=True)
class Tensor:
    """A tensor of a subgraph.

    Attributes:
        index: its number in the subgraph.
        name: as the file says; may be empty, and need not be unique.
        shape: with 1 where the size is only known when the model runs (see `dynamic`).
        dynamic: as `shape`, with -1 for sizes known only at run time.
        type: name in the schema's TensorType, such as "INT8".
        buffer: number of the buffer that holds its constant; tensors may share one.
        data: uint8 [bytes], the constant's bytes; None for a tensor that is computed or fed.
        quantization: its grid, None when there is none.
        is_variable: keeps its value from one inference to the next (the state of a recurrent operation).
        is_sparse: `data` holds only what the sparsity parameters point at.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    dynamic: tuple[int, ...]
    type: str
    buffer: int
    data: np.ndarray | None = field(repr=False)
    quantization: Quantization | None = field(repr=False)
    is_variable: bool = False
    is_sparse: bool = False

    @property
    def size(self) -> int:
        """Number of values."""
        size = 1
        for dimension in self.shape:
            size *= dimension
        return size

    @property
    def dtype(self) -> np.dtype | None:
        """Numpy type of one value as the interpreter hands it out; None for strings and types unknown to numpy."""
        return DTYPES.get("INT8" if self.type in PACKED and PACKED[self.type][1] else self.type)

    @property
    def stored(self) -> np.ndarray:
        """The constant's values as they lie in the file, flat: packed ones unpacked, sparse ones not spread out.

        Raises:
            ValueError: the tensor is no constant, or its bytes are not a whole number of values of a type numpy has.
        """
        if self.data is None:
            raise ValueError(f"Tensor {self.index} ({self.name!r}) is no constant")
        if self.type in PACKED:
            return _unpacked(self.data, *PACKED[self.type])
        if self.type == "BFLOAT16" and self.data.size % 2 == 0:
            return (self.data.view("<u2").astype(np.uint32) << 16).view(np.float32)
        dtype = DTYPES.get(self.type)
        if dtype is None or self.data.size % dtype.itemsize:
            what = f"Tensor {self.index} ({self.name!r})"
            raise ValueError(f"{what}: {self.data.size} bytes hold no array of {self.type}")
        return np.ascontiguousarray(self.data).view(dtype)

    def values(self) -> np.ndarray:
        """The constant in its shape, integers as integers.

        Raises:
            ValueError: as `stored`; or the values are too few for the shape, or the tensor is sparse.
        """
        if self.is_sparse:
            raise ValueError(f"Tensor {self.index} ({self.name!r}) is sparse: its values are not stored in its shape")
        stored = self.stored[: self.size] if self.type in PACKED else self.stored
        if stored.size != self.size:
            raise ValueError(
                f"Tensor {self.index} ({self.name!r}): shape {list(self.shape)} needs {self.size} values, "
                f"the file holds {stored.size}"
            )
        return stored.reshape(self.shape)


def _unpacked(data: np.ndarray, bits: int, signed: bool) -> np.ndarray:
    """int8 or uint8 values of `bits` bits each out of bytes, low bits first.

    >>> _unpacked(np.array([0x7F], "uint8"), 4, True).tolist()
    [-1, 7]
    """
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes = ((data[:, None] >> shifts) & ((1 << bits) - 1)).reshape(-1)
    if not signed:
        return codes
    return ((codes ^ (1 << (bits - 1))).astype(np.int8) - (1 << (bits - 1))).astype(np.int8)


@dataclass(frozen=True)
class Operator:
    """An operator of a subgraph.

    Attributes:
        index: its place in the order of execution.
        kind: name in the schema's BuiltinOperator, such as "CONV_2D", or the name of a custom operation.
        is_custom: whether `kind` is the name of a custom operation.
        version: of the operation, as the file asks for it.
        inputs: tensor numbers; -1 for an optional input that is left out.
        outputs: tensor numbers.
        options: the schema's `...OptionsT` object, None when there is none.
    """

    index: int
    kind: str
    is_custom: bool
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Any = field(repr=False, default=None)


@dataclass(frozen=True)
class Subgraph:
    """A graph of operators; the first one of a file is what runs when nothing else is asked for."""

    index: int
    name: str
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @cached_property
    def maker(self) -> Mapping[int, Operator]:
        """tensor number -> the operator that computes it."""
        return {output: operator for operator in self.operators for output in operator.outputs}

    def constant(self, index: int) -> Tensor | None:
        """The constant that a tensor's values come from, also through operations that only re-spell a constant.

        Float16 and sparse files keep a kernel as constant -> DEQUANTIZE or DENSIFY -> kernel.
        """
        for _ in range(4):
            if not 0 <= index < len(self.tensors):
                return None
            if self.tensors[index].data is not None:
                return self.tensors[index]
            maker = self.maker.get(index)
            if maker is None or maker.kind not in ("DEQUANTIZE", "DENSIFY", "QUANTIZE") or not maker.inputs:
                return None
            index = maker.inputs[0]
        return None


@dataclass(frozen=True)
class Signature:
    """Names of the inputs and outputs of a subgraph, as the user of the file calls them.

    Attributes:
        key: the signature's name; empty when the file has none and the names are those of the tensors.
        subgraph: number of the subgraph that it calls.
        inputs: name -> tensor number, in the order of the subgraph's inputs.
        outputs: name -> tensor number, in the order of the subgraph's outputs.
    """

    key: str
    subgraph: int
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]


@dataclass(frozen=True)
class Model:
    """A whole file.

    Attributes:
        size: bytes of the file.
        version: of the schema, 3 today.
        description: the free text of the one who wrote it.
        subgraphs: at least one.
        signatures: at least one: where the file has none, one that names the first subgraph's tensors.
        metadata: name -> uint8 bytes.
    """

    size: int
    version: int
    description: str
    subgraphs: tuple[Subgraph, ...]
    signatures: tuple[Signature, ...]
    metadata: Mapping[str, np.ndarray]

    def signature(self, key: str | None = None) -> Signature:
        """The signature of that name; the first one when no name is given.

        Raises:
            ValueError: the file has no signature of that name; the message lists those it has.
        """
        if key is None:
            return self.signatures[0]
        for signature in self.signatures:
            if signature.key == key:
                return signature
        raise ValueError(f"`signature` must be one of {[s.key for s in self.signatures]}. Received: signature={key!r}")
