"""Labels of the weights of layers: what each layer makes, reads and follows, and how it is made with fewer channels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core.flavor import keras
from tfcompress.core.opaque import Weight
from tfcompress.core.replay import Call
from tfcompress.core.transformed import named_weights
from tfcompress.prune.experiments import reconfigured
from tfcompress.prune.labels import Axes, Labels, Vector
from tfcompress.prune.operations import blank

_LAYERS = keras.layers
_CONVOLUTIONS = (_LAYERS.Conv1D, _LAYERS.Conv2D, _LAYERS.Conv3D)
_TRANSPOSED = (_LAYERS.Conv1DTranspose, _LAYERS.Conv2DTranspose, _LAYERS.Conv3DTranspose)
_DEPTHWISE = (_LAYERS.DepthwiseConv1D, _LAYERS.DepthwiseConv2D)
_SEPARABLE = (_LAYERS.SeparableConv1D, _LAYERS.SeparableConv2D)
_GATES = {_LAYERS.LSTM: 4, _LAYERS.GRU: 3, _LAYERS.SimpleRNN: 1}
#: The positions of an axis that stay.
Keep = Callable[[Vector], np.ndarray]
MAKES, READS, FOLLOWS = "makes", "reads", "follows"


@dataclass
class Weights:
    """What is known of a layer's weights.

    Attributes:
        axes: for each weight (by its name in `named_weights`) the labels of its axes; None for one without labels.
        roles: for each weight what the layer does with the channels of each axis: "makes", "reads", "follows" or "".
        made: the labels of new channels by what they are of, the same in each call of a shared layer.
        rebuild: a new layer with the channels that stay; None while nothing is known of the layer.
    """

    axes: dict[str, list[Vector | None]] = field(default_factory=dict)
    roles: dict[str, tuple[str, ...]] = field(default_factory=dict)
    made: dict[str, Vector] = field(default_factory=dict)
    rebuild: Callable[[Keep], Any] | None = None


class Parametric:
    """One call of a layer with weights: reads the labels of its inputs, gives those of its weights and outputs.

    Attributes:
        outputs: labels of the call's outputs.
        reads: (input, axis) that the layer sums over.
    """

    def __init__(self, layer: Any, call: Call, given: Sequence[Axes], labels: Labels, weights: Weights) -> None:
        self.given: Sequence[Axes] = given
        self.layer, self.call, self.labels, self.weights = layer, call, labels, weights
        self.outputs = [blank(t) for t in call.outputs]
        self.reads: list[tuple[int, int]] = []
        self._prefix = ""

    def label(self) -> bool:
        """Whether the layer's class is known, and its labels are."""
        rule = _rule(self.layer)
        return rule is not None and rule(self, self.layer)

    def new(self, key: str, count: int) -> Vector:
        """The labels of channels that the layer makes."""
        if self._prefix + key not in self.weights.made:
            self.weights.made[self._prefix + key] = self.labels.fresh(count)
            if count == 1:
                self.labels.fix(self.weights.made[self._prefix + key], "it is the only channel")
        return self.weights.made[self._prefix + key]

    def bind(self, name: str, *axes: tuple[Vector | None, str]) -> None:
        """The labels and roles of the axes of a weight; ties them to those of an earlier call."""
        if name not in self.weights.axes:
            self.weights.axes[name] = [vector for vector, _ in axes]
            self.weights.roles[name] = tuple(role for _, role in axes)
            return
        for n, (vector, _) in enumerate(axes):
            known = self.weights.axes[name][n]
            if known is not None and vector is not None:
                self.labels.tie(known, vector)
            elif known is not None or vector is not None:
                self.labels.fix([known, vector], f"{self.layer.name} is called with tensors of several kinds")

    def only(self, *axes: int) -> None:
        """Fix the labels of the first input on all other axes."""
        rank = len(self.given[0])
        kept = {axis % rank for axis in axes}
        rest = [v for axis, v in enumerate(self.given[0]) if axis not in kept]
        self.labels.fix(rest, f"{self.layer.name} computes along this axis")

    def mixing(self, vector: Vector, *names: str) -> None:
        """Fix new channels when an activation mixes them."""
        for name in names:
            if not elementwise(getattr(self.layer, name, None)):
                self.labels.fix(vector, f"the activation of {self.layer.name} mixes channels")

    def known(self, *names: str) -> bool:
        """Whether these are all weights that the layer has."""
        return set(named_weights(self.layer)) <= set(names)

    def zeros(self, count: Any) -> Vector:
        return np.zeros(int(count), np.int64)


def elementwise(activation: Any) -> bool:
    """Whether a function computes each number from one number, seen on numbers.

    >>> elementwise(keras.activations.relu), elementwise(keras.activations.softmax), elementwise(None)
    (True, False, True)
    """
    if activation is None:
        return True
    x = np.random.default_rng(2).normal(size=(3, 4, 6)).astype("float32")
    try:
        whole, part = np.asarray(activation(x)), np.asarray(activation(x[:, 1:3, [0, 3, 4]]))
    except Exception:  # a function that wants other shapes
        return False
    return whole.shape == x.shape and np.allclose(whole[:, 1:3, [0, 3, 4]], part, rtol=1e-4, atol=1e-6)


def _rule(layer: Any) -> Callable[[Parametric, Any], bool] | None:
    """The rule for a layer of a known class; a subclass counts when it computes as its base does."""
    for kinds, rule in _RULES:
        base: Any = next((kind for kind in kinds if isinstance(layer, kind)), None)
        if base is not None:
            return rule if type(layer).call is base.call else None
    return None


def _weight(p: Parametric, layer: Any) -> bool:
    shape = [int(d) for d in layer.weight.shape]
    axes = [p.new(str(i), d) if d > 1 else p.zeros(d) for i, d in enumerate(shape)]
    (name,) = named_weights(layer)
    p.bind(name, *((v, MAKES) for v in axes))
    p.outputs[0][:] = axes
    p.weights.rebuild = lambda keep: reconfigured(layer, {"shape": [keep(v).size for v in axes]})
    return True


def _dense(p: Parametric, layer: Any) -> bool:
    if not p.known("kernel", "bias"):
        return False
    made = p.new("units", layer.units)
    p.mixing(made, "activation")
    p.bind("kernel", (p.given[0][-1], READS), (made, MAKES))
    if layer.use_bias:
        p.bind("bias", (made, FOLLOWS))
    p.reads = [(0, len(p.given[0]) - 1)]
    p.outputs[0][:] = [*p.given[0][:-1], made]
    p.weights.rebuild = lambda keep: reconfigured(layer, {"units": keep(made).size})
    return True


def _channel_axis(layer: Any, rank: int) -> int:
    return 1 if layer.data_format == "channels_first" else rank - 1


def _convolution(p: Parametric, layer: Any) -> bool:
    if not p.known("kernel", "bias"):
        return False
    axis = _channel_axis(layer, len(p.given[0]))
    p.only(axis)
    came, made = p.given[0][axis], p.new("filters", layer.filters)
    p.mixing(made, "activation")
    groups = layer.groups
    inner = came
    whole = False
    if groups > 1 and came is not None:
        inner, whole = _grouped(p.labels, came, made, groups)
    spatial = [(None, "")] * (len(layer.kernel.shape) - 2)
    p.bind("kernel", *spatial, (p.zeros(layer.kernel.shape[-2]) if whole else inner, READS), (made, MAKES))
    if layer.use_bias:
        p.bind("bias", (made, FOLLOWS))
    p.reads = [(0, axis)]
    p.outputs[0][axis] = made

    def rebuild(keep: Keep) -> Any:
        share = keep(made).size * groups // layer.filters if whole else groups
        return reconfigured(layer, {"filters": keep(made).size, "groups": share})

    p.weights.rebuild = rebuild
    return True


def _grouped(labels: Labels, came: Vector, made: Vector, groups: int) -> tuple[Vector, bool]:
    """The labels of a grouped kernel's inner axis, and whether whole groups go.

    Either whole groups live or die, with their inputs and outputs; or the same places in every group, so that groups
    stay equal. What leaves more classes is done.
    """
    inside, outside = came.reshape(groups, -1), made.reshape(groups, -1)
    if inside.shape[1] <= groups:
        labels.tie_rows(np.concatenate([inside, outside], axis=1))
        return inside[0], True
    labels.tie_rows(inside.T)
    labels.tie_rows(outside.T)
    return inside[0], False


def _transposed(p: Parametric, layer: Any) -> bool:
    if not p.known("kernel", "bias") or getattr(layer, "groups", 1) != 1:
        return False
    axis = _channel_axis(layer, len(p.given[0]))
    p.only(axis)
    came, made = p.given[0][axis], p.new("filters", layer.filters)
    p.mixing(made, "activation")
    spatial = [(None, "")] * (len(layer.kernel.shape) - 2)
    p.bind("kernel", *spatial, (made, MAKES), (came, READS))
    if layer.use_bias:
        p.bind("bias", (made, FOLLOWS))
    p.reads = [(0, axis)]
    p.outputs[0][axis] = made
    p.weights.rebuild = lambda keep: reconfigured(layer, {"filters": keep(made).size})
    return True


def _depthwise(p: Parametric, layer: Any) -> bool:
    names = list(named_weights(layer))
    if not p.known(names[0], "bias"):
        return False
    axis = _channel_axis(layer, len(p.given[0]))
    p.only(axis)
    came = p.given[0][axis]
    if came is None:
        return False
    made = np.repeat(came, layer.depth_multiplier)
    p.mixing(made, "activation")
    kernel = named_weights(layer)[names[0]]
    spatial = [(None, "")] * (len(kernel.shape) - 2)
    p.bind(names[0], *spatial, (came, FOLLOWS), (None, ""))
    if layer.use_bias:
        p.bind("bias", (made, FOLLOWS))
    p.outputs[0][axis] = made
    p.weights.rebuild = lambda keep: reconfigured(layer, {})
    return True


def _separable(p: Parametric, layer: Any) -> bool:
    if not p.known("depthwise_kernel", "pointwise_kernel", "bias"):
        return False
    axis = _channel_axis(layer, len(p.given[0]))
    p.only(axis)
    came, made = p.given[0][axis], p.new("filters", layer.filters)
    if came is None:
        return False
    p.mixing(made, "activation")
    spatial = [(None, "")] * (len(layer.depthwise_kernel.shape) - 2)
    p.bind("depthwise_kernel", *spatial, (came, FOLLOWS), (None, ""))
    p.bind("pointwise_kernel", *spatial, (np.repeat(came, layer.depth_multiplier), READS), (made, MAKES))
    if layer.use_bias:
        p.bind("bias", (made, FOLLOWS))
    p.reads = [(0, axis)]
    p.outputs[0][axis] = made
    p.weights.rebuild = lambda keep: reconfigured(layer, {"filters": keep(made).size})
    return True


def _axes_of(layer: Any, rank: int) -> list[int]:
    axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
    return [axis % rank for axis in axes]


def _batch_normalization(p: Parametric, layer: Any) -> bool:
    axes = _axes_of(layer, len(p.given[0]))
    if len(axes) != 1 or not p.known("gamma", "beta", "moving_mean", "moving_variance"):
        return False
    p.only(axes[0])
    for name in named_weights(layer):
        p.bind(name, (p.given[0][axes[0]], FOLLOWS))
    p.outputs[0][axes[0]] = p.given[0][axes[0]]
    p.weights.rebuild = lambda keep: reconfigured(layer, {})
    return True


def _layer_normalization(p: Parametric, layer: Any) -> bool:
    axes = _axes_of(layer, len(p.given[0]))
    if not p.known("gamma", "beta", "scale"):
        return False
    for name in named_weights(layer):
        p.bind(name, *((p.given[0][axis], FOLLOWS) for axis in sorted(axes)))
    for axis in axes:
        came = p.given[0][axis]
        if came is not None:
            p.labels.rescale(came, f"{layer.name} normalizes over the channels that stay")
    p.outputs[0][:] = p.given[0]
    p.weights.rebuild = lambda keep: reconfigured(layer, {})
    return True


def _group_normalization(p: Parametric, layer: Any) -> bool:
    axis = _axes_of(layer, len(p.given[0]))[0]
    came = p.given[0][axis]
    if came is None or not p.known("gamma", "beta"):
        return False
    p.only(axis)
    groups = layer.groups if layer.groups != -1 else came.size
    p.labels.tie_rows(came.reshape(groups, -1))
    if groups == 1:
        p.labels.fix(came, f"{layer.name} normalizes over all channels")
    for name in named_weights(layer):
        p.bind(name, (came, FOLLOWS))
    p.outputs[0][axis] = came
    p.weights.rebuild = lambda keep: reconfigured(layer, {"groups": keep(came).size * groups // came.size})
    return True


def _prelu(p: Parametric, layer: Any) -> bool:
    (name,) = named_weights(layer)
    sizes = named_weights(layer)[name].shape
    p.bind(name, *((v if size > 1 else None, FOLLOWS) for v, size in zip(p.given[0][1:], sizes, strict=True)))
    p.outputs[0][:] = p.given[0]
    p.weights.rebuild = lambda keep: reconfigured(layer, {})
    return True


def _embedding(p: Parametric, layer: Any) -> bool:
    if not p.known("embeddings"):
        return False
    p.labels.fix(p.given[0], f"{layer.name} looks rows up by it")
    made = p.new("output_dim", layer.output_dim)
    p.bind("embeddings", (None, ""), (made, MAKES))
    p.outputs[0][-1] = made
    p.weights.rebuild = lambda keep: reconfigured(layer, {"output_dim": keep(made).size})
    return True


def _einsum(p: Parametric, layer: Any) -> bool:
    if "..." in layer.equation or not p.known("kernel", "bias"):
        return False
    operands, result = layer.equation.replace(" ", "").split("->")
    given, kernel = operands.split(",")
    if len(set(given)) < len(given) or len(set(kernel)) < len(kernel):
        return False
    known: dict[str, Vector | None] = dict(zip(given, p.given[0], strict=True))
    for letter, size in zip(kernel, layer.kernel.shape, strict=True):
        if letter not in known:  # of several new axes (heads, their width) the first can be pruned
            first = not any(key in p.weights.made for key in kernel if key != letter) and int(size) > 1
            known[letter] = p.new(letter, int(size)) if first else p.zeros(size)
            p.mixing(known[letter], "activation")  # type: ignore[arg-type]
    role = {letter: READS if letter not in result else FOLLOWS if letter in given else MAKES for letter in kernel}
    p.bind("kernel", *((known[letter], role[letter]) for letter in kernel))
    if layer.bias_axes:
        p.bind("bias", *((known[letter], FOLLOWS) for letter in result if letter in layer.bias_axes))
    p.reads = [(0, given.index(letter)) for letter in kernel if role[letter] == READS]
    p.outputs[0][:] = [known[letter] for letter in result]
    sizes = tuple(layer.partial_output_shape)

    def rebuild(keep: Keep) -> Any:
        pairs = zip(result[-len(sizes) :], sizes, strict=True)
        shape = [size if size is None or known[x] is None else keep(known[x]).size for x, size in pairs]  # type: ignore[arg-type]
        return reconfigured(layer, {"output_shape": tuple(shape)})

    p.weights.rebuild = rebuild
    return True


def _recurrent(p: Parametric, layer: Any) -> bool:
    made = _cell(p, layer, "")
    if made is None:
        return False
    _states(p, made)
    p.weights.rebuild = lambda keep: reconfigured(layer, {"units": keep(made).size})
    return True


def _cell(p: Parametric, layer: Any, suffix: str) -> Vector | None:
    """The units of a recurrent layer, its weights bound; initial states have the same labels."""
    gates = next((n for kind, n in _GATES.items() if isinstance(layer, kind)), None)
    if gates is None or _rule(layer) is not _recurrent:
        return None
    own = named_weights(layer)
    if not set(own) <= {"kernel", "recurrent_kernel", "bias"}:
        return None
    made = p.new(f"units{suffix}", layer.units)
    for name in ("activation", "recurrent_activation"):
        if not elementwise(getattr(layer, name, None)):
            p.labels.fix(made, f"the activation of {p.layer.name} mixes channels")
    wide = np.tile(made, gates)
    p.bind(f"kernel{suffix}", (p.given[0][-1], READS), (wide, MAKES))
    p.bind(f"recurrent_kernel{suffix}", (made, READS), (wide, FOLLOWS))
    if "bias" in own:
        rows = [(None, "")] * (len(own["bias"].shape) - 1)
        p.bind(f"bias{suffix}", *rows, (wide, FOLLOWS))
    p.only(-1)
    p.reads = [(0, len(p.given[0]) - 1)]
    return made


def _states(p: Parametric, made: Vector) -> None:
    """Sequences and states that go in and come out have the labels of the units; a mask has none."""
    for axes in p.outputs:
        axes[-1] = made
    tensors = list({id(t): t for t in p.call.inputs}.values())
    for axes, tensor in zip(p.given[1:], tensors[1:], strict=True):
        if tf.as_dtype(tensor.dtype).is_floating and axes[-1] is not None:
            p.labels.tie(axes[-1], made)


def _bidirectional(p: Parametric, layer: Any) -> bool:
    if len(p.given) > 1 or len(p.call.outputs) > 1:
        return False
    forward, backward = _cell(p, layer.forward_layer, ""), _cell(p, layer.backward_layer, "_1")
    if forward is None or backward is None:
        return False
    p.labels.tie(forward, backward)  # Keras knows one width for both
    p.outputs[0][-1] = np.concatenate([forward, backward]) if layer.merge_mode == "concat" else forward

    def rebuild(keep: Keep) -> Any:
        there = reconfigured(layer.forward_layer, {"units": keep(forward).size})
        back = reconfigured(layer.backward_layer, {"units": keep(backward).size})
        return type(layer)(there, merge_mode=layer.merge_mode, backward_layer=back, name=layer.name)

    p.weights.rebuild = rebuild
    return True


def _time_distributed(p: Parametric, layer: Any) -> bool:
    """The inner layer's rule, on one time step."""
    inner, step = layer.layer, tuple(v for axis, v in enumerate(p.given[0]) if axis != 1)
    rule = _rule(inner)
    if len(p.given) > 1 or rule not in (_dense, _convolution, _depthwise, _batch_normalization):
        return False
    outer, p.given, p.layer, outputs = p.given, [step], inner, p.outputs
    p.outputs = [[v for axis, v in enumerate(outputs[0]) if axis != 1]]
    try:
        if not rule(p, inner):  # type: ignore[misc]
            return False
    finally:
        p.given, p.layer, made, p.outputs = outer, layer, p.outputs, outputs
    rest = iter(made[0])
    p.outputs[0][:] = [outputs[0][1] if axis == 1 else next(rest) for axis in range(len(outputs[0]))]
    p.reads = [(n, axis + (axis > 0)) for n, axis in p.reads]
    build = p.weights.rebuild
    p.weights.rebuild = lambda keep: type(layer)(build(keep), name=layer.name)  # type: ignore[misc]
    return True


_NORMALIZATIONS = tuple(kind for name in ("LayerNormalization", "RMSNormalization")
                        if (kind := getattr(_LAYERS, name, None)) is not None)  # fmt: skip
_RULES: tuple[tuple[tuple[type, ...], Callable[[Parametric, Any], bool]], ...] = (
    ((Weight,), _weight),
    (_SEPARABLE, _separable),
    (_DEPTHWISE, _depthwise),
    (_TRANSPOSED, _transposed),
    (_CONVOLUTIONS, _convolution),
    ((_LAYERS.EinsumDense,), _einsum),
    ((_LAYERS.Dense,), _dense),
    ((_LAYERS.BatchNormalization,), _batch_normalization),
    (_NORMALIZATIONS, _layer_normalization),
    ((_LAYERS.GroupNormalization,), _group_normalization),
    ((_LAYERS.PReLU,), _prelu),
    ((_LAYERS.Embedding,), _embedding),
    (tuple(_GATES), _recurrent),
    ((_LAYERS.Bidirectional,), _bidirectional),
    ((_LAYERS.TimeDistributed,), _time_distributed),
)
