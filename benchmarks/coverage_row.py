"""One row of the coverage table, in this process: `python benchmarks/coverage_row.py NAME [--tfmot]`; prints JSON."""

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from architectures import build, targets

keras = tf.keras


class Row:
    """Stages in their order, each with what it said; the first that fails ends the row."""

    def __init__(self) -> None:
        self.stages: dict[str, Any] = {}
        self.seconds: dict[str, float] = {}
        self.reason = ""

    def stage(self, name: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        try:
            result = work()
        except Exception as error:
            self.stages[name] = False
            lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
            self.reason = self.reason or f"{name}: {type(error).__name__}: {' '.join(lines)[:400]}"
            raise
        finally:
            self.seconds[name] = round(time.perf_counter() - start, 1)
        self.stages[name] = True
        return result


def train_one_step(model: Any, x: Any, y: Any) -> None:
    """One step of Adam that must move every kernel; epsilon is small because random networks have small gradients."""
    model.compile(keras.optimizers.Adam(1e-3, epsilon=1e-12), "mse")
    before = [(w, np.array(w)) for w in model.trainable_weights]
    model.fit(x, y, batch_size=8, epochs=1, steps_per_epoch=1, verbose=0)
    still = [getattr(w, "path", w.name) for w, old in before if old.ndim > 1 and not np.any(np.array(w) != old)]
    if still:
        raise ValueError(f"{len(still)} of {len(before)} weights did not move, such as {still[0]}")
    broken = [getattr(w, "path", w.name) for w, _ in before if not np.isfinite(np.array(w)).all()]
    if broken:
        raise ValueError(f"{len(broken)} weights are not finite after the step, such as {broken[0]}")


def flat(structure: Any) -> np.ndarray:
    return np.concatenate([np.ravel(np.asarray(part, "float64")) for part in tf.nest.flatten(structure)])


def decibels(expected: Any, received: Any) -> float:
    expected, received = flat(expected), flat(received)
    signal, noise = np.mean((expected - expected.mean()) ** 2), np.mean((expected - received) ** 2)
    return round(min(99.9, float(10 * np.log10(max(signal, 1e-30) / max(noise, 1e-30)))), 1)


def same_when_finalized(quantized: Any, final: Any, x: Any) -> None:
    """Computed operation by operation both are the same; a compiled graph of one model alone rounds in other places."""
    found = decibels(quantized(x, training=False), final(x, training=False))
    if found < 90:
        raise ValueError(f"the finalized model differs: {found} dB")


def ours(name: str, row: Row) -> None:
    from integers import matched

    import tfcompress as tfc
    import tflite_export
    from tfcompress.core.transformed import integer_weights

    model, x = build(name)
    if model is None:
        row.reason = "not in this flavor"
        return
    y = targets(model, x)
    quantized = row.stage("quantize", lambda: tfc.quantize_model(model))
    row.stage("step", lambda: train_one_step(quantized, x, y))
    row.stage("finalize", lambda: same_when_finalized(quantized, tfc.finalize(quantized), x))
    expected = quantized.predict(x, verbose=0)
    try:
        exported = row.stage("int8", lambda: tflite_export.export(quantized, "int8", calibration=x))
    except tflite_export.ExportError:
        exported = tflite_export.export(quantized, "int8", calibration=x, allow_float=True)
        row.stages["with float"] = True
    runner = tflite_export.Runner(exported, process=True)
    received = row.stage("run", lambda: runner(x))
    row.stages["dB"] = decibels(expected, received)
    row.stages["bytes"] = len(exported.content)
    found, total, missing = matched(exported.content, [w.codes for w in integer_weights(quantized)])
    row.stages["8 bits"] = [found, total, missing[:3]]

    def four_bits() -> Any:
        quantized = tfc.calibrate(tfc.quantize_model(model, "w4a8"), x)
        codes = [w.codes for w in integer_weights(quantized)]
        exported = tflite_export.export(quantized, "int8", calibration=x)
        widest = max((int(np.abs(c).max()) for c in codes), default=0)
        if widest > 7:
            raise ValueError(f"a code of {widest} has no place in four bits")
        return matched(exported.content, codes)

    found, total, missing = row.stage("w4a8", four_bits)
    row.stages["4 bits"] = [found, total, missing[:3]]


def tfmot(name: str, row: Row) -> None:
    from tensorflow_model_optimization.quantization.keras import quantize_model

    model, x = build(name)
    if model is None:
        row.reason = "not in this flavor"
        return
    y = targets(model, x)
    quantized = row.stage("quantize", lambda: quantize_model(model))
    row.stage("step", lambda: train_one_step(quantized, x, y))

    def convert() -> bytes:
        converter = tf.lite.TFLiteConverter.from_keras_model(quantized)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        return converter.convert()

    row.stage("int8", convert)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--tfmot", action="store_true")
    options = parser.parse_args()
    row = Row()
    try:
        (tfmot if options.tfmot else ours)(options.name, row)
    except Exception as error:
        row.reason = row.reason or f"{type(error).__name__}: {str(error).strip()[:400]}"
    sys.stdout.write("\n" + json.dumps({"name": options.name, **vars(row)}) + "\n")


if __name__ == "__main__":
    main()
