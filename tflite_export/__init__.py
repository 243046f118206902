"""A Keras model as a `.tflite` file that is known to compute what Keras computes.

Names load on first use: reading a file (`describe`, `Runner`) imports no TensorFlow, converting a model does.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tflite_export.auditing.verdict import audit
    from tflite_export.bench.harness import benchmark
    from tflite_export.bench.page import report
    from tflite_export.bench.result import Result
    from tflite_export.bench.tables import table
    from tflite_export.bundle import export_bundle, load_bundle
    from tflite_export.description import describe
    from tflite_export.errors import ExportError
    from tflite_export.exported import Exported
    from tflite_export.exporter import export
    from tflite_export.metadata import read_metadata, write_metadata
    from tflite_export.microcontroller import firmware
    from tflite_export.parity import compare
    from tflite_export.runner import Runner

_HOME = {
    "Exported": "tflite_export.exported",
    "ExportError": "tflite_export.errors",
    "Result": "tflite_export.bench.result",
    "Runner": "tflite_export.runner",
    "audit": "tflite_export.auditing.verdict",
    "benchmark": "tflite_export.bench.harness",
    "compare": "tflite_export.parity",
    "describe": "tflite_export.description",
    "export": "tflite_export.exporter",
    "export_bundle": "tflite_export.bundle",
    "firmware": "tflite_export.microcontroller",
    "load_bundle": "tflite_export.bundle",
    "read_metadata": "tflite_export.metadata",
    "report": "tflite_export.bench.page",
    "table": "tflite_export.bench.tables",
    "write_metadata": "tflite_export.metadata",
}

__all__ = [
    "ExportError",
    "Exported",
    "Result",
    "Runner",
    "audit",
    "benchmark",
    "compare",
    "describe",
    "export",
    "export_bundle",
    "firmware",
    "load_bundle",
    "read_metadata",
    "report",
    "table",
    "write_metadata",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(_load(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _load(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != "tensorflow":
            raise
        raise ImportError("this needs TensorFlow: pip install 'tfcompress[tensorflow]'") from error


def __dir__() -> list[str]:
    return __all__
