"""Rows of inputs in numpy's files."""

import os
import zipfile
from typing import Any

import numpy as np


def rows_of(path: str | os.PathLike[str], labels: str | None = None) -> tuple[Any, np.ndarray | None]:
    """Samples, and labels where they are asked for.

    Args:
        path: .npy, one array; or .npz, one array for each input under its name, or a single one under any name.
        labels: name of the array of labels in a .npz.

    Returns:
        ([rows, ...] or a dict by name, labels or None).

    Raises:
        ValueError: not such a file, or an array of that name is not in it.
        OSError: it cannot be read.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{os.fspath(path)!r} is no .npy or .npz file of plain arrays") from error
    if isinstance(loaded, np.ndarray):
        if labels is not None:
            raise ValueError(f"Labels need a .npz with an array {labels!r}. Received: {os.fspath(path)!r}")
        return loaded, None
    with loaded as archive:
        arrays = {name: archive[name] for name in archive.files}
    found = None
    if labels is not None:
        if labels not in arrays:
            raise ValueError(f"{os.fspath(path)!r} holds {list(arrays)}. Received: labels={labels!r}")
        found = arrays.pop(labels)
    if not arrays:
        raise ValueError(f"{os.fspath(path)!r} holds no inputs")
    return (next(iter(arrays.values())) if len(arrays) == 1 else arrays), found
