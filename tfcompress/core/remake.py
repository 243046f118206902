"""A compiled training step made anew."""

from typing import Any


def remake(model: Any) -> None:
    """Have a model's training step traced again: one that was traced before knows nothing of what has changed since."""
    if getattr(model, "train_function", None) is not None:
        model.make_train_function(force=True)
