"""The child's side of `Process`: holds one engine and calls its methods."""

import importlib
import os
import sys
from typing import Any

from tflite_export.bench.process import read_frame, write_frame
from tflite_export.errors import ExportError

# Name -> class with `METHODS`, the names that may be called, each method taking arrays and further arguments and
# returning (plain values, arrays). Imported on use: no engine is kept waiting by another one's runtime.
ENGINES = {
    "interpreter": "tflite_export.bench.interpreter:InterpreterEngine",
    "compiled": "tflite_export.bench.compiled:CompiledEngine",
    "profile": "tflite_export.bench.litert:ProfileEngine",
    "tflm": "tflite_export.bench.micro_engine:MicroEngine",
}


def main() -> None:
    """Answers requests until standard input ends."""
    # A runtime may write to standard output, which carries the answers: its writes go to standard error instead.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    engine: Any = None
    while (request := read_frame(sys.stdin.buffer)) is not None:
        message, arrays = request
        name, arguments = message["do"], message["with"]
        answer: tuple[dict, dict]
        try:
            if name == "open":
                module, _, kind = ENGINES[arguments.pop("engine")].partition(":")
                engine = getattr(importlib.import_module(module), kind)()
            if engine is None or name not in engine.METHODS:
                raise ValueError(f"there is no {name!r} to be called")
            answer = getattr(engine, name)(arrays, **arguments)
        except Exception as error:  # whatever a hostile file makes the runtime raise is the answer
            text = " ".join(str(error).split())
            plain = isinstance(error, (ExportError, ValueError, RuntimeError)) and text
            answer = {"error": text if plain else f"{type(error).__name__}: {text}"}, {}
        write_frame(out, *answer)


if __name__ == "__main__":
    main()
