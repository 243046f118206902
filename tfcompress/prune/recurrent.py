"""Rules of recurrent layers: units, whose gates lie side by side in one kernel."""

from typing import Any

import numpy as np
import tensorflow as tf

from tfcompress.core.flavor import keras
from tfcompress.core.transformed import named_weights
from tfcompress.prune.experiments import reconfigured
from tfcompress.prune.labels import Vector
from tfcompress.prune.parametric import FOLLOWS, MAKES, READS, Keep, Parametric, elementwise

#: Layers and the number of their gates.
GATES = {keras.layers.LSTM: 4, keras.layers.GRU: 3, keras.layers.SimpleRNN: 1}


def recurrent(p: Parametric, layer: Any) -> bool:
    """LSTM, GRU and SimpleRNN."""
    made = _cell(p, layer, "")
    if made is None:
        return False
    _states(p, made)
    p.weights.rebuild = lambda keep: reconfigured(layer, {"units": keep(made).size})
    return True


def _cell(p: Parametric, layer: Any, suffix: str) -> Vector | None:
    """The units of a recurrent layer, its weights bound; initial states have the same labels."""
    gates = next((n for kind, n in GATES.items() if isinstance(layer, kind)), None)
    if gates is None or not any(type(layer).call is kind.call for kind in GATES):
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
    for given, tensor in zip(p.given[1:], tensors[1:], strict=True):
        state = given[-1]
        if tf.as_dtype(tensor.dtype).is_floating and state is not None:
            p.labels.tie(state, made)


def bidirectional(p: Parametric, layer: Any) -> bool:
    """Two recurrent layers: a unit forward and one backward go together."""
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
