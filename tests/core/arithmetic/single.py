"""Files of one operation, written table by table, and what the three kernel sets compute with them."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import tensorflow as tf

from tests.tflite_export import handmade
from tfcompress.core.arithmetic.codes import Codes, Lattice
from tflite_export.flatbuffer import load, store

TYPES = {8: np.int8, 16: np.int16, 32: np.int32, 64: np.int64}
ARENA = 1 << 26  # of the microcontrollers' interpreter, bytes


def lattice(scale: float, zero: int = 0, bits: int = 8) -> Lattice:
    """A lattice of constants; the scale is rounded to float32, as the file does."""
    return Lattice(tf.constant(scale, tf.float32), tf.constant(zero, tf.int32), bits)


def random_lattice(rng: np.random.Generator, bits: int = 8, low: float = 1e-3, high: float = 1.0) -> Lattice:
    """Scale spread evenly over its logarithm, any zero point (16 bits: 0, as the runtime demands)."""
    zero = int(rng.integers(-128, 128)) if bits == 8 else 0
    return lattice(float(np.exp(rng.uniform(np.log(low), np.log(high)))), zero, bits)


def random_codes(rng: np.random.Generator, shape: Sequence[int], bits: int = 8) -> np.ndarray:
    """Codes of the whole grid, both ends well represented."""
    first, last = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    values = rng.integers(first, last + 1, shape)
    return np.where(rng.random(shape) < 0.05, rng.choice([first, last], shape), values).astype(TYPES[bits])


def codes(values: np.ndarray, grid: Lattice) -> Codes:
    """A runtime's integers as the library's codes."""
    return Codes(tf.constant(values, tf.float32), grid)


def activation(shape: Sequence[int], grid: Lattice) -> SimpleNamespace:
    """A tensor that the file is given, or computes."""
    return handmade.tensor(shape, f"INT{grid.bits}", scale=float(grid.scale), zero=int(grid.zero))


def constant(data: np.ndarray, scale: Any = None, zero: Any = 0, axis: int = 0) -> SimpleNamespace:
    """A tensor that stands in the file: integers with one scale or several along `axis`, or plain numbers (None)."""
    zero = None if scale is None else np.broadcast_to(zero, np.shape(scale))
    return handmade.tensor(data.shape, str(data.dtype).upper(), data, scale, zero, axis)


def file_of(kind: str, operands: Sequence[SimpleNamespace | None], outputs: Any, options: Any = None) -> bytes:
    """A file of one operation.

    Args:
        kind: "CONV_2D".
        operands: in the operation's order; those without data are the file's inputs, None an operand left out.
        outputs: a tensor or several.
        options: the schema's object, such as `schema.Conv2DOptionsT(...)`.
    """
    made = list(outputs) if isinstance(outputs, list | tuple) else [outputs]
    given = [operand for operand in operands if operand is not None]
    numbers = iter(range(len(given)))
    order = [-1 if operand is None else next(numbers) for operand in operands]
    inputs = [number for number, operand in enumerate(given) if operand.data is None]
    results = [len(given) + number for number in range(len(made))]
    written = handmade.file_of([*given, *made], [handmade.op(kind, order, results, options)], inputs, results)
    return store(load(written))


def run(content: bytes, inputs: Sequence[np.ndarray], kernels: str, *, child: bool = False) -> Any:
    """What a kernel set computes: the integers of the only output, or a list of several.

    Args:
        content: the file.
        inputs: integers, in the file's order.
        kernels: "xnnpack", "reference" or "tflm".
        child: in a process of its own, which a runtime that aborts takes down alone.
    """
    if child:
        return _run_in_child(content, inputs, kernels)
    if kernels == "tflm":
        from tflite_micro import runtime

        micro = runtime.Interpreter.from_bytes(content, arena_size=ARENA)
        for number, value in enumerate(inputs):
            micro.set_input(value, number)
        micro.invoke()
        count = len(load(content).subgraphs[0].outputs)
        found = [np.array(micro.get_output(number)) for number in range(count)]
    else:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        resolver = {"xnnpack": OpResolverType.AUTO, "reference": OpResolverType.BUILTIN_REF}[kernels]
        lite = Interpreter(model_content=content, experimental_op_resolver_type=resolver, num_threads=1)
        lite.allocate_tensors()
        for detail, value in zip(lite.get_input_details(), inputs, strict=True):
            lite.set_tensor(detail["index"], value)
        lite.invoke()
        found = [lite.get_tensor(detail["index"]) for detail in lite.get_output_details()]
    return found[0] if len(found) == 1 else found


def _run_in_child(content: bytes, inputs: Sequence[np.ndarray], kernels: str) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "m.tflite").write_bytes(content)
        np.savez(place / "in.npz", *inputs)
        command = [sys.executable, "-m", "tests.core.arithmetic.single", json.dumps([folder, kernels])]
        done = subprocess.run(command, capture_output=True, check=False, cwd=Path(__file__).parents[3])
        if done.returncode:
            raise RuntimeError(f"the runtime ended with {done.returncode}: {done.stderr.decode()[-500:]}")
        with np.load(place / "out.npz") as got:
            found = [got[name] for name in got.files]
    return found[0] if len(found) == 1 else found


def equal_part(expected: np.ndarray, got: Codes) -> float:
    """Which part of the runtime's integers the library computes; the shapes must be the same."""
    values = got.values.numpy()
    if values.shape != expected.shape:
        raise AssertionError(f"shapes differ: runtime {expected.shape}, library {values.shape}")
    return float(np.mean(values == expected))


def main() -> None:
    """The child's side of `run`."""
    folder, kernels = json.loads(sys.argv[1])
    with np.load(Path(folder) / "in.npz") as got:
        inputs = [got[f"arr_{number}"] for number in range(len(got.files))]
    found = run((Path(folder) / "m.tflite").read_bytes(), inputs, kernels)
    np.savez(Path(folder) / "out.npz", *(found if isinstance(found, list) else [found]))


if __name__ == "__main__":
    main()
