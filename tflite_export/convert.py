"""TensorFlow's converter: a model's function to a float file, a float file with ranges to an integer one.

Both calls are half private (seen to work in TensorFlow 2.21), so no other file makes them.
"""

import contextlib
import logging
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.lite.python import convert as _converter
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from tflite_export.errors import ExportError

_TYPES = {"int8": tf.int8, "int16x8": tf.int16}
# Runs in a fresh process: what is converted there may kill it without taking the caller along.
_CHILD = """
import sys
from tflite_export.convert import quantized
content = open(sys.argv[1], "rb").read()
open(sys.argv[2], "wb").write(quantized(content, sys.argv[3]))
"""


def frozen(call: Callable[..., Any], specs: Sequence[tf.TensorSpec]) -> Any:
    """A concrete function of fixed shapes whose variables are constants.

    Keras 3 functions must be frozen before the converter sees them: it would fail on their variables.
    """
    function = tf.function(call, autograph=False).get_concrete_function(*specs)
    return convert_variables_to_constants_v2(function, lower_control_flow=False)


def float_file(function: Any, precision: str = "float32", *, sparse: bool = False) -> bytes:
    """A frozen function as a file that computes in float.

    Fake-quantization operations become pairs of QUANTIZE and DEQUANTIZE; operations that have no counterpart stay as
    custom ones under their TensorFlow names.

    Args:
        function: of `frozen`.
        precision: "float32"; "float16" (constants stored in half precision) or "dynamic" (kernels as 8-bit integers).
        sparse: whether kernels with many zeros are stored without them, behind a DENSIFY.

    Raises:
        ExportError: the converter refuses; the message holds its reason.
    """
    try:
        with _quiet():
            converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
            converter._freeze_concrete_function = lambda: _parts(function)
            converter.allow_custom_ops = True
            converter.exclude_conversion_metadata = True
            if precision != "float32":
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
            if sparse:
                converter.optimizations = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
            if precision == "float16":
                converter.target_spec.supported_types = [tf.float16]
            return bytes(converter.convert())
    except Exception as error:
        raise ExportError(f"TensorFlow's converter refused the model: {_reason(error)}") from error


def quantized(content: bytes, precision: str) -> bytes:
    """A float file whose tensors carry ranges as an integer file.

    Tensors with minimum and maximum get a grid from them, tensors behind DEQUANTIZE keep the grid of its input.

    Args:
        content: the float file.
        precision: "int8", or "int16x8" (activations in 16 bits, kernels in 8).

    Raises:
        ExportError: the converter refuses; the message holds its reason.
    """
    inference_type = _converter.convert_inference_tf_type_to_tflite_type(_TYPES[precision], usage="inference_type flag")
    try:
        with _quiet():
            return bytes(_converter.mlir_quantize(content, inference_type=inference_type))
    except Exception as error:
        raise ExportError(f"TensorFlow's converter could not quantize the model: {_reason(error)}") from error


def quantized_in_child(content: bytes, precision: str) -> bytes:
    """`quantized` in a process of its own, for files that are known to crash the converter.

    Raises:
        ExportError: it refuses, or dies; the message holds the signal and the last lines it printed.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "float.tflite"), Path(folder, "integer.tflite")
        source.write_bytes(content)
        search = os.pathsep.join([str(Path(__file__).resolve().parent.parent), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": search, "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [sys.executable, "-c", _CHILD, str(source), str(target), precision]
        child = subprocess.run(command, capture_output=True, text=True, env=environment)
        if child.returncode == 0:
            return target.read_bytes()
    last = " ".join(child.stderr.strip().splitlines()[-3:])
    cause = f"died of signal {-child.returncode}" if child.returncode < 0 else "failed"
    raise ExportError(f"TensorFlow's converter {cause} while quantizing a model with control flow: {last}")


def _parts(function: Any) -> tuple[Any, list[Any], list[Any], Any]:
    """What the converter works with: it would freeze the function again, which takes as long as all else it does."""
    return function.graph.as_graph_def(), list(function.inputs), list(function.outputs), function


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the converter's notes off the user's screen: absl's warnings and what C++ prints on standard error."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as sink:
        os.dup2(sink.fileno(), 2)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except Exception as error:
            sink.seek(0)
            error.printed = sink.read().decode(errors="replace")  # type: ignore[attr-defined]
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            logger.setLevel(level)


def _reason(error: Exception) -> str:
    """The line of an error that says what was wrong: MLIR's own if it printed one."""
    printed = getattr(error, "printed", "") + "\n" + str(error)
    lines = [line.split("error:", 1)[1].strip() for line in printed.splitlines() if "error:" in line]
    return "; ".join(dict.fromkeys(lines)) or str(error).strip().split("\n")[0] or type(error).__name__
