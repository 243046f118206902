"""Compiled steps made anew."""

from typing import Any


def remake(model: Any) -> None:
    """Have a model's compiled steps traced again: those traced before know nothing of what has changed since."""
    for kind in ("train", "test", "predict"):
        if getattr(model, f"{kind}_function", None) is not None:
            getattr(model, f"make_{kind}_function")(force=True)
