"""The demo app for the tests' phone: reads the manifest, runs the models with LiteRT, writes results.json."""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def main() -> None:
    path, behaviour = Path(sys.argv[1]), sys.argv[2]
    manifest = json.loads(path.read_text())
    told = {
        "schema": 1,
        "run": manifest["run"],
        "finished": False,
        "error": "",
        "app": "1.0",
        "runtime": "TensorFlow Lite",
        "version": "2.16.1",
        "entries": [],
    }
    if behaviour == "old":
        told["schema"] = 9

    def write() -> None:
        beside = path.with_name("results.json.new")
        beside.write_text(json.dumps(told))
        os.replace(beside, path.with_name("results.json"))

    write()
    for number, model in enumerate(manifest["models"]):
        if behaviour == "dies" and number:
            sys.exit(1)
        if behaviour == "hangs":
            time.sleep(600)
        told["entries"].append(entry(path.parent, manifest, model, number, behaviour))
        write()
    told["finished"] = True
    write()


def entry(folder: Path, manifest: dict, model: dict, number: int, behaviour: str) -> dict:
    base = {"name": model["name"], "sha256": model["sha256"]}
    try:
        interpreter = Interpreter(str(folder / model["file"]))
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        return {**base, "status": "failed", "reason": str(error)}
    for detail, given in zip(interpreter.get_input_details(), model["inputs"], strict=True):
        raw = (folder / given["file"]).read_bytes()
        interpreter.set_tensor(detail["index"], np.frombuffer(raw, detail["dtype"]).reshape(detail["shape"]))
    interpreter.invoke()
    outputs = []
    runner = interpreter.get_signature_runner() if interpreter.get_signature_list() else None
    names = list(runner.get_output_details()) if runner else [d["name"] for d in interpreter.get_output_details()]
    for position, (name, detail) in enumerate(zip(names, interpreter.get_output_details(), strict=True)):
        values = interpreter.get_tensor(detail["index"])
        (folder / f"out{number}_{position}").write_bytes(
            (values[::-1] * 0 if behaviour == "wrong" else values).tobytes()
        )
        outputs.append({"name": name, "file": f"out{number}_{position}"})
    return {
        **base, "status": "ok", "reason": "", "delegate": "XNNPACK (4 of 4 operations)", "runs": manifest["runs"],
        "init_ms": 3.5, "first_ms": 2.25, "median_ms": "soon" if behaviour == "damaged" else 0.5, "p90_ms": 0.75,
        "p99_ms": 1.0, "min_ms": 0.25, "spread": 0.125, "ratio": 1.5 if number else None, "peak_memory": 4096,
        "outputs": [] if behaviour == "own" else outputs,
        "agreement": {"against": "expected", "values": 10, "equal": 0.5, "largest": 1.0, "unit": "steps"}
        if behaviour == "own" else None,
        "operations": [{"kind": "CONV_2D", "name": "conv", "where": "XNNPACK", "ms": 0.25}] * manifest["profile"],
        "warnings": ["the screen was off"],
    }  # fmt: skip


if __name__ == "__main__":
    main()
