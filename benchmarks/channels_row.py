"""One row of the channels table, in this process: `python benchmarks/channels_row.py NAME`; prints JSON."""

import argparse
import json
import sys
import time
from typing import Any

import numpy as np
from architectures import FAMILIES, build

import tfcompress as tfc
import tflite_export
from tests.prune.oracle import error
from tfcompress.core.budgets import cost_of
from tfcompress.core.trace import trace
from tfcompress.prune.channels import candidates, kept_of
from tfcompress.prune.costs import Costs
from tfcompress.prune.flow import Flow
from tfcompress.prune.importance import importance

RATIOS = (0.3, 0.5)


class Prediction:
    """What smaller models should cost, by the counts of the groups alone."""

    def __init__(self, model: Any) -> None:
        self.flow = Flow(trace(model))
        self.before = cost_of(self.flow.model)
        self.groups, _ = candidates(self.flow, None)
        self.scores = importance(self.flow, self.groups, "l1", None, model)

    def cost(self, ratio: float, round_to: int) -> dict[str, int]:
        kept = kept_of(self.flow, list(zip(self.groups, self.scores, strict=True)), ratio, round_to, "l1")
        return Costs(self.flow, self.groups).of(kept)


def exported(small: Any, x: Any) -> None:
    """Quantized, calibrated, a full INT8 file, run once."""
    quantized = tfc.calibrate(tfc.quantize_model(small), x)
    runner = tflite_export.Runner(tflite_export.export(quantized, "int8", calibration=x), process=True)
    outputs = runner(x)
    if not all(np.isfinite(part).all() for part in (outputs.values() if isinstance(outputs, dict) else [outputs])):
        raise ValueError("the file gives numbers that are not finite")


def prune(name: str, model: Any, x: Any, prediction: Prediction, ratio: float, int8: bool) -> dict[str, Any]:
    round_to = 8 if name in FAMILIES else 1
    start = time.perf_counter()
    small = tfc.prune_channels(model, ratio, round_to=round_to)
    seconds = round(time.perf_counter() - start, 1)
    before, after = prediction.before, cost_of(small)
    foreseen = prediction.cost(ratio, round_to)
    result = {
        "error": error(model, small, x), "seconds": seconds,
        "params": after["params"] / before["params"], "macs": after["macs"] / max(before["macs"], 1),
        "as predicted": foreseen == after,
        "shapes": small.input_shape == model.input_shape and small.output_shape == model.output_shape
        if hasattr(model, "input_shape") and name != "subclassed" else True,
    }  # fmt: skip
    if int8:
        try:
            exported(small, x)
            result["int8"] = True
        except Exception as problem:
            result |= {"int8": False, "reason": f"{type(problem).__name__}: {' '.join(str(problem).split())[:300]}"}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--no-int8", action="store_true")
    parser.add_argument("--ratio", type=float, action="append", help="of channels; default: 0.3 and 0.5")
    options = parser.parse_args()
    stages: dict[str, Any] = {}
    reason = ""
    model, x = build(options.name)
    prediction = None if model is None else Prediction(model)
    for ratio in options.ratio or RATIOS:
        if prediction is None:
            reason = "not in this flavor"
            break
        try:
            stages[str(ratio)] = prune(options.name, model, x, prediction, ratio, not options.no_int8)
            reason = reason or stages[str(ratio)].get("reason", "")
        except Exception as problem:
            stages[str(ratio)] = {}
            reason = f"{ratio}: {type(problem).__name__}: {' '.join(str(problem).split())[:400]}"
    sys.stdout.write("\n" + json.dumps({"name": options.name, "stages": stages, "reason": reason}) + "\n")


if __name__ == "__main__":
    main()
