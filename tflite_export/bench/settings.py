"""Values of a target's options, which come as text from a command line and as numbers from a program."""

import math
from collections.abc import Mapping
from typing import Any


def positive(options: Mapping[str, Any], name: str, default: float) -> float:
    """A positive number.

    Raises:
        ValueError: it is none; the message names the option.

    >>> positive({"timeout": "2.5"}, "timeout", 60), positive({}, "timeout", 60)
    (2.5, 60.0)
    """
    value = options.get(name, default)
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not math.isfinite(number) or number <= 0:
        raise ValueError(f"`{name}` must be a positive number. Received: {name}={value!r}")
    return number
