"""What is in a `.tflite` file: operations, tensors, bytes, multiply-accumulates, zeros. Nothing is run."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import groupby
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from tflite_export.constants import Census, census
from tflite_export.files import gzipped
from tflite_export.flatbuffer import File, content_of, name_of, read
from tflite_export.graph import FLOATS, Model, Operator, Subgraph, Tensor
from tflite_export.macs import kernels, macs

_ACTIVATIONS = {v: k for k, v in vars(schema.ActivationFunctionType).items() if isinstance(v, int)}


@dataclass(frozen=True)
class OperationRow:
    """One operation, in order of execution.

    Attributes:
        index: its place in the subgraph.
        subgraph: number of the subgraph.
        kind: such as "CONV_2D", or the name of a custom operation.
        name: of its first output tensor: the converter puts the layers' names there.
        inputs: tensor names, "" for an optional input that is left out.
        outputs: tensor names.
        types: types of inputs and outputs as "INT8 x2,INT32 -> INT8".
        shape: of the first output.
        version: of the operation.
        activation: fused into it, "NONE" when there is none.
        macs: multiply-accumulates of one run.
        bytes: of the constants that it is the first to use.
        touches_float: whether it computes in floating point (see `Description.float_operations`).
    """

    index: int
    subgraph: int
    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    types: str
    shape: tuple[int, ...]
    version: int
    activation: str
    macs: int
    bytes: int
    touches_float: bool


@dataclass(frozen=True)
class TensorRow:
    """One tensor.

    Attributes:
        index: its number in the subgraph.
        subgraph: number of the subgraph.
        name: as the file says, "tensor_<index>" where it says nothing.
        shape: with -1 for sizes known only at run time.
        type: such as "INT8".
        scales: of its grid: one, one per slice along `axis`, or none.
        zero_points: as many as `scales`.
        axis: of `scales`; None when there is at most one.
        scheme: "" (no grid), "affine", or the schema's name of another scheme.
        bytes: of the constant; 0 when it is none, or shares its bytes with an earlier tensor.
        constant: whether the file holds its values.
        zeros: share of values that stand for 0, None for what is not a constant of numbers.
        distinct: number of different values, None likewise.
    """

    index: int
    subgraph: int
    name: str
    shape: tuple[int, ...]
    type: str
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int | None
    scheme: str
    bytes: int
    constant: bool
    zeros: float | None
    distinct: int | None


@dataclass(frozen=True)
class KernelRow:
    """One kernel: a constant of two axes or more that an operation multiplies with.

    Attributes:
        name: of the tensor.
        kind: of the first operation that uses it.
        shape: of the tensor.
        type: such as "INT4".
        bytes: in the file.
        zeros: share of values that stand for 0.
        distinct: number of different values.
        size: number of values.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    type: str
    bytes: int
    zeros: float
    distinct: int
    size: int


@dataclass(frozen=True)
class SignatureRow:
    """A way to call the file: names of inputs and outputs with the tensors behind them."""

    key: str
    subgraph: int
    inputs: Mapping[str, TensorRow]
    outputs: Mapping[str, TensorRow]


@dataclass(frozen=True)
class Description:
    """What is in a file; the rows are plain data, str() prints them as tables.

    Attributes:
        name: the path, or "bytes".
        size: bytes of the file.
        operations: of all subgraphs.
        tensors: of all subgraphs.
        kernels: each once.
        signatures: at least one; a file without one is called by its tensors' names.
        metadata: name -> bytes.
        description: free text of the one who wrote the file.
    """

    name: str
    size: int
    operations: tuple[OperationRow, ...]
    tensors: tuple[TensorRow, ...]
    kernels: tuple[KernelRow, ...]
    signatures: tuple[SignatureRow, ...]
    metadata: Mapping[str, int]
    description: str
    content: bytes = field(repr=False)

    @property
    def inputs(self) -> Mapping[str, TensorRow]:
        """name -> tensor of the first signature."""
        return self.signatures[0].inputs

    @property
    def outputs(self) -> Mapping[str, TensorRow]:
        """name -> tensor of the first signature."""
        return self.signatures[0].outputs

    def macs(self) -> int:
        """Multiply-accumulates of one run of the first signature's subgraph; bodies of loops are not in it."""
        return sum(row.macs for row in self.operations if row.subgraph == self.signatures[0].subgraph)

    def zeros(self) -> float:
        """Share of kernel values that stand for 0, over all kernels; 0 when there is no kernel."""
        size = sum(row.size for row in self.kernels)
        return sum(row.zeros * row.size for row in self.kernels) / size if size else 0.0

    def gzip_bytes(self) -> int:
        """Size of the smallest gzip file of it, as `Exported.save("model.tflite.gz")` writes it: a download's cost."""
        return len(gzipped(self.content))

    @cached_property
    def bytes_by_tensor(self) -> dict[str, int]:
        """Constant's name -> bytes, the largest first; bytes that several tensors share count for the first."""
        sizes: Counter[str] = Counter()
        for row in self.tensors:
            if row.bytes:
                sizes[row.name] += row.bytes
        return dict(sizes.most_common())

    @cached_property
    def bytes_by_operation(self) -> dict[str, int]:
        """Kind of operation -> bytes of the constants that it is the first to use, the largest first."""
        sizes: Counter[str] = Counter()
        for row in self.operations:
            sizes[row.kind] += row.bytes
        return dict(sizes.most_common())

    @cached_property
    def distinct(self) -> dict[str, int]:
        """Kernel's name -> number of different values."""
        return {row.name: row.distinct for row in self.kernels}

    def float_operations(self) -> tuple[OperationRow, ...]:
        """Operations that touch a floating-point tensor.

        Not counted: QUANTIZE straight from an input of the graph and DEQUANTIZE straight to an output, which an integer
        file has when its inputs or outputs are float32. Of a file that is float throughout this is every operation.
        """
        return tuple(row for row in self.operations if row.touches_float)

    def rows(self) -> dict[str, Any]:
        """Everything but the gzip size as plain data that `json` can write."""
        return {
            "name": self.name,
            "bytes": self.size,
            "macs": self.macs(),
            "zeros": self.zeros(),
            "description": self.description,
            "signatures": [asdict(row) for row in self.signatures],
            "metadata": dict(self.metadata),
            "float_operations": [row.index for row in self.float_operations()],
            "bytes_by_operation": self.bytes_by_operation,
            "operations": [asdict(row) for row in self.operations],
            "kernels": [asdict(row) for row in self.kernels],
            "tensors": [asdict(row) for row in self.tensors],
        }

    def text(self, *, tensors: bool = False, gzip_bytes: int | None = None) -> str:
        """The tables as text.

        Args:
            tensors: list every tensor, too.
            gzip_bytes: printed when given; see `gzip_bytes()`, which takes a second for 25 MB.
        """
        from tflite_export.listing import listing

        return listing(self, tensors=tensors, gzip_bytes=gzip_bytes)

    def __str__(self) -> str:
        return self.text()


def describe(file: File) -> Description:
    """Says what is in a `.tflite` file.

    Args:
        file: bytes, a path, or an object with `.content` such as `Exported`.

    Returns:
        Rows of operations, tensors and kernels with totals; prints as tables.

    Raises:
        ValueError: not a whole TFLite file, or a constant does not fit its shape; the message says why.
        OSError: the path cannot be read.
    """
    content, name = content_of(file), name_of(file)
    return _Describer(read(content, name=name), name, content).description()


class _Describer:
    """Rows of one model; knows which bytes were already given to a tensor or an operation."""

    def __init__(self, model: Model, name: str, content: bytes) -> None:
        self.model, self.name, self.content = model, name, content
        self.counts: dict[tuple[int, int], Census | None] = {}
        self.rows: dict[tuple[int, int], TensorRow] = {}
        seen: set[int] = set()
        for graph in model.subgraphs:
            for tensor in graph.tensors:
                self.rows[graph.index, tensor.index] = self._tensor(graph, tensor, seen)

    def description(self) -> Description:
        used: set[tuple[int, int]] = set()
        operations = tuple(self._operation(graph, op, used) for graph in self.model.subgraphs for op in graph.operators)
        signatures = tuple(
            SignatureRow(
                s.key,
                s.subgraph,
                {name: self.rows[s.subgraph, index] for name, index in s.inputs.items()},
                {name: self.rows[s.subgraph, index] for name, index in s.outputs.items()},
            )
            for s in self.model.signatures
        )
        return Description(
            name=self.name,
            size=self.model.size,
            operations=operations,
            tensors=tuple(self.rows.values()),
            kernels=tuple(self._kernels()),
            signatures=signatures,
            metadata={name: int(data.size) for name, data in self.model.metadata.items()},
            description=self.model.description,
            content=self.content,
        )

    def _tensor(self, graph: Subgraph, tensor: Tensor, seen: set[int]) -> TensorRow:
        count = self.counts[graph.index, tensor.index] = census(tensor)
        grid = tensor.quantization
        owned = tensor.data is not None and tensor.buffer not in seen
        seen.add(tensor.buffer)
        return TensorRow(
            index=tensor.index,
            subgraph=graph.index,
            name=tensor.name or f"tensor_{tensor.index}",
            shape=tensor.dynamic,
            type=tensor.type,
            scales=tuple(grid.scale.tolist()) if grid else (),
            zero_points=tuple(grid.zero_point.tolist()) if grid else (),
            axis=grid.axis if grid and grid.scale.size > 1 else None,
            scheme=grid.scheme if grid else "",
            bytes=int(tensor.data.size) if tensor.data is not None and owned else 0,
            constant=tensor.data is not None,
            zeros=count.share if count else None,
            distinct=count.distinct if count else None,
        )

    def _operation(self, graph: Subgraph, op: Operator, used: set[tuple[int, int]]) -> OperationRow:
        names = {i: self.rows[graph.index, i].name for i in (*op.inputs, *op.outputs) if i >= 0}
        owned = 0
        for index in op.inputs:
            if index >= 0 and (graph.index, index) not in used:
                used.add((graph.index, index))
                owned += self.rows[graph.index, index].bytes
        types = [[graph.tensors[i].type if i >= 0 else "-" for i in side] for side in (op.inputs, op.outputs)]
        return OperationRow(
            index=op.index,
            subgraph=graph.index,
            kind=op.kind,
            name=names[op.outputs[0]] if op.outputs else "",
            inputs=tuple(names.get(i, "") for i in op.inputs),
            outputs=tuple(names[i] for i in op.outputs),
            types=" -> ".join(map(_counted, types)),
            shape=graph.tensors[op.outputs[0]].dynamic if op.outputs else (),
            version=op.version,
            activation=_ACTIVATIONS.get(getattr(op.options, "fusedActivationFunction", 0), "NONE"),
            macs=macs(graph, op),
            bytes=owned,
            touches_float=_touches_float(graph, op),
        )

    def _kernels(self) -> list[KernelRow]:
        found: dict[int, KernelRow] = {}
        for graph in self.model.subgraphs:
            for op in graph.operators:
                for index in kernels(graph, op):
                    tensor, count = graph.tensors[index], self.counts[graph.index, index]
                    if count is None or tensor.buffer in found:
                        continue
                    found[tensor.buffer] = KernelRow(
                        name=self.rows[graph.index, index].name,
                        kind=op.kind,
                        shape=tensor.shape,
                        type=tensor.type,
                        bytes=int(tensor.data.size) if tensor.data is not None else 0,
                        zeros=count.share,
                        distinct=count.distinct,
                        size=count.size,
                    )
        return list(found.values())


def _counted(types: list[str]) -> str:
    """Repeats in a row said once.

    >>> _counted(["INT8", "INT8", "INT8", "INT32", "-"])
    'INT8 x3,INT32,-'
    """
    runs = [(kind, len(list(run))) for kind, run in groupby(types)]
    return ",".join(kind if times == 1 else f"{kind} x{times}" for kind, times in runs)


def _touches_float(graph: Subgraph, op: Operator) -> bool:
    if not any(graph.tensors[i].type in FLOATS for i in (*op.inputs, *op.outputs) if i >= 0):
        return False
    at_input = op.kind == "QUANTIZE" and bool(op.inputs) and op.inputs[0] in graph.inputs
    at_output = op.kind == "DEQUANTIZE" and bool(op.outputs) and op.outputs[0] in graph.outputs
    return not (at_input or at_output)
