from typing import Any


def needs_forms(model: Any, inner: bool = False) -> bool:
    return False


def runtime_forms(model: Any) -> tuple[Any, list[tuple[str, str]]]:
    return model, []
