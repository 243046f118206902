"""One row of the low-rank table, in this process: `python benchmarks/lowrank_row.py NAME`; prints JSON."""

import argparse
import json
import sys
import time
from typing import Any

import numpy as np
import tensorflow as tf
from architectures import build

import tfcompress as tfc
import tflite_export


def outputs(structure: Any) -> np.ndarray:
    return np.concatenate([np.ravel(np.asarray(part, "float64")) for part in tf.nest.flatten(structure)])


def work(model: Any, x: Any, budget: float, stages: dict[str, Any]) -> None:
    """Factorize within the budget, run, export full INT8, run the file."""
    before = tfc.summary(model)
    start = time.perf_counter()
    small = tfc.factorize_model(model, {"macs": budget})
    stages["seconds"] = round(time.perf_counter() - start, 1)
    after = tfc.summary(small)
    said = [row.done for row in after.rows]
    stages |= {
        "params": after.parameters / before.parameters,
        "factorized": sum(", error" in text or "kernel error" in text for text in said),
        "kept": sum("does not pay" in text for text in said),
    }  # fmt: skip
    expected, received = outputs(model.predict(x, verbose=0)), outputs(small.predict(x, verbose=0))
    if not np.isfinite(received).all():
        raise ValueError("the outputs are not finite")
    stages["correlation"] = float(np.corrcoef(expected, received)[0, 1])
    file = tflite_export.export(tfc.calibrate(tfc.quantize_model(small), x), "int8")
    described = tflite_export.describe(file)
    stages |= {"macs": described.macs() / before.macs, "int8": not described.float_operations()}
    if not np.isfinite(outputs(tflite_export.Runner(file, process=True)(x))).all():
        raise ValueError("the file gives numbers that are not finite")
    stages["run"] = True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--macs", type=float, default=0.7)
    options = parser.parse_args()
    stages: dict[str, Any] = {}
    reason = ""
    model, x = build(options.name)
    if model is None:
        reason = "not in this flavor"
    else:
        try:
            work(model, x, options.macs, stages)
        except Exception as problem:
            reason = f"{type(problem).__name__}: {' '.join(str(problem).split())[:400]}"
    sys.stdout.write("\n" + json.dumps({"name": options.name, "stages": stages, "reason": reason}) + "\n")


if __name__ == "__main__":
    main()
