"""One row of the table of composites, in this process: `python composites_row.py NAME [--plain]`; prints JSON.

`--plain`: the float model through TFLite's own converter, asked for integers only, on the same calibration data.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from composite_models import build
from coverage_row import Row

import tfcompress as tfc
import tflite_export
from tfcompress.core.replay import replay
from tfcompress.core.trace import opaque
from tflite_export.convert import frozen
from tflite_export.flatbuffer import read

keras = tf.keras
BATCH, CALIBRATION, JUDGED = 64, 128, 128


def rows(x: Any, start: int, stop: int) -> Any:
    return tf.nest.map_structure(lambda a: a[start:stop], x)


def train(model: Any, x: Any, y: np.ndarray, steps: int, rate: float) -> None:
    """Some steps of Adam on all rows but those that are judged."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, jit_compile=False)  # XLA takes longer than all steps together
    data = tf.data.Dataset.from_tensor_slices((rows(x, JUDGED, len(y)), y[JUDGED:])).shuffle(4096, seed=1)
    model.fit(data.batch(BATCH, drop_remainder=True).repeat(), steps_per_epoch=steps, epochs=1, verbose=0)


def accuracy(logits: np.ndarray, y: np.ndarray) -> float:
    """Share of right answers; of a sequence, in its second half."""
    right = logits.argmax(-1) == y
    return round(float(np.mean(right if right.ndim == 1 else right[:, right.shape[1] // 2 :])), 3)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(np.ravel(a), np.ravel(b))[0, 1])


def without_quantizers(model: Any) -> Any:
    """The model in float: the same weights, no activation rounded."""

    def call(old: Any, args: Any, kwargs: Any) -> Any:
        if not hasattr(old.operation, "describe_output"):
            return old.operation(*args, **kwargs)
        tensor = tf.nest.flatten((args, kwargs))[0]
        activation = old.operation.activation
        return keras.layers.Activation(activation)(tensor) if activation else tensor

    return replay(tfc.finalize(model), call)


def softmaxes(content: bytes, x: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """(what goes in, what comes out) of every softmax of a file, in its order: the raw input and the real output."""
    graph = read(content).subgraphs[0]
    found = [op for op in graph.operators if op.kind == "SOFTMAX"]
    values = tflite_export.Runner(content, process=True).tensors(
        x, [i for op in found for i in (op.inputs[0], op.outputs[0])]
    )
    result = []
    for op in found:
        grid, out = graph.tensors[op.outputs[0]].quantization, values[op.outputs[0]]
        is_integer = out.dtype.kind == "i" and grid is not None
        result.append((values[op.inputs[0]], grid.real(out) if is_integer else out))
    return result


def attention(content: bytes, float_content: bytes, x: Any) -> dict[str, Any]:
    """Every softmax of the integer file beside that of the float file."""
    ours, true = softmaxes(content, x), softmaxes(float_content, x)
    pairs = list(zip(ours, true, strict=False))
    return {
        "softmaxes": [len(ours), len(true)],
        "distinct": [[len(np.unique(a[0])), min(256, len(np.unique(b[0])))] for a, b in pairs],
        "follows": [round(correlation(a[1], b[1]), 4) if a[1].shape == b[1].shape else 0.0 for a, b in pairs],
    }


def continues(quantized: Any, x: Any, y: np.ndarray) -> None:
    """Saved and loaded, a model computes the same and trains on from where it stopped."""
    with tempfile.TemporaryDirectory() as folder:
        quantized.save(Path(folder) / "model.keras")
        loaded = keras.models.load_model(Path(folder) / "model.keras")
    judged = rows(x, 0, JUDGED)
    before = quantized.predict(judged, verbose=0)
    apart = float(np.abs(before - loaded.predict(judged, verbose=0)).max())
    if apart > 1e-5 * float(np.abs(before).max()):
        raise ValueError(f"loaded, it computes something else: {apart:.2g}")
    losses = []
    for model in (quantized, loaded):
        losses.append([float(model.train_on_batch(rows(x, i, i + BATCH), y[i : i + BATCH])) for i in (256, 320, 384)])
    if not np.allclose(*losses, rtol=1e-3):
        raise ValueError(f"loaded, it trains on otherwise: losses {losses}")


def ours(row: Row, model: Any, x: Any, y: np.ndarray, steps: int) -> None:
    row.stages["float accuracy"] = accuracy(model.predict(rows(x, 0, JUDGED), verbose=0), y[:JUDGED])
    quantized = row.stage("quantize", lambda: tfc.quantize_model(model))
    row.stages["opaque"] = opaque(quantized)
    row.stage("train", lambda: train(quantized, x, y, steps, 3e-4))
    row.stage("save", lambda: continues(quantized, x, y))
    calibration, judged = rows(x, JUDGED, JUDGED + CALIBRATION), rows(x, 0, JUDGED)
    export = lambda allow: tflite_export.export(quantized, "int8", calibration=calibration, allow_float=allow)  # noqa: E731
    try:
        exported = row.stage("int8", lambda: export(False))
    except tflite_export.ExportError:
        exported = export(True)
    expected = quantized.predict(judged, verbose=0)
    received = row.stage("run", lambda: tflite_export.Runner(exported, process=True)(judged))
    row.stages["float operations"] = list(exported.report.float_operations)
    row.stages["correlation"] = round(correlation(expected, received), 5)
    row.stages["accuracy"] = [accuracy(expected, y[:JUDGED]), accuracy(received, y[:JUDGED])]
    reference = tflite_export.export(without_quantizers(quantized), "float32")
    row.stages |= attention(exported.content, reference.content, judged)
    row.stages["summary"] = str(tfc.summary(quantized))


def plain(row: Row, model: Any, x: Any, y: np.ndarray) -> None:
    """What the converter alone makes of the float model."""
    symbols = tf.nest.flatten(model.input)
    arrays = tf.nest.flatten(x)  # dicts in the order of their sorted keys, as Keras flattens them
    specs = [tf.TensorSpec((1, *a.shape[1:]), a.dtype, name=f"input_{i}") for i, a in enumerate(arrays)]
    given = lambda t: tf.nest.pack_sequence_as(x, list(t)) if len(symbols) > 1 else t[0]  # noqa: E731
    function = frozen(lambda *t: [tf.identity(model(given(t), training=False))], specs)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
    float_content = converter.convert()
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.representative_dataset = lambda: (
        [a[i : i + 1] for a in arrays] for i in range(JUDGED, JUDGED + CALIBRATION)
    )
    content = row.stage("int8", converter.convert)
    names = list(tflite_export.Runner(content, process=True).inputs)
    at = lambda name: int(name.split("input_")[-1].split(":")[0]) if "input_" in name else 0  # noqa: E731
    judged = {name: arrays[at(name)][:JUDGED] for name in names}
    received = row.stage("run", lambda: tflite_export.Runner(content, process=True)(judged))
    expected = model.predict(rows(x, 0, JUDGED), verbose=0)
    row.stages["float operations"] = [
        operation.kind for operation in tflite_export.describe(content).float_operations()
    ]
    row.stages["correlation"] = round(correlation(expected, received), 5)
    row.stages["accuracy"] = [accuracy(expected, y[:JUDGED]), accuracy(received, y[:JUDGED])]
    row.stages |= attention(content, float_content, judged)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--steps", type=int, nargs=2, default=(600, 100))
    options = parser.parse_args()
    row = Row()
    try:
        built = build(options.name)
        if built is None:
            row.reason = "not in this flavor"
        else:
            train(*built, options.steps[0], 2e-3)
            plain(row, *built) if options.plain else ours(row, *built, options.steps[1])
    except Exception as error:
        row.reason = row.reason or f"{type(error).__name__}: {str(error).strip()[:400]}"
    sys.stdout.write("\n" + json.dumps({"name": options.name, **vars(row)}) + "\n")


if __name__ == "__main__":
    main()
