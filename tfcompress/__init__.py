"""Compress a Keras model for the edge: quantization-aware training and more, in an ordinary `model.fit`.

Works with Keras 3 (the default) and with tf_keras (`TF_USE_LEGACY_KERAS=1`). Names load on first use, so that
`import tfcompress` costs nothing until a model is touched. Where TensorFlow was imported before it, saved compressed
models load by `keras.models.load_model` from then on.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfcompress import distill, factorize, lora, prune, quantize
    from tfcompress.core.errors import CompressionError
    from tfcompress.core.summary import summary
    from tfcompress.core.trace import trace
    from tfcompress.core.transformed import finalize
    from tfcompress.factorize import factorize_model
    from tfcompress.lora import add_lora, merge_lora
    from tfcompress.prune import prune_channels, prune_layers
    from tfcompress.quantize import calibrate, quantize_model

_HOME = {
    "CompressionError": "tfcompress.core.errors",
    "add_lora": "tfcompress.lora",
    "calibrate": "tfcompress.quantize",
    "factorize_model": "tfcompress.factorize",
    "finalize": "tfcompress.core.transformed",
    "merge_lora": "tfcompress.lora",
    "prune_channels": "tfcompress.prune",
    "prune_layers": "tfcompress.prune",
    "quantize_model": "tfcompress.quantize",
    "summary": "tfcompress.core.summary",
    "trace": "tfcompress.core.trace",
}
# Rooms with layers that stand in saved models.
_SAVED = ("factorize", "lora", "quantize")
_ROOMS = ("distill", "factorize", "lora", "prune", "quantize")

__all__ = [
    "CompressionError",
    "add_lora",
    "calibrate",
    "distill",
    "factorize",
    "factorize_model",
    "finalize",
    "lora",
    "merge_lora",
    "prune",
    "prune_channels",
    "prune_layers",
    "quantize",
    "quantize_model",
    "summary",
    "trace",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(_load(_HOME[name]), name)
    if name in _ROOMS:
        return _load(f"{__name__}.{name}")
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


if sys.modules.get("tensorflow") is not None:
    for _room in _SAVED:
        _load(f"{__name__}.{_room}")
