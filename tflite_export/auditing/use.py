"""An operator together with the tensors around it: what a rule looks at."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from tflite_export.graph import Operator, Subgraph, Tensor

_ACTIVATIONS: dict[int, str] = {v: k for k, v in vars(schema.ActivationFunctionType).items() if isinstance(v, int)}


@dataclass(frozen=True)
class Use:
    """One operator in its graph. Nothing here fails on a file whose operators lack inputs, outputs or options."""

    graph: Subgraph
    op: Operator

    def input(self, place: int) -> Tensor | None:
        """The tensor at a place among the inputs; None where there is none. -1 is the last one."""
        return self._tensor(self.op.inputs, place)

    def output(self, place: int = 0) -> Tensor | None:
        """The tensor at a place among the outputs; None where there is none."""
        return self._tensor(self.op.outputs, place)

    def _tensor(self, indices: Sequence[int], place: int) -> Tensor | None:
        if not -len(indices) <= place < len(indices) or indices[place] < 0:
            return None
        return self.graph.tensors[indices[place]]

    def tensors(self) -> list[Tensor]:
        """Inputs and outputs, without those left out."""
        return [self.graph.tensors[i] for i in (*self.op.inputs, *self.op.outputs) if i >= 0]

    def moving(self) -> list[Tensor]:
        """Inputs and outputs that are neither constants nor the state of a recurrent layer."""
        return [t for t in self.tensors() if not t.is_variable and self.graph.constant(t.index) is None]

    def constant(self, place: int) -> Tensor | None:
        """The constant behind an input, also behind a DEQUANTIZE or DENSIFY of one."""
        tensor = self.input(place)
        return None if tensor is None else self.graph.constant(tensor.index)

    def integers(self, place: int) -> list[int] | None:
        """Values of a small integer constant, such as axes or paddings; None when they cannot be told."""
        constant = self.constant(place)
        if constant is None or constant.type not in ("INT32", "INT64") or constant.is_sparse:
            return None
        if constant.data is None or constant.data.size > 1024:
            return None
        try:
            return [int(value) for value in constant.stored]
        except ValueError:
            return None

    def option(self, name: str, default: Any = None) -> Any:
        """An option of the operator, `default` where the file holds none of that name."""
        return getattr(self.op.options, name, default)

    @property
    def activation(self) -> str:
        """The activation fused into the operator, "NONE" when there is none."""
        return _ACTIVATIONS.get(self.option("fusedActivationFunction", 0), "unknown")

    @property
    def data_places(self) -> tuple[int, ...]:
        """Places of the inputs that carry the values an operation works on, the others are its parameters."""
        return _DATA_PLACES.get(self.op.kind, (0,))


# Where the values are not input 0, or there are several of them.
_TWO = (0, 1)
_DATA_PLACES: dict[str, tuple[int, ...]] = {
    "TRANSPOSE_CONV": (2,),
    "CONV_3D_TRANSPOSE": (2,),
    "SPLIT": (1,),
    "EMBEDDING_LOOKUP": (1,),
    "FILL": (1,),
    "SELECT": (1, 2),
    "SELECT_V2": (1, 2),
    "SHAPE": (),
    "VAR_HANDLE": (),
    "READ_VARIABLE": (),
    "ASSIGN_VARIABLE": (1,),
    "CALL_ONCE": (),
    "IF": (),
    "WHILE": (),
    "RANGE": (),
    "ONE_HOT": (2, 3),
    "SCATTER_ND": (1,),
    **dict.fromkeys(
        (
            *("ADD", "SUB", "MUL", "DIV", "FLOOR_DIV", "FLOOR_MOD", "POW", "ATAN2"),
            *("MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE", "BATCH_MATMUL", "DYNAMIC_UPDATE_SLICE"),
            *("EQUAL", "NOT_EQUAL", "LESS", "LESS_EQUAL", "GREATER", "GREATER_EQUAL", "LOGICAL_AND", "LOGICAL_OR"),
        ),
        _TWO,
    ),
}
