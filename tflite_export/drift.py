"""Where a file departs from its Keras model: its tensors beside the outputs of the layers they are named after."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tflite_export.agreement import Agreement, agreement
from tflite_export.constants import distinct
from tflite_export.graph import Quantization, Subgraph, Tensor

# A layer departs when its tensor is this much less often equal than the runtime's own kernel sets are among themselves,
# and by more than rounding: by two steps in the root of the mean square, or with a tenth of the signal's power.
MARGIN = 0.1
_STEPS = 2.0
_DECIBELS = 10.0
# Collapsed: so many different values in Keras, so few in the file.
_MANY, _FEW = 16, 2
# Coarse: what eight bits could hold, held in less than four.
_FINE, _COARSE = 256, 16
# Saturated: so large a share of the Keras values lies more than a step outside of the tensor's range.
_CLIPPED = 0.1


@dataclass(frozen=True)
class LayerRow:
    """A layer of the Keras model beside the tensor of the file that holds its output.

    Attributes:
        layer: name of the layer.
        tensor: name of the tensor.
        index: number of the tensor.
        operation: kind of the operation that computes it.
        model: agreement of the file with the layer.
        floor: agreement of the file's two kernel sets; None when there is no second one to compare with.
        distinct: different values of (Keras before any quantizer, file).
        clipped: share of Keras values more than a step outside of what the tensor can hold.
        elements: numbers that were compared.
    """

    layer: str
    tensor: str
    index: int
    operation: str
    model: Agreement
    floor: Agreement | None
    distinct: tuple[int, int]
    clipped: float
    elements: int = 0

    @property
    def collapsed(self) -> bool:
        """Whether many values in Keras became one or two in the file."""
        return self.distinct[0] >= _MANY and self.distinct[1] <= _FEW

    @property
    def coarse(self) -> bool:
        """Whether many values in Keras became fewer in the file than four bits hold: a range far too wide."""
        return self.distinct[0] >= _FINE and self.distinct[1] < _COARSE

    @property
    def saturates(self) -> bool:
        """Whether much of what Keras computes does not fit the tensor's range."""
        return self.clipped > _CLIPPED

    @property
    def departs(self) -> bool:
        """Whether the tensor differs by more than the kernel sets do among themselves, and by more than rounding."""
        if self.collapsed or self.saturates or self.model.snr < _DECIBELS:
            return True
        if self.model.rms is None or self.floor is None:
            return False
        return self.model.equal < self.floor.equal - MARGIN and self.model.rms > _STEPS


def candidates(graph: Subgraph, layers: Sequence[Sequence[str]]) -> list[tuple[int, int]]:
    """Pairs (place in `layers`, tensor number) of which the tensor's name speaks of the layer by one of its names.

    The converter joins the names of the operations that it fused with ";", each a path of name scopes, such as
    "model/re_lu/Relu;model/conv2d/convolution". A scope that was entered before carries a number, "re_lu_1" for the
    layer re_lu, so a name can speak of several layers; values decide.
    """
    places: dict[str, list[int]] = {}
    for place, names in enumerate(layers):
        for name in names:
            places.setdefault(name, []).append(place)
    depth = max((name.count("/") + 1 for name in places), default=1)
    narrowed = {op.inputs[0] for op in graph.operators if op.kind == "QUANTIZE" and _bits(graph, op.outputs[0]) == 8}
    pairs = []
    for op in graph.operators:
        for index in op.outputs:
            if index in narrowed and _bits(graph, index) == 16:
                continue  # the layer's result is what it becomes
            named = {run for part in graph.tensors[index].name.split(";") for run in _runs(part.split("/"), depth)}
            pairs += [(place, index) for run in sorted(named) for place in places.get(run, ())]
    return list(dict.fromkeys(pairs))


def _bits(graph: Subgraph, index: int) -> int:
    dtype = graph.tensors[index].dtype
    return 8 * dtype.itemsize if dtype is not None and dtype.kind in "iu" else 0


def fused(pairs: Sequence[tuple[int, int]], feeds: Sequence[Sequence[int]], hops: int = 3) -> list[tuple[int, int]]:
    """Pairs with the layers behind a named one: a folded BatchNormalization leaves no name of its own.

    Args:
        pairs: (place of a layer, tensor number).
        feeds: places of the layers that take a layer's output, by its place.
        hops: how far behind.
    """
    found = set()
    for place, index in pairs:
        reached = {place}
        for _ in range(hops):
            reached |= {taker for one in reached for taker in feeds[one]}
        found |= {(one, index) for one in reached}
    return sorted(found - set(pairs))


def _runs(scopes: Sequence[str], depth: int) -> set[str]:
    """Every path within a path, as it is and without the numbers of scopes that were entered before."""
    found = set()
    for start in range(len(scopes)):
        for stop in range(start + 1, min(start + depth, len(scopes)) + 1):
            run = list(scopes[start:stop])
            bare = [re.sub(r"_\d+$", "", scope) for scope in run]
            found |= {"/".join(run), "/".join([*run[:-1], bare[-1]]), "/".join(bare)}
    return found


def matched(
    named: Collection[tuple[int, int]],
    near: Collection[tuple[int, int]],
    keras: Sequence[np.ndarray],
    file: Mapping[int, np.ndarray],
) -> dict[int, int]:
    """One tensor for each layer: of the pairs of one shape the most similar first, none used twice.

    Args:
        named: (place of the layer, tensor number) where the tensor's name speaks of the layer.
        near: further pairs, of layers that may be fused with a named one; only values that agree make a pair of them.
        keras: a layer's values by its place, [rows, ...].
        file: real values by tensor number.

    Returns:
        tensor number -> place of the layer.
    """
    scored = []
    for place, index in {*named, *near}:
        values = _shaped(file[index], keras[place])
        if values is None:
            continue
        snr = agreement(keras[place], values).snr
        if (place, index) in named or snr >= _DECIBELS:
            scored.append((snr, index, place))
    found: dict[int, int] = {}
    for _, index, place in sorted(scored, key=lambda score: (-score[0], score[1], score[2])):
        if index not in found and place not in found.values():
            found[index] = place
    return found


def _shaped(values: np.ndarray, like: np.ndarray) -> np.ndarray | None:
    """`values` in the shape of `like` when the shapes differ only in axes of length 1."""
    if [n for n in values.shape if n != 1] != [n for n in like.shape if n != 1]:
        return None
    return values.reshape(like.shape)


def grid_of(tensor: Tensor) -> Quantization | None:
    """The integer grid of a computed tensor, None for a float one."""
    grid = tensor.quantization
    integer = tensor.dtype is not None and tensor.dtype.kind in "iu"
    return grid if integer and grid is not None and grid.scale.size == 1 else None


def real(tensor: Tensor, raw: np.ndarray) -> np.ndarray:
    """Real values of what was read from a tensor."""
    grid = grid_of(tensor)
    return raw if grid is None else grid.real(raw)


def layer_row(
    layer: str,
    keras: np.ndarray,
    kinds: int,
    graph: Subgraph,
    index: int,
    raw: np.ndarray,
    other: np.ndarray | None,
) -> LayerRow:
    """The row of a layer.

    Args:
        layer: its name.
        keras: [rows, ...] its output.
        kinds: different values of it, before a quantizer of the model rounded it.
        graph: of the file.
        index: number of the tensor.
        raw: what the file computed, in the tensor's type.
        other: what another kernel set computed.
    """
    tensor = graph.tensors[index]
    grid, dtype = grid_of(tensor), tensor.dtype
    ours = real(tensor, raw)
    values = _shaped(ours, keras)
    if values is None:
        raise ValueError(f"Layer {layer!r} gives {list(keras.shape)}, tensor {tensor.name!r} {list(ours.shape)}")
    floor = agreement(ours, real(tensor, other), grid, dtype) if other is not None else None
    return LayerRow(
        layer=layer,
        tensor=tensor.name,
        index=index,
        operation=graph.maker[index].kind,
        model=agreement(keras, values, grid, dtype),
        floor=floor,
        distinct=(kinds, distinct(np.ravel(raw))),
        clipped=_clipped(keras, grid, dtype),
        elements=int(values.size),
    )


def _clipped(keras: np.ndarray, grid: Quantization | None, dtype: np.dtype | None) -> float:
    if grid is None or dtype is None or not keras.size:
        return 0.0
    limits = np.iinfo(dtype)
    low, high = (grid.real(np.array([end])).item() for end in (limits.min, limits.max))
    step = float(grid.scale[0])
    return float(np.mean((keras < low - step) | (keras > high + step)))


def silent_softmaxes(graph: Subgraph, raw: Mapping[int, np.ndarray]) -> list[str]:
    """Names of integer softmax inputs that hold one or two values over all rows: attention without attention."""
    found = []
    for op in graph.operators:
        if op.kind != "SOFTMAX" or op.inputs[0] not in raw:
            continue
        values, tensor = raw[op.inputs[0]], graph.tensors[op.inputs[0]]
        if grid_of(tensor) is not None and values.size >= _MANY and distinct(np.ravel(values)) <= _FEW:
            found.append(tensor.name)
    return found
