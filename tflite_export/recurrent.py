"""The fused LSTM: TensorFlow's block operation in a float file becomes the runtime's UNIDIRECTIONAL_SEQUENCE_LSTM."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.draft import Draft

BLOCK, FUSED = "BlockLSTMV2", "UNIDIRECTIONAL_SEQUENCE_LSTM"
# Places of the fused operation's inputs: four kernels, four recurrent ones, four biases (gates i, f, c, o), two states.
KERNELS, BIASES, HIDDEN, CELL = range(1, 9), range(12, 16), 18, 19
_CELL_BOUNDS = 0.9, 63.0
_GATES = ("input", "forget", "cell", "output")


def fuse(draft: Draft) -> None:
    """Turns each block operation, which no runtime has, into the fused one; time stays the first axis.

    The block reads (length, x [T, B, F], cell state, output state, weights [F + U, 4 U], three peepholes, bias [4 U]);
    its seventh result is the output sequence [T, B, U].
    """
    for op in list(draft.operators):
        if draft.kind(op) != BLOCK:
            continue
        x, output, name = op.inputs[1], op.outputs[6], draft.name(op.outputs[6])
        weights, half = _constant(draft, op.inputs[4])
        bias, _ = _constant(draft, op.inputs[8])
        units = weights.shape[1] // 4
        kernel, recurrent = weights[:-units], weights[-units:]
        matrices = [m.T for m in (*np.split(kernel, 4, 1), *np.split(recurrent, 4, 1))]
        names = [f"{name}/{part}_{gate}" for part in ("kernel", "recurrent") for gate in _GATES]
        states = [
            draft.add_tensor((draft.tensors[x].shape[1], units), "FLOAT32", f"{name}/{state}", isVariable=True)
            for state in ("output_state", "cell_state")
        ]
        options = schema.UnidirectionalSequenceLSTMOptionsT(
            fusedActivationFunction=schema.ActivationFunctionType.TANH,
            cellClip=0.0, projClip=0.0, timeMajor=True, asymmetricQuantizeInputs=False, diagonalRecurrentTensors=False,
        )  # fmt: skip
        inputs = [x, *(_weight(draft, op, m, n, half) for m, n in zip(matrices, names, strict=True)), -1, -1, -1]
        inputs += [draft.add_constant(b, f"{name}/bias_{g}") for b, g in zip(np.split(bias, 4), _GATES, strict=True)]
        draft.become(op, FUSED, [*inputs, -1, -1, *states, -1, -1, -1, -1], options)
        op.outputs = [output]


def state_ranges(draft: Draft, op: Any, sequences: Sequence[np.ndarray], output: tuple[float, float]) -> None:
    """Writes the ranges that the integer kernel needs beside those of its input and output.

    The output state shares the output's range. The converter rounds the cell state's scale up to a power of two, and
    the kernel's tanh knows those from 2**-15 to 2**-9 only (outside it returns nonsense without an
    error): the bound of the cell state stays within.

    Args:
        draft: the float file, changed in place.
        op: a fused LSTM.
        sequences: values [T, B, F] of its input over the samples.
        output: range of the output sequence.
    """
    gates, cells = _states(draft, op, np.concatenate(sequences, axis=1).astype(np.float64))
    draft.set_range(op.inputs[HIDDEN], *output)
    bound = float(np.clip(np.abs(cells).max(), *_CELL_BOUNDS))
    draft.set_range(op.inputs[CELL], -bound, bound)
    shape, name = draft.tensors[op.inputs[HIDDEN]].shape, draft.name(op.outputs[0])
    op.intermediates = []
    for gate, values in zip(_GATES, gates, strict=True):
        op.intermediates.append(draft.add_tensor(shape, "FLOAT32", f"{name}/{gate}_intermediate"))
        draft.set_range(op.intermediates[-1], float(values.min()), float(values.max()))
    op.intermediates.append(draft.add_tensor(shape, "FLOAT32", f"{name}/hidden_intermediate"))
    draft.set_range(op.intermediates[-1], *output)


def settle(draft: Draft) -> None:
    """Gives the output state of every integer LSTM exactly the grid of its output: one is a copy of the other."""
    for op in draft.operators:
        if draft.kind(op) == FUSED and draft.type(op.inputs[HIDDEN]) == draft.type(op.outputs[0]) == "INT8":
            for index in (op.inputs[HIDDEN], op.intermediates[-1]):
                draft.tensors[index].quantization = draft.tensors[op.outputs[0]].quantization


def _states(draft: Draft, op: Any, x: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Values of the four gates before their activations and of the cell state, over all steps.

    i, f, o = sigmoid(W x + R h + b), g = tanh(W x + R h + b), c = f c + i g, h = o tanh(c).
    """
    matrices = [draft.value(op.inputs[i]).astype(np.float64) for i in KERNELS]
    biases = [draft.value(op.inputs[i]).astype(np.float64) for i in BIASES]
    units = len(biases[0])
    h = c = np.zeros((x.shape[1], units))
    gates: list[list[np.ndarray]] = [[], [], [], []]
    cells = []
    for step in x:
        before = [step @ w.T + h @ r.T + b for w, r, b in zip(matrices[:4], matrices[4:], biases, strict=True)]
        for seen, values in zip(gates, before, strict=True):
            seen.append(values)
        i, f, o = (1 / (1 + np.exp(-before[gate])) for gate in (0, 1, 3))
        c = f * c + i * np.tanh(before[2])
        h = o * np.tanh(c)
        cells.append(c)
    return [np.stack(seen) for seen in gates], np.stack(cells)


def _constant(draft: Draft, index: int) -> tuple[np.ndarray, bool]:
    """A constant as float32, and whether it is stored in half precision behind a DEQUANTIZE."""
    value = draft.value(index if draft.is_constant(index) else draft.makers()[index].inputs[0])
    return value.astype(np.float32), value.dtype == np.float16


def _weight(draft: Draft, op: Any, matrix: np.ndarray, name: str, half: bool) -> int:
    if not half:
        return draft.add_constant(matrix, name)
    stored = draft.add_constant(matrix.astype(np.float16), name)
    real = draft.add_tensor(matrix.shape, "FLOAT32", name + "_real")
    draft.insert(draft.place(op), "DEQUANTIZE", [stored], [real], schema.DequantizeOptionsT())
    return real
