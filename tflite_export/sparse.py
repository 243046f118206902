"""Which 1x1 convolutions of a float file XNNPACK runs on its sparse kernels, and why it leaves the others dense.

XNNPACK computes channels first where it runs sparse. It turns a whole part of the graph at once, from a convolution
that turns the image to an operation that turns it back:

    3x3 convolution, stride 2, 3 channels, padded by 1 ... 1x1 convolutions, depthwise ones, ADD, MUL, ... -> MEAN

Nothing outside may read what is inside, and more than two thirds of the weights of the 1x1 convolutions inside must be
zero.
This holds on ARM and WebAssembly; a processor with AVX runs such a file dense.

Source: XNNPACK, src/subgraph.c, `xnn_subgraph_rewrite_for_nchw` (August 2026).
"""

from dataclasses import dataclass

import numpy as np

from tflite_export.auditing.use import Use
from tflite_export.graph import Operator, Subgraph

_UNARY = frozenset(
    "ABS CEIL COS ELU EXP FLOOR GELU HARD_SWISH LEAKY_RELU LOGISTIC NEG RELU RELU6 RELU_N1_TO_1 ROUND RSQRT SIN SQRT "
    "SQUARE TANH".split()
)
_SAME = 0  # the schema's Padding.SAME


@dataclass(frozen=True)
class Kernel:
    """A 1x1 convolution.

    Attributes:
        name: of its output tensor.
        zeros: share of its weights that are zero, in [0, 1].
        reason: why it runs dense; "" when it runs sparse.
    """

    name: str
    zeros: float
    reason: str

    def __str__(self) -> str:
        return f"{self.zeros:.1%} zeros, " + (f"runs dense: {self.reason}" if self.reason else "runs sparse")


@dataclass
class _Node:
    """An operation with its place in a part of the graph that may be turned.

    Attributes:
        use: the operation.
        enters: it turns the image.
        inside: it works on what is turned.
        leaves: it turns back.
        reason: why it is none of these.
    """

    use: Use
    enters: bool = False
    inside: bool = False
    leaves: bool = False
    reason: str = ""

    @property
    def name(self) -> str:
        output = self.use.output()
        return f"{self.use.op.kind} {output.name!r}" if output is not None else self.use.op.kind


def kernels(graph: Subgraph) -> list[Kernel]:
    """Every 1x1 convolution of a subgraph, in order.

    Args:
        graph: of a file that computes in float32.
    """
    nodes = {op.index: _judged(Use(graph, op)) for op in graph.operators}
    pads = _fused_pads(graph)
    parts = _parts(graph, nodes, pads)
    reasons: dict[int, str] = {}
    for part in parts:
        why = _obstacle(graph, nodes, part, pads) or _too_dense(graph, [nodes[i] for i in part])
        reasons |= dict.fromkeys(part, why)
    found = []
    for op in graph.operators:
        if _is_pointwise(Use(graph, op)):
            own = nodes[op.index].reason
            found.append(Kernel(graph.tensors[op.outputs[0]].name, _zeros(Use(graph, op))[0], own or reasons[op.index]))
    return found


def _is_pointwise(use: Use) -> bool:
    kernel = use.input(1)
    return use.op.kind == "CONV_2D" and kernel is not None and kernel.shape[1:3] == (1, 1)


def _zeros(use: Use) -> tuple[float, int]:
    """Share of zeros of a kernel, and its size."""
    kernel, constant = use.input(1), use.constant(1)
    if kernel is None or constant is None or constant.type != "FLOAT32":
        return 0.0, 0
    return 1.0 - np.count_nonzero(constant.stored) / kernel.size, kernel.size


def _judged(use: Use) -> _Node:
    """An operation's own fitness, whatever stands around it."""
    node = _Node(use)
    data, kind = use.input(0), use.op.kind
    if any(tensor.type != "FLOAT32" for tensor in use.moving()):
        node.reason = "it does not compute in FLOAT32"
    elif kind == "CONV_2D":
        _convolution(node)
    elif kind == "DEPTHWISE_CONV_2D":
        _depthwise(node)
    elif data is None or len(data.shape) != 4:
        node.reason = f"{kind} of a tensor without 4 axes has no such form"
    elif kind in ("MEAN", "SUM"):
        node.inside = node.leaves = True
    elif kind == "DEPTH_TO_SPACE":
        node.leaves = True
    elif kind in ("ADD", "MUL"):
        _joint(node)
    elif kind in _UNARY or (kind == "RESIZE_BILINEAR" and min(data.shape[1:3]) > 1):
        node.inside = True
    else:
        node.reason = f"{kind} has no such form; what ends such a part is a GlobalAveragePooling2D"
    return node


def _convolution(node: _Node) -> None:
    use = node.use
    kernel, data = use.input(1), use.input(0)
    strides = [use.option(name, 1) for name in ("strideH", "strideW")]
    dilated = [use.option(name, 1) for name in ("dilationHFactor", "dilationWFactor")] != [1, 1]
    if kernel is None or data is None:
        node.reason = _UNKNOWN
    elif dilated:
        node.reason = "it is dilated"
    elif kernel.shape[-1] != data.shape[-1]:
        node.reason = "it has groups"
    elif kernel.shape[1:3] == (1, 1) and strides != [1, 1]:
        node.reason = f"it has strides of {strides[0]} x {strides[1]}"
    elif kernel.shape[1:3] == (1, 1):
        node.inside = _padding(use) == (0, 0, 0, 0)
        node.reason = "" if node.inside else "its input is padded"
    elif kernel.shape[1:] == (3, 3, 3) and strides == [2, 2]:
        node.enters = _padding(use) == (1, 1, 1, 1)
        node.reason = "" if node.enters else _PADDED.format(1)
    else:
        size = " x ".join(map(str, kernel.shape[1:3]))
        node.reason = (
            f"a {size} convolution with {kernel.shape[-1]} input channels and stride {strides[0]} has no such form"
        )


_UNKNOWN = "its input or its kernel is not described"
_PADDED = "pad it by {0} on all sides: ZeroPadding2D({0}) before it, padding='valid', and with stride 2 an even size"


def _depthwise(node: _Node) -> None:
    use = node.use
    kernel, data = use.input(1), use.input(0)
    strides = [use.option(name, 1) for name in ("strideH", "strideW")]
    dilated = [use.option(name, 1) for name in ("dilationHFactor", "dilationWFactor")] != [1, 1]
    if kernel is None or data is None:
        node.reason = _UNKNOWN
    elif dilated:
        node.reason = "it is dilated"
    elif kernel.shape[1:3] not in ((3, 3), (5, 5)) or strides not in ([1, 1], [2, 2]):
        node.reason = "a depthwise convolution must be 3 x 3 or 5 x 5 with stride 1 or 2"
    elif kernel.shape[-1] != data.shape[-1]:
        node.reason = "it has a depth multiplier"
    else:
        margin = kernel.shape[1] // 2
        node.inside = _padding(use) == (margin,) * 4
        node.reason = "" if node.inside else _PADDED.format(margin)


def _joint(node: _Node) -> None:
    for place in (0, 1):
        tensor = node.use.input(place)
        if tensor is None or len(tensor.shape) != 4:
            node.reason = "an operand has not 4 axes"
            return
        # Of a second operand that is constant XNNPACK looks at the shape of the first as well.
        judged = node.use.input(0)
        if node.use.constant(place) is not None and judged is not None and sum(size != 1 for size in judged.shape) > 1:
            node.reason = "one operand is constant, and the first is no scalar and no vector"
            return
    node.inside = True


def _padding(use: Use) -> tuple[int, ...] | None:
    """(top, bottom, left, right) as the runtime knows them beforehand; None where it decides by itself."""
    kernel = use.input(1)
    if kernel is None:
        return None
    own = (0, 0, 0, 0)
    if use.option("padding") == _SAME:
        if use.option("strideH", 1) != 1 or use.option("strideW", 1) != 1:
            return None
        high, wide = (size - 1 for size in kernel.shape[1:3])
        own = (high // 2, high - high // 2, wide // 2, wide - wide // 2)
    before = use.graph.maker.get(use.op.inputs[0])
    if before is None or before.kind != "PAD":
        return own
    amounts = Use(use.graph, before).integers(1)
    if amounts is None or len(amounts) != 8 or any(amounts[i] for i in (0, 1, 6, 7)):
        return None
    return tuple(one + more for one, more in zip(own, amounts[2:6], strict=True))


def _fused_pads(graph: Subgraph) -> frozenset[int]:
    """Numbers of the PAD operations that become part of the convolution behind them."""
    readers = _readers(graph)
    found = set()
    for op in graph.operators:
        after = readers.get(op.outputs[0], []) if op.kind == "PAD" else []
        if len(after) == 1 and after[0].kind in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            found.add(op.index)
    return frozenset(found)


def _readers(graph: Subgraph) -> dict[int, list[Operator]]:
    readers: dict[int, list[Operator]] = {}
    for op in graph.operators:
        for index in set(op.inputs):
            readers.setdefault(index, []).append(op)
    return readers


def _sources(graph: Subgraph, op: Operator, pads: frozenset[int]) -> list[Operator | None]:
    """What computes an operation's inputs; None for an input of the graph. Constants are left out."""
    found: list[Operator | None] = []
    for index in op.inputs:
        if index < 0 or graph.constant(index) is not None:
            continue
        maker = graph.maker.get(index)
        while maker is not None and maker.index in pads:
            maker = graph.maker.get(maker.inputs[0])
        found.append(maker)
    return found


def _parts(graph: Subgraph, nodes: dict[int, _Node], pads: frozenset[int]) -> list[set[int]]:
    """Operations that must be turned together."""
    leader = {index: index for index in nodes}

    def root(index: int) -> int:
        while leader[index] != index:
            leader[index] = leader[leader[index]]
            index = leader[index]
        return index

    for index, node in nodes.items():
        if node.inside or node.leaves:
            for source in _sources(graph, node.use.op, pads):
                if source is not None and (nodes[source.index].inside or nodes[source.index].enters):
                    leader[root(source.index)] = root(index)
    parts: dict[int, set[int]] = {}
    for index, node in nodes.items():
        if node.inside or node.leaves or node.enters:
            parts.setdefault(root(index), set()).add(index)
    return list(parts.values())


def _obstacle(graph: Subgraph, nodes: dict[int, _Node], part: set[int], pads: frozenset[int]) -> str:
    """Why a part cannot be turned; "" when it can."""
    readers = _readers(graph)
    for index in sorted(part):
        node = nodes[index]
        for source in _sources(graph, node.use.op, pads) if node.inside or node.leaves else []:
            if source is None:
                return f"{node.name} reads an input of the model: the first convolution must be 3 x 3 with stride 2"
            if source.index not in part:
                before = nodes[source.index]
                return f"{before.name} comes before it: {before.reason or 'it turns the channels back'}"
    for index in sorted(part):
        output = nodes[index].use.op.outputs[0]
        after = _followers(readers, output, pads)
        outside = [nodes[reader.index] for reader in after if reader.index not in part]
        if nodes[index].leaves and len(outside) == len(after):  # here the image is turned back
            continue
        if output in graph.outputs:
            return f"{nodes[index].name} is an output of the model"
        if outside:
            return f"{outside[0].name} comes after it: {outside[0].reason or 'it is not part of the same'}"
    return ""


def _followers(readers: dict[int, list[Operator]], index: int, pads: frozenset[int]) -> list[Operator]:
    """What reads a tensor, also through a PAD that becomes part of its reader."""
    found = []
    for reader in readers.get(index, []):
        found += readers[reader.outputs[0]] if reader.index in pads else [reader]
    return found


def _too_dense(graph: Subgraph, part: list[_Node]) -> str:
    counted = [_zeros(node.use) for node in part if _is_pointwise(node.use)]
    size = sum(own for _, own in counted)
    zeros = sum(share * own for share, own in counted)
    if size and zeros * 3 <= size * 2:
        return f"{zeros / size:.1%} of the weights of all such convolutions around it are zero, more than 66.7% must be"
    return ""
