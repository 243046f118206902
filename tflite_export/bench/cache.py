"""Where downloads and builds of a user are kept between runs."""

import os
from pathlib import Path

VARIABLE = "TFLITE_EXPORT_CACHE"


def cache_folder(*parts: str) -> Path:
    """A folder below the user's cache; it need not exist yet.

    Args:
        parts: names below the cache, such as "web".

    Returns:
        Below what the environment variable TFLITE_EXPORT_CACHE names; else the system's usual place for such files:
        XDG_CACHE_HOME, or ".cache" in the home folder.
    """
    base = os.environ.get(VARIABLE)
    if base:
        return Path(base, *parts)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "tflite_export", *parts)
